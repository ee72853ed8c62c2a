"""Rows of an estimator: brought to the host, checked, weighted and merged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cvxnn.estimators._missing_values import refuse_missing_values
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.stored_rows import is_stored

# Precisions in which estimators compute; other numbers become float64.
FLOATS = (np.float64, np.float32)

# Units of a class from which on log-odds stand as they were fitted.
FEW_UNITS = 10

# Larger weights are not counts: no data set has so many equal rows.
_MOST_COUNT = 1e9
# Bytes of a block of rows that is copied at a time.
_BLOCK = 2**20

# numpy array or scipy CSR matrix, shape (n_samples, n_features)
Rows = Any


def select(X: Rows, kept: NDArray[np.bool_]) -> Rows:
    """Return the rows that are kept; of stored rows, nothing is read."""
    return X.take(np.flatnonzero(kept)) if is_stored(X) else X[kept]


def to_host(array: Any, name: str = "the array") -> Any:
    """Bring a JAX or PyTorch array, or any other that speaks DLPack, to NumPy; leave the rest.

    Masked entries, whose numbers NumPy would use as if they were data, are refused.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ValueError(
            f"{name} is a masked array, {np.ma.count_masked(array)} of its {array.size} entries "
            "have no value; leave their rows out, or fill them in."
        )
    if isinstance(array, np.ndarray) or is_sparse(array) or is_stored(array):
        return array
    if hasattr(array, "detach") and hasattr(array, "cpu"):  # PyTorch, perhaps with a gradient
        array = array.detach().cpu()
        if str(array.dtype) in ("torch.bfloat16", "torch.float16"):
            array = array.float()
        return array.numpy()
    if hasattr(array, "__array__") or not hasattr(array, "__dlpack__"):
        return array
    return np.from_dlpack(array)


def canonical(X: Rows) -> Rows:
    """Return sparse rows in the one form that their values have; dense rows as they are.

    Indices are sorted, distinct and 32 bits wide where these suffice, and no zero is stored: equal
    rows then have equal bytes. The given matrix stays as it is, and is returned if it has the form.
    """
    if not is_sparse(X):
        return X
    kept = X.has_canonical_format and np.count_nonzero(X.data) == len(X.data)
    index = sparse.get_index_dtype(maxval=max(*X.shape, len(X.data)))
    if kept and X.indices.dtype == X.indptr.dtype == index:
        return X
    X = X.copy()
    X.sum_duplicates()
    X.eliminate_zeros()
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    return X


@contextmanager
def numbers_only(name: str) -> Iterator[None]:
    """Say what to do about text in an array of numbers."""
    try:
        yield
    except ValueError as error:
        if "could not convert string to float" not in str(error):
            raise
        remedies = {
            "X": "encode categories in a pipeline, for example by "
            "sklearn.preprocessing.OneHotEncoder, and whole texts by cvxnn.Embedder.",
            "y": "for labels use ConvexReLUClassifier.",
        }
        raise ValueError(f"{error}. Expected numbers in {name}: {remedies[name]}") from error


def columns(y: NDArray[Any], dtype: Any) -> NDArray[np.floating]:
    """Return targets as columns; ``Scaling`` refuses what does not fit float32."""
    if y.dtype.kind in "mM":
        raise ValueError(
            f"y holds {y.dtype}; expected numbers: subtract a date, and divide by a unit of time."
        )
    with np.errstate(over="ignore"), numbers_only("y"):
        return np.asarray(y, dtype).reshape(len(y), -1)


def weights_of(
    sample_weight: Any, n_samples: int, dtype: np.dtype, name: str = "sample_weight"
) -> NDArray[np.floating]:
    """Check sample weights and return them; ones where there are none."""
    if sample_weight is None:
        return np.ones(n_samples, dtype)
    given = np.asarray(to_host(sample_weight, name))
    try:
        if given.dtype.kind not in "biufOSU":
            raise TypeError
        given = given.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} holds {given.dtype}, {given.ravel()[:1].tolist()[0]!r} for instance; expected "
            "real numbers, one for each row."
        ) from None
    if given.shape != (n_samples,):
        raise ValueError(
            f"{name} has shape {given.shape}; expected ({n_samples},), one for each row."
        )
    if not np.all(np.isfinite(given)) or np.any(given < 0) or not np.any(given > 0):
        raise ValueError(f"{name} must be finite and non-negative, and not zero everywhere.")
    with np.errstate(over="ignore"):
        weight = given.astype(dtype)
    require_range(weight, name)
    # As a share of all, less is 0 by rounding, and so is its root as a factor of rows.
    least = np.finfo(dtype).tiny / np.finfo(dtype).eps * weight.max()
    return np.where(weight < least, dtype.type(0), weight)


