"""Rounding shapes up, so that problems of nearly equal size share one compilation.

Rows are added with zero data and zero weight, patterns closed on every row: neither changes the
program, whose weights on closed patterns stay zero. Of stored rows the last is repeated, on which
all patterns are closed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.operators import PairedOperator
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.arrays import Array
from cvxnn.numerics.stored_rows import is_stored

_N_PATTERNS_STEP = 8


def bucket(n: int) -> int:
    """Round a number of rows up, by at most a sixteenth beyond 128 rows."""
    step = max(8, 2 ** (max(n, 1).bit_length() - 5))
    return -(-n // step) * step


def pad(program: ConvexProgram, n_rows: int) -> ConvexProgram:
    """Give an equal program of so many rows, and a rounded number of patterns, on the host."""
    op = program.operator
    P = op.n_patterns
    rows = n_rows - op.n_rows
    columns = -P % _N_PATTERNS_STEP
    weight = program.sample_weight
    if weight is None:
        weight = np.ones(op.n_rows, op.X.dtype)
    mask = np.asarray(op.mask)
    at = P - op.linear  # the linear part stays the last
    mask = np.insert(mask, [at] * columns, False, axis=1)
    if isinstance(op, PairedOperator):  # of the first row with itself
        op = replace(op, mask=mask, pairs=_rows(op.pairs, rows))
    else:
        op = replace(op, X=_rows(op.X, rows), mask=_rows(mask, rows))
    return replace(
        program,
        operator=op,
        y=_targets(program, rows),
        sample_weight=_rows(weight, rows),
    )


def pad_weights(program: ConvexProgram, weights: Any) -> Any:
    """Return the weights of a program as weights of the padded program."""
    P = program.operator.n_patterns
    at = P - program.operator.linear
    return np.insert(np.asarray(weights), [at] * (-P % _N_PATTERNS_STEP), 0, axis=2)


def pad_dual(program: ConvexProgram, dual: DualPoint | None, n_rows: int) -> DualPoint | None:
    """Return a dual point of a program as one of the program padded to so many rows."""
    if dual is None:
        return None
    P = program.operator.n_patterns
    rows = n_rows - program.operator.n_rows
    at = P - program.operator.linear
    multipliers = dual.multipliers
    if multipliers is not None:
        multipliers = np.insert(multipliers, [at] * (-P % _N_PATTERNS_STEP), 0, axis=3)
        multipliers = _rows(multipliers, rows)
    return DualPoint(_rows(dual.residual, rows), multipliers)


def unpad_weights(program: ConvexProgram, weights: Any) -> Any:
    """Return the weights of a padded program as weights of the program."""
    return weights[:, :, _kept_patterns(program)]


def unpad_dual(program: ConvexProgram, dual: DualPoint | None) -> DualPoint | None:
    """Return a dual point of a padded program as one of the program."""
    if dual is None:
        return None
    n = program.y.shape[0]
    multipliers = dual.multipliers
    if multipliers is not None:
        multipliers = multipliers[:n][..., _kept_patterns(program)]
    return DualPoint(dual.residual[:n], multipliers)


def _kept_patterns(program: ConvexProgram) -> Any:
    P = program.operator.n_patterns
    padded = P + -P % _N_PATTERNS_STEP
    if not program.operator.linear:
        return slice(P)
    return np.r_[np.arange(P - 1), padded - 1]


def _rows(array: Any, n_rows: int) -> Any:
    if is_stored(array):  # any row will do, since no pattern is open there
        return array.take(np.minimum(np.arange(len(array) + n_rows), len(array) - 1))
    array = np.asarray(array)
    if n_rows == 0:
        return array
    return np.pad(array, ((0, n_rows), *([(0, 0)] * (array.ndim - 1))))


def _targets(program: ConvexProgram, n_rows: int) -> Array:
    """Repeat the first target: zero would lie outside what a logistic loss knows."""
    y = np.asarray(program.y)
    return np.concatenate([y, np.repeat(y[:1], n_rows, axis=0)])
