r"""Leave-one-out errors of the closed form, for all strengths from one eigendecomposition.

What is left out is one *unit* of data. A row that stands for several equal ones, or that has a
weight of 3, consists of several units; the others stay when one is left out. Where units belong to
groups (a patient, a conversation), a whole group is left out, since its units resemble each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.host_program import on_host
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads, limits_threads
from cvxnn.training.row_sample import Sample

# Strengths that are tried.
N_ALPHAS = 31


class Spectrum(NamedTuple):
    """The kernel ``A A^T`` of ``cvxnn.convex.solvers.ridge.ridge`` and its eigendecomposition.

    Attributes
    ----------
    values : ndarray, shape (n_samples,)
        Eigenvalues, rising, not negative.
    vectors : ndarray, shape (n_samples, n_samples)
        Eigenvectors, one a column.
    kernel : ndarray, shape (n_samples, n_samples)
        The kernel itself, for those who need it as well.
    """

    values: NDArray[np.floating]
    vectors: NDArray[np.floating]
    kernel: NDArray[np.floating]

    @classmethod
    def of(cls, program: ConvexProgram) -> Spectrum:
        """Decompose the kernel of a program."""
        return cls.of_kernel(Kernel.stored(RidgeData.of(on_host(program, np.float64))).matrix)

    @classmethod
    def of_kernel(cls, matrix: NDArray[np.floating]) -> Spectrum:
        """Decompose a kernel; time is that of an ``n x n`` eigendecomposition."""
        with limit_threads(4.0 * len(matrix) ** 3, SHARED_FACTOR):
            values, vectors = np.linalg.eigh(matrix)
        return cls(np.maximum(values, 0), vectors, matrix)

    def of_rows(self, rows: NDArray[np.intp], share: NDArray[np.floating]) -> Spectrum:
        """Decompose the part of the kernel that is the kernel of some of the rows.

        Parameters
        ----------
        rows : ndarray of int, shape (n_rows,)
            Rows whose program it is.
        share : ndarray, shape (n_rows,)
            Shares of these rows in the loss of all.

        Returns
        -------
        Spectrum
            Of the program of these rows, whose own shares add up to one.
        """
        return Spectrum.of_kernel(self.kernel[np.ix_(rows, rows)] / share.sum())

    def alphas(self) -> NDArray[np.floating]:
        """Return 31 penalty parameters, from 1e-6 to 1e2 times the mean eigenvalue."""
        mean = max(self.values.mean(), float(np.finfo(np.float64).tiny) * 1e6)
        return mean * np.logspace(-6, 2, N_ALPHAS)


class LeaveOneOut(NamedTuple):
    """Errors of the closed form on units of data it has not seen.

    Attributes
    ----------
    alphas : ndarray, shape (n_alphas,)
        Penalty parameters.
    errors : ndarray, shape (n_alphas, n_outputs)
        Weighted mean squared error of each output.
    alpha : ndarray, shape (n_outputs,)
        Penalty parameter of least error, of each output or, where they share one, of their sum.
    predictions : ndarray, shape (n_samples, n_outputs)
        Prediction of each row by the network trained without one unit of it, or without its group,
        at ``alpha``.
    """

    alphas: NDArray[np.floating]
    errors: NDArray[np.floating]
    alpha: NDArray[np.floating]
    predictions: NDArray[np.floating]

    def least(self, *, shared: bool) -> NDArray[np.floating]:
        """Return the least error of each output, or of all together.

        Parameters
        ----------
        shared : bool
            Whether all outputs have the same strength.
        """
        return np.asarray(self.errors.sum(axis=1).min() if shared else self.errors.min(axis=0))


@limits_threads(
    lambda sample, spectrum, *_, **__: 4.0 * spectrum.vectors.size * N_ALPHAS, SHARED_FACTOR
)
def leave_one_out(sample: Sample, spectrum: Spectrum, *, shared: bool = False) -> LeaveOneOut:
    r"""Return the errors of the closed form, each unit or group predicted from all the others.

    Parameters
    ----------
    sample : Sample
        Rows on the host; their data and patterns are used, with the squared loss and the ridge
        penalty whatever those of the program are.
    spectrum : Spectrum
        Of the program.
    shared : bool, default=False
        Whether all outputs have the same strength.

    Returns
    -------
    LeaveOneOut
        Errors at all strengths of the spectrum, and predictions at the best.
    """
    residuals = Residuals(sample, spectrum)
    alphas = spectrum.alphas()
    errors = residuals.errors(alphas)
    summed = np.repeat(errors.sum(axis=1, keepdims=True), errors.shape[1], axis=1)
    best = alphas[(summed if shared else errors).argmin(axis=0)]
    return LeaveOneOut(alphas, errors, best, residuals.predictions(best))


def predictions_without(
    sample: Sample, spectrum: Spectrum, alpha: float | NDArray[np.floating]
) -> NDArray[np.floating]:
    r"""Return the prediction of each row by the closed form without a unit of it, or its group.

    Parameters
    ----------
    sample, spectrum
        As for :func:`leave_one_out`.
    alpha : float or ndarray, shape (n_outputs,)
        Penalty parameter, at least 0.

    Returns
    -------
    ndarray, shape (n_samples, n_outputs)
        Predictions.

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
    return Residuals(sample, spectrum).predictions(alpha)


