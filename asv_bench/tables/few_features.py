"""What do factors of features gain? ``python asv_bench/tables/few_features.py``.

Problems in which few of the features decide, and others in which all count alike: nothing is to be
gained there. Each record holds the accuracy (log-loss) or R2 on new rows, and CPU seconds of the
fit, of gradient boosted trees and of ours with and without factors. The summary is a table.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench.raw_results import Record, append, read

METHODS = ("hgb", "equal_factors", "cvxnn")
N, N_TEST, SEEDS = 600, 2000, 3
OUT = Path(__file__).with_name("few_features.jsonl")
Problem = Callable[[Any, int], tuple[Any, Any]]


def _normal(d: int, target: Callable[[Any], Any]) -> Problem:
    def draw(rng: Any, n: int) -> tuple[Any, Any]:
        X = rng.normal(size=(n, d))
        return X, target(X)

    return draw


def _noisy(target: Callable[[Any], Any], noise: float) -> Callable[[Any], Any]:
    own = np.random.default_rng(0)
    return lambda X: target(X) + noise * own.normal(size=len(X))


def _four_classes(X: Any) -> Any:
    return np.digitize(X[:, 0] + X[:, 1] ** 2, [0, 0.8, 1.6])


def _spirals(rng: Any, n: int) -> tuple[Any, Any]:
    angle, y = rng.uniform(0, 6 * np.pi, n), rng.integers(0, 2, n)
    arms = np.c_[angle * np.cos(angle), angle * np.sin(angle)] * np.where(y, 1, -1)[:, None]
    return arms + 0.3 * rng.normal(size=(n, 2)), y


def _friedman(rng: Any, n: int) -> tuple[Any, Any]:
    X = rng.uniform(size=(n, 10))
    y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2
    return X, y + 10 * X[:, 3] + 5 * X[:, 4] + rng.normal(size=n)


# Few features decide in the first group; in the second, none is better than the others.
FEW: dict[str, Problem] = {
    "four classes, 2 of 6": _normal(6, _four_classes),
    "sign of a product, 3 of 8": _normal(8, lambda X: X[:, :3].prod(axis=1) > 0),
    "a line and a square, 2 of 200": _normal(200, lambda X: X[:, 0] + X[:, 1] ** 2 > 1),
    "one class of 70, 1 of 5": _normal(5, lambda X: X[:, 0] > 2.2),
    "friedman1, 5 of 10": _friedman,
    "a step, 1 of 5": _normal(5, _noisy(lambda X: 100.0 * (X[:, 0] > 0.3), 1)),
    "exponential, 2 of 5": _normal(5, lambda X: np.exp(2 * X[:, 0] + X[:, 1])),
    "many zeros, 2 of 4": _normal(4, lambda X: np.maximum(X[:, 0] - 1, 0) * np.exp(X[:, 1])),
    "a line and a bend, 2 of 100": _normal(100, _noisy(lambda X: X[:, 0] + np.abs(X[:, 1]), 0.3)),
}
ALIKE: dict[str, Problem] = {
    "a ball": _normal(10, lambda X: np.linalg.norm(X, axis=1) > 3),
    "spirals": _spirals,
    "noise": _normal(4, lambda X: np.random.default_rng(len(X)).integers(0, 3, len(X))),
    "length": _normal(8, lambda X: np.linalg.norm(X, axis=1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="resumed if there")
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    done = {key(record) for record in read(arguments.out, key)}
    for name, draw in (FEW | ALIKE).items():
        for seed in range(SEEDS):
            for method in METHODS:
                if (name, seed, method) not in done:
                    named = {"problem": name, "seed": seed, "method": method}
                    append(arguments.out, named | measure(draw, seed, method))
    print("\n".join(summary(read(arguments.out, key))))


def key(record: Record) -> tuple[str, int, str]:
    return record["problem"], record["seed"], record["method"]


def measure(draw: Problem, seed: int, method: str) -> Record:
    """Fit one method to one draw of a problem."""
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(seed)
    X, y = draw(rng, N)
    new, truth = draw(rng, N_TEST)
    classes = y.dtype.kind != "f"
    model = estimator(method, classes=classes)
    began = time.process_time()
    model.fit(X, y)
    found = {"n": N, "d": X.shape[1], "cpu_s": time.process_time() - began}
    found["score"] = float(model.score(new, truth))
    if classes:
        found["log_loss"] = float(log_loss(truth, model.predict_proba(new), labels=model.classes_))
    return found


def estimator(method: str, *, classes: bool) -> Any:
    """Return the unfitted method."""
    from sklearn import ensemble

    import cvxnn

    if method == "hgb":
        named = "HistGradientBoostingClassifier" if classes else "HistGradientBoostingRegressor"
        return getattr(ensemble, named)(random_state=0)
    named = "ConvexReLUClassifier" if classes else "ConvexReLURegressor"
    factors = "auto" if method == "cvxnn" else "equal"
    return getattr(cvxnn, named)(feature_factors=factors, random_state=0)


def summary(records: list[Record]) -> list[str]:
    """Return a table of means over the seeds."""
    lines = [f"| problem | {' | '.join(METHODS)} |", "| --- " * (len(METHODS) + 1) + "|"]
    for name in FEW | ALIKE:
        cells = []
        for method in METHODS:
            own = [r for r in records if (r["problem"], r["method"]) == (name, method)]
            cell = f"{np.mean([r['score'] for r in own]):.3f}"
            if own and "log_loss" in own[0]:
                cell += f" ({np.mean([r['log_loss'] for r in own]):.3f})"
            cells.append(f"{cell}, {np.median([r['cpu_s'] for r in own]):.2f} s")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
