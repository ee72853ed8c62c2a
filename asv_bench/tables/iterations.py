"""Iterations of default fits by conjugate gradient: ``iterations.py --help``.

A record for each table and seed, with the strength that was chosen. Run on two commits, with
``--label``.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

from asv_bench.raw_results import append, read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--tables", nargs="+", default=["mushroom"])
    parser.add_argument("--label", required=True, help="of the commit")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("iterations.jsonl"))
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    import numpy as np
    from data import load

    from cvxnn import ConvexReLUClassifier

    warnings.simplefilter("ignore")
    done = {(r["label"], r["table"], r["seed"]) for r in read(arguments.out)}
    for table in arguments.tables:
        data = load(arguments.data / "uci" / f"{table}.npz")
        for seed in range(arguments.seeds):
            if (arguments.label, table, seed) in done:
                continue
            # As in the study: the generator is NumPy's.
            np.random.seed(seed)  # noqa: NPY002
            began = time.process_time()
            model = ConvexReLUClassifier().fit(data.X, data.y)
            record = {
                "label": arguments.label,
                "table": table,
                "seed": seed,
                "n": len(data.X),
                "cpu_s": round(time.process_time() - began, 2),
                "strength": float(model.strength_),
                "n_iter": model.n_iter_,
                "gap": float(model.gap_),
                "accuracy": float(model.score(data.X_test, data.y_test)),
            }
            append(arguments.out, record)


if __name__ == "__main__":
    main()
