"""Solution of a convex program by CVXPY, an independent solver that serves as an oracle."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from cvxnn._extras import require
from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.host_program import on_host
from cvxnn.convex.losses import HuberLoss, LogisticLoss, Loss, MultinomialLoss, SquaredLoss
from cvxnn.convex.operators import Weights
from cvxnn.convex.penalties import L1, FeatureGroupLasso, NeuronGroupLasso, Penalty, SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result, Status, relative_gap
from cvxnn.numerics.arrays import refuse_sparse

# An oracle has to be finer than what it judges.
_TIGHT = {"CLARABEL": dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10)}

# Relative gap and violation that pass for solved where rounding kept the solver from its own.
_CERTIFIED = 1e-6


def solve_with_cvxpy(program: ConvexProgram, *, solver: str = "CLARABEL", **options: Any) -> Result:
    """Solve a convex program with CVXPY; for small programs and for checks.

    Parameters
    ----------
    program : ConvexProgram
        Any loss and penalty of this package, either formulation; computed in float64.
    solver : str, default="CLARABEL"
        Name of a conic solver that CVXPY knows.
    **options
        Passed to ``cvxpy.Problem.solve``; Clarabel's tolerances are 1e-10 by default.

    Returns
    -------
    Result
        ``objective`` is the *program* objective at a point that is feasible up to the tolerance of
        the solver; ``dual_bound`` comes from its dual variables through
        :meth:`ConvexProgram.bound_of`, so both are comparable with every other solver's.

    Raises
    ------
    ImportError
        If CVXPY is missing: ``pip install "cvxnn[test]"``.
    TypeError
        For a loss or penalty that is not of this package, or sparse rows.
    RuntimeError
        If the solver finds no solution; try another one or standardise ``X``.
    """
    cp = require("cvxpy", extra="test")
    began = time.perf_counter()
    program.check()
    refuse_sparse(program.operator.X, "solve_with_cvxpy")
    program = on_host(program, np.float64)
    X, mask = program.operator.X, program.operator.mask
    (C, n_signs, _, d), P = program.stacked_shape, program.operator.n_patterns
    outputs = [[cp.Variable((P, d)) for _ in range(n_signs)] for _ in range(C)]
    linear = None if program.skip is None else cp.Variable((C, d))
    scores = [[X @ U.T for U in signs] for signs in outputs]
    gated = [cp.multiply(mask, s[0] - s[1] if n_signs == 2 else s[0]) for s in scores]
    prediction = cp.vstack([cp.sum(each, axis=1) for each in gated]).T
    if linear is not None:
        prediction += X @ linear.T
    objective = _mean_loss(cp, program.loss, prediction, program.y, program.share)
    alphas = np.broadcast_to(program.alpha, C).tolist()
    for alpha, signs in zip(alphas, outputs, strict=True):
        objective += alpha * _penalty(cp, program.penalty, cp.vstack(signs))
    if linear is not None:
        objective += float(program.linear_ridge) / n_signs / 2 * cp.sum_squares(linear)
    cones = []
    if n_signs == 2:
        orientation = 2.0 * mask - 1
        cones = [cp.multiply(orientation, s) >= 0 for part in scores for s in part]
    conic = cp.Problem(cp.Minimize(objective), cones)
    with warnings.catch_warnings():
        # The certificate below says how accurate it is.
        warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
        conic.solve(solver=solver, **{**_TIGHT.get(solver, {}), **options})
    if outputs[0][0].value is None:
        raise RuntimeError(
            f"CVXPY with {solver} gave no solution: {conic.status}. Try another solver, or "
            "standardise X."
        )
    blocks: Any = np.array([[U.value for U in signs] for signs in outputs])
    weights = Weights(blocks, None if linear is None else linear.value)
    at = program.evaluate(weights)
    dual = DualPoint(at.residual, None)
    if cones:
        found = np.array([np.maximum(cone.dual_value, 0) for cone in cones])
        multipliers = np.moveaxis(found.reshape(C, n_signs, len(X), P), 2, 0)
        dual = dual._replace(multipliers=multipliers)
    value, bound = float(at.objective), float(program.bound_of(dual))
    gap, violation = relative_gap(value, bound, program.rounding()), float(at.violation)
    solved = conic.status == "optimal" or max(gap, violation) <= _CERTIFIED
    return Result(
        weights=weights,
        objective=value,
        dual_bound=bound,
        gap=gap,
        status=Status.CONVERGED if solved else Status.MAX_ITER,
        n_iter=0,
        history={
            "iteration": np.zeros(1),
            "time": np.array([time.perf_counter() - began]),
            "objective": np.array([value]),
            "dual_bound": np.array([bound]),
            "stopping": np.array([gap]),
            "violation": np.array([violation]),
        },
        dual=dual,
    )


def _mean_loss(cp: Any, loss: Loss, prediction: Any, y: Any, share: Any) -> Any:
    share = np.broadcast_to(share, y.shape)
    kind = type(loss)  # a subclass may be another function
    if kind is SquaredLoss:
        return cp.sum_squares(cp.multiply(np.sqrt(share), prediction - y)) / 2
    if isinstance(loss, HuberLoss) and kind is HuberLoss:
        return cp.sum(cp.multiply(share, cp.huber(prediction - y, float(loss.delta)))) / 2
    if kind is LogisticLoss:
        return cp.sum(cp.multiply(share, cp.logistic(-cp.multiply(y, prediction))))
    if kind is MultinomialLoss:
        picked = cp.sum(cp.multiply(y, prediction), axis=1)
        return share[:, 0] @ (cp.log_sum_exp(prediction, axis=1) - picked)
    known = "SquaredLoss, HuberLoss, LogisticLoss and MultinomialLoss"
    raise TypeError(f"solve_with_cvxpy knows {known}, not {loss!r}.")


def _penalty(cp: Any, penalty: Penalty, blocks: Any) -> Any:
    """Return the penalty of one output's blocks, (n_signs * n_patterns, n_features)."""
    kind = type(penalty)
    if kind is NeuronGroupLasso:
        return cp.sum(cp.norm(blocks, axis=1))
    if kind is FeatureGroupLasso:
        return cp.sum(cp.norm(blocks, axis=0))
    if kind is L1:
        return cp.sum(cp.abs(blocks))
    if kind is SquaredL2:
        return cp.sum_squares(blocks) / 2
    known = "NeuronGroupLasso, FeatureGroupLasso, L1 and SquaredL2"
    raise TypeError(f"solve_with_cvxpy knows {known}, not {penalty!r}.")
