"""Rows on which a strength is chosen: a sample of all, drawn by weight, with every class in it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.program import ConvexProgram

# Rows that are looked at, unless outputs are many: then as many of each, up to a limit.
MOST_ROWS = 512
_ROWS_OF_OUTPUT, _LIMIT = 8, 2048
# Groups that a sample has at least, if there are so many: of larger ones, it has a part.
_LEAST_GROUPS = 16


class Sample(NamedTuple):
    """Rows that the choice looks at.

    Attributes
    ----------
    program : ConvexProgram
        Of these rows, with the weights that make them stand for all.
    units : ndarray, shape (n_samples,), or None
        Units of data that each row consists of, at least 1; None where each is one.
    groups : ndarray of int, shape (n_samples,), or None
        Groups that are left out as wholes; None where single units are.
    part : float
        Effective number of units in the sample, as a fraction of that in all rows.
    """

    program: ConvexProgram
    units: NDArray[np.floating] | None
    groups: NDArray[np.intp] | None
    part: float

    def half(self) -> NDArray[np.intp]:
        """Return the numbers of every second row, or of the rows of every second group."""
        order = np.arange(len(self.program.y))
        if self.groups is not None:
            # Numbered as they come: their names say nothing.
            _, first, own = np.unique(self.groups, return_index=True, return_inverse=True)
            order = np.argsort(np.argsort(first))[own]
        return np.flatnonzero(order % 2 == 0)

    def take(self, rows: NDArray[np.intp]) -> Sample:
        """Return the sample that some of the rows are.

        Parameters
        ----------
        rows : ndarray of int
            Numbers of rows of the sample.
        """
        program, units, groups, part = self
        weight = None if program.sample_weight is None else program.sample_weight[rows]
        program = replace(
            program,
            operator=program.operator.take(rows),
            y=program.y[rows],
            sample_weight=weight,
        )
        units = None if units is None else units[rows]
        groups = None if groups is None else groups[rows]
        return Sample(program, units, groups, part * len(rows) / len(self.program.y))


def sample_rows(
    program: ConvexProgram,
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
    most: int | None = None,
) -> Sample:
    """Draw rows by their weight, so that they stand for all, with every class among them.

    Parameters
    ----------
    program : ConvexProgram
        On the host.
    random_state : RandomState
        Draws the rows.
    units : ndarray, shape (n_samples,), optional
        Units of data that each row consists of, at least 1; by default each is one.
    groups : ndarray of int, shape (n_samples,), optional
        Groups of rows. Whole groups are drawn then, and of large ones a part.
    most : int, optional
        Number of rows up to which all are taken. By default 512, or 8 for each output where that
        is more, up to 2048: two or three rows say little of a class.

    Returns
    -------
    Sample
        All rows, or at most about ``most``.
    """
    n, n_outputs = program.y.shape
    if most is None:
        most = max(MOST_ROWS, min(_ROWS_OF_OUTPUT * n_outputs, _LIMIT))
    if n <= most:
        return Sample(program, units, groups, 1.0)
    weight = np.ones(n) if program.sample_weight is None else program.sample_weight.astype(float)
    count = np.ones(n) if units is None else units
    if groups is None:
        drawn = _draw_by_weight(weight, _strata(program.y, most // 2), most, random_state)
    else:
        drawn = _draw_groups(weight, groups, most, random_state)
    rows = np.flatnonzero(drawn.copies)
    share, number = drawn.weight[rows], np.minimum(drawn.copies, count)[rows]
    equal = bool(np.all(share == share[0]))
    sampled = replace(
        program,
        operator=program.operator.take(rows),
        y=program.y[rows],
        sample_weight=None if equal else share.astype(program.y.dtype),
    )
    part = _effective_units(share, number) / _effective_units(weight, count)
    single = bool(np.all(number == 1))
    of_rows = None if groups is None else groups[rows]
    return Sample(sampled, None if single else number, of_rows, part)


class _Drawn(NamedTuple):
    """How often each row was drawn, and the weight that it has in the sample."""

    copies: NDArray[np.floating]
    weight: NDArray[np.floating]


def _effective_units(weight: NDArray[np.floating], units: NDArray[np.floating]) -> float:
    """Return the number of equal units that determine a mean as well as these do (Kish, 1965)."""
    weight = weight / weight.max()
    return float(weight.sum() ** 2 / (weight**2 / units).sum())


def _strata(y: NDArray[np.floating], most: int) -> NDArray[np.intp]:
    """Return the number of each row's class; zeros where targets have more than ``most`` values."""
    codes = np.zeros(len(y), np.intp)
    for column in y.T:
        values, own = np.unique(column, return_inverse=True)
        if len(values) > most:
            return np.zeros(len(y), np.intp)
        distinct, codes = np.unique(codes * len(values) + own, return_inverse=True)
        if len(distinct) > most:
            return np.zeros(len(y), np.intp)
    return codes


def _draw_by_weight(
    weight: NDArray[np.floating],
    strata: NDArray[np.intp],
    most: int,
    random_state: np.random.RandomState,
) -> _Drawn:
    """Draw ``most`` rows, systematically in random order; half of them equally from all strata."""
    size, total = np.bincount(strata), np.bincount(strata, weights=weight)
    floor = np.minimum(size, most // (2 * len(size)))
    share = most * total / total.sum()
    rare = share < floor
    if rare.any() and not rare.all():
        share *= (most - floor[rare].sum()) / share[~rare].sum()
    wanted = np.minimum(np.where(rare, floor, np.maximum(np.rint(share), 1)), size)
    order = random_state.permutation(len(weight))
    copies, own = np.zeros(len(weight)), weight.copy()
    for k in range(len(size)):
        rows = order[strata[order] == k] if len(size) > 1 else order
        if wanted[k] == size[k]:
            copies[rows] = 1
            continue
        ends = np.cumsum(weight[rows]) * (wanted[k] / total[k])
        ends = np.floor(ends + random_state.uniform())
        copies[rows] = np.diff(ends, prepend=0)
        own[rows] = copies[rows] * (total[k] / wanted[k])
    return _Drawn(copies, own)


def _draw_groups(
    weight: NDArray[np.floating],
    groups: NDArray[np.intp],
    most: int,
    random_state: np.random.RandomState,
) -> _Drawn:
    """Draw groups in random order until there are ``most`` rows, a part of large ones."""
    _, codes, size = np.unique(groups, return_inverse=True, return_counts=True)
    largest = most // min(len(size), _LEAST_GROUPS)
    order = random_state.permutation(len(groups))
    order = order[np.argsort(codes[order], kind="stable")]
    place = np.arange(len(order)) - np.repeat(np.cumsum(size) - size, size)
    order = order[place < largest]
    rank = random_state.permutation(len(size))
    order = order[np.argsort(rank[codes[order]], kind="stable")][:most]
    copies = np.zeros(len(groups))
    copies[order] = 1
    return _Drawn(copies, copies * weight * (size / np.minimum(size, largest))[codes])
