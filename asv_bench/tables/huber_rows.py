"""On how many rows should a Huber loss choose its strength? ``huber_rows.py --help``.

``ConvexReLURegressor(loss="huber", formulation="gated")`` on columns of tables, predicted from the
others, with one target in twenty replaced by an outlier. Run on two commits, with ``--label``.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np

from asv_bench.raw_results import Record, append, read

COLUMNS = (("satimage", 17), ("penbased", 15), ("letter", 8), ("ring", 0), ("texture", 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--label", required=True, help="of the commit")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("huber_rows.jsonl"))
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    done = {(r["label"], r["table"], r["seed"]) for r in read(arguments.out)}
    for table, column in COLUMNS:
        for seed in range(arguments.seeds):
            if (arguments.label, table, seed) not in done:
                path = arguments.data / "uci" / f"{table}.npz"
                found = {"label": arguments.label, "table": table, "column": column, "seed": seed}
                append(arguments.out, {**found, **measure(path, column, seed)})


def measure(path: Path, column: int, seed: int) -> Record:
    """Choose the strength, and fit; errors are those of targets without outliers."""
    from asv_bench.tables.data import load
    from cvxnn import ConvexReLURegressor

    data = load(path)
    X, X_test = (np.delete(rows, column, axis=1) for rows in (data.X, data.X_test))
    y, y_test = data.X[:, column].copy(), data.X_test[:, column]
    rng = np.random.default_rng(0)
    far = rng.random(len(y)) < 0.05
    scale = y.std()
    y[far] += 10 * scale * rng.standard_normal(far.sum())
    model = ConvexReLURegressor(
        loss="huber", formulation="gated", penalty="l2", n_patterns=64, random_state=seed
    )
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    cpu_s = time.process_time() - began
    gap = model.predict(X_test) - y_test
    return {
        "n": len(X),
        "strength": float(np.mean(model.strength_)),
        "mean_absolute_error": float(np.abs(gap).mean() / scale),
        "r2": float(1 - (gap**2).mean() / y_test.var()),
        "cpu_s": round(cpu_s, 2),
    }


if __name__ == "__main__":
    main()
