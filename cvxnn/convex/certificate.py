"""Certificates: what a check of a result needs, in NumPy arrays."""

from __future__ import annotations

from typing import NamedTuple

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.operators import Weights
from cvxnn.convex.program import ConvexProgram


class Certificate(NamedTuple):
    """A program, a point of it, and the proof of a bound: all that a check needs.

    Attributes
    ----------
    program : ConvexProgram
        The program, as NumPy arrays.
    weights : Weights
        The point: ``program.evaluate(weights)`` computes its objectives.
    dual : DualPoint or None
        The proof: ``program.bound_of(dual)`` computes the bound. None where it was not kept.
    """

    program: ConvexProgram
    weights: Weights
    dual: DualPoint | None
