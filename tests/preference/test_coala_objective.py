"""Objective of phase II: gradients, convexity, curvature; equation (8) is not convex."""

from collections.abc import Iterator
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.convex import AcceleratedGradient, solve
from cvxnn.numerics.jax_import import precision
from cvxnn.preference import CoalaObjective, coala_pairwise, coala_pointwise, metrics

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")

PAIRS, D = 7, 4
seeds = st.integers(0, 10**6)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


def features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw hidden features of chosen and rejected replies, non-negative like those of a ReLU."""
    rng = np.random.default_rng(seed)
    return tuple(np.maximum(rng.standard_normal((2, PAIRS, D)), 0))


def objective(
    kind: str, seed: int = 0, ridge: float = 0.01, dtype: type = np.float64
) -> CoalaObjective:
    won, lost = features(seed)
    margins = won - lost if kind == "pairwise" else np.concatenate([won, -lost])
    weights = np.random.default_rng(seed + 1).exponential(size=len(margins))
    return CoalaObjective(
        margins.astype(dtype),
        (weights / weights.sum()).astype(dtype),
        beta=1.5,
        gamma=0.4,
        ridge=ridge,
        chosen=won.astype(dtype),
        rejected=lost.astype(dtype),
    )


@pytest.fixture(params=["pointwise", "pairwise"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


value = jax.jit(CoalaObjective.value)
gradient = jax.jit(CoalaObjective.gradient)
smoothness = jax.jit(CoalaObjective.smoothness)
curvature = jax.jit(CoalaObjective.curvature)
report = jax.jit(CoalaObjective.report)
slope_of_value = jax.jit(jax.grad(CoalaObjective.value, argnums=1))
hessian_of_value = jax.jit(jax.hessian(CoalaObjective.value, argnums=1))


def test_value_by_hand(kind: str) -> None:
    problem = objective(kind)
    theta = np.array([0.5, -1.0, 2.0, 0.1])
    won, lost = features()
    weights = np.asarray(problem.weights)
    if kind == "pairwise":
        rows = [a - b for a, b in zip(won, lost, strict=True)]
    else:
        rows = [*won, *(-b for b in lost)]
    terms = [np.log(1 + np.exp(-1.5 * theta @ row + 0.4)) for row in rows]
    expected = sum(a * b for a, b in zip(weights, terms, strict=True)) + 0.005 * theta @ theta
    assert float(value(problem, theta)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["pointwise", "pairwise"])
@given(seed=seeds, scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_gradient_is_the_slope_of_the_value(kind: str, seed: int, scale: float) -> None:
    problem = objective(kind, seed)
    rng = np.random.default_rng(seed)
    theta, direction = scale * rng.standard_normal(D), rng.standard_normal(D)
    h = 1e-6
    slope = (value(problem, theta + h * direction) - value(problem, theta - h * direction)) / 2 / h
    inner = float(gradient(problem, theta) @ direction)
    assert inner == pytest.approx(float(slope), rel=1e-5, abs=1e-7)


def test_gradient_is_that_of_automatic_differentiation(kind: str) -> None:
    problem = objective(kind)
    theta = np.random.default_rng(0).standard_normal(D)
    np.testing.assert_allclose(gradient(problem, theta), slope_of_value(problem, theta), rtol=1e-12)


@pytest.mark.parametrize("kind", ["pointwise", "pairwise"])
@given(seed=seeds, scale=st.sampled_from([1e-2, 1.0, 100.0]), share=st.floats(0, 1))
def test_both_are_convex(kind: str, seed: int, scale: float, share: float) -> None:
    problem = objective(kind, seed, ridge=0.0)
    a, b = scale * np.random.default_rng(seed + 2).standard_normal((2, D))
    between = float(value(problem, share * a + (1 - share) * b))
    chord = share * float(value(problem, a)) + (1 - share) * float(value(problem, b))
    assert between <= chord + 1e-9 * max(1, chord)


def equation_8(
    won: np.ndarray, lost: np.ndarray, theta: np.ndarray, beta: float, gamma: float
) -> float:
    """Return equation (8) of the paper: log pi of both replies, pi a sigmoid of theta^T h."""
    logits = beta * (np.logaddexp(0, -won @ theta) - np.logaddexp(0, -lost @ theta)) + gamma
    return np.logaddexp(0, logits).mean()


def test_equation_8_is_not_convex() -> None:
    won, lost = np.array([[0.2]]), np.array([[1.0]])
    thetas = np.linspace(-10, 10, 81)
    curve = [equation_8(won, lost, np.array([theta]), beta=1.0, gamma=0.0) for theta in thetas]
    second = np.diff(curve, 2)
    # A segment whose middle lies above its chord, by far more than rounding.
    worst = second.argmin()
    assert second[worst] < -1e-4
    a, middle, b = curve[worst : worst + 3]
    assert middle > (a + b) / 2 + 5e-5


def test_equation_8_is_neither_of_the_objectives(kind: str) -> None:
    won, lost = features()
    theta = np.array([0.5, -1.0, 2.0, 0.1])
    problem = objective(kind, ridge=0.0)
    assert equation_8(won, lost, theta, 1.5, 0.4) != pytest.approx(
        float(value(problem, theta)), rel=1e-2
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pointwise", "pairwise"])
@given(seed=seeds, scale=st.sampled_from([0.0, 0.1, 1.0, 10.0]), ridge=st.sampled_from([0.0, 0.3]))
def test_smoothness_and_strong_convexity_bound_the_hessian(
    kind: str, seed: int, scale: float, ridge: float
) -> None:
    problem = objective(kind, seed, ridge)
    theta = scale * np.random.default_rng(seed + 3).standard_normal(D)
    M, weights = np.asarray(problem.margins), np.asarray(problem.weights)
    p = 1 / (1 + np.exp(1.5 * M @ theta - 0.4))
    hessian = 1.5**2 * (M.T * (weights * p * (1 - p))) @ M + ridge * np.eye(D)
    eigenvalues = np.linalg.eigvalsh(hessian)
    assert eigenvalues[-1] <= float(smoothness(problem)) * (1 + 1e-12)
    assert eigenvalues[0] >= float(problem.strong_convexity()) - 1e-12
    above = np.asarray(curvature(problem)) - hessian
    assert np.linalg.eigvalsh(above)[0] >= -1e-12 * eigenvalues[-1]


@pytest.mark.parametrize(("n", "d"), [(3, 6), (6, 3), (4, 4), (1, 5)])
def test_smoothness_is_attained_at_a_half(n: int, d: int) -> None:
    # With gamma = 0 every sigmoid is 1/2 at theta = 0, where the curvature peaks.
    rng = np.random.default_rng(0)
    margins = rng.standard_normal((n, d))
    problem = CoalaObjective(margins, np.full(n, 1 / n), beta=2.0, gamma=0.0, ridge=0.1)
    hessian = hessian_of_value(problem, np.zeros(d))
    assert float(smoothness(problem)) == pytest.approx(np.linalg.norm(hessian, 2), rel=1e-10)
    stated = 2.0**2 * np.linalg.norm(margins, 2) ** 2 / (4 * n) + 0.1
    assert float(smoothness(problem)) == pytest.approx(stated, rel=1e-10)


def test_report_by_hand(kind: str) -> None:
    problem = objective(kind)
    theta = np.array([0.5, -1.0, 2.0, 0.1])
    won, lost = features()
    rewards = [-1.5 * np.log(1 + np.exp(-(h @ theta))) for h in (won, lost)]
    expected = metrics.reward_metrics(*rewards)
    found = report(problem, theta)
    assert set(found) == set(expected)
    for name, number in expected.items():
        assert float(found[name]) == pytest.approx(number, rel=1e-12)


def test_report_counts_ties_as_half(kind: str) -> None:
    assert float(report(objective(kind), np.zeros(D))["rewards/accuracies"]) == 0.5


def test_report_of_responses_that_are_not_pairs_has_no_accuracy() -> None:
    won, lost = features()
    problem = replace(objective("pairwise"), chosen=won, rejected=lost[:3])
    assert set(report(problem, np.ones(D))) == {
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
    }


@pytest.mark.parametrize("n_rejected", [3, 7])
def test_histories_on_devices_have_the_columns_of_the_host(n_rejected: int) -> None:
    # Rows of zeros make numbers of responses equal that were not.
    won, lost = features()
    problem = replace(objective("pairwise"), chosen=won, rejected=lost[:n_rejected])
    solver = AcceleratedGradient(max_iter=3, on_host=True)
    host = solve(problem, solver, start=np.ones(D)).history
    mesh = jax.make_mesh((1,), ("rows",))
    devices = solve(problem, replace(solver, on_host=False), start=np.ones(D), mesh=mesh).history
    assert set(devices) == set(host)
    assert ("rewards/accuracies" in devices) == (n_rejected == PAIRS)
    for name in (column for column in host if column.startswith("rewards/")):
        np.testing.assert_allclose(devices[name], host[name], rtol=1e-9)


def test_report_without_responses_is_empty() -> None:
    won, _ = features()
    problem = CoalaObjective(won, np.full(PAIRS, 1 / PAIRS), 1.0, 0.0, 0.0)
    assert report(problem, np.ones(D)) == {}


@pytest.mark.parametrize("scale", [1e2, 1e5])
def test_large_margins_do_not_overflow(kind: str, scale: float, dtype: type) -> None:
    with precision(dtype):
        problem = objective(kind, dtype=dtype)
        theta = np.full(D, scale, dtype)
        for at in (theta, -theta):
            assert np.isfinite(value(problem, at))
            assert np.isfinite(gradient(problem, at)).all()
            assert all(np.isfinite(number) for number in report(problem, at).values())


def test_dtype_follows_the_margins(kind: str, dtype: type) -> None:
    with precision(dtype):
        problem = objective(kind, dtype=dtype)
        theta = np.zeros(D, dtype)
        parts = (value(problem, theta), gradient(problem, theta), smoothness(problem))
        assert {part.dtype for part in parts} == {np.dtype(dtype)}
        assert problem.strong_convexity().dtype == dtype


def test_coala_rows_are_those_of_the_problem(kind: str) -> None:
    problem = replace(objective(kind), ridge=0.0)
    theta = np.random.default_rng(3).standard_normal(D)
    won, lost = problem.chosen @ theta, problem.rejected @ theta
    settings = {"beta": problem.beta, "gamma": problem.gamma}
    if kind == "pairwise":
        losses = coala_pairwise(won, lost, **settings)
    else:
        label = np.repeat(np.array([1.0, -1.0]), PAIRS)
        losses = coala_pointwise(np.concatenate([won, lost]), label, **settings)
    np.testing.assert_allclose(problem.weights @ losses, value(problem, theta), rtol=1e-12)
