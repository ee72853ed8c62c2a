"""Judgements, and how often one side wins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.preference.data import Prompt

Array = NDArray[np.float64]
Ties = Literal["half", "exclude"]
Shown = Literal["ab", "ba", "both"]


@dataclass(frozen=True)
class Judgement:
    """A verdict on two replies to a prompt.

    Parameters
    ----------
    prompt : str or list of Message
    output_a, output_b : str
        The two replies; one may be empty, as models' replies sometimes are.
    preference : float
        For `output_a`, in [0, 1]; 0.5 is a tie.
    shown : {"ab", "ba", "both"} or None, default=None
        Order in which the judge saw the replies; None if unknown.
    system_a, system_b : str, default=""
        Who wrote them.
    """

    prompt: Prompt
    output_a: str
    output_b: str
    preference: float
    shown: Shown | None = None
    system_a: str = ""
    system_b: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.preference <= 1.0:
            raise ValueError(
                f"preference is {self.preference!r}; expected a number from 0 (output_b wins) to 1 "
                "(output_a wins)"
            )

    @property
    def length_difference(self) -> int:
        """Characters that `output_a` has more than `output_b`."""
        return len(self.output_a) - len(self.output_b)


@dataclass(frozen=True)
class WinRate:
    """How often the first reply wins.

    Attributes
    ----------
    rate : float
        Mean preference.
    standard_error : float
        Standard deviation of the preferences over the root of their number; NaN for one.
    interval : (float, float)
        Wilson's interval.
    wins, losses, ties : int
        Preferences above, below and at 0.5.
    """

    rate: float
    standard_error: float
    interval: tuple[float, float]
    wins: int
    losses: int
    ties: int

    def __str__(self) -> str:
        low, high = self.interval
        counts = f"{self.wins} won, {self.losses} lost, {self.ties} tied"
        return f"{self.rate:.1%} [{low:.1%}, {high:.1%}] ({counts})"


def win_rate(preferences: ArrayLike, *, ties: Ties = "half", confidence: float = 0.95) -> WinRate:
    """Share of comparisons that the first reply wins.

    Parameters
    ----------
    preferences : array-like, shape (n,)
        For the first reply, in [0, 1].
    ties : {"half", "exclude"}, default="half"
        A tie (exactly 0.5) counts as half a win, or not at all. COALA's Table 7 excludes them.
    confidence : float, default=0.95
        Of the interval. Wilson's interval is exact enough for wins and losses, and wider than need
        be with ties or probabilities, whose variance is smaller.

    Returns
    -------
    WinRate

    Raises
    ------
    ValueError
        If there are no preferences, only ties where they are excluded, or one outside [0, 1].

    Notes
    -----
    The comparisons count as independent. Where one prompt was judged several times, average its
    preferences first.

    Examples
    --------
    >>> print(win_rate([1, 1, 0, 0.5]))
    62.5% [21.9%, 90.8%] (2 won, 1 lost, 1 tied)
    >>> print(win_rate([1, 1, 0, 0.5], ties="exclude"))
    66.7% [20.8%, 93.9%] (2 won, 1 lost, 1 tied)
    """
    values = checked_preferences(preferences)
    counts = [int(np.sum(which)) for which in (values > 0.5, values < 0.5, values == 0.5)]
    if ties == "exclude":
        values = values[values != 0.5]
        if values.size == 0:
            raise ValueError('all preferences are ties; expected a win or a loss, or ties="half"')
    elif ties != "half":
        raise ValueError(f"ties is {ties!r}; expected 'half' or 'exclude'")
    n, rate = len(values), float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    z = quantile(confidence)
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At a rate of 0 or 1 the interval ends there; rounding must not say otherwise.
    interval = (min(max(middle - half, 0.0), rate), max(min(middle + half, 1.0), rate))
    return WinRate(rate, error, interval, *counts)


def win_rates(
    preferences: ArrayLike,
    groups: Sequence[str],
    *,
    ties: Ties = "half",
    confidence: float = 0.95,
) -> dict[str, WinRate]:
    """Win rate of each group, such as a data set, a subject or a system.

    Parameters
    ----------
    preferences : array-like, shape (n,)
    groups : sequence of str, length n
    ties, confidence
        As in `win_rate`.

    Returns
    -------
    dict of str to WinRate
        In the order in which the groups first appear.
    """
    values = checked_preferences(preferences)
    rows = rows_of(groups, len(values), "groups")
    return {
        name: win_rate(values[found], ties=ties, confidence=confidence)
        for name, found in rows.items()
    }


@dataclass(frozen=True)
class PairwiseWinRates:
    """Who beats whom.

    Attributes
    ----------
    systems : tuple of str
        Best first, by their mean rate.
    rates : ndarray of shape (k, k)
        Rate at which the row's system wins against the column's; NaN where they never met.
    counts : ndarray of shape (k, k)
        Number of judgements.
    """

    systems: tuple[str, ...]
    rates: Array = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)

    @property
    def mean(self) -> Array:
        """Mean rate of each system over the opponents that it met, shape (k,)."""
        return np.nanmean(self.rates, axis=1)

    def __str__(self) -> str:
        lines = [["", *self.systems, "mean"], ["---"] * (len(self.systems) + 2)]
        for name, row, mean in zip(self.systems, self.rates, self.mean, strict=True):
            cells = ["" if np.isnan(rate) else f"{rate:.1%}" for rate in row]
            lines.append([name, *cells, f"{mean:.1%}"])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pairwise_win_rates(judgements: Iterable[Judgement], *, ties: Ties = "half") -> PairwiseWinRates:
    """Table of win rates between all systems that were compared.

    Parameters
    ----------
    judgements : iterable of Judgement
        With `system_a` and `system_b`, in either order.
    ties : {"half", "exclude"}, default="half"
        As in `win_rate`.

    Returns
    -------
    PairwiseWinRates
        ``print`` shows it as a Markdown table.

    Raises
    ------
    ValueError
        If there is no judgement, or one without two different systems, or a pair has only ties
        where they are excluded.
    """
    meetings: dict[tuple[str, str], list[float]] = {}
    for number, judgement in enumerate(judgements):
        a, b = judgement.system_a, judgement.system_b
        if not a or not b or a == b:
            raise ValueError(
                f"judgement {number} has the systems {a!r} and {b!r}; expected two different names"
            )
        meetings.setdefault((a, b), []).append(judgement.preference)
        meetings.setdefault((b, a), []).append(1.0 - judgement.preference)
    if not meetings:
        raise ValueError("there are no judgements; expected at least one")
    names = list(dict.fromkeys(name for name, _ in meetings))
    place = {name: i for i, name in enumerate(names)}
    rates = np.full((len(names), len(names)), np.nan)
    counts = np.zeros(rates.shape, dtype=np.int64)
    for (a, b), preferences in meetings.items():
        rates[place[a], place[b]] = win_rate(preferences, ties=ties).rate
        counts[place[a], place[b]] = len(preferences)
    order = np.argsort(-np.nanmean(rates, axis=1), kind="stable")
    square = np.ix_(order, order)
    return PairwiseWinRates(tuple(names[i] for i in order), rates[square], counts[square])


def quantile(confidence: float) -> float:
    """Of the normal distribution, for a two-sided interval."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence!r}; expected a number between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def checked_preferences(values: ArrayLike) -> Array:
    """At least one number, each in [0, 1]."""
    array = column(values, None, "preferences")
    if array.size == 0:
        raise ValueError("there are no preferences; expected at least one")
    wrong = np.flatnonzero((array < 0) | (array > 1))
    if wrong.size:
        raise ValueError(
            f"preferences[{wrong[0]}] is {array[wrong[0]]:g}; expected a number from 0 (the second "
            "reply wins) to 1 (the first wins)"
        )
    return array


def column(values: Any, length: int | None, name: str) -> Array:
    """Finite numbers of shape (length,)."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "(n,)" if length is None else f"({length},), one for each preference"
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinity; leave such comparisons out")
    return array


def rows_of(names: Sequence[str], length: int, what: str) -> dict[str, NDArray[np.intp]]:
    """Row numbers of each name, in the order in which the names first appear."""
    if isinstance(names, str) or len(names) != length:
        raise ValueError(f"{what} are {len(names)}; expected {length}, one for each preference")
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    return {name: np.array(rows) for name, rows in found.items()}
