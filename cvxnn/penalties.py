"""Penalties on the weights: value, proximal map, dual norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array


class Penalty(Protocol):
    """What the convex program asks of a penalty: a norm of the blocks ``u[..., :]``."""

    def value(self, U: Array) -> Array:
        """Penalty, a scalar."""

    def prox(self, U: Array, step: Array | float) -> Array:
        """Proximal map of ``step`` times the penalty."""

    def dual_norm(self, U: Array) -> Array:
        """Dual norm of each output's blocks, shape (n_outputs,)."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NeuronGroupLasso:
    r"""Sum of the Euclidean norms of the blocks, :math:`\sum_j \|u_j\|_2`.

    One group is one hidden neuron, so whole neurons vanish; it equals weight decay
    :math:`\tfrac12(\|\Theta_1\|^2 + \|\theta_2\|^2)` of the recovered network.
    """

    def value(self, U: Array) -> Array:
        """Sum of block norms."""
        return jnp.linalg.norm(U, axis=-1).sum()

    def prox(self, U: Array, step: Array | float) -> Array:
        r"""Group soft-thresholding, :math:`u_j (1 - \text{step} / \|u_j\|)_+`."""
        norms = jnp.linalg.norm(U, axis=-1, keepdims=True)
        tiny = jnp.finfo(U.dtype).tiny
        return U * jnp.maximum(1 - step / jnp.maximum(norms, tiny), 0)

    def dual_norm(self, U: Array) -> Array:
        """Largest block norm of each output."""
        norms = jnp.linalg.norm(U, axis=-1)
        return norms.reshape(norms.shape[0], -1).max(axis=1)
