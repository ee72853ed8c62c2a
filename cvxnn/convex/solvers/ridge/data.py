"""Weighted data of a ridge program, and their products with weights and residuals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.factors import Floats
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.stored_rows import is_stored, read_ahead

# Roundings of the trace of the kernel that a strength has to exceed. In float32, the unknowns are
# refined once.
_ROUNDINGS = {np.dtype(np.float32): 4, np.dtype(np.float64): 100}
# Numbers in a block of rows: 2**22, 32 MiB in float64.
_BLOCK_NUMBERS = 2**22
# Numbers in a block that the cache of a core should hold until it is used.
_CACHED_NUMBERS = 2**18
# Rows that make a product of many outputs worth reading all its weights, which no cache holds.
_ENOUGH_ROWS = 256


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
            for rows, X in self._read(C * d, _CACHED_NUMBERS):
                local = (self.columns[rows] @ flat).reshape(-1, C, d)
                out[rows] = np.matmul(local, X[:, :, None])[..., 0]
        else:
            flat = np.ascontiguousarray(blocks.reshape(C * P, d).T)
            for rows, X in self._read(self.block_width(C * P)):
                scores = np.asarray(X @ flat).reshape(-1, C, P)
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
            for rows, X in self._read(C * d, _CACHED_NUMBERS):
                spread = R[rows][:, :, None] * X[:, None, :]
                sums += self.columns[rows].T @ spread.reshape(-1, C * d)
            return sums.reshape(P, C, d).transpose(1, 0, 2)
        out = np.zeros((d, C * P), R.dtype)
        for rows, X in self._read(self.block_width(C * P)):
            spread = R[rows][:, :, None] * self.columns[rows][:, None, :]
            out += X.T @ spread.reshape(-1, C * P)
        return out.T.reshape(C, P, d)

    def _read(self, width: int, numbers: int | None = None) -> Iterator[tuple[slice, Any]]:
        """Yield the rows of ``X`` by blocks, with their numbers."""
        return read_ahead(self.X, row_blocks(self.X.shape[0], width, numbers))

    @property
    def _sums_patterns_first(self) -> bool:
        """Whether products add up weights over patterns before they meet features.

        The flops are the same. Beside them there is work on ``n_outputs`` numbers a row, times the
        number of features where the patterns come first, else of patterns.
        """
        return not is_sparse(self.X) and self.X.shape[1] <= self.n_patterns

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

    def rounding(self, alpha: float | Floats, dtype: Any = np.float64) -> Any:
        """Return the strength below which rounding of the kernel decides, at strength ``alpha``."""
        trace = self.diagonal().sum()
        if self.ridge is not None:
            trace = trace + alpha / self.ridge * self.linear.diagonal().sum()
        if dtype == np.float32 and np.any(trace > np.finfo(np.float32).max):
            return np.inf
        return _ROUNDINGS[np.dtype(dtype)] * float(np.finfo(dtype).eps) * trace

    def diagonal(self) -> Floats:
        """Return the diagonal of the kernel of the gates; of pairs, a bound of it."""
        X = self.X.astype(np.float64, copy=False)
        if is_sparse(X):
            squares = np.asarray(X.multiply(X).sum(axis=1)).ravel()
        else:
            squares = np.empty(X.shape[0])
            for rows, block in read_ahead(X, row_blocks(len(squares), X.shape[1])):
                np.einsum("nd,nd->n", block, block, out=squares[rows])
        squares = squares * self.gates.columns.sum(axis=1)
        if self.pairs is not None:
            squares = 2 * squares[self.pairs].sum(axis=1)
        return np.asarray(self.root[:, 0] ** 2 * squares)

    def squares(self) -> Floats:
        """Return the squared norms of the features of rows, or of differences, without weights."""
        norms = (self.X**2).sum(axis=1) * self.columns.sum(axis=1)
        if self.pairs is None:
            return np.asarray(norms)
        first, second = self.pairs.T
        inner = np.einsum("nd,nd->n", self.X[first], self.X[second])
        shared = np.einsum("np,np->n", self.columns[first], self.columns[second])
        return np.maximum(norms[first] + norms[second] - 2 * inner * shared, 0)

    def gram(self) -> tuple[Floats, Floats]:
        """Return ``A^T A``, (n_weights, n_weights), and ``A^T`` of the targets."""
        gram, right = np.zeros((self.n_weights,) * 2), np.zeros((self.n_weights, self.y.shape[1]))
        for rows, features in self.features():
            A = self.root[rows] * features
            gram += A.T @ A
            right += A.T @ self.targets[rows]
        return gram, right

    def features(self) -> Iterator[tuple[slice, Floats]]:
        """Yield the features of blocks of rows, without weights: the rows, and (n, n_weights)."""
        for rows in row_blocks(self.n_rows, self.n_weights):
            own = self.members(rows)
            X = self.X[own.rows].toarray() if is_sparse(self.X) else self.X[own.rows]
            A = (self.columns[own.rows][:, :, None] * X[:, None, :]).reshape(len(X), -1)
            yield rows, own.compare(A)

    def blocks(self, flat: Floats) -> Floats:
        """Return columns of weights (n_weights, n_outputs) as blocks."""
        return flat.T.reshape(-1, self.columns.shape[1], self.X.shape[1])

    def block_width(self, computed: int) -> int:
        """Return the numbers that a row of a block takes, of which some are computed."""
        return max(computed, self.X.shape[1]) if is_stored(self.X) else computed

    def members(self, rows: slice) -> Members:
        """Return the rows of ``X`` that some rows of ``A`` need."""
        if self.pairs is None:
            return Members(rows, None)
        used, index = np.unique(self.pairs[rows], return_inverse=True)
        return Members(used, index.reshape(-1, 2))


class Members(NamedTuple):
    """Rows of ``X``, and the pairs among them."""

    rows: Any
    pairs: NDArray[np.intp] | None

    def compare(self, values: Floats) -> Floats:
        """Return values of pairs from those of rows, or those of rows where there are no pairs."""
        return values if self.pairs is None else values[self.pairs[:, 0]] - values[self.pairs[:, 1]]


def row_blocks(n_rows: int, width: int, numbers: int | None = None) -> Iterator[slice]:
    """Return slices of so many rows that a block has about ``numbers`` numbers."""
    width = max(width, 1)
    at_most = _BLOCK_NUMBERS // width
    wanted = at_most if numbers is None else numbers // width
    size = max(wanted, min(at_most, _ENOUGH_ROWS), 1)
    for first in range(0, n_rows, size):
        yield slice(first, min(first + size, n_rows))
