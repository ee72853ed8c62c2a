r"""Leave-one-out errors of the closed form, for all strengths from one eigendecomposition.

What is left out is one *unit* of data. A row that stands for several equal ones, or that has a
weight of 3, consists of several units; the others stay when one is left out. Where units belong to
groups (a patient, a conversation), a whole group is left out, since its units resemble each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn._threads import SHARED_FACTOR, limit_threads, limits_threads
from cvxnn.convex.program import ConvexProgram, on_host
from cvxnn.convex.solvers.ridge.products import Kernel, RidgeData
from cvxnn.training.row_sample import Sample

# Strengths that are tried.
N_ALPHAS = 31


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
        return mean * np.logspace(-6, 2, N_ALPHAS)


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


def kernel_of(program: ConvexProgram) -> NDArray[np.floating]:
    """Return the kernel of a program in float64, shape (n_samples, n_samples)."""
    return Kernel.stored(RidgeData.of(on_host(program, np.float64))).matrix


@limits_threads(lambda program, spectrum, *_: 4.0 * spectrum.vectors.size * N_ALPHAS, SHARED_FACTOR)
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
