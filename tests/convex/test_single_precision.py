"""Coarse solves in single precision: what they report is computed in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    GatedOperator,
    InteriorPoint,
    Result,
    Status,
    Weights,
    add_bias,
    sample_patterns,
    single_precision,
    solve,
    solve_with_cvxpy,
)

N, D, P, TOL = 40, 3, 6, 1e-2
SOLVER = Cronos(tol=TOL, linear_solver="dual")


@pytest.fixture
def dtypes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Precisions of the programs that are solved, in order."""
    seen: list[Any] = []

    def watched(program: ConvexProgram, *arguments: Any, **options: Any) -> Result:
        seen.append(program.operator.X.dtype)
        return solve(program, *arguments, **options)

    monkeypatch.setattr(single_precision, "solve", watched)
    return seen


def program(alpha: float = 1e-2) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = add_bias(rng.standard_normal((N, D)))
    y = np.maximum(X @ rng.standard_normal(D + 1), 0)[:, None] + 0.1 * rng.standard_normal((N, 1))
    return ConvexProgram(GatedOperator(X, sample_patterns(X, P, random_state=0).mask), y, alpha)


@pytest.mark.slow
def test_a_coarse_solution_is_certified_in_double_precision(dtypes: list[Any]) -> None:
    problem = program()
    exact = solve_with_cvxpy(problem)
    rows: list[tuple[dict[str, float], Any]] = []

    def watch(row: dict[str, float], weights: Callable[[], Any]) -> None:
        rows.append((row, weights().blocks.dtype))

    found = single_precision.solve_to_tolerance(problem, SOLVER, callback=watch)
    assert dtypes == [np.float32]
    assert found.weights.blocks.dtype == found.dual.residual.dtype == np.float64
    assert found.status is Status.CONVERGED
    assert found.gap <= TOL
    assert found.objective == float(problem.evaluate(found.weights).network_objective)
    assert found.dual_bound == float(problem.bound_of(found.dual)) <= exact.objective + 1e-9
    assert found.objective <= (1 + TOL) * exact.objective
    assert found.history["objective"][-1] == found.objective
    assert {dtype for _, dtype in rows} == {np.dtype(np.float64)}


@pytest.mark.slow
def test_what_single_precision_cannot_resolve_goes_on_in_double(dtypes: list[Any]) -> None:
    # The objective of a perfect fit is tiny beside the loss without weights.
    problem = program()
    weights = np.zeros((1, 2, P, D + 1))
    side = 2.0 * problem.operator.mask[:, 0] - 1
    weights[0, 0, 0] = np.linalg.lstsq(problem.operator.X, side)[0]
    problem = replace(problem, y=problem.operator.forward(weights), alpha=1e-4)
    found = single_precision.solve_to_tolerance(problem, SOLVER)
    assert dtypes == [np.float32, np.float64]
    assert found.status is Status.CONVERGED
    assert found.gap <= TOL
    # A point that is known already tells as much.
    single_precision.solve_to_tolerance(problem, SOLVER, incumbent=found.objective)
    assert dtypes == [np.float32, np.float64, np.float64]


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_data_beyond_the_range_are_solved_in_double(scale: float, dtypes: list[Any]) -> None:
    problem = program()
    problem = replace(problem, y=scale * problem.y, alpha=scale * problem.alpha)
    found = single_precision.solve_to_tolerance(problem, replace(SOLVER, max_iter=20))
    assert dtypes == [np.float64]
    assert np.isfinite(found.objective)


@pytest.mark.parametrize("solver", [InteriorPoint(tol=TOL), replace(SOLVER, tol=1e-4, max_iter=20)])
def test_other_solves_are_left_alone(solver: Any, dtypes: list[Any]) -> None:
    problem = program()
    start = Weights(np.zeros((1, 2, P, D + 1)))
    found = single_precision.solve_to_tolerance(problem, solver, start=start)
    expected = solve(problem, solver, start=start)
    assert dtypes == [np.float64]
    np.testing.assert_array_equal(found.weights.blocks, expected.weights.blocks)


def test_a_callback_that_stops_is_obeyed(dtypes: list[Any]) -> None:
    found = single_precision.solve_to_tolerance(
        program(), SOLVER, callback=lambda row, weights: True
    )
    assert dtypes == [np.float32]
    assert found.status is Status.STOPPED
    assert found.n_iter == SOLVER.check_every
