"""The kernel of a ridge program seen through some of its rows, for a preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import Floats, by_strength, shifted_inverse
from cvxnn.convex.solvers.ridge.kernel import Kernel


class NystromKernel(NamedTuple):
    """The kernel seen through its columns at a sample of the rows: ``basis basis^T``.

    Attributes
    ----------
    basis : ndarray, shape (n_samples, rank)
        Factor of the approximation; columns of a linear part come last.
    inner : ndarray, shape (rank, rank)
        ``basis^T basis``.
    n_linear : int
        Columns of the linear part.
    ridge : float or None
        Ridge of the linear part.
    """

    basis: Floats
    inner: Floats
    n_linear: int = 0
    ridge: float | None = None

    @classmethod
    def of(cls, data: RidgeData, rank: int, dtype: Any = np.float64) -> NystromKernel:
        """Sample at most ``rank`` rows; the basis is kept, and applied, in ``dtype``."""
        rows = np.random.RandomState(0).permutation(data.n_rows)[:rank]
        basis, n_linear = _nystrom_basis(data.gates, rows, dtype), 0
        if data.ridge is not None:
            # So many rows span all features.
            of_linear = _nystrom_basis(data.linear, rows[: data.X.shape[1]], dtype)
            basis, n_linear = np.concatenate([basis, of_linear], axis=1), of_linear.shape[1]
        return cls(basis, (basis.T @ basis).astype(np.float64), n_linear, data.ridge)

    def shifted(self, alpha: float | Floats) -> Callable[[Floats], Floats]:
        """Return the inverse of the approximation plus ``alpha``, as a function.

        ``alpha`` may have a value for each column.
        """
        basis = self.basis
        # A Gram matrix in float32 may be indefinite by its rounding.
        rounding = 10 * np.finfo(basis.dtype).eps * np.trace(self.inner)
        least = np.maximum(alpha, rounding)

        def inverse_at(value: float) -> Callable[[Floats], Floats]:
            ridges = np.full(len(self.inner), value)
            if self.ridge is not None:
                ridges[len(ridges) - self.n_linear :] = max(self.ridge, rounding)
            return shifted_inverse(self.inner, ridges)

        inverses = {value: inverse_at(value) for value in np.unique(least)}

        def apply(r: Floats) -> Floats:
            projected = (basis.T @ r.astype(basis.dtype)).astype(np.float64)
            inner = by_strength(least, projected, lambda value, part: inverses[value](part))
            return (r - basis @ inner.astype(basis.dtype)) / alpha

        return apply


def _nystrom_basis(data: RidgeData, rows: NDArray[np.intp], dtype: Any) -> Floats:
    """Return a factor of the kernel, from its columns at some rows."""
    columns = Kernel.between(data, data.take(rows), dtype)
    core = columns[rows].astype(np.float64)
    rounding = 10 * np.finfo(dtype).eps * np.trace(core)
    core[np.diag_indices(len(core))] += rounding + np.finfo(dtype).tiny
    lower = cholesky(core, lower=True, check_finite=False).astype(dtype, copy=False)
    return solve_triangular(lower, columns.T, lower=True, overwrite_b=True, check_finite=False).T
