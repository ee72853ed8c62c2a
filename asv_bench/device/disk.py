"""Pairs on the disk, solved on the device: rows sent there once, rows streamed, rows in memory."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import planted
import record

from cvxnn.convex import ConvexProgram, PairedOperator, Ridge, SquaredL2, solve, streamed_rows
from cvxnn.convex.sharding import RowShards
from cvxnn.numerics.stored_rows import StoredRows

TOL = 1e-2
FOLDER = tempfile.TemporaryDirectory()


@cache
def parts(small: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pairs, those preferred first, and random gates on them."""
    X = np.concatenate(planted.pairs(*((2000, 24) if small else (16_384, 4096))))
    np.save(Path(FOLDER.name) / "rows.npy", X)
    rng = np.random.default_rng(1)
    gates = rng.standard_normal((X.shape[1], planted.N_PATTERNS), np.float32)
    return X, X @ gates >= 0


def seen(X: Any, small: bool) -> dict[str, Any]:
    """Solve twice, when nothing is compiled any more."""
    _, mask = parts(small)
    n = len(X) // 2
    operator = PairedOperator(X, mask, pairs=np.arange(2 * n).reshape(2, n).T)
    targets = np.ones((n, 1), np.float32)
    given = ConvexProgram(operator, targets, 1e-4, penalty=SquaredL2(), formulation="gated")
    mesh = jax.make_mesh((1,), ("rows",), devices=jax.devices()[:1])
    sent: list[int] = []
    program = RowShards.program

    def counted(self: RowShards, given: ConvexProgram) -> ConvexProgram:
        found = program(self, given)
        sent.append(self.bytes_sent)
        return found

    RowShards.program = counted  # type: ignore[method-assign]
    try:
        first, again = (
            solve(given, Ridge(tol=TOL, max_dense=1, rank=100 if small else 1000), mesh=mesh)
            for _ in range(2)
        )
    finally:
        RowShards.program = program  # type: ignore[method-assign]
    return {
        "shape": [*X.shape, planted.N_PATTERNS],
        "seconds": again.history["time"][-1],
        "seconds_first": first.history["time"][-1],
        "n_iter": again.n_iter,
        "objective": again.objective,
        "gap": again.gap,
        "sent_gb": sent[-1] / 1e9,
    }


def memory(small: bool) -> dict[str, Any]:
    return seen(parts(small)[0], small)


def stored(small: bool) -> StoredRows:
    parts(small)
    return StoredRows(np.load(Path(FOLDER.name) / "rows.npy", mmap_mode="r"))


def sent_once(small: bool) -> dict[str, Any]:
    """As the package decides: a device with room for the rows gets them once."""
    return seen(stored(small), small)


def streamed(small: bool) -> dict[str, Any]:
    """As if the device had no room."""
    part, streamed_rows._RESIDENT = streamed_rows._RESIDENT, 0.0
    try:
        return seen(stored(small), small)
    finally:
        streamed_rows._RESIDENT = part


MEASUREMENTS: dict[str, record.Measurement] = {
    "rows in memory": (memory, 30),
    "stored rows, sent once": (sent_once, 25),
    "stored rows, streamed": (streamed, 40),
}

if __name__ == "__main__":
    record.run("disk", MEASUREMENTS, "jax")
