"""The CVXPY oracle: the same problem in, the same result out, by an independent solver."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from cvxnn._extras import require
from cvxnn.losses import LogisticLoss, SquaredLoss
from cvxnn.penalties import NeuronGroupLasso
from cvxnn.problem import ConvexProgram
from cvxnn.solvers._loop import Result, Status, precision, relative_gap


def solve(problem: ConvexProgram, *, solver: str = "CLARABEL", **options: Any) -> Result:
    """Solve a convex program with CVXPY; for small problems and for checking.

    Parameters
    ----------
    problem : ConvexProgram
        Neuron group lasso with squared or logistic loss.
    solver : str, default="CLARABEL"
        A conic solver CVXPY knows.
    **options
        Passed to ``cvxpy.Problem.solve``.

    Returns
    -------
    Result
        ``objective`` is the *program* objective at a point that is feasible up to the tolerance of
        the solver; ``dual_bound`` comes from its dual variables through
        :meth:`ConvexProgram.dual_bound`, so both are comparable with every other solver's.

    Raises
    ------
    ImportError
        If CVXPY is missing: ``pip install "cvxnn[test]"``.
    TypeError
        For another loss or penalty.
    """
    cp = require("cvxpy", extra="test")
    if not isinstance(problem.penalty, NeuronGroupLasso):
        raise TypeError(f"reference.solve knows NeuronGroupLasso, not {problem.penalty!r}.")
    began = time.perf_counter()
    X = np.asarray(problem.operator.X, np.float64)
    mask = np.asarray(problem.operator.mask)
    y = np.asarray(problem.y, np.float64)
    (n, d), P, C = X.shape, mask.shape[1], y.shape[1]
    signs = 2.0 * mask - 1
    weights = np.zeros((C, 2, P, d))
    cone_term = np.zeros((C, 2, P, d))
    status = "optimal"
    for c in range(C):
        V, W = cp.Variable((d, P)), cp.Variable((d, P))
        prediction = cp.sum(cp.multiply(mask.astype(float), X @ (V - W)), axis=1)
        if isinstance(problem.loss, SquaredLoss):
            loss = cp.sum_squares(prediction - y[:, c]) / 2
        elif isinstance(problem.loss, LogisticLoss):
            loss = cp.sum(cp.logistic(-cp.multiply(y[:, c], prediction)))
        else:
            raise TypeError(
                f"reference.solve knows SquaredLoss and LogisticLoss, not {problem.loss!r}."
            )
        penalty = cp.sum(cp.norm(V, axis=0)) + cp.sum(cp.norm(W, axis=0))
        cones = [cp.multiply(signs, X @ V) >= 0, cp.multiply(signs, X @ W) >= 0]
        program = cp.Problem(cp.Minimize(loss / n + float(problem.alpha) * penalty), cones)
        program.solve(solver=solver, **options)
        if program.status != "optimal":
            status = program.status
        if V.value is None:
            raise RuntimeError(f"CVXPY with {solver} gave no solution: {program.status}.")
        for sign, (variable, cone) in enumerate(zip((V, W), cones, strict=True)):
            weights[c, sign] = variable.value.T
            cone_term[c, sign] = (signs * np.maximum(cone.dual_value, 0)).T @ X
    with precision(np.float64):
        wide = _in_float64(problem)
        at = wide.evaluate(jnp.asarray(weights))
        bound = float(wide.dual_bound(at.residual, jnp.asarray(cone_term)))
        objective, violation = float(at.objective), float(at.violation)
    gap = relative_gap(objective, bound)
    return Result(
        weights=weights,
        objective=objective,
        dual_bound=bound,
        gap=gap,
        status=Status.CONVERGED if status == "optimal" else Status.MAX_ITER,
        n_iter=0,
        history={
            "iteration": np.zeros(1),
            "time": np.array([time.perf_counter() - began]),
            "objective": np.array([objective]),
            "dual_bound": np.array([bound]),
            "stopping": np.array([gap]),
            "violation": np.array([violation]),
        },
    )


def _in_float64(problem: ConvexProgram) -> ConvexProgram:
    operator = replace(problem.operator, X=jnp.asarray(np.asarray(problem.operator.X), np.float64))
    return replace(problem, operator=operator, y=jnp.asarray(np.asarray(problem.y), np.float64))
