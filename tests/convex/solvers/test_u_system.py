"""Conjugate gradient, preconditioners and the exact dual solve against dense linear algebra."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvxnn.convex import GatedOperator
from cvxnn.convex.solvers.cronos import preconditioners, u_system
from cvxnn.numerics.jax_import import precision

N, D, P, C = 12, 4, 5, 2


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


def spd(size: int, condition: float, seed: int = 0) -> np.ndarray:
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return (Q * np.geomspace(1, condition, size)) @ Q.T


def gated(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.random((N, P)) < 0.5
    mask[:, -1] = False  # padding
    return rng.standard_normal((N, D)), mask


def dense_q_system(X: np.ndarray, mask: np.ndarray, M: np.ndarray) -> np.ndarray:
    """``I (x) M + (2/n) F0^T F0`` with F0 written out."""
    F0 = np.concatenate([mask[:, i : i + 1] * X for i in range(mask.shape[1])], axis=1)
    return np.kron(np.eye(mask.shape[1]), M) + 2 / len(X) * F0.T @ F0


def identity(x: jax.Array) -> jax.Array:
    return x


# Compiled whole: otherwise each of the many small operations is compiled by itself.
batched_pcg = jax.jit(u_system.batched_pcg, static_argnums=(0, 1))
invert_dual = jax.jit(u_system.invert_dual)


@jax.jit
def dual_solution(exact: Any, operator: GatedOperator, B: jax.Array) -> jax.Array:
    return exact.solve(operator, B)


@jax.jit
def apply(preconditioner: Any, Q: jax.Array) -> jax.Array:
    return preconditioner.apply(Q)


# Conjugate gradient ------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_pcg_solves_each_system_of_a_batch(dtype: type, condition: float) -> None:
    A = spd(10, condition)
    B = np.random.default_rng(1).standard_normal((3, 10)) * np.array([[1], [1e-3], [1e3]])
    tol = 1e-10 if dtype == np.float64 else 1e-4
    with precision(dtype):
        matrix = jnp.asarray(A.astype(dtype))
        b = jnp.asarray(B.astype(dtype))
        x, n_iter = batched_pcg(lambda v: v @ matrix, identity, b, jnp.zeros_like(b), tol, 500)
        assert x.dtype == dtype
    residual = np.linalg.norm(np.asarray(x, float) @ A - B, axis=1) / np.linalg.norm(B, axis=1)
    assert (residual <= 3 * tol).all()
    assert 0 < int(n_iter) < 500


def test_pcg_needs_one_iteration_with_the_inverse() -> None:
    A = spd(10, 1e4)
    inverse = np.linalg.inv(A)
    b = jnp.ones((2, 10))
    _, n_iter = batched_pcg(lambda v: v @ A, lambda v: v @ inverse, b, 0 * b, 1e-8, 50)
    assert int(n_iter) == 1


def test_pcg_needs_as_many_iterations_as_there_are_distinct_eigenvalues() -> None:
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))
    A = (Q * np.repeat([1.0, 5.0, 40.0], 4)) @ Q.T
    b = jnp.asarray(np.random.default_rng(1).standard_normal((1, 12)))
    _, n_iter = batched_pcg(lambda v: v @ A, identity, b, 0 * b, 1e-10, 50)
    assert int(n_iter) == 3


def test_pcg_at_the_solution_does_nothing() -> None:
    A = spd(6, 10.0)
    b = jnp.ones((2, 6))
    x, n_iter = batched_pcg(
        lambda v: v @ A, identity, b, jnp.asarray(np.ones((2, 6)) @ np.linalg.inv(A)), 1e-8, 50
    )
    assert int(n_iter) == 0
    np.testing.assert_allclose(x @ A, b, rtol=1e-8)


def test_pcg_with_a_zero_right_hand_side_among_others_stays_finite() -> None:
    A = spd(6, 10.0)
    b = jnp.stack([jnp.zeros(6), jnp.ones(6)])
    x, _ = batched_pcg(lambda v: v @ A, identity, b, jnp.zeros((2, 6)), 1e-10, 50)
    np.testing.assert_array_equal(x[0], 0)
    np.testing.assert_allclose(x[1] @ A, 1, rtol=1e-8)


def test_pcg_stops_at_max_iter() -> None:
    A = spd(20, 1e6)
    b = jnp.ones((1, 20))
    _, n_iter = batched_pcg(lambda v: v @ A, identity, b, 0 * b, 1e-12, 4)
    assert int(n_iter) == 4


def test_inverse_spd() -> None:
    A = spd(8, 100.0)
    np.testing.assert_allclose(
        jax.jit(u_system.inverse_spd)(jnp.asarray(A)), np.linalg.inv(A), rtol=1e-9, atol=1e-12
    )


# Preconditioners ---------------------------------------------------------------------------


def test_block_is_the_inverse_without_the_data_term() -> None:
    M = spd(D, 10.0)
    Q = np.random.default_rng(0).standard_normal((C, P, D))
    applied = preconditioners.Block(jnp.asarray(np.linalg.inv(M))).apply(jnp.asarray(Q))
    expected = np.linalg.solve(np.kron(np.eye(P), M), Q.reshape(C, -1).T).T
    np.testing.assert_allclose(np.asarray(applied).reshape(C, -1), expected)


def test_mean_field_is_the_inverse_of_the_expected_system() -> None:
    X, _ = gated()
    M = spd(D, 10.0)
    covariance = X.T @ X / N
    preconditioner = preconditioners.MeanField(
        jnp.asarray(np.linalg.inv(M + covariance / 2)),
        jnp.asarray(np.linalg.inv(M + (1 + P) / 2 * covariance)),
    )
    overlaps = 0.25 + 0.25 * np.eye(P)
    expected_system = np.kron(np.eye(P), M) + 2 * np.kron(overlaps, covariance)
    Q = np.random.default_rng(0).standard_normal((C, P, D))
    expected = np.linalg.solve(expected_system, Q.reshape(C, -1).T).T
    applied = np.asarray(apply(preconditioner, jnp.asarray(Q))).reshape(C, -1)
    np.testing.assert_allclose(applied, expected)


@functools.partial(jax.jit, static_argnums=(1, 2))
def sketch_nystrom(
    matrix: jax.Array, shape: tuple[int, int], rank: int, mu: float
) -> preconditioners.NystromSketch:
    return preconditioners.sketch_nystrom(
        lambda u: (u.reshape(1, -1) @ matrix).reshape(u.shape),
        shape,
        rank,
        mu,
        jax.random.key(0),
        matrix.dtype,
    )


def sketch(A: np.ndarray, rank: int, mu: float, dtype: type) -> preconditioners.NystromSketch:
    return sketch_nystrom(jnp.asarray(A.astype(dtype)), (2, len(A) // 2), rank, mu)


def test_nystrom_is_exact_on_a_matrix_of_lower_rank(dtype: type) -> None:
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((16, 4))
    A, mu = factor @ factor.T, 0.1
    with precision(dtype):
        preconditioner = sketch(A, 6, mu, dtype)
        columns = jnp.asarray(np.eye(16, dtype=dtype).reshape(16, 2, 8))
        inverse = np.asarray(apply(preconditioner, columns), float).reshape(16, 16)
    eigenvalues = np.linalg.eigvals(inverse @ (A + mu * np.eye(16))).real
    # Without a preconditioner the condition number is some 300.
    assert eigenvalues.max() / eigenvalues.min() < (1 + 1e-6 if dtype == np.float64 else 1.1)


def test_nystrom_of_full_rank_is_the_inverse_up_to_scale() -> None:
    A, mu = spd(8, 100.0), 0.5
    columns = jnp.asarray(np.eye(8).reshape(8, 2, 4))
    inverse = np.asarray(apply(sketch(A, 8, mu, np.float64), columns)).reshape(8, 8)
    product = inverse @ (A + mu * np.eye(8))
    np.testing.assert_allclose(product / product[0, 0], np.eye(8), atol=1e-6)


def test_nystrom_never_makes_the_condition_worse() -> None:
    A, mu = spd(20, 1e4) - np.eye(20), 1e-2
    columns = jnp.asarray(np.eye(20).reshape(20, 2, 10))
    inverse = np.asarray(apply(sketch(A, 8, mu, np.float64), columns)).reshape(20, 20)
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-12)
    system = A + mu * np.eye(20)
    eigenvalues = np.linalg.eigvals(inverse @ system).real
    assert eigenvalues.min() > 0
    assert eigenvalues.max() / eigenvalues.min() < 0.1 * np.linalg.cond(system)


def test_block_nystrom_of_full_rank_is_the_inverse_up_to_scale() -> None:
    # Block first, then a sketch of all that is left: the whole system.
    X, mask = gated()
    M = spd(D, 10.0)
    root = np.linalg.inv(np.linalg.cholesky(M))
    system = dense_q_system(X, mask, M)
    blocks = np.kron(np.eye(P), root)
    rest = blocks @ system @ blocks.T - np.eye(P * D)
    inner = sketch_nystrom(jnp.asarray(rest), (P, D), P * D, 1.0)
    preconditioner = preconditioners.BlockNystrom(jnp.asarray(root), inner)
    columns = jnp.asarray(np.eye(P * D).reshape(P * D, P, D))
    inverse = np.asarray(apply(preconditioner, columns)).reshape(P * D, P * D)
    product = inverse @ system
    np.testing.assert_allclose(product / product[0, 0], np.eye(P * D), atol=1e-6)


# The exact solve ---------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [1e-3, 1.0])
def test_dual_solves_the_q_system(dtype: type, rho: float) -> None:
    X, mask = gated()
    M = rho * spd(D, 10.0)
    B = np.random.default_rng(1).standard_normal((C, P, D))
    expected = np.linalg.solve(dense_q_system(X, mask, M), B.reshape(C, -1).T).T
    with precision(dtype):
        operator = GatedOperator(jnp.asarray(X.astype(dtype)), jnp.asarray(mask))
        exact = invert_dual(
            operator, jnp.asarray(np.linalg.inv(M).astype(dtype)), jnp.asarray(1 / N, dtype)
        )
        actual = np.asarray(dual_solution(exact, operator, jnp.asarray(B.astype(dtype))))
    assert actual.dtype == dtype
    error = np.linalg.norm(actual.reshape(C, -1) - expected) / np.linalg.norm(expected)
    assert error < (1e-10 if dtype == np.float64 else 1e-3)


def test_dual_takes_duplicate_and_closed_patterns() -> None:
    X, mask = gated()
    mask[:, 1] = mask[:, 0]
    M = spd(D, 10.0)
    B = np.random.default_rng(1).standard_normal((C, P, D))
    operator = GatedOperator(jnp.asarray(X), jnp.asarray(mask))
    exact = invert_dual(operator, jnp.asarray(np.linalg.inv(M)), jnp.asarray(1 / N))
    actual = dual_solution(exact, operator, jnp.asarray(B))
    expected = np.linalg.solve(dense_q_system(X, mask, M), B.reshape(C, -1).T).T
    np.testing.assert_allclose(np.asarray(actual).reshape(C, -1), expected, rtol=1e-9)
