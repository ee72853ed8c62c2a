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

Floats = NDArray[np.floating]


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
    """

    X: Floats
    response_weight: Floats
    pairs: NDArray[np.intp]
    weight: Floats
    units: Floats
    groups: NDArray[np.intp] | None

    @classmethod
    def of(cls, rows: Responses) -> DistinctPairs:
        """Take the pairs among responses."""
        assert rows.pairs is not None
        assert rows.pair_weight is not None
        chosen, rejected = rows.pairs.T
        both = np.concatenate([rows.X[chosen], rows.X[rejected]], axis=1)
        given = None if rows.groups is None else rows.groups[chosen]
        distinct = merge(both, np.ones((len(both), 1), both.dtype), rows.pair_weight, given)
        stacked = distinct.X.reshape(2 * len(distinct.X), -1)
        codes = row_codes(stacked, np.zeros((len(stacked), 0)))
        _, first, same = np.unique(codes, return_index=True, return_inverse=True)
        order = np.argsort(first)
        pairs = np.argsort(order)[same].reshape(-1, 2)
        total = np.bincount(pairs.ravel(), weights=distinct.weight.astype(np.float64).repeat(2))
        groups = distinct.groups if rows.groups is not None else _linked(pairs)
        return cls(
            stacked[first[order]],
            total.astype(both.dtype),
            pairs,
            distinct.weight,
            distinct.units,
            groups,
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
    return part[pairs[:, 0]].astype(np.intp) if 1 < n_parts < len(pairs) else None
