"""CVXPY with Clarabel: a general interior point method, single-threaded, to high accuracy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from problems import Problem
from timing import Report

# Beyond this many nonzeros CVXPY and Clarabel need tens of gigabytes, and hours.
MAX_NONZEROS = 3e7


def relu(problem: Problem, report: Report) -> None:
    """Solve the ReLU program; the bound comes from its dual variables."""
    import cvxpy as cp

    _require_small(problem, 4)
    report.begin()
    began = time.process_time()
    X = problem.X.astype(np.float64)
    signs = 2.0 * problem.mask - 1
    shape = (X.shape[1], problem.mask.shape[1])
    V, W = cp.Variable(shape), cp.Variable(shape)
    scores = [X @ V, X @ W]
    prediction = cp.sum(cp.multiply(problem.mask.astype(float), scores[0] - scores[1]), axis=1)
    cones = [cp.multiply(signs, score) >= 0 for score in scores]
    norms = cp.sum(cp.norm(V, axis=0)) + cp.sum(cp.norm(W, axis=0))
    program = cp.Problem(_objective(problem, prediction, norms), cones)
    program.solve(solver=cp.CLARABEL)
    seconds = time.process_time() - began
    U = np.stack([V.value.T, W.value.T])
    bound = problem.relu_bound(U, np.stack([cone.dual_value for cone in cones]))
    report(
        0,
        seconds,
        problem.network_objective(U),
        program=problem.program_objective(U),
        violation=problem.violation(U),
        bound=bound,
    )
    report.detail(
        clarabel_seconds=program.solver_stats.solve_time,
        iterations=program.solver_stats.num_iters,
        on=int((np.linalg.norm(U, axis=-1) > 1e-6).sum()),
    )


def gated(problem: Problem, report: Report) -> None:
    """Solve the gated program: a group lasso."""
    import cvxpy as cp

    _require_small(problem, 1)
    report.begin()
    began = time.process_time()
    Z = cp.Variable((problem.X.shape[1], problem.mask.shape[1]))
    scores = problem.X.astype(np.float64) @ Z
    prediction = cp.sum(cp.multiply(problem.mask.astype(float), scores), axis=1)
    program = cp.Problem(_objective(problem, prediction, cp.sum(cp.norm(Z, axis=0))))
    program.solve(solver=cp.CLARABEL)
    seconds = time.process_time() - began
    weights = Z.value.T
    bound = problem.gated_bound(weights)
    report(0, seconds, problem.gated_objective(weights), bound=bound)
    report.detail(
        clarabel_seconds=program.solver_stats.solve_time,
        iterations=program.solver_stats.num_iters,
        on=int((np.linalg.norm(weights, axis=-1) > 1e-6).sum()),
    )


def _require_small(problem: Problem, copies: int) -> None:
    """Refuse a problem whose matrix is ``copies`` of the gated data and does not fit."""
    nonzeros = copies * problem.X.size * problem.mask.shape[1]
    if nonzeros > MAX_NONZEROS:
        raise MemoryError(f"{nonzeros:.1e} nonzeros, more than MAX_NONZEROS = {MAX_NONZEROS:.0e}")


def _objective(problem: Problem, prediction: Any, norms: Any) -> Any:
    import cvxpy as cp

    loss = cp.sum_squares(prediction - problem.y[:, 0].astype(np.float64))
    return cp.Minimize(loss / (2 * len(problem.y)) + problem.alpha * norms)
