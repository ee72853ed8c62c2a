r"""Penalties on the weights: value, proximal map, and what duality needs of them.

Weights have shape ``(n_outputs, n_signs, n_patterns, n_features)``, see
``cvxnn.convex.operators``. All penalties work on NumPy and JAX arrays alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from cvxnn._arrays import Array, namespace, register_pytree


class Penalty(Protocol):
    """Protocol of a penalty, which treats each output separately.

    A penalty of your own is a frozen dataclass with these methods, registered by
    ``register_pytree``.
    """

    is_norm: ClassVar[bool]
    """True for a norm, whose conjugate is the indicator of the dual norm's ball."""

    def value(self, U: Array) -> Array:
        """Return the penalty, a scalar."""

    def prox(self, U: Array, step: Any) -> Array:
        """Return the proximal map of ``step`` times the penalty."""

    def dual_norm(self, U: Array) -> Array:
        """Return the dual norm of each output's weights, or the Euclidean one if it is no norm."""


@register_pytree
@dataclass(frozen=True)
class NeuronGroupLasso:
    r"""Sum of the Euclidean norms of the blocks, :math:`\sum_j \|u_j\|_2`.

    One group is one hidden neuron, so whole neurons vanish; it equals weight decay
    :math:`\tfrac12(\|\Theta_1\|^2 + \|\theta_2\|^2)` of the recovered network.
    """

    is_norm: ClassVar[bool] = True

    def value(self, U: Array) -> Array:
        """Return the sum of block norms."""
        return namespace(U).linalg.norm(U, axis=-1).sum()

    def prox(self, U: Array, step: Any) -> Array:
        r"""Return the blocks shortened, :math:`u_j (1 - \text{step} / \|u_j\|)_+`."""
        return _shrink(U, step, axis=-1)

    def dual_norm(self, U: Array) -> Array:
        """Return the largest block norm of each output."""
        norms = namespace(U).linalg.norm(U, axis=-1)
        return norms.reshape(norms.shape[0], -1).max(axis=1)


@register_pytree
@dataclass(frozen=True)
class FeatureGroupLasso:
    r"""Sum over features ``k`` of the norm of all weights on it, :math:`\sum_k \|u_{\cdot k}\|_2`.

    One group is one input feature of one output, so whole features vanish.
    """

    is_norm: ClassVar[bool] = True

    def value(self, U: Array) -> Array:
        """Return the sum of the norms of the features' weights."""
        return namespace(U).linalg.norm(_by_output(U), axis=1).sum()

    def prox(self, U: Array, step: Any) -> Array:
        """Shorten the weights of each feature (group soft-thresholding)."""
        return _shrink(_by_output(U), step, axis=1).reshape(U.shape)

    def dual_norm(self, U: Array) -> Array:
        """Return the largest feature norm of each output."""
        return namespace(U).linalg.norm(_by_output(U), axis=1).max(axis=1)


@register_pytree
@dataclass(frozen=True)
class L1:
    r"""Sum of absolute values, :math:`\sum |u_{jk}|`: single weights vanish."""

    is_norm: ClassVar[bool] = True

    def value(self, U: Array) -> Array:
        """Return the sum of absolute values."""
        return namespace(U).abs(U).sum()

    def prox(self, U: Array, step: Any) -> Array:
        """Bring each weight closer to zero (soft-thresholding)."""
        xp = namespace(U)
        return xp.sign(U) * xp.maximum(xp.abs(U) - step, 0)

    def dual_norm(self, U: Array) -> Array:
        """Return the largest absolute value of each output."""
        return namespace(U).abs(U.reshape(U.shape[0], -1)).max(axis=1)


@register_pytree
@dataclass(frozen=True)
class SquaredL2:
    r"""Half the sum of squares, :math:`\tfrac12 \sum u_{jk}^2`: ridge, nothing vanishes.

    Its conjugate with strength :math:`\alpha` is :math:`\|z\|^2 / (2 \alpha)`.
    """

    is_norm: ClassVar[bool] = False

    def value(self, U: Array) -> Array:
        """Return half the sum of squares."""
        return 0.5 * (U**2).sum()

    def prox(self, U: Array, step: Any) -> Array:
        r"""Return the weights shrunk, :math:`u / (1 + \text{step})`."""
        return U / (1 + step)

    def dual_norm(self, U: Array) -> Array:
        """Return the Euclidean norm of each output's weights."""
        return namespace(U).linalg.norm(U.reshape(U.shape[0], -1), axis=1)


def _by_output(U: Array) -> Array:
    return U.reshape(U.shape[0], -1, U.shape[-1])


def _shrink(U: Array, step: Any, axis: int) -> Array:
    xp = namespace(U)
    norms = xp.linalg.norm(U, axis=axis, keepdims=True)
    return U * (xp.maximum(norms - step, 0) / xp.maximum(norms, xp.finfo(U.dtype).tiny))
