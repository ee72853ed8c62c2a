"""The neuron group lasso: prox and dual norm by their definitions."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.penalties import NeuronGroupLasso
from cvxnn.solvers._loop import precision

SHAPE = (2, 2, 3, 4)  # outputs, signs, patterns, features
seeds = st.integers(0, 10**6)
steps = st.floats(1e-3, 10)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


def weights(seed: int, scale: float = 1.0) -> np.ndarray:
    U = scale * np.random.default_rng(seed).standard_normal(SHAPE)
    U[0, 0, 1] = 0
    return U


def value(U: np.ndarray) -> float:
    return float(NeuronGroupLasso().value(jnp.asarray(U)))


def prox(U: np.ndarray, step: float) -> np.ndarray:
    return np.asarray(NeuronGroupLasso().prox(jnp.asarray(U), step))


def blocks(U: np.ndarray) -> Iterator[np.ndarray]:
    for index in np.ndindex(*SHAPE[:-1]):
        yield U[index]


def project(U: np.ndarray, radius: float) -> np.ndarray:
    """Project each block onto the ball of the dual norm."""
    out = U.copy()
    for block in blocks(out):
        size = np.sqrt((block**2).sum())
        if size > radius:
            block *= radius / size
    return out


def test_value_sums_block_norms() -> None:
    U = weights(0)
    assert value(U) == pytest.approx(sum(np.sqrt((block**2).sum()) for block in blocks(U)))


@given(seed=seeds, step=steps)
def test_moreau_identity(seed: int, step: float) -> None:
    U = weights(seed)
    np.testing.assert_allclose(prox(U, step) + project(U, step), U, atol=1e-13)


@given(seed=seeds, step=steps)
def test_prox_meets_its_optimality_condition(seed: int, step: float) -> None:
    U = weights(seed)
    for u, p in zip(blocks(U), blocks(prox(U, step)), strict=True):
        size = np.linalg.norm(p)
        if size > 0:
            np.testing.assert_allclose(u - p, step * p / size, atol=1e-12)
        else:
            assert np.linalg.norm(u) <= step * (1 + 1e-12)


@given(seed=seeds, step=steps, other=seeds, distance=st.floats(1e-4, 1))
def test_no_other_point_is_better_than_the_prox(
    seed: int, step: float, other: int, distance: float
) -> None:
    U = weights(seed)

    def objective(Z: np.ndarray) -> float:
        return ((Z - U) ** 2).sum() / 2 + step * value(Z)

    best = prox(U, step)
    assert objective(best) <= objective(best + distance * weights(other)) + 1e-12


@given(seed=seeds, other=seeds, step=steps)
def test_prox_is_nonexpansive(seed: int, other: int, step: float) -> None:
    a, b = weights(seed), weights(other)
    assert np.linalg.norm(prox(a, step) - prox(b, step)) <= np.linalg.norm(a - b) + 1e-12


def test_prox_of_step_zero_is_the_identity() -> None:
    np.testing.assert_array_equal(prox(weights(0), 0.0), weights(0))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e150])
def test_prox_is_finite_at_extreme_scales(scale: float) -> None:
    shrunk = prox(weights(0, scale), 0.1)
    assert np.isfinite(shrunk).all()
    if scale < 1:
        assert not shrunk.any()


@given(seed=seeds, other=seeds)
def test_dual_norm_bounds_the_inner_product(seed: int, other: int) -> None:
    U, Z = weights(seed), weights(other)
    dual = np.asarray(NeuronGroupLasso().dual_norm(jnp.asarray(Z)))
    for c in range(len(U)):
        assert (U[c] * Z[c]).sum() <= value(U[c : c + 1]) * dual[c] + 1e-12


@given(seed=seeds)
def test_dual_norm_is_attained_for_each_output(seed: int) -> None:
    Z = weights(seed)
    dual = np.asarray(NeuronGroupLasso().dual_norm(jnp.asarray(Z)))
    assert dual.shape == (len(Z),)
    for c in range(len(Z)):
        sizes = np.sqrt((Z[c] ** 2).sum(axis=-1))
        U = np.zeros_like(Z[c])
        at = np.unravel_index(sizes.argmax(), sizes.shape)
        U[at] = Z[c][at] / sizes.max()
        assert (U * Z[c]).sum() == pytest.approx(dual[c])


def test_dtype_is_kept(dtype: type) -> None:
    with precision(dtype):
        U = jnp.asarray(weights(0).astype(dtype))
        penalty = NeuronGroupLasso()
        assert penalty.value(U).dtype == dtype
        assert penalty.prox(U, 0.1).dtype == dtype
        assert penalty.dual_norm(U).dtype == dtype