class Residuals:
    """Residuals of rows by the closed form without a unit of them, or their group.

    Parameters
    ----------
    sample, spectrum
        As for :func:`leave_one_out`.
    """

    def __init__(self, sample: Sample, spectrum: Spectrum) -> None:
        self.y = sample.program.y
        self.values, self.vectors = values, vectors = spectrum.values, spectrum.vectors
        self.units, groups = sample.units, sample.groups
        self.share = np.broadcast_to(sample.program.share, (len(vectors), 1))
        self.root = np.sqrt(self.share)
        self.turned = vectors.T @ (self.root * sample.program.y)
        self.squares = vectors**2
        self.members = (
            None if groups is None else [np.flatnonzero(groups == g) for g in np.unique(groups)]
        )
        # Below the rounding of the kernel the errors are those of the limit at 0.
        rounding = 100 * len(values) * np.finfo(np.float64).eps * values[-1]
        self.least = rounding + np.finfo(np.float64).tiny

    def at(self, alpha: float, outputs: Any = slice(None)) -> NDArray[np.floating]:
        """Return the residuals of some outputs; see the notes of :func:`predictions_without`.

        Parameters
        ----------
        alpha : float
            Penalty parameter, at least 0.
        outputs : slice or ndarray of int
            Which outputs; all by default.
        """
        vectors, shifted = self.vectors, self.values + max(alpha, self.least)
        u = vectors @ (self.turned[:, outputs] / shifted[:, None])
        if self.members is not None:
            for rows in self.members:
                u[rows] = np.linalg.solve((vectors[rows] / shifted) @ vectors[rows].T, u[rows])
            return np.asarray(u / self.root)
        own = self._own(np.array([alpha]))
        return np.asarray(u / own / self.root)

    def _own(self, alphas: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return what ``(B y) / sqrt(s)`` is divided by, (n_samples, n_alphas)."""
        alphas = np.maximum(alphas, self.least)
        own = self.squares @ (1 / (self.values[:, None] + alphas))
        if self.units is not None:
            own += (1 - 1 / self.units)[:, None] * (1 / alphas - own)
        return np.asarray(own)

    def errors(self, alphas: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the weighted mean square of each output's residuals, (n_alphas, n_outputs).

        Parameters
        ----------
        alphas : ndarray, shape (n_alphas,)
            Penalty parameters.
        """
        if self.members is not None:
            residuals = (self.at(float(alpha)) for alpha in alphas)
            return np.array([(self.share * found**2).sum(axis=0) for found in residuals])
        # All strengths at once: the eigenvectors go through memory once for each output.
        own = self._own(alphas)
        inverse = 1 / (self.values[:, None] + np.maximum(alphas, self.least))
        errors = np.empty((len(alphas), self.turned.shape[1]))
        for output, turned in enumerate(self.turned.T):
            # The shares cancel against the roots of the residuals.
            scaled = self.vectors @ (turned[:, None] * inverse) / own
            errors[:, output] = (scaled**2).sum(axis=0)
        return errors

    def predictions(self, alpha: float | NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the predictions of :func:`predictions_without`.

        Parameters
        ----------
        alpha : float or ndarray, shape (n_outputs,)
            Penalty parameter, at least 0.
        """
        alphas = np.broadcast_to(alpha, self.y.shape[1])
        predictions = np.empty(self.y.shape)
        for value in np.unique(alphas):
            outputs = np.flatnonzero(alphas == value)
            predictions[:, outputs] = self.y[:, outputs] - self.at(float(value), outputs)
        return predictions
