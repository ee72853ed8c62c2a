"""Data of a ridge program, as products and matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.factors import Floats, by_strength, shifted_inverse
from cvxnn.convex.solvers.ridge.flops import takes_kernel
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.stored_rows import is_stored
from cvxnn.numerics.threads import limits_threads

# Gaps down to which products in float32 are good enough.
COARSE = 1e-4
# Roundings of the trace of the kernel that a strength has to exceed. In float32, the unknowns are
# refined once.
_ROUNDINGS = {np.dtype(np.float32): 4, np.dtype(np.float64): 100}
# Numbers in a block of rows: 2**22, 32 MiB in float64.
_BLOCK_NUMBERS = 2**22
# Numbers in a block that the cache of a core should hold until it is used.
_CACHED_NUMBERS = 2**18
# Rows that make a product of many outputs worth reading all its weights, which no cache holds.
_ENOUGH_ROWS = 256
# Side of the tiles of a kernel, each computed and masked in cache.
_TILE = 768


@dataclass(frozen=True)
class RidgeData:
    """Weighted data ``A`` as products; the columns of a linear part come last.

    Attributes
    ----------
    X : ndarray or sparse array, shape (n_samples, n_features)
        Rows.
    columns : ndarray of float32, shape (n_samples, P)
        Patterns as numbers; the last column is one of ones if there is a linear part.
    root : ndarray, shape (n_samples, 1)
        Root of each row's share of the loss.
    y : ndarray, shape (n_samples, n_outputs)
        Targets.
    ridge : float or None
        Ridge of the linear part, None without one. Its kernel stands apart from that of the gates,
        which all strengths share: the sum is ``K + alpha / ridge L``.
    pairs : ndarray of int, shape (n_pairs, 2), optional
        Rows of ``X`` whose difference each row of ``A`` is (``PairedOperator``); ``root`` and ``y``
        then belong to pairs.
    """

    X: Any
    columns: Floats
    root: Floats
    y: Floats
    ridge: float | None = None
    pairs: NDArray[np.intp] | None = None

    @classmethod
    def of(cls, program: ConvexProgram) -> RidgeData:
        """Take what the closed form needs from a program."""
        program = program.stacked()
        n = program.y.shape[0]
        share = np.broadcast_to(program.share, (n, 1))
        # Zeros and ones need no more than float32, whatever they are multiplied by.
        columns = program.operator.mask.astype(np.float32)
        ridge = float(program.linear_ridge) if program.operator.linear else None
        pairs = getattr(program.operator, "pairs", None)
        return cls(program.operator.X, columns, np.sqrt(share), program.y, ridge, pairs)

    @property
    def n_rows(self) -> int:
        """Number of rows of ``A``."""
        return len(self.root)

    @property
    def n_patterns(self) -> int:
        """Number of patterns, the linear part among them."""
        return self.columns.shape[1]

    @property
    def n_weights(self) -> int:
        """Number of weights for each output."""
        return self.X.shape[1] * self.columns.shape[1]

    @property
    def targets(self) -> Floats:
        """Targets, each row scaled by the root of its weight."""
        return self.root * self.y

    @property
    def gates(self) -> RidgeData:
        """The same data without the linear part."""
        return (
            self if self.ridge is None else replace(self, columns=self.columns[:, :-1], ridge=None)
        )

    @property
    def linear(self) -> RidgeData:
        """The linear part, as if it were a pattern that is always open."""
        return replace(self, columns=self.columns[:, -1:], ridge=None)

    def blocks_of(self, u: Floats, alpha: float | Floats) -> Floats:
        """Return the weights of dual unknowns, (n_outputs, n_patterns, n_features)."""
        blocks = self.adjoint(self.root * u)
        if self.ridge is not None:
            blocks[:, -1] *= np.broadcast_to(alpha / self.ridge, len(blocks))[:, None]
        return blocks

    def norms(self, blocks: Floats, alpha: float | Floats) -> Floats:
        """Return the squared norm of each output's weights, that of a linear part in its units."""
        squares = (blocks**2).sum(axis=2)
        if self.ridge is not None:
            squares[:, -1] *= self.ridge / alpha
        return squares.sum(axis=1)

    def forward(self, blocks: Floats) -> Floats:
        """Return predictions (n, n_outputs) of blocks (n_outputs, n_patterns, n_features)."""
        C, P, d = blocks.shape
        out = np.empty((self.X.shape[0], C), blocks.dtype)
        if self._sums_patterns_first:
            flat = np.ascontiguousarray(blocks.transpose(1, 0, 2)).reshape(P, C * d)
            for rows in _row_blocks(len(out), C * d, _CACHED_NUMBERS):
                local = (self.columns[rows] @ flat).reshape(-1, C, d)
                out[rows] = np.matmul(local, self.X[rows][:, :, None])[..., 0]
        else:
            flat = np.ascontiguousarray(blocks.reshape(C * P, d).T)
            for rows in _row_blocks(len(out), self._width(C * P)):
                scores = np.asarray(self.X[rows] @ flat).reshape(-1, C, P)
                out[rows] = np.matmul(scores, self.columns[rows][:, :, None])[..., 0]
        return out if self.pairs is None else out[self.pairs[:, 0]] - out[self.pairs[:, 1]]

    def adjoint(self, R: Floats) -> Floats:
        """Apply the adjoint of :meth:`forward`."""
        C, P, d = R.shape[1], self.columns.shape[1], self.X.shape[1]
        if self.pairs is not None:
            of_pairs, R = R, np.zeros((self.X.shape[0], C), R.dtype)
            np.add.at(R, self.pairs[:, 0], of_pairs)
            np.subtract.at(R, self.pairs[:, 1], of_pairs)
        if self._sums_patterns_first:
            sums = np.zeros((P, C * d), R.dtype)
            for rows in _row_blocks(len(R), C * d, _CACHED_NUMBERS):
                spread = R[rows][:, :, None] * self.X[rows][:, None, :]
                sums += self.columns[rows].T @ spread.reshape(-1, C * d)
            return sums.reshape(P, C, d).transpose(1, 0, 2)
        out = np.zeros((d, C * P), R.dtype)
        for rows in _row_blocks(len(R), self._width(C * P)):
            spread = R[rows][:, :, None] * self.columns[rows][:, None, :]
            out += self.X[rows].T @ spread.reshape(-1, C * P)
        return out.T.reshape(C, P, d)

    def _width(self, width: int) -> int:
        """Return the numbers that a row of a block takes, of which some are computed."""
        return max(width, self.X.shape[1]) if is_stored(self.X) else width

    @property
    def _sums_patterns_first(self) -> bool:
        """Whether products add up weights over patterns before they meet features.

        The flops are the same. Beside them there is work on ``n_outputs`` numbers a row, times the
        number of features where the patterns come first, else of patterns.
        """
        return not is_sparse(self.X) and self.X.shape[1] <= self.n_patterns

    def predict(
        self, U: Floats, X: Any, mask: NDArray[np.bool_], dtype: Any = np.float64
    ) -> Floats:
        """Return predictions of new rows for columns ``U`` of dual unknowns."""
        columns = mask.astype(np.float32)
        other = replace(self, X=X, columns=columns, root=np.ones((len(mask), 1)), pairs=None)
        out = np.empty((len(mask), U.shape[1]), U.dtype)
        for rows in _row_blocks(len(mask), self.n_rows):
            part = replace(other, X=X[rows], columns=columns[rows], root=other.root[rows])
            out[rows] = part.kernel_with(self, dtype) @ U.astype(dtype)
        return out

    def cast(self, dtype: Any) -> RidgeData:
        """Return the same data in another precision."""
        X, root, y = (a.astype(dtype, copy=False) for a in (self.X, self.root, self.y))
        return replace(self, X=X, root=root, y=y)

    def take(self, rows: NDArray[np.intp]) -> RidgeData:
        """Return the data of some of the rows."""
        some = replace(self, root=self.root[rows], y=self.y[rows])
        if self.pairs is None:
            return replace(some, X=self.X[rows], columns=self.columns[rows])
        used, index = np.unique(self.pairs[rows], return_inverse=True)
        pairs = index.reshape(-1, 2)
        return replace(some, X=self.X[used], columns=self.columns[used], pairs=pairs)

    @limits_threads(
        lambda self, other, *_: (
            2.0 * self.n_rows * other.n_rows * max(self.X.shape[1], self.n_patterns)
        )
    )
    def kernel_with(self, other: RidgeData, dtype: Any = np.float64) -> Floats:
        """Return the kernel of these rows and those of ``other``, computed block by block.

        Of the data with themselves only one half is computed, and mirrored. A linear part is left
        out.
        """
        if self.ridge is not None:
            gates = self.gates
            return gates.kernel_with(gates if other is self else other.gates, dtype)
        plain = self.pairs is None and other.pairs is None and not is_sparse(self.X)
        return (self._kernel_by_tiles if plain else self._kernel_by_rows)(other, dtype)

    def _kernel_by_tiles(self, other: RidgeData, dtype: Any) -> Floats:
        X, X_other = (
            data.root.astype(dtype, copy=False) * data.X.astype(dtype, copy=False)
            for data in (self, other)
        )
        if other is self:
            X_other = X  # BLAS computes one half of a product with itself
        # Numbers of gates are exact in float32.
        D, D_other = self.columns, other.columns
        K = np.empty((len(X), len(X_other)), dtype)
        left, right = np.empty(_TILE**2, dtype), np.empty(_TILE**2, D.dtype)
        for i in range(0, len(X), _TILE):
            rows = slice(i, min(i + _TILE, len(X)))
            for j in range(0, i + 1 if other is self else len(X_other), _TILE):
                columns = slice(j, min(j + _TILE, len(X_other)))
                shape = rows.stop - i, columns.stop - j
                tile, gates = (a[: shape[0] * shape[1]].reshape(shape) for a in (left, right))
                np.matmul(X[rows], X_other[columns].T, out=tile)
                tile *= np.matmul(D[rows], D_other[columns].T, out=gates)
                K[rows, columns] = tile
                if other is self and j < i:
                    K[columns, rows] = tile.T
        return K

    def _kernel_by_rows(self, other: RidgeData, dtype: Any) -> Floats:
        X, D = self.X.astype(dtype, copy=False), self.columns.astype(dtype, copy=False)
        # Stored rows of a kernel that fits into memory do so too.
        X_other = np.asarray(other.X) if is_stored(other.X) else other.X
        X_other = X_other.astype(dtype, copy=False).T
        D_other = other.columns.astype(dtype, copy=False).T
        root, root_other = self.root[:, 0].astype(dtype), other.root[:, 0].astype(dtype)
        K = np.empty((self.n_rows, other.n_rows), dtype)
        for rows in _row_blocks(len(K), self._width(other.X.shape[0])):
            end = rows.stop if other is self else other.n_rows
            if self.pairs is None and other.pairs is None:
                block = X[rows] @ X_other[:, :end]
                K[rows, :end] = block.toarray() if is_sparse(block) else block
                K[rows, :end] *= D[rows] @ D_other[:, :end]
            else:
                own, used = self._members(rows), other._members(slice(0, end))
                block = X[own.rows] @ X_other[:, used.rows]
                block *= D[own.rows] @ D_other[:, used.rows]
                K[rows, :end] = used.compare(own.compare(block).T).T
            K[rows, :end] *= root[rows, None]
            K[rows, :end] *= root_other[:end]
            if other is self:
                K[: rows.start, rows] = K[rows, : rows.start].T
        return K

    def solve(
        self,
        alpha: float | Floats,
        *,
        coarse: bool,
        max_dense: int,
        kernel: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Find ``u`` and the kernel times ``u`` through the cheaper of the two matrices.

        Each output may have its ``alpha``; those of one value share a factorisation. One that
        rounding hides is raised to :meth:`rounding`: errors of the unknowns are divided by it.
        A ``kernel`` that is known takes the place of both, unless it is too coarse for ``alpha``.
        """
        least = self.rounding(alpha)
        if not np.isfinite(least).all():  # nothing is known of squares that overflow
            return np.full_like(self.targets, np.nan), np.full_like(self.targets, np.nan)
        if kernel is None or (kernel.dtype == np.float32 and not self._allows_float32(alpha)):
            kernel = self.kernel_to_factor(alpha, coarse=coarse, max_dense=max_dense)
        if kernel is not None:
            return self._solve_dual(alpha, Kernel(self, kernel))
        gram, right = self.gram()

        def shift(a: float) -> Floats:
            """Return the ridge of each weight."""
            raised = max(a, float(self.rounding(a)))
            ridges = np.full(self.n_weights, raised)
            if self.ridge is not None:
                ridges.reshape(self.n_patterns, -1)[-1] = self.ridge * (raised / a)
            return ridges

        single = np.size(np.unique(alpha)) == 1
        flat = by_strength(
            alpha, right, lambda a, part: shifted_inverse(gram, shift(a), overwrite=single)(part)
        )
        blocks = self.blocks(flat)
        # alpha u is what the predictions leave of the targets.
        u = self.root * (self.y - self.forward(blocks)) / np.maximum(alpha, least)
        return u, Kernel(self).product(u, alpha)

    def kernel_to_factor(
        self, alpha: float | Floats, *, coarse: bool, max_dense: int
    ) -> Floats | None:
        """Return the kernel if :meth:`solve` factors it, else None."""
        if not np.isfinite(self.rounding(alpha)).all():
            return None
        coarse = coarse and self._allows_float32(alpha)
        if not takes_kernel(self, coarse=coarse, max_dense=max_dense):
            return None
        return self.kernel_with(self, np.float32 if coarse else np.float64)

    def _allows_float32(self, alpha: float | Floats) -> bool:
        """Return whether all strengths are above the rounding of a kernel in float32."""
        return bool(np.all(alpha >= self.rounding(alpha, np.float32)))

    def rounding(self, alpha: float | Floats, dtype: Any = np.float64) -> Any:
        """Return the strength below which rounding of the kernel decides, at strength ``alpha``."""
        X = self.X.astype(np.float64, copy=False)
        if is_sparse(X):
            squares = np.asarray(X.multiply(X).sum(axis=1)).ravel()
        else:
            squares = np.empty(X.shape[0])
            for rows in _row_blocks(len(squares), X.shape[1]):
                block = X[rows]
                np.einsum("nd,nd->n", block, block, out=squares[rows])
        if self.pairs is not None:
            squares = 2 * squares[self.pairs]
        n_open = self.gates.columns.sum(axis=1)
        n_open = n_open if self.pairs is None else n_open[self.pairs]
        share = self.root if self.pairs is not None else self.root[:, 0]
        trace = np.sum(share**2 * squares * n_open)
        if self.ridge is not None:
            trace = trace + alpha / self.ridge * np.sum(share**2 * squares)
        if dtype == np.float32 and np.any(trace > np.finfo(np.float32).max):
            return np.inf
        return _ROUNDINGS[np.dtype(dtype)] * float(np.finfo(dtype).eps) * trace

    def gram(self) -> tuple[Floats, Floats]:
        """Return ``A^T A``, (n_weights, n_weights), and ``A^T`` of the targets."""
        gram, right = np.zeros((self.n_weights,) * 2), np.zeros((self.n_weights, self.y.shape[1]))
        for rows in _row_blocks(self.n_rows, self.n_weights):
            own = self._members(rows)
            X = self.X[own.rows].toarray() if is_sparse(self.X) else self.X[own.rows]
            A = (self.columns[own.rows][:, :, None] * X[:, None, :]).reshape(len(X), -1)
            A = self.root[rows] * own.compare(A)
            gram += A.T @ A
            right += A.T @ self.targets[rows]
        return gram, right

    def blocks(self, flat: Floats) -> Floats:
        """Return columns of weights (n_weights, n_outputs) as blocks."""
        return flat.T.reshape(-1, self.columns.shape[1], self.X.shape[1])

    def _solve_dual(self, alpha: float | Floats, kernel: Kernel) -> tuple[Floats, Floats]:
        dtype = kernel.matrix.dtype
        ridge, linear = self.ridge, None
        if ridge is not None:
            data = self.linear
            linear = data.kernel_with(data, dtype) / dtype.type(ridge)

        def solve(value: float, targets: Floats) -> Floats:
            whole = kernel.matrix if linear is None else kernel.matrix + dtype.type(value) * linear
            raised = max(value, float(self.rounding(value)))
            inverse = shifted_inverse(whole, raised, overwrite=linear is not None)
            u = inverse(targets).astype(targets.dtype)
            # The second time takes off what a factor in float32, or of more than alpha, left.
            if dtype == np.float32 or value < raised:
                u += inverse(targets - value * u - kernel.product(u, value))
            return u

        try:
            u = by_strength(alpha, self.targets, solve)
        except LinAlgError:
            if dtype == np.float64:
                raise
            # The penalty is below the rounding of float32.
            return self._solve_dual(alpha, Kernel.stored(self))
        return u, kernel.product(u, alpha)

    def _members(self, rows: slice) -> _Members:
        """Return the rows of ``X`` that some rows of ``A`` need."""
        if self.pairs is None:
            return _Members(rows, None)
        used, index = np.unique(self.pairs[rows], return_inverse=True)
        return _Members(used, index.reshape(-1, 2))


class _Members(NamedTuple):
    """Rows of ``X``, and the pairs among them."""

    rows: Any
    pairs: NDArray[np.intp] | None

    def compare(self, values: Floats) -> Floats:
        """Return values of pairs from those of rows, or those of rows where there are no pairs."""
        return values if self.pairs is None else values[self.pairs[:, 0]] - values[self.pairs[:, 1]]


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
        return cls(data, data.kernel_with(data, dtype))

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


def dots(a: Floats, b: Floats) -> Floats:
    """Return the inner product of each output's columns."""
    return np.einsum("nc,nc->c", a, b)


def _row_blocks(n_rows: int, width: int, numbers: int = _BLOCK_NUMBERS) -> Iterator[slice]:
    size = _rows_at_once(width, numbers)
    for first in range(0, n_rows, size):
        yield slice(first, min(first + size, n_rows))


def _rows_at_once(width: int, numbers: int = _BLOCK_NUMBERS) -> int:
    at_most = _BLOCK_NUMBERS // max(width, 1)
    return max(numbers // max(width, 1), min(at_most, _ENOUGH_ROWS), 1)
