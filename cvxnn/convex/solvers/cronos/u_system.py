"""The linear system of the ADMM u-update: conjugate gradient and the exact dual solve.

Let ``M = rho1 I + rho2 Xs^T Xs`` with row-scaled data ``Xs = S X``. With ``p = v + w`` and
``q = v - w`` the update splits into ``M p = b_v + b_w`` and
``(I (x) M + 2 F0^T H F0) q = b_v - b_w``, where the diagonal ``H`` holds each row's curvature:
its share of the loss times the second derivative of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.solvers.cronos.preconditioners import (
    Block,
    BlockNystrom,
    MeanField,
    NystromSketch,
    sketch_nystrom,
)
from cvxnn.numerics.arrays import by_columns

_Carry = tuple[Array, Array, Array, Array, Array]


def batched_pcg(
    matvec: Callable[[Array], Array],
    precondition: Callable[[Array], Array],
    b: Array,
    x0: Array,
    tol: Array | float,
    max_iter: int | Array,
) -> tuple[Array, Array]:
    """Run preconditioned conjugate gradient on a batch of systems along the first axis.

    Parameters
    ----------
    matvec, precondition : callable
        Symmetric positive definite maps of arrays shaped like ``b``.
    b, x0 : Array, shape (batch, ...)
        Right-hand sides, and where to start.
    tol : float
        Stop when every system's residual norm is at most ``tol`` times its right-hand side's.
    max_iter : int
        Most iterations.

    Returns
    -------
    x : Array
        Solutions.
    n_iter : Array, a scalar integer
        Iterations run.
    """
    axes = tuple(range(1, b.ndim))

    def inner(left: Array, right: Array) -> Array:
        return jnp.sum(left * right, axis=axes, keepdims=True)

    target = tol**2 * inner(b, b)

    def unfinished(carry: _Carry) -> Array:
        _, r, _, _, k = carry
        return (k < 0) | (jnp.any(inner(r, r) > target) & (k < max_iter))

    def iterate(carry: _Carry) -> _Carry:
        x, r, p, rz_old, k = carry
        # The first time round finds the residual at x0, so that the product is compiled once.
        first = k < 0
        z = jax.lax.cond(first, lambda _: x0, precondition, r)
        rz = inner(r, z)
        beta = jnp.where((rz_old <= 0) | (k <= 0), 0, rz / jnp.where(rz_old == 0, 1, rz_old))
        p = z + beta * p
        Ap = matvec(p)
        curvature = inner(p, Ap)
        # A system that is solved exactly has p = 0: its step must be 0, not 0 / 0. NaN passes,
        # for the loop to see.
        step = jnp.where(curvature <= 0, 0, rz / jnp.where(curvature == 0, 1, curvature))
        x, r = x + jnp.where(first, 0, step) * p, r - jnp.where(first, 1, step) * Ap
        return x, r, p, rz, k + 1

    start = (x0, b, jnp.zeros_like(x0), jnp.zeros_like(target), jnp.full((), -1, jnp.int32))
    x, _, _, _, n_iter = jax.lax.while_loop(unfinished, iterate, start)
    return x, n_iter


def inverse_spd(A: Array) -> Array:
    """Invert a positive definite matrix: one GEMM applies it to many blocks faster than solves."""
    return cho_solve(cho_factor(A), jnp.eye(len(A), dtype=A.dtype))


def weighted_gram(X: Array, root: Array) -> Array:
    """Return ``X^T diag(root)^2 X``; ``root`` is a scalar, or has shape (n_samples, 1)."""
    # The square of a root alone may be beyond the range of the dtype.
    return by_columns(lambda columns: X.T @ (root * (root * columns)), X)


class DualInverse(NamedTuple):
    """Exact solve of the q-system by Woodbury, with no inner iteration.

    ``F0 (I (x) M)^-1 F0^T = (X M^-1 X^T) * (D D^T)``, elementwise: one n x n matrix ``K``, and
    ``dual_inverse = R (I/2 + R K R)^-1 R`` with ``R`` the root of ``H``.
    """

    inverse: Array
    dual_inverse: Array

    def solve(self, operator: GatedOperator, B: Array) -> Array:
        """Solve for (n_outputs, P, d) right-hand sides."""
        first = B @ self.inverse
        inner = self.dual_inverse @ operator.forward_difference(first)
        return first - operator.adjoint_difference(inner) @ self.inverse


def invert_dual(operator: GatedOperator, inverse: Array, curvature: Array) -> DualInverse:
    """Invert the n x n dual matrix; memory is four n x n arrays at the peak."""
    X = operator.X
    D = operator.mask.astype(X.dtype)
    root = jnp.sqrt(jnp.broadcast_to(curvature, (len(X), 1)))
    K = (X @ (inverse @ X.T)) * (D @ D.T) * (root * root.T)
    # Rounding of a large K could make the sum indefinite: the shift is then what rounding is.
    shift = jnp.maximum(0.5, 10 * jnp.finfo(X.dtype).eps * jnp.trace(K))
    # Triangular solves of one column crawl on a CPU; a product with the inverse does not.
    core = inverse_spd(K + shift * jnp.eye(len(X), dtype=X.dtype))
    return DualInverse(inverse, core * (root * root.T))


class Factors(NamedTuple):
    """What the u-update needs and only a new penalty parameter changes."""

    gram: Array
    inverse: Array
    q_solver: DualInverse | MeanField | Block | BlockNystrom | NystromSketch


class USystem(NamedTuple):
    """The matrix of the u-update, ``F^T H F + rho1 I + rho2 (S G)^T S G``."""

    operator: GatedOperator
    curvature: Array
    """``H``: a scalar, or shape (n_samples, 1)."""
    rows: Array
    """``S``, shape (n_samples,)."""

    def difference_product(self, gram: Array, Q: Array) -> Array:
        """Multiply the matrix of the q-system by (n_outputs, P, d)."""
        op = self.operator
        return Q @ gram + 2 * op.adjoint_difference(self.curvature * op.forward_difference(Q))

    def product(self, rho: Array, U: Array) -> Array:
        """Multiply the whole matrix by weights, by two products with the data each way."""
        op = self.operator
        cone = op.back(op.scores(U) * (self.rows**2)[:, None, None, None])
        return op.adjoint(self.curvature * op.forward(U)) + rho[0] * U + rho[1] * cone

    def factor(self, kind: str, rho: Array, rank: int, seed: Array | int) -> Factors:
        """Factor for the given penalty parameters; ``kind`` as in ``Cronos.linear_solver``."""
        op, X = self.operator, self.operator.X
        P, d = op.n_patterns, X.shape[1]
        gram = rho[0] * jnp.eye(d, dtype=X.dtype) + rho[1] * weighted_gram(X, self.rows[:, None])
        inverse = inverse_spd(gram)
        key = jax.random.key(seed)
        if kind == "dual":
            return Factors(gram, inverse, invert_dual(op, inverse, self.curvature))
        if kind == "block":
            return Factors(gram, inverse, Block(inverse))
        if kind == "mean_field":
            covariance = weighted_gram(X, jnp.sqrt(self.curvature))
            deviation = inverse_spd(gram + covariance / 2)
            mean = inverse_spd(gram + (1 + P) / 2 * covariance)
            return Factors(gram, inverse, MeanField(deviation, mean))
        if kind == "block_nystrom":
            root = solve_triangular(
                jnp.linalg.cholesky(gram), jnp.eye(d, dtype=X.dtype), lower=True
            )

            def remainder(Q: Array) -> Array:
                return self.difference_product(jnp.zeros_like(gram), Q @ root) @ root.T

            sketch = sketch_nystrom(remainder, (P, d), rank, 1.0, key, X.dtype)
            return Factors(gram, inverse, BlockNystrom(root, sketch))

        def unshifted(U: Array) -> Array:
            return self.product(rho, U) - rho[0] * U

        sketch = sketch_nystrom(unshifted, (2, P, d), rank, rho[0], key, X.dtype)
        return Factors(gram, inverse, sketch)

    def solve(
        self,
        factors: Factors,
        rho: Array,
        b: Array,
        previous: Array,
        tol: Array,
        max_iter: int | Array,
    ) -> tuple[Array, Array]:
        """Solve for weights, from the previous ones; also the number of PCG iterations."""
        q_solver = factors.q_solver
        if isinstance(q_solver, NystromSketch):
            return batched_pcg(
                partial(self.product, rho), q_solver.apply, b, previous, tol, max_iter
            )
        p = (b[:, 0] + b[:, 1]) @ factors.inverse
        b_q, q0 = b[:, 0] - b[:, 1], previous[:, 0] - previous[:, 1]
        matvec = partial(self.difference_product, factors.gram)
        if not isinstance(q_solver, DualInverse):
            q, n_iter = batched_pcg(matvec, q_solver.apply, b_q, q0, tol, max_iter)
        elif b.dtype == jnp.float64:
            q, n_iter = q_solver.solve(self.operator, b_q), jnp.zeros((), jnp.int32)
        else:
            # Woodbury subtracts two large numbers where rho1 is small: in single precision it
            # is a preconditioner, whose few iterations mend what cancels.
            q, n_iter = batched_pcg(
                matvec, partial(q_solver.solve, self.operator), b_q, q0, tol, max_iter
            )
        return jnp.stack([p + q, p - q], axis=1) / 2, n_iter
