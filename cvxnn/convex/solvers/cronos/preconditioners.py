"""Preconditioners of the ADMM u-update, structured and sketched.

``M`` and the q-system are those of ``cvxnn.convex.solvers.cronos.u_system``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular


class MeanField(NamedTuple):
    """Preconditioner of the q-system from expected pattern overlaps.

    Random patterns overlap on a quarter of the rows, two equal ones on a half:
    ``E[D_i D_j] = 1/4 + [i = j]/4``. Under that expectation the q-system is block diagonal in the
    mean over patterns and the deviations from it, each one ``d x d`` matrix.
    """

    deviation: Array
    mean: Array

    def apply(self, Q: Array) -> Array:
        """Apply to (n_outputs, P, d)."""
        centre = Q.mean(axis=1, keepdims=True)
        return (Q - centre) @ self.deviation + centre @ self.mean


class Block(NamedTuple):
    """Preconditioner of the q-system that keeps ``I (x) M`` only."""

    inverse: Array

    def apply(self, Q: Array) -> Array:
        """Apply to (n_outputs, P, d)."""
        return Q @ self.inverse


class NystromSketch(NamedTuple):
    """Randomised Nystrom preconditioner of ``A + mu I`` (Frangella, Tropp & Udell, 2023).

    ``basis`` has shape (N, rank) on flattened blocks; it approximates the top eigenspace of ``A``.
    """

    basis: Array
    eigenvalues: Array
    mu: Array

    def apply(self, U: Array) -> Array:
        """Apply to (n_outputs, ...) with N numbers an output."""
        flat = U.reshape(U.shape[0], -1)
        coefficients = flat @ self.basis
        scale = (self.eigenvalues[-1] + self.mu) / (self.eigenvalues + self.mu)
        return (flat + (coefficients * (scale - 1)) @ self.basis.T).reshape(U.shape)


class BlockNystrom(NamedTuple):
    """Block preconditioner, then a Nystrom sketch of what it leaves.

    With ``M = L L^T`` the block-preconditioned q-system is ``I + K``,
    ``K = 2 (I (x) L^-1) F0^T H F0 (I (x) L^-T)``; the sketch takes off the top of ``K``.
    """

    inverse_factor: Array
    sketch: NystromSketch

    def apply(self, Q: Array) -> Array:
        """Apply to (n_outputs, P, d)."""
        return self.sketch.apply(Q @ self.inverse_factor.T) @ self.inverse_factor


def sketch_nystrom(
    matvec: Callable[[Array], Array],
    shape: tuple[int, ...],
    rank: int,
    mu: Array | float,
    key: Array,
    dtype: jnp.dtype,
) -> NystromSketch:
    """Sketch ``A`` with ``rank`` products; ``matvec`` maps (batch, ...) arrays of ``shape``."""
    size = 1
    for length in shape:
        size *= length
    test, _ = jnp.linalg.qr(jax.random.normal(key, (size, rank), dtype))
    sketch = jax.lax.map(lambda column: matvec(column.reshape(1, *shape)).reshape(size), test.T).T
    # A tiny shift keeps the small Cholesky positive definite; it is taken off again below.
    shift = jnp.finfo(dtype).eps * jnp.linalg.norm(sketch) * size**0.5
    sketch = sketch + shift * test
    core = test.T @ sketch
    chol = jnp.linalg.cholesky((core + core.T) / 2)
    B = solve_triangular(chol, sketch.T, lower=True).T
    basis, singular, _ = jnp.linalg.svd(B, full_matrices=False)
    return NystromSketch(basis, jnp.maximum(singular**2 - shift, 0), jnp.asarray(mu, dtype))
