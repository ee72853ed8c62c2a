"""cvxnn's side: one function for each table, called like every peer.

A function is handed a ``Problem`` and a ``Report``. It calls ``report(run, seconds, objective,
bound=...)`` along the way with what it has so far, from which the table makes trajectories and
gaps; the ReLU program also wants ``program=`` and ``violation=``. Run 0 is the first solve of a
fresh process, compilation included; run 1 is the same solve again.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from problems import Problem
from timing import Report


def relu(problem: Problem, report: Report, solver: str, **options: Any) -> None:
    """A solver of the ReLU program over the given gates, in float64."""
    _solve(problem, report, "relu", solver, options)


def gated(problem: Problem, report: Report, solver: str, **options: Any) -> None:
    """A solver of the gated program over the given gates, in float64."""
    _solve(problem, report, "gated", solver, options)


def adaptive(problem: Problem, report: Report, n_rounds: int = 10, n_runs: int = 1) -> None:
    """Local proposals, the convex program over them, and rounds of refinement."""
    from cvxnn.training import train

    report.begin()
    X, y = problem.X.astype(np.float64), problem.y.astype(np.float64)
    began = time.process_time()
    found = train(
        X,
        y,
        problem.alpha,
        2 * problem.mask.shape[1],
        n_runs=n_runs,
        n_rounds=n_rounds,
        tol=1e-4,
        random_state=0,
    )
    seconds = time.process_time() - began
    weights = found.result.weights.blocks
    network = np.maximum(X @ weights[0].reshape(-1, X.shape[1]).T, 0)
    signs = np.repeat([1.0, -1.0], weights.shape[2])
    report(0, seconds, problem.objective(network @ signs, weights[0]))
    report.detail(neurons=int((np.linalg.norm(weights, axis=-1) > 0).sum()), gap=found.result.gap)


def _solve(
    problem: Problem, report: Report, formulation: str, solver: str, options: dict[str, Any]
) -> None:
    from cvxnn import convex
    from cvxnn.convex import ConvexProgram, GatedOperator

    report.begin()
    X, y = problem.X.astype(np.float64), problem.y.astype(np.float64)
    program = ConvexProgram(
        GatedOperator(X, problem.mask), y, problem.alpha, formulation=formulation
    )
    for run in range(2):
        say = partial(_say, report, run, time.process_time())
        result = convex.solve(program, getattr(convex, solver)(**options), callback=say)
        report.detail(iterations=result.n_iter, gap=result.gap)
        report.detail(success=result.status is convex.Status.CONVERGED)


def _say(
    report: Report, run: int, began: float, row: dict[str, float], weights: object = None
) -> None:
    """One row of a solver's history."""
    report(
        run,
        time.process_time() - began,
        row["objective"],
        program=row.get("program_objective", row["objective"]),
        violation=row.get("violation", 0.0),
        bound=row["dual_bound"],
    )
