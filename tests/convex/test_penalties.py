"""Penalties: prox and dual norm by their definitions."""

from collections.abc import Iterator

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.convex import (
    L1,
    FeatureGroupLasso,
    NeuronGroupLasso,
    Penalty,
    SquaredL2,
    WithDualNorm,
)
from cvxnn.numerics.jax_import import precision

SHAPE = (2, 2, 3, 4)  # outputs, signs, patterns, features
PENALTIES = {
    "neuron": NeuronGroupLasso(),
    "feature": FeatureGroupLasso(),
    "l1": L1(),
    "ridge": SquaredL2(),
}
NORMS = {name: penalty for name, penalty in PENALTIES.items() if isinstance(penalty, WithDualNorm)}
every_penalty = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
every_norm = pytest.mark.parametrize("penalty", NORMS.values(), ids=NORMS)
seeds = st.integers(0, 10**6)
steps = st.floats(1e-3, 10)


def weights(seed: int, scale: float = 1.0) -> np.ndarray:
    U = scale * np.random.default_rng(seed).standard_normal(SHAPE)
    U[0, 0, 1] = 0
    return U


def groups(penalty: Penalty, U: np.ndarray) -> Iterator[np.ndarray]:
    """Views of the weights that the penalty shrinks together."""
    for c in range(len(U)):
        if isinstance(penalty, NeuronGroupLasso):
            yield from (U[c, b, i] for b, i in np.ndindex(*U.shape[1:3]))
        elif isinstance(penalty, FeatureGroupLasso):
            yield from (U[c, :, :, k] for k in range(U.shape[3]))
        else:
            yield from (U[(c, *index)][None] for index in np.ndindex(*U.shape[1:]))


def slices(penalty: Penalty, U: np.ndarray) -> list[float]:
    return [float(np.sqrt((group**2).sum())) for group in groups(penalty, U)]


def dual_prox(penalty: Penalty, U: np.ndarray, step: float) -> np.ndarray:
    """``step prox_{g*/step}(U/step)``: a projection on a ball of radius ``step`` for norms."""
    if not isinstance(penalty, WithDualNorm):
        return U * step / (1 + step)
    out = U.copy()
    for index in np.ndindex(*SHAPE[:1]):
        one = out[index][None]
        if isinstance(penalty, L1):
            np.clip(one, -step, step, out=one)
            continue
        for group in groups(penalty, one):
            group *= min(1, step / max(np.sqrt((group**2).sum()), 1e-300))
    return out


@every_norm
def test_value_of_a_norm_sums_the_norms_of_its_groups(penalty: Penalty) -> None:
    assert penalty.value(weights(0)) == pytest.approx(sum(slices(penalty, weights(0))))


def test_value_of_the_ridge_is_half_the_sum_of_squares() -> None:
    assert SquaredL2().value(weights(0)) == pytest.approx(sum(weights(0).ravel() ** 2) / 2)


@every_norm
@given(seed=seeds, other=seeds, factor=st.floats(-5, 5))
def test_norms_are_norms(penalty: Penalty, seed: int, other: int, factor: float) -> None:
    U, Z = weights(seed), weights(other)
    assert penalty.value(factor * U) == pytest.approx(abs(factor) * penalty.value(U), abs=1e-12)
    assert penalty.value(U + Z) <= penalty.value(U) + penalty.value(Z) + 1e-12


# The proximal map ---------------------------------------------------------------------------


@every_penalty
@given(seed=seeds, step=steps)
def test_moreau_identity(penalty: Penalty, seed: int, step: float) -> None:
    U = weights(seed)
    np.testing.assert_allclose(penalty.prox(U, step) + dual_prox(penalty, U, step), U, atol=1e-13)


@every_norm
@given(seed=seeds, step=steps)
def test_prox_meets_its_optimality_condition(penalty: Penalty, seed: int, step: float) -> None:
    U = weights(seed)
    P = penalty.prox(U, step)
    # The rest is a subgradient: in the dual ball, and aligned with the prox.
    for c in range(len(U)):
        rest, kept = (U - P)[c : c + 1], P[c : c + 1]
        assert penalty.dual_norm(rest)[0] <= step * (1 + 1e-12)
        assert (rest * kept).sum() == pytest.approx(step * penalty.value(kept), abs=1e-11)


@pytest.mark.parametrize("step", [0.1, 0.7])
@every_penalty
def test_prox_agrees_with_cvxpy(penalty: Penalty, step: float) -> None:
    U = weights(3)
    for c in range(len(U)):
        flat = U[c].reshape(-1, SHAPE[3])
        Z = cp.Variable(flat.shape)
        value = {
            NeuronGroupLasso: lambda Z: cp.sum(cp.norm(Z, axis=1)),
            FeatureGroupLasso: lambda Z: cp.sum(cp.norm(Z, axis=0)),
            L1: lambda Z: cp.sum(cp.abs(Z)),
            SquaredL2: lambda Z: cp.sum_squares(Z) / 2,
        }[type(penalty)](Z)
        cp.Problem(cp.Minimize(cp.sum_squares(Z - flat) / 2 + step * value)).solve("CLARABEL")
        np.testing.assert_allclose(penalty.prox(U, step)[c].reshape(flat.shape), Z.value, atol=1e-4)


