r"""Penalties on the weights: value, proximal map, and what duality needs of them.

Weights have shape ``(n_outputs, n_signs, n_patterns, n_features)``, see
``cvxnn.convex.operators``. All
work on NumPy and JAX arrays alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from cvxnn._arrays import Array, namespace, register_pytree


class Penalty(Protocol):
    """What the convex program asks of a penalty; outputs are penalised apart."""

    is_norm: ClassVar[bool]
    """Whether it is a norm; its conjugate then is the indicator of the dual norm's ball."""

    def value(self, U: Array) -> Array:
        """Penalty, a scalar."""

    def prox(self, U: Array, step: Any) -> Array:
        """Proximal map of ``step`` times the penalty."""

    def dual_norm(self, U: Array) -> Array:
        """Dual norm of each output's weights, shape (n_outputs,); Euclidean if it is no norm."""


@register_pytree
@dataclass(frozen=True)
class NeuronGroupLasso:
    r"""Sum of the Euclidean norms of the blocks, :math:`\sum_j \|u_j\|_2`.

    One group is one hidden neuron, so whole neurons vanish; it equals weight decay
    :math:`\tfrac12(\|\Theta_1\|^2 + \|\theta_2\|^2)` of the recovered network.
    """

    is_norm: ClassVar[bool] = True

    def value(self, U: Array) -> Array:
        """Sum of block norms."""
        return namespace(U).linalg.norm(U, axis=-1).sum()

    def prox(self, U: Array, step: Any) -> Array:
        r"""Group soft-thresholding, :math:`u_j (1 - \text{step} / \|u_j\|)_+`."""
        return _shrink(U, step, axis=-1)

    def dual_norm(self, U: Array) -> Array:
        """Largest block norm of each output."""
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
        """Sum of the norms of the features' weights."""
        return namespace(U).linalg.norm(_by_output(U), axis=1).sum()

    def prox(self, U: Array, step: Any) -> Array:
        """Group soft-thresholding of each feature's weights."""
        return _shrink(_by_output(U), step, axis=1).reshape(U.shape)

    def dual_norm(self, U: Array) -> Array:
        """Largest feature norm of each output."""
        return namespace(U).linalg.norm(_by_output(U), axis=1).max(axis=1)


@register_pytree
@dataclass(frozen=True)
class L1:
    r"""Sum of absolute values, :math:`\sum |u_{jk}|`: single weights vanish."""

    is_norm: ClassVar[bool] = True

    def value(self, U: Array) -> Array:
        """Sum of absolute values."""
        return namespace(U).abs(U).sum()

    def prox(self, U: Array, step: Any) -> Array:
        """Soft-thresholding of each weight."""
        xp = namespace(U)
        return xp.sign(U) * xp.maximum(xp.abs(U) - step, 0)

    def dual_norm(self, U: Array) -> Array:
        """Largest absolute value of each output."""
        return namespace(U).abs(U.reshape(U.shape[0], -1)).max(axis=1)


@register_pytree
@dataclass(frozen=True)
class SquaredL2:
    r"""Half the sum of squares, :math:`\tfrac12 \sum u_{jk}^2`: ridge, nothing vanishes.

    Its conjugate with strength :math:`\alpha` is :math:`\|z\|^2 / (2 \alpha)`.
    """

    is_norm: ClassVar[bool] = False

    def value(self, U: Array) -> Array:
        """Half the sum of squares."""
        return 0.5 * (U**2).sum()

    def prox(self, U: Array, step: Any) -> Array:
        r"""Shrinkage, :math:`u / (1 + \text{step})`."""
        return U / (1 + step)

    def dual_norm(self, U: Array) -> Array:
        """Euclidean norm of each output's weights."""
        return namespace(U).linalg.norm(U.reshape(U.shape[0], -1), axis=1)


def _by_output(U: Array) -> Array:
    return U.reshape(U.shape[0], -1, U.shape[-1])


def _shrink(U: Array, step: Any, axis: int) -> Array:
    xp = namespace(U)
    norms = xp.linalg.norm(U, axis=axis, keepdims=True)
    return U * (xp.maximum(norms - step, 0) / xp.maximum(norms, xp.finfo(U.dtype).tiny))
