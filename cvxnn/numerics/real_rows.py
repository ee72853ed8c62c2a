"""Rows as they are given to a network, checked with NumPy alone, since predictions need no more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def real_rows(X: Any, width: int) -> NDArray[np.floating]:
    """Return rows as an array of float32 or float64.

    Parameters
    ----------
    X : array-like, shape (n_samples, width)
        Dense rows of finite real numbers.
    width : int
        Number of features.

    Raises
    ------
    TypeError
        If the rows are sparse; make them dense.
    ValueError
        If they are no real numbers, have another shape, or lack entries.
    """
    if hasattr(X, "toarray"):
        raise TypeError(f"X is sparse ({type(X).__name__}); pass X.toarray().")
    if np.ma.is_masked(X):
        raise ValueError("X has masked entries; fill them in, or leave out these rows.")
    rows = np.asarray(X)
    if rows.dtype not in (np.float32, np.float64):
        if rows.dtype.kind in "cmMSU":
            raise ValueError(f"X holds {rows.dtype}; expected real numbers.")
        try:
            rows = rows.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"X holds something else than real numbers: {error}.") from error
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(
            f"X has shape {rows.shape}; expected (n_samples, {width}), the width of the network; "
            "pass a single row as X[None]."
        )
    if not np.isfinite(rows).all():
        raise ValueError("X holds NaN or infinity; fill in or leave out these rows.")
    return rows
