"""What the Hessian and the gap of a fit say of its predictions: how exact, how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, repr=False)
class Curvature:
    r"""The inverse Hessian of a fit with one output, on any rows.

    Made by the method ``curvature`` of an estimator or head. Two questions have the same answer, a
    multiple of :math:`\sqrt{\varphi^T H^{-1} \varphi}` with the features :math:`\varphi` of a row:
    how far a prediction may be from that of the exact optimum, and how little the data say of it.

    Attributes
    ----------
    gap : float
        Duality gap of the fit, absolute, in scaled units; at least 0.
    n : float
        Sum of the weights of the rows or pairs that were fitted.
    scale : float
        Unit of the predictions, in those of the program.
    _variances, _between, _covariance, _scores : callable
        Functions of rows behind the methods.
    """

    gap: float
    n: float
    scale: float
    _variances: Callable[[ArrayLike], Floats]
    _between: Callable[[ArrayLike, ArrayLike], Floats]
    _covariance: Callable[[ArrayLike], Floats]
    _scores: Callable[[ArrayLike], Floats]

    def __repr__(self) -> str:
        """Return the gap and the number of rows."""
        return f"Curvature(gap={self.gap:.2g}, n={self.n:g})"

    def error_on(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return bounds on how far predictions are from those of the exact optimum.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Any rows, as for ``predict``.

        Returns
        -------
        ndarray, shape (n_samples,)
            In units of the predictions, up to their rounding.
        """
        return self.scale * np.sqrt(2 * self.gap * self._variances(X))

    def decided(self, first: ArrayLike, second: ArrayLike) -> NDArray[np.bool_]:
        """Return where the order of two predictions is that of the exact optimum.

        Parameters
        ----------
        first, second : array-like, shape (n_pairs, n_features)
            Rows, such as embeddings of two replies to each prompt.

        Returns
        -------
        ndarray of bool, shape (n_pairs,)
            True where a smaller gap could not change the order.
        """
        margins = np.abs(self._scores(first) - self._scores(second))
        return margins > self.scale * np.sqrt(2 * self.gap * self._between(first, second))

    def deviation_on(self, X: ArrayLike) -> NDArray[np.floating]:
        r"""Return :math:`\sqrt{\varphi^T (n H)^{-1} \varphi}`: how little the data say of rows.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Any rows.

        Returns
        -------
        ndarray, shape (n_samples,)
            Standard deviations of predictions under the Gaussian prior that the penalty stands
            for, in units of the standard deviation of the noise.
        """
        return np.sqrt(self._variances(X) / self.n)

    def deviation_between(self, first: ArrayLike, second: ArrayLike) -> NDArray[np.floating]:
        """Return how little the data say of the differences of two predictions.

        Parameters
        ----------
        first, second : array-like, shape (n_pairs, n_features)
            Rows, such as embeddings of two replies to each prompt.

        Returns
        -------
        ndarray, shape (n_pairs,)
            As of :meth:`deviation_on`.
        """
        return np.sqrt(self._between(first, second) / self.n)

    def deviation_among(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return how little the data say of predictions, less their mean over these rows.

        The deviation to take among replies to one prompt: what they have in common decides nothing.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows that compete, such as embeddings of the replies to a prompt.

        Returns
        -------
        ndarray, shape (n_samples,)
            As of :meth:`deviation_on`.
        """
        inner = self._covariance(X)
        centred = inner - inner.mean(axis=0)
        centred = centred - centred.mean(axis=1, keepdims=True)
        return np.sqrt(np.maximum(np.diagonal(centred), 0) / self.n)