@every_penalty
@given(seed=seeds, step=steps, other=seeds, distance=st.floats(1e-4, 1))
def test_no_other_point_is_better_than_the_prox(
    penalty: Penalty, seed: int, step: float, other: int, distance: float
) -> None:
    U = weights(seed)

    def objective(Z: np.ndarray) -> float:
        return float(((Z - U) ** 2).sum() / 2 + step * penalty.value(Z))

    best = penalty.prox(U, step)
    assert objective(best) <= objective(best + distance * weights(other)) + 1e-12


@every_penalty
@given(seed=seeds, other=seeds, step=steps)
def test_prox_is_nonexpansive(penalty: Penalty, seed: int, other: int, step: float) -> None:
    a, b = weights(seed), weights(other)
    moved = np.linalg.norm(penalty.prox(a, step) - penalty.prox(b, step))
    assert moved <= np.linalg.norm(a - b) + 1e-12


@every_penalty
def test_prox_of_step_zero_is_the_identity(penalty: Penalty) -> None:
    np.testing.assert_array_equal(penalty.prox(weights(0), 0.0), weights(0))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e150])
@every_penalty
def test_prox_is_finite_at_extreme_scales(penalty: Penalty, scale: float) -> None:
    shrunk = penalty.prox(weights(0, scale), 0.1)
    assert np.isfinite(shrunk).all()
    if scale < 1 and isinstance(penalty, WithDualNorm):
        assert not shrunk.any()


@pytest.mark.parametrize(
    ("penalty", "axes"), [(NeuronGroupLasso(), (3,)), (FeatureGroupLasso(), (1, 2))]
)
def test_groups_vanish_as_wholes(penalty: Penalty, axes: tuple[int, ...]) -> None:
    U = np.random.default_rng(0).standard_normal(SHAPE)
    zero = penalty.prox(U, 1.01 * np.median(slices(penalty, U))) == 0
    assert zero.any()
    assert not zero.all()
    np.testing.assert_array_equal(zero.all(axis=axes), zero.any(axis=axes))


# The dual norm ------------------------------------------------------------------------------


@every_norm
@given(seed=seeds, other=seeds)
def test_dual_norm_bounds_the_inner_product(penalty: Penalty, seed: int, other: int) -> None:
    U, Z = weights(seed), weights(other)
    dual = penalty.dual_norm(Z)
    for c in range(len(U)):
        assert (U[c] * Z[c]).sum() <= penalty.value(U[c : c + 1]) * dual[c] + 1e-12


@every_norm
@given(seed=seeds)
def test_dual_norm_is_attained_for_each_output(penalty: Penalty, seed: int) -> None:
    Z = weights(seed)
    dual = penalty.dual_norm(Z)
    assert dual.shape == (len(Z),)
    for c in range(len(Z)):
        one = Z[c : c + 1]
        sizes = slices(penalty, one)
        U = np.zeros_like(one)
        largest = int(np.argmax(sizes))
        if isinstance(penalty, L1):
            U.flat[largest] = np.sign(one.flat[largest])
        else:
            pairs = list(zip(groups(penalty, U), groups(penalty, one), strict=True))
            pairs[largest][0][...] = pairs[largest][1] / sizes[largest]
        assert penalty.value(U) == pytest.approx(1)
        assert (U * one).sum() == pytest.approx(dual[c])


def test_conjugate_of_the_ridge_is_the_ridge_of_each_output() -> None:
    Z = weights(0)
    np.testing.assert_allclose(SquaredL2().conjugate(Z), [(part**2).sum() / 2 for part in Z])


# Both array libraries -----------------------------------------------------------------------


@every_penalty
def test_numpy_and_jax_agree(penalty: Penalty, dtype: type) -> None:
    U = weights(0).astype(dtype)

    def everything(penalty: Penalty, U: jax.Array) -> tuple[jax.Array, ...]:
        dual = penalty.dual_norm if isinstance(penalty, WithDualNorm) else penalty.conjugate
        return penalty.value(U), penalty.prox(U, 0.3), dual(U)

    host = everything(penalty, U)
    with precision(dtype):
        device = jax.jit(everything)(penalty, jnp.asarray(U))
    for left, right in zip(host, device, strict=True):
        assert isinstance(left, np.ndarray | np.generic)
        assert left.dtype == right.dtype == dtype
        np.testing.assert_allclose(
            left, right, rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-7
        )


def test_pytree_structures_differ_so_that_compilations_are_not_mixed_up() -> None:
    structures = [jax.tree.structure(penalty) for penalty in PENALTIES.values()]
    for i, one in enumerate(structures):
        assert [one == other for other in structures] == [i == j for j in range(len(structures))]
