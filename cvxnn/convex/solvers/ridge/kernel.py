"""The kernel of a ridge program: in memory, or as products with the data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.solvers.ridge.data import RidgeData, row_blocks
from cvxnn.convex.solvers.ridge.factors import Floats
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.stored_rows import is_stored, read_ahead
from cvxnn.numerics.threads import limits_threads

# Gaps down to which products in float32 are good enough.
COARSE = 1e-4
# Side of the tiles of a kernel, each computed and masked in cache.
_TILE = 768


class Kernel(NamedTuple):
    """The kernel ``A A^T`` of the gates of a program: in memory, or as products with the data.

    Attributes
    ----------
    data : RidgeData
        The weighted data ``A``.
    matrix : ndarray, shape (n_samples, n_samples), or None
        The kernel itself; None where it takes too much memory, or is not worth its price.
    rows : RidgeData or None
        The data in the precision of products without the matrix; None for ``data``.
    """

    data: RidgeData
    matrix: Any = None
    rows: RidgeData | None = None

    @classmethod
    def stored(cls, data: RidgeData, dtype: Any = np.float64) -> Kernel:
        """Compute the kernel in ``dtype`` and keep it."""
        return cls(data, cls.between(data, data, dtype))

    @staticmethod
    @limits_threads(lambda data, other, *_: _product_flops(data, other.n_rows))
    def between(data: RidgeData, other: RidgeData, dtype: Any = np.float64) -> Floats:
        """Return the kernel of the rows of ``data`` and those of ``other``, block by block.

        Of the data with themselves only one half is computed, and mirrored. A linear part is left
        out.
        """
        if data.ridge is not None:
            gates = data.gates
            return Kernel.between(gates, gates if other is data else other.gates, dtype)
        plain = (
            data.pairs is None
            and other.pairs is None
            and not (is_sparse(data.X) or is_sparse(other.X))
        )
        return (_by_tiles if plain else _by_rows)(data, other, dtype)

    def product(self, u: Floats, alpha: float | Floats = 0.0) -> Floats:
        """Return the kernel times columns, (n_samples, n_columns), in their dtype.

        That of a linear part at the strengths ``alpha`` of the columns is added.
        """
        data = self.data
        if self.matrix is None:
            rows = self.rows or data
            blocks = rows.blocks_of(u.astype(rows.root.dtype, copy=False), alpha)
            return (rows.root * rows.forward(blocks)).astype(u.dtype, copy=False)
        # A few rows times the symmetric matrix, which BLAS does faster than it times few columns.
        out = np.ascontiguousarray((u.T.astype(self.matrix.dtype) @ self.matrix).T, u.dtype)
        return (
            out if data.ridge is None else out + Kernel(data.linear).product(alpha / data.ridge * u)
        )


@limits_threads(lambda data, U, X, mask, *_: _product_flops(data, len(mask)))
def predict(
    data: RidgeData, U: Floats, X: Any, mask: NDArray[np.bool_], dtype: Any = np.float64
) -> Floats:
    """Return predictions of new rows for columns ``U`` of dual unknowns."""
    columns, root = mask.astype(np.float32), np.ones((len(mask), 1))
    out = np.empty((len(mask), U.shape[1]), U.dtype)
    for rows in row_blocks(len(mask), data.n_rows):
        new = replace(data, X=X[rows], columns=columns[rows], root=root[rows], pairs=None)
        out[rows] = Kernel.between(new, data, dtype) @ U.astype(dtype)
    return out


def _product_flops(data: RidgeData, n_rows: int) -> float:
    """Return the operations of the larger product in a kernel of the data and other rows."""
    return 2.0 * n_rows * data.n_rows * max(data.X.shape[1], data.n_patterns)


def _by_tiles(data: RidgeData, other: RidgeData, dtype: Any) -> Floats:
    X, X_other = (
        part.root.astype(dtype, copy=False) * part.X.astype(dtype, copy=False)
        for part in (data, other)
    )
    if other is data:
        X_other = X  # BLAS computes one half of a product with itdata
    # Numbers of gates are exact in float32.
    D, D_other = data.columns, other.columns
    K = np.empty((len(X), len(X_other)), dtype)
    left, right = np.empty(_TILE**2, dtype), np.empty(_TILE**2, D.dtype)
    for i in range(0, len(X), _TILE):
        rows = slice(i, min(i + _TILE, len(X)))
        for j in range(0, i + 1 if other is data else len(X_other), _TILE):
            columns = slice(j, min(j + _TILE, len(X_other)))
            shape = rows.stop - i, columns.stop - j
            tile, gates = (a[: shape[0] * shape[1]].reshape(shape) for a in (left, right))
            np.matmul(X[rows], X_other[columns].T, out=tile)
            tile *= np.matmul(D[rows], D_other[columns].T, out=gates)
            K[rows, columns] = tile
            if other is data and j < i:
                K[columns, rows] = tile.T
    return K


def _by_rows(data: RidgeData, other: RidgeData, dtype: Any) -> Floats:
    X, D = data.X.astype(dtype, copy=False), data.columns.astype(dtype, copy=False)
    # Stored rows of a kernel that fits into memory do so too.
    X_other = np.asarray(other.X) if is_stored(other.X) else other.X
    X_other = X_other.astype(dtype, copy=False).T
    D_other = other.columns.astype(dtype, copy=False).T
    root, root_other = data.root[:, 0].astype(dtype), other.root[:, 0].astype(dtype)
    K = np.empty((data.n_rows, other.n_rows), dtype)
    blocks = list(row_blocks(len(K), data.block_width(other.X.shape[0])))
    members = [data.members(rows) for rows in blocks]
    read = read_ahead(X, (own.rows for own in members))
    for rows, own, (_, part) in zip(blocks, members, read, strict=True):
        end = rows.stop if other is data else other.n_rows
        used = other.members(slice(0, end))
        block = part @ X_other[:, used.rows]
        block = block.toarray() if is_sparse(block) else block
        block *= D[own.rows] @ D_other[:, used.rows]
        K[rows, :end] = used.compare(own.compare(block).T).T
        K[rows, :end] *= root[rows, None]
        K[rows, :end] *= root_other[:end]
        if other is data:
            K[: rows.start, rows] = K[rows, : rows.start].T
    return K
