r"""Strength of the penalty: its unit, and a choice without tuning.

**The unit.** For a penalty that is a norm, :math:`\alpha_{\max}`: from there on all weights vanish.
For the ridge penalty, which removes nothing, the largest curvature of the mean loss: there, even
the direction that the data determine best is halved. A *fraction* of this unit means the same for
all data.

**The choice.** For the ridge penalty, the leave-one-out error of the closed form, exact and for all
strengths at once from one eigendecomposition (Allen, 1974). For norms, a multiple of the *noise
level*: the size of the slope that the leave-one-out residuals would have with random signs, which
is what the penalty has to hold back (Giacobino et al., 2017). Both look at a sample of
the rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.penalties import SquaredL2
from cvxnn.convex.program import ConvexProgram, on_host
from cvxnn.convex.solvers.ridge.products import Kernel, RidgeData, kernel_flops

# Rows that are looked at, and strengths that are tried.
MOST_ROWS = 512
_N_ALPHAS = 31
# Chosen among 0.05 to 0.8 by accuracy on small tables, before raw results were kept.
_PART_OF_NOISE = 0.2
_N_DRAWS = 32
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
        values, vectors = np.linalg.eigh(matrix)
        return cls(np.maximum(values, 0), vectors)

    def alphas(self) -> NDArray[np.floating]:
        """Return 31 penalty parameters, from 1e-6 to 1e2 times the mean eigenvalue."""
        mean = max(self.values.mean(), float(np.finfo(np.float64).tiny) * 1e6)
        return mean * np.logspace(-6, 2, _N_ALPHAS)


class LeaveOneOut(NamedTuple):
    """Errors of the closed form on rows it has not seen.

    Attributes
    ----------
    alphas : ndarray, shape (n_alphas,)
        Penalty parameters.
    errors : ndarray, shape (n_alphas,)
        Weighted mean squared error, summed over outputs.
    predictions : ndarray, shape (n_samples, n_outputs)
        Each row's prediction by the network trained without it, at the strength of least error.
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
    pilot : ConvexProgram
        Program of the rows that were looked at.
    spectrum : Spectrum or None
        Of the pilot, where it was needed.
    kernel : ndarray, shape (n_samples, n_samples), or None
        Kernel of the program, where it was needed and all rows were looked at.
    flops : float
        Floating-point operations of the measurement.
    """

    alpha: float
    alpha_max: float
    pilot: ConvexProgram
    spectrum: Spectrum | None
    kernel: NDArray[np.floating] | None
    flops: float


def measure_strength(
    program: ConvexProgram,
    strength: float | Literal["auto"],
    random_state: np.random.RandomState,
    *,
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
    alpha : float, optional
        Penalty parameter, which replaces ``strength``.

    Returns
    -------
    Strength
        Penalty parameter and unit.
    """
    pilot = sample_rows(program, random_state)
    choosing = alpha is None and strength == "auto"
    spectrum = matrix = None
    if choosing or isinstance(program.penalty, SquaredL2):
        matrix = kernel_of(pilot)
        spectrum = Spectrum.of_kernel(matrix)
    unit = alpha_max(pilot, spectrum)
    if alpha is None and strength == "auto":
        assert spectrum is not None
        chosen = automatic_alpha(pilot, spectrum, program.y.shape[0], random_state)
        alpha = max(chosen, _LEAST_STRENGTH * unit)
    elif alpha is None:
        alpha = float(strength) * unit
    known = matrix if pilot is program else None
    return Strength(alpha, unit, pilot, spectrum, known, pilot_flops(pilot, spectrum))


def sample_rows(
    program: ConvexProgram, random_state: np.random.RandomState, most: int = MOST_ROWS
) -> ConvexProgram:
    """Return the program of at most ``most`` random rows; the program itself where all are."""
    n = program.y.shape[0]
    if n <= most:
        return program
    rows = random_state.permutation(n)[:most]
    weight = program.sample_weight
    operator = replace(
        program.operator, X=program.operator.X[rows], mask=program.operator.mask[rows]
    )
    return replace(
        program,
        operator=operator,
        y=program.y[rows],
        sample_weight=None if weight is None else weight[rows],
    )


