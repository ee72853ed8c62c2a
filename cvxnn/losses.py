"""Losses of one prediction and one target, and what duality needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array


class Loss(Protocol):
    """What the convex program asks of a loss: a convex function of the prediction."""

    def value(self, prediction: Array, target: Array) -> Array:
        """Loss of each entry."""

    def gradient(self, prediction: Array, target: Array) -> Array:
        """Derivative in the prediction."""

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Convex conjugate in the prediction, at ``dual``."""

    def dual_scale(self, residual: Array, target: Array) -> Array:
        """Scale of each column of ``-residual`` at which the dual objective is largest or good."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SquaredLoss:
    r"""Half the squared error, :math:`\tfrac12 (f - y)^2`; conjugate :math:`\tfrac12 z^2 + z y`."""

    def value(self, prediction: Array, target: Array) -> Array:
        """Loss of each entry."""
        return 0.5 * (prediction - target) ** 2

    def gradient(self, prediction: Array, target: Array) -> Array:
        """Derivative in the prediction, ``f - y``."""
        return prediction - target

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Convex conjugate at ``dual``."""
        return 0.5 * dual**2 + dual * target

    def dual_scale(self, residual: Array, target: Array) -> Array:
        """Maximiser of the dual objective along each column, in closed form."""
        tiny = jnp.finfo(residual.dtype).tiny
        return (residual * target).sum(axis=0) / jnp.maximum((residual**2).sum(axis=0), tiny)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogisticLoss:
    r"""Logistic loss of a margin, :math:`\log(1 + e^{-y f})`, targets -1 and 1.

    The conjugate at :math:`z = -y p` is the negative entropy :math:`p\log p + (1-p)\log(1-p)` for
    :math:`p \in [0, 1]`, infinite elsewhere.
    """

    def value(self, prediction: Array, target: Array) -> Array:
        """Loss of each entry, without overflow."""
        return jax.nn.softplus(-target * prediction)

    def gradient(self, prediction: Array, target: Array) -> Array:
        """Derivative in the prediction."""
        return -target * jax.nn.sigmoid(-target * prediction)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Convex conjugate at ``dual``."""
        p = -target * dual
        inside = (p >= 0) & (p <= 1)
        p = jnp.clip(p, 0, 1)
        entropy = jax.scipy.special.xlogy(p, p) + jax.scipy.special.xlogy(1 - p, 1 - p)
        return jnp.where(inside, entropy, jnp.inf)

    def dual_scale(self, residual: Array, target: Array) -> Array:
        """One: at the optimum the dual point is minus the gradient itself."""
        return jnp.ones(residual.shape[1:], residual.dtype)
