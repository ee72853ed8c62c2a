"""How much the settings of COALA matter: ``python sweeps.py --features DIR --out FILE``.

One setting at a time around the defaults, on pairs of the study of joint training (the folder is
that of ``joint_study.py --cache``): accuracy on held-out pairs in two folds. For rho, the
iterations that CRONOS takes to a relative gap of 1e-2 on random patterns of the first set.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead, ConvexReLUClassifier
from cvxnn.convex import Cronos

SETTINGS = {
    "beta": (0.1, 0.3, 1.0, 3.0, 10.0),
    "gamma": (0.0, 0.25, 0.5, 1.0, 2.0),
    "n_patterns": (8, 32, 128, 512),
}
RHOS = (1e-3, 1e-2, 1e-1, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    files = sorted(options.features.glob("*_minilm_400_8.npz"))
    for file in files:
        with np.load(file) as arrays:
            chosen, rejected = arrays["chosen"], arrays["rejected"]
        for name, values in SETTINGS.items():
            for value in values:
                hits, spent = folds(chosen, rejected, {name: value})
                record = {"set": file.stem, "setting": name, "value": value, "pairs": len(hits)}
                append(options.out, {**record, "accuracy": hits.mean(), "cpu_s": spent})
    with np.load(files[0]) as arrays:
        X = np.concatenate([arrays["chosen"], arrays["rejected"]])
    y = np.repeat([1, 0], len(X) // 2)
    for balance in (False, True):
        for rho in RHOS:
            solver = Cronos(tol=1e-2, max_iter=4000, rho=rho, balance=balance)
            model = ConvexReLUClassifier(
                formulation="relu", patterns="gaussian", n_patterns=16, strength=0.05,
                solver=solver, random_state=0,
            )  # fmt: skip
            model.fit(X, y)
            found = {"gap": float(model.gap_), "iterations": int(model.history_["iteration"][-1])}
            record = {"set": files[0].stem, "setting": "rho", "value": rho, "balance": balance}
            append(options.out, {**record, **found})


def folds(
    chosen: np.ndarray, rejected: np.ndarray, setting: dict[str, float]
) -> tuple[np.ndarray, float]:
    """Return whether each held-out pair is ranked correctly, and the processor time of the fits."""
    half = np.arange(len(chosen)) % 2
    margins, began = np.zeros(len(chosen)), time.process_time()
    for k in (0, 1):
        head = COALAPreferenceHead(random_state=0, **setting)
        head.fit_pairs(chosen[half != k], rejected[half != k])
        margins[half == k] = head.reward_margin(chosen[half == k], rejected[half == k])
    return (margins > 0).astype(float), time.process_time() - began


if __name__ == "__main__":
    main()
