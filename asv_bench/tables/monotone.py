"""What does a classifier lose that may not fall where a feature rises?

``python asv_bench/tables/monotone.py --data DIR --out monotone.jsonl`` with the ``uci/*.npz`` of
``README.md``: features of which more should mean a higher chance, fits of 100 and 400 rows with and
without the constraint (on the rows of the fit, at eight quantiles), and how often a step to the
next quantile lowers the score of a test row.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import log_loss

from asv_bench.raw_results import append
from cvxnn import ConvexReLUClassifier
from cvxnn.training import SideConstraint

# Plasma glucose, body mass and age of pima; the age of mammographic.
FEATURES = {"pima": (1, 5, 7), "mammographic": (1,)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("monotone.jsonl"))
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    for name, features in FEATURES.items():
        with np.load(options.data / "uci" / f"{name}.npz") as file:
            X, y, test = file["X"].astype(float), file["y"], file["test"]
        for n in (100, 400):
            for draw in range(options.draws):
                rows = np.random.RandomState(draw).permutation(np.flatnonzero(~test))[:n]
                record = measure(X[rows], y[rows], X[test], y[test], features)
                record = {"table": name, "n": n, "draw": draw, **record}
                print(record, file=sys.stderr, flush=True)
                append(options.out, record)


def measure(X, y, X_test, y_test, features):  # type: ignore[no-untyped-def]
    """Fit with and without the constraint."""
    model = ConvexReLUClassifier(random_state=0).fit(X, y)
    cpu = time.process_time()
    grids = [np.unique(np.quantile(X[:, k], np.linspace(0, 1, 8))) for k in features]
    constraints = [
        SideConstraint.monotone(X, k, grid) for k, grid in zip(features, grids, strict=True)
    ]
    rising = model.constrained(X, y, constraints)
    cpu = time.process_time() - cpu
    both = (model, rising)
    return {
        "accuracy": [round(float(m.score(X_test, y_test)), 4) for m in both],
        "log_loss": [round(float(log_loss(y_test, m.predict_proba(X_test))), 4) for m in both],
        "falls": [
            round(
                float(np.mean([fall(m, X_test, *p) for p in zip(features, grids, strict=True)])), 5
            )
            for m in both
        ],
        "falls_on_rows": [
            round(float(np.mean([fall(m, X, *p) for p in zip(features, grids, strict=True)])), 5)
            for m in both
        ],
        "bounds": len(rising.prices_),
        "paid": int((rising.prices_ > 0).any(axis=1).sum()),
        "cpu_s": round(cpu, 2),
    }


def fall(model, X, feature, grid):  # type: ignore[no-untyped-def]
    """Return how often the score falls from one value of the grid to the next."""
    every = np.repeat(X, len(grid), axis=0)
    every[:, feature] = np.tile(grid, len(X))
    scores = model.decision_function(every).reshape(len(X), -1)
    return (np.diff(scores, axis=1) < -1e-6).mean()


if __name__ == "__main__":
    main()
