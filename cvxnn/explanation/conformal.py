r"""Intervals and sets that hold the truth as often as they say, from fits without each row.

The jackknife+ (Barber, Candes, Ramdas & Tibshirani, 2021) compares what the fit without row
:math:`i` says of a new row with how wrong it was about row :math:`i` itself. If the rows and the
new one are exchangeable, and the fit treats all rows alike, the truth is covered with probability
at least :math:`1 - 2 (1 - \ell)` at the level :math:`\ell`, whatever the distribution; in practice
with about :math:`\ell`. It needs a fit without each row, which :class:`Influence` has at once.

Gates are drawn before targets are looked at, so they do no harm; where they were chosen with the
targets, a warning says so. Scaling, strength, the kind of gates and the factors of features are
chosen from all rows, and stay the same when one is left out: what the theorem asks for holds but
for the influence of a single row on these. ``feature_factors="equal"`` chooses none from targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._messages import warn
from cvxnn.explanation.influence import Influence

Floats = NDArray[np.floating]

# Most predictions at a time: 64 MiB.
_MOST_NUMBERS = 2**23


def prediction_interval(
    influence: Influence, X: ArrayLike, level: float = 0.9
) -> NDArray[np.floating]:
    r"""Return an interval for the target of each row, by the jackknife+.

    Parameters
    ----------
    influence : Influence
        Of a regressor, ``regressor.influence(X, y)``.
    X : array-like, shape (n_samples, n_features)
        New rows.
    level : float, default=0.9
        How often the interval is meant to hold the target, in (0, 1). What is proved is
        :math:`1 - 2 (1 - \ell)`.

    Returns
    -------
    ndarray, shape (n_samples, n_outputs, 2)
        Lower and upper ends; infinite where there are too few rows for the level.

    Raises
    ------
    TypeError
        If the influence is of another kind.
    ValueError
        If ``level`` is not in (0, 1), or groups were left out rather than rows.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import ConvexReLURegressor
    >>> from cvxnn.explanation import prediction_interval
    >>> X = np.linspace(-1, 1, 60)[:, None]
    >>> y = X[:, 0] + 0.1 * np.random.RandomState(0).randn(60)
    >>> model = ConvexReLURegressor(random_state=0).fit(X, y)
    >>> low, high = prediction_interval(model.influence(X, y), [[0.5]])[0, 0]
    >>> bool(low < 0.5 < high and high - low < 0.5)
    True
    """
    _check(influence, level, "numbers")
    errors = np.abs(influence.targets - influence.unseen)
    n = influence.n_units
    # Of n ends the k-th from outside, where n + 1 rows would leave out the part 1 - level.
    k = int(np.floor((1 - level) * (n + 1) + 1e-9))
    found = (influence.scores_on(some) for some in _blocks(influence, X))
    return np.concatenate([_ends(scores, errors, k) for scores in found])


def label_set(influence: Influence, X: ArrayLike, level: float = 0.9) -> NDArray[np.bool_]:
    r"""Return the labels that a row may have: a set that holds the truth as often as it says.

    Parameters
    ----------
    influence : Influence
        Of a classifier, ``classifier.influence(X, y)``.
    X : array-like, shape (n_samples, n_features)
        New rows.
    level : float, default=0.9
        How often the set is meant to hold the label, in (0, 1). What is proved is
        :math:`1 - 2 (1 - \ell)`.

    Returns
    -------
    ndarray of bool, shape (n_samples, n_classes)
        True for the labels in the set, in the order of ``classes_``. A set of all labels abstains,
        an empty one says that the row is unlike any.

    Raises
    ------
    TypeError
        If the influence is of another kind.
    ValueError
        If ``level`` is not in (0, 1), or groups were left out rather than rows.
    """
    _check(influence, level, "classes")
    return np.concatenate(
        [
            _in_set(influence, _doubts(influence.scores_on(some)), level)
            for some in _blocks(influence, X)
        ]
    )


def preference_set(
    influence: Influence, first: ArrayLike, second: ArrayLike, level: float = 0.9
) -> NDArray[np.bool_]:
    r"""Return which of two replies may be the better one, or both: then the head abstains.

    Parameters
    ----------
    influence : Influence
        Of a head that was fitted to pairs.
    first, second : array-like, shape (n_pairs, n_features)
        Embeddings of the replies to each prompt.
    level : float, default=0.9
        How often the set is meant to hold the reply that will be chosen, in (0, 1). What is proved
        is :math:`1 - 2 (1 - \ell)`, for pairs that are exchangeable: several pairs of one
        conversation are not.

    Returns
    -------
    ndarray of bool, shape (n_pairs, 2)
        Whether the first reply may be the better one, and whether the second may. Neither may
        where the margin is small for a head that is nearly always right by more.

    Raises
    ------
    TypeError
        If the influence is of another kind.
    ValueError
        If ``level`` is not in (0, 1), groups were left out rather than pairs, or replies are not as
        many.
    """
    _check(influence, level, "pairs")
    n, others = _n_rows(first), _n_rows(second)
    if n != others:
        raise ValueError(
            f"{n} first replies and {others} second ones; expected one of each for every pair."
        )
    blocks = zip(_blocks(influence, first), _blocks(influence, second), strict=True)
    margins = (influence.scores_on(one) - influence.scores_on(two) for one, two in blocks)
    return np.concatenate(
        [_in_set(influence, _doubts(margin)[..., ::-1], level) for margin in margins]
    )


_FOR = {"numbers": "prediction_interval", "classes": "label_set", "pairs": "preference_set"}


def _check(influence: Influence, level: float, kind: str) -> None:
    if not isinstance(influence, Influence):
        raise TypeError(
            f"influence is a {type(influence).__name__}; expected what estimator.influence(X, y) "
            "returns."
        )
    if influence.kind != kind:
        raise TypeError(
            f"{_FOR[kind]} is for {kind}, and this influence is of {influence.kind}: use "
            f"{_FOR[influence.kind]}."
        )
    if not (isinstance(level, Real) and 0 < level < 1):
        raise ValueError(f"level={level!r}; expected a number above 0 and below 1.")
    if len(influence.unit) != influence.n_units:
        raise ValueError(
            "these need an influence of single rows or pairs: use leave_out='row', and groups of "
            "which only one row is given if rows of a group resemble each other."
        )
    if influence.gates_of_targets:
        warn(
            "the gates were chosen with the targets (patterns='local'), so that fits without a row "
            "still know its target: the level is not proved; use patterns='auto' or 'gaussian'.",
            UserWarning,
        )


def _ends(scores: Floats, errors: Floats, k: int) -> Floats:
    """Return the k-th lowest and highest ends of each row and output."""
    if k < 1:
        return np.full((*scores.shape[::2], 2), [-np.inf, np.inf])
    low = np.partition(scores - errors, k - 1, axis=1)[:, k - 1]
    high = np.partition(scores + errors, -k, axis=1)[:, -k]
    return np.stack([low, high], axis=-1)


def _n_rows(X: Any) -> int:
    shape = X.shape if hasattr(X, "shape") else np.shape(X)
    return int(shape[0]) if shape else 0


def _blocks(influence: Influence, X: Any) -> Iterator[Any]:
    """Give blocks of rows whose predictions by all fits fit into bounded memory."""
    n, numbers = _n_rows(X), influence.n_units * influence.targets.shape[1]
    step = max(_MOST_NUMBERS // numbers, 1)
    if n <= step:
        yield X
        return
    rows = X if hasattr(X, "shape") else np.asarray(X)
    rows = rows.iloc if hasattr(rows, "iloc") else rows
    for first in range(0, n, step):
        yield rows[first : first + step]


def _doubts(scores: Floats) -> Floats:
    """Return by how much another class is ahead of each, (n_samples, n_units, n_classes)."""
    if scores.shape[2] == 1:
        return np.concatenate([scores, -scores], axis=2)
    ranked = np.sort(scores, axis=2)
    first, second = ranked[..., -1:], ranked[..., -2:-1]
    return np.where(scores == first, second, first) - scores


def _in_set(influence: Influence, doubts: Floats, level: float) -> NDArray[np.bool_]:
    """Return which classes are doubted no more than rows of the fit were, often enough."""
    higher = (doubts > influence.doubt[None, :, None]).sum(axis=1)
    return np.asarray(higher < level * (influence.n_units + 1) - 1e-9)
