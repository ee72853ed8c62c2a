"""The convex program: its two objectives by hand, its lower bound against CVXPY's optimum."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from cvxnn import reference
from cvxnn.losses import LogisticLoss, Loss, SquaredLoss
from cvxnn.operators import GatedOperator
from cvxnn.problem import ConvexProgram
from cvxnn.solvers._loop import precision

N, D, P, C = 8, 3, 4, 2
ALPHA = 0.05
KINDS = ["plain", "zero rows", "duplicate columns", "constant column", "zero targets"]
LOSSES = {"squared": SquaredLoss(), "logistic": LogisticLoss()}

bound = jax.jit(ConvexProgram.dual_bound)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


def make(
    kind: str = "plain",
    loss: Loss = LOSSES["squared"],
    *,
    x_scale: float = 1.0,
    y_scale: float = 1.0,
    alpha: float = ALPHA,
    dtype: type = np.float64,
) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    y = np.maximum(X @ rng.standard_normal((D, C)), 0) - 0.3
    if kind == "zero rows":
        X[[0, 4]] = 0
    elif kind == "duplicate columns":
        X[:, 2] = X[:, 0]
    elif kind == "constant column":
        X[:, 2] = 1
    elif kind == "zero targets":
        y[:] = 0
    if isinstance(loss, LogisticLoss):
        y = np.where(y >= 0, 1.0, -1.0)
    mask = X @ rng.standard_normal((D, P)) >= 0
    with precision(dtype):
        operator = GatedOperator(jnp.asarray((x_scale * X).astype(dtype)), jnp.asarray(mask))
        return ConvexProgram(operator, jnp.asarray((y_scale * y).astype(dtype)), alpha, loss)


@functools.cache
def optimum(kind: str, loss: str) -> float:
    return reference.solve(make(kind, LOSSES[loss])).objective


@functools.cache
def best_residual(kind: str) -> np.ndarray:
    """Residual at the optimum of the squared loss: bounds near it are tight."""
    program = make(kind)
    return np.asarray(program.evaluate(reference.solve(program).weights).residual)


scales = st.sampled_from([0.0, 1e-200, 1e-100, 1e-8, 1e-2, 1.0, 1e2, 1e8, 1e100])
units = st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6])


@pytest.mark.parametrize("loss", LOSSES)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    residual_scale=scales,
    multiplier_scale=scales,
    near=st.booleans(),
)
def test_bound_never_exceeds_the_optimum(
    loss: str, kind: str, seed: int, residual_scale: float, multiplier_scale: float, near: bool
) -> None:
    rng = np.random.default_rng(seed)
    program = make(kind, LOSSES[loss])
    residual = residual_scale * rng.standard_normal((N, C))
    if near:
        residual = residual + best_residual(kind)
    multipliers = multiplier_scale * rng.exponential(size=(N, C, 2, P))
    cone_term = program.operator.constraints_adjoint(jnp.asarray(multipliers))
    value = float(bound(program, jnp.asarray(residual), cone_term))
    assert value <= optimum(kind, loss) + 1e-8


@pytest.mark.parametrize("kind", ["plain", "zero rows", "duplicate columns", "constant column"])
def test_an_adversary_approaches_the_optimum_and_never_passes_it(kind: str) -> None:
    program = make(kind)
    size = N * C

    @jax.jit
    @jax.value_and_grad
    def loss(point: jax.Array) -> jax.Array:
        multipliers = point[size:].reshape(N, C, 2, P)
        cone_term = program.operator.constraints_adjoint(multipliers)
        return -program.dual_bound(point[:size].reshape(N, C), cone_term)

    best = optimum(kind, "squared")

    def adversary(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(jnp.asarray(point))
        assert -float(value) <= best + 1e-8
        return float(value), np.asarray(slope)

    start = np.concatenate([best_residual(kind).ravel(), np.full(2 * P * size, 1e-3)])
    bounds = [(None, None)] * size + [(0, None)] * (2 * P * size)
    for _ in range(3):  # the norm is not smooth: L-BFGS forgets its curvature and goes on
        found = minimize(adversary, start, jac=True, bounds=bounds, method="L-BFGS-B")
        start = found.x
    assert -found.fun >= 0.9 * best


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    x_scale=units,
    y_scale=units,
    noise=st.floats(0, 1),
)
def test_bound_holds_in_any_units(
    kind: str, seed: int, x_scale: float, y_scale: float, noise: float
) -> None:
    # With alpha in the same units the optimum is y_scale^2 times that of the plain problem.
    rng = np.random.default_rng(seed)
    program = make(kind, x_scale=x_scale, y_scale=y_scale, alpha=ALPHA * x_scale * y_scale)
    residual = y_scale * (best_residual(kind) + noise * rng.standard_normal((N, C)))
    multipliers = noise * y_scale / N * rng.exponential(size=(N, C, 2, P))
    cone_term = program.operator.constraints_adjoint(jnp.asarray(multipliers))
    value = float(bound(program, jnp.asarray(residual), cone_term))
    # The best scale of the residual is never worse than 0, whose bound is 0.
    assert 0 <= value <= (optimum(kind, "squared") + 1e-8) * y_scale**2


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6), noise=st.floats(0, 1))
def test_bound_holds_in_single_precision(kind: str, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    with precision(np.float32):
        program = make(kind, dtype=np.float32)
        residual = best_residual(kind) + noise * rng.standard_normal((N, C))
        multipliers = noise / N * rng.exponential(size=(N, C, 2, P))
        cone_term = program.operator.constraints_adjoint(jnp.asarray(multipliers, jnp.float32))
        value = float(bound(program, jnp.asarray(residual, jnp.float32), cone_term))
    assert value <= optimum(kind, "squared") * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("residual_scale", [1e160, 1e200, 1e300])
def test_bound_of_an_overflowing_residual_is_a_bound(residual_scale: float) -> None:
    residual = residual_scale * np.random.default_rng(0).standard_normal((N, C))
    value = float(make().dual_bound(jnp.asarray(residual)))
    assert value <= optimum("plain", "squared") + 1e-8


def test_bound_is_tight_without_cones() -> None:
    # All rows open and X positive: for one output of positive slope the cones never bind.
    X = np.array([[1.0], [2.0], [3.0]])
    y = np.array([[1.0], [2.0], [2.5]])
    alpha = 0.1
    program = ConvexProgram(
        GatedOperator(jnp.asarray(X), jnp.ones((3, 1), bool)), jnp.asarray(y), alpha
    )
    slope = (X.T @ y / 3 - alpha).item() / (X.T @ X / 3).item()
    expected = ((X * slope - y) ** 2).sum() / 6 + alpha * slope
    value = float(program.dual_bound(jnp.asarray(y - X * slope)))
    assert value == pytest.approx(expected, rel=1e-12)


def test_alpha_zero_gives_the_trivial_bound() -> None:
    assert float(make(alpha=0.0).dual_bound(jnp.ones((N, C)))) == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_optimal_from_alpha_max_on(kind: str, loss: str) -> None:
    program = make(kind, LOSSES[loss])
    alpha_max = float(program.alpha_max())
    at_max = make(kind, LOSSES[loss], alpha=alpha_max * (1 + 1e-12))
    at_zero = at_max.evaluate(at_max.zeros())
    value = float(at_max.dual_bound(at_zero.residual))
    assert value == pytest.approx(float(at_zero.objective), rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_evaluate_by_hand(loss: str) -> None:
    program = make(loss=LOSSES[loss])
    rng = np.random.default_rng(1)
    U = rng.standard_normal((C, 2, P, D))
    X, mask, y = (
        np.asarray(part) for part in (program.operator.X, program.operator.mask, program.y)
    )
    scores = np.einsum("kj,cbij->kcbi", X, U)
    gated = (mask[:, None, None] * scores).sum(-1)
    hidden = np.maximum(scores, 0).sum(-1)
    oriented = (2.0 * mask - 1)[:, None, None] * scores
    penalty = ALPHA * np.sqrt((U**2).sum(-1)).sum()

    def mean_loss(f: np.ndarray) -> float:
        if loss == "squared":
            return ((f - y) ** 2).sum() / 2 / N
        return np.log1p(np.exp(-y * f)).sum() / N

    program_prediction = gated[..., 0] - gated[..., 1]
    at = program.evaluate(jnp.asarray(U))
    assert float(at.objective) == pytest.approx(mean_loss(program_prediction) + penalty)
    network_objective = mean_loss(hidden[..., 0] - hidden[..., 1]) + penalty
    assert float(at.network_objective) == pytest.approx(network_objective)
    violation = np.sqrt((np.minimum(oriented, 0) ** 2).sum() / (scores**2).sum())
    assert float(at.violation) == pytest.approx(violation)
    slope = (
        program_prediction - y if loss == "squared" else -y / (1 + np.exp(y * program_prediction))
    )
    np.testing.assert_allclose(at.residual, -slope)


@given(seed=st.integers(0, 10**6))
def test_both_objectives_agree_on_the_cones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gates = rng.standard_normal((P, D))
    X = rng.standard_normal((N, D))
    U = rng.exponential(size=(C, 2, P, 1)) * gates
    program = make()
    operator = GatedOperator(jnp.asarray(X), jnp.asarray(X @ gates.T >= 0))
    at = jax.jit(ConvexProgram.evaluate)(ConvexProgram(operator, program.y, ALPHA), jnp.asarray(U))
    assert float(at.violation) < 1e-12
    assert float(at.objective) == pytest.approx(float(at.network_objective), rel=1e-12)


def test_zero_weights_violate_nothing() -> None:
    program = make()
    assert program.zeros().shape == program.weights_shape == (C, 2, P, D)
    at = program.evaluate(program.zeros())
    assert float(at.violation) == 0
    assert float(at.objective) == float(at.network_objective)


def test_dtype_follows_the_data(dtype: type) -> None:
    with precision(dtype):
        program = make(dtype=dtype)
        at = program.evaluate(program.zeros())
        assert {part.dtype for part in at} == {np.dtype(dtype)}
        assert program.dual_bound(at.residual).dtype == dtype
        assert program.alpha_max().dtype == dtype
