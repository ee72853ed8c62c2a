"""Hyper-parameters of a fine-tuned method, chosen on folds of the training pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from cvxnn.comparison.results import MethodResult
from cvxnn.preference.catalogue import OBJECTIVES
from cvxnn.preference.triplets import PreferenceTriplet, split_units

Pairs = list[PreferenceTriplet]
Point = dict[str, float]


def grid_of(method: str, given: Mapping[str, object]) -> list[Point]:
    """Return the points of the grid that Table 8 of the COALA paper lists for an objective.

    Parameters
    ----------
    method : str
        Objective, a key of `cvxnn.preference.OBJECTIVES`.
    given : mapping of str to object
        Hyper-parameters that are set already, which the grid leaves alone.

    Returns
    -------
    list of dict
        Values of the other hyper-parameters; empty if the objective has none.
    """
    axes = {name: v for name, v in OBJECTIVES[method].grid.items() if name not in given}
    values = itertools.product(*axes.values())
    return [dict(zip(axes, point, strict=True)) for point in values] if axes else []


def folds_of(
    pairs: Sequence[PreferenceTriplet], n_folds: int, seed: int
) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield the two sides of each fold; no group and no prompt is on both.

    Parameters
    ----------
    pairs : sequence of PreferenceTriplet
        Pairs of at least as many units as folds.
    n_folds : int
        Number of folds, at least 2.
    seed : int
        Seed of the shuffle.

    Yields
    ------
    tuple of list
        Pairs to train on and pairs to measure on.

    Raises
    ------
    ValueError
        If there are fewer units than folds; ask for fewer folds.
    """
    units = split_units(pairs)
    names = sorted(set(units))
    if not 2 <= n_folds <= len(names):
        raise ValueError(
            f"{n_folds} folds of {len(names)} groups that share no prompt; expected 2 to that many"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[unit]: place % n_folds for place, unit in enumerate(order)}
    for k in range(n_folds):
        sides: tuple[Pairs, Pairs] = ([], [])
        for pair, unit in zip(pairs, units, strict=True):
            sides[fold[unit] == k].append(pair)
        yield sides


def choose_point(
    points: Sequence[Point],
    folds: Sequence[tuple[Pairs, Pairs]],
    measure: Callable[[Point, int, Pairs, Pairs], MethodResult],
) -> tuple[Point, list[dict[str, object]], dict[str, float]]:
    """Return the point whose mean accuracy over the folds is largest; the first one of equals.

    Parameters
    ----------
    points : sequence of dict
        Points of a grid, at least one.
    folds : sequence of tuple
        Both sides of each fold.
    measure : callable
        ``measure(point, k, train, test)`` returns the result on fold ``k``.

    Returns
    -------
    point : dict
        The chosen values.
    rows : list of dict
        ``parameters`` and ``accuracies`` of each point.
    cost : dict
        ``flops`` and ``seconds`` of the whole search.
    """
    rows: list[dict[str, object]] = []
    means: list[float] = []
    cost = {"flops": 0.0, "seconds": 0.0}
    for point in points:
        found = [measure(point, k, *sides) for k, sides in enumerate(folds)]
        accuracies = [result.accuracy for result in found]
        rows.append({"parameters": point, "accuracies": accuracies})
        means.append(float(np.mean(accuracies)))
        cost["flops"] += sum(result.total_flops for result in found)
        cost["seconds"] += sum(sum(result.seconds.values()) for result in found)
    return points[int(np.argmax(means))], rows, cost
