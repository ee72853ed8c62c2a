r"""Gates on thresholds of single features: :math:`1(\pm(x_j - t) \ge 0)`, and pairs of them.

Such a gate is a rule on a named feature, and a pair of them is open where both rules hold, as on a
node of a decision tree. They see steps and interactions of few features, which Gaussian gates over
all features blur, and neither outliers nor the scale of a feature move them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Thresholds of a gate.
N_THRESHOLDS = 2


def threshold_gates(
    features: NDArray[np.floating],
    constants: NDArray[np.floating],
    count: int,
    rng: np.random.RandomState,
    chances: NDArray[np.floating] | None = None,
) -> NDArray[np.floating]:
    """Draw gates that are open where two random features are on random sides of thresholds.

    A threshold lies in a gap between two neighbouring values of its feature, which is drawn with
    the chance that it separates two random rows; so neither rare nor distant values are favoured.

    Parameters
    ----------
    features : ndarray, shape (n_samples, n_features)
        Rows.
    constants : ndarray, shape (n_constants,)
        Values of the columns that follow the features and carry the offset, at least one.
    count : int
        Number of gates.
    rng : RandomState
        Draws features, sides and gaps.
    chances : ndarray, shape (n_features,), optional
        How often features are drawn, in proportion; equal by default.

    Returns
    -------
    ndarray, shape (count, 2, n_features + n_constants)
        Gate vectors, in the dtype of the features.
    """
    d, carried = features.shape[1], 1 / (len(constants) * constants)
    gates = np.zeros((count, N_THRESHOLDS, d + len(constants)), features.dtype)
    low, high = features.min(axis=0), features.max(axis=0)
    varying = np.flatnonzero(high - low > _rounding(low, high))
    if not len(varying):  # no feature distinguishes rows: open on all of them
        gates[..., d:] = carried
        return gates
    shape = (count, N_THRESHOLDS)
    if chances is None or not chances[varying].any():
        chosen = varying[rng.randint(len(varying), size=shape)]
    else:
        parts = chances[varying] / chances[varying].sum()
        chosen = rng.choice(varying, size=shape, p=parts)
    side = rng.choice([-1.0, 1.0], size=shape)
    chance, place = rng.uniform(size=shape), rng.uniform(0.25, 0.75, size=shape)
    thresholds = np.empty(shape)
    for feature in np.unique(chosen):
        own = chosen == feature
        thresholds[own] = _between(features[:, feature], chance[own], place[own])
    np.put_along_axis(gates, chosen[..., None], side[..., None].astype(gates.dtype), axis=2)
    gates[..., d:] = -(side * thresholds)[..., None] * carried
    return gates


def _between(
    values: NDArray[np.floating], chance: NDArray[np.floating], place: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return points in gaps between values, from uniform numbers that pick a gap and a place."""
    values = np.sort(values)
    width = np.diff(values)
    below = np.flatnonzero(width > min(_rounding(values[0], values[-1]), width.max() / 2))
    part = (below + 1) / len(values)
    total = np.cumsum(part * (1 - part))
    gap = below[np.searchsorted(total[:-1], chance * total[-1], side="right")]
    return np.asarray(values[gap] + place * width[gap])


def _rounding(
    low: NDArray[np.floating] | np.floating, high: NDArray[np.floating] | np.floating
) -> NDArray[np.floating]:
    """Return the distance below which values within a range may be equal but for rounding."""
    return np.asarray(10 * np.finfo(low.dtype).eps * np.maximum(high, -low))
