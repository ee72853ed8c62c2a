"""Where gates are open; NumPy only, since predictions need no more.

A gate is one vector, open where the product with the row is not negative, or a conjunction of
several, open where all their products are not negative. Arrays of gates have shape
``(n_gates, n_features)``, or ``(n_gates, n_vectors, n_features)`` of conjunctions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# Scores at a time, which the cache of a core should hold, and rows of a block that is worth a call.
_CACHED_NUMBERS, _LEAST_ROWS = 2**18, 64


def open_where(X: Any, gates: Floats, offsets: Floats | None = None) -> NDArray[np.bool_]:
    """Return which gates are open on which rows.

    Parameters
    ----------
    X : ndarray or sparse array, shape (n_samples, n_features)
        Rows.
    gates : ndarray, shape (n_gates, n_features) or (n_gates, n_vectors, n_features)
        Gate vectors.
    offsets : ndarray, shape (n_gates,) or (n_gates, n_vectors), optional
        What is added to their products; nothing by default.

    Returns
    -------
    ndarray of bool, shape (n_samples, n_gates)
        True where all vectors of a gate are open.
    """
    if gates.ndim == 3:
        is_open = open_where(X, gates[:, 0], None if offsets is None else offsets[:, 0])
        for k in range(1, gates.shape[1]):
            is_open &= open_where(X, gates[:, k], None if offsets is None else offsets[:, k])
        return is_open
    mask = np.empty((X.shape[0], len(gates)), bool)
    step = max(_CACHED_NUMBERS // max(len(gates), 1), _LEAST_ROWS)
    for first in range(0, len(mask), step):
        rows = slice(first, first + step)
        scores = np.asarray(X[rows] @ gates.T)
        np.greater_equal(scores if offsets is None else scores + offsets, 0, out=mask[rows])
    return mask


def stacked_gates(some: Floats, others: Floats) -> Floats:
    """Return two arrays of gates as one; shorter conjunctions repeat their first vector."""
    if some.ndim == others.ndim == 2:
        return np.concatenate([some, others])
    some, others = (gates[:, None] if gates.ndim == 2 else gates for gates in (some, others))
    most = max(some.shape[1], others.shape[1])
    return np.concatenate([_of_length(some, most), _of_length(others, most)])


def _of_length(gates: Floats, n_vectors: int) -> Floats:
    again = np.repeat(gates[:, :1], n_vectors - gates.shape[1], axis=1)
    return np.concatenate([gates, again], axis=1)
