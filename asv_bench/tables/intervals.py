"""Do intervals of the jackknife+ hold new targets as often as they say, and at what cost?

``python asv_bench/tables/intervals.py --out intervals.jsonl [--splits 200]``. Random splits of two
data sets of scikit-learn: 150 rows to fit, 150 to test. ``prediction_interval`` takes what the fit
without each row would say from the fit itself; beside it MAPIE's jackknife+ (``CrossConformal
Regressor`` with ``cv=-1``, pip install mapie), which fits the same estimator 150 times, and its
cross-conformal sets of labels, which leave out one row at a time, on the first ``--mapie`` splits.
``--train 50 --quick`` fits fewer rows with one strength and 64 gates, so that MAPIE can be run on
all splits. One line for each data set and method; what is there is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, make_friedman1
from sklearn.model_selection import LeaveOneOut

from asv_bench.raw_results import append, read
from cvxnn import ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.explanation import label_set, prediction_interval

Floats = NDArray[np.floating]
N_TEST, LEVEL = 150, 0.9
QUICK = {"strength": 0.1, "n_patterns": 64, "patterns": "gaussian", "feature_factors": "equal"}


def main() -> None:
    arguments = _arguments()
    done = {(r["set"], r["method"]) for r in read(arguments.out)}
    n, options = arguments.train, QUICK if arguments.quick else {}
    regressor = ConvexReLURegressor(random_state=0, **options)
    classifier = ConvexReLUClassifier(random_state=0, **options)
    common = {"n": n, "options": options}
    sets = {
        "diabetes": load_diabetes(return_X_y=True),
        "friedman1": make_friedman1(2000, noise=1.0, random_state=0),
    }
    for name, (X, y) in sets.items():
        methods = {"jackknife+": jackknife, "residuals of the fit": residuals}
        for method, of in {**methods, **({"mapie": mapie} if arguments.mapie else {})}.items():
            if (name, method) in done:
                continue
            n_splits = arguments.mapie if method == "mapie" else arguments.splits
            covered, width, cpu = [], [], time.process_time()
            for seed in range(n_splits):
                rows = np.random.RandomState(seed).permutation(len(y))
                train, test = rows[:n], rows[n : n + N_TEST]
                ends = of(clone(regressor), X[train], y[train], X[test])
                covered.append(np.mean((ends[:, 0] <= y[test]) & (y[test] <= ends[:, 1])))
                width.append(np.mean(ends[:, 1] - ends[:, 0]) / y.std())
            record(arguments.out, common, name, method, covered, width, cpu)
    X, y = load_breast_cancer(return_X_y=True)
    sets_of = {"label_set": label_sets, **({"mapie": mapie_sets} if arguments.mapie else {})}
    for method, labels_of in sets_of.items():
        if ("breast_cancer", method) in done:
            continue
        n_splits = arguments.mapie if method == "mapie" else arguments.splits
        covered, size, cpu = [], [], time.process_time()
        for seed in range(n_splits):
            rows = np.random.RandomState(seed).permutation(len(y))
            train, test = rows[:n], rows[n : n + N_TEST]
            labels = labels_of(clone(classifier), X[train], y[train], X[test])
            covered.append(labels[np.arange(N_TEST), y[test]].mean())
            size.append(labels.sum(axis=1).mean())
        record(arguments.out, common, "breast_cancer", method, covered, size, cpu)


def record(
    out: Path, common: Any, name: str, method: str, covered: list[Any], size: list[Any], cpu: float
) -> None:
    found = {
        **common,
        "set": name,
        "method": method,
        "level": LEVEL,
        "n_splits": len(covered),
        "coverage": round(float(np.mean(covered)), 4),
        "standard_error": round(float(np.std(covered) / np.sqrt(len(covered))), 4),
        "size": round(float(np.mean(size)), 4),
        "cpu_s_each": round((time.process_time() - cpu) / len(covered), 3),
    }
    print(found, file=sys.stderr, flush=True)
    append(out, found)


def jackknife(model: ConvexReLURegressor, X: Floats, y: Floats, new: Floats) -> Floats:
    model.fit(X, y)
    return prediction_interval(model.influence(X, y), new, LEVEL)[:, 0]


def residuals(model: ConvexReLURegressor, X: Floats, y: Floats, new: Floats) -> Floats:
    model.fit(X, y)
    half = np.quantile(np.abs(y - model.predict(X)), LEVEL)
    predictions = model.predict(new)
    return np.column_stack([predictions - half, predictions + half])


def mapie(model: ConvexReLURegressor, X: Floats, y: Floats, new: Floats) -> Floats:
    from mapie.regression import CrossConformalRegressor

    conformal = CrossConformalRegressor(model, confidence_level=LEVEL, method="plus", cv=-1)
    conformal.fit_conformalize(X, y)
    return np.asarray(conformal.predict_interval(new)[1][:, :, 0])


def label_sets(model: ConvexReLUClassifier, X: Floats, y: Floats, new: Floats) -> NDArray[np.bool_]:
    model.fit(X, y)
    return label_set(model.influence(X, y), new, LEVEL)


def mapie_sets(model: ConvexReLUClassifier, X: Floats, y: Floats, new: Floats) -> NDArray[np.bool_]:
    from mapie.classification import CrossConformalClassifier

    conformal = CrossConformalClassifier(model, confidence_level=LEVEL, cv=LeaveOneOut())
    conformal.fit_conformalize(X, y)
    return np.asarray(conformal.predict_set(new, agg_scores="crossval")[1][:, :, 0])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("intervals.jsonl"))
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--mapie", type=int, default=0, help="splits that MAPIE is run on")
    parser.add_argument("--train", type=int, default=150, help="rows to fit")
    parser.add_argument("--quick", action="store_true", help="one strength and 64 gates")
    return parser.parse_args()


if __name__ == "__main__":
    main()
