"""Newton's method over a ball: the optimum, its certificate, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.convex import AcceleratedGradient, Cronos, Status, TrustRegionNewton, solve
from cvxnn.joint import CandidateSets, ChoiceObjective, sft_objective

D = 6


def objective(seed: int = 0, n: int = 30, d: int = D, **constraints: float) -> ChoiceObjective:
    rng = np.random.default_rng(seed)
    sets = CandidateSets.stack([rng.standard_normal((rng.integers(2, 6), d)) for _ in range(n)])
    return sft_objective(sets, np.zeros(n, int), **constraints)


CONSTRAINTS = [{"ridge": 1e-3}, {"radius": 0.3}, {"radius": 50.0}, {"ridge": 0.1, "radius": 0.3}]


@pytest.mark.parametrize("constraints", CONSTRAINTS)
def test_optimality(constraints: dict[str, float]) -> None:
    problem = objective(**constraints)
    result = solve(problem, TrustRegionNewton(tol=1e-12), start=np.full(D, 5.0))
    assert result.status is Status.CONVERGED
    assert result.objective - result.dual_bound <= 1e-12
    gradient, radius = problem.gradient(result.weights), constraints.get("radius", np.inf)
    # Stationary in the ball: the gradient points to the centre with the ball's multiplier.
    multiplier = result.history["multiplier"][-1]
    np.testing.assert_allclose(gradient + multiplier * result.weights, 0, atol=1e-6)
    assert multiplier * (min(radius, 1e9) - np.linalg.norm(result.weights)) < 1e-9
    assert (np.diff(result.history["objective"]) <= 1e-15).all()
    assert (np.diff(result.history["dual_bound"]) >= 0).all()


@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 1e-6, 1.0]),
    st.floats(0.01, 1e3),
    st.floats(0, 1e3),
)
@settings(max_examples=40)
def test_any_problem_from_anywhere(seed: int, ridge: float, radius: float, far: float) -> None:
    """Separable data, more features than rows, far starts: the gap is reached all the same."""
    problem = objective(seed, n=4, d=8, ridge=ridge, radius=radius)
    start = far * np.random.default_rng(seed).standard_normal(8)
    result = solve(problem, TrustRegionNewton(tol=1e-7), start=start)
    assert result.objective - result.dual_bound <= 1e-6
    assert np.linalg.norm(result.weights) <= radius * (1 + 1e-12)


def test_the_hessian_is_kept_while_it_serves() -> None:
    problem = objective(n=200, ridge=1e-2)
    near = solve(problem, TrustRegionNewton(tol=1e-3), start=np.zeros(D)).weights
    result = solve(problem, TrustRegionNewton(tol=1e-12), start=near)
    assert result.n_iter > result.history["n_hessians"][-1]


@pytest.mark.parametrize("constraints", CONSTRAINTS[:2])
def test_accelerated_gradient_agrees(constraints: dict[str, float]) -> None:
    problem = objective(**constraints)
    newton = solve(problem, TrustRegionNewton(), start=np.zeros(D))
    first_order = solve(
        problem, AcceleratedGradient(tol=1e-7, max_iter=20_000), start=np.full(D, 5.0)
    )
    assert first_order.status is Status.CONVERGED
    assert first_order.objective == pytest.approx(newton.objective, abs=1e-7)
    assert first_order.dual_bound <= newton.objective
    radius = constraints.get("radius", np.inf)
    assert np.linalg.norm(first_order.weights) <= radius * (1 + 1e-12)


def test_without_ridge_and_ball_there_is_no_certificate() -> None:
    result = solve(objective(n=4, d=8), TrustRegionNewton(max_iter=5), start=np.zeros(8))
    assert result.status in (Status.MAX_ITER, Status.STALLED)
    assert result.dual_bound == -np.inf


def test_refusals() -> None:
    with pytest.raises(ValueError, match="needs a start"):
        solve(objective(), TrustRegionNewton())
    with pytest.raises(TypeError, match="solved by AcceleratedGradient"):
        TrustRegionNewton().accept(Cronos())
    broken = objective()
    broken.rows[0, 0] = np.nan
    assert solve(broken, TrustRegionNewton(), start=np.zeros(D)).status is Status.NON_FINITE
