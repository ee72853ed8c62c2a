r"""Working sets: solve over the patterns that matter, prove that the others do not.

The program over a subset of patterns is solved; then the bound of *all* patterns is computed from
its dual point. Patterns whose slope exceeds the penalty's strength join, until the gap of the whole
program is within ``tol``. In the ReLU formulation the patterns outside keep the multipliers of the
start, so one near the solution, such as the last point of a regularisation path, saves work.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.host_program import on_host
from cvxnn.convex.loop import solve
from cvxnn.convex.operators import Weights
from cvxnn.convex.penalties import NeuronGroupLasso
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Callback, Result, Solver, Status, relative_gap
from cvxnn.convex.solvers.automatic import automatic

_MOST_ROUNDS = 20


def solve_on_working_sets(
    program: ConvexProgram,
    *,
    tol: float = 1e-4,
    solver: Solver | None = None,
    start: Result | None = None,
    n_first: int = 32,
    callback: Callback | None = None,
) -> Result:
    """Solve a program of many patterns through a growing subset of them.

    Parameters
    ----------
    program : ConvexProgram
        With the neuron group lasso, whose zero blocks are what makes it worth while; no linear
        part.
    tol : float, default=1e-4
        Relative duality gap of the whole program.
    solver : Solver, optional
        Method for the subsets; by default ``automatic`` chooses. Its own tolerance should be
        below ``tol``.
    start : Result, optional
        Solution of a similar program with the same patterns.
    n_first : int, default=32
        Patterns to begin with, those of steepest slope, beside the active ones of ``start``.
    callback : callable, optional
        Called with the newest row of the history, in which ``iteration`` counts rounds and
        ``n_working`` is the size of the subset, and a function that returns the weights.

    Returns
    -------
    Result
        Over all patterns, with a certificate for all of them.

    Raises
    ------
    TypeError
        For another penalty or a linear part.
    """
    program.check()
    if type(program.penalty) is not NeuronGroupLasso or program.skip is not None:
        raise TypeError("Working sets need NeuronGroupLasso and no linear part; use solve.")
    began = time.perf_counter()
    host = on_host(program)
    n_patterns = host.operator.n_patterns
    weights = host.zeros().blocks
    dual = DualPoint(-host.loss.gradient(np.zeros_like(host.y), host.y), _no_multipliers(host))
    if start is not None and start.dual is not None:
        weights, dual = start.weights.blocks, start.dual
    working = np.linalg.norm(weights, axis=-1).max(axis=(0, 1)) > 0
    slopes = _slopes(host, dual)
    if start is not None:
        working |= slopes > float(host.alpha)
    steepest = np.argsort(-slopes)
    working[steepest[: max(n_first - working.sum(), 0)]] = True
    rows: list[dict[str, float]] = []
    best, bound, status, objective = weights, -np.inf, Status.MAX_ITER, np.inf
    proof, rounding = dual, host.rounding()
    for _ in range(_MOST_ROUNDS):
        index = np.flatnonzero(working)
        result = _solve_subset(host, index, dual, solver, tol, start)
        multipliers = dual.multipliers
        if result.dual is None:  # a solver of the user's that proves nothing
            dual = DualPoint(_residual(host, index, result), multipliers)
        else:
            if multipliers is not None:
                multipliers = multipliers.copy()
                multipliers[..., index] = result.dual.multipliers
            dual = DualPoint(result.dual.residual, multipliers)
        raised = float(host.bound_of(dual))
        if raised > bound:
            bound, proof = raised, dual
        best = np.zeros_like(weights)
        best[:, :, index] = result.weights.blocks
        objective = result.objective
        gap = relative_gap(objective, bound, rounding)
        rows.append(
            {
                "iteration": len(rows) + 1.0,
                "time": time.perf_counter() - began,
                "objective": objective,
                "dual_bound": bound,
                "stopping": gap,
                "n_working": float(len(index)),
            }
        )
        if callback is not None:
            callback(rows[-1], partial(_copy, best))
        slopes = np.where(working, 0, _slopes(host, dual))
        joining = np.argsort(-slopes)[: max(len(index), n_first)]
        joining = joining[slopes[joining] > float(host.alpha)]
        if gap <= tol:
            status = Status.CONVERGED
            break
        if len(joining) == 0:
            status = result.status if result.status is not Status.CONVERGED else Status.STALLED
            break
        working[joining] = True
    assert len(working) == n_patterns
    return Result(
        weights=Weights(best),
        objective=objective,
        dual_bound=bound,
        gap=relative_gap(objective, bound, rounding),
        status=status,
        n_iter=len(rows),
        history={name: np.array([row[name] for row in rows]) for name in rows[0]},
        dual=proof,
    )


def _solve_subset(
    program: ConvexProgram,
    index: NDArray[np.intp],
    dual: DualPoint,
    solver: Solver | None,
    tol: float,
    start: Result | None,
) -> Result:
    operator = replace(program.operator, mask=np.ascontiguousarray(program.operator.mask[:, index]))
    subset = replace(program, operator=operator)
    chosen = solver or automatic(subset, tol=tol / 4)
    beginning = None
    if start is not None:
        multipliers = dual.multipliers
        if multipliers is not None:
            multipliers = multipliers[..., index]
        weights = Weights(start.weights.blocks[:, :, index])
        beginning = start._replace(weights=weights, dual=DualPoint(dual.residual, multipliers))
    return solve(subset, chosen, start=beginning)


def _residual(program: ConvexProgram, index: NDArray[np.intp], result: Result) -> Any:
    blocks = np.zeros_like(program.zeros().blocks)
    blocks[:, :, index] = result.weights.blocks
    return program.evaluate(Weights(blocks)).residual


def _copy(blocks: NDArray[np.floating]) -> Weights:
    return Weights(blocks.copy())


def _slopes(program: ConvexProgram, dual: DualPoint) -> NDArray[np.floating]:
    """Return the largest norm of each pattern's slope, to be compared with ``alpha``."""
    slope: Any = program.slope(dual.residual)
    if dual.multipliers is not None:
        slope = slope + program.operator.constraints_adjoint(np.maximum(dual.multipliers, 0))
    return np.linalg.norm(slope, axis=-1).max(axis=(0, 1))


def _no_multipliers(program: ConvexProgram) -> NDArray[np.floating] | None:
    if program.formulation == "gated":
        return None
    (n, P), C = program.operator.mask.shape, program.y.shape[1]
    return np.zeros((n, C, 2, P), program.operator.X.dtype)