def require_range(weight: NDArray[np.floating], name: str) -> None:
    """Refuse weights whose sum the dtype cannot hold; ``name`` says where they come from."""
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not 0 < total < np.inf:
        raise ValueError(
            f"{name}: the weights of the rows are beyond the range of {weight.dtype}, with a sum "
            f"of {total}; only their ratios count, so divide them by the largest."
        )


class DistinctRows(NamedTuple):
    """Rows of which no two are equal.

    Attributes
    ----------
    X : ndarray or CSR matrix, shape (n_rows, n_features)
        Data.
    y : ndarray, shape (n_rows, n_outputs)
        Targets.
    weight : ndarray, shape (n_rows,)
        Positive weights.
    units : ndarray, shape (n_rows,)
        Units of data that each row consists of, at least 1: what a choice by leaving out leaves
        out.
    groups : ndarray of int, shape (n_rows,), or None
        Groups that such a choice leaves out as wholes, if there are any.
    place : ndarray of int, shape (n_samples,)
        The distinct row that each given row became; -1 of one that is not among them.
    """

    X: Rows
    y: NDArray[np.floating]
    weight: NDArray[np.floating]
    units: NDArray[np.floating]
    groups: NDArray[np.intp] | None
    place: NDArray[np.intp]

    @property
    def several_units(self) -> NDArray[np.floating] | None:
        """Units of each row; None where each is one."""
        return None if np.all(self.units == 1) else self.units

    def take(self, rows: NDArray[np.intp]) -> DistinctRows:
        """Return some of the rows, or these themselves where all stay in their order."""
        if np.array_equal(rows, np.arange(len(self.y))):
            return self
        groups = None if self.groups is None else self.groups[rows]
        new = np.full(len(self.y) + 1, -1)  # the last is what -1 leads to
        new[rows] = np.arange(len(rows))
        X, y, weight, units = (part[rows] for part in (self.X, self.y, self.weight, self.units))
        return DistinctRows(X, y, weight, units, groups, new[self.place])


def merge(
    X: Rows,
    y: NDArray[np.floating],
    weight: NDArray[np.floating],
    groups: NDArray[np.intp] | None = None,
) -> DistinctRows:
    """Return distinct rows of positive weight, in a fixed order, with their weights added up.

    Whatever is fitted to them depends neither on the order of the rows nor on whether a row is
    repeated or has an integer weight, to the last bit. Weights of classes come after: products,
    unlike sums of integers, are rounded.

    Parameters
    ----------
    X : ndarray or CSR matrix, shape (n_samples, n_features)
        Data.
    y : ndarray, shape (n_samples, n_outputs)
        Targets.
    weight : ndarray, shape (n_samples,)
        Non-negative weights.
    groups : ndarray of int, shape (n_samples,), optional
        Group of each row; equal rows of two groups stay two.

    Returns
    -------
    DistinctRows
        Rows with all that belongs to them.
    """
    kept = weight > 0
    place = np.full(len(weight), -1)
    if not kept.all():
        X, y, weight = X[kept], y[kept], weight[kept]
    key = y
    if groups is not None:
        # Numbers of their own: a group without weight must not change the order of the rows.
        groups = np.unique(groups[kept], return_inverse=True)[1]
        key = np.column_stack([y, groups])
    first, inverse = _distinct(_keys(X, key, by_size=True))
    order = np.lexsort((weight, inverse))  # a sum depends on the order of its terms
    total = np.bincount(inverse[order], weights=weight[order].astype(np.float64))
    units = np.bincount(inverse, weights=units_of(weight)).astype(np.float64)
    place[kept] = inverse
    distinct_groups = None if groups is None else groups[first]
    return DistinctRows(
        X[first], y[first], total.astype(weight.dtype), units, distinct_groups, place
    )


