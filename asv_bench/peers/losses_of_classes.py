"""ReLU networks of classes by interior point and by CRONOS, for losses of probabilities.

    python asv_bench/peers/losses_of_classes.py --data DIR --out losses_of_classes.jsonl

Each fit has a process of its own, with nothing set but formulation, loss and solver, and one
thread. The first fit counts, with what it compiles; the programs of processes before are not kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

from asv_bench.raw_results import append, read

TABLES = ("contraceptive", "vowel", "segment", "satimage")
LOSSES = ("logistic", "multinomial")
SOLVERS = ("interior point", "CRONOS")


def measure(table: str, loss: str, solver: str, data: Path, out: Path) -> None:
    """Fit the training rows of a table, and score the network on its test rows."""
    import numpy as np
    from sklearn.metrics import log_loss

    from cvxnn import ConvexReLUClassifier, convex

    with np.load(data / "uci" / f"{table}.npz", allow_pickle=False) as file:
        X, y, test = file["X"], file["y"], file["test"]
    known = {"logistic": "logistic", "multinomial": convex.MultinomialLoss()}
    solvers = {"interior point": convex.InteriorPoint, "CRONOS": convex.Cronos}
    model = ConvexReLUClassifier(
        formulation="relu", loss=known[loss], solver=solvers[solver](tol=0.01), random_state=0
    )
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X[~test], y[~test])
    seconds = time.process_time() - began
    chances = model.predict_proba(X[test])
    record = {
        "table": table,
        "loss": loss,
        "solver": solver,
        "shape": list(X[~test].shape),
        "classes": len(model.classes_),
        "cpu_s": seconds,
        "n_iter": model.n_iter_,
        "objective": float(model.objective_),
        "gap": float(model.gap_),
        "accuracy": float(model.score(X[test], y[test])),
        "log_loss": float(log_loss(y[test], chances, labels=model.classes_)),
    }
    append(out, record)
    print(record, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--only", nargs=3, help="table, loss, solver")
    options = parser.parse_args()
    if options.only:
        table, loss, solver = options.only
        return measure(table, loss, solver, options.data, options.out)
    os.environ |= {"OMP_NUM_THREADS": "1", "NPROC": "1", "CVXNN_PROGRAMS": "off"}
    done = {(r["table"], r["loss"], r["solver"]) for r in read(options.out)}
    for table in options.tables:
        for loss in LOSSES:
            for solver in SOLVERS:
                if (table, loss, solver) not in done:
                    one = [sys.executable, *sys.argv, "--only", table, loss, solver]
                    subprocess.run(one, check=True)


if __name__ == "__main__":
    main()
