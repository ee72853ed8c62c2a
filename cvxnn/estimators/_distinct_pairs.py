"""Preference pairs as the rows of a program, whose predictions are differences of rewards."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cvxnn.estimators._responses import Responses
from cvxnn.estimators._rows import merge, row_codes
from cvxnn.estimators._scaling import Scaling
from cvxnn.numerics.stored_rows import is_stored

Floats = NDArray[np.floating]

# Big-endian, so that the order of bytes is that of numbers.
_CODE = np.dtype(">u4")


class DistinctPairs(NamedTuple):
    """Distinct pairs of distinct responses, in a fixed order.

    Attributes
    ----------
    X : ndarray, shape (n_responses, n_features)
        Embeddings, in the order in which pairs need them.
    response_weight : ndarray, shape (n_responses,)
        Sum of the weights of the pairs of each response.
    pairs : ndarray of int, shape (n_pairs, 2)
        Rows of ``X``: the chosen response, then the rejected one.
    weight : ndarray, shape (n_pairs,)
        Positive weights of the pairs.
    units : ndarray, shape (n_pairs,)
        Units of data that each pair consists of, at least 1.
    groups : ndarray of int, shape (n_pairs,), or None
        Groups that a choice leaves out as wholes: those that were given, else pairs that are linked
        by common responses; None where each pair is alone.
    place : ndarray of int, shape (n_given,)
        The distinct pair that each given pair became.
    """

    X: Floats
    response_weight: Floats
    pairs: NDArray[np.intp]
    weight: Floats
    units: Floats
    groups: NDArray[np.intp] | None
    place: NDArray[np.intp]

    @classmethod
    def of(cls, rows: Responses) -> DistinctPairs:
        """Take the pairs among responses."""
        assert rows.pairs is not None
        assert rows.pair_weight is not None
        given = None if rows.groups is None else rows.groups[rows.pairs[:, 0]]
        # Pairs in the order of the bytes of the chosen row, then of the rejected one.
        codes = row_codes(rows.X, np.zeros((len(rows.X), 0)))
        both = codes[rows.pairs].astype(_CODE).view(np.uint8)
        distinct = merge(both, np.ones((len(both), 1)), rows.pair_weight, given)
        needed = distinct.X.view(_CODE).ravel()
        known, first, same = np.unique(needed, return_index=True, return_inverse=True)
        place = np.unique(codes, return_index=True)[1][known]
        # Rows in the order in which pairs need them, or in that of the disk.
        order = np.argsort(place if is_stored(rows.X) else first)
        pairs = np.argsort(order)[same].reshape(-1, 2)
        total = np.bincount(pairs.ravel(), weights=distinct.weight.astype(np.float64).repeat(2))
        groups = distinct.groups if rows.groups is not None else _linked(pairs)
        X = rows.X.take(place[order]) if is_stored(rows.X) else rows.X[place[order]]
        return cls(
            X,
            total.astype(X.dtype),
            pairs,
            distinct.weight,
            distinct.units,
            groups,
            distinct.place,
        )

    def scaling(self, *, standardize: bool, fit_intercept: bool) -> Scaling:
        """Measure the embeddings; targets, the difference of 1 that is asked for, stay as they are.

        Raises
        ------
        ValueError
            If embeddings are too large for their dtype.
        """
        targets = np.zeros((len(self.X), 1), self.X.dtype)
        return Scaling.of(
            self.X,
            targets,
            self.response_weight,
            standardize=standardize,
            fit_intercept=fit_intercept,
        )

    @property
    def targets(self) -> Floats:
        """Targets of least squares, 1 for each pair."""
        return np.ones((len(self.pairs), 1), self.X.dtype)

    @property
    def sample_weight(self) -> Floats | None:
        """Weights of the pairs, None where all are equal."""
        return None if np.all(self.weight == self.weight[0]) else self.weight

    @property
    def several_units(self) -> Floats | None:
        """Units of the pairs, None where each is one."""
        return None if np.all(self.units == 1) else self.units


def _linked(pairs: NDArray[np.intp]) -> NDArray[np.intp] | None:
    """Return the number of each pair's component, None where these are no more use than pairs."""
    n = pairs.max() + 1
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(n, n))
    n_parts, part = connected_components(graph, directed=False)
    if not 1 < n_parts < len(pairs):
        return None
    # Numbered as pairs meet them, in whatever order the rows are.
    _, first, own = np.unique(part[pairs[:, 0]], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[own]
