r"""Solutions between two others of a path, which need no solver where they prove themselves.

Weights of two solutions may be mixed, since the program is convex, and so may their dual points:
slopes of at most :math:`\alpha_1` and :math:`\alpha_2` mix to slopes of at most the strength in
between. A mixture is optimal up to the square of the distance. So a path within a tolerance at
every strength needs few solutions (Giesen, Jaggi & Laue, 2012; Ndiaye, Le, Fercoq, Salmon &
Takeuchi, "Safe grid search with optimal complexity", 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.host_program import on_host
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result, Status, relative_gap

# Strengths from the first solution to the next, by how many more where mixtures were within the
# tolerance, and most of them.
_FIRST, _FARTHER, _FARTHEST = 3, 2, 8
# Weights change faster at strong strengths: of so many mixtures, with more of the stronger
# solution each, the one of the lowest objective counts.
_N_MIXTURES = 4


def interpolated(
    program: ConvexProgram,
    grid: NDArray[np.floating],
    solve_at: Callable[[float, Result | None], Result],
    tol: float,
) -> Iterator[Result]:
    """Yield the solutions at falling strengths, of which only some are solved for.

    Parameters
    ----------
    program : ConvexProgram
        Program whose ``alpha`` is replaced.
    grid : ndarray, shape (n_alphas,)
        Strengths, falling.
    solve_at : callable
        From a strength and the solution at a stronger one, or None, to a solution; its tolerance
        has to be a fraction of ``tol``.
    tol : float
        Relative duality gap of a mixture, above which its strength is solved for.
    """
    grid, host = np.asarray(grid, float), on_host(program)
    known, at, reach = solve_at(grid[0], None), 0, _FIRST
    yield known
    while at < len(grid) - 1:
        ahead = min(at + reach, len(grid) - 1)
        weaker = solve_at(grid[ahead], known)
        found = _between(host, grid[at : ahead + 1], known, weaker, solve_at, tol)
        yield from (*found, weaker)
        solved = any(one.n_iter for one in found)
        reach = max(reach - 1, 2) if solved else min(reach + _FARTHER, _FARTHEST)
        known, at = weaker, ahead


def _between(
    program: ConvexProgram,
    grid: NDArray[np.floating],
    stronger: Result,
    weaker: Result,
    solve_at: Callable[[float, Result | None], Result],
    tol: float,
) -> list[Result]:
    """Return the solutions within a grid whose ends are solved, halved where it is too coarse."""
    parts = (grid[1:-1] - grid[-1]) / (grid[0] - grid[-1])
    found = [
        mixture(replace(program, alpha=alpha), stronger, weaker, part)
        for alpha, part in zip(grid[1:-1], parts, strict=True)
    ]
    if all(one.gap <= tol for one in found):
        return found
    half = len(grid) // 2
    middle = solve_at(grid[half], stronger)
    before = _between(program, grid[: half + 1], stronger, middle, solve_at, tol)
    return [*before, middle, *_between(program, grid[half:], middle, weaker, solve_at, tol)]


def mixture(program: ConvexProgram, stronger: Result, weaker: Result, part: float) -> Result:
    """Return a mixture of two solutions with its certificate.

    Parameters
    ----------
    program : ConvexProgram
        With the strength in between, as NumPy arrays.
    stronger, weaker : Result
        Solutions of the same program at other strengths.
    part : float
        Part of the first in the mixture, from 0 to 1.
    """
    bound, dual = -np.inf, None
    if stronger.dual is not None and weaker.dual is not None:
        dual = _mix(stronger.dual, weaker.dual, part)
        bound = float(program.bound_of(dual))
    several = [
        _mix(stronger.weights, weaker.weights, share) for share in np.linspace(part, 1, _N_MIXTURES)
    ]
    objectives = [float(program.evaluate(one).network_objective) for one in several]
    best = int(np.argmin(objectives))
    weights, objective = several[best], objectives[best]
    gap = relative_gap(objective, bound, program.rounding())
    row = {"iteration": 0.0, "time": 0.0, "objective": objective, "dual_bound": bound}
    return Result(
        weights=weights,
        objective=objective,
        dual_bound=bound,
        gap=gap,
        status=Status.CONVERGED,
        n_iter=0,
        history={name: np.array([value]) for name, value in (row | {"stopping": gap}).items()},
        dual=dual,
    )


def _mix(first: Any, second: Any, part: float) -> Any:
    """Return ``part`` of one tree of arrays and the rest of another."""
    return jax.tree.map(lambda one, other: part * one + (1 - part) * other, first, second)
