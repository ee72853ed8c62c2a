r"""The inverse Hessian of a solved program, between the features of any rows.

With :math:`A = \operatorname{diag}(\sqrt{s \ell''}) F` of the rows of the program and
:math:`H = A^T A + \alpha I`, the kernel :math:`k` of the gated features gives

.. math::

    \varphi_a^T H^{-1} \varphi_b = \frac1\alpha \big(k(a, b) - k(a, A) (A A^T + \alpha I)^{-1}
        k(A, b)\big)

without features. For the squared loss :math:`f(z) - f^* = \tfrac12 \|z - z^*\|_H^2`, so that a
duality gap :math:`g` bounds predictions by :math:`|\varphi^T (z - z^*)| \le \sqrt{2 g}
\sqrt{\varphi^T H^{-1} \varphi}` (Cauchy and Schwarz).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from cvxnn.convex.certificate import Certificate
from cvxnn.convex.host_program import on_host
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import rounding_named
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.numerics.arrays import dense
from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads
from cvxnn.training.left_out import require_ridge

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class InverseHessian:
    """Products of features with the inverse Hessian of one output.

    Attributes
    ----------
    data : RidgeData
        Rows of the program, without weights.
    root : ndarray, shape (n_rows, 1)
        Roots of their shares of the second derivative.
    factor : ndarray, shape (n_rows, n_rows)
        Lower Cholesky factor of the weighted kernel plus ``alpha``.
    alpha : float
        Strength of the penalty.
    """

    data: RidgeData
    root: Floats
    factor: Floats
    alpha: float

    @classmethod
    def of(cls, certificate: Certificate) -> InverseHessian:
        """Return that of a solved program of one output.

        Parameters
        ----------
        certificate : Certificate
            The gated formulation with the penalty ``SquaredL2``, no linear part and one output.

        Raises
        ------
        TypeError
            If the program is another.
        ValueError
            If it has several outputs.

        Notes
        -----
        With ``n`` rows it takes ``n**3 / 3`` flops and two kernels of ``8 n**2`` bytes.
        """
        n_outputs = certificate.program.y.shape[1]
        if n_outputs != 1:
            raise ValueError(
                f"the program has {n_outputs} outputs; the inverse Hessian is that of one."
            )
        return next(cls.each(certificate))

    @classmethod
    def each(cls, certificate: Certificate) -> Iterator[InverseHessian]:
        """Return that of each output of a solved program, one after another.

        Parameters
        ----------
        certificate : Certificate
            The gated formulation with the penalty ``SquaredL2`` and no linear part, and a loss that
            treats each output by itself. They share a kernel.

        Raises
        ------
        TypeError
            If the program is another.
        """
        program = on_host(certificate.program, np.float64)
        require_ridge(program)
        if program.loss.coupled:
            raise TypeError(
                f"{type(program.loss).__name__} couples the outputs, whose Hessian has no blocks; "
                "use loss='squared' or loss='logistic'."
            )
        data = RidgeData.of(program)
        blocks = np.asarray(certificate.weights.blocks, np.float64)[:, 0]
        curvature = np.asarray(program.loss.hessian(data.forward(blocks), program.y))
        roots = data.root * np.sqrt(curvature)
        data = replace(data, root=np.ones_like(data.root))
        kernel = Kernel.between(data, data)
        alphas = np.broadcast_to(np.asarray(program.alpha, np.float64), len(blocks)).tolist()
        return (
            cls(data, root[:, None], _factor(root[:, None] * kernel * root, alpha), alpha)
            for root, alpha in zip(roots.T, alphas, strict=True)
        )

    def covariance(self, X: Any, mask: NDArray[np.bool_]) -> Floats:
        r"""Return :math:`\varphi_a^T H^{-1} \varphi_b` of rows, shape (n_new, n_new).

        Parameters
        ----------
        X : ndarray, shape (n_new, n_features)
            Rows, in the units of the program.
        mask : ndarray of bool, shape (n_new, n_patterns)
            Gates that are open on them.
        """
        new = self._new(X, mask)
        return self.given(Kernel.between(new, new), Kernel.between(new, self.data).T)

    def given(self, own: Floats, cross: Floats) -> Floats:
        """Return :meth:`covariance` from kernels.

        Parameters
        ----------
        own : ndarray, shape (n_new, n_new)
            Kernel of the new rows.
        cross : ndarray, shape (n_rows, n_new)
            Kernel of the program's rows and the new ones, without weights.
        """
        half = self._half(cross)
        return (own - half.T @ half) / self.alpha

    def variances(
        self, X: Any, mask: NDArray[np.bool_], pairs: NDArray[np.intp] | None = None
    ) -> Floats:
        r"""Return :math:`\varphi^T H^{-1} \varphi` of rows, or of differences of two rows each.

        Parameters
        ----------
        X : ndarray, shape (n_new, n_features)
            Rows, in the units of the program.
        mask : ndarray of bool, shape (n_new, n_patterns)
            Gates that are open on them.
        pairs : ndarray of int, shape (n_pairs, 2), optional
            Rows of each difference.

        Returns
        -------
        ndarray, shape (n_new,) or (n_pairs,)
            At least 0.
        """
        new = self._new(X, mask, pairs)
        half = self._half(Kernel.between(new, self.data).T)
        return np.maximum(new.squares() - (half**2).sum(axis=0), 0) / self.alpha

    def _new(
        self, X: Any, mask: NDArray[np.bool_], pairs: NDArray[np.intp] | None = None
    ) -> RidgeData:
        n = X.shape[0] if pairs is None else len(pairs)
        X, columns = dense(X).astype(np.float64), mask.astype(np.float32)
        return RidgeData(X, columns, np.ones((n, 1)), np.zeros((n, 1)), None, pairs)

    def _half(self, cross: Floats) -> Floats:
        """Return the inverse factor times a kernel of the program's rows and others."""
        with limit_threads(1.0 * len(self.factor) * cross.size, SHARED_FACTOR):
            half = solve_triangular(
                self.factor, self.root * cross, lower=True, overwrite_b=True, check_finite=False
            )
        return np.asarray(half)


def _factor(matrix: Floats, alpha: float) -> Floats:
    """Return the lower Cholesky factor of a matrix, which is overwritten, plus ``alpha``."""
    matrix[np.diag_indices(len(matrix))] += alpha
    with limit_threads(len(matrix) ** 3 / 3, SHARED_FACTOR), rounding_named():
        return np.asarray(cholesky(matrix, lower=True, overwrite_a=True, check_finite=False))
