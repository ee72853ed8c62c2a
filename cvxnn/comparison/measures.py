"""Accuracy of rewards on pairs, its standard error over groups, and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.preference.metrics import pair_accuracy

if TYPE_CHECKING:
    from cvxnn.costs.resources import Cost


def accuracy_and_error(margins: ArrayLike, groups: Sequence[str]) -> tuple[float, float]:
    """Return the pair accuracy and its standard error over groups of pairs.

    Parameters
    ----------
    margins : array-like of shape (n_pairs,)
        Reward of the chosen reply minus that of the rejected one; a tie counts half.
    groups : sequence of str
        Group of each pair.

    Returns
    -------
    accuracy : float
        Share of pairs with a positive margin.
    standard_error : float
        See :func:`mean_and_error`.
    """
    return pair_accuracy(margins), mean_and_error(correct(margins), groups)[1]


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
