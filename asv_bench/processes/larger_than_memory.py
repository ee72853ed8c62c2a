"""A preference head fitted to embeddings on the disk: seconds, and most memory.

``python asv_bench/processes/larger_than_memory.py --cache DIR --pairs 8192`` writes planted pairs
of 4,096 numbers to DIR once (block by block), and fits a head of 64 gates to them to a gap of 1e-2,
in a process of its own for each way: rows that stay on the disk, in float32 and in bfloat16, and
rows in memory. ``--disk 200`` lets rows on the disk come at no more than 200 MB a second. It
appends to ``larger_than_memory.jsonl`` beside it.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import ml_dtypes
import numpy as np

from asv_bench import raw_results

RESULTS = Path(__file__).with_suffix(".jsonl")
WIDTH, FACTORS, BLOCK = 4096, 256, 2048
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def make(path: Path, n_pairs: int, dtype: str) -> None:
    """Write pairs of correlated embeddings, preferred by a planted network plus noise."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((FACTORS, WIDTH), np.float32) / np.float32(FACTORS**0.5)
    teacher = rng.standard_normal((WIDTH, 8), np.float32) * np.float32(WIDTH**-0.5)
    part = path.with_suffix(".part")
    rows = np.memmap(part, DTYPES[dtype], "w+", shape=(2 * n_pairs, WIDTH))
    for first in range(0, n_pairs, BLOCK):
        n = min(BLOCK, n_pairs - first)
        X = rng.standard_normal((2 * n, FACTORS), np.float32) @ loadings
        X += rng.standard_normal((2 * n, WIDTH), np.float32)
        reward = 3 * np.maximum(X @ teacher, 0) @ np.array([1, -1] * 4, np.float32)
        swap = reward[0::2] - reward[1::2] + rng.logistic(size=n) < 0
        X = X.reshape(n, 2, WIDTH)
        X[swap] = X[swap][:, ::-1]
        rows[2 * first : 2 * (first + n)] = X.reshape(2 * n, WIDTH)
    rows.flush()
    part.rename(path)


class SlowDisk:
    """Rows of a mapped file that come at so many bytes a second at most."""

    ndim = 2

    def __init__(self, rows: np.memmap, rate: float) -> None:
        self.rows, self.rate, self.waited = rows, rate, 0.0
        self.shape, self.dtype, self._mmap = rows.shape, rows.dtype, rows._mmap  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice) -> np.ndarray:
        found = self.rows[key]
        time.sleep(found.nbytes / self.rate)
        self.waited += found.nbytes / self.rate
        return found


def timed(owner: type, name: str) -> list[float]:
    """Return what will hold the seconds of each call of a method."""
    method, seconds = getattr(owner, name), []

    def watched(*args: object) -> object:
        asked = time.perf_counter()
        found = method(*args)
        seconds.append(time.perf_counter() - asked)
        return found

    setattr(owner, name, watched)
    return seconds


def fit(
    path: Path, n_pairs: int, dtype: str, way: str, n_patterns: int, rate: float | None = None
) -> dict:
    """Fit the head and measure it; the rows are mapped, and copied to memory if so asked."""
    import cvxnn
    from cvxnn.numerics.stored_rows import StoredRows

    rows = np.memmap(path, DTYPES[dtype], "r", shape=(2 * n_pairs, WIDTH))
    held_out = np.array(rows[-2048:], np.float32)
    rows = rows[:-2048]
    won, lost = rows[0::2], rows[1::2]
    disks = [part if rate is None else SlowDisk(part, rate) for part in (won, lost)]
    won, lost = (
        np.array(part, np.float32) if way == "memory" else StoredRows(part) for part in disks
    )
    waiting = timed(Future, "result")
    reading = timed(StoredRows, "_read")
    before = high_water()
    head = cvxnn.COALAPreferenceHead(n_patterns=n_patterns, tol=1e-2, random_state=0)
    began, own = time.perf_counter(), time.process_time()
    head.fit_pairs(won, lost)
    wall, cpu = time.perf_counter() - began, time.process_time() - own
    margin = head.reward_margin(held_out[0::2], held_out[1::2])
    return {
        "way": way,
        "stored": dtype,
        "shape": [len(won) + len(lost), WIDTH],
        "n_patterns": n_patterns,
        "cpu_seconds": round(cpu, 1),
        "wall_seconds": round(wall, 1),
        "phase2_seconds": round(float(head.phase2_history_["time"][-1]), 2),
        "most_gib": round(high_water(), 3),
        "gib_before": round(before, 3),
        "gap": head.gap_,
        "objective": head.objective_,
        "n_iter": head.n_iter_,
        "flops": head.flops_,
        "phase2_gap": head.phase2_gap_,
        "accuracy": float((margin > 0).mean()),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        **(
            {
                "disk_mb_per_second": rate / 1e6,
                "disk_seconds": round(sum(disk.waited for disk in disks), 1),
                "seconds_reading": round(sum(reading), 1),
                "seconds_waited_for_rows": round(sum(waiting), 1),
            }
            if rate is not None
            else {}
        ),
    }


def high_water() -> float:
    """Return the most memory that this process has had, mapped pages included, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=8192)
    parser.add_argument("--patterns", type=int, default=64)
    parser.add_argument(
        "--ways", nargs="+", default=["disk float32", "disk bfloat16", "memory float32"]
    )
    parser.add_argument("--disk", type=float, help="Megabytes a second that the disk reads at most")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in [options.fit] if options.fit else options.ways:
        way, dtype = name.split()
        path = options.cache / f"pairs-{options.pairs}.{dtype}"
        if options.fit:
            rate = None if options.disk is None else 1e6 * options.disk
            found = fit(path, options.pairs, dtype, way, options.patterns, rate)
            raw_results.append(RESULTS, found)
            continue
        if not path.exists():
            make(path, options.pairs, dtype)
        subprocess.run([sys.executable, *sys.argv, "--fit", name], check=True)


if __name__ == "__main__":
    main()
