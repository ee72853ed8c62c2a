"""Noise of targets among which some are outliers, and the Huber loss that suits it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.host_program import on_host
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import predict
from cvxnn.numerics.phases import tell
from cvxnn.training.row_sample import Sample, sample_rows
from cvxnn.training.spectrum import LeaveOneOut, Spectrum, leave_one_out, predictions_without

# Where the Huber loss turns linear, in standard deviations of the noise: 95 % efficient.
EFFICIENT_DELTA = 1.345
# Reach of targets around their median before anything is known, and rounds of pulling them in.
_FIRST_REACH = EFFICIENT_DELTA
_N_PULLS = 8
# Of errors within this ratio the strongest penalty is taken: targets that follow the predictions
# flatter weak ones.
_TIE_OF_PULLED = 1.05


def without_outliers(
    sample: Sample, spectrum: Spectrum, delta: float | None = None, *, shared: bool = False
) -> tuple[Sample, LeaveOneOut]:
    """Pull targets that stray from their predictions to a distance of ``delta`` from them.

    To these pseudo-targets the squared loss has the gradient of the Huber loss to the given ones
    (Cox, 1983), so the closed form serves for both.

    Parameters
    ----------
    sample : Sample
        Rows on the host, in the gated formulation.
    spectrum : Spectrum
        Of their program.
    delta : float, optional
        Largest distance, positive. By default 1.345 standard deviations of the noise, estimated
        from the median of absolute leave-one-out residuals: 95 % efficient for Gaussian noise
        (Huber, 1981), and the same whatever the size of a minority of outliers.
    shared : bool, default=False
        Whether all outputs have the same strength.

    Returns
    -------
    sample : Sample
        The rows with pseudo-targets.
    found : LeaveOneOut
        Error and predictions for them at the strength to choose.
    """
    program = sample.program
    share = np.broadcast_to(program.share, program.y.shape).ravel()
    centre = np.array([weighted_median(column, program.share) for column in program.y.T])
    around = np.broadcast_to(centre, program.y.shape)
    reach = _FIRST_REACH * spread_of(program.y - around, share)
    for _ in range(_N_PULLS):
        y = around + np.clip(program.y - around, -reach, reach)
        sample = sample._replace(program=replace(program, y=y))
        found = leave_one_out(sample, spectrum)
        errors = found.errors.sum(axis=1, keepdims=True) if shared else found.errors
        good = errors <= _TIE_OF_PULLED * errors.min(axis=0)
        chosen = np.where(good, found.alphas[:, None], 0).max(axis=0)
        chosen = np.broadcast_to(chosen, program.y.shape[1])
        predictions = predictions_without(sample, spectrum, chosen)
        found = found._replace(alpha=chosen, predictions=predictions)
        around = found.predictions
        reach = delta or EFFICIENT_DELTA * spread_of(program.y - around, share)
    return sample, found


def pull_in(
    many: Sample, sample: Sample, spectrum: Spectrum, found: LeaveOneOut, delta: float
) -> Sample:
    """Pull targets of a larger sample to within ``delta`` of what the smaller one predicts.

    Parameters
    ----------
    many : Sample
        Rows over the patterns of the smaller sample, on the host.
    sample, spectrum, found
        The smaller sample with pseudo-targets, its spectrum, and its strength; see
        :func:`without_outliers`.
    delta : float
        Largest distance, positive.

    Returns
    -------
    Sample
        The larger sample with pseudo-targets.
    """
    program = on_host(replace(sample.program, loss=SquaredLoss(), skip=None), np.float64)
    data, operator = RidgeData.of(program), many.program.operator
    inside = spectrum.vectors.T @ data.targets
    unknowns = spectrum.vectors @ (inside / (spectrum.values[:, None] + found.alpha))
    around = predict(data, unknowns, operator.X, np.asarray(operator.mask))
    y = around + np.clip(many.program.y - around, -delta, delta)
    return many._replace(program=replace(many.program, y=y))


def choose_delta(
    program: ConvexProgram,
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
    spectrum: Spectrum | None = None,
) -> tuple[float, Spectrum | None]:
    """Choose from the data where the Huber loss turns linear.

    Parameters
    ----------
    program : ConvexProgram
        On the host, in the gated formulation; its own loss is not used.
    random_state : RandomState
        Draws rows to look at.
    units, groups, spectrum : optional
        As for :func:`measure_strength`.

    Returns
    -------
    delta : float
        1.345 standard deviations of the noise, see :func:`without_outliers`; in units of the
        program's targets.
    spectrum : Spectrum or None
        Of the program, for :func:`measure_strength`; None where only a part of the rows was
        looked at.
    """
    tell("choosing delta")
    sample = sample_rows(program, random_state, units=units, groups=groups)
    whole = sample.program is program
    if spectrum is None or not whole:
        spectrum = Spectrum.of(sample.program)
    _, found = without_outliers(sample, spectrum)
    share = np.broadcast_to(sample.program.share, found.predictions.shape).ravel()
    delta = EFFICIENT_DELTA * spread_of(sample.program.y - found.predictions, share)
    return delta, spectrum if whole else None


def spread_of(residual: NDArray[np.floating], weight: NDArray[np.floating]) -> float:
    """Return a robust standard deviation: 1.4826 times the weighted median of absolute values.

    Where more than half are zero, or rounding beside the largest, the root mean square; 1 where
    all are zero.

    Parameters
    ----------
    residual : ndarray
        Values around zero.
    weight : ndarray
        Weight of each value, as many as there are.
    """
    size = np.abs(residual).ravel()
    middle = 1.4826 * weighted_median(size, weight)
    if middle > np.finfo(size.dtype).eps * size.max():
        return middle
    rest = float(np.sqrt(np.average(size**2, weights=weight)))
    return rest if rest > 0 else 1.0


def weighted_median(values: NDArray[np.floating], weight: Any) -> float:
    """Return the median of repeated values, where weights are numbers of repetitions.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Values.
    weight : ndarray or float
        Weight of each value, or one for all.
    """
    order = np.argsort(values, kind="stable")
    total = np.cumsum(np.broadcast_to(np.asarray(weight, np.float64).ravel(), values.shape)[order])
    # Sums of equal weights may miss the half by rounding: the median is then between two values.
    half, room = total[-1] / 2, 1e-12 * total[-1]
    low, high = np.searchsorted(total, [half - room, half + room])
    middle = values[order[[low, min(high, len(values) - 1)]]]
    return float(middle.mean(dtype=np.float64))
