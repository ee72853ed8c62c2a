"""Should the Huber loss choose patterns and factors of features? ``huber_features.py --help``.

``ConvexReLURegressor(loss="huber")`` with Gaussian gates and equal factors, as it was; with those
that squared errors of clipped targets judge, as for the squared loss; and the squared loss. Tables
of regression, and columns of tables predicted from the others, as they are and with one target in
twenty replaced by an outlier. Errors are those of test targets without outliers.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3

from asv_bench.raw_results import Record, append, read

Data = tuple[np.ndarray, np.ndarray]
MADE: dict[str, Callable[[int, int], Data]] = {
    "friedman1": lambda n, seed: make_friedman1(n, noise=1.0, random_state=seed),
    "friedman2": lambda n, seed: make_friedman2(n, noise=100.0, random_state=seed),
    "friedman3": lambda n, seed: make_friedman3(n, noise=0.1, random_state=seed),
}
COLUMNS = {"texture": 20, "penbased": 15, "satimage": 17, "letter": 8, "ring": 0, "segment": 10}
CHOOSING = (
    ("friedman1", 300), ("friedman1", 1000), ("friedman1", 2000), ("friedman3", 1000),
    ("texture", 1000), ("penbased", 1000),
)  # fmt: skip
REPORTING = (
    ("friedman2", 1000), ("diabetes", 300), ("satimage", 1000), ("letter", 1000),
    ("ring", 1000), ("segment", 1000),
)  # fmt: skip
MODELS = {
    "huber, as before": {"loss": "huber", "patterns": "gaussian", "feature_factors": "equal"},
    "huber": {"loss": "huber"},
    "squared": {},
}


def rows_of(table: str, n: int, seed: int, folder: Path) -> tuple[Data, Data]:
    """Return training and test rows."""
    if table in MADE:
        X, y = MADE[table](n + 1000, seed)
    elif table == "diabetes":
        X, y = load_diabetes(return_X_y=True)
    else:
        from asv_bench.tables.data import load

        data, column = load(folder / "uci" / f"{table}.npz"), COLUMNS[table]
        rows = np.concatenate([data.X, data.X_test])
        X, y = np.delete(rows, column, axis=1), rows[:, column]
    order = np.random.default_rng(seed).permutation(len(y))
    seen, unseen = order[:n], order[n : n + 1000]
    return (X[seen], y[seen]), (X[unseen], y[unseen])


def measure(table: str, n: int, seed: int, folder: Path, *, outliers: bool) -> Record:
    """Fit all models to one draw."""
    from cvxnn import ConvexReLURegressor

    (X, y), (X_test, y_test) = rows_of(table, n, seed, folder)
    if outliers:
        rng, y = np.random.default_rng(seed), y.copy()
        far = rng.random(n) < 0.05
        y[far] += 10 * y.std() * rng.standard_normal(far.sum())
    found: Record = {}
    for name, options in MODELS.items():
        model = ConvexReLURegressor(random_state=seed, **options)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X, y)
        cpu_s = time.process_time() - began
        gap = model.predict(X_test) - y_test
        r2 = float(1 - (gap**2).mean() / y_test.var())
        mean = float(np.abs(gap).mean() / y_test.std())
        found[name] = {"r2": round(r2, 4), "error": round(mean, 4), "cpu_s": round(cpu_s, 2)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    done = {(r["table"], r["n"], r["seed"], r["outliers"]) for r in read(arguments.out)}
    for seed in range(arguments.seeds):
        for table, n in (*CHOOSING, *REPORTING):
            for outliers in (False, True):
                if (table, n, seed, outliers) in done:
                    continue
                half = "choosing" if (table, n) in CHOOSING else "reporting"
                place = {"table": table, "half": half, "n": n, "seed": seed, "outliers": outliers}
                own = measure(table, n, seed, arguments.data, outliers=outliers)
                append(arguments.out, {**place, **own})
                print(place, own, flush=True)


if __name__ == "__main__":
    main()
