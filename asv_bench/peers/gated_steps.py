"""Lengths of the steps by which adaptive patterns of the gated form are sought.

    python asv_bench/peers/gated_steps.py --out FILE

Ten rounds of ``train`` for each way to shorten the steps and each seed: the last objective, and
processor seconds. What is there is not run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
from problems import load

from asv_bench.raw_results import append, read
from cvxnn.training import pricing, train

Steps = tuple[tuple[float, float], ...]
STEPS: dict[str, Steps] = {
    "from 0.3": ((0.3, 0.95),),
    "from 0.5": ((0.5, 0.97),),
    "from 0.8": ((0.8, 0.93),),
    "from 0.3 and 0.5": ((0.3, 0.95), (0.5, 0.97)),
}
SEEDS = {"teacher_200x10": 5, "breast_cancer": 2}


def measure(name: str, steps: Steps, seed: int) -> dict[str, float]:
    """Objective and gain of the last round, and processor seconds."""
    problem = next(one for one in load(name, None) if one.strength == "small")
    X, y = problem.X.astype(np.float64), problem.y.astype(np.float64)
    n_patterns, began = 2 * problem.mask.shape[1], time.process_time()
    with mock.patch.dict(pricing._LENGTHS, gated=steps):
        options = {"formulation": "gated", "n_rounds": 10, "tol": 1e-4, "random_state": seed}
        found = train(X, y, problem.alpha, n_patterns, **options)
    gain, seconds = float(found.rounds["gain"][-1]), time.process_time() - began
    return {"objective": found.result.objective, "gain": gain, "cpu_seconds": seconds}


def main() -> None:
    """Run what is missing, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    path = parser.parse_args().out
    records = read(path)
    done = {(one["problem"], one["steps"], one["seed"]) for one in records}
    for name, n_seeds in SEEDS.items():
        for key in ((name, steps, seed) for steps in STEPS for seed in range(n_seeds)):
            if key not in done:
                found = measure(name, STEPS[key[1]], key[2])
                append(path, dict(zip(("problem", "steps", "seed"), key, strict=True)) | found)
    for name in SEEDS:
        for steps in STEPS:
            rows = [one for one in read(path) if (one["problem"], one["steps"]) == (name, steps)]
            objective, seconds = (median(r[k] for r in rows) for k in ("objective", "cpu_seconds"))
            print(f"{name:16} {steps:18} objective {objective:.6f}, {seconds:.1f} CPU s")


if __name__ == "__main__":
    main()
