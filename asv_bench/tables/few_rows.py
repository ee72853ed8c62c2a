"""Strength and probabilities of classifiers that have seen two to ten rows of each class.

For each of eight tables and each number of rows a class, 20 draws of training rows; other rows, at
most 400, are predicted. The logistic loss is fitted with several largest standard deviations of
log-odds (`cvxnn.training.automatic_strength`), of which infinity is none, beside the default loss,
the ReLU network, logistic regression with its own strength and with a chosen one, and the
frequencies of the classes.

    python asv_bench/tables/few_rows.py --data DIR

With ``--only NAME`` one of the classifiers is measured, into a file that ``--out`` names.
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from asv_bench.raw_results import append, read
from asv_bench.tables.data import tables
from cvxnn import ConvexReLUClassifier
from cvxnn.training import automatic_strength

SHIPPED: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
}
TABLES = (*SHIPPED, "ionosphere", "pima", "mammographic", "australian", "segment")
ROWS = (2, 3, 5, 10)
DEVIATIONS = (5.0, 10.0, 20.0, np.inf)
MOST_TEST_ROWS = 400
# Log-loss of a probability of 0 would be infinite.
LEAST = 1e-15


def models(rows: int) -> Iterator[tuple[str, float, object]]:
    """Return names, largest deviations of log-odds, and classifiers."""
    for deviation in DEVIATIONS:
        name = f"logistic, deviation {deviation:g}"
        yield name, deviation, ConvexReLUClassifier(loss="logistic", random_state=0)
    own = automatic_strength._LARGEST_LOG_ODDS
    yield "squared", own, ConvexReLUClassifier(random_state=0)
    relu = ConvexReLUClassifier(loss="logistic", formulation="relu", random_state=0)
    yield "logistic, ReLU", own, relu
    yield "logistic regression", own, LogisticRegression(max_iter=2000)
    chosen = LogisticRegressionCV(
        cv=min(5, rows),
        scoring="neg_log_loss",
        max_iter=2000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    yield "logistic regression, strength by folds", own, chosen
    yield "class frequencies", own, DummyClassifier(strategy="prior")


def draw(y: np.ndarray, rows: int, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of training and test rows."""
    seen = np.concatenate(
        [random.permutation(np.flatnonzero(y == label))[:rows] for label in np.unique(y)]
    )
    return seen, random.permutation(np.setdiff1d(np.arange(len(y)), seen))[:MOST_TEST_ROWS]


def measure(
    X: np.ndarray, y: np.ndarray, rows: int, draws: int, only: str | None = None
) -> dict[str, list[float]]:
    """Return the mean log-loss, its standard error and the mean accuracy of each classifier."""
    losses, right = defaultdict(list), defaultdict(list)
    for number in range(draws):
        seen, unseen = draw(y, rows, np.random.RandomState(1000 * rows + number))
        truth = np.searchsorted(np.unique(y), y[unseen])
        for name, deviation, model in models(rows):
            if only not in (None, name):
                continue
            with mock.patch.object(automatic_strength, "_LARGEST_LOG_ODDS", deviation):
                fitted = make_pipeline(StandardScaler(), model).fit(X[seen], y[seen])
            chances = fitted.predict_proba(X[unseen])
            own = np.clip(chances[np.arange(len(truth)), truth], LEAST, 1)
            losses[name].append(-float(np.log(own).mean()))
            right[name].append(float((chances.argmax(axis=1) == truth).mean()))
    found = {}
    for name, each in losses.items():
        numbers = np.mean(each), np.std(each, ddof=1) / np.sqrt(draws), np.mean(right[name])
        found[name] = [round(float(number), 4) for number in numbers]
    return found


def rows_of(name: str, paths: dict[str, Path]) -> tuple[Any, Any]:
    """Return all rows and labels of a table, of scikit-learn or of a file."""
    if name in SHIPPED:
        return SHIPPED[name](return_X_y=True)
    with np.load(paths[name]) as file:
        return file["X"].astype(float), file["y"]


def main() -> None:
    """Append a line for each table and number of rows that has none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", help="name of the classifier to measure; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    paths = tables(options.data)
    warnings.simplefilter("ignore")  # of few rows, nearly a constant may be best
    done = {(record["table"], record["rows"]) for record in read(options.out)}
    for name in TABLES:
        X, y = rows_of(name, paths)
        for rows in ROWS:
            if (name, rows) in done:
                continue
            found = measure(X, y, rows, options.draws, options.only)
            append(options.out, {"table": name, "rows": rows, "draws": options.draws, **found})
            print(name, rows, found, flush=True)


if __name__ == "__main__":
    main()
