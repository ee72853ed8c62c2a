"""Nesterov's method: its rate with the constant, its restarts, its certificate."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from cvxnn.convex import (
    AcceleratedGradient,
    ConvexProgram,
    GatedOperator,
    Start,
    Status,
    compiled_steps,
    solve,
)
from cvxnn.numerics.jax_import import precision
from cvxnn.preference import CoalaObjective

N, D = 60, 8
START = np.full(D, 0.7)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


def objective(ridge: float = 1e-2, spread: float = 1.0, dtype: type = np.float64) -> CoalaObjective:
    """A logistic objective whose features span ``spread`` in scale; not separable."""
    rng = np.random.default_rng(0)
    margins = rng.standard_normal((N, D)) * np.geomspace(1, 1 / spread, D) + 0.2
    margins[: N // 3] *= -1
    return CoalaObjective(
        jnp.asarray(margins.astype(dtype)),
        jnp.full(N, 1 / N, dtype),
        beta=2.0,
        gamma=0.5,
        ridge=ridge,
    )


def minimiser(problem: CoalaObjective) -> np.ndarray:
    """By scipy's Newton method on a NumPy copy of the formula."""
    M, weights = np.asarray(problem.margins), np.asarray(problem.weights)
    beta, gamma, ridge = float(problem.beta), float(problem.gamma), float(problem.ridge)

    def value(theta: np.ndarray) -> float:
        return weights @ np.logaddexp(0, gamma - beta * M @ theta) + ridge / 2 * theta @ theta

    def slope(theta: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(beta * M @ theta - gamma))
        return -beta * (weights * p) @ M + ridge * theta

    def hessian(theta: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(beta * M @ theta - gamma))
        return beta**2 * (M.T * (weights * p * (1 - p))) @ M + ridge * np.eye(D)

    theta = minimize(value, START, jac=slope, hess=hessian, method="trust-exact", tol=1e-10).x
    for _ in range(3):
        theta = theta - np.linalg.solve(hessian(theta), slope(theta))
    return theta


def trajectory(problem: CoalaObjective, solver: AcceleratedGradient, n_steps: int) -> np.ndarray:
    """Objective after 1, 2, ..., n_steps iterations."""

    @jax.jit
    def run(problem: CoalaObjective, start: jax.Array) -> jax.Array:
        state = solver.refresh(problem, solver.init(problem, Start(start)))

        def body(state: object, _: None) -> tuple:
            state = solver.step(problem, state)
            return state, problem.value(state.theta)

        return jax.lax.scan(body, state, None, n_steps)[1]

    return np.asarray(run(problem, jnp.asarray(START)))


PLAIN = {"restart": False, "precondition": False}


@pytest.mark.parametrize(("ridge", "spread"), [(1e-1, 1.0), (1e-3, 1.0), (1e-4, 100.0)])
@pytest.mark.parametrize("friction", [2.0, 9.0])
@pytest.mark.parametrize("precondition", [False, True])
def test_rate_of_theorem_2_with_its_constant(
    ridge: float, spread: float, friction: float, precondition: bool
) -> None:
    problem = objective(ridge, spread)
    best = minimiser(problem)
    solver = AcceleratedGradient(restart=False, precondition=precondition, friction=friction)
    error = trajectory(problem, solver, 1000) - float(problem.value(jnp.asarray(best)))
    t = 1 + np.arange(1000) / friction
    away = START - best
    if precondition:
        constant = away @ np.asarray(problem.curvature()) @ away / 2
    else:
        constant = float(problem.smoothness()) * away @ away / 2
    assert (error >= -1e-13).all()
    assert (t**2 * error <= constant + t**2 * 1e-14).all()


@pytest.mark.slow
def test_preconditioned_iterates_are_the_plain_ones_in_other_variables() -> None:
    problem = objective(ridge=1e-2, spread=30.0)
    root = np.linalg.cholesky(np.asarray(problem.curvature()))

    class Whitened:
        def value(self, phi: jax.Array) -> jax.Array:
            return problem.value(jnp.linalg.solve(root.T, phi))

        gradient = jax.grad(value, argnums=1)

    z = theta = root.T @ START
    found = trajectory(problem, AcceleratedGradient(restart=False), 20)
    for k in range(20):
        new = z - np.asarray(Whitened().gradient(jnp.asarray(z)))
        z = new + k / (k + 3) * (new - theta)
        theta = new
        assert found[k] == pytest.approx(float(Whitened().value(jnp.asarray(theta))), rel=1e-9)


