r"""Strength of the penalty: its unit, and a choice without tuning.

**The unit.** For a penalty that is a norm, :math:`\alpha_{\max}`: from there on all weights vanish.
For the ridge penalty, and for others that remove nothing, the largest curvature of the mean loss:
there, even the direction that the data determine best is halved. A *fraction* of this unit means
the same for all data.

**The choice.** For the ridge penalty, the leave-one-out error of the closed form, exact and for all
strengths at once from one eigendecomposition (Allen, 1974). For norms, a multiple of the *noise
level*: the size of the slope that the leave-one-out residuals would have with random signs, which
is what the penalty has to hold back (Giacobino et al., 2017). Both look at a sample of
the rows, drawn by weight, with every class in it. Of a larger sample, errors over folds have the
last word on a ridge (``cvxnn.training.fold_errors``): a few hundred rows leave it to chance.

A ridge says that scores are Gaussian around 0. The squared error of a few rows, or of classes far
apart, may ask for almost none; scores that are log-odds then go as far as these rows let them, so
that new ones are foretold with near certainty. The ridge of the logistic losses is therefore at
least the one that gives log-odds of the rows a standard deviation of 10, and more where the rarer
class has more than ten units of data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.losses import HuberLoss, LogisticLoss, MultinomialLoss, SquaredLoss
from cvxnn.convex.penalties import SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.flops import kernel_flops
from cvxnn.numerics.threads import limits_threads
from cvxnn.training.fold_errors import fold_errors, rows_to_look_at
from cvxnn.training.outliers import without_outliers
from cvxnn.training.row_sample import MOST_ROWS, Sample, sample_rows
from cvxnn.training.spectrum import (
    N_ALPHAS,
    LeaveOneOut,
    Spectrum,
    leave_one_out,
    predictions_without,
)

# Chosen on six tables and confirmed on six others: asv_bench/tables/norm_strengths.py.
_PART_OF_NOISE = 0.1
_N_DRAWS = 32
# Rows, as a multiple of those of the sample, whose error tells how it falls with their number.
_MANY_MORE = 2
# Smallest automatic strength, as a fraction of its unit: data without noise ask for none at all.
_LEAST_STRENGTH = 1e-9
# Largest standard deviation of log-odds, and the units of a class from which on it grows. Chosen on
# eight tables of 2 to 10 rows a class: asv_bench/tables/few_rows.py.
_LARGEST_LOG_ODDS, _FEW_UNITS = 10.0, 10


# Error of predictions of the rows of a sample, in units of the program.
HeldOutError = Callable[[Sample, NDArray[np.floating]], float]


class Strength(NamedTuple):
    """Strength of a penalty, and what it was measured on.

    Attributes
    ----------
    alpha : float or ndarray, shape (n_outputs,)
        Penalty parameter of the program.
    alpha_max : float
        Unit: the strength is ``alpha / alpha_max``.
    sample : Sample
        The rows that were looked at.
    spectrum : Spectrum or None
        Of their program, where it was needed.
    kernel : ndarray, shape (n_samples, n_samples), or None
        Kernel of the program, where it was needed and all rows were looked at; in float32 if these
        are more than have a spectrum.
    flops : float
        Floating-point operations of the measurement.
    factor : float or ndarray, shape (n_outputs,)
        The penalty parameter as a multiple of the one that suits the sample.
    """

    alpha: Any
    alpha_max: float
    sample: Sample
    spectrum: Spectrum | None
    kernel: NDArray[np.floating] | None
    flops: float
    factor: Any


@limits_threads(lambda program, *_, **__: _sampled_product(program))
def measure_strength(
    program: ConvexProgram,
    strength: float | Literal["auto"],
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
    shared: bool = False,
    error: HeldOutError | None = None,
    most: int | None = None,
    spectrum: Spectrum | None = None,
) -> Strength:
    """Measure the unit of the strength on a program, and choose the strength if asked to.

    Parameters
    ----------
    program : ConvexProgram
        On the host, in the gated formulation; its own ``alpha`` is not used, nor its linear
        part.
    strength : float or "auto"
        Fraction of the unit, at least 0, or "auto" for a choice without tuning.
    random_state : RandomState
        Draws rows to look at, and signs for the noise level.
    units : ndarray, shape (n_samples,), optional
        Units of data that each row consists of, at least 1; by default each is one.
    groups : ndarray of int, shape (n_samples,), optional
        Groups of rows that are left out as wholes; by default single units are.
    shared : bool, default=False
        Whether an automatic strength is one for all outputs in any case. By default those of
        several outputs that are separate problems with a ridge penalty have one each.
    error : callable, optional
        Function from a sample and predictions of its rows by networks that have not seen them to
        a number, which judges an automatic strength in place of the squared error if that is
        shared, the penalty a ridge, and the sample all rows. How the strength of least squared
        error grows with the rows is known; that of another error may not transfer from a part.
    most : int, optional
        Rows up to which all are looked at; by default as ``sample_rows`` has it, and a ridge is
        chosen on 2,048 to 4,096.
    spectrum : Spectrum, optional
        Of the program, where it is known (``choose_patterns``); it is not computed again then.

    Returns
    -------
    Strength
        Penalty parameter and unit.
    """
    sample = sample_rows(program, random_state, units=units, groups=groups, most=most)
    pilot = sample.program
    whole = pilot is program
    if strength != "auto" and program.has_alpha_max:
        spectrum = None
    elif spectrum is None or not whole:
        spectrum = Spectrum.of(pilot)
    unit = alpha_max(pilot, spectrum)
    alpha: Any
    factor: Any = sample.part
    flops = pilot_flops(pilot, spectrum)
    known = spectrum.kernel if whole and spectrum is not None else None
    if strength != "auto":
        alpha = float(strength) * unit
    else:
        assert spectrum is not None
        shared |= program.loss.coupled or type(program.penalty) is not SquaredL2
        many = None
        if most is None and not whole:
            n_rows = rows_to_look_at(len(program.y))
            many = sample_rows(program, random_state, units=units, groups=groups, most=n_rows)
        chosen = automatic_alpha(
            sample, spectrum, random_state, shared=shared, error=error, many=many
        )
        alpha, factor, flops = chosen.alpha, chosen.factor, flops + chosen.flops
        if many is not None and many.program is program:
            known = chosen.kernel
        alpha = np.maximum(alpha, _LEAST_STRENGTH * unit)
        if shared or len(alpha) == 1:
            alpha, factor = float(alpha[0]), float(factor[0])
    return Strength(alpha, unit, sample, spectrum, known, flops, factor)


def _sampled_product(program: ConvexProgram) -> float:
    """Return the operations of a product with the rows that are looked at."""
    (n, d), P = program.operator.X.shape, program.operator.n_patterns
    return 2.0 * min(n, MOST_ROWS) * d * P * program.y.shape[1]


def alpha_max(program: ConvexProgram, spectrum: Spectrum | None) -> float:
    """Return the unit of the strength; see above.

    Parameters
    ----------
    program : ConvexProgram
        On the host, in the gated formulation; its own ``alpha`` and linear part are not used.
    spectrum : Spectrum or None
        Of the program; needed for the ridge penalty only.

    Returns
    -------
    float
        Positive; 1 where the data have no slope at all.
    """
    if not program.has_alpha_max:
        assert spectrum is not None
        largest = spectrum.values[-1] * program.loss.curvature
    else:
        largest = program.alpha_max()
        # Targets that no input follows leave a slope of rounding errors.
        size = np.linalg.norm(program.operator.X) * np.linalg.norm(program.y) / len(program.y)
        if largest <= 10 * np.finfo(program.y.dtype).eps * size:
            largest = 0.0
    return float(largest) if largest > 0 else 1.0


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
    """

    alpha: NDArray[np.floating]
    factor: NDArray[np.floating]
    kernel: NDArray[np.floating] | None = None
    flops: float = 0.0


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
        What judges a shared ridge in place of the squared error; see :func:`measure_strength`.
    many : Sample, optional
        A larger sample, or all rows, which has the last word on a ridge.

    Returns
    -------
    AutomaticAlpha
        The penalty parameter of each output.
    """
    found: LeaveOneOut | None = None
    shared &= not sample.program.has_alpha_max  # the noise of each output is its own
    pulled = isinstance(sample.program.loss, HuberLoss)
    if isinstance(sample.program.loss, HuberLoss):
        delta = sample.program.loss.delta
        sample, found = without_outliers(sample, spectrum, delta, shared=shared)
    program = sample.program
    found = found or leave_one_out(sample, spectrum, shared=shared)
    if not program.has_alpha_max:
        # The ridge is noise over signal of one unit: its share falls with their number. What looks
        # like noise in a few rows is in part a signal that more of them resolve.
        chosen = found.alpha
        kernel, flops = None, 0.0
        if many is not None and not pulled:
            until = chosen * (sample.part / many.part)
            better = fold_errors(many, random_state, until=until, shared=shared)
            if better.part > _MANY_MORE * sample.part:
                power = _power(found.least(shared=shared), better.error, better.part / sample.part)
            else:
                power = learning_exponent(sample, spectrum, found, shared=shared)
            factor = better.alpha * better.part ** (1 + power) / chosen
            kernel, flops = better.kernel, better.flops
        else:
            power = learning_exponent(sample, spectrum, found, shared=shared)
            factor = sample.part ** (1 + power)
        if error is not None and shared and sample.part == 1:
            errors = partial(_error_at, sample, spectrum, error)
            chosen = np.full_like(chosen, nearest_minimum(errors, found.alphas, float(chosen[0])))
        alpha = chosen * program.loss.curvature * factor
        if isinstance(program.loss, LogisticLoss | MultinomialLoss):
            alpha = np.maximum(alpha, least_of_log_odds(sample, spectrum, shared=shared))
        return AutomaticAlpha(alpha, factor, kernel, flops)
    residual = program.y - found.predictions
    if sample.units is not None:  # signs of independent units cancel
        residual = residual / np.sqrt(sample.units)[:, None]
    n = len(residual)
    draws = [
        _slope_size(program, random_state.choice([-1.0, 1.0], (n, 1)) * residual)
        for _ in range(_N_DRAWS)
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


def _error_at(sample: Sample, spectrum: Spectrum, error: HeldOutError, alpha: float) -> float:
    return error(sample, predictions_without(sample, spectrum, alpha))


def pilot_flops(program: ConvexProgram, spectrum: Spectrum | None) -> float:
    """Return the operations of the unit and, with a spectrum, of the choice.

    Parameters
    ----------
    program : ConvexProgram
        Program of the rows that are looked at.
    spectrum : Spectrum or None
        Of the program, if it was computed.
    """
    (n_inputs, d), P = program.operator.X.shape, program.operator.n_patterns
    n, C = program.y.shape
    slope = 2.0 * n_inputs * d * P * C
    if spectrum is None:
        return slope
    decomposition = kernel_flops(n_inputs, d, P) + 4.0 * n**3
    slopes = _N_DRAWS + 1 if program.has_alpha_max else 0
    return decomposition + 4.0 * n * n * N_ALPHAS + slopes * slope


def _slope_size(program: ConvexProgram, residual: NDArray[np.floating]) -> float:
    """Return alpha_max for targets ``residual`` of the squared loss."""
    return float(replace(program, y=residual, loss=SquaredLoss()).alpha_max())
