r"""Strength of the penalty: its unit, and a choice without tuning.

**The unit.** For a penalty that is a norm, :math:`\alpha_{\max}`: from there on all weights vanish.
For the ridge penalty, and for others that remove nothing, the largest curvature of the mean loss:
there, even the direction that the data determine best is halved. A *fraction* of this unit means
the same for all data.

**The choice.** For the ridge penalty, the leave-one-out error of the closed form, exact and for all
strengths at once from one eigendecomposition (Allen, 1974). For norms, a multiple of the *noise
level*: the size of the slope that the leave-one-out residuals would have with random signs, which
is what the penalty has to hold back (Giacobino et al., 2017). Both look at a sample of
the rows, drawn by weight, with every class in it.

**What is left out** is one *unit* of data. A row that stands for several equal ones, or that has a
weight of 3, consists of several units; the others stay when one is left out. Where units belong to
groups (a patient, a conversation), a whole group is left out, since its units resemble each other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn._threads import SHARED_FACTOR, limit_threads, limits_threads
from cvxnn.convex.losses import HuberLoss, SquaredLoss
from cvxnn.convex.program import ConvexProgram, on_host
from cvxnn.convex.solvers.ridge.products import Kernel, RidgeData, kernel_flops

# Rows that are looked at, and strengths that are tried.
MOST_ROWS = 512
_N_ALPHAS = 31
# Chosen among 0.05 to 0.8 by accuracy on small tables, before raw results were kept.
_PART_OF_NOISE = 0.2
_N_DRAWS = 32
# Groups that a sample has at least, if there are so many: of larger ones, it has a part.
_LEAST_GROUPS = 16
# Where the Huber loss turns linear, in standard deviations of the noise: 95 % efficient.
EFFICIENT_DELTA = 1.345
# Reach of targets around their median before anything is known, and rounds of pulling them in.
_FIRST_REACH = EFFICIENT_DELTA
_N_PULLS = 8
# Of errors within this ratio the strongest penalty is taken: targets that follow the predictions
# flatter weak ones.
_TIE_OF_PULLED = 1.05
# Smallest automatic strength, as a fraction of its unit: data without noise ask for none at all.
_LEAST_STRENGTH = 1e-9


class Spectrum(NamedTuple):
    """Eigendecomposition of the kernel ``A A^T`` of ``cvxnn.convex.solvers.ridge.ridge``.

    Attributes
    ----------
    values : ndarray, shape (n_samples,)
        Eigenvalues, rising, not negative.
    vectors : ndarray, shape (n_samples, n_samples)
        Eigenvectors, one a column.
    """

    values: NDArray[np.floating]
    vectors: NDArray[np.floating]

    @classmethod
    def of(cls, program: ConvexProgram) -> Spectrum:
        """Decompose the kernel of a program."""
        return cls.of_kernel(kernel_of(program))

    @classmethod
    def of_kernel(cls, matrix: NDArray[np.floating]) -> Spectrum:
        """Decompose a kernel; time is that of an ``n x n`` eigendecomposition."""
        with limit_threads(4.0 * len(matrix) ** 3, SHARED_FACTOR):
            values, vectors = np.linalg.eigh(matrix)
        return cls(np.maximum(values, 0), vectors)

    def alphas(self) -> NDArray[np.floating]:
        """Return 31 penalty parameters, from 1e-6 to 1e2 times the mean eigenvalue."""
        mean = max(self.values.mean(), float(np.finfo(np.float64).tiny) * 1e6)
        return mean * np.logspace(-6, 2, _N_ALPHAS)


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


class LeaveOneOut(NamedTuple):
    """Errors of the closed form on units of data it has not seen.

    Attributes
    ----------
    alphas : ndarray, shape (n_alphas,)
        Penalty parameters.
    errors : ndarray, shape (n_alphas,)
        Weighted mean squared error, summed over outputs.
    predictions : ndarray, shape (n_samples, n_outputs)
        Prediction of each row by the network trained without one unit of it, or without its group,
        at the strength of least error.
    """

    alphas: NDArray[np.floating]
    errors: NDArray[np.floating]
    predictions: NDArray[np.floating]

    @property
    def alpha(self) -> float:
        """Penalty parameter of least error."""
        return float(self.alphas[self.errors.argmin()])


class Strength(NamedTuple):
    """Strength of a penalty, and what it was measured on.

    Attributes
    ----------
    alpha : float
        Penalty parameter of the program.
    alpha_max : float
        Unit: the strength is ``alpha / alpha_max``.
    sample : Sample
        The rows that were looked at.
    spectrum : Spectrum or None
        Of their program, where it was needed.
    kernel : ndarray, shape (n_samples, n_samples), or None
        Kernel of the program, where it was needed and all rows were looked at.
    flops : float
        Floating-point operations of the measurement.
    """

    alpha: float
    alpha_max: float
    sample: Sample
    spectrum: Spectrum | None
    kernel: NDArray[np.floating] | None
    flops: float


@limits_threads(lambda program, *_, **__: _sampled_product(program))
def measure_strength(
    program: ConvexProgram,
    strength: float | Literal["auto"],
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
    alpha: float | None = None,
) -> Strength:
    """Measure the unit of the strength on a program, and choose the strength if asked to.

    Parameters
    ----------
    program : ConvexProgram
        On the host, in the gated formulation; its own ``alpha`` is not used, nor its skip
        connection.
    strength : float or "auto"
        Fraction of the unit, at least 0, or "auto" for a choice without tuning.
    random_state : RandomState
        Draws rows to look at, and signs for the noise level.
    units : ndarray, shape (n_samples,), optional
        Units of data that each row consists of, at least 1; by default each is one.
    groups : ndarray of int, shape (n_samples,), optional
        Groups of rows that are left out as wholes; by default single units are.
    alpha : float, optional
        Penalty parameter, which replaces ``strength``.

    Returns
    -------
    Strength
        Penalty parameter and unit.
    """
    sample = sample_rows(program, random_state, units=units, groups=groups)
    pilot = sample.program
    choosing = alpha is None and strength == "auto"
    spectrum = matrix = None
    if choosing or not program.has_alpha_max:
        matrix = kernel_of(pilot)
        spectrum = Spectrum.of_kernel(matrix)
    unit = alpha_max(pilot, spectrum)
    if alpha is None and strength == "auto":
        assert spectrum is not None
        chosen = automatic_alpha(sample, spectrum, random_state)
        alpha = max(chosen, _LEAST_STRENGTH * unit)
    elif alpha is None:
        alpha = float(strength) * unit
    known = matrix if pilot is program else None
    return Strength(alpha, unit, sample, spectrum, known, pilot_flops(pilot, spectrum))


def _sampled_product(program: ConvexProgram) -> float:
    """Return the operations of a product with the rows that are looked at."""
    (n, d), P = program.operator.X.shape, program.operator.n_patterns
    return 2.0 * min(n, MOST_ROWS) * d * P * program.y.shape[1]


def sample_rows(
    program: ConvexProgram,
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
    most: int = MOST_ROWS,
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
    most : int, default=512
        Number of rows up to which all are taken.

    Returns
    -------
    Sample
        All rows, or at most about ``most``.
    """
    n = program.y.shape[0]
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
    operator = replace(
        program.operator, X=program.operator.X[rows], mask=program.operator.mask[rows]
    )
    equal = bool(np.all(share == share[0]))
    sampled = replace(
        program,
        operator=operator,
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


def kernel_of(program: ConvexProgram) -> NDArray[np.floating]:
    """Return the kernel of a program in float64, shape (n_samples, n_samples)."""
    return Kernel.stored(RidgeData.of(on_host(program, np.float64))).matrix


@limits_threads(
    lambda program, spectrum, *_: 4.0 * spectrum.vectors.size * _N_ALPHAS, SHARED_FACTOR
)
def leave_one_out(
    sample: Sample,
    spectrum: Spectrum,
    alphas: NDArray[np.floating] | None = None,
) -> LeaveOneOut:
    r"""Return the errors of the closed form, each unit or group predicted from all the others.

    Parameters
    ----------
    sample : Sample
        Rows on the host; their data and patterns are used, with the squared loss and the ridge
        penalty whatever those of the program are.
    spectrum : Spectrum
        Of the program.
    alphas : ndarray, shape (n_alphas,), optional
        Penalty parameters, at least 0; by default those of the spectrum.

    Returns
    -------
    LeaveOneOut
        Errors of all of them, and predictions at the best.

    Notes
    -----
    With the kernel :math:`K`, the shares :math:`s` of the rows and
    :math:`B = (K + \alpha I)^{-1}`, the residual of row ``k`` is
    :math:`\alpha (B \tilde y)_k / \sqrt{s_k}` and its leverage :math:`1 - \alpha B_{kk}`, of which
    each of its :math:`m_k` units has an equal part. Without one unit, the error is

    .. math::

        \frac{(B \tilde y)_k / \sqrt{s_k}}{B_{kk} + (1 - 1/m_k) (1 / \alpha - B_{kk})},

    the usual :math:`(B \tilde y)_k / (B_{kk} \sqrt{s_k})` where :math:`m_k = 1`. Without group
    ``g``, the errors are :math:`B_{gg}^{-1} (B \tilde y)_g`, over :math:`\sqrt{s}`.
    """
    values, vectors = spectrum
    program, units, groups, _ = sample
    share = np.broadcast_to(program.share, (len(vectors), 1))
    root = np.sqrt(share)
    alphas = spectrum.alphas() if alphas is None else np.asarray(alphas)
    # Below the rounding of the kernel the errors are those of the limit at 0.
    rounding = 100 * len(values) * np.finfo(np.float64).eps * values[-1]
    alphas = np.maximum(alphas, rounding + np.finfo(np.float64).tiny)
    turned = vectors.T @ (root * program.y)
    squares = vectors**2
    members = [] if groups is None else [np.flatnonzero(groups == g) for g in np.unique(groups)]

    def errors(alpha: float) -> NDArray[np.floating]:
        u = vectors @ (turned / (values + alpha)[:, None])
        if groups is not None:
            for rows in members:
                block = (vectors[rows] / (values + alpha)) @ vectors[rows].T
                u[rows] = np.linalg.solve(block, u[rows])
            return u / root
        own = (squares @ (1 / (values + alpha)))[:, None]
        if units is not None:
            own = own + (1 - 1 / units)[:, None] * (1 / alpha - own)
        return u / own / root

    size = np.array([float((share * errors(alpha) ** 2).sum()) for alpha in alphas])
    return LeaveOneOut(alphas, size, program.y - errors(float(alphas[size.argmin()])))


def without_outliers(
    sample: Sample, spectrum: Spectrum, delta: float | None = None
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
        Largest distance, positive. By default 1.345 standard deviations of the noise, as the median
        of absolute leave-one-out residuals tells them: 95 % efficient for Gaussian noise (Huber,
        1981), and the same whatever the size of a minority of outliers.

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
        errors = leave_one_out(sample, spectrum).errors
        chosen = spectrum.alphas()[errors <= _TIE_OF_PULLED * errors.min()].max()
        found = leave_one_out(sample, spectrum, np.array([chosen]))
        around = found.predictions
        reach = delta or EFFICIENT_DELTA * spread_of(program.y - around, share)
    return sample, found


def choose_delta(
    program: ConvexProgram,
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
) -> float:
    """Choose from the data where the Huber loss turns linear.

    Parameters
    ----------
    program : ConvexProgram
        On the host, in the gated formulation; its own loss is not used.
    random_state : RandomState
        Draws rows to look at.
    units, groups : ndarray, optional
        As for :func:`measure_strength`.

    Returns
    -------
    float
        1.345 standard deviations of the noise, see :func:`without_outliers`; in units of the
        program's targets.
    """
    sample = sample_rows(program, random_state, units=units, groups=groups)
    _, found = without_outliers(sample, Spectrum.of(sample.program))
    share = np.broadcast_to(sample.program.share, found.predictions.shape).ravel()
    return EFFICIENT_DELTA * spread_of(sample.program.y - found.predictions, share)


def spread_of(residual: NDArray[np.floating], weight: NDArray[np.floating]) -> float:
    """Return a robust standard deviation: 1.4826 times the weighted median of absolute values.

    Where more than half are zero, the root mean square; 1 where all are.
    """
    size = np.abs(residual).ravel()
    middle = 1.4826 * weighted_median(size, weight)
    if middle > 0:
        return middle
    rest = float(np.sqrt(np.average(size**2, weights=weight)))
    return rest if rest > 0 else 1.0


def weighted_median(values: NDArray[np.floating], weight: Any) -> float:
    """Return the median of repeated values, where weights are numbers of repetitions."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(np.broadcast_to(np.asarray(weight, np.float64).ravel(), values.shape)[order])
    # Sums of equal weights may miss the half by rounding: the median is then between two values.
    half, room = total[-1] / 2, 1e-12 * total[-1]
    low, high = np.searchsorted(total, [half - room, half + room])
    middle = values[order[[low, min(high, len(values) - 1)]]]
    return float(middle.mean(dtype=np.float64))


def alpha_max(program: ConvexProgram, spectrum: Spectrum | None) -> float:
    """Return the unit of the strength; see above.

    Parameters
    ----------
    program : ConvexProgram
        On the host, in the gated formulation; its own ``alpha`` and skip connection are not used.
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


def automatic_alpha(
    sample: Sample, spectrum: Spectrum, random_state: np.random.RandomState
) -> float:
    """Choose the penalty parameter for all rows from a sample of them.

    Parameters
    ----------
    sample : Sample
        Rows on the host, in the gated formulation.
    spectrum : Spectrum
        Of their program.
    random_state : RandomState
        Draws signs for the noise level.

    Returns
    -------
    float
        The penalty parameter.
    """
    found: LeaveOneOut | None = None
    if isinstance(sample.program.loss, HuberLoss):
        sample, found = without_outliers(sample, spectrum, sample.program.loss.delta)
    program = sample.program
    found = found or leave_one_out(sample, spectrum)
    if not program.has_alpha_max:
        # The ridge is noise over signal of one unit: its share falls with their number.
        return found.alpha * program.loss.curvature * sample.part
    residual = program.y - found.predictions
    if sample.units is not None:  # signs of independent units cancel
        residual = residual / np.sqrt(sample.units)[:, None]
    n = len(residual)
    draws = [
        _slope_size(program, random_state.choice([-1.0, 1.0], (n, 1)) * residual)
        for _ in range(_N_DRAWS)
    ]
    noise = float(np.median(draws)) * np.sqrt(sample.part)
    return _PART_OF_NOISE * noise * program.loss.curvature


def pilot_flops(program: ConvexProgram, spectrum: Spectrum | None) -> float:
    """Return the operations of the unit and, with a spectrum, of the choice."""
    (n, d), P, C = program.operator.X.shape, program.operator.n_patterns, program.y.shape[1]
    slope = 2.0 * n * d * P * C
    if spectrum is None:
        return slope
    decomposition = kernel_flops(n, d, P) + 4.0 * n**3
    slopes = _N_DRAWS + 1 if program.has_alpha_max else 0
    return decomposition + 4.0 * n * n * _N_ALPHAS + slopes * slope


def _slope_size(program: ConvexProgram, residual: NDArray[np.floating]) -> float:
    """Return alpha_max for targets ``residual`` of the squared loss."""
    return float(replace(program, y=residual, loss=SquaredLoss()).alpha_max())
