"""Rows set apart from the fit, to score networks with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from cvxnn import convex  # names load when first used: JAX is for fits only
from cvxnn.estimators._rows import DistinctRows, Rows
from cvxnn.numerics.scores import winner

Floats = NDArray[np.floating]


class Validation(NamedTuple):
    """Rows to score networks with, their targets in the form of the loss, and weights."""

    X: Rows
    y: Floats
    weight: Floats


class TrainingRows(NamedTuple):
    """Distinct rows to fit, and rows set apart to score networks with, if there are any."""

    rows: DistinctRows
    validation: Validation | None


def set_apart(
    rows: DistinctRows, fraction: float, labels: NDArray[Any] | None, rng: np.random.RandomState
) -> TrainingRows:
    """Set a fraction of the rows apart, or of their groups; splits keep proportions of labels."""
    if rows.groups is None:
        kept, apart = split(len(rows.y), fraction, labels, rng)
    else:
        kept, apart = split_groups(rows.groups, fraction, labels, rng)
    seen = rows.take(apart)
    return TrainingRows(rows.take(kept), Validation(seen.X, seen.y, seen.weight))


def split(
    n: int, fraction: float, labels: NDArray[Any] | None, rng: np.random.RandomState
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows to fit, among them one of each class, and rows to set apart.

    The proportions of the classes are kept where there are rows enough.
    """
    size = int(np.ceil(fraction * n))
    classes, counts = np.unique(np.zeros(n) if labels is None else labels, return_counts=True)
    if counts.min() > 1 and min(size, n - size) >= len(classes) > 1:
        _, apart = train_test_split(np.arange(n), test_size=size, stratify=labels, random_state=rng)
    else:
        order = rng.permutation(n)
        first: Any = [] if labels is None else np.unique(labels[order], return_index=True)[1]
        apart = np.delete(order, first)[:size]
    if not len(apart) == size < n:
        raise ValueError(
            f"early_stopping cannot set {fraction:g} of {n} distinct rows apart, {size}, and leave "
            f"{len(classes)} or more to fit; pass X_val and y_val, or set early_stopping=False."
        )
    return np.setdiff1d(np.arange(n), apart), np.sort(apart)


def split_groups(
    groups: NDArray[np.intp],
    fraction: float,
    labels: NDArray[Any] | None,
    rng: np.random.RandomState,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows to fit, and rows of whole groups to set apart.

    Of 20 random choices of groups, the first is taken that leaves a row of each class to fit.
    """
    splitter = GroupShuffleSplit(20, test_size=fraction, random_state=rng)
    for kept, apart in splitter.split(groups, groups=groups):
        if labels is None or len(np.unique(labels[kept])) == len(np.unique(labels)):
            return kept, apart
    raise ValueError(
        f"early_stopping found no groups to set apart, {fraction:g} of them, without which each "
        "class has a row to fit; pass X_val and y_val, or set early_stopping=False."
    )


def is_correct(scores: Floats, truth: Floats) -> Floats:
    """Return 1 for each row whose class the scores have right, else 0."""
    return (winner(scores) == winner(truth)).astype(float)


def validation_score(
    loss: convex.Loss,
    y_scale: Floats,
    predicted: Floats,
    truth: Floats,
) -> Floats:
    """Return 1 minus twice the loss of each row, in standard deviations ``y_scale`` of targets.

    With the squared loss its mean is the coefficient of determination but for the variance, which
    is that of the training rows: one row has none, nor have rows of one value.
    """
    losses = np.asarray(loss.value(predicted / y_scale, truth / y_scale))
    return 1 - 2 * losses.reshape(len(losses), -1).mean(axis=1)
