r"""Weights under differential privacy, by a random linear term in the objective.

With feature vectors :math:`\phi_k` of norm at most 1 and a loss of slope at most :math:`L` and
curvature at most :math:`c`, objective perturbation (Chaudhuri, Monteleoni & Sarwate, 2011) returns

.. math::

    \theta = \arg\min_\theta \sum_k \ell(\phi_k^T \theta) + \tfrac\alpha2 \|\theta\|^2 + b^T \theta,
    \qquad b \sim N(0, \sigma^2 I).

Each :math:`\theta` is the optimum for exactly one :math:`b`, so that its density is known. One
record more changes the log density by at most :math:`\log(1 + c / \alpha)`, from the determinant of
the Hessian, plus that of a Gaussian whose mean moves by at most :math:`\mu = L / \sigma`, in a
direction :math:`\phi_k` that does not depend on :math:`b`. With
:math:`\epsilon' = \epsilon - \log(1 + c / \alpha)` the optimum is therefore
:math:`(\epsilon, \delta)`-private against adding or removing a record, where

.. math::

    \delta = 2 \left[ \bar\Phi(\epsilon' / \mu - \mu / 2)
        - e^{\epsilon'} \bar\Phi(\epsilon' / \mu + \mu / 2) \right]
    \quad (\epsilon' \ge \mu^2 / 2)

and :math:`\delta = 1 - 2 e^{\epsilon'} \bar\Phi(\mu)` otherwise: twice what a Gaussian mechanism
spends (Redberg, Koskela & Wang, 2023, section 3).

What a solver returns is not the optimum. The gradient there is computed, and the objective is
:math:`\alpha`-strongly convex, so that the optimum is within :math:`\tau = \|\nabla\| / \alpha`.
A second, far smaller Gaussian covers that distance (Iyengar et al., 2019), on a hundredth of the
budget.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import shifted_inverse

# Part of the budget that covers the distance of the weights from the optimum.
_COVERED = 0.01
# That distance, at most.
_NEAR = 1e-8
# Least second derivative of a loss, as a part of the largest: a step divides by it.
_FLOOR = 1e-6
_MOST_STEPS = 200
# A step is shortened where the slope at its end is more than this part of that at its beginning.
_ENOUGH = 0.1
# Most numbers of the features of all records: 2 GiB.
_MOST_NUMBERS = 2**28

Floats = NDArray[np.floating]


class Private(NamedTuple):
    """Weights under differential privacy, and what they cost.

    Attributes
    ----------
    blocks : ndarray, shape (1, n_patterns, n_features)
        Weights of the program's features.
    noise : float
        Standard deviation of each entry of the linear term.
    cover : float
        Standard deviation of what is added to each weight in the end.
    distance : float
        Bound on the distance of the weights from the optimum before that.
    n_steps : int
        Steps of Newton's method.
    """

    blocks: Floats
    noise: float
    cover: float
    distance: float
    n_steps: int


def spent_delta(
    epsilon: float, noise: float, *, alpha: float, slope: float, curvature: float
) -> float:
    r"""Return the :math:`\delta` that goes with an :math:`\epsilon`.

    Parameters
    ----------
    epsilon : float
        At least 0.
    noise : float
        Standard deviation of the linear term, above 0.
    alpha : float
        Strength of the ridge penalty, above 0, against the sum of the losses.
    slope, curvature : float
        Bounds of the loss's first and second derivative, for features of norm at most 1.

    Returns
    -------
    float
        In [0, 1].
    """
    mu, left = slope / noise, epsilon - np.log1p(curvature / alpha)
    if left >= mu**2 / 2:
        return float(2 * _gaussian_delta(left, mu))
    return float(min(1 - 2 * np.exp(left + log_ndtr(-mu)), 1.0))


def needed_noise(
    epsilon: float, delta: float, *, alpha: float, slope: float, curvature: float
) -> float:
    """Return the least noise of the linear term that keeps to a budget.

    Parameters
    ----------
    epsilon, delta : float
        Budget: above 0, and between 0 and 1.
    alpha, slope, curvature : float
        As for :func:`spent_delta`.

    Returns
    -------
    float
        Standard deviation.

    Raises
    ------
    ValueError
        If the strength alone spends the budget.
    """
    least = -curvature * np.exp(-epsilon) / np.expm1(-epsilon)
    if alpha <= least:
        raise ValueError(
            f"alpha={alpha:g} spends more than epsilon={epsilon:g} on the curvature of the "
            f"objective; expected more than {least:.3g}."
        )

    def excess(log_noise: float) -> float:
        noise = float(np.exp(log_noise))
        spent = spent_delta(epsilon, noise, alpha=alpha, slope=slope, curvature=curvature)
        return float(np.log(max(spent, 1e-300)) - np.log(delta))

    return _least(excess)


def perturbed(
    X: Floats,
    mask: NDArray[np.bool_],
    y: Floats,
    loss: Any,
    *,
    pairs: NDArray[np.intp] | None = None,
    alpha: float,
    epsilon: float,
    delta: float,
    slope: float,
    random: np.random.Generator,
) -> Private:
    """Minimise the perturbed objective on records of norm 1.

    Parameters
    ----------
    X : ndarray, shape (n_rows, n_features)
        Rows. Whatever the norm of a record's features, it is brought to 1.
    mask : ndarray of bool, shape (n_rows, n_patterns)
        Gates that are open on them, which must not depend on the rows.
    y : ndarray, shape (n_records, 1)
        Targets.
    loss : Loss
        One that is twice differentiable but for single points, with bounded derivatives.
    alpha : float
        Strength of the ridge penalty, against the sum of the losses.
    epsilon, delta : float
        Budget.
    slope : float
        Bound of the loss's first derivative; that of the second is ``loss.curvature``.
    random : Generator
        Source of the noise. It has to be secret.
    pairs : ndarray of int, shape (n_records, 2), optional
        Rows whose difference each record is; by default each row is one.

    Returns
    -------
    Private
        Weights that may be published.

    Raises
    ------
    ValueError
        If the strength alone spends the budget.
    RuntimeError
        If Newton's method does not come near the optimum. Nothing may be published then.
    """
    part = 1 - _COVERED
    curvature = float(loss.curvature)
    noise = needed_noise(
        part * epsilon, part * delta, alpha=alpha, slope=slope, curvature=curvature
    )
    # Two neighbouring data sets' weights are each as far from their optimum.
    cover = 2 * _NEAR / _gaussian_shift(_COVERED * epsilon, _COVERED * delta)
    data = RidgeData(X, mask.astype(np.float32), np.ones((len(y), 1)), y, pairs=pairs)
    features = _of_norm_one(data)
    linear = noise * random.standard_normal(data.n_weights)
    theta, distance, n_steps = _minimise(features, data.y[:, 0], loss, alpha, linear)
    if distance > _NEAR:
        raise RuntimeError(
            f"after {n_steps} steps the weights are {distance:.2g} from the optimum, where "
            f"{_NEAR:g} is needed: they are not private, and nothing is returned. Raise alpha."
        )
    theta += cover * random.standard_normal(len(theta))
    return Private(data.blocks(theta[:, None]), noise, cover, distance, n_steps)


def _of_norm_one(data: RidgeData) -> Floats:
    """Return the features of the records, each divided by its norm; what is zero stays zero."""
    if data.n_rows * data.n_weights > _MOST_NUMBERS:
        raise ValueError(
            f"{data.n_rows} records of {data.n_weights} weights take "
            f"{data.n_rows * data.n_weights / 2**27:.1f} GiB; expected at most "
            f"{_MOST_NUMBERS / 2**27:g}. Take fewer gates, or project the rows to fewer features."
        )
    features = np.empty((data.n_rows, data.n_weights))
    for rows, block in data.features():
        features[rows] = block
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, norms, out=features, where=norms > 0)


def _minimise(
    features: Floats, y: Floats, loss: Any, alpha: float, linear: Floats
) -> tuple[Floats, float, int]:
    """Return the optimum of the perturbed objective, a bound on its distance, and the steps."""
    n, p = features.shape
    # The Hessian, or by Woodbury's identity the kernel: whichever is smaller.
    kernel = features @ features.T if n < p else None
    floor = _FLOOR * float(loss.curvature)
    theta = -linear / alpha
    seen = features @ theta
    for step in range(_MOST_STEPS + 1):
        slope = features.T @ loss.gradient(seen, y) + alpha * theta + linear
        distance = float(np.linalg.norm(slope)) / alpha
        if distance <= _NEAR or step == _MOST_STEPS:
            break
        root = np.sqrt(np.maximum(loss.hessian(seen, y), floor))
        if kernel is None:
            weighted = root[:, None] * features
            ahead = -shifted_inverse(weighted.T @ weighted, alpha, overwrite=True)(slope)
        else:
            inverse = shifted_inverse(root[:, None] * kernel * root, alpha, overwrite=True)
            ahead = -(slope - features.T @ (root * inverse(root * (features @ slope)))) / alpha
        shift = features @ ahead
        length = _length(loss, y, alpha, linear, (theta, ahead), (seen, shift))
        theta, seen = theta + length * ahead, seen + length * shift
    return theta, distance, step


def _length(
    loss: Any,
    y: Floats,
    alpha: float,
    linear: Floats,
    weights: tuple[Floats, Floats],
    seen: tuple[Floats, Floats],
) -> float:
    """Return how far the objective falls along a step: where its slope changes sign, or 1."""
    (theta, ahead), (before, shift) = weights, seen
    fixed = float((alpha * theta + linear) @ ahead)
    norm2 = alpha * float(ahead @ ahead)

    def slope(t: float) -> float:
        return float(loss.gradient(before + t * shift, y) @ shift) + fixed + t * norm2

    # Near the optimum, the slope at the end of a step is rounding.
    if slope(1.0) <= _ENOUGH * abs(slope(0.0)):
        return 1.0
    return float(brentq(slope, 0.0, 1.0, xtol=1e-6)) if slope(0.0) < 0 else 1.0


def _gaussian_delta(epsilon: float, mu: float) -> float:
    """Return the delta of a Gaussian mechanism whose mean moves by ``mu`` deviations."""
    tail = np.exp(epsilon + log_ndtr(-epsilon / mu - mu / 2))
    return float(norm.sf(epsilon / mu - mu / 2) - tail)


def _gaussian_shift(epsilon: float, delta: float) -> float:
    """Return by how many deviations the mean of a Gaussian mechanism may move."""

    def excess(log_noise: float) -> float:
        spent = _gaussian_delta(epsilon, float(np.exp(-log_noise)))
        return float(np.log(max(spent, 1e-300)) - np.log(delta))

    return 1 / _least(excess)


def _least(excess: Any) -> float:
    """Return the noise at which a falling function of its logarithm is 0, or a little more."""
    return float(np.exp(brentq(excess, -20, 40, xtol=1e-10) + 1e-9))
