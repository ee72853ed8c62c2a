"""What limits the log-odds of ReLU networks that have seen few rows: two halves of the tables.

The limit by rows left out (`limit_of_fit` of `cvxnn.estimators._calibration`) was chosen on the
tables of `few_rows.py`; eight others report it. Each network is fitted once, and its log-odds are
taken as they are, limited by the scores of the rows with themselves (as for ridges), of rows left
out, and by both, which is what classifiers do.

    python asv_bench/tables/few_rows_relu.py --data DIR
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.preprocessing import StandardScaler

from asv_bench.raw_results import append, read
from asv_bench.tables.data import tables
from asv_bench.tables.few_rows import LEAST, SHIPPED, TABLES, draw
from cvxnn import ConvexReLUClassifier
from cvxnn.estimators import _calibration
from cvxnn.estimators._calibration import limit_log_odds, shrink_log_odds

CHOOSING = TABLES
REPORTING = (
    "tic-tac-toe", "contraceptive", "banana", "mushroom", "ring", "spambase", "vowel", "satimage",
)  # fmt: skip
ROWS = (2, 3, 5)


def fitted(X: np.ndarray, y: np.ndarray) -> tuple[ConvexReLUClassifier, dict[str, float]]:
    """Return a classifier whose probabilities have no range, and every limit of its log-odds."""
    limits: dict[str, float] = {}
    inner = _calibration.limit_of_fit

    def recorded(plan: Any, fit: Any, *, one_against_rest: bool) -> float:
        groups = plan.strength.sample.groups
        unseen = plan.without_themselves(fit)
        limits["none"] = 1.0
        limits["seen"] = limit_log_odds(
            plan.with_themselves(fit), groups, one_against_rest=one_against_rest
        )
        limits["left out"] = shrink_log_odds(unseen, one_against_rest=one_against_rest)
        limits["both"] = inner(plan, fit, one_against_rest=one_against_rest)
        return limits["both"]

    model = ConvexReLUClassifier(loss="logistic", formulation="relu", random_state=0)
    with mock.patch.object(_calibration, "limit_of_fit", recorded):
        model.fit(X, y)
    model.probability_range_ = np.array([0.0, 1.0])
    return model, limits


def measure(X: np.ndarray, y: np.ndarray, rows: int, draws: int) -> dict[str, list[float]]:
    """Return log-losses of new rows, their standard errors and factors, means of each limit."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(draws):
        seen, unseen = draw(y, rows, np.random.RandomState(1000 * rows + number))
        truth = np.searchsorted(np.unique(y), y[unseen])
        scale = StandardScaler().fit(X[seen])
        model, limits = fitted(scale.transform(X[seen]), y[seen])
        for name, factor in limits.items():
            model.temperature_ = factor
            chances = model.predict_proba(scale.transform(X[unseen]))
            own = np.clip(chances[np.arange(len(truth)), truth], LEAST, 1)
            found[name].append((-float(np.log(own).mean()), factor))
    return {
        name: [
            round(float(number), 4)
            for number in (
                np.mean(losses),
                np.std(losses, ddof=1) / np.sqrt(draws),
                np.mean(factors),
            )
        ]
        for name, (losses, factors) in (
            (key, zip(*each, strict=True)) for key, each in found.items()
        )
    }


def main() -> None:
    """Append a line for each table and number of rows that has none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    paths = tables(options.data)
    warnings.simplefilter("ignore")  # of few rows, nearly a constant may be best
    done = {(record["table"], record["rows"]) for record in read(options.out)}
    for rows in ROWS:
        for name in (*CHOOSING, *REPORTING):
            if (name, rows) in done:
                continue
            if name in SHIPPED:
                X, y = SHIPPED[name](return_X_y=True)
            else:
                with np.load(paths[name]) as file:
                    X, y = file["X"].astype(float), file["y"]
            half = "choosing" if name in CHOOSING else "reporting"
            found = measure(X, y, rows, options.draws)
            place = {"table": name, "half": half, "rows": rows, "draws": options.draws}
            append(options.out, {**place, **found})
            print(name, rows, found, flush=True)


if __name__ == "__main__":
    main()
