"""What the range of probabilities is worth where classes have few rows, near them and far away.

Classifiers are fitted to two, three and five rows of each class of the sixteen tables of
`few_rows_relu.py`, once; probabilities of new rows are taken as the range of the training rows'
has them (`probability_range_`) and as they are without. Far rows are the new ones, ten times as far
from the mean of the training rows, of which no one knows the class: of them the largest log-odds.

    python asv_bench/tables/few_rows_range.py --data DIR
"""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler

from asv_bench.raw_results import append, read
from asv_bench.tables.data import tables
from asv_bench.tables.few_rows import LEAST, draw, rows_of
from asv_bench.tables.few_rows_relu import CHOOSING, REPORTING, ROWS
from cvxnn import ConvexReLUClassifier

MODELS = {
    "squared": {},
    "logistic": {"loss": "logistic"},
    "multinomial": {"loss": "multinomial"},
    "squared, ReLU": {"formulation": "relu"},
    "logistic, ReLU": {"loss": "logistic", "formulation": "relu"},
}


def measure(X: np.ndarray, y: np.ndarray, rows: int, draws: int) -> dict[str, dict[str, float]]:
    """Return means over draws: log-losses of new rows, and the largest log-odds of far ones."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    for number in range(draws):
        seen, unseen = draw(y, rows, np.random.RandomState(1000 * rows + number))
        truth = np.searchsorted(np.unique(y), y[unseen])
        scale = StandardScaler().fit(X[seen])
        new = scale.transform(X[unseen])
        for name, options in MODELS.items():
            model = ConvexReLUClassifier(**options, random_state=0)
            model.fit(scale.transform(X[seen]), y[seen])
            numbers = []
            for within in (np.array([0.0, 1.0]), model.probability_range_):
                model.probability_range_ = within
                chances = model.predict_proba(new)
                own = np.clip(chances[np.arange(len(truth)), truth], LEAST, 1)
                logs = model.predict_log_proba(10 * new)
                numbers += [-float(np.log(own).mean()), float(np.ptp(logs, axis=1).max())]
            found[name].append(numbers)
    keys = ("log-loss without", "far log-odds without", "log-loss", "far log-odds")
    return {
        name: dict(zip(keys, np.round(np.mean(each, axis=0), 4).tolist(), strict=True))
        for name, each in found.items()
    }


def main() -> None:
    """Append a line for each table and number of rows that has none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    paths = tables(options.data)
    warnings.simplefilter("ignore")  # of few rows
    done = {(record["table"], record["rows"]) for record in read(options.out)}
    for name in (*CHOOSING, *REPORTING):
        X, y = rows_of(name, paths)
        for rows in ROWS:
            if (name, rows) in done:
                continue
            found = measure(X, y, rows, options.draws)
            append(options.out, {"table": name, "rows": rows, "draws": options.draws, **found})
            print(name, rows, found, flush=True)


if __name__ == "__main__":
    main()
