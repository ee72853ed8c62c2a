"""The linear head of pairs that stay on the disk: L-BFGS, which reads them once an evaluation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from cvxnn.estimators._responses import Responses
from cvxnn.numerics.stored_rows import StoredRows, read_ahead
from cvxnn.numerics.threads import limit_threads

Floats = NDArray[np.float64]

# Numbers of a sample of pairs that is kept in memory, to choose a strength on: 128 MiB in float32.
_SAMPLE_NUMBERS = 2**25


class LinearFit(NamedTuple):
    """Weights of a linear head.

    Attributes
    ----------
    weights : ndarray of float64, shape (n_features,)
        Of features in units of their scale.
    n_iter : int
        Iterations.
    n_evaluations : int
        How often all pairs were read.
    """

    weights: Floats
    n_iter: int
    n_evaluations: int


def sampled(rows: Responses, random_state: np.random.RandomState) -> Responses | None:
    """Return as many random pairs of stored rows as memory should hold; None where all fit.

    Parameters
    ----------
    rows : Responses
        Pairs whose embeddings are ``StoredRows``.
    random_state : numpy.random.RandomState
        Source of the choice.
    """
    assert rows.pairs is not None
    most = max(_SAMPLE_NUMBERS // (2 * rows.X.shape[1]), 2)
    if len(rows.pairs) <= most:
        return None
    drawn = random_state.permutation(len(rows.pairs))[:most]
    return rows.take(np.unique(rows.pairs[drawn]))


def fit_streamed(
    rows: Responses,
    mean: NDArray[np.floating],
    scale: NDArray[np.floating],
    *,
    C: float,
    tol: float,
    max_iter: int,
    start: Floats,
) -> LinearFit:
    r"""Minimise the Bradley-Terry loss of all pairs plus a ridge.

    .. math::

        \tfrac1{\sum_k \omega_k} \Big(\sum_k \omega_k \log\big(1 + e^{-w^T m_k}\big)
            + \tfrac1{2C} \|w\|^2\Big)

    It is what scikit-learn's ``LogisticRegression`` minimises, with its test of the end. Blocks of
    pairs are read one after the other, the next one while it computes with this one.

    Parameters
    ----------
    rows : Responses
        Pairs whose embeddings are ``StoredRows``.
    mean, scale : ndarray, shape (n_features,)
        Units of the features.
    C : float
        Inverse strength, above 0.
    tol : float
        Largest slope to end at.
    max_iter : int
        Most iterations.
    start : ndarray of float64, shape (n_features,)
        Weights to begin at, such as those of a sample.
    """
    X: Any = rows.X
    loss: Any = _MeanLoss(X.scaled(mean, scale), rows, C)
    options: Any = {"maxiter": max_iter, "gtol": tol, "ftol": 64 * np.finfo(float).eps}
    with limit_threads(2.0 * len(rows.X) * rows.X.shape[1]):
        found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return LinearFit(found.x, int(found.nit), int(found.nfev))


class _MeanLoss:
    """Value and gradient of the mean loss with its ridge."""

    def __init__(self, Z: StoredRows, rows: Responses, C: float) -> None:
        assert rows.pairs is not None
        assert rows.pair_weight is not None
        self.Z, self.pairs = Z, rows.pairs
        self.share = rows.pair_weight.astype(np.float64) / float(rows.pair_weight.sum())
        self.ridge = 1 / (C * float(rows.pair_weight.sum()))

    def __call__(self, w: Floats) -> tuple[float, Floats]:
        value, gradient = self.ridge / 2 * float(w @ w), self.ridge * w
        blocks = list(self.Z.blocks(2 * self.Z.shape[1]))
        blocks = [part for part in blocks if part.start < len(self.pairs)]
        read = read_ahead(self.Z, (self.pairs[part].T.ravel() for part in blocks))
        for part, (_, both) in zip(blocks, read, strict=True):
            won, lost = both[: len(both) // 2], both[len(both) // 2 :]
            margins = (won - lost).astype(np.float64)
            logits = margins @ w
            share = self.share[part]
            value += float(share @ np.logaddexp(0, -logits))
            gradient -= (share * expit(-logits)) @ margins
        return value, gradient
