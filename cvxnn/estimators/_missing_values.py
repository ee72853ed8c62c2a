"""Missing and infinite numbers: refused, with their places and what to do about them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from cvxnn.numerics.arrays import is_sparse


def checked_data(estimator: Any, X: Any, *rest: Any, **options: Any) -> Any:
    """Return what scikit-learn's ``validate_data`` does, but name the places of missing numbers.

    Its message names neither these nor the estimator's own remedy, and recommends others.
    """
    try:
        return validate_data(estimator, X, *rest, **options)
    except ValueError as error:
        text = str(error).splitlines()[0].rstrip(".")
        if not text.startswith("Input X contains"):
            raise
        where = _where(X, np.isnan if "NaN" in text else np.isinf)
        if not where:
            raise
        remedy = "Fill them in, for instance by X.clip(-limit, limit), or leave their rows out."
        if hasattr(estimator, "fit_pairs"):  # embeddings: nothing can be filled in
            remedy = "Leave their rows out; if these are embeddings, make them again."
        elif "NaN" in text:
            own = f"make_pipeline(SimpleImputer(), {type(estimator).__name__}(...))"
            remedy = f"Fill them in, for instance by {own}, or leave their rows out."
        raise ValueError(f"{text}: {where}. {remedy}") from None


def _where(X: Any, wrong: Any) -> str:
    """Return the columns with wrong numbers, of a table or an array; nothing of other rows."""
    names = getattr(X, "columns", None)
    names = None if names is None else list(names)
    if is_sparse(X):
        entries = X.tocoo()
        found = wrong(entries.data)
        rows, places = entries.row[found], entries.col[found]
    else:
        try:
            found = wrong(np.asarray(X.to_numpy(dtype=float) if names else X, dtype=float))
        except (AttributeError, TypeError, ValueError):
            return ""
        rows, places = np.nonzero(found) if found.ndim == 2 else ((), ())
    if not len(rows):
        return ""
    counts, first = np.bincount(places), min(rows)
    columns = np.flatnonzero(counts)
    shown = [f"{counts[j]} in column {repr(names[j]) if names else j}" for j in columns[:5]]
    more = f", {counts[columns[5:]].sum()} in {len(columns) - 5} more" if len(columns) > 5 else ""
    return f"{', '.join(shown)}{more}, the first in row {first}"


def refuse_missing(y: Any) -> None:
    """Refuse targets that are sparse, or objects some of which are None, NaN or ``pandas.NA``."""
    if is_sparse(y):
        raise TypeError(
            "Sparse data was passed for y, but dense data is required; pass y.toarray()."
        )
    values = np.asarray(y)
    if y is not None and values.dtype == object:  # scikit-learn checks numbers
        refuse_missing_values(values, "y")


def refuse_missing_values(values: NDArray[Any], name: str) -> None:
    if values.dtype == object:
        absent = np.array([_is_missing(value) for value in values.ravel()], bool)
    else:
        absent = (values != values).ravel()  # NaN and NaT are not what they are
    missing = np.flatnonzero(absent)
    if len(missing):
        raise ValueError(
            f"{name} has no value in {len(missing)} of {values.size} places (the first is row "
            f"{missing[0] // max(values[:1].size, 1)}); leave these rows out, or fill them in."
        )


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):  # neither true nor false, as pandas.NA; or an array
        return np.ndim(value) == 0
