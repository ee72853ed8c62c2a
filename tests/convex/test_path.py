"""The regularisation path: its grid, and each of its points as good as a cold solve."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cvxnn.convex import (
    L1,
    ConvexProgram,
    GatedOperator,
    InteriorPoint,
    LogisticLoss,
    Result,
    SquaredL2,
    Status,
    interpolated_path,
    path,
    sample_patterns,
    solve,
    solve_on_working_sets,
)

N, D, P = 30, 3, 40
TIGHT = InteriorPoint(tol=1e-8)


def make(formulation: Any = "gated", outputs: int = 1, logistic: bool = False) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    y = np.maximum(X @ rng.standard_normal((D, 2)), 0) @ rng.standard_normal((2, outputs))
    y += 0.1 * rng.standard_normal((N, outputs))
    mask = sample_patterns(X, P, random_state=0).mask
    program = ConvexProgram(GatedOperator(X, mask), y, np.nan, formulation=formulation)
    if logistic:
        program = replace(program, y=np.where(y > 0, 1.0, -1.0), loss=LogisticLoss())
    return program


def few_patterns(program: ConvexProgram) -> ConvexProgram:
    operator = program.operator
    return replace(program, operator=replace(operator, mask=operator.mask[:, :10]))


def n_active(result: Result) -> int:
    return int((np.abs(result.weights.blocks).max(axis=(0, 1, 3)) > 0).sum())


def test_the_grid_falls_from_alpha_max() -> None:
    program = make(outputs=2)
    grid = path.alpha_grid(program, 7, eps=0.05)
    steepest = max(
        np.linalg.norm((program.operator.X * program.y[:, [c]])[gate].sum(axis=0)) / N
        for gate in program.operator.mask.T
        for c in range(2)
    )
    assert grid[0] == pytest.approx(steepest, rel=1e-12)
    assert grid[-1] == pytest.approx(0.05 * steepest, rel=1e-12)
    assert len(grid) == 7
    np.testing.assert_allclose(grid[1:] / grid[:-1], 0.05 ** (1 / 6))


@pytest.mark.parametrize("formulation", ["gated", "relu"])
@pytest.mark.parametrize("logistic", [False, True])
def test_each_point_is_certified_and_equals_a_cold_solve(formulation: Any, logistic: bool) -> None:
    program = make(formulation, logistic=logistic)
    found = path.regularization_path(program, n_alphas=4, eps=0.05, tol=1e-4)
    np.testing.assert_allclose(found.alphas, path.alpha_grid(program, 4, 0.05))
    assert len(found.results) == 4
    for alpha, result in zip(found.alphas, found.results, strict=True):
        at = replace(program, alpha=float(alpha))
        cold = solve(at, TIGHT)
        assert cold.gap <= 1e-7
        assert result.status is Status.CONVERGED
        assert result.dual is not None
        objective = float(at.evaluate(result.weights).network_objective)
        assert objective == pytest.approx(result.objective, rel=1e-9)
        assert float(at.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=1e-9)
        assert result.gap <= 1e-4
        assert cold.dual_bound <= objective * (1 + 1e-9) <= cold.objective * (1 + 2e-4)
    objectives = [result.objective for result in found.results]
    assert (np.diff(objectives) < 0).all()


def test_weights_vanish_at_alpha_max_and_appear_below() -> None:
    program = make()
    largest = path.alpha_grid(program)[0]
    factors = np.array([1.001, 0.95, 0.3])
    found = path.regularization_path(program, alphas=largest * factors, tol=1e-5)
    counts = [n_active(result) for result in found.results]
    assert counts[0] == 0
    assert 0 < counts[1] < counts[2]
    assert found.results[0].objective == pytest.approx((program.y**2).sum() / (2 * N))


def test_warm_starts_spare_rounds() -> None:
    program = make()
    found = path.regularization_path(program, n_alphas=8, eps=0.05, tol=1e-4)
    warm = cold = 0
    for alpha, result in zip(found.alphas, found.results, strict=True):
        at = replace(program, alpha=float(alpha))
        warm += result.n_iter
        cold += solve_on_working_sets(at, tol=1e-4, n_first=1).n_iter
    assert warm < 0.7 * cold
    # And few patterns are ever looked at.
    largest = max(result.history["n_working"].max() for result in found.results)
    assert largest < P


def test_given_strengths_are_sorted_and_kept() -> None:
    program = make()
    given = [0.01, 0.1, 0.03]
    found = path.regularization_path(program, alphas=given)
    np.testing.assert_array_equal(found.alphas, [0.1, 0.03, 0.01])
    assert given == [0.01, 0.1, 0.03]
    objectives = [result.objective for result in found.results]
    assert objectives == sorted(objectives, reverse=True)


def test_a_skip_connection_and_a_ridge_need_no_working_sets() -> None:
    program = replace(make(), skip=0.1)
    found = path.regularization_path(program, alphas=[0.1, 0.01], tol=1e-5)
    ridge = replace(make(), penalty=SquaredL2())
    for problem, results in (
        (program, found.results),
        (ridge, path.regularization_path(ridge, alphas=[0.1, 0.01], tol=1e-5).results),
    ):
        for alpha, result in zip([0.1, 0.01], results, strict=True):
            cold = solve(replace(problem, alpha=alpha), TIGHT)
            assert result.objective == pytest.approx(cold.objective, rel=2e-5)
            assert "n_working" not in result.history


def test_the_solver_given_is_used() -> None:
    result = path.regularization_path(
        make("relu"), alphas=[0.01], solver=InteriorPoint(tol=0, max_iter=2)
    ).results[0]
    assert result.n_iter == 2
    assert result.status is Status.MAX_ITER


@pytest.mark.parametrize(
    "options",
    [
        {"formulation": "relu", "outputs": 2},
        {"formulation": "relu", "logistic": True},
        {"formulation": "relu"},
    ],
    ids=str,
)
def test_mixtures_between_solutions_are_certified(options: Any) -> None:
    program, tol = few_patterns(make(**options)), 0.05
    found = path.regularization_path(program, n_alphas=12, eps=1e-2, tol=tol)
    mixed = [result.n_iter == 0 for result in found.results]
    assert not mixed[0]
    assert not mixed[-1]
    assert sum(mixed) >= 4
    for alpha, result in zip(found.alphas, found.results, strict=True):
        at = replace(program, alpha=float(alpha))
        cold = solve(at, InteriorPoint(tol=1e-6))
        assert result.status is Status.CONVERGED
        assert result.dual is not None
        assert -1e-9 <= result.gap <= tol
        assert float(at.evaluate(result.weights).network_objective) == pytest.approx(
            result.objective, rel=1e-9
        )
        assert float(at.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=1e-9)
        assert result.dual_bound <= cold.objective * (1 + 1e-6)
        assert (1 - tol) * cold.objective <= result.objective <= cold.objective / (1 - tol)
    objectives = [result.objective for result in found.results]
    assert (np.diff(objectives) < 0).all()


def test_what_is_solved_at_every_strength() -> None:
    program, options = few_patterns(make("relu")), {"n_alphas": 5, "eps": 0.5}
    given = InteriorPoint(tol=0.05)
    gated = replace(program, formulation="gated")
    for problem, more in ((program, {"tol": 1e-3}), (program, {"solver": given}), (gated, {})):
        found = path.regularization_path(problem, **options, **({"tol": 0.05} | more))
        assert all(result.n_iter for result in found.results)
    # The same strength twice has nothing in between.
    twice = path.regularization_path(program, alphas=[0.1, 0.1, 0.01], tol=0.05)
    assert all(result.n_iter for result in twice.results)


def test_a_mixture_is_never_taken_without_a_proof(monkeypatch: Any) -> None:
    program = few_patterns(make("relu"))
    monkeypatch.setattr(interpolated_path, "mixture", lambda *_: found._replace(gap=np.nan))
    found = solve(replace(program, alpha=0.1), InteriorPoint(tol=0.01))
    results = path.regularization_path(program, n_alphas=7, tol=0.05).results
    assert all(result.n_iter and result.gap <= 0.025 for result in results)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_cronos_continues_until_interior_point_is_quicker(monkeypatch: Any) -> None:
    monkeypatch.setattr(path, "_MANY_FLOPS", 0)
    monkeypatch.setattr(path, "_FEW_ITERATIONS", 20)
    program = make("relu")
    found = path.regularization_path(program, n_alphas=6, eps=1e-3, tol=1e-3)
    by_cronos = ["rho_cones" in result.history for result in found.results]
    assert by_cronos == sorted(by_cronos, reverse=True)
    assert by_cronos[0]
    assert not by_cronos[-1]
    for alpha, result in zip(found.alphas, found.results, strict=True):
        at = replace(program, alpha=float(alpha))
        cold = solve(at, TIGHT)
        assert result.gap <= 1e-3
        assert float(at.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=1e-9)
        assert result.dual_bound <= cold.objective * (1 + 1e-6)
        assert result.objective <= cold.objective * (1 + 2e-3)
    # A finer tolerance is one of interior point from the first strength on.
    fine = path.regularization_path(program, alphas=found.alphas[:2], tol=9e-4)
    assert all("rank" in result.history for result in fine.results)


def test_callback_gets_each_strength() -> None:
    rows: list[dict[str, float]] = []
    found = path.regularization_path(
        make(), n_alphas=3, callback=lambda row, weights: rows.append(row)
    )
    assert [row["alpha"] for row in rows] == list(found.alphas)
    for row, result in zip(rows, found.results, strict=True):
        assert row["objective"] == result.objective
        assert row["gap"] == result.gap
        assert row["n_active"] == n_active(result)


@pytest.mark.parametrize("eps", [0, 1, 1.5, -0.1, np.nan])
def test_refuses_a_grid_that_does_not_fall(eps: float) -> None:
    with pytest.raises(ValueError, match=r"eps=.*between 0 and 1"):
        path.alpha_grid(make(), eps=eps)


def test_refuses_a_grid_without_alpha_max() -> None:
    program = make()
    for nothing in (
        replace(program, penalty=SquaredL2()),
        replace(program, y=np.zeros((N, 1))),
    ):
        with pytest.raises(ValueError, match=r"alpha_max is .*pass the strengths as alphas="):
            path.regularization_path(nothing)


@pytest.mark.parametrize("alphas", [[], [0.1, np.nan], [np.inf], [-0.1, 0.1]])
def test_refuses_strengths_that_are_none(alphas: list[float]) -> None:
    with pytest.raises(ValueError, match="expected one or more finite numbers of at least 0"):
        path.regularization_path(make(), alphas=alphas)


def test_the_solver_refuses_what_it_cannot_do() -> None:
    with pytest.raises(TypeError, match="InteriorPoint takes NeuronGroupLasso"):
        path.regularization_path(
            replace(make(), penalty=L1()), alphas=[0.1], solver=InteriorPoint()
        )
