"""Losses: gradient, curvature, conjugate, and the scale of the dual point."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from cvxnn.convex import HuberLoss, LogisticLoss, Loss, MultinomialLoss, SquaredLoss
from cvxnn.numerics.jax_import import precision

LOSSES = {
    "squared": SquaredLoss(),
    "huber": HuberLoss(0.7),
    "logistic": LogisticLoss(),
    "multinomial": MultinomialLoss(),
}
N, C = 6, 3
seeds = st.integers(0, 10**6)
spreads = st.sampled_from([0.1, 1.0, 10.0, 50.0])
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


def draw(loss: Loss, seed: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and targets, as the loss takes them."""
    rng = np.random.default_rng(seed)
    f, y = spread * rng.standard_normal((2, N, C))
    if isinstance(loss, LogisticLoss):
        y = np.where(y >= 0, 1.0, -1.0)
    elif isinstance(loss, MultinomialLoss):
        y = np.eye(C)[rng.integers(C, size=N)]
    return f, y


def dual_points(loss: Loss, y: np.ndarray, seed: int) -> np.ndarray:
    """Points within the domain of the conjugate: averages of gradients."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(size=(N, 1))
    first, second = (loss.gradient(3 * rng.standard_normal((N, C)), y) for _ in range(2))
    return share * first + (1 - share) * second


def rows(values: np.ndarray) -> np.ndarray:
    """Sum over the outputs of each row, whether or not the loss couples them."""
    return values.sum(axis=1)


# The value ---------------------------------------------------------------------------------


def test_squared_loss_is_half_the_squared_error() -> None:
    value = SquaredLoss().value(jnp.array([3.0, -1.0]), jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(value, [2.0, 0.0])


def test_huber_loss_is_squared_near_and_linear_far() -> None:
    value = HuberLoss(2.0).value(np.array([1.0, -2.0, 5.0, -6.0]), np.zeros(4))
    np.testing.assert_allclose(value, [0.5, 2.0, 8.0, 10.0])


def test_huber_loss_with_a_large_delta_is_the_squared_loss() -> None:
    f, y = draw(SquaredLoss(), 0)
    np.testing.assert_allclose(HuberLoss(1e3).value(f, y), SquaredLoss().value(f, y))


def test_logistic_loss_is_minus_the_log_likelihood() -> None:
    f, y = jnp.array([-2.0, 0.0, 1.5]), jnp.array([1.0, -1.0, 1.0])
    np.testing.assert_allclose(
        LogisticLoss().value(f, y),
        [-np.log(1 / (1 + np.exp(-b * a))) for a, b in zip(f, y, strict=True)],
    )


def test_multinomial_loss_is_minus_the_log_likelihood() -> None:
    f, y = draw(MultinomialLoss(), 0)
    expected = [
        [-np.log(np.exp(row[label]) / np.exp(row).sum())]
        for row, label in zip(f, y.argmax(axis=1), strict=True)
    ]
    np.testing.assert_allclose(MultinomialLoss().value(f, y), expected)


def test_multinomial_loss_of_two_classes_is_the_logistic_loss_of_their_difference() -> None:
    f = np.random.default_rng(0).standard_normal((N, 2))
    label = np.arange(N) % 2
    margin, sign = f[:, 1:] - f[:, :1], (2.0 * label - 1)[:, None]
    np.testing.assert_allclose(
        MultinomialLoss().value(f, np.eye(2)[label]), LogisticLoss().value(margin, sign)
    )


@every_loss
def test_shape_says_whether_outputs_are_coupled(loss: Loss) -> None:
    f, y = draw(loss, 0)
    shape = (N, 1) if loss.coupled else (N, C)
    assert loss.value(f, y).shape == loss.conjugate(loss.gradient(f, y), y).shape == shape
    assert loss.gradient(f, y).shape == loss.hessian(f, y).shape == (N, C)


@pytest.mark.parametrize("loss", [LogisticLoss(), MultinomialLoss()])
def test_large_predictions_do_not_overflow(loss: Loss, dtype: type) -> None:
    f = np.array([[-1e4, 1e4], [1e4, -1e4]], dtype)
    y = np.array([[1, 1], [1, 1]], dtype) if not loss.coupled else np.eye(2, dtype=dtype)
    with precision(dtype):
        value, slope = loss.value(jnp.asarray(f), y), loss.gradient(jnp.asarray(f), y)
    if loss.coupled:
        np.testing.assert_allclose(value, [[2e4], [2e4]])
        np.testing.assert_allclose(slope, [[-1, 1], [1, -1]], atol=1e-30)
    else:
        np.testing.assert_allclose(value, [[1e4, 0], [0, 1e4]])
        np.testing.assert_allclose(slope, [[-1, 0], [0, -1]], atol=1e-30)


# Derivatives -------------------------------------------------------------------------------


@every_loss
@given(seed=seeds, spread=spreads)
def test_gradient_is_the_slope_of_the_value(loss: Loss, seed: int, spread: float) -> None:
    f, y = draw(loss, seed, spread)
    h = 1e-5
    slope = np.zeros((N, C))
    for c in range(C):
        step = h * np.eye(C)[c]
        slope[:, c] = rows(loss.value(f + step, y) - loss.value(f - step, y)) / (2 * h)
    np.testing.assert_allclose(loss.gradient(f, y), slope, rtol=1e-5, atol=2e-5)


@every_loss
@given(seed=seeds, spread=spreads)
def test_hessian_is_the_slope_of_the_gradient(loss: Loss, seed: int, spread: float) -> None:
    f, y = draw(loss, seed, spread)
    h = 1e-6
    for c in range(C):
        step = h * np.eye(C)[c]
        slope = (loss.gradient(f + step, y) - loss.gradient(f - step, y))[:, c] / (2 * h)
        smooth = np.ones(N, bool)
        if isinstance(loss, HuberLoss):
            smooth = abs(abs(f - y)[:, c] - loss.delta) > 2 * h
        np.testing.assert_allclose(loss.hessian(f, y)[smooth, c], slope[smooth], atol=1e-7)


@every_loss
@given(seed=seeds, spread=spreads)
def test_curvature_bounds_the_change_of_the_gradient(loss: Loss, seed: int, spread: float) -> None:
    f, y = draw(loss, seed, spread)
    other, _ = draw(loss, seed + 1, spread)
    change = np.linalg.norm(loss.gradient(f, y) - loss.gradient(other, y), axis=1)
    assert (change <= loss.curvature * np.linalg.norm(f - other, axis=1) * (1 + 1e-12)).all()
    assert (loss.hessian(f, y) <= loss.curvature * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (SquaredLoss(), [0.5, 0.0]),
        (HuberLoss(), [0.5, 0.0]),
        (LogisticLoss(), [1.0, -1.0]),
        (MultinomialLoss(), [1.0, 0.0]),
    ],
)
def test_curvature_is_no_larger_than_needed(loss: Loss, y: list[float]) -> None:
    h = 1e-4 * np.array([[1.0, -1.0]])
    change = loss.gradient(h, np.array([y])) - loss.gradient(-h, np.array([y]))
    slope = np.linalg.norm(change) / np.linalg.norm(2 * h)
    assert slope == pytest.approx(loss.curvature, rel=1e-6)


# The conjugate -----------------------------------------------------------------------------


@every_loss
@given(seed=seeds, spread=spreads, inside=st.booleans())
def test_fenchel_young_inequality(loss: Loss, seed: int, spread: float, inside: bool) -> None:
    f, y = draw(loss, seed, spread)
    z = dual_points(loss, y, seed) if inside else draw(loss, seed + 1)[0]
    left = rows(loss.value(f, y) + loss.conjugate(z, y))
    assert (left >= rows(f * z) - 1e-9).all()
    assert np.isfinite(left).all() or not inside


@every_loss
@given(seed=seeds, spread=spreads)
def test_fenchel_young_equality_at_the_gradient(loss: Loss, seed: int, spread: float) -> None:
    f, y = draw(loss, seed, spread)
    z = loss.gradient(f, y)
    left = rows(loss.value(f, y) + loss.conjugate(z, y))
    np.testing.assert_allclose(left, rows(f * z), rtol=1e-9, atol=1e-9)


@every_loss
@given(seed=seeds)
@settings(max_examples=10)
def test_conjugate_is_the_largest_excess_of_a_line_over_the_loss(loss: Loss, seed: int) -> None:
    _, y = draw(loss, seed)
    z = dual_points(loss, y, seed)

    def shortfall(f: np.ndarray) -> tuple[float, np.ndarray]:
        f = f.reshape(N, C)
        return loss.value(f, y).sum() - (z * f).sum(), (loss.gradient(f, y) - z).ravel()

    found = minimize(shortfall, y.ravel(), jac=True, method="BFGS", options={"gtol": 1e-7})
    assert loss.conjugate(z, y).sum() == pytest.approx(-found.fun, abs=1e-8)


def test_huber_conjugate_is_finite_up_to_delta_only() -> None:
    dual = np.array([0.5, -0.5, 0.51, -1.0])
    conjugate = HuberLoss(0.5).conjugate(dual, np.ones(4))
    np.testing.assert_array_equal(conjugate, [0.625, -0.375, np.inf, np.inf])


def test_logistic_conjugate_is_finite_between_0_and_minus_y_only() -> None:
    y = jnp.array([1.0, 1.0, 1.0, 1.0, -1.0])
    dual = jnp.array([0.1, -1.1, 0.0, -1.0, -0.1])
    np.testing.assert_array_equal(
        LogisticLoss().conjugate(dual, y), [np.inf, np.inf, 0.0, 0.0, np.inf]
    )


def test_multinomial_conjugate_is_finite_on_the_simplex_only() -> None:
    p = np.array([[0.2, 0.8], [1.0, 0.0], [1.1, -0.1], [0.4, 0.4], [0.6, 0.6]])
    y = np.eye(2)[[0, 0, 0, 1, 1]]
    entropy = 0.2 * np.log(0.2) + 0.8 * np.log(0.8)
    expected = np.array([[entropy], [0], [np.inf], [np.inf], [np.inf]])
    np.testing.assert_allclose(MultinomialLoss().conjugate(p - y, y), expected)


# The scale of a dual point -----------------------------------------------------------------


def dual_objective(
    loss: Loss, scale: np.ndarray, R: np.ndarray, Y: np.ndarray, share: np.ndarray, extra: float
) -> np.ndarray:
    return -(share * loss.conjugate(-scale * R, Y)).sum(axis=0) - np.square(scale) * extra / 2


@pytest.mark.parametrize("loss", [SquaredLoss(), HuberLoss(0.7)], ids=["squared", "huber"])
@given(seed=seeds, other=st.floats(-3, 3), extra=st.sampled_from([0.0, 0.3, 10.0]))
def test_dual_scale_maximises_each_column(
    loss: Loss, seed: int, other: float, extra: float
) -> None:
    R, Y = draw(loss, seed)
    share = np.random.default_rng(seed).dirichlet(np.ones(N))[:, None]
    best = loss.dual_scale(R, Y, share, extra)
    assert best.shape == (C,)
    best = np.maximum(best, 0)  # the caller clips
    gain = dual_objective(loss, best, R, Y, share, extra)
    gain -= dual_objective(loss, np.full(C, abs(other)), R, Y, share, extra)
    assert (gain >= -1e-12).all()


@every_loss
def test_dual_scale_of_a_zero_residual_is_finite(loss: Loss) -> None:
    scale = loss.dual_scale(np.zeros((N, C)), draw(loss, 0)[1], 1 / N, 0.0)
    assert np.isfinite(scale).all()


@every_loss
@given(seed=seeds, spread=spreads, single=st.booleans(), shrink=st.floats(0, 1))
def test_scaled_minus_gradients_stay_within_the_domain(
    loss: Loss, seed: int, spread: float, single: bool, shrink: float
) -> None:
    f, y = draw(loss, seed, spread)
    dtype = np.float32 if single else np.float64
    f, y = f.astype(dtype), y.astype(dtype)
    residual = -loss.gradient(f, y)
    scale = np.clip(loss.dual_scale(residual, y, 1 / N, 0.0), 0, dtype(1))
    assert scale.dtype == dtype
    if loss.coupled:
        scale = scale.min()
    for t in (scale, dtype(shrink) * scale):
        assert np.isfinite(loss.conjugate(-t * residual, y)).all()


@given(seed=seeds, spread=st.sampled_from([1e-6, 1.0, 1e6]))
def test_dual_scale_of_huber_brings_any_residual_into_the_domain(seed: int, spread: float) -> None:
    loss = HuberLoss(0.7)
    R, Y = draw(loss, seed, spread)
    scale = np.maximum(loss.dual_scale(R, Y, 1 / N, 0.0), 0)
    assert np.isfinite(loss.conjugate(-scale * R, Y)).all()


# Both array libraries ----------------------------------------------------------------------


@every_loss
def test_numpy_and_jax_agree(loss: Loss, dtype: type) -> None:
    f, y = (part.astype(dtype) for part in draw(loss, 0))

    def everything(loss: Loss, f: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        z = loss.gradient(f, y)
        scale = loss.dual_scale(-z, y, 1 / N, 0.1)
        return loss.value(f, y), z, loss.hessian(f, y), loss.conjugate(z, y), scale

    host = everything(loss, f, y)
    with precision(dtype):
        device = jax.jit(everything)(loss, jnp.asarray(f), jnp.asarray(y))
    for left, right in zip(host, device, strict=True):
        assert isinstance(left, np.ndarray)
        assert left.dtype == right.dtype == dtype
        np.testing.assert_allclose(left, right, rtol=2e-5 if dtype == np.float32 else 1e-12)


def test_pytree_structures_differ_so_that_compilations_are_not_mixed_up() -> None:
    structures = [jax.tree.structure(loss) for loss in LOSSES.values()]
    for i, one in enumerate(structures):
        assert [one == other for other in structures] == [i == j for j in range(len(structures))]
