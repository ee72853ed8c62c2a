r"""Rows, or pairs, whose labels would tell a fitted program most.

At the solution, the objective of an output has the Hessian
:math:`H = \sum_k s_k \ell''_k \phi_k \phi_k^T + \alpha I` in the gated features. One more label, of
share :math:`s` and second derivative :math:`\ell''` at its prediction, multiplies the determinant
by :math:`1 + s\,\ell'' \phi^T H^{-1} \phi`, whatever the label turns out to be (for a logistic
loss: to first order). A D-optimal choice takes the row of the largest factor, adds it to the
Hessian and goes on (Fedorov, 1972): rows that tell the same are not asked for twice. By the kernel
:math:`k` of the features,

.. math::

    \alpha\,\phi^T H^{-1} \psi = k(\phi, \psi) - k_\phi^T (K + \alpha W^{-1})^{-1} k_\psi,
    \qquad W = \operatorname{diag}(s_k \ell''_k).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from cvxnn.convex.certificate import Certificate
from cvxnn.convex.program import on_host
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads
from cvxnn.training.left_out import require_ridge

# Most numbers of the kernel of fitted rows and candidates: 2 GiB.
_MOST_NUMBERS = 2**28

Floats = NDArray[np.floating]


class Asked(NamedTuple):
    """Candidates in the order in which their labels should be asked for.

    Attributes
    ----------
    order : ndarray of int, shape (n_asked,)
        Numbers of the candidates.
    gain : ndarray, shape (n_asked,)
        What each adds to the logarithm of the determinant, given those before it: never rising for
        losses of constant second derivative.
    utility : ndarray, shape (n_candidates,)
        What each candidate would add as the first.
    """

    order: NDArray[np.intp]
    gain: Floats
    utility: Floats


class _Output:
    """Predictions of the candidates by one output, and how they vary together."""

    def __init__(self, between: Floats, pool: RidgeData, own: Floats, alpha: float) -> None:
        self.between, self.pool, self.alpha = between, pool, alpha
        self.variance = (own - np.einsum("nu,nu->u", between, between)) / alpha
        self.seen = np.empty((0, len(own)))

    def covariance(self, chosen: int) -> Floats:
        """Return that of all candidates with one of them, given those seen."""
        row = Kernel.between(self.pool, self.pool.take(np.array([chosen])))[:, 0]
        row = (row - self.between[:, chosen] @ self.between) / self.alpha
        return np.asarray(row - self.seen[:, chosen] @ self.seen)

    def see(self, chosen: int, weight: float) -> None:
        """Add a candidate to the Hessian."""
        row = self.covariance(chosen)
        row *= np.sqrt(weight / (1 + weight * row[chosen]))
        self.variance = np.maximum(self.variance - row**2, 0)
        self.seen = np.vstack([self.seen, row])


def most_informative(
    certificate: Certificate,
    X: Floats,
    mask: NDArray[np.bool_],
    n: int,
    pairs: NDArray[np.intp] | None = None,
) -> Asked:
    """Choose candidates whose labels a gated program with a ridge penalty should get next.

    Parameters
    ----------
    certificate : Certificate
        Program and solution: the gated formulation with the penalty ``SquaredL2`` and no linear
        part, and a loss that treats each output by itself.
    X : ndarray, shape (n_rows, n_features)
        Candidates, in the units of the program.
    mask : ndarray of bool, shape (n_rows, n_patterns)
        Gates that are open on them.
    n : int
        How many to choose, at least 1 and at most as many as there are.
    pairs : ndarray of int, shape (n_candidates, 2), optional
        Rows whose difference each candidate is, for programs of pairs.

    Returns
    -------
    Asked
        With ``n`` candidates.

    Raises
    ------
    TypeError
        If the program is another.
    ValueError
        If ``n`` is out of range, or the candidates are too many to hold.
    """
    program = on_host(certificate.program, np.float64)
    require_ridge(program)
    if program.loss.coupled:
        raise TypeError(
            f"{type(program.loss).__name__} couples the outputs, whose Hessian has no blocks; use "
            "loss='squared' or loss='logistic'."
        )
    data = RidgeData.of(program)
    n_pool = len(X) if pairs is None else len(pairs)
    if not 1 <= n <= n_pool:
        raise ValueError(f"n={n} of {n_pool} candidates; expected from 1 to {n_pool}.")
    if n_pool * data.n_rows > _MOST_NUMBERS:
        raise ValueError(
            f"{n_pool} candidates beside {data.n_rows} fitted rows take "
            f"{n_pool * data.n_rows / 2**27:.1f} GiB; draw at most "
            f"{_MOST_NUMBERS // data.n_rows} of them at random first."
        )
    ones = np.ones((n_pool, 1))
    pool = RidgeData(np.asarray(X, np.float64), mask.astype(np.float32), ones, ones, pairs=pairs)
    share = data.root**2
    data = replace(data, root=np.ones_like(data.root))
    blocks = np.asarray(certificate.weights.blocks, np.float64)[:, 0]
    curvature = np.asarray(program.loss.hessian(data.forward(blocks), program.y))
    # The second derivatives of the losses in use do not depend on the label.
    seen = pool.forward(blocks)
    weights = float(share.mean()) * np.asarray(program.loss.hessian(seen, np.ones_like(seen)))
    alphas = np.broadcast_to(np.asarray(program.alpha, np.float64), len(blocks)).tolist()
    kernel, between = Kernel.between(data, data), Kernel.between(data, pool)
    own = _diagonal(pool)
    outputs = []
    for output, alpha in enumerate(alphas):
        root = np.sqrt(share * curvature[:, output, None])
        matrix = root * kernel * root[:, 0]
        matrix[np.diag_indices(len(matrix))] += alpha
        with limit_threads(float(n_pool) * len(matrix) ** 2, SHARED_FACTOR):
            factor = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
            solved = solve_triangular(factor, root * between, lower=True, check_finite=False)
        outputs.append(_Output(solved, pool, own, alpha))
    order: list[int] = []
    gain, first = np.empty(n), np.empty(0)
    left = np.ones(n_pool, bool)
    for place in range(n):
        variances = np.column_stack([output.variance for output in outputs])
        gains = np.log1p(weights * np.maximum(variances, 0)).sum(axis=1)
        first = gains if place == 0 else first
        chosen = int(np.where(left, gains, -np.inf).argmax())
        order.append(chosen)
        gain[place], left[chosen] = gains[chosen], False
        for k, own_output in enumerate(outputs):
            own_output.see(chosen, float(weights[chosen, k]))
    return Asked(np.array(order), gain, first)


def _diagonal(pool: RidgeData) -> Floats:
    """Return the diagonal of the kernel of the candidates."""
    if pool.pairs is None:
        return pool.diagonal()
    won, lost = pool.pairs.T
    rows = replace(pool, pairs=None, root=np.ones((len(pool.X), 1))).diagonal()
    both = (pool.columns[won] * pool.columns[lost]).sum(axis=1)
    shared = both * np.einsum("nd,nd->n", pool.X[won], pool.X[lost])
    return np.asarray(rows[won] + rows[lost] - 2 * shared)
