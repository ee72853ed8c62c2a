"""Losses: gradient, conjugate, and the scale of the dual point."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.losses import LogisticLoss, Loss, SquaredLoss
from cvxnn.solvers._loop import precision

LOSSES = [SquaredLoss(), LogisticLoss()]
predictions = st.floats(-50, 50)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


@pytest.fixture(params=LOSSES, ids=["squared", "logistic"])
def loss(request: pytest.FixtureRequest) -> Loss:
    return request.param


def targets_of(loss: Loss, target: float) -> float:
    """Logistic targets are -1 and 1."""
    return target if isinstance(loss, SquaredLoss) else (1.0 if target >= 0 else -1.0)


def test_squared_loss_is_half_the_squared_error() -> None:
    value = SquaredLoss().value(jnp.array([3.0, -1.0]), jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(value, [2.0, 0.0])


def test_logistic_loss_is_minus_the_log_likelihood() -> None:
    f, y = jnp.array([-2.0, 0.0, 1.5]), jnp.array([1.0, -1.0, 1.0])
    np.testing.assert_allclose(
        LogisticLoss().value(f, y),
        [-np.log(1 / (1 + np.exp(-b * a))) for a, b in zip(f, y, strict=True)],
    )


def test_logistic_loss_does_not_overflow(dtype: type) -> None:
    with precision(dtype):
        f = jnp.asarray(np.array([-1e4, 1e4], dtype))
        y = jnp.asarray(np.ones(2, dtype))
        np.testing.assert_allclose(LogisticLoss().value(f, y), [1e4, 0])
        np.testing.assert_allclose(LogisticLoss().gradient(f, y), [-1, 0], atol=1e-30)


@pytest.mark.parametrize("loss", LOSSES, ids=["squared", "logistic"])
@given(f=predictions, target=predictions)
def test_gradient_is_the_slope_of_the_value(loss: Loss, f: float, target: float) -> None:
    y = targets_of(loss, target)
    h = 1e-5
    slope = (float(loss.value(f + h, y)) - float(loss.value(f - h, y))) / (2 * h)
    assert float(loss.gradient(f, y)) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES, ids=["squared", "logistic"])
@given(f=predictions, target=predictions, dual=st.floats(-3, 3))
def test_fenchel_young_inequality(loss: Loss, f: float, target: float, dual: float) -> None:
    y = targets_of(loss, target)
    left = float(loss.value(jnp.asarray(f), y) + loss.conjugate(jnp.asarray(dual), y))
    assert left >= f * dual - 1e-9


@pytest.mark.parametrize("loss", LOSSES, ids=["squared", "logistic"])
@given(f=predictions, target=predictions)
def test_fenchel_young_equality_at_the_gradient(loss: Loss, f: float, target: float) -> None:
    y = targets_of(loss, target)
    z = loss.gradient(jnp.asarray(f), y)
    left = float(loss.value(jnp.asarray(f), y) + loss.conjugate(z, y))
    assert left == pytest.approx(f * float(z), rel=1e-9, abs=1e-9)


def test_logistic_conjugate_is_finite_between_0_and_minus_y_only() -> None:
    y = jnp.array([1.0, 1.0, 1.0, 1.0, -1.0])
    dual = jnp.array([0.1, -1.1, 0.0, -1.0, -0.1])
    np.testing.assert_array_equal(
        LogisticLoss().conjugate(dual, y), [np.inf, np.inf, 0.0, 0.0, np.inf]
    )


def dual_objective(loss: Loss, scale: np.ndarray, R: np.ndarray, Y: np.ndarray) -> np.ndarray:
    return -np.asarray(loss.conjugate(jnp.asarray(-scale * R), jnp.asarray(Y))).sum(axis=0)


@given(seed=st.integers(0, 10**6), other=st.floats(-3, 3))
def test_dual_scale_of_squared_loss_maximises_each_column(seed: int, other: float) -> None:
    rng = np.random.default_rng(seed)
    R, Y = rng.standard_normal((2, 7, 2))
    best = np.asarray(SquaredLoss().dual_scale(jnp.asarray(R), jnp.asarray(Y)))
    assert best.shape == (2,)
    gain = dual_objective(SquaredLoss(), best, R, Y) - dual_objective(SquaredLoss(), other, R, Y)
    assert (gain >= -1e-12).all()


def test_dual_scale_of_a_zero_residual_is_finite(loss: Loss) -> None:
    scale = loss.dual_scale(jnp.zeros((4, 2)), jnp.ones((4, 2)))
    assert np.isfinite(scale).all()


def test_dual_scale_of_logistic_loss_keeps_minus_the_gradient(dtype: type) -> None:
    with precision(dtype):
        Y = jnp.asarray(np.array([[1], [-1], [1]], dtype))
        R = -LogisticLoss().gradient(jnp.asarray(np.array([[0.3], [2], [-1]], dtype)), Y)
        scale = LogisticLoss().dual_scale(R, Y)
        assert scale.dtype == dtype
        np.testing.assert_array_equal(scale, [1])
        assert np.isfinite(LogisticLoss().conjugate(-R, Y)).all()
