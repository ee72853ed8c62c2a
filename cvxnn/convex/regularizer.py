"""Regularizer of a program: the penalty of its blocks and the ridge of its linear part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.penalties import Penalty, WithDualNorm
from cvxnn.numerics.arrays import Array, namespace


@dataclass(frozen=True)
class Regularizer:
    """``alpha`` times the penalty of the blocks, plus ``ridge / 2`` times the linear part squared.

    All methods work on the stacked arrays of :class:`GatedOperator`.

    Attributes
    ----------
    operator : GatedOperator
        What tells blocks from the linear part.
    penalty : Penalty
        Penalty on the blocks.
    alpha : float, or Array of shape (n_outputs,)
        Strength of the penalty.
    ridge : float
        Ridge penalty of each sign's half of the linear part; without one it is never used.
    """

    operator: GatedOperator
    penalty: Penalty
    alpha: Any
    ridge: Any

    @property
    def _alpha_of_blocks(self) -> Any:
        """Strength, in a shape that multiplies blocks."""
        return self.alpha[:, None, None, None] if np.ndim(self.alpha) else self.alpha

    def value(self, U: Array) -> Array:
        """Return the regularizer at weights."""
        blocks, linear = self.operator.split(U, axis=2)
        if np.ndim(self.alpha):  # of a square
            value = self.penalty.value(namespace(U).sqrt(self._alpha_of_blocks) * blocks)
        else:
            value = self.alpha * self.penalty.value(blocks)
        return value if linear is None else value + self.ridge * (linear**2).sum() / 2

    def prox(self, U: Array, step: Array | float) -> Array:
        """Return the proximal map of ``step`` times :meth:`value`."""
        blocks, linear = self.operator.split(U, axis=2)
        blocks = self.penalty.prox(blocks, step * self._alpha_of_blocks)
        if linear is None:
            return blocks
        return self.operator.join(blocks, linear / (1 + step * self.ridge), axis=2)

    def within_dual_ball(self, slope: Array) -> Array:
        """Project slopes on what subgradients of the penalty can be, by Moreau's identity.

        Parameters
        ----------
        slope : Array, shape (n_outputs, n_signs, P, n_features)
            Slopes of the weights.
        """
        if not isinstance(self.penalty, WithDualNorm):
            return slope
        return slope - self.penalty.prox(slope, self.alpha)
