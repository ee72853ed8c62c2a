r"""Strength of the penalty, and its unit.

For a penalty that is a norm, the unit is :math:`\alpha_{\max}`: from there on all weights vanish.
For the ridge penalty, and for others that remove nothing, it is the largest curvature of the mean
loss: there, even the direction that the data determine best is halved. A *fraction* of this unit
means the same for all data. ``cvxnn.training.automatic_strength`` chooses one without tuning.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.penalties import SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.ridge_flops import kernel_flops
from cvxnn.numerics.phases import tell
from cvxnn.numerics.threads import limits_threads
from cvxnn.training.automatic_strength import N_DRAWS, HeldOutError, automatic_alpha
from cvxnn.training.fold_errors import rows_to_look_at
from cvxnn.training.row_sample import MOST_ROWS, Sample, sample_rows
from cvxnn.training.spectrum import N_ALPHAS, Spectrum

# Smallest automatic strength, as a fraction of its unit: data without noise ask for none at all.
_LEAST_STRENGTH = 1e-9
# Rows up to which a ridge is chosen on all: one eigendecomposition takes less time than folds.
_ALL_ROWS = 1024


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
    by_folds : tuple or None
        A larger sample, where there was one, and predictions of its rows by other folds of it, at
        the strength that was chosen.
    """

    alpha: Any
    alpha_max: float
    sample: Sample
    spectrum: Spectrum | None
    kernel: NDArray[np.floating] | None
    flops: float
    factor: Any
    by_folds: tuple[Sample, NDArray[np.floating]] | None = None


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
        Draws rows to look at, and their folds or signs for the noise level.
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
        Rows up to which all are looked at; by default that of ``sample_rows``, and a ridge is
        chosen on all of up to 1,024 rows, and on 2,048 to 4,096 of more.
    spectrum : Spectrum, optional
        Of the program, where it is known (``choose_patterns``); it is not computed again then.

    Returns
    -------
    Strength
        Penalty parameter and unit.
    """
    tell("choosing strength" if strength == "auto" else "measuring the unit of strength")
    ridge = strength == "auto" and not program.has_alpha_max
    looked_at = _ALL_ROWS if ridge and most is None and len(program.y) <= _ALL_ROWS else most
    sample = sample_rows(program, random_state, units=units, groups=groups, most=looked_at)
    pilot = sample.program
    whole = pilot is program
    if strength != "auto" and program.has_alpha_max:
        spectrum = None
    elif spectrum is None or not whole:
        spectrum = Spectrum.of(pilot)
    unit = alpha_max(pilot, spectrum)
    alpha: Any
    factor: Any = sample.part
    by_folds = None
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
        if many is not None and chosen.predictions is not None:
            by_folds = many, chosen.predictions
        alpha = np.maximum(alpha, _LEAST_STRENGTH * unit)
        if shared or len(alpha) == 1:
            alpha, factor = float(alpha[0]), float(factor[0])
    return Strength(alpha, unit, sample, spectrum, known, flops, factor, by_folds)


def _sampled_product(program: ConvexProgram) -> float:
    """Return the operations of a product with the rows that are looked at."""
    (n, d), P = program.operator.X.shape, program.operator.n_patterns
    return 2.0 * min(n, MOST_ROWS) * d * P * program.y.shape[1]


def alpha_max(program: ConvexProgram, spectrum: Spectrum | None) -> float:
    """Return the unit of the strength, as at the top of this module.

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
    slopes = N_DRAWS + 1 if program.has_alpha_max else 0
    return decomposition + 4.0 * n * n * N_ALPHAS + slopes * slope
