"""A point on the way to a solution, kept on the disk, from which a later call goes on.

What is kept are the weights to report, the dual point and the penalty parameters: a start, like the
result of a similar problem. Each process of a mesh keeps the rows that are its own.
"""

from __future__ import annotations

import io
import os
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.operators import PairedOperator, Weights
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result, Status
from cvxnn.files.digests import digest
from cvxnn.files.writing import replacing

# Penalty parameters of solvers that have some, columns of their history.
RHO = ("rho_weights", "rho_cones")
# Seconds between two writings.
_EVERY = 30.0


class Checkpoint:
    """File that holds a point of a program.

    Parameters
    ----------
    path : path-like
        The file. Of several processes each has its own, whose name ends in its number.
    program : ConvexProgram
        The program, with the rows of this process, on the host.
    solver : str
        Name of the method.
    """

    def __init__(self, path: str | os.PathLike[str], program: ConvexProgram, solver: str) -> None:
        import jax

        ending = f".{jax.process_index()}" if jax.process_count() > 1 else ""
        self.path = Path(f"{os.fspath(path)}{ending}")
        self._written = time.monotonic()
        op, weight = program.operator, program.sample_weight
        parts = [np.asarray(program.y), np.asarray(program.alpha, np.float64)]
        parts += [np.packbits(np.asarray(op.mask))]
        parts += [np.asarray(op.X[:: max(op.X.shape[0] // 64, 1)])]
        parts += [] if weight is None else [np.asarray(weight)]
        parts += [np.asarray(op.pairs)] if isinstance(op, PairedOperator) else []
        skip = None if program.skip is None else float(program.skip)
        about = [solver, program.formulation, skip, jax.process_count(), list(op.X.shape)]
        about += [type(program.loss).__name__, type(program.penalty).__name__]
        self._identity = digest(*parts, about, digits=32)

    def read(self) -> Result | None:
        """Return the point, or None where there is none yet.

        Raises
        ------
        ValueError
            If the file holds a point of another program, or is none of these files; name another
            file, or delete it.
        """
        if not self.path.exists():
            return None
        content = io.BytesIO(self.path.read_bytes())
        try:
            with zipfile.ZipFile(content), np.load(content, allow_pickle=False) as file:
                found = dict(file)
        except (ValueError, OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} is no checkpoint; name another file.") from error
        if str(found.get("identity")) != self._identity:
            raise ValueError(
                f"{self.path} holds a point of another program, solver or number of processes; "
                "name another file, or delete it."
            )
        dual = None
        if "residual" in found:
            dual = DualPoint(found["residual"], found.get("multipliers"))
        return Result(
            weights=Weights(found["blocks"], found.get("linear")),
            objective=np.inf,
            dual_bound=-np.inf,
            gap=np.inf,
            status=Status.STOPPED,
            n_iter=int(found["n_iter"]),
            history={name: found[name] for name in RHO if name in found},
            dual=dual,
        )

    def is_due(self) -> bool:
        """Return whether it is time to write again."""
        return time.monotonic() - self._written >= _EVERY

    def write(self, weights: Weights, dual: DualPoint | None, row: dict[str, float]) -> None:
        """Replace the point.

        Parameters
        ----------
        weights : Weights
            The point to report.
        dual : DualPoint or None
            What proves its bound.
        row : dict of float
            Newest row of the history.
        """
        parts: dict[str, Any] = {**weights._asdict(), **(dual._asdict() if dual else {})}
        parts |= {name: np.array([row[name]]) for name in RHO if name in row}
        parts = {name: part for name, part in parts.items() if part is not None}
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, identity=self._identity, n_iter=row["iteration"], **parts)
        self._written = time.monotonic()
