"""What scores say of classes: labels and probabilities, with NumPy alone.

Scores have shape (n_samples,) for two classes, positive for the second one, or else
(n_samples, n_classes).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# Least and largest probability where nothing limits them.
ANY_PROBABILITY = (0.0, 1.0)


def scores_of(outputs: Floats) -> Floats:
    """Return the outputs of a network, (n_samples, n_outputs), as scores."""
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs


def winner(scores: Floats) -> NDArray[np.intp]:
    """Return the class code of each row of scores; those of two classes may be a column."""
    if scores.ndim == 2 and scores.shape[1] > 1:
        return scores.argmax(axis=1)
    return (scores.ravel() > 0).astype(np.intp)


def bent(scores: Floats, bend: float) -> Floats:
    r"""Return scores of a network with targets -1 and 1 as ratios of chances rather than chances.

    Least squares gives a class the chance :math:`(1 + s) / 2`. The softmax of scores makes equal
    *differences* of chances equal odds, so that 0.01 and 0.001 look alike. It is applied to

    .. math:: \frac{2 \log 2}{b} \log \log (1 + e^{b (1 + s)})

    instead, which is the score itself, up to a constant, for :math:`b \to 0`, and far above
    :math:`s = 1 / b - 1` the logarithm of the chance. The order of scores stays.

    Parameters
    ----------
    scores : ndarray
        Of classes; of two classes one, (n_samples,) or (n_samples, 1).
    bend : float
        The number :math:`b`, at least 0.

    Returns
    -------
    ndarray
        Scores of the same shape.
    """
    if bend == 0:
        return scores
    if scores.ndim == 1 or scores.shape[1] == 1:  # half the difference of the two classes
        return (_bent(scores, bend) - _bent(-scores, bend)) / 2
    return _bent(scores, bend)


def _bent(scores: Floats, bend: float) -> Floats:
    x = bend * (1 + scores)
    low = -15.0  # below, softplus is the exponential
    logarithm = np.where(x > low, np.log(np.logaddexp(0, np.maximum(x, low))), x)
    return np.asarray(2 * np.log(2) / bend * logarithm).astype(scores.dtype, copy=False)


def probabilities(
    scores: Floats,
    *,
    one_against_rest: bool = False,
    within: Sequence[float] | Floats = ANY_PROBABILITY,
) -> Floats:
    """Return the probabilities of classes, shape (n_samples, n_classes).

    Those of a row that leave a range are mixed with even chances, just as much as it takes; the
    order of the classes stays.

    Parameters
    ----------
    scores : ndarray
        Log-odds of the second of two classes; or logits of the softmax.
    one_against_rest : bool, default=False
        Whether several scores are log-odds, each of its class against the rest. The probabilities
        are then brought to sum 1.
    within : pair of floats, default=(0, 1)
        The least and the largest probability, below and above those of equal chances.
    """
    logits = _logits(scores, one_against_rest)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = odds / odds.sum(axis=1, keepdims=True)
    if tuple(within) == ANY_PROBABILITY:
        return found
    share = _even_share(found, within)
    return (1 - share) * found + share / found.shape[1]


def probability_range(scores: Floats, *, one_against_rest: bool = False) -> NDArray[np.float64]:
    """Return the least and the largest of :func:`probabilities`."""
    found = probabilities(scores, one_against_rest=one_against_rest)
    return np.array([found.min(), found.max()], np.float64)


def log_probabilities(
    scores: Floats,
    *,
    one_against_rest: bool = False,
    within: Sequence[float] | Floats = ANY_PROBABILITY,
) -> Floats:
    """Return logarithms of :func:`probabilities`, of two classes exact where these round to 1."""
    if scores.ndim == 1:
        found = -np.logaddexp(0, np.stack([scores, -scores], axis=1))
    else:
        logits = _logits(scores, one_against_rest)
        logits = logits - logits.max(axis=1, keepdims=True)
        found = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    if tuple(within) == ANY_PROBABILITY:
        return found
    share = _even_share(np.exp(found), within)
    with np.errstate(divide="ignore"):  # a share of 0 or 1
        own, even = np.log1p(-share) + found, np.log(share / found.shape[1])
    return np.where(share > 0, np.logaddexp(own, even), found)


def _even_share(found: Floats, within: Sequence[float] | Floats) -> Floats:
    """Return the share of even chances that brings each row within a range, as a column."""
    (least, largest), even = map(float, within), 1 / found.shape[1]
    tiny = np.finfo(found.dtype).tiny  # the distance from even chances of rows that have them
    low, high = found.min(axis=1, keepdims=True), found.max(axis=1, keepdims=True)
    lift = (least - low) / np.maximum(even - low, tiny)
    press = (high - largest) / np.maximum(high - even, tiny)
    return np.clip(np.maximum(lift, press), 0, 1)


def _logits(scores: Floats, one_against_rest: bool) -> Floats:
    """Return what the softmax turns into probabilities."""
    if scores.ndim == 1:
        return np.stack([np.zeros_like(scores), scores], axis=1)
    return -np.logaddexp(0, -scores) if one_against_rest else scores
