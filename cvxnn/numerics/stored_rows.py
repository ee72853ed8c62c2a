"""Rows of a matrix that stay on the disk and are read a block at a time."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy as shallow
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cvxnn.files.digests import digest

# Numbers in a block: 16 MiB in float32.
_BLOCK_NUMBERS = 2**22
Key = TypeVar("Key", bound="slice | NDArray[np.intp]")

# Kinds of numbers: truth values, integers, floats, and what ml_dtypes adds to them (bfloat16).
_KINDS = "biufV"

# Bytes of a row that decide its place among others, before its digest does.
_PREFIX, _DIGEST = 32, 32


class StoredRows:
    """Rows of a matrix that stay on the disk and are read a block at a time.

    An index of rows reads them, as an array. An index of columns, as in ``rows[:, :8]``,
    :meth:`take`, :meth:`scaled` and :meth:`astype` read nothing and give stored rows again.
    Products are computed block by block. ``numpy.asarray`` reads everything.

    Parameters
    ----------
    source : array of floats, shape (n_rows, n_columns)
        Usually a ``numpy.memmap``. Numbers of 16 bits (float16, bfloat16) are computed with in
        float32.

    Attributes
    ----------
    shape : tuple of int
        Numbers of rows and columns.
    dtype : numpy.dtype
        Precision of what is read: float32 or float64.

    Raises
    ------
    TypeError
        If the source is no array of real numbers.
    ValueError
        If the source has not two axes.
    """

    __array_ufunc__ = None  # NumPy leaves ``array @ rows`` to this class

    def __init__(self, source: Any) -> None:
        if not hasattr(source, "dtype"):
            raise TypeError(
                f"source is a {type(source).__name__}; expected an array, such as "
                'numpy.load(path, mmap_mode="r") or what cvxnn.features.read_features returns.'
            )
        if np.ndim(source) != 2:
            raise ValueError(f"source has {np.ndim(source)} axes; expected rows and columns.")
        if np.dtype(source.dtype).kind not in _KINDS:
            raise TypeError(f"source holds {source.dtype}; expected numbers that are real.")
        self._sources: tuple[Any, ...] = (source,)
        self._index: NDArray[np.intp] = np.arange(source.shape[0])
        self._columns = np.arange(source.shape[1])
        self._mean: Any = None
        self._scale: Any = None
        self._finite = False  # as far as is known
        self._computed = np.dtype(np.float64 if source.dtype == np.float64 else np.float32)
        self.dtype = self._computed

    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self._index), len(self._columns)

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._index)

    def __getitem__(self, key: Any) -> Any:
        """Read rows, as an array; or give stored rows of some columns, all of their rows."""
        if not isinstance(key, tuple):
            return self._read(self._index[key])
        rows, columns = key
        if rows != slice(None):
            return self[rows][..., columns]
        part = shallow(self)
        part._columns = self._columns[columns]
        if self._mean is not None:
            part._mean, part._scale = self._mean[columns], self._scale[columns]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read everything."""
        if copy is False:
            raise ValueError("stored rows have to be read, which makes a copy.")
        out = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for rows, block in read_ahead(self, self.blocks()):
            out[rows] = block
        return out

    # Views, for which nothing is read ------------------------------------------------------

    def take(self, rows: NDArray[np.intp]) -> Self:
        """Return some of the rows.

        Parameters
        ----------
        rows : ndarray of int
            Their numbers.
        """
        part = shallow(self)
        part._index = self._index[rows]
        return part

    def scaled(self, mean: NDArray[np.floating], scale: NDArray[np.floating]) -> Self:
        """Return the rows minus ``mean``, divided by ``scale``; they must not be scaled yet.

        Parameters
        ----------
        mean, scale : ndarray, shape (n_columns,)
            Of each column, in the precision of the rows.
        """
        assert self._mean is None
        part = shallow(self)
        part._mean, part._scale = mean, scale
        return part

    def astype(self, dtype: Any, copy: bool = False) -> Self:
        """Return the rows in another precision, to which they are rounded when they are read.

        Parameters
        ----------
        dtype : dtype
            The precision.
        copy : bool, default=False
            For NumPy's sake; nothing is ever copied.
        """
        part = shallow(self)
        part.dtype = np.dtype(dtype)
        return part

    @classmethod
    def stacked(cls, parts: Sequence[Self]) -> Self:
        """Return rows of several, one below the other; of equal columns, and not scaled.

        Parameters
        ----------
        parts : sequence of StoredRows
            At least one.
        """
        first = parts[0]
        whole = shallow(first)
        whole._sources = sum((part._sources for part in parts), ())
        before, index = 0, []
        for part in parts:
            assert part._mean is None
            assert np.array_equal(part._columns, first._columns)
            index.append(part._index + before)
            before += sum(len(source) for source in part._sources)
        whole._index = np.concatenate(index)
        whole._finite = all(part._finite for part in parts)
        whole._computed = np.result_type(*(part._computed for part in parts))
        whole.dtype = np.result_type(*(part.dtype for part in parts))
        return whole

    # What needs all rows, a block at a time ------------------------------------------------

    def blocks(self, width: int = 0) -> Iterator[slice]:
        """Yield slices of rows whose numbers fit into a block.

        Parameters
        ----------
        width : int, default=0
            Numbers that are computed of each row, where they are more than the columns.
        """
        step = max(_BLOCK_NUMBERS // max(self.shape[1], width, 1), 1)
        for first in range(0, len(self), step):
            yield slice(first, min(first + step, len(self)))

    def __matmul__(self, right: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the product with a matrix or vector."""
        shape = (len(self), *right.shape[1:])
        out = np.empty(shape, np.result_type(self.dtype, right.dtype))
        for rows, block in read_ahead(self, self.blocks()):
            out[rows] = block @ right
        return out

    def __rmatmul__(self, left: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the product of a matrix or vector with the rows."""
        shape = (*left.shape[:-1], self.shape[1])
        out = np.zeros(shape, np.result_type(self.dtype, left.dtype))
        for rows, block in read_ahead(self, self.blocks()):
            out += left[..., rows] @ block
        return out

    def is_finite(self) -> bool:
        """Return whether all numbers are finite; of views of rows that are, nothing is read."""
        if not self._finite:
            self._finite = all(
                np.isfinite(block).all() for _, block in read_ahead(self, self.blocks())
            )
        return self._finite

    def codes(self) -> NDArray[np.intp]:
        """Return a number for each row, the same for equal rows only.

        Their order is that of the first 32 bytes of the rows, then of digests of all bytes.
        """
        code = _codes_of(self._starts())
        alike = np.flatnonzero(np.bincount(code)[code] > 1)
        if len(alike):  # rows that are given several times, as a rule
            rank = np.zeros(len(self), np.intp)
            rank[alike] = _codes_of(self.take(alike)._digests())
            code = np.unique(code * len(self) + rank, return_inverse=True)[1]
        return code

    def _starts(self) -> NDArray[np.uint8]:
        """Return the first bytes of each row, for which little is read."""
        first = self[:, : -(-_PREFIX // self.dtype.itemsize)]
        out = np.zeros((len(self), _PREFIX), np.uint8)
        for rows, block in read_ahead(first, self.blocks()):
            content = _bytes_of(block)
            out[rows, : content.shape[1]] = content
        return out

    def _digests(self) -> NDArray[np.uint8]:
        """Return the digest of each row."""
        out = np.empty((len(self), _DIGEST), np.uint8)
        for rows, block in read_ahead(self, self.blocks()):
            for place, row in zip(out[rows], _bytes_of(block), strict=True):
                place[:] = np.frombuffer(digest(row.tobytes(), digits=_DIGEST).encode(), np.uint8)
        return out

    def _read(self, index: Any) -> NDArray[np.floating]:
        if np.ndim(index) == 0:
            return self._read(np.array([index]))[0]
        d = self._sources[0].shape[1]
        all_columns = len(self._columns) == d and bool((np.diff(self._columns) == 1).all())
        out = np.empty((len(index), len(self._columns)), self._computed)
        before = 0
        for source in self._sources:
            here = (index >= before) & (index < before + len(source))
            own = index[here] - before
            before += len(source)
            if not len(own):
                continue
            whole_run = own[-1] - own[0] + 1 == len(own) and bool((np.diff(own) == 1).all())
            rows = source[own[0] : own[-1] + 1] if whole_run else source[own]
            out[slice(None) if len(own) == len(index) else here] = (
                rows if all_columns else rows[:, self._columns]
            )
            _forget(source)
        if self._mean is not None:
            out -= self._mean
            out /= self._scale
        return out.astype(self.dtype, copy=False)


def _bytes_of(block: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the bytes of each row, in which -0 is 0."""
    return (np.ascontiguousarray(block) + block.dtype.type(0)).view(np.uint8)


def _codes_of(keys: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the place of each row of bytes among the distinct ones."""
    whole = keys.view(np.dtype((np.void, keys.shape[1]))).ravel()
    return np.unique(whole, return_inverse=True)[1]


def is_stored(array: Any) -> bool:
    """Return True for rows that stay on the disk."""
    return isinstance(array, StoredRows)


def read_ahead(X: Any, parts: Iterable[Key]) -> Iterator[tuple[Key, Any]]:
    """Yield parts of the rows with their numbers; of stored rows, the next are read meanwhile.

    Parameters
    ----------
    X : array, sparse array or StoredRows
        Rows.
    parts : iterable of slice or ndarray of int
        Numbers of the rows of each part.
    """
    if not is_stored(X):
        for rows in parts:
            yield rows, X[rows]
        return
    with ThreadPoolExecutor(1) as reader:
        waiting: tuple[Key, Future[Any]] | None = None
        for rows in parts:
            coming = rows, reader.submit(X.__getitem__, rows)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def _forget(source: Any) -> None:
    """Let go of pages that were read: the system's cache keeps them, this process need not."""
    mapped = getattr(source, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
