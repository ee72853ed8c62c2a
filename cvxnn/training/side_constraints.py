"""Bounds on weighted sums of predictions, as a user states them."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from cvxnn.numerics.arrays import dense, is_sparse

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class SideConstraint:
    """A bound on a weighted sum of predictions.

    Attributes
    ----------
    X : ndarray, shape (n_rows, n_features)
        Rows whose predictions are added up.
    coefficients : ndarray, shape (n_rows,), or sparse array, shape (n_bounds, n_rows)
        Their weights in the sum; of several sums of the same rows, those of each.
    bound : float
        What the sum has to be, or may be at most.
    equal : bool
        Whether the sum has to be equal to the bound.
    """

    X: Any
    coefficients: Any
    bound: float = 0.0
    equal: bool = True

    @classmethod
    def uncorrelated(cls, X: Any, values: ArrayLike) -> SideConstraint:
        """Ask for predictions whose correlation with some values is 0.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Rows, such as embeddings of replies.
        values : array-like, shape (n_rows,)
            A number for each, such as its length.

        Returns
        -------
        SideConstraint
            On the covariance of predictions and standardised values.

        Raises
        ------
        ValueError
            If the values are constant, not finite, or not one for each row.
        """
        return cls(X, _standardised(X, values))

    @classmethod
    def not_rising(cls, X: Any, values: ArrayLike) -> SideConstraint:
        """Ask for predictions whose correlation with some values is at most 0.

        Parameters
        ----------
        X, values : array-like
            As for :meth:`uncorrelated`.

        Returns
        -------
        SideConstraint
            On the covariance of predictions and standardised values.

        Raises
        ------
        ValueError
            As for :meth:`uncorrelated`.
        """
        return cls(X, _standardised(X, values), equal=False)

    @classmethod
    def monotone(
        cls, X: Any, feature: int | str, values: ArrayLike, *, rising: bool = True
    ) -> SideConstraint:
        """Ask for predictions that never fall where one feature rises, or never rise.

        Each row is looked at with each of the values in the place of the feature, and predictions
        may not fall from one value to the next. The constraint holds on these rows and values, and
        nearly between them: gated networks have jumps, which no finite number of rows can exclude.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Rows, such as some of the fit.
        feature : int or str
            Number of the feature, from 0, or its name where ``X`` is a data frame.
        values : array-like, shape (n_values,)
            Rising values of the feature, at least two.
        rising : bool, default=True
            Whether predictions rise with the feature; otherwise they fall.

        Returns
        -------
        SideConstraint
            With ``n_rows * (n_values - 1)`` bounds.

        Raises
        ------
        ValueError
            If the values do not rise, or there is no such feature.
        """
        columns = list(X.columns) if hasattr(X, "iloc") else None
        rows, steps = np.asarray(dense(X), np.float64), np.asarray(values, np.float64)
        place = columns.index(feature) if columns and feature in columns else feature
        if rows.ndim != 2 or not isinstance(place, Integral) or not 0 <= place < rows.shape[1]:
            raise ValueError(
                f"feature={feature!r} of X of shape {rows.shape}; expected the number of a column, "
                "or its name in a data frame."
            )
        if steps.ndim != 1 or len(steps) < 2 or not (np.diff(steps) > 0).all():
            raise ValueError(f"values={values!r}; expected at least two numbers that rise.")
        if not np.isfinite(steps).all():
            raise ValueError(f"values={values!r}; expected finite numbers.")
        n, m = len(rows), len(steps)
        every: Any = np.repeat(rows, m, axis=0)
        every[:, place] = np.tile(steps, n)
        every = every if columns is None else type(X)(every, columns=columns)
        before = (np.arange(n)[:, None] * m + np.arange(m - 1)).ravel()
        number = np.arange(len(before))
        entries = np.repeat([1.0, -1.0] if rising else [-1.0, 1.0], len(before))
        places = np.tile(number, 2), np.concatenate([before, before + 1])
        return cls(every, sparse.coo_array((entries, places)).tocsr(), equal=False)

    @classmethod
    def in_pairs(
        cls, first: Any, second: Any, differences: ArrayLike, *, equal: bool = True
    ) -> SideConstraint:
        """Ask for differences of predictions that do not follow those of some value.

        The constraint to take for rewards: which reply wins depends on differences within a prompt,
        and a reward can lose its correlation with length over all replies by what those to one
        prompt have in common. It is the correlation over pairs in both orders, whose differences
        have a mean of 0; over pairs in the order of the chosen reply, it is not centred.

        Parameters
        ----------
        first, second : array-like, shape (n_pairs, n_features)
            Rows such as embeddings of two replies to each prompt.
        differences : array-like, shape (n_pairs,)
            By how much the first exceeds the second, such as in length; not all 0.
        equal : bool, default=True
            Whether differences of predictions must not fall with these either.

        Returns
        -------
        SideConstraint
            On the mean product of both differences, in units of the root mean square of these.

        Raises
        ------
        ValueError
            If the differences are all 0, not finite, or not one for each pair.
        """
        rows = [x if is_sparse(x) else np.asarray(x) for x in (first, second)]
        if rows[0].ndim != 2 or rows[0].shape != rows[1].shape:
            raise ValueError(
                f"first has shape {rows[0].shape} and second {rows[1].shape}; expected one row of "
                "each for every pair."
            )
        given, n = _numbers(differences, first, "differences"), rows[0].shape[0]
        if not given.any():
            raise ValueError("differences are all 0: there is nothing to follow.")
        coefficients = given / (np.sqrt(np.mean(given**2)) * n)
        stack: Any = sparse.vstack if any(map(is_sparse, rows)) else np.concatenate
        return cls(stack(rows), np.concatenate([coefficients, -coefficients]), equal=equal)

    @classmethod
    def equal_means(cls, X: Any, groups: ArrayLike) -> SideConstraint:
        """Ask for predictions whose means over two groups of rows are equal.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Rows.
        groups : array-like, shape (n_rows,)
            One of two labels for each.

        Returns
        -------
        SideConstraint
            On the difference of the means.

        Raises
        ------
        ValueError
            If there are not two groups.
        """
        given, n = np.asarray(groups), _length(X)
        missing = [label for label in given.ravel().tolist() if label is None or label != label]
        kinds = {isinstance(label, str) for label in np.ravel(np.asarray(groups, object)).tolist()}
        if given.shape != (n,) or missing or len(kinds) != 1:
            raise ValueError(
                f"groups has shape {given.shape} for {n} rows, and {len(missing)} labels that are "
                "missing; expected one of two labels, both text or both numbers, for each row."
            )
        labels, own = np.unique(given, return_inverse=True)
        if len(labels) != 2:
            raise ValueError(f"groups has {len(labels)} labels; expected two.")
        counts = np.bincount(own)
        return cls(X, np.where(own == 1, 1 / counts[1], -1 / counts[0]))


def _standardised(X: Any, values: ArrayLike) -> Floats:
    """Return coefficients whose sum of predictions is a covariance with standardised values."""
    given = _numbers(values, X, "values")
    if not np.ptp(given) > 0:
        raise ValueError("values are the same for all rows: there is nothing to follow.")
    centred = given - given.mean()
    return np.asarray(centred / (centred.std() * len(given)))


def _numbers(values: Any, X: Any, name: str) -> Floats:
    """Return a finite number for each row, or say which are missing."""
    try:
        given = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are not numbers ({error}); expected one for each row.") from error
    n = _length(X)
    if given.shape != (n,) or not np.isfinite(given).all():
        raise ValueError(
            f"{name} have shape {given.shape} for {n} rows; expected a finite number for each."
        )
    return given


def _length(X: Any) -> int:
    shape = X.shape if is_sparse(X) else np.shape(X)
    return int(shape[0]) if shape else 0
