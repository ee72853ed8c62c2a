"""Factorisations of symmetric matrices, one for each strength."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads

Floats = NDArray[np.floating]


@contextmanager
def rounding_named() -> Iterator[None]:
    """Say in plain words, within a scope, why a matrix plus a strength has no Cholesky factor."""
    try:
        yield
    except LinAlgError as error:
        raise LinAlgError(
            "the strength is below the rounding of the products of rows, whose matrix therefore "
            "cannot be factored; fit with a larger strength, or with standardize=True where the "
            "scales of features differ."
        ) from error


def shifted_inverse(
    matrix: Floats, alpha: float | Floats, *, overwrite: bool = False
) -> Callable[[Floats], Floats]:
    """Return the inverse of a matrix plus ``alpha`` as a function, in the matrix's dtype.

    ``alpha`` may have a value for each entry of the diagonal.

    Raises
    ------
    scipy.linalg.LinAlgError
        If ``alpha`` is below the rounding of the matrix.
    """
    shifted = matrix if overwrite else matrix.copy()
    shifted[np.diag_indices(len(shifted))] += np.asarray(alpha, shifted.dtype)
    with limit_threads(len(shifted) ** 3 / 3, SHARED_FACTOR), rounding_named():
        factor = cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
    return lambda r: cho_solve(factor, r.astype(shifted.dtype, copy=False), check_finite=False)


def by_strength(
    alpha: float | Floats, columns: Floats, solve: Callable[[float, Floats], Floats]
) -> Floats:
    """Return what ``solve`` makes of the columns of each strength, one strength after another."""
    alphas = np.broadcast_to(alpha, columns.shape[1])
    out = np.empty_like(columns)
    for value in np.unique(alphas):
        out[:, alphas == value] = solve(float(value), columns[:, alphas == value])
    return out
