"""What an estimator proves of rows that it has forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, repr=False)
class Removal:
    """Certificate of a removal: what was removed, and how near the fit without it is.

    Made by ``forget`` of an estimator and ``forget_pairs`` of a preference head. It compares the
    estimator with the exact optimum on the rows that stay, with the same gates, scaling and ridge.

    Attributes
    ----------
    digest : str
        SHA-256 digest of the rows, targets and weights that were removed, in any order.
    n_rows : int
        Number of rows, or pairs, that were removed.
    n_left : int
        Number of those that stay.
    distance : ndarray, shape (n_outputs,)
        Bound on the distance of the weights from the exact ones, in scaled units: rounding for the
        squared loss, what Newton's step left for the logistic loss. Infinite where the step went
        too far for a bound: fit again then.
    gap : float
        Relative duality gap on the rows that stay.
    _norms : callable
        Takes rows to the norms of their features.
    """

    digest: str
    n_rows: int
    n_left: int
    distance: Floats
    gap: float
    _norms: Callable[[ArrayLike], Floats]

    def __repr__(self) -> str:
        """Return what was removed, and the largest distance."""
        return (
            f"Removal(digest={self.digest[:16]!r}, n_rows={self.n_rows}, n_left={self.n_left}, "
            f"distance={self.distance.max():.2g})"
        )

    def error_on(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return bounds on how far predictions are from those of the exact fit without the rows.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Any rows, as for ``predict``.

        Returns
        -------
        ndarray, shape (n_samples, n_outputs)
            In units of the targets; of a preference head, of the differences of phase I.
        """
        return self._norms(X)[:, None] * self.distance