def test_preconditioner_saves_iterations() -> None:
    problem = objective(ridge=1e-3, spread=30.0)
    options = {"tol": 1e-9, "max_iter": 20_000, "check_every": 1}
    plain = solve(problem, AcceleratedGradient(precondition=False, **options), start=START)
    better = solve(problem, AcceleratedGradient(**options), start=START)
    assert better.status is plain.status is Status.CONVERGED
    assert better.n_iter < 0.3 * plain.n_iter


def test_preconditioner_of_a_singular_curvature() -> None:
    rng = np.random.default_rng(0)
    margins = np.repeat(rng.standard_normal((N, 3)) + 0.2, 2, axis=1)  # each feature twice
    margins[: N // 3] *= -1
    problem = CoalaObjective(jnp.asarray(margins), jnp.full(N, 1 / N), 1.0, 0.5, ridge=0.0)
    found = solve(problem, AcceleratedGradient(tol=1e-8, check_every=1), start=np.zeros(6))
    assert found.status is Status.CONVERGED
    assert found.n_iter < 100
    assert np.isfinite(found.weights).all()


def test_refuses_less_friction_than_nesterov() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        solve(objective(), AcceleratedGradient(friction=1.5), start=START)


def test_plain_method_falls_like_one_over_k_squared_without_strong_convexity() -> None:
    problem = objective(ridge=0.0, spread=1e3)
    found = solve(
        problem,
        AcceleratedGradient(tol=1e-13, max_iter=200_000, check_every=1000, precondition=False),
        start=START,
    )
    error = trajectory(problem, AcceleratedGradient(**PLAIN), 3000) - found.objective
    # The largest error still to come: oscillation does not hide the rate.
    envelope = np.maximum.accumulate(error[::-1])[::-1]
    k = np.arange(1, 3001)
    window = (k >= 30) & (envelope > 1e-13)
    assert window.sum() > 100
    slope = np.polyfit(np.log(k[window]), np.log(envelope[window]), 1)[0]
    assert slope <= -1.8
    constant = 2 * float(problem.smoothness()) * ((START - found.weights) ** 2).sum()
    assert (k**2 * error <= constant).all()


def test_first_iterates_by_hand() -> None:
    problem = objective()
    solver = AcceleratedGradient(**PLAIN)
    L = float(problem.smoothness())
    state = solver.refresh(problem, solver.init(problem, Start(jnp.asarray(START))))
    theta, z, t = START, START, 1.0
    for _ in range(5):
        new = z - np.asarray(problem.gradient(jnp.asarray(z))) / L
        t_new = t + 1 / 2
        z = new + (t - 1) / t_new * (new - theta)
        theta, t = new, t_new
        state = solver.step(problem, state)
        np.testing.assert_allclose(state.theta, theta, rtol=1e-12)
        np.testing.assert_allclose(state.momentum, z, rtol=1e-12)


def test_restart_beats_the_plain_method_on_a_strongly_convex_objective() -> None:
    problem = objective(ridge=1e-3, spread=30.0)
    options = {"tol": 1e-9, "max_iter": 20_000, "check_every": 10, "precondition": False}
    plain = solve(problem, AcceleratedGradient(restart=False, **options), start=START)
    restarted = solve(problem, AcceleratedGradient(restart=True, **options), start=START)
    assert restarted.status is plain.status is Status.CONVERGED
    assert restarted.n_iter < 0.7 * plain.n_iter
    assert restarted.history["n_restarts"][-1] > 0
    assert plain.history["n_restarts"][-1] == 0


@pytest.mark.parametrize("restart", [False, True])
def test_certificate_never_exceeds_the_optimum(restart: bool) -> None:
    problem = objective(ridge=1e-3)
    optimum = float(problem.value(jnp.asarray(minimiser(problem))))
    result = solve(
        problem,
        AcceleratedGradient(tol=1e-10, check_every=1, max_iter=2000, restart=restart),
        start=START,
    )
    assert result.status is Status.CONVERGED
    assert (result.history["dual_bound"] <= optimum + 1e-13).all()
    assert (result.history["objective"] >= optimum - 1e-13).all()
    assert result.objective == pytest.approx(optimum, rel=1e-9)
    assert 0 <= result.gap <= 1e-10
    np.testing.assert_allclose(result.weights, minimiser(problem), atol=1e-4)


def test_without_strong_convexity_tol_is_the_norm_of_the_gradient() -> None:
    problem = objective(ridge=0.0)
    result = solve(problem, AcceleratedGradient(tol=1e-5), start=START)
    assert result.status is Status.CONVERGED
    assert result.dual_bound == -np.inf
    assert result.gap == np.inf
    assert result.history["gradient_norm"][-1] <= 1e-5
    assert np.linalg.norm(problem.gradient(jnp.asarray(result.weights))) <= 1.1e-5


def test_result_reports_the_best_point_and_its_objective(dtype: type) -> None:
    with precision(dtype):
        problem = objective(ridge=1e-3, dtype=dtype)
        result = solve(
            problem, AcceleratedGradient(max_iter=6, check_every=2, tol=0.0), start=START
        )
        assert result.weights.dtype == dtype
        assert result.status is Status.MAX_ITER
        value = float(problem.value(jnp.asarray(result.weights)))
    assert value == pytest.approx(result.objective, rel=1e-6)
    assert result.objective == result.history["objective"].min()


def test_single_precision_reaches_its_own_accuracy() -> None:
    wide = objective(ridge=1e-2)
    optimum = float(wide.value(jnp.asarray(minimiser(wide))))
    with precision(np.float32):
        narrow = objective(ridge=1e-2, dtype=np.float32)
    result = solve(narrow, AcceleratedGradient(tol=1e-5), start=START)
    assert result.status is Status.CONVERGED
    assert result.objective == pytest.approx(optimum, rel=1e-5)


def test_start_survives_the_donation_of_the_state() -> None:
    problem = objective()
    start = jnp.asarray(START)
    solve(problem, AcceleratedGradient(max_iter=20), start=start)
    np.testing.assert_array_equal(start, START)


def test_other_values_compile_nothing() -> None:
    solve(objective(), AcceleratedGradient(), start=START)
    before = compiled_steps.compiled_advance.n_programs
    for ridge, tol in ((1e-1, 1e-3), (1e-3, 1e-4)):
        solve(objective(ridge), AcceleratedGradient(tol=tol, max_iter=100), start=START)
    assert compiled_steps.compiled_advance.n_programs == before


@pytest.mark.parametrize("precondition", [True, False])
def test_work_on_the_host_gives_the_same_and_compiles_nothing(
    precondition: bool, compilations: Callable[[], int]
) -> None:
    problem, options = objective(), {"precondition": precondition, "max_iter": 200, "tol": 1e-8}
    compiled = solve(problem, AcceleratedGradient(**options), start=START)
    before = compilations()
    found = solve(problem, AcceleratedGradient(on_host=True, **options), start=START)
    assert compilations() == before
    assert found.n_iter == compiled.n_iter
    np.testing.assert_allclose(found.weights, compiled.weights, rtol=1e-12)
    np.testing.assert_allclose(found.weights, minimiser(problem), atol=1e-3)
    for name in {*compiled.history} - {"time"}:
        np.testing.assert_allclose(found.history[name], compiled.history[name], atol=1e-12)


def test_numbers_that_are_not_finite_are_reported_on_the_host() -> None:
    problem = replace(objective(), ridge=np.nan)
    found = solve(problem, AcceleratedGradient(on_host=True), start=START)
    assert found.status is Status.NON_FINITE


def test_refuses_a_start_that_is_missing() -> None:
    with pytest.raises(ValueError, match="start=theta"):
        solve(objective(), AcceleratedGradient())


def test_refuses_a_convex_program() -> None:
    operator = GatedOperator(jnp.ones((3, 2)), jnp.ones((3, 1), bool))
    program = ConvexProgram(operator, jnp.ones((3, 1)), 0.1)
    with pytest.raises(TypeError, match="Cronos"):
        solve(program, AcceleratedGradient(), start=START)
