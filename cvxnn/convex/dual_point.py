"""Dual points: residuals and multipliers, which prove lower bounds on the optimum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.patterns import Formulation
from cvxnn.numerics.arrays import namespace


class DualPoint(NamedTuple):
    """What proves a lower bound; see :meth:`ConvexProgram.bound_of`.

    Attributes
    ----------
    residual : array, shape (n_samples, n_outputs)
        Any vector; at the optimum, minus the gradient of each row's loss.
    multipliers : array, shape (n_samples, n_outputs, 2, n_patterns), or None
        Multipliers of the cone constraints, non-negative; None in the gated formulation.
    """

    residual: Any
    multipliers: Any

    def stacked(self, operator: GatedOperator) -> DualPoint:
        """Return the point with multipliers as solvers carry them, see ``GatedOperator``.

        Parameters
        ----------
        operator : GatedOperator
            That of the program.
        """
        if self.multipliers is None or not operator.linear:
            return self
        shape = (*self.multipliers.shape[:-1], 1)
        none = namespace(self.multipliers).zeros(shape, self.multipliers.dtype)
        return self._replace(multipliers=operator.join(self.multipliers, none, axis=-1))

    def unstacked(self, operator: GatedOperator) -> DualPoint:
        """Return the point that a solver's stacked multipliers hold.

        Parameters
        ----------
        operator : GatedOperator
            That of the program.
        """
        if self.multipliers is None:
            return self
        return self._replace(multipliers=operator.split(self.multipliers, axis=-1)[0])

    def check(self, shape: tuple[int, int], n_patterns: int, formulation: Formulation) -> None:
        """Refuse a dual point of another program, whose targets have a shape.

        Parameters
        ----------
        shape : tuple of int
            ``(n_samples, n_outputs)`` of the targets.
        n_patterns : int
            Patterns of the program.
        formulation : {"relu", "gated"}
            That of the program.
        """
        (n, C), multipliers = shape, self.multipliers
        if np.shape(self.residual) != (n, C):
            raise ValueError(
                f"dual.residual has shape {np.shape(self.residual)}; expected {(n, C)}, as y."
            )
        wanted = (n, C, 2, n_patterns) if formulation == "relu" else None
        if multipliers is not None and np.shape(multipliers) != wanted:
            raise ValueError(
                f"dual.multipliers has shape {np.shape(multipliers)}; expected None"
                + (f" or {wanted}." if wanted else " in the gated formulation.")
            )
