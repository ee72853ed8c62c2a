"""Accuracy of rewards on pairs, its uncertainty over groups, and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._messages import counted
from cvxnn.evaluation.win_rates import wilson_interval
from cvxnn.preference.metrics import pair_accuracy

if TYPE_CHECKING:
    from cvxnn.costs.resources import Cost


FEW_GROUPS = 30
"""Number of groups below which an accuracy says little."""


def accuracy_of(margins: ArrayLike, groups: Sequence[str]) -> dict[str, Any]:
    """Return the pair accuracy with its uncertainty.

    Parameters
    ----------
    margins : array-like of shape (n_pairs,)
        Reward of the chosen reply minus that of the rejected one; a tie counts half.
    groups : sequence of str
        Group of each pair; pairs of one group resemble each other.

    Returns
    -------
    dict
        ``accuracy``: share of pairs with a positive margin. ``standard_error``: see
        :func:`mean_and_error`. ``interval``: lower and upper end of Wilson's 95 % confidence
        interval for the number of independent pairs that would have this standard error. Where all
        pairs are right, or all wrong, this number is that of the groups.

    Examples
    --------
    >>> found = accuracy_of([1.0, 2.0, 0.5, 3.0], ["a", "b", "c", "d"])
    >>> found["accuracy"], [round(end, 2) for end in found["interval"]]
    (1.0, [0.51, 1.0])
    """
    accuracy = pair_accuracy(margins)
    error = mean_and_error(correct(margins), groups)[1]
    independent = float(len(set(groups)))
    if error > 0:
        independent = min(accuracy * (1 - accuracy) / error**2, len(groups))
    interval = list(wilson_interval(accuracy, independent))
    return {"accuracy": accuracy, "standard_error": error, "interval": interval}


def few_groups_text(n_groups: int) -> str:
    """Return a warning if so few groups are held out that an accuracy says little.

    Parameters
    ----------
    n_groups : int
        Number of groups of held-out pairs.

    Returns
    -------
    str
        The warning; empty from `FEW_GROUPS` groups on.
    """
    if n_groups >= FEW_GROUPS:
        return ""
    return (
        f"the accuracy is measured on {counted(n_groups, 'conversation')} or "
        f"{counted(n_groups, 'prompt').split()[1]} only, so it may be far off, as its interval "
        f"shows; measure it on at least {FEW_GROUPS}"
    )


def mean_and_error(values: NDArray[np.floating], groups: Sequence[str]) -> tuple[float, float]:
    """Return the mean, and its standard error if the groups were drawn independently.

    Pairs of one conversation resemble each other, so their values are summed before the spread of
    the sums is taken. With one pair in each group this is the usual standard error.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Numbers to average.
    groups : sequence of str
        Group of each number.

    Returns
    -------
    mean : float
        Mean of the values.
    standard_error : float
        Its cluster-robust standard error; NaN if there is only one group.

    Raises
    ------
    ValueError
        If the lengths of the two differ.
    """
    if len(values) != len(groups):
        raise ValueError(f"{len(values)} values for {len(groups)} groups; expected one for each")
    mean = float(np.mean(values))
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    totals = np.bincount(codes, weights=values - mean)
    n_groups = len(totals)
    if n_groups == 1:
        return mean, float("nan")
    variance = n_groups / (n_groups - 1) * np.sum(totals**2)
    return mean, float(np.sqrt(variance) / len(values))


def peak_memory(cost: Cost) -> float:
    """Return the largest memory in bytes.

    Parameters
    ----------
    cost : Cost
        Measured cost.

    Returns
    -------
    float
        Memory of tensors on the GPU if one was used, otherwise of the whole process.
    """
    return float(cost.device_peak_bytes or cost.peak_bytes)


def correct(margins: ArrayLike) -> NDArray[np.floating]:
    """Return 1 for each pair that is ranked correctly, 0 for the others, a half for ties.

    Parameters
    ----------
    margins : array-like of shape (n_pairs,)
        Reward of the chosen reply minus that of the rejected one.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Numbers whose mean is the pair accuracy.
    """
    margins = np.asarray(margins)
    return (margins > 0) + 0.5 * (margins == 0)
