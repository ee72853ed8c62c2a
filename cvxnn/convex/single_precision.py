"""Solving in single precision where the tolerance is coarse, with the certificate in double."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np

from cvxnn.convex.host_program import on_host
from cvxnn.convex.loop import solve
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Callback, Result, Solver, Status, relative_gap
from cvxnn.numerics.arrays import is_sparse, leaves_of, map_leaves

# Tolerances from here on leave room for the rounding of single precision.
_COARSE_TOL = 1e-3
# Part of the tolerance that is left to the difference between the two precisions.
_MARGIN = 0.01
# Sizes of data whose squares, and sums of many, single precision holds.
_LEAST_SIZE, LARGEST_SINGLE = 1e-12, 1e12
# Reasons to stop after which double precision goes on if its certificate misses the tolerance.
_GOES_ON = (Status.CONVERGED, Status.STALLED)


def solve_to_tolerance(
    program: ConvexProgram,
    solver: Solver[Any, Any],
    *,
    start: Any = None,
    incumbent: float = np.inf,
    callback: Callback | None = None,
) -> Result:
    """Solve a program as ``solve`` does, in single precision where its tolerance is coarse.

    A compiled solver of a program in double precision then takes half the memory, and less than
    half the time. Objective and bound of the result are computed in double precision from its
    weights and its dual point; if they miss the tolerance, or the tolerance is finer than what
    single precision resolves of the objective, the solver goes on in double precision.

    Parameters
    ----------
    program : ConvexProgram
        What to minimise.
    solver : Solver
        Method that reports the best network, as those that ``automatic`` chooses do.
    start : Weights or Result, optional
        Where to start.
    incumbent : float, default=inf
        Objective of a point that is known already; see ``solve``.
    callback : callable, optional
        As for ``solve``; weights are in double precision.

    Returns
    -------
    Result
        In the precision of the program.
    """
    in_double = partial(solve, program, solver, incumbent=incumbent, callback=callback)
    if solver.on_host or solver.tol < _COARSE_TOL or not _fits(program):
        return in_double(start=start)
    single = on_host(program, np.float32)
    rounding, unresolved = single.rounding(), []

    def resolves(objective: float) -> bool:
        return abs(objective) * solver.tol >= rounding

    def watch(row: dict[str, float], weights: Callable[[], Any]) -> bool | None:
        if not resolves(row["objective"]):
            unresolved.append(row)
            return True
        return callback and callback(row, lambda: _as_dtype(weights(), np.float64))

    if not resolves(incumbent):
        return in_double(start=start)
    rough: Any = replace(cast(Any, solver), tol=(1 - _MARGIN) * solver.tol)
    with np.errstate(all="ignore"):  # what overflows is solved in double precision
        found = solve(single, rough, start=start, incumbent=incumbent, callback=watch)
        result = _measured(program, found)
    if result.status is Status.NON_FINITE:
        return in_double(start=start)
    if unresolved or (result.gap > solver.tol and result.status in _GOES_ON):
        return in_double(start=result)
    return result


def _fits(program: ConvexProgram) -> bool:
    """Return whether a program is in double precision and within the range of the single one."""
    leaves = [leaf for leaf in leaves_of(program) if hasattr(leaf, "dtype")]
    if any(is_sparse(leaf) for leaf in leaves) or program.operator.X.dtype != np.float64:
        return False
    sizes = [np.abs(leaf).max(initial=0) for leaf in leaves if leaf.dtype == np.float64]
    return all(size == 0 or _LEAST_SIZE < size < LARGEST_SINGLE for size in sizes)


def _as_dtype(tree: Any, dtype: Any) -> Any:
    return map_leaves(lambda leaf: np.asarray(leaf, dtype), tree)


def _measured(program: ConvexProgram, found: Result) -> Result:
    """Return a result in double precision, with the objective and the bound that it has there."""
    weights, dual = _as_dtype((found.weights, found.dual), np.float64)
    at = on_host(program).evaluate(weights)
    objective = float(at.network_objective)
    bound = -np.inf if dual is None else float(on_host(program).bound_of(dual))
    objective = np.inf if np.isnan(objective) else objective
    bound = -np.inf if np.isnan(bound) else bound
    gap = relative_gap(objective, bound, program.rounding())
    history = {name: column.copy() for name, column in found.history.items()}
    exact = {"objective": objective, "dual_bound": bound, "stopping": gap}
    for name, value in exact.items():
        history[name][-1] = value
    return found._replace(
        weights=weights, objective=objective, dual_bound=bound, gap=gap, history=history, dual=dual
    )
