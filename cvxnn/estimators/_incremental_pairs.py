"""Preference heads that take pairs in and forget them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if

from cvxnn import training  # names load when first used: JAX is for fits only
from cvxnn.estimators._classes import codes_of
from cvxnn.estimators._incremental import Batch, First, takes_rows
from cvxnn.estimators._pair_program import PairProgram
from cvxnn.estimators._responses import Responses, check_sides
from cvxnn.estimators._rows import weights_of
from cvxnn.explanation import Removal


class IncrementalPairs(PairProgram):
    """Preference head whose first phase follows from sums over pairs, or over responses."""

    classes_: NDArray[Any]
    n_pairs_: int
    fit_pairs: Callable[..., Any]

    def _settle(self, *sums: Any) -> training.Solution:
        """Take the solution of sums, over pairs that may be others."""
        found = super()._settle(*sums)
        if self.n_pairs_:
            self.n_pairs_ = len(np.unique(self._sums["keys"]))
        return found

    def _has_bias(self) -> bool:
        """Return whether rows of the program end with a one."""
        return self.fit_intercept and not self.n_pairs_

    @available_if(takes_rows)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Add labelled responses without pairs, at a cost that does not grow with those before.

        ``n_patterns="auto"`` leads to at most 4,096 weights here; see
        :meth:`partial_fit_pairs`, which is the same for pairs.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.
        y : array-like, shape (n_responses,)
            Two labels, both of which the first call has; the larger one means preferred.
        classes : array-like, shape (2,), optional
            The two labels.
        sample_weight : array-like, shape (n_responses,), optional
            Non-negative weights.

        Returns
        -------
        self
            The head, fitted to all responses so far; an interrupted call leaves it as it was.

        Raises
        ------
        ValueError
            If it has sums over pairs; for other labels; or if the matrix would take more than
            2 GiB.
        """
        if classes is not None and len(np.setdiff1d(y, classes)):
            raise ValueError(f"y has labels that classes={np.asarray(classes).tolist()} lacks.")
        given = X, y, sample_weight
        return self._add(lambda: self._batch(*given), lambda: given, First())

    @available_if(takes_rows)
    def partial_fit_pairs(
        self, chosen: ArrayLike, rejected: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Add pairs to phase I, at a cost that does not grow with those that it has.

        Gates, scaling, the ridge of the sum of losses and the scale of phase II are those that the
        first call chose; all else is the fit to the pairs so far
        (:mod:`cvxnn.training.normal_equations`).

        Parameters
        ----------
        chosen, rejected : array-like, shape (n_pairs, n_features)
            Embeddings; row ``k`` of both belongs to one prompt.
        sample_weight : array-like, shape (n_pairs,), optional
            Non-negative weights.

        Returns
        -------
        self
            The head, fitted to all pairs so far; an interrupted call leaves it as it was.

        Raises
        ------
        ValueError
            If it has sums over single responses, if the first pairs leave it without neurons, such
            as pairs of equal embeddings, or if the matrix of its ``m = n_patterns_ * n_features``
            weights, ``8 m**2`` bytes, would take more than 2 GiB.

        Notes
        -----
        ``n_patterns="auto"`` leads to at most 4,096 weights. ``fit_pairs`` keeps no sums: after it,
        the first call begins again, with its own pairs, and warns.
        """
        both = None if sample_weight is None else np.tile(np.asarray(sample_weight), 2)

        def stacked() -> tuple[Any, Any, Any]:
            X = np.concatenate([np.asarray(chosen), np.asarray(rejected)])
            return X, np.repeat([1, 0], len(X) // 2), both

        def fit() -> None:
            self.fit_pairs(chosen, rejected, sample_weight=sample_weight)

        return self._add(
            lambda: self._pair_batch(chosen, rejected, sample_weight), stacked, First(), fit
        )

    @available_if(takes_rows)
    def forget_pairs(
        self, chosen: ArrayLike, rejected: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Removal:
        """Remove pairs from phase I, as if they had never been added to it.

        Parameters
        ----------
        chosen, rejected, sample_weight : array-like
            Pairs that ``partial_fit_pairs`` was given, in any order and from any calls.

        Returns
        -------
        cvxnn.explanation.Removal
            What was removed, and a bound on what the head differs from one without these pairs,
            with what the first call chose.

        Raises
        ------
        ValueError
            If some of the pairs are not among those that were added, or none would stay; the head
            then is as it was.
        """
        return self._remove(lambda: self._pair_batch(chosen, rejected, sample_weight))

    def _batch(self, X: Any, y: Any, sample_weight: Any) -> Batch:
        """Check responses that are added or removed."""
        if self.n_pairs_:
            raise ValueError(
                "the head was fitted to pairs: use partial_fit_pairs and forget_pairs."
            )
        data, labels = self._validate(X, y, reset=False)
        preferred = codes_of(labels, self.classes_, "y") == 1
        weight = weights_of(sample_weight, len(data), data.dtype)
        return Batch(data, Responses(data, preferred, weight).signs, weight)

    def _pair_batch(self, chosen: Any, rejected: Any, sample_weight: Any) -> Batch:
        """Check pairs that are added or removed."""
        if not self.n_pairs_:
            raise ValueError("the head was fitted to single responses: use partial_fit and forget.")
        check_sides(chosen, rejected)
        won, lost = (np.asarray(self._validate(part, reset=False)) for part in (chosen, rejected))
        rows = Responses.of_pairs(won, lost, weights_of(sample_weight, len(won), won.dtype))
        assert rows.pair_weight is not None
        return Batch(rows.X, np.ones((len(won), 1), won.dtype), rows.pair_weight, rows.pairs)
