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

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from cvxnn.convex.certificate import Certificate
from cvxnn.convex.program import on_host
from cvxnn.convex.solvers.ridge.data import RidgeData
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
        Rows of the program; ``root`` has the roots of their second derivatives.
    factor : ndarray, shape (n_rows, n_rows)
        Lower Cholesky factor of the kernel plus ``alpha``.
    alpha : float
        Strength of the penalty.
    """

    data: RidgeData
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
        program = on_host(certificate.program, np.float64)
        require_ridge(program)
        if program.y.shape[1] != 1:
            raise ValueError(
                f"the program has {program.y.shape[1]} outputs; the inverse Hessian is that of one."
            )
        data, alpha = RidgeData.of(program), float(np.ravel(program.alpha)[0])
        blocks = np.asarray(certificate.weights.blocks, np.float64)[:, 0]
        curvature = np.asarray(program.loss.hessian(data.forward(blocks), program.y))
        data = replace(data, root=data.root * np.sqrt(curvature))
        with limit_threads(data.n_rows**3 / 3, SHARED_FACTOR):
            matrix = Kernel.between(data, data)
            matrix[np.diag_indices(len(matrix))] += alpha
            factor = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
        return cls(data, factor, alpha)

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
        half = self._half(new)
        return (Kernel.between(new, new) - half.T @ half) / self.alpha

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
        return np.maximum(new.squares() - (self._half(new) ** 2).sum(axis=0), 0) / self.alpha

    def _new(
        self, X: Any, mask: NDArray[np.bool_], pairs: NDArray[np.intp] | None = None
    ) -> RidgeData:
        n = X.shape[0] if pairs is None else len(pairs)
        X, columns = dense(X).astype(np.float64), mask.astype(np.float32)
        return RidgeData(X, columns, np.ones((n, 1)), np.zeros((n, 1)), None, pairs)

    def _half(self, new: RidgeData) -> Floats:
        """Return the inverse factor times the kernel of the program's rows and others."""
        cross = Kernel.between(new, self.data).T
        with limit_threads(1.0 * len(self.factor) * cross.size, SHARED_FACTOR):
            return np.asarray(solve_triangular(self.factor, cross, lower=True, check_finite=False))
