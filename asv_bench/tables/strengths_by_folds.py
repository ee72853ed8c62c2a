"""Cost of a strength chosen by folds: ``python asv_bench/tables/strengths_by_folds.py --help``.

A single fit with its automatic strength, 20 strengths on five folds with the fit to all rows
(``ConvexReLUClassifierCV``), and the accuracy of either, for the forms that have no closed form.
Processor seconds, one thread, after a small fit of the same kind that imports what is needed.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any

from asv_bench.raw_results import Record, append, read

FORMS: dict[str, dict[str, Any]] = {
    "relu": {"formulation": "relu"},
    "relu_feature": {"formulation": "relu", "penalty": "feature"},
    "neuron": {"penalty": "neuron"},
    "feature": {"penalty": "feature"},
    "l1": {"penalty": "l1"},
}
TABLES = ("pima", "segment")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--most", type=int, default=2000, help="training rows, the first ones")
    parser.add_argument("--twice", action="store_true", help="again, when all is compiled")
    parser.add_argument("--out", type=Path, default=Path("strengths_by_folds.jsonl"))
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    done = {(r["table"], r["form"]) for r in read(arguments.out)}
    for table in arguments.tables:
        for form in arguments.forms:
            if (table, form) not in done:
                path = arguments.data / "uci" / f"{table}.npz"
                append(arguments.out, measure(path, form, arguments.most, arguments.twice))


def measure(path: Path, form: str, most: int, twice: bool) -> Record:
    """Fit once and by folds, and score both on the test rows."""
    from asv_bench.tables.data import load
    from cvxnn import ConvexReLUClassifier, ConvexReLUClassifierCV

    X, y, X_test, y_test, *_ = load(path)
    X, y = X[:most], y[:most]
    warnings.simplefilter("ignore")
    single = ConvexReLUClassifier(**FORMS[form], random_state=0)
    seconds = []
    for _ in range(2):  # the first compiles
        began = time.process_time()
        single.fit(X, y)
        seconds.append(time.process_time() - began)
    by_folds = []
    for _ in range(1 + twice):
        began = time.process_time()
        chosen = ConvexReLUClassifierCV(single).fit(X, y)
        by_folds.append(time.process_time() - began)
    return {
        "table": path.stem,
        "form": form,
        "n": len(X),
        "d": X.shape[1],
        "n_classes": len(set(y.tolist())),
        "first_s": seconds[0],
        "single_s": seconds[1],
        "by_folds_first_s": by_folds[0],
        "by_folds_s": by_folds[-1],
        "ratio": by_folds[-1] / seconds[1],
        "strength": float(single.strength_),
        "best_strength": chosen.best_strength_,
        "best_score": chosen.best_score_,
        "strengths": chosen.strengths_.tolist(),
        "fold_scores": chosen.cv_scores_.round(4).tolist(),
        "accuracy": single.score(X_test, y_test),
        "accuracy_by_folds": chosen.score(X_test, y_test),
    }


if __name__ == "__main__":
    main()
