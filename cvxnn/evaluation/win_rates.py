"""Judgements, and the rates at which one system's replies are preferred to another's.

A preference is a number in [0, 1]: 1 if the first reply wins, 0 if the second reply wins, 0.5 for a
tie, and any number between for a judge that returns probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.preference.triplets import Prompt

Array = NDArray[np.float64]
Ties = Literal["half", "exclude"]
Shown = Literal["ab", "ba", "both"]


@dataclass(frozen=True)
class Judgement:
    """Verdict on two replies to a prompt.

    Parameters
    ----------
    prompt : str or list of Message
        The text or the messages that the replies answer.
    output_a, output_b : str
        The two replies; either may be empty.
    preference : float
        Preference for `output_a`, in [0, 1]; 0.5 is a tie.
    shown : {"ab", "ba", "both"} or None, default=None
        Order in which the judge saw the replies; None if it is unknown.
    system_a, system_b : str, default=""
        Names of the systems that wrote the replies.

    Raises
    ------
    ValueError
        If `preference` is outside [0, 1].
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
        """Length of `output_a` minus length of `output_b`, in characters."""
        return len(self.output_a) - len(self.output_b)


@dataclass(frozen=True)
class WinRate:
    """Rate at which the first reply wins, with its uncertainty.

    Attributes
    ----------
    rate : float
        Mean preference, in [0, 1].
    standard_error : float
        Standard deviation of the preferences, divided by the square root of their number; NaN for a
        single preference.
    interval : (float, float)
        Wilson's confidence interval.
    wins, losses, ties : int
        Numbers of preferences above, below and equal to 0.5.
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
    """Return the share of comparisons that the first reply wins.

    Parameters
    ----------
    preferences : array-like, shape (n,)
        Preferences for the first reply, each in [0, 1].
    ties : {"half", "exclude"}, default="half"
        A tie (exactly 0.5) counts as half a win, or is left out, as in Table 7 of COALA.
    confidence : float, default=0.95
        Confidence level of the interval, in (0, 1). Wilson's interval is accurate for wins and
        losses, and wider than necessary for ties and probabilities, whose variance is smaller.

    Returns
    -------
    WinRate
        Rate, standard error, interval and counts.

    Raises
    ------
    ValueError
        If there are no preferences, one is outside [0, 1], or all are ties and ties are excluded;
        also if `ties` or `confidence` is out of range.

    Notes
    -----
    The comparisons are taken to be independent. If a prompt was judged several times, average its
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
    return WinRate(rate, error, wilson_interval(rate, n, confidence), *counts)


def wilson_interval(rate: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval for the probability of a success.

    Parameters
    ----------
    rate : float
        Share of successes, in [0, 1].
    n : float
        Number of independent trials, above 0; it need not be whole.
    confidence : float, default=0.95
        Confidence level, in (0, 1).

    Returns
    -------
    lower, upper : float
        Ends of the interval, in [0, 1].

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(1.0, 4)]
    [0.51, 1.0]
    """
    z = quantile(confidence)
    middle = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At a rate of 0 or 1 the interval ends there, whatever the rounding errors.
    return min(max(middle - half, 0.0), rate), max(min(middle + half, 1.0), rate)


def win_rates_by_group(
    preferences: ArrayLike,
    groups: Sequence[str],
    *,
    ties: Ties = "half",
    confidence: float = 0.95,
) -> dict[str, WinRate]:
    """Return the win rate of each group, such as a data set, a subject or a system.

    Parameters
    ----------
    preferences : array-like, shape (n,)
        Preferences for the first reply, each in [0, 1].
    groups : sequence of str, length n
        Name of the group of each preference.
    ties : {"half", "exclude"}, default="half"
        Treatment of ties, as in `win_rate`.
    confidence : float, default=0.95
        Confidence level of the intervals, in (0, 1).

    Returns
    -------
    dict of str to WinRate
        Win rates by group, in the order in which the groups first appear.

    Raises
    ------
    ValueError
        If the lengths differ, or for a group as in `win_rate`.
    """
    values = checked_preferences(preferences)
    rows = rows_of(groups, len(values), "groups")
    return {
        name: win_rate(values[found], ties=ties, confidence=confidence)
        for name, found in rows.items()
    }


@dataclass(frozen=True)
class PairwiseWinRates:
    """Win rates between all systems that were compared; ``print`` shows a Markdown table.

    Attributes
    ----------
    systems : tuple of str
        Names of the k systems, by decreasing mean rate.
    rates : ndarray of shape (k, k)
        Rate at which the system of the row wins against the system of the column; NaN if the two
        were not compared.
    counts : ndarray of shape (k, k)
        Number of judgements of each pair of systems.
    """

    systems: tuple[str, ...]
    rates: Array = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)

    @property
    def mean(self) -> Array:
        """Mean rate of each system over its opponents, shape (k,)."""
        return np.nanmean(self.rates, axis=1)

    def __str__(self) -> str:
        lines = [["", *self.systems, "mean"], ["---"] * (len(self.systems) + 2)]
        for name, row, mean in zip(self.systems, self.rates, self.mean, strict=True):
            cells = ["" if np.isnan(rate) else f"{rate:.1%}" for rate in row]
            lines.append([name, *cells, f"{mean:.1%}"])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def pairwise_win_rates(judgements: Iterable[Judgement], *, ties: Ties = "half") -> PairwiseWinRates:
    """Return the win rates between all systems that were compared.

    Parameters
    ----------
    judgements : iterable of Judgement
        Judgements that name `system_a` and `system_b`, in either order.
    ties : {"half", "exclude"}, default="half"
        Treatment of ties, as in `win_rate`.

    Returns
    -------
    PairwiseWinRates
        Table of win rates, which ``print`` shows in Markdown.

    Raises
    ------
    ValueError
        If there are no judgements, one does not name two different systems, or all judgements of a
        pair are ties and ties are excluded.
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
    """Return the quantile of the normal distribution for a two-sided interval."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence!r}; expected a number between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def checked_preferences(values: ArrayLike) -> Array:
    """Return at least one number, each in [0, 1], as an array, or raise ValueError."""
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
    """Return an array of finite numbers of shape (length,), or raise ValueError."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (length is not None and len(array) != length):
        expected = "(n,)" if length is None else f"({length},), one for each preference"
        raise ValueError(f"{name} has shape {array.shape}; expected {expected}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity; leave such comparisons out")
    return array


def rows_of(names: Sequence[str], length: int, what: str) -> dict[str, NDArray[np.intp]]:
    """Return the row numbers of each name, in the order in which the names first appear."""
    if isinstance(names, str) or len(names) != length:
        raise ValueError(
            f"{what} has {len(names)} entries; expected {length}, one for each preference"
        )
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        found.setdefault(name, []).append(row)
    return {name: np.array(rows) for name, rows in found.items()}
