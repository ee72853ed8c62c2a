"""What single rows, pairs or groups of the data do to a fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, repr=False)
class Influence:
    """What each row, pair or group of the data does to a fit.

    Made by the method ``influence`` of an estimator or head. Patterns, scaling of the features and
    strength are those of the fit; all else is as if the data had never been there.

    Attributes
    ----------
    rows : ndarray of int, shape (n_rows,) or (n_rows, 2)
        Row numbers of the data that the other attributes speak of: those that were fitted, in their
        order. Of pairs, the chosen row and the rejected one.
    unit : ndarray of int, shape (n_rows,)
        Number of the unit that each belongs to: its own, or that of its group. A unit is what is
        left out.
    targets : ndarray, shape (n_rows, n_outputs)
        Targets of the fit: of two classes one column of -1 and 1, or of 0 and 1; of a pair 1.
    seen : ndarray, shape (n_rows, n_outputs)
        Predictions by the optimum of the fit's program, which the fit has up to its gap: of a pair,
        the difference of its two.
    unseen : ndarray, shape (n_rows, n_outputs)
        Predictions by the fit without the row's unit.
    error : ndarray, shape (n_rows, n_outputs)
        Bound on the errors of ``unseen``: rounding for the squared loss; for another, what the
        steps that take the place of a fit have left.
    doubt : ndarray, shape (n_rows,)
        How much the fit without its unit disagrees with a row: of classes, by how much the score of
        another exceeds that of the label; of pairs, the difference of rewards with its sign turned;
        of numbers, the distance in standard deviations of the targets. The label of a row of large
        doubt deserves a second look.
    n_units : int
        Number of units: rows, pairs or groups.
    kind : {"numbers", "classes", "pairs"}
        What the targets are.
    gates_of_targets : bool
        Whether gates were chosen with the targets (``patterns="local"``). Then fits without a row
        still know its target by them, and intervals may cover less often than they say.
    _changes, _bounds, _scores : callable
        Functions of rows behind :meth:`on`, :meth:`error_on` and :meth:`scores_on`.
    """

    rows: NDArray[np.intp]
    unit: NDArray[np.intp]
    targets: Floats
    seen: Floats
    unseen: Floats
    error: Floats
    doubt: Floats
    n_units: int
    kind: Literal["numbers", "classes", "pairs"]
    gates_of_targets: bool
    _changes: Callable[[ArrayLike], Floats]
    _bounds: Callable[[ArrayLike], Floats]
    _scores: Callable[[ArrayLike], Floats]

    def __repr__(self) -> str:
        """Return how many rows and units there are."""
        return f"Influence(kind={self.kind!r}, rows={len(self.rows)}, n_units={self.n_units})"

    def on(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return how predictions change without each unit.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Any rows, as for ``predict``. Of two replies, the difference of their changes is that of
            the margin.

        Returns
        -------
        ndarray, shape (n_samples, n_units, n_outputs)
            Prediction without the unit minus prediction with it: where it is negative, the unit is
            a reason for a high prediction.
        """
        return self._changes(X)

    def error_on(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return bounds on the errors of :meth:`on`, of the same shape.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows, as for :meth:`on`.
        """
        return self._bounds(X)

    def scores_on(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the predictions of rows by each of the fits without a unit.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Any rows, as for :meth:`on`.

        Returns
        -------
        ndarray, shape (n_samples, n_units, n_outputs)
            Predictions of a regressor, scores of a classifier, or rewards of phase I.
        """
        return np.asarray(self._scores(X)[:, None] + self.on(X))
