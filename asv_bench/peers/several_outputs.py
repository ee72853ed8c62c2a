"""ReLU networks of several classes with nothing set: what they cost, and how good they are.

    python asv_bench/peers/several_outputs.py --data DIR --out several_outputs.jsonl

The first rows of each table's training part, in one process of one thread, scored on its test rows.
Runs on other commits too, so that a file can hold two.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.metrics import log_loss

from asv_bench.raw_results import append
from asv_bench.tables.data import load
from cvxnn import ConvexReLUClassifier

TABLES = ("contraceptive", "vowel", "segment", "satimage", "texture", "penbased")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--tables", nargs="+", default=TABLES)
    parser.add_argument("--losses", nargs="+", default=("squared", "logistic"))
    parser.add_argument("--rows", type=int, default=800, help="training rows, drawn at random")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for loss in arguments.losses:
        for table in arguments.tables:
            X, y, X_test, y_test, *_ = load(arguments.data / "uci" / f"{table}.npz")
            chosen = np.random.default_rng(0).permutation(len(y))[: arguments.rows]
            model = ConvexReLUClassifier(formulation="relu", loss=loss, random_state=0)
            began = time.process_time()
            model.fit(X[chosen], y[chosen])
            seconds = time.process_time() - began
            record = {
                "table": table,
                "loss": loss,
                "n": len(chosen),
                "n_classes": len(model.classes_),
                "cpu_s": seconds,
                "n_iter": model.n_iter_,
                "proposal_objective": model.proposal_objective_,
                "objective": model.objective_,
                "gap": model.gap_,
                "n_neurons": model.network_.n_neurons,
                "accuracy": model.score(X_test, y_test),
                "log_loss": log_loss(y_test, model.predict_proba(X_test), labels=model.classes_),
            }
            append(arguments.out, record)
            print({key: record[key] for key in ("table", "loss", "cpu_s", "objective", "accuracy")})


if __name__ == "__main__":
    main()
