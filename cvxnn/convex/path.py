"""Regularisation paths: one solution for each strength, each started from the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.host_program import on_host
from cvxnn.convex.interpolated_path import interpolated
from cvxnn.convex.loop import solve
from cvxnn.convex.penalties import NeuronGroupLasso
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.single_precision import solve_to_tolerance
from cvxnn.convex.solver import Callback, Result, Solver, Status
from cvxnn.convex.solvers.automatic import INTERIOR_POINT_ITERATIONS, automatic
from cvxnn.convex.solvers.cronos.cronos import Cronos
from cvxnn.convex.solvers.interior_point.interior_point import InteriorPoint, cost
from cvxnn.convex.solvers.ridge.ridge import Ridge
from cvxnn.convex.solvers.ridge.ridge_path import RidgePath, takes_path
from cvxnn.convex.solvers.working_set import solve_on_working_sets

# From so many flops of interior point along a path on, below which compilation costs more than it
# saves, and for tolerances from this on, CRONOS goes first: it continues from the last strength,
# where interior point starts from nothing. Weak strengths take it more iterations than these.
_MANY_FLOPS, _COARSE_TOL, _FEW_ITERATIONS = 5e10, 1e-3, 250
# For tolerances from this on, mixtures of solutions take the place of those of interior point,
# which are then found to this part of the tolerance.
_INTERPOLATED_TOL, _FINER = 5e-3, 0.5


class RegularizationPath(NamedTuple):
    """Solutions along a grid of strengths.

    Attributes
    ----------
    alphas : ndarray, shape (n_alphas,)
        Strengths, from the largest to the smallest.
    results : list of Result
        The certified solution at each strength.
    """

    alphas: NDArray[np.floating]
    results: list[Result]


def alpha_grid(program: ConvexProgram, n_alphas: int = 20, eps: float = 1e-2) -> NDArray:
    """Return a geometric grid from ``alpha_max``, where all blocks vanish, downwards.

    Parameters
    ----------
    program : ConvexProgram
        Any program whose penalty is a norm; its own ``alpha`` is not used.
    n_alphas : int, default=20
        Number of strengths.
    eps : float, default=1e-2
        Smallest strength as a fraction of the largest; between 0 and 1.

    Returns
    -------
    ndarray, shape (n_alphas,)
        Strengths, from the largest to the smallest.

    Raises
    ------
    ValueError
        If ``eps`` is not in (0, 1), or the penalty has no ``alpha_max``.
    """
    replace(program, alpha=0.0).check()
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps!r}; expected a number between 0 and 1.")
    largest = float(on_host(program).alpha_max())
    if not 0 < largest < np.inf:
        raise ValueError(
            f"alpha_max is {largest}: the targets are zero or {type(program.penalty).__name__} "
            "never removes weights; pass the strengths as alphas=[...]."
        )
    return np.geomspace(largest, eps * largest, n_alphas)


def regularization_path(
    program: ConvexProgram,
    *,
    alphas: Sequence[float] | NDArray[np.floating] | None = None,
    n_alphas: int = 20,
    eps: float = 1e-2,
    tol: float = 1e-3,
    solver: Solver | None = None,
    max_iter: int | None = None,
    callback: Callback | None = None,
) -> RegularizationPath:
    """Solve a program for a falling sequence of strengths.

    Parameters
    ----------
    program : ConvexProgram
        The program to solve; its own ``alpha`` is not used.
    alphas : sequence of float, optional
        Strengths, at least 0; sorted to fall. By default :func:`alpha_grid`.
    n_alphas : int, default=20
        Number of strengths of the default grid.
    eps : float, default=1e-2
        Smallest strength of the default grid, as a fraction of the largest; between 0 and 1.
    tol : float, default=1e-3
        Relative duality gap of each solution.
    solver : Solver, optional
        Method for each strength; by default ``automatic`` chooses.
    max_iter : int, optional
        Most iterations at each strength; the solver's own default otherwise.
    callback : callable, optional
        Called after each strength with ``alpha``, ``objective``, ``dual_bound``, ``gap`` and
        ``n_active`` patterns.

    Returns
    -------
    RegularizationPath
        Strengths and solutions.

    Raises
    ------
    ValueError
        If a strength is negative or not finite, or there is none.

    Notes
    -----
    In the gated formulation with the neuron group lasso each strength is solved on working sets
    that start from the active patterns of the last one; the certificate is one for all patterns. In
    the ReLU formulation, where interior point would be chosen and has much to do, CRONOS goes first
    if ``tol`` is 1e-3 or more: it continues from the last weights and multipliers. Once a strength
    takes it more than 250 iterations, interior point goes on. On a
    shorter path, with a ``tol`` of 5e-3 or more and no ``solver``, interior point solves for some
    strengths, and mixtures of its solutions serve in between where they are within ``tol``
    themselves: ``n_iter`` is 0 there (``cvxnn.convex.interpolated_path``). If
    the solution is direct, all strengths share a few factorisations
    (``cvxnn.convex.solvers.ridge.ridge_path``).
    """
    replace(program, alpha=0.0).check()
    grid = alpha_grid(program, n_alphas, eps) if alphas is None else np.sort(alphas)[::-1]
    if len(grid) == 0 or not np.all(np.isfinite(grid)) or grid[-1] < 0:
        raise ValueError(f"alphas={alphas!r}; expected one or more finite numbers of at least 0.")
    results: list[Result] = []
    found = solutions(program, grid, tol=tol, solver=solver, max_iter=max_iter)
    for alpha, last in zip(grid, found, strict=True):
        results.append(last)
        if callback is not None:
            n_active = int((np.abs(last.weights.blocks).max(axis=(0, 1, 3)) > 0).sum())
            callback(
                {
                    "alpha": float(alpha),
                    "objective": last.objective,
                    "dual_bound": last.dual_bound,
                    "gap": last.gap,
                    "n_active": float(n_active),
                },
                partial(jax.tree.map, np.copy, last.weights),
            )
    return RegularizationPath(np.asarray(grid, float), results)


def solutions(
    program: ConvexProgram,
    grid: NDArray[np.floating],
    *,
    tol: float,
    solver: Solver | None,
    max_iter: int | None,
) -> Iterator[Result]:
    """Yield the solutions at falling strengths, each started from the last, when asked for.

    Parameters
    ----------
    program : ConvexProgram
        Program whose ``alpha`` is replaced.
    grid : ndarray, shape (n_alphas,)
        Penalty parameters, falling.
    tol : float
        Relative duality gap to reach at each.
    solver : Solver or None
        Solver of all of them; None chooses for each.
    max_iter : int or None
        Most iterations of each solve; None leaves it to the solver.
    """
    if takes_path(program) and grid[-1] > 0 and (solver is None or isinstance(solver, Ridge)):
        options = solver or Ridge(tol=tol)
        if solver is None and max_iter is not None:
            options = replace(options, max_iter=max_iter)
        path = RidgePath(program, options)
        yield from (path.result(point) for point in path.points(grid))
        return
    screened = (
        program.formulation == "gated"
        and type(program.penalty) is NeuronGroupLasso
        and program.skip is None
    )
    interior = solver is None and _takes_interior_point(program, tol)
    iterations = len(grid) * INTERIOR_POINT_ITERATIONS
    continues = interior and tol >= _COARSE_TOL and iterations * cost(program) > _MANY_FLOPS
    # Other solvers start from the last solution, and need no mixtures.
    if interior and not continues and tol >= _INTERPOLATED_TOL and (np.diff(grid) < 0).all():
        finer = partial(_solve_at, program, tol=_FINER * tol, solver=None, max_iter=max_iter)
        yield from interpolated(program, grid, finer, tol)
        return
    quick = Cronos(tol=tol, max_iter=min(_FEW_ITERATIONS, max_iter or _FEW_ITERATIONS))
    last: Result | None = None
    for alpha in grid:
        at = replace(program, alpha=float(alpha))
        if screened:
            found = solve_on_working_sets(at, tol=tol, solver=solver, start=last)
        elif continues:
            found = last = solve_to_tolerance(at, quick, start=last)
            continues = last.status is Status.CONVERGED
        if not (screened or continues):
            found = _solve_at(program, alpha, last, tol=tol, solver=solver, max_iter=max_iter)
        last = found
        yield found


def _solve_at(
    program: ConvexProgram,
    alpha: float,
    last: Result | None,
    *,
    tol: float,
    solver: Solver | None,
    max_iter: int | None,
) -> Result:
    """Return the solution at a strength, started from one at a stronger one."""
    at = replace(program, alpha=float(alpha))
    if solver is not None:
        return solve(at, solver, start=last)
    return solve_to_tolerance(at, automatic(at, tol=tol, max_iter=max_iter), start=last)


def _takes_interior_point(program: ConvexProgram, tol: float) -> bool:
    """Return whether interior point would be chosen along a path of ReLU networks."""
    if program.formulation != "relu":
        return False
    return isinstance(automatic(replace(program, alpha=1.0), tol=tol), InteriorPoint)