def kernel_of(program: ConvexProgram) -> NDArray[np.floating]:
    """Return the kernel of a program in float64, shape (n_samples, n_samples)."""
    return Kernel.stored(RidgeData.of(on_host(program, np.float64))).matrix


def leave_one_out(
    program: ConvexProgram,
    spectrum: Spectrum,
    alphas: NDArray[np.floating] | None = None,
) -> LeaveOneOut:
    r"""Return the errors of the closed form, each row predicted from all the others.

    Parameters
    ----------
    program : ConvexProgram
        On the host; its data and patterns are used, with the squared loss and the ridge penalty
        whatever its own are.
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
    With the kernel :math:`K` and :math:`B = (K + \alpha I)^{-1}`, the error of row ``k`` left out
    is :math:`(B \tilde y)_k / (B_{kk} \sqrt{s_k})`.
    """
    values, vectors = spectrum
    share = np.broadcast_to(program.share, (len(vectors), 1))
    root = np.sqrt(share)
    alphas = spectrum.alphas() if alphas is None else np.asarray(alphas)
    # Below the rounding of the kernel the errors are those of the limit at 0.
    rounding = 100 * len(values) * np.finfo(np.float64).eps * values[-1]
    alphas = np.maximum(alphas, rounding + np.finfo(np.float64).tiny)
    turned = vectors.T @ (root * program.y)
    squares = vectors**2

    def errors(alpha: float) -> NDArray[np.floating]:
        u = vectors @ (turned / (values + alpha)[:, None])
        return u / (squares @ (1 / (values + alpha)))[:, None] / root

    size = np.array([float((share * errors(alpha) ** 2).sum()) for alpha in alphas])
    return LeaveOneOut(alphas, size, program.y - errors(float(alphas[size.argmin()])))


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
    if isinstance(program.penalty, SquaredL2):
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
    program: ConvexProgram,
    spectrum: Spectrum,
    n_samples: int,
    random_state: np.random.RandomState,
) -> float:
    """Choose the penalty parameter for all rows from a sample of them.

    Parameters
    ----------
    program : ConvexProgram
        Of the sampled rows, on the host, in the gated formulation.
    spectrum : Spectrum
        Of the program.
    n_samples : int
        Number of all rows.
    random_state : RandomState
        Draws signs for the noise level.

    Returns
    -------
    float
        The penalty parameter.
    """
    n = program.y.shape[0]
    found = leave_one_out(program, spectrum)
    if isinstance(program.penalty, SquaredL2):
        # The ridge is noise over signal of one row: its share falls with their number.
        return found.alpha * program.loss.curvature * n / n_samples
    residual = program.y - found.predictions
    draws = [
        _slope_size(program, random_state.choice([-1.0, 1.0], (n, 1)) * residual)
        for _ in range(_N_DRAWS)
    ]
    noise = float(np.median(draws)) * np.sqrt(n / n_samples)
    return _PART_OF_NOISE * noise * program.loss.curvature


def pilot_flops(program: ConvexProgram, spectrum: Spectrum | None) -> float:
    """Return the operations of the unit and, with a spectrum, of the choice."""
    (n, d), P, C = program.operator.X.shape, program.operator.n_patterns, program.y.shape[1]
    slope = 2.0 * n * d * P * C
    if spectrum is None:
        return slope
    decomposition = kernel_flops(n, d, P) + 4.0 * n**3
    slopes = 0 if isinstance(program.penalty, SquaredL2) else _N_DRAWS + 1
    return decomposition + 4.0 * n * n * _N_ALPHAS + slopes * slope


def _slope_size(program: ConvexProgram, residual: NDArray[np.floating]) -> float:
    """Return alpha_max for targets ``residual`` of the squared loss."""
    return float(replace(program, y=residual, loss=SquaredLoss()).alpha_max())
