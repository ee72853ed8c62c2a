"""Digits by CRONOS from networks that descended by more or fewer steps.

    python asv_bench/peers/descent_steps.py --out descent_steps.jsonl

One thread, processor seconds. *Residual* is what the network alone proves: its residual, and
multipliers that project the slopes on the cones, by 120 accelerated gradients.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from asv_bench.raw_results import append
from cvxnn.convex import ConvexProgram, Cronos, DualPoint, GatedOperator, add_bias
from cvxnn.convex.single_precision import solve_to_tolerance
from cvxnn.training import descent, proposal


def projected(program: ConvexProgram, residual: Any, n_steps: int = 120) -> float:
    """Bound of a residual with the multipliers that shorten each slope most."""
    op = program.operator
    norms = np.linalg.norm(op.X, axis=1)
    X = (op.X / norms[:, None]).astype(np.float32)
    signs = np.where(op.mask, 1, -1).astype(np.float32).T
    slope = program.slope(residual).astype(np.float32)
    n_outputs, n_signs, P, d = slope.shape
    slope = slope.reshape(-1, P, d)
    size = np.linalg.eigvalsh(X.T @ X)[-1]
    a = z = np.zeros((len(slope), P, len(X)), np.float32)
    t = 1.0
    for _ in range(n_steps):
        rest = slope + ((signs * z).reshape(-1, len(X)) @ X).reshape(slope.shape)
        new = np.maximum(z - signs * (rest.reshape(-1, d) @ X.T).reshape(a.shape) / size, 0)
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        z, a, t = new + (t - 1) / following * (new - a), new, following
    multipliers = (a / norms).reshape(n_outputs, n_signs, P, -1).transpose(3, 0, 1, 2)
    return float(program.bound_of(DualPoint(residual, multipliers.astype(float))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--alpha", type=float, default=0.00314, help="that of a fit of all rows")
    arguments = parser.parse_args()
    X, y = load_digits(return_X_y=True)
    scale = X.std(axis=0)
    X = add_bias((X - X.mean(axis=0)) / np.where(scale > 0, scale, 1) / X.shape[1] ** 0.5)
    y = np.eye(10)[y]
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    network = proposal.propose(X, y, arguments.alpha, 64, random_state=0)
    found, weights = proposal.to_program(X, network)
    program = ConvexProgram(GatedOperator(X, found.mask), y, arguments.alpha)
    solve_to_tolerance(program, Cronos(tol=0.5))  # compiles
    for n_steps in (0, 30, 100, 300):
        began, start = time.process_time(), weights
        if n_steps:
            descent._N_STEPS = n_steps
            start, _ = descent.descend_in_place(program, weights)
        descended = time.process_time() - began
        at = program.evaluate(start)
        began = time.process_time()
        result = solve_to_tolerance(program, Cronos(tol=1e-2), start=start)
        record = {
            "n_steps": n_steps,
            "descent_cpu_s": descended,
            "descended_objective": float(at.network_objective),
            "cronos_cpu_s": time.process_time() - began,
            "n_iter": result.n_iter,
            "objective": result.objective,
            "gap": result.gap,
            "residual_bound": projected(program, at.residual),
        }
        append(arguments.out, record)
        print(record)


if __name__ == "__main__":
    main()
