"""Time and memory of a default fit as rows grow: ``python asv_bench/tables/growth.py --help``.

Rows are Gaussian, their classes those of a teacher of ten ReLU neurons with 5 % of the labels
flipped. Each size runs in a process of its own, with one thread.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import resource
import time
from pathlib import Path
from typing import Any

from asv_bench.raw_results import Record, append, read

ROWS = (1000, 2000, 3000, 5000, 6000, 7000, 12000, 22000, 24000, 50000, 100000)
N_TEST = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--features", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--seed", type=int, default=0, help="of the estimator")
    parser.add_argument("--out", type=Path, default=Path("growth.jsonl"), help="resumed if there")
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    keys = {(r["d"], r["n"], r.get("seed", 0)) for r in read(arguments.out)}
    done = {(d, n) for d, n, seed in keys if seed == arguments.seed}
    for d in arguments.features:
        for n in arguments.rows:
            if (d, n) not in done:
                with mp.get_context("spawn").Pool(1) as pool:
                    append(arguments.out, pool.apply(measure, (n, d, arguments.seed)))


def measure(n: int, d: int, seed: int) -> Record:
    """Fit once, after a small fit that imports what is needed."""
    from cvxnn import ConvexReLUClassifier

    X, y, X_test, y_test = draw(n, d)
    ConvexReLUClassifier(random_state=0).fit(X[:100], y[:100])
    before, began = _peak_mb(), time.process_time()
    model = ConvexReLUClassifier(random_state=seed).fit(X, y)
    return {
        "n": n,
        "d": d,
        "seed": seed,
        "n_patterns": model.n_patterns_,
        "strength": float(model.strength_),
        "cpu_s": time.process_time() - began,
        "before_mb": before,
        "peak_mb": _peak_mb(),
        "accuracy": float(model.score(X_test, y_test)),
        "n_iter": model.n_iter_,
        "gap": model.gap_,
    }


def draw(n: int, d: int) -> tuple[Any, Any, Any, Any]:
    """Return rows and classes for training, and for a test."""
    import numpy as np

    rng = np.random.default_rng(0)
    teacher = rng.standard_normal((d, 10)) / np.sqrt(d), rng.standard_normal(10)

    def part(size: int) -> tuple[Any, Any]:
        X = rng.standard_normal((size, d), np.float32)
        scores = np.maximum(X @ teacher[0], 0) @ teacher[1]
        return X, (scores > np.median(scores)) ^ (rng.random(size) < 0.05)

    return *part(n), *part(N_TEST)


def _peak_mb() -> float:
    """Largest resident memory of this process so far, in MB (1e6 bytes), on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