def units_of(sample_weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the units of data in each row.

    Weights that are all whole numbers are counts, as scikit-learn has them: a row of weight 3 is
    three rows. All other weights say how much a row matters, and each row is one unit.
    """
    counts = np.all(sample_weight == np.rint(sample_weight)) and sample_weight.max() <= _MOST_COUNT
    return sample_weight.astype(np.float64) if counts else np.ones(len(sample_weight))


def has_few_units(
    codes: NDArray[np.intp], units: NDArray[np.floating], groups: NDArray[np.intp] | None
) -> bool:
    """Return whether a class has fewer units of data, or groups of them, than log-odds need."""
    if groups is None:
        counts = np.bincount(codes, units)
    else:
        pairs = np.column_stack([codes, groups])[units > 0]
        counts = np.bincount(np.unique(pairs, axis=0)[:, 0])
    return bool(counts[counts > 0].min() < FEW_UNITS)


def groups_of(groups: Any, n_samples: int) -> NDArray[np.intp] | None:
    """Check group labels and return their numbers; None where there are none."""
    if groups is None:
        return None
    distinct, numbers = labels_of(groups, n_samples, "groups")
    if len(distinct) < 2:
        raise ValueError(
            f"groups holds one group only, {distinct.tolist()[0]!r}: leaving it out leaves nothing "
            "to learn from; give groups=None, or labels that differ."
        )
    return numbers


def labels_of(given: Any, n_samples: int, name: str) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Check labels of rows and return the distinct ones, sorted, and the number of each row's."""
    labels = np.asarray(to_host(given, name))
    if labels.shape == (n_samples, 1):  # a column of a table
        labels = labels[:, 0]
    if labels.shape != (n_samples,):
        raise ValueError(
            f"{name} has shape {labels.shape}; expected ({n_samples},), one label for each row."
        )
    refuse_missing_values(labels, name)
    try:
        distinct, numbers = np.unique(labels, return_inverse=True)
    except TypeError:
        kinds = sorted({type(label).__name__ for label in labels})
        raise ValueError(
            f"{name} holds labels of kinds that have no common order, {' and '.join(kinds)}; make "
            "all of them strings, or numbers."
        ) from None
    return distinct, numbers


def row_codes(X: Rows, y: NDArray[Any]) -> NDArray[np.intp]:
    """Return a number for each row of data and targets, the same for equal rows only.

    Their order follows from the rows, not from that in which they come.
    """
    if is_stored(X) and not y.size:
        return X.codes()
    return _distinct(_keys(X, y))[1]


def _distinct(keys: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where each distinct key is first, in their order, and the number of each key's.

    The keys are not copied in their order, as ``np.unique`` does.
    """
    order = keys.argsort(kind="stable")
    new = np.ones(len(keys), bool)
    for rows in _blocks(len(keys) - 1, keys.itemsize):
        earlier, later = order[:-1][rows], order[1:][rows]
        new[1:][rows] = keys[later] != keys[earlier]
    inverse = np.empty(len(keys), np.intp)
    inverse[order] = np.cumsum(new) - 1
    return order[new], inverse


def _blocks(n_rows: int, width: int) -> Iterator[slice]:
    """Divide rows of so many bytes into blocks of about 1 MiB."""
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, n_rows, step):
        yield slice(start, start + step)


def _keys(X: Rows, y: NDArray[np.floating], *, by_size: bool = False) -> NDArray[Any]:
    """Return one opaque byte string for each row of data and targets.

    Those ``by_size`` are in the order of the first numbers that differ, but for signs: neither
    units nor rounding, where no two numbers are so near, change the order of the rows.
    """
    if is_sparse(X):
        X, y = canonical(X), _plain(y, by_size=by_size)
        ends = X.indptr
        indices, data = (_plain(part, by_size=by_size) for part in (X.indices, X.data))
        keys = [
            indices[a:b].tobytes() + data[a:b].tobytes() + t.tobytes()
            for a, b, t in zip(ends[:-1], ends[1:], y, strict=True)
        ]
        return np.array(keys, dtype=object)
    widths = [part.shape[1] * part.dtype.itemsize for part in (X, y)]
    joined = np.empty((len(y), sum(widths)), np.uint8)
    for rows in _blocks(*joined.shape):
        for part, place in zip((X, y), np.split(joined[rows], widths[:1], axis=1), strict=True):
            place[:] = _plain(part[rows], by_size=by_size).view(np.uint8)
    return joined.view(np.dtype((np.void, joined.shape[1]))).ravel()


def _plain(numbers: NDArray[Any], *, by_size: bool) -> NDArray[Any]:
    """Return contiguous numbers without negative zeros, most significant bytes first if asked."""
    if numbers.dtype.kind == "f":
        numbers = numbers + 0.0
    dtype = numbers.dtype.newbyteorder(">") if by_size else numbers.dtype
    return np.ascontiguousarray(numbers, dtype)
