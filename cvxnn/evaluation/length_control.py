"""Win rates at equal length, from a logistic regression on the difference in length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, sparse, special

from cvxnn._messages import warn
from cvxnn.evaluation.win_rates import (
    Array,
    WinRate,
    checked_preferences,
    column,
    quantile,
    rows_of,
    win_rate,
)

LEAST_OVERLAP = 0.05
"""Overlap below which a rate at equal length is an extrapolation."""


@dataclass(frozen=True)
class LengthControlledWinRate:
    """Estimate of the win rate if the replies were equally long.

    Attributes
    ----------
    rate : float
        Win rate at equal length, in (0, 1).
    standard_error : float
        Standard error by the delta method from the curvature of the fit. It is large if quality and
        length can hardly be distinguished.
    interval : (float, float)
        Confidence interval by the same method, on the scale of log odds.
    raw : WinRate
        Win rate without length control.
    quality : float
        Log odds theta at equal length (and at difficulty 0).
    length_weight : float
        Log odds that one unit of tanh(length difference / scale) adds.
    difficulty_weight : float
        Log odds that one unit of difficulty adds; 0 without difficulties.
    overlap : float
        Share of the judgements in which the side that is usually shorter was the longer one, in
        [0, 0.5]. Below 0.05, the rate at equal length is an extrapolation, and ``print`` says so.
    """

    rate: float
    standard_error: float
    interval: tuple[float, float]
    raw: WinRate
    quality: float
    length_weight: float
    difficulty_weight: float
    overlap: float

    @property
    def _caution(self) -> str:
        return ": an extrapolation" if self.overlap < LEAST_OVERLAP else ""

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.rate:.1%} [{low:.1%}, {high:.1%}] at equal length, {self.raw.rate:.1%} "
            f"without length control (overlap {self.overlap:.0%}{self._caution})"
        )


def length_controlled_win_rate(
    preferences: ArrayLike,
    length_differences: ArrayLike,
    *,
    difficulty: ArrayLike | None = None,
    penalty: float = 1.0,
    confidence: float = 0.95,
) -> LengthControlledWinRate:
    """Return the win rate of one system against a baseline, without the effect of length.

    Judges, human or not, prefer long replies. A logistic regression explains the preferences ::

        P(win of row i) = sigmoid(theta + phi * tanh(d_i / s) + psi * gamma_i)

    with the length difference d, its standard deviation s and the difficulty gamma (if given). The
    result is the mean prediction over the rows with phi set to 0 (Dubois et al., 2024,
    "Length-Controlled AlpacaEval").

    Parameters
    ----------
    preferences : array-like, shape (n,)
        Preferences for the reply of the system, each in [0, 1].
    length_differences : array-like, shape (n,)
        Length of the system's reply minus length of the baseline's, in characters or tokens.
    difficulty : array-like, shape (n,), optional
        Known difficulty of each prompt, with a standard deviation of about 1. If many systems
        answer the same prompts, `length_controlled_win_rates` can estimate it.
    penalty : float, default=1.0
        ``penalty / 2 * (phi**2 + psi**2 + theta**2 / 10)`` is added to the sum of log losses, which
        keeps the fit finite if one side always wins. At least 1e-8.
    confidence : float, default=0.95
        Confidence level of the intervals, in (0, 1).

    Returns
    -------
    LengthControlledWinRate
        Win rate at equal length, with its uncertainty and the weights of the regression.

    Raises
    ------
    ValueError
        If a preference, a shape, `penalty` or `confidence` is out of range, or if all length
        differences are equal but not 0, because then length and quality cannot be distinguished.

    Warns
    -----
    UserWarning
        If the overlap is below 0.05: one side is nearly always the longer one, so nothing was
        observed near equal length. Judge more replies of similar length, or several systems jointly
        (`length_controlled_win_rates`).

    Notes
    -----
    The method differs from the published ``length_controlled_v1`` of AlpacaEval: it has a fixed
    square penalty instead of an L1 penalty chosen by cross-validation; it has no difficulties
    fitted in advance to the 805 prompts; and it adds no judgements of verbose and concise versions
    of the baseline (`length_controlled_win_rates` has that purpose). Results are comparable with
    each other, but not with the leaderboard of AlpacaEval. If the two systems are exchanged, the
    result is one minus the rate.
    """
    values = checked_preferences(preferences)
    differences = column(length_differences, len(values), "length_differences")
    columns = [np.ones(len(values)), _squash(differences)]
    if difficulty is not None:
        columns.append(column(difficulty, len(values), "difficulty"))
    X = np.column_stack(columns)
    penalties = _positive(penalty) * np.array([0.1, 1.0, 1.0])[: len(columns)]
    fit = _fit_logistic(X, values, penalties)
    X[:, 1] = 0
    overlap = _overlap(differences)
    _warn_of_extrapolation(overlap, ", or several systems jointly by length_controlled_win_rates")
    return _controlled(
        fit,
        X,
        win_rate(values, confidence=confidence),
        overlap,
        (*fit.coef, 0.0)[:3],
        confidence,
    )


def length_controlled_win_rates(
    preferences: ArrayLike,
    length_differences: ArrayLike,
    systems: Sequence[str],
    *,
    prompts: Sequence[str] | None = None,
    penalty: float = 1.0,
    confidence: float = 0.95,
) -> dict[str, LengthControlledWinRate]:
    """Estimate the length-controlled win rates of several systems against one baseline jointly.

    All judgements are by one judge. The model is ::

        P(win of system m on prompt x) = sigmoid(theta_m + (phi + delta_m) * tanh(d / s) + gamma_x)

    The judge's preference for length, phi, is learnt from all systems, and each system deviates
    from it by a penalised delta. The rows of a system that always writes more than the baseline
    cannot distinguish length from quality; such a system is corrected by what the other systems
    reveal. The difficulties gamma are penalised too. Each rate is the mean over all prompts,
    including those that the system did not answer.

    Parameters
    ----------
    preferences : array-like, shape (n,)
        Preferences for the reply of the system, each in [0, 1].
    length_differences : array-like, shape (n,)
        Length of the system's reply minus length of the baseline's, in characters or tokens.
    systems : sequence of str, length n
        Name of the system of each reply.
    prompts : sequence of str, length n, optional
        Prompt of each reply; without prompts, the model has no difficulties.
    penalty : float, default=1.0
        Strength of the square penalty on phi, delta and gamma, and ten times the strength of the
        penalty on theta. At least 1e-8.
    confidence : float, default=0.95
        Confidence level of the intervals, in (0, 1).

    Returns
    -------
    dict of str to LengthControlledWinRate
        Results by system, by decreasing rate. `length_weight` is phi + delta; `difficulty_weight`
        is 1 if prompts are given.

    Raises
    ------
    ValueError
        As in `length_controlled_win_rate`; also if the lengths differ.

    Warns
    -----
    UserWarning
        If the overlap of all rows together is below 0.05: no system shows what happens near equal
        length.
    """
    values = checked_preferences(preferences)
    n = len(values)
    differences = column(length_differences, n, "length_differences")
    members = rows_of(systems, n, "systems")
    long = _squash(differences)
    quality = _indicators(members, n)
    blocks = [quality, sparse.csr_array(long[:, None]), sparse.csr_array(quality * long[:, None])]
    weights = [0.1] * len(members) + [1.0] * (1 + len(members))
    n_prompts = 1
    if prompts is not None:
        asked = rows_of(prompts, n, "prompts")
        n_prompts = len(asked)
        blocks.append(_indicators(asked, n))
        weights += [1.0] * n_prompts
    fit = _fit_logistic(
        sparse.csr_array(sparse.hstack(blocks)), values, _positive(penalty) * np.array(weights)
    )
    _warn_of_extrapolation(_overlap(differences))
    rates = {}
    for k, (name, rows) in enumerate(members.items()):
        # Each row stands for a prompt: 1 for the system, and 1 for the difficulty of the prompt.
        lines, columns = np.arange(n_prompts), np.full(n_prompts, k)
        if prompts is not None:
            lines = np.tile(lines, 2)
            columns = np.append(columns, np.arange(n_prompts) + len(weights) - n_prompts)
        shape = (n_prompts, len(weights))
        at_equal_length = sparse.csr_array((np.ones(len(lines)), (lines, columns)), shape=shape)
        rates[name] = _controlled(
            fit,
            at_equal_length,
            win_rate(values[rows], confidence=confidence),
            _overlap(differences[rows]),
            (
                fit.coef[k],
                fit.coef[len(members)] + fit.coef[len(members) + 1 + k],
                float(prompts is not None),
            ),
            confidence,
        )
    return dict(sorted(rates.items(), key=lambda item: -item[1].rate))


_Matrix = Array | sparse.csr_array


class _LogisticFit(NamedTuple):
    coef: Array  # (p,)
    factor: Array  # (p, p), lower Cholesky factor of the Hessian at the optimum


def _fit_logistic(X: _Matrix, y: Array, penalties: Array) -> _LogisticFit:
    """Minimise the log loss of soft targets plus ``penalties @ coef**2 / 2``: Newton's method.

    The penalties are positive, so the optimum exists and is unique.
    """

    def objective(b: Array) -> float:
        margins = X @ b
        return float(np.sum(np.logaddexp(0, margins) - y * margins) + penalties @ b**2 / 2)

    coef = np.zeros(len(penalties))
    for _ in range(100):
        value = objective(coef)
        p = special.expit(X @ coef)
        gradient = X.T @ (p - y) + penalties * coef
        curvature = X.T @ (X * (p * (1 - p))[:, None])
        hessian = curvature if isinstance(curvature, np.ndarray) else curvature.toarray()
        factor = linalg.cholesky(hessian + np.diag(penalties), lower=True)
        step = linalg.cho_solve((factor, True), gradient)
        decrement = float(gradient @ step)
        if decrement <= 1e-20 * (1 + value):
            break
        size, rounding = 1.0, 1e-13 * (1 + value)
        while objective(coef - size * step) > value - 1e-4 * size * decrement + rounding:
            size /= 2
        coef = coef - size * step
    return _LogisticFit(coef, factor)


def _controlled(
    fit: _LogisticFit,
    at_equal_length: _Matrix,
    raw: WinRate,
    overlap: float,
    weights: Sequence[float],
    confidence: float,
) -> LengthControlledWinRate:
    """Return the mean prediction over some rows, with its error by the delta method."""
    p = special.expit(at_equal_length @ fit.coef)
    rate = float(p.mean())
    gradient = at_equal_length.T @ (p * (1 - p)) / len(p)
    error = float(np.linalg.norm(linalg.solve_triangular(fit.factor, gradient, lower=True)))
    reach = quantile(confidence) * error / (rate * (1 - rate))
    low, high = (float(special.expit(special.logit(rate) + side * reach)) for side in (-1, 1))
    quality, length, difficulty = map(float, weights)
    return LengthControlledWinRate(
        rate, error, (low, high), raw, quality, length, difficulty, overlap
    )


def _squash(differences: Array) -> Array:
    """Return tanh(d / s) with the standard deviation s."""
    if np.ptp(differences) == 0:
        if differences[0] != 0:
            raise ValueError(
                f"all length differences are {differences[0]:g}: length and quality cannot be "
                "distinguished; expected differences that vary, or that are all 0"
            )
        return differences
    return np.tanh(differences / differences.std(ddof=1))


def _overlap(differences: Array) -> float:
    longer = float(np.mean(differences > 0) + np.mean(differences == 0) / 2)
    return min(longer, 1 - longer)


def _warn_of_extrapolation(overlap: float, remedy: str = "") -> None:
    if overlap < LEAST_OVERLAP:
        warn(
            f"one side wrote the longer reply in {1 - overlap:.1%} of the judgements, so the win "
            f"rate at equal length is an extrapolation; judge replies of similar length{remedy}",
        )


def _indicators(members: dict[str, NDArray[np.intp]], n: int) -> sparse.csr_array:
    """Return a matrix whose column k is 1 in the rows of the k-th name."""
    columns = np.empty(n, dtype=np.intp)
    for k, rows in enumerate(members.values()):
        columns[rows] = k
    return sparse.csr_array((np.ones(n), (np.arange(n), columns)), shape=(n, len(members)))


def _positive(penalty: float) -> float:
    if not 1e-8 <= penalty < math.inf:
        raise ValueError(f"penalty is {penalty!r}; expected a number of at least 1e-8")
    return penalty
