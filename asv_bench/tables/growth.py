"""Time and memory of a default fit as data grow: ``python asv_bench/tables/growth.py --help``.

Rows are Gaussian, their classes are those of a teacher of ten ReLU neurons, cut at quantiles of its
output, with 5 % of the labels another one. All sizes are tested on the same rows. Each size runs in
a process of its own, with one thread. ``growth_figure.py`` draws the records.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import resource
import time
from itertools import product
from pathlib import Path
from typing import Any

from asv_bench.raw_results import Record, append, read

ROWS = (1000, 2000, 3000, 5000, 6000, 7000, 12000, 22000, 24000, 50000, 100000)
N_TEST = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--features", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--patterns", type=int, nargs="+", default=[0], help="0: automatic")
    parser.add_argument("--classes", type=int, nargs="+", default=[2])
    parser.add_argument("--seed", type=int, default=0, help="of the estimator")
    parser.add_argument("--threads", type=int, default=1, help="of the libraries")
    parser.add_argument("--out", type=Path, default=Path("growth.jsonl"), help="resumed if there")
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(arguments.threads)
    names = ("n", "d", "asked", "n_classes", "seed")
    done = {tuple(r.get(name) for name in names) for r in read(arguments.out)}
    for size in product(arguments.features, arguments.rows, arguments.patterns, arguments.classes):
        d, n, asked, n_classes = size
        case = (n, d, asked, n_classes, arguments.seed)
        if case not in done:
            with mp.get_context("spawn").Pool(1) as pool:
                append(arguments.out, pool.apply(measure, case))


def measure(n: int, d: int, asked: int, n_classes: int, seed: int) -> Record:
    """Fit once, after a small fit that imports what is needed."""
    from cvxnn import ConvexReLUClassifier

    X, y, X_test, y_test = draw(n, d, n_classes)
    ConvexReLUClassifier(random_state=0).fit(X[:100], y[:100])
    n_patterns = asked or "auto"
    before, began, clock = _peak_mb(), time.process_time(), time.perf_counter()
    model = ConvexReLUClassifier(n_patterns=n_patterns, random_state=seed).fit(X, y)
    return {
        "n": n,
        "d": d,
        "asked": asked,
        "n_classes": n_classes,
        "seed": seed,
        "n_patterns": model.n_patterns_,
        "strength": float(model.strength_),
        "cpu_s": time.process_time() - began,
        "wall_s": time.perf_counter() - clock,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "before_mb": before,
        "peak_mb": _peak_mb(),
        "accuracy": float(model.score(X_test, y_test)),
        "n_iter": model.n_iter_,
        "gap": model.gap_,
    }


def draw(n: int, d: int, n_classes: int = 2) -> tuple[Any, Any, Any, Any]:
    """Return rows and classes for training, and for a test."""
    import numpy as np

    rng = np.random.default_rng(0)
    teacher = rng.standard_normal((d, 10)) / np.sqrt(d), rng.standard_normal(10)

    def part(size: int, rng: np.random.Generator) -> tuple[Any, Any]:
        X = rng.standard_normal((size, d), np.float32)
        scores = np.maximum(X @ teacher[0], 0) @ teacher[1]
        cuts = np.quantile(scores, np.arange(1, n_classes) / n_classes)
        y = np.searchsorted(cuts, scores)
        # Of two classes, the other one.
        other = (y + rng.integers(1, n_classes, size)) % n_classes
        return X, np.where(rng.random(size) < 0.05, other, y)

    return *part(n, rng), *part(N_TEST, np.random.default_rng(1))


def _peak_mb() -> float:
    """Largest resident memory of this process so far, in MB (1e6 bytes), on Linux."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
