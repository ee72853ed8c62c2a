"""Objective, size and cost of networks over different patterns, on breast cancer.

    python asv_bench/peers/pattern_sources.py --out asv_bench/peers/pattern_sources.jsonl

Random Gaussian patterns, those of local training, and those of local training with rounds of
pricing, at ``alpha = 1e-3`` and a gap of 1e-3. A record each, with CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import problems

from asv_bench.raw_results import append
from cvxnn.training import train

ALPHA, TOL = 1e-3, 1e-3
# patterns, their number, rounds of pricing
CASES = (
    ("gaussian", 50, 0),
    ("gaussian", 200, 0),
    ("gaussian", 800, 0),
    ("local", 4, 0),
    ("local", 4, 3),
    ("local", 8, 0),
    ("local", 32, 0),
    ("local", 32, 3),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    problem = problems.load("breast_cancer", None)[0]
    X, y = problem.X.astype(np.float64), problem.y.astype(np.float64)
    train(X, y, ALPHA, 4, patterns="local", tol=TOL, random_state=0)  # imports, and first calls
    for patterns, n_patterns, n_rounds in CASES:
        began = time.process_time()
        found = train(
            X,
            y,
            ALPHA,
            n_patterns,
            patterns=patterns,
            n_rounds=n_rounds,
            tol=TOL,
            random_state=0,
        )
        record = {
            "patterns": patterns,
            "n_patterns": n_patterns,
            "n_rounds": n_rounds,
            "objective": found.result.objective,
            "gap": found.result.gap,
            "neurons": int((np.linalg.norm(found.result.weights.blocks, axis=-1) > 0).sum()),
            "cpu_s": time.process_time() - began,
        }
        append(options.out, record)
        print(record, flush=True)


if __name__ == "__main__":
    main()
