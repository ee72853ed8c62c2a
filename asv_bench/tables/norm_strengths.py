"""Automatic strengths of norms beside cross-validated ones: ``--help`` lists the options.

Of each table 500 rows are fitted, with the neuron penalty in the ReLU formulation and with the
feature penalty in the gated one: at the automatic strength, at multiples of it, and at the choice
of 5-fold cross-validation over ten strengths. Half of the tables may choose the part of the noise
that the penalty holds back, the other half reports.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from data import load
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3

from asv_bench.raw_results import Record, append, read
from cvxnn import (
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
)

CHOOSING = ("australian", "banana", "ionosphere", "segment", "diabetes", "friedman1")
REPORTING = ("mammographic", "pima", "tic-tac-toe", "wdbc", "friedman2", "friedman3")
MADE = {"friedman1": make_friedman1, "friedman2": make_friedman2, "friedman3": make_friedman3}
# Noise of the made tables, about a third of the targets' standard deviation.
NOISE = {"friedman1": 1.5, "friedman2": 120.0, "friedman3": 0.1}
FORMS: dict[str, dict[str, Any]] = {
    "relu neuron": {"formulation": "relu"},
    "gated feature": {"penalty": "feature", "n_patterns": 32},
}
MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)
N_TRAIN, N_TEST = 500, 2000
Parts = tuple[NDArray, NDArray, NDArray, NDArray]


def main() -> None:
    arguments = _arguments()
    if not arguments.summary:
        done = {key(record) for record in read(arguments.out, key)}
        for table in (*CHOOSING, *REPORTING):
            for form in FORMS:
                if (table, form) not in done:
                    found = measure(parts(arguments.data, table), form)
                    half = "chooses" if table in CHOOSING else "reports"
                    append(arguments.out, {"table": table, "form": form, "half": half, **found})
    print("\n".join(summary(read(arguments.out, key))))


def key(record: Record) -> tuple[str, str]:
    return record["table"], record["form"]


def parts(folder: Path, table: str) -> Parts:
    """Rows to fit, their targets, and rows and targets to test on."""
    rng = np.random.RandomState(0)
    if table in MADE:
        options = {"n_samples": N_TRAIN + N_TEST, "noise": NOISE[table], "random_state": 0}
        X, y = MADE[table](**options)
    elif table == "diabetes":
        X, y = load_diabetes(return_X_y=True)
    else:
        split = load(folder / "uci" / f"{table}.npz")
        X, y = np.concatenate([split.X, split.X_test]), np.concatenate([split.y, split.y_test])
    order = rng.permutation(len(y))
    X, y = X[order].astype(np.float64), y[order]
    n = min(N_TRAIN, 3 * len(y) // 4)
    return X[:n], y[:n], X[n : n + N_TEST], y[n : n + N_TEST]


def measure(parts: Parts, form: str) -> Record:
    """Fit one form on one table in all ways; scores are accuracy or R2 on the test rows."""
    X, y, X_test, y_test = parts
    classes = len(np.unique(y)) <= 20
    plain = ConvexReLUClassifier if classes else ConvexReLURegressor
    searched: Any = ConvexReLUClassifierCV if classes else ConvexReLURegressorCV

    def fit(model: Any) -> tuple[Any, float, float]:
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X, y)
        return model, time.process_time() - began, float(model.score(X_test, y_test))

    automatic, cpu_s, score = fit(plain(random_state=0, **FORMS[form]))
    found: Record = {
        "n": len(X),
        "d": X.shape[1],
        "strength": automatic.strength_,
        "score": score,
        "cpu_s": cpu_s,
    }
    for multiple in MULTIPLES:
        own = plain(random_state=0, strength=multiple * automatic.strength_, **FORMS[form])
        found[f"score_{multiple:g}"] = fit(own)[2]
    base = plain(random_state=0, **FORMS[form])
    chosen, cpu_s, score = fit(searched(base, n_strengths=10, cv=5))
    return {**found, "cv_strength": chosen.strength_, "cv_score": score, "cv_cpu_s": cpu_s}


def summary(records: Iterable[Record]) -> Iterable[str]:
    """Lines of Markdown: each table, and means over the halves at each multiple."""
    records = list(records)
    yield "| form | table | strength | score | CPU s | CV: strength | score | CPU s |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for r in sorted(records, key=lambda r: (r["form"], r["half"], r["table"])):
        own = f"{r['strength']:.2g} | {r['score']:.3f} | {r['cpu_s']:.1f}"
        cv = f"{r['cv_strength']:.2g} | {r['cv_score']:.3f} | {r['cv_cpu_s']:.0f}"
        yield f"| {r['form']} | {r['table']} | {own} | {cv} |"
    yield ""
    columns = [f"score_{multiple:g}" for multiple in MULTIPLES] + ["cv_score"]
    names = [f"{multiple:g}" for multiple in MULTIPLES] + ["CV"]
    yield "| form | half | " + " | ".join(names) + " |"
    yield "| --- " * (2 + len(names)) + "|"
    for form in FORMS:
        for half in ("chooses", "reports"):
            own_half = [r for r in records if (r["form"], r["half"]) == (form, half)]
            if own_half:
                means = [f"{mean(r[column] for r in own_half):.3f}" for column in columns]
                yield f"| {form} | {half} | " + " | ".join(means) + " |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with uci/*.npz")
    parser.add_argument("--out", type=Path, default=Path("norm_strengths.jsonl"), help="resumed")
    parser.add_argument("--summary", action="store_true", help="only print what was found")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.summary:
        parser.error("--data is needed, unless --summary only prints what was found.")
    return arguments


if __name__ == "__main__":
    main()
