"""Pairs on the disk, solved on the device: rows sent there once, rows streamed, rows in memory.

The last measurement is of a million rows of 4,096 numbers in bfloat16, in the memory of the host.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
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


def seen(X: Any, mask: np.ndarray, rank: int, times: int = 2) -> dict[str, Any]:
    """Solve, and once more when nothing is compiled."""
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
        solver = Ridge(tol=TOL, max_dense=1, rank=rank)
        results = [solve(given, solver, mesh=mesh) for _ in range(times)]
    finally:
        RowShards.program = program  # type: ignore[method-assign]
    again = results[-1]
    return {
        "shape": [*X.shape, planted.N_PATTERNS],
        "seconds": again.history["time"][-1],
        "seconds_first": results[0].history["time"][-1],
        "n_iter": again.n_iter,
        "objective": again.objective,
        "gap": again.gap,
        "sent_gb": sent[-1] / 1e9,
    }


def rank_of(small: bool) -> int:
    return 100 if small else 1000


def memory(small: bool) -> dict[str, Any]:
    return seen(*parts(small), rank_of(small))


def stored(small: bool) -> StoredRows:
    parts(small)
    return StoredRows(np.load(Path(FOLDER.name) / "rows.npy", mmap_mode="r"))


def sent_once(small: bool) -> dict[str, Any]:
    """As the package decides: a device with room for the rows gets them once."""
    return seen(stored(small), parts(small)[1], rank_of(small))


def streamed(small: bool) -> dict[str, Any]:
    """As if the device had no room."""
    part, streamed_rows._RESIDENT = streamed_rows._RESIDENT, 0.0
    try:
        return seen(stored(small), parts(small)[1], rank_of(small))
    finally:
        streamed_rows._RESIDENT = part


def million(small: bool) -> dict[str, Any]:
    """Rows of 16 bits, which are computed with in float32; one solve."""
    n, d, step = (4000, 24, 1000) if small else (1_000_000, 4096, 20_000)
    rng = np.random.default_rng(2)
    loadings = rng.standard_normal((planted.N_FACTORS, d), np.float32)
    loadings /= np.float32((planted.N_FACTORS * d) ** 0.5)  # rows of norm about 1
    teacher = rng.standard_normal((d, 8), np.float32)
    gates = rng.standard_normal((d, planted.N_PATTERNS), np.float32)
    X, mask = np.empty((n, d), np.uint16), np.empty((n, planted.N_PATTERNS), bool)
    for start in range(0, n // 2, step):
        won, lost = (
            rng.standard_normal((step, len(loadings)), np.float32) @ loadings for _ in range(2)
        )
        values = [np.maximum(part @ teacher, 0) @ np.array([3, -3] * 4) for part in (won, lost)]
        swap = values[0] - values[1] + rng.logistic(size=step) < 0
        won[swap], lost[swap] = lost[swap], won[swap]
        for part, first in ((won, start), (lost, n // 2 + start)):
            X[first : first + step] = part.view(np.uint32) >> 16  # cuts float32 to bfloat16
            mask[first : first + step] = part @ gates >= 0
    rows = StoredRows(X.view(ml_dtypes.bfloat16))
    return {"stored": "bfloat16", **seen(rows, mask, 100 if small else 250, times=1)}


MEASUREMENTS: dict[str, record.Measurement] = {
    "rows in memory": (memory, 30),
    "stored rows, sent once": (sent_once, 25),
    "stored rows, streamed": (streamed, 40),
    "a million rows, bfloat16": (million, 100),
}

if __name__ == "__main__":
    record.run("disk", MEASUREMENTS, "jax")
