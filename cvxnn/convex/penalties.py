r"""Penalties on the weights: value, proximal map, and what duality needs of them.

Weights have shape ``(n_outputs, n_signs, n_patterns, n_features)``, see
``cvxnn.convex.operators``. All penalties work on NumPy and JAX arrays alike.

A lower bound needs the conjugate :math:`g^*(z) = \sup_u \langle u, z \rangle - g(u)` of the penalty
:math:`g`. That of a norm is zero where the dual norm is at most 1 and infinite elsewhere. So a
penalty declares one of two things: ``dual_norm`` if it is a norm, ``conjugate`` otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from cvxnn.numerics.arrays import Array, namespace, register_pytree


@runtime_checkable
class Penalty(Protocol):
    """Protocol of a penalty: convex, zero at zero, and a sum over the outputs.

    A penalty of your own is a frozen dataclass with these two methods and that of
    :class:`WithDualNorm` or :class:`WithConjugate`, registered by ``register_pytree``. ``solve``
    refuses one that has neither, and one whose methods contradict each other.

    Notes
    -----
    The methods take

    U : Array, shape (n_outputs, n_signs, n_patterns, n_features)
        Weights; of a conjugate or a dual norm, the slope at which it is taken.
    step : Array or float
        Factor of the penalty, at least 0.
    """

    def value(self, U: Array) -> Array:
        """Return the penalty, a scalar."""

    def prox(self, U: Array, step: Any) -> Array:
        """Return the proximal map of ``step`` times the penalty."""


@runtime_checkable
class WithDualNorm(Penalty, Protocol):
    """Protocol of a penalty that is a norm."""

    def dual_norm(self, U: Array) -> Array:
        """Return the dual norm of each output's weights, shape (n_outputs,)."""


@runtime_checkable
class WithConjugate(Penalty, Protocol):
    """Protocol of a penalty that is no norm; of one with both methods, this one counts."""

    def conjugate(self, U: Array) -> Array:
        """Return the convex conjugate at each output's weights, shape (n_outputs,).

        It is zero at zero, never negative, and infinite outside its domain.
        """


@register_pytree
@dataclass(frozen=True)
class NeuronGroupLasso:
    r"""Sum of the Euclidean norms of the blocks, :math:`\sum_j \|u_j\|_2`.

    One group is one hidden neuron, so whole neurons vanish; it equals weight decay
    :math:`\tfrac12(\|\Theta_1\|^2 + \|\theta_2\|^2)` of the recovered network.
    """

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

    It is its own conjugate.
    """

    def value(self, U: Array) -> Array:
        """Return half the sum of squares."""
        return 0.5 * (U**2).sum()

    def prox(self, U: Array, step: Any) -> Array:
        r"""Return the weights shrunk, :math:`u / (1 + \text{step})`."""
        return U / (1 + step)

    def conjugate(self, U: Array) -> Array:
        """Return half the sum of squares of each output."""
        return 0.5 * (U.reshape(U.shape[0], -1) ** 2).sum(axis=1)


def _by_output(U: Array) -> Array:
    """Return the blocks of each output: shape (n_outputs, n_blocks, n_features)."""
    return U.reshape(U.shape[0], -1, U.shape[-1])


def _shrink(U: Array, step: Any, axis: int) -> Array:
    """Shorten vectors along an axis by ``step``, or to zero: the prox of their norms."""
    xp = namespace(U)
    norms = xp.linalg.norm(U, axis=axis, keepdims=True)
    return U * (xp.maximum(norms - step, 0) / xp.maximum(norms, xp.finfo(U.dtype).tiny))
