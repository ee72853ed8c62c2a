"""Probabilities of ReLU networks: one step from the solution beside refits without each row.

For each table a ReLU network is fitted to 60 rows, at the automatic and at weaker strengths. Its
temperature is found from the outputs of rows that it has not seen: by one step
(`cvxnn.training.approximate_leave_one_out`), and by 60 fits of the same patterns, each without one
row. Both are compared on the test rows. Patterns, data and splits are equal.

    python asv_bench/tables/one_step.py --data DIR
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import expit

from asv_bench.raw_results import append
from asv_bench.tables.data import load, tables
from cvxnn import ConvexReLUClassifier
from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    InteriorPoint,
    add_bias,
    sample_patterns,
    solve,
)
from cvxnn.estimators._calibration import fit_temperature
from cvxnn.estimators._fit_plan import HeldOut
from cvxnn.network import TwoLayerNetwork, recover
from cvxnn.training import approximate_leave_one_out
from cvxnn.training.row_sample import Sample

ROWS, PATTERNS = 60, 24
# The constants of the step were chosen on the first seven; the last came after.
TABLES = ("banana", "pima", "wdbc", "australian", "ionosphere", "mammographic", "ring")
TABLES += ("contraceptive",)
PARTS = (1.0, 0.1, 0.01)
TOL = 1e-2  # as the estimators' default


def fit(program: ConvexProgram, tol: float) -> tuple[TwoLayerNetwork, float]:
    """Return the network of a program, and its gap."""
    result = solve(program, InteriorPoint(tol=tol, max_iter=200))
    return recover(result.weights), result.gap


def log_loss(scores: np.ndarray, signs: np.ndarray) -> float:
    """Return the mean log-loss of log-odds."""
    return float(np.logaddexp(0, -signs * scores).mean())


def main() -> None:
    """Append a line for each table and strength."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with uci/*.npz")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    paths = tables(options.data)
    for name in TABLES:
        split = load(paths[name])
        rows = np.random.default_rng(0).permutation(len(split.y))[:ROWS]
        X, y = split.X[rows].astype(float), np.where(split.y == split.y[0], 1.0, -1.0)[rows]
        mean, size = X.mean(axis=0), X.std(axis=0)
        size[size == 0] = 1
        X, X_test = (X - mean) / size, (split.X_test - mean) / size
        signs = np.where(split.y_test == split.y[0], 1.0, -1.0)
        found = sample_patterns(add_bias(X), PATTERNS, random_state=0)
        operator = GatedOperator(add_bias(X), found.mask)
        whole = ConvexProgram(operator, y[:, None], 1.0)
        model = ConvexReLUClassifier(formulation="relu", n_patterns=PATTERNS, random_state=0)
        automatic = float(model.fit(X, y).strength_) * float(whole.alpha_max())
        for part in PARTS:
            program = replace(whole, alpha=part * automatic)
            network, gap = fit(program, TOL)
            sample = Sample(program, None, None, 1.0)
            alpha = program.alpha
            step = approximate_leave_one_out(network, sample, alpha=alpha, bias=True, gap=gap)
            refit = np.empty((ROWS, 1))
            for row in range(ROWS):
                kept = np.arange(ROWS) != row
                own = GatedOperator(operator.X[kept], found.mask[kept])
                rest = replace(
                    program, operator=own, y=y[kept, None], alpha=alpha * ROWS / (ROWS - 1)
                )
                refit[row] = fit(rest, 1e-6)[0].forward(X[[row]])
            held = HeldOut(step, y[:, None], np.ones(ROWS))
            seen = fit_temperature(held._replace(predictions=network.forward(X)))
            factor = {
                "one_step": min(seen, fit_temperature(held)),
                "refits": min(seen, fit_temperature(held._replace(predictions=refit))),
            }
            scores = network.forward(X_test)[:, 0]
            grid = np.geomspace(1e-2, 1e2, 401)
            distance = abs(expit(factor["one_step"] * scores) - expit(factor["refits"] * scores))
            record = {
                "table": name,
                "part_of_automatic_strength": part,
                "accuracy": float((scores * signs > 0).mean()),
                "temperature": factor,
                "mean_distance_of_probabilities": float(distance.mean()),
                "log_loss": {way: log_loss(t * scores, signs) for way, t in factor.items()}
                | {"best": min(log_loss(t * scores, signs) for t in grid)},
            }
            append(options.out, record)


if __name__ == "__main__":
    main()
