"""Candidate replies: their features, in sets of different sizes, and the policy over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.network import TwoLayerNetwork


@dataclass(frozen=True, eq=False)
class CandidateSets:
    """Features of the candidate replies to each prompt; the sets may differ in size.

    Attributes
    ----------
    features : ndarray, shape (n_candidates_total, n_features)
        Features of the candidates: first those of the first prompt, then those of the second, and
        so on.
    offsets : ndarray of int, shape (n_prompts + 1,)
        Borders of the sets, from 0: the candidates of prompt ``k`` are the rows
        ``offsets[k]:offsets[k + 1]``, at least one.

    Raises
    ------
    ValueError
        If the features are not a finite matrix, or the offsets do not divide its rows into sets.

    Examples
    --------
    >>> sets = CandidateSets.stack([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]]])
    >>> sets.sizes.tolist()
    [2, 3]
    >>> sets.probabilities([0.0, 0.0]).round(2).tolist()
    [0.5, 0.5, 0.33, 0.33, 0.33]
    """

    features: NDArray[np.float64]
    offsets: NDArray[np.intp]

    def __post_init__(self) -> None:
        features = as_matrix("features", self.features)
        offsets = np.asarray(self.offsets)
        fits = offsets.ndim == 1 and offsets.size >= 2 and np.issubdtype(offsets.dtype, np.integer)
        if not fits or offsets[0] != 0 or offsets[-1] != len(features):
            raise ValueError(
                f"offsets={self.offsets!r}; expected integers from 0 to {len(features)}, the "
                "number of rows of features, one more than there are prompts."
            )
        if (np.diff(offsets) < 1).any():
            empty = int(np.argmax(np.diff(offsets) < 1))
            raise ValueError(f"prompt {empty} has no candidates; leave the prompt out.")
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "offsets", offsets.astype(np.intp))

    @classmethod
    def stack(cls, sets: Sequence[ArrayLike]) -> CandidateSets:
        """Join the candidates of several prompts.

        Parameters
        ----------
        sets : sequence of array-like, each of shape (n_candidates, n_features)
            Features of the candidates of each prompt, at least one.

        Returns
        -------
        CandidateSets
            Candidates of all prompts in the given order.

        Raises
        ------
        ValueError
            If there are no prompts, or the numbers of features differ.
        """
        if len(sets) == 0:
            raise ValueError("sets is empty; expected the candidates of at least one prompt.")
        matrices = [np.atleast_2d(np.asarray(each, float)) for each in sets]
        if len({matrix.shape[1] for matrix in matrices}) > 1:
            raise ValueError(
                f"candidates have {sorted({m.shape[1] for m in matrices})} features; expected "
                "one number for all prompts."
            )
        sizes = [len(matrix) for matrix in matrices]
        return cls(np.concatenate(matrices), np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def n_prompts(self) -> int:
        """Number of prompts, each of which has one set."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Number of candidates of each prompt, shape (n_prompts,)."""
        return np.diff(self.offsets)

    def through(self, network: TwoLayerNetwork) -> CandidateSets:
        """Return the candidates with the hidden layer of a network as features.

        Parameters
        ----------
        network : TwoLayerNetwork
            Network on the present features, such as ``estimator.network_``.

        Returns
        -------
        CandidateSets
            The same sets, whose features are the outputs of the hidden neurons.
        """
        hidden = network.hidden(self.features).astype(np.float64)
        return CandidateSets(hidden, self.offsets)

    def log_probabilities(self, theta: ArrayLike) -> NDArray[np.float64]:
        r"""Return :math:`\log \pi_\theta` of each candidate.

        Parameters
        ----------
        theta : array-like, shape (n_features,)
            The policy.

        Returns
        -------
        ndarray, shape (n_candidates_total,)
            Log-probability of each candidate among those of its prompt.
        """
        scores = self.features @ as_vector("theta", theta, self.features.shape[1])
        starts, sizes = self.offsets[:-1], self.sizes
        scores = scores - np.repeat(np.maximum.reduceat(scores, starts), sizes)
        return scores - np.repeat(np.log(np.add.reduceat(np.exp(scores), starts)), sizes)

    def probabilities(self, theta: ArrayLike) -> NDArray[np.float64]:
        r"""Return :math:`\pi_\theta` of each candidate.

        Parameters
        ----------
        theta : array-like, shape (n_features,)
            The policy.

        Returns
        -------
        ndarray, shape (n_candidates_total,)
            Probability of each candidate among those of its prompt.
        """
        return np.exp(self.log_probabilities(theta))


def as_matrix(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return a finite matrix that is not empty, in float64, or raise ValueError."""
    matrix = np.ascontiguousarray(values, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(
            f"{name} has shape {matrix.shape}; expected a matrix with at least one row and column."
        )
    return _finite(name, matrix)


def as_vector(name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
    """Return ``size`` finite numbers, in float64, or raise ValueError."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (size,):
        raise ValueError(f"{name} has shape {vector.shape}; expected ({size},).")
    return _finite(name, vector)


def _finite(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    wrong = ~np.isfinite(values)
    if wrong.any():
        row = int(np.argwhere(wrong)[0, 0])
        raise ValueError(f"{name} is not finite in row {row}; remove or correct the row.")
    return values
