r"""Choice of the strength without tuning.

For the ridge penalty, the leave-one-out error of the closed form, exact and for all
strengths at once from one eigendecomposition (Allen, 1974). For norms, a multiple of the *noise
level*: the size of the slope that the leave-one-out residuals would have with random signs, which
is what the penalty has to hold back (Giacobino et al., 2017). Both look at a sample of
the rows, drawn by weight, with every class in it. Of a larger sample, errors over folds have the
last word on a ridge (``cvxnn.training.fold_errors``): a few hundred rows leave it to chance.

A ridge says that scores are Gaussian around 0. The squared error of a few rows, or of classes far
apart, may ask for almost none; scores that are log-odds then go as far as these rows let them, so
that new ones are predicted with near certainty. The ridge of the logistic losses is therefore at
least the one that gives log-odds of the rows a standard deviation of 10, and more where the rarer
class has more than ten units of data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.losses import HuberLoss, LogisticLoss, MultinomialLoss, SquaredLoss
from cvxnn.convex.program import ConvexProgram
from cvxnn.training.fold_errors import fold_errors
from cvxnn.training.outliers import pull_in, without_outliers
from cvxnn.training.row_sample import Sample
from cvxnn.training.spectrum import LeaveOneOut, Residuals, Spectrum, leave_one_out

# Draws of random signs for the noise level.
N_DRAWS = 32
# Chosen on six tables and confirmed on six others: asv_bench/tables/norm_strengths.py.
_PART_OF_NOISE = 0.1
# Rows, as a multiple of those of the sample, whose error tells how it falls with their number.
_MANY_MORE = 2
# Largest standard deviation of log-odds, and the units of a class from which on it grows. Chosen on
# eight tables of 2 to 10 rows a class: asv_bench/tables/few_rows.py.
_LARGEST_LOG_ODDS, _FEW_UNITS = 10.0, 10

# Error of predictions of the rows of a sample, in units of the program.
HeldOutError = Callable[[Sample, NDArray[np.floating]], float]


class AutomaticAlpha(NamedTuple):
    """A choice of the penalty parameter.

    Attributes
    ----------
    alpha : ndarray, shape (n_outputs,)
        Penalty parameter of each output, to suit all rows.
    factor : ndarray, shape (n_outputs,)
        The same as a multiple of the one that suits the sample.
    kernel : ndarray, shape (n_samples, n_samples), or None
        Kernel of the larger sample in float32, where it was built.
    flops : float
        Operations on the larger sample.
    predictions : ndarray, shape (n_samples, n_outputs), or None
        Of the rows of the larger sample, by other folds of it.
    """

    alpha: NDArray[np.floating]
    factor: NDArray[np.floating]
    kernel: NDArray[np.floating] | None = None
    flops: float = 0.0
    predictions: NDArray[np.floating] | None = None


def automatic_alpha(
    sample: Sample,
    spectrum: Spectrum,
    random_state: np.random.RandomState,
    *,
    shared: bool = False,
    error: HeldOutError | None = None,
    many: Sample | None = None,
) -> AutomaticAlpha:
    """Choose the penalty parameter for all rows from a sample of them.

    Parameters
    ----------
    sample : Sample
        Rows on the host, in the gated formulation.
    spectrum : Spectrum
        Of their program.
    random_state : RandomState
        Draws signs for the noise level, or folds of a larger sample.
    shared : bool, default=False
        Whether all outputs have the same, as they do under a norm.
    error : callable, optional
        What judges a shared ridge in place of the squared error; see
        ``measure_strength`` of ``cvxnn.training``.
    many : Sample, optional
        A larger sample, or all rows, which has the last word on a ridge.

    Returns
    -------
    AutomaticAlpha
        The penalty parameter of each output.
    """
    found: LeaveOneOut | None = None
    shared &= not sample.program.has_alpha_max  # the noise of each output is its own
    if isinstance(sample.program.loss, HuberLoss):
        delta = sample.program.loss.delta
        sample, found = without_outliers(sample, spectrum, delta, shared=shared)
        many = None if many is None else pull_in(many, sample, spectrum, found, delta)
    program = sample.program
    found = found or leave_one_out(sample, spectrum, shared=shared)
    if not program.has_alpha_max:
        # The ridge is noise over signal of one unit: its share falls with their number. What looks
        # like noise in a few rows is in part a signal that more of them resolve.
        chosen = found.alpha
        kernel, flops, predictions = None, 0.0, None
        if many is not None:
            until = chosen * (sample.part / many.part)
            better = fold_errors(many, random_state, until=until, shared=shared)
            if better.part > _MANY_MORE * sample.part:
                power = _power(found.least(shared=shared), better.error, better.part / sample.part)
            else:
                power = learning_exponent(sample, spectrum, found, shared=shared)
            factor = better.alpha * better.part ** (1 + power) / chosen
            kernel, flops, predictions = better.kernel, better.flops, better.predictions
        else:
            power = learning_exponent(sample, spectrum, found, shared=shared)
            factor = sample.part ** (1 + power)
        if error is not None and shared and sample.part == 1:
            errors = partial(_error_at, sample, Residuals(sample, spectrum), error)
            chosen = np.full_like(chosen, nearest_minimum(errors, found.alphas, float(chosen[0])))
        alpha = chosen * program.loss.curvature * factor
        if isinstance(program.loss, LogisticLoss | MultinomialLoss):
            alpha = np.maximum(alpha, least_of_log_odds(sample, spectrum, shared=shared))
        return AutomaticAlpha(alpha, factor, kernel, flops, predictions)
    residual = program.y - found.predictions
    if sample.units is not None:  # signs of independent units cancel
        residual = residual / np.sqrt(sample.units)[:, None]
    n = len(residual)
    draws = [
        _slope_size(program, random_state.choice([-1.0, 1.0], (n, 1)) * residual)
        for _ in range(N_DRAWS)
    ]
    factor = np.full(program.y.shape[1], np.sqrt(sample.part))
    alpha = _PART_OF_NOISE * float(np.median(draws)) * program.loss.curvature * factor
    return AutomaticAlpha(alpha, factor)


def least_of_log_odds(
    sample: Sample, spectrum: Spectrum, *, shared: bool = False
) -> NDArray[np.floating]:
    r"""Return the penalty parameter for all rows below which a ridge allows too large log-odds.

    With a mean loss of :math:`N` units of data, the ridge :math:`\alpha` is a Gaussian prior, under
    which the score of row ``k`` has the variance :math:`K_{kk} / (s_k N \alpha)`.

    Parameters
    ----------
    sample : Sample
        Rows whose targets are positive for the members of a class.
    spectrum : Spectrum
        Of their program.
    shared : bool, default=False
        Whether all outputs have the same strength, that of the rarest class.

    Returns
    -------
    ndarray, shape (n_outputs,)
        The one at which the mean variance of the rows of the sample is 100, or 10 for each unit of
        the rarer of two classes where these are more than ten.
    """
    y = sample.program.y
    units = np.ones(len(y)) if sample.units is None else sample.units
    own, total = units @ (y > 0) / sample.part, units.sum() / sample.part
    rarer = np.minimum(own, total - own)
    if shared:
        rarer = np.full_like(rarer, rarer.min())
    variance = _LARGEST_LOG_ODDS**2 * np.maximum(rarer / _FEW_UNITS, 1)
    return np.asarray(spectrum.values.sum() / total / variance)


def learning_exponent(
    sample: Sample, spectrum: Spectrum, found: LeaveOneOut, *, shared: bool
) -> NDArray[np.floating]:
    """Return the power of the number of rows with which the least squared error falls, 0 to 1.

    It falls by rows as it does from half of the sample to the sample; 0 where that is all rows.

    Parameters
    ----------
    sample : Sample
        Rows that the errors are of.
    spectrum : Spectrum
        Of their program.
    found : LeaveOneOut
        Errors of the whole sample.
    shared : bool
        Whether all outputs have the same strength.

    Returns
    -------
    ndarray, shape (n_outputs,)
        The power, without its sign.
    """
    n_outputs = sample.program.y.shape[1]
    if sample.part == 1:
        return np.zeros(n_outputs)
    n, rows = len(sample.program.y), sample.half()
    share = np.broadcast_to(sample.program.share, (n, 1))[rows]
    half = leave_one_out(sample.take(rows), spectrum.of_rows(rows, share))
    power = _power(half.least(shared=shared), found.least(shared=shared), n / len(rows))
    return np.broadcast_to(power, n_outputs)


def _power(few: Any, many: Any, ratio: float) -> NDArray[np.floating]:
    """Return the power with which an error falls, 0 to 1, from those of few and more rows."""
    tiny = np.finfo(np.float64).tiny
    power = np.log(np.maximum(few, tiny) / np.maximum(many, tiny)) / np.log(ratio)
    return np.asarray(np.clip(power, 0.0, 1.0))


def nearest_minimum(
    error: Callable[[float], float], grid: NDArray[np.floating], start: float
) -> float:
    """Return the point of a grid to which single steps lead down from ``start``, one of its points.

    Parameters
    ----------
    error : callable
        Function of a point.
    grid : ndarray, shape (n_points,)
        Points, in order.
    start : float
        Where to begin; it is kept among equals.

    Returns
    -------
    float
        A point neither of whose neighbours is better.
    """
    begin = k = int(np.flatnonzero(grid == start)[0])
    least = error(start)
    for step in (1, -1):
        while 0 <= k + step < len(grid) and (found := error(float(grid[k + step]))) < least:
            k, least = k + step, found
        if k != begin:
            break
    return float(grid[k])


def _error_at(sample: Sample, residuals: Residuals, error: HeldOutError, alpha: float) -> float:
    return error(sample, residuals.predictions(alpha))


def _slope_size(program: ConvexProgram, residual: NDArray[np.floating]) -> float:
    """Return alpha_max for targets ``residual`` of the squared loss."""
    return float(replace(program, y=residual, loss=SquaredLoss()).alpha_max())
