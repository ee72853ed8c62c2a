"""All strengths at once: each certified, and what a cold direct solve gives."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import LinAlgError

from cvxnn.convex import (
    ConvexProgram,
    GatedOperator,
    HuberLoss,
    Ridge,
    SquaredL2,
    path,
    sample_patterns,
    solve,
)
from cvxnn.convex.solvers.ridge import factors
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.convex.solvers.ridge.ridge_path import RidgePath


def kernel(program: ConvexProgram) -> np.ndarray:
    return Kernel.stored(RidgeData.of(program)).matrix


def make(n: int = 50, d: int = 3, P: int = 30, weighted: bool = False) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    y = np.abs(X @ rng.standard_normal((d, 2))) + 0.1 * rng.standard_normal((n, 2))
    found = sample_patterns(X, P, random_state=0)
    weight = rng.exponential(size=n) if weighted else None
    return ConvexProgram(
        GatedOperator(X, found.mask),
        y,
        0.0,
        penalty=SquaredL2(),
        sample_weight=weight,
        formulation="gated",
    )


WAYS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "rows": ({}, {}),
    "weights": ({"n": 90, "P": 5}, {}),
    "nystrom": ({}, {"max_dense": 1, "rank": 20}),
    "no kernel": ({}, {"max_dense": 1, "max_kernel": 1}),
    "narrow": ({"P": 60}, {"max_dense": 1, "rank": 8}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tol", [1e-2, 1e-7])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_strength_is_certified_and_near_a_cold_solve(
    way: str, tol: float, weighted: bool
) -> None:
    size, limits = WAYS[way]
    program = make(**size, weighted=weighted)
    grid = np.linalg.eigvalsh(kernel(program))[-1] * np.geomspace(1, 1e-5, 9)
    found = path.regularization_path(program, alphas=grid, solver=Ridge(tol=tol, **limits))
    for alpha, result in zip(grid, found.results, strict=True):
        at = replace(program, alpha=float(alpha))
        cold = solve(at, Ridge(tol=1e-9))
        assert result.gap <= tol
        slack = 1e-8
        assert result.dual_bound <= cold.objective * (1 + slack)
        objective = float(at.evaluate(result.weights).objective)
        assert objective == pytest.approx(result.objective, rel=slack)
        assert cold.objective * (1 - slack) <= objective <= cold.objective * (1 + tol + slack)
        assert result.dual is not None
        assert float(at.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=slack)


@pytest.mark.parametrize("way", WAYS)
def test_targets_that_depend_on_each_other(way: str) -> None:
    size, limits = WAYS[way]
    program = make(**size)
    y = program.y[:, :1]
    # Opposites, as of two classes, and the rounding that centring leaves of a missing class.
    noise = 1e-17 * np.random.default_rng(1).standard_normal((len(y), 1))
    program = replace(program, y=np.concatenate([y, -y, noise, y], axis=1))
    grid = np.linalg.eigvalsh(kernel(program))[-1] * np.geomspace(1, 1e-5, 9)
    points = list(RidgePath(program, Ridge(tol=1e-7, **limits)).points(grid))
    assert max(point.gap for point in points) <= 1e-7
    for point in points:
        exact = np.linalg.solve(
            kernel(program) + point.alpha * np.eye(len(y)), RidgeData.of(program).targets
        )
        error = np.linalg.norm(point.u - exact, axis=0)[[0, 1, 3]]
        assert error.max() <= 1e-2 * np.linalg.norm(exact[:, 0])


@pytest.mark.parametrize("way", WAYS)
def test_predictions_are_those_of_the_weights(way: str) -> None:
    size, limits = WAYS[way]
    program = make(**size, weighted=True)
    rows = RidgePath(program, Ridge(tol=1e-6, **limits))
    points = list(rows.points(np.array([0.1, 1e-3])))
    rng = np.random.default_rng(1)
    X = rng.standard_normal((7, 3))
    mask = rng.random((7, program.operator.n_patterns)) < 0.5
    predictions = rows.predict(points, X, mask)
    assert predictions.shape == (2, 7, 2)
    for point, predicted in zip(points, predictions, strict=True):
        weights = rows.result(point).weights.blocks[:, 0]
        expected = np.einsum("kp,kd,cpd->kc", mask, X, weights)
        np.testing.assert_allclose(predicted, expected, atol=1e-8)
    thin = rows.predict(points, sparse.csr_array(X), mask)
    np.testing.assert_allclose(thin, predictions, atol=1e-12)


def test_the_largest_eigenvalue() -> None:
    for program in (make(), make(n=2), make(n=1), make(weighted=True)):
        expected = np.linalg.eigvalsh(kernel(program))[-1]
        assert RidgePath(program).largest() == pytest.approx(expected, rel=1e-5)
    nothing = replace(make(), operator=replace(make().operator, X=np.zeros((50, 3))))
    assert RidgePath(nothing).largest() == 0


def test_a_path_costs_less_than_cold_solves_add_up_to() -> None:
    program = make(200, P=60)
    grid = np.linalg.eigvalsh(kernel(program))[-1] * np.geomspace(1, 1e-6, 20)
    points = list(RidgePath(program, Ridge(tol=1e-3)).points(grid))
    assert sum(point.n_iter for point in points) < 60
    assert any(point.n_iter == 0 for point in points)
    assert all(np.diff([point.time for point in points]) >= 0)


def test_a_factor_that_rounding_forbids_is_made_for_a_larger_strength(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true, tried = factors.cho_factor, []

    def factor(matrix: np.ndarray, **options: Any) -> Any:
        tried.append(matrix)
        if len(tried) % 2:
            raise LinAlgError
        return true(matrix, **options)

    monkeypatch.setattr(factors, "cho_factor", factor)
    program = make()
    points = list(RidgePath(program, Ridge(tol=1e-9)).points(np.array([1e-4, 1e-6])))
    assert len(tried) >= 2
    assert all(point.gap <= 1e-9 for point in points)


def test_zero_targets_and_too_few_steps() -> None:
    program = make()
    (point,) = RidgePath(replace(program, y=np.zeros((50, 2)))).points(np.array([0.1]))
    assert not point.u.any()
    assert point.gap == 0
    few = Ridge(tol=1e-9, max_iter=2, max_dense=10, rank=5)
    (point,) = RidgePath(program, few).points(np.array([1e-6]))
    assert point.gap > 1e-9
    assert point.n_iter <= 2


def test_refuses_what_does_not_share_one_matrix() -> None:
    for program in (replace(make(), skip=0.1), replace(make(), loss=HuberLoss(1.0))):
        with pytest.raises(TypeError, match=r"RidgePath needs .* no linear part"):
            RidgePath(program)


def test_the_largest_eigenvalue_of_closed_patterns_is_zero() -> None:
    operator = GatedOperator(np.ones((4, 2)), np.zeros((4, 1), bool))
    program = ConvexProgram(
        operator, np.ones((4, 1)), 0.1, penalty=SquaredL2(), formulation="gated"
    )
    assert RidgePath(program, Ridge()).largest() == 0
