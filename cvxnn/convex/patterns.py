r"""Activation patterns: the rows of the data that a gate lets through.

A gate vector :math:`g` splits the rows of ``X`` by the sign of :math:`Xg`; its activation pattern
is the 0/1 vector :math:`1(Xg \ge 0)`, the diagonal of :math:`D_i` in the convex program (Pilanci &
Ergen, 2020). A gate may be a conjunction of several vectors, whose pattern is the product of
theirs. ``cvxnn.convex.pattern_sampling`` draws patterns; for data of small rank,
``cvxnn.convex.enumeration`` lists all that there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.gates import open_where, stacked_gates

Formulation = Literal["relu", "gated"]
"""Whether neurons keep their patterns by constraints, or by gates of their own."""


@dataclass(frozen=True)
class ActivationPatterns:
    """Distinct activation patterns and the gates they come from.

    Attributes
    ----------
    mask : ndarray of bool, shape (n_samples, n_patterns)
        ``mask[k, i]`` is True if gate ``i`` is open on row ``k``.
    gates : ndarray, shape (n_patterns, n_features) or (n_patterns, n_features + 1)
        Gate vectors; the last entry is the offset where gates were drawn with ``bias=True``. Of
        conjunctions, which are open where all their vectors are, an axis of these vectors comes
        second: shape (n_patterns, n_vectors, n_features).
    """

    mask: NDArray[np.bool_]
    gates: NDArray[np.floating]

    def __len__(self) -> int:
        """Return the number of patterns."""
        return self.mask.shape[1]

    @classmethod
    def from_gates(
        cls, X: NDArray[np.floating], gates: NDArray[np.floating], *, bias: bool = False
    ) -> ActivationPatterns:
        """Return the patterns of given gate vectors.

        Duplicates and patterns that are closed on every row are dropped.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_features)
            Data, as the network sees it.
        gates : ndarray, shape (n_gates, n_features) or (n_gates, n_features + 1)
            Gate vectors; the second shape, with the offset last, goes with ``bias=True``. Of
            conjunctions, an axis of their vectors comes second.
        bias : bool, default=False
            Whether gates carry an offset, so that they need not pass through the origin.

        Returns
        -------
        ActivationPatterns
            At most ``n_gates`` patterns, in the order in which they first appear.

        Raises
        ------
        ValueError
            If the gates have another width than the data.
        """
        width = X.shape[1] + bias
        gates = np.asarray(gates)
        if gates.ndim not in (2, 3) or gates.shape[-1] != width or 0 in gates.shape[1:-1]:
            raise ValueError(
                f"gates have shape {gates.shape}; expected (n_gates, {width}), or (n_gates, "
                f"n_vectors, {width}) of conjunctions, for data with {X.shape[1]} features and "
                f"bias={bias}."
            )
        gates = gates.astype(X.dtype, copy=False)
        parts = (gates[..., :-1], gates[..., -1]) if bias else (gates,)
        mask = open_where(X, *parts)
        keep = _first_of_each(mask)
        opened = np.asarray(mask.any(axis=0))
        return cls(mask, gates).take(keep[opened[keep]])

    def take(self, index: NDArray[np.intp]) -> ActivationPatterns:
        """Return the patterns at the given positions.

        Parameters
        ----------
        index : ndarray of int
            Positions.
        """
        if np.array_equal(index, np.arange(len(self))):
            return self
        return ActivationPatterns(np.take(self.mask, index, axis=1), self.gates[index])

    def union(self, other: ActivationPatterns) -> ActivationPatterns:
        """Return these patterns and then those of ``other`` that are not among them.

        Parameters
        ----------
        other : ActivationPatterns
            Patterns of the same rows.
        """
        mask = np.concatenate([self.mask, other.mask], axis=1)
        both = ActivationPatterns(mask, stacked_gates(self.gates, other.gates))
        return both.take(_first_of_each(mask))


def add_bias(X: Any) -> Any:
    """Append a column of ones to ``X``, whose dtype is kept.

    Parameters
    ----------
    X : ndarray or sparse array, shape (n_samples, n_features)
        Data.

    Returns
    -------
    ndarray or csr_array, shape (n_samples, n_features + 1)
        A copy, with ones in the last column.
    """
    ones = np.ones((X.shape[0], 1), X.dtype)
    if is_sparse(X):
        return sparse.csr_array(sparse.hstack([X, sparse.csr_array(ones)]))
    return np.concatenate([X, ones], axis=1)


def _first_of_each(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the positions at which each distinct column appears first, in order."""
    keys = _keys(mask)
    whole = keys.view(np.dtype((np.void, keys.shape[1])))[:, 0]
    return np.sort(np.unique(whole, return_index=True)[1])


def _keys(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the entries of each column eight to a byte, a row of bytes for each column."""
    # Shifts of whole rows: packbits would go through memory column by column.
    whole = len(mask) // 8
    eights = mask[: 8 * whole].view(np.uint8).reshape(whole, 8, mask.shape[1])
    packed = np.zeros((whole + 1, mask.shape[1]), np.uint8)
    for k in range(8):
        packed[:whole] <<= 1
        packed[:whole] |= eights[:, k]
    if len(mask) % 8:
        packed[whole] = np.packbits(mask[8 * whole :], axis=0)[0]
    return np.ascontiguousarray(packed.T)
