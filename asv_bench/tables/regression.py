"""Measure regressors with nothing set: ``python asv_bench/tables/regression.py --data DIR``.

Targets are scikit-learn's diabetes, Friedman's three functions with noise, and of each table in
``DIR/uci`` the last column with more than 50 values, predicted from the others; at most 4,000 rows.
Each record holds R2 of a random quarter and CPU seconds of the fit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data import tables
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from asv_bench.raw_results import append, read
from cvxnn import ConvexReLURegressor

MOST_ROWS, VALUES = 4000, 50


def methods() -> dict[str, RegressorMixin]:
    return {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 13))),
        "hgb": HistGradientBoostingRegressor(),
        "extra_trees": ExtraTreesRegressor(300),
        "gated_gaussian": ConvexReLURegressor(patterns="gaussian"),
        "equal_factors": ConvexReLURegressor(feature_factors="equal"),
        "cvxnn": ConvexReLURegressor(),
    }


def targets(folder: Path) -> Iterator[tuple[str, NDArray, NDArray]]:
    yield "diabetes", *load_diabetes(return_X_y=True)
    for make, noise in ((make_friedman1, 1.0), (make_friedman2, 100.0), (make_friedman3, 0.1)):
        yield make.__name__[5:], *make(1000, noise=noise, random_state=0)
    for name, path in tables(folder).items():
        with np.load(path) as file:
            if "X" not in file:
                continue
            X = file["X"].astype(float)
        wide = [j for j in range(X.shape[1]) if len(np.unique(X[:, j])) > VALUES]
        if wide:
            rows = np.random.RandomState(0).permutation(len(X))[:MOST_ROWS]
            yield f"{name}[{wide[-1]}]", np.delete(X, wide[-1], axis=1)[rows], X[rows, wide[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--out", type=Path, default=Path("regression.jsonl"), help="resumed")
    parser.add_argument("--splits", type=int, default=2)
    arguments = parser.parse_args()
    done = {(r["target"], r["method"], r["split"]) for r in read(arguments.out)}
    for name, X, y in targets(arguments.data):
        for split in range(arguments.splits):
            parts = train_test_split(X, y, test_size=0.25, random_state=split)
            X_train, X_test, y_train, y_test = parts
            for method, model in methods().items():
                if (name, method, split) in done:
                    continue
                np.random.seed(split)  # noqa: NPY002
                began = time.process_time()
                model.fit(X_train, y_train)
                record = {
                    "target": name,
                    "method": method,
                    "split": split,
                    "n": len(X_train),
                    "d": X.shape[1],
                    "cpu_s": time.process_time() - began,
                    "r2": float(model.score(X_test, y_test)),
                }
                append(arguments.out, record)
                print(record["target"], method, split, f"{record['r2']:.3f}", flush=True)


if __name__ == "__main__":
    main()
