"""A program, its weights and its multipliers over other patterns of the same data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.operators import Weights
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.program import ConvexProgram


def program_over(base: ConvexProgram, found: ActivationPatterns) -> ConvexProgram:
    """Return a program with other patterns in the place of its own.

    Parameters
    ----------
    base : ConvexProgram
        The program.
    found : ActivationPatterns
        The patterns, of the same rows.
    """
    return replace(base, operator=replace(base.operator, mask=found.mask))


def product_flops(program: ConvexProgram, n_patterns: int) -> float:
    """Return the operations of a product with the data and so many patterns.

    Parameters
    ----------
    program : ConvexProgram
        Its rows and outputs count, its own patterns do not.
    n_patterns : int
        Number of patterns, at least 0.
    """
    return 2.0 * program.y.size * program.operator.X.shape[1] * n_patterns


def positions(these: ActivationPatterns, among: ActivationPatterns) -> NDArray[np.intp]:
    """Return the positions of ``these`` patterns ``among`` the others; -1 where one is missing.

    Parameters
    ----------
    these, among : ActivationPatterns
        Patterns of the same rows.
    """
    index = {column.tobytes(): i for i, column in enumerate(among.mask.T)}
    return np.array([index.get(column.tobytes(), -1) for column in these.mask.T], np.intp)


def spread_weights(
    weights: Weights, patterns_of: ActivationPatterns, among: ActivationPatterns
) -> Weights:
    """Return weights over other patterns: the same blocks, zero for patterns that had none.

    Parameters
    ----------
    weights : Weights
        Weights over ``patterns_of``.
    patterns_of, among : ActivationPatterns
        Patterns of the given weights, and of those that are returned.
    """
    return weights._replace(blocks=spread(weights.blocks, patterns_of, among, axis=2))


def spread(
    values: NDArray[np.floating],
    patterns_of: ActivationPatterns,
    among: ActivationPatterns,
    axis: int,
) -> NDArray[np.floating]:
    """Move values from their patterns to the same ones among others; zero elsewhere.

    Parameters
    ----------
    values : ndarray
        Values with one axis for the patterns, such as multipliers.
    patterns_of, among : ActivationPatterns
        Patterns of the given values, and of those that are returned.
    axis : int
        Axis of the patterns.
    """
    position = positions(patterns_of, among)
    shape = (*values.shape[:axis], len(among), *values.shape[axis + 1 :])
    out = np.zeros(shape, values.dtype)
    present = position >= 0
    np.moveaxis(out, axis, 0)[position[present]] = np.moveaxis(values, axis, 0)[present]
    return out
