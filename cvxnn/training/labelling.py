r"""Rows, or pairs, whose labels would inform a fitted program most.

At the solution, the objective of an output has the Hessian
:math:`H = \sum_k s_k \ell''_k \phi_k \phi_k^T + \alpha I` in the gated features. One more label, of
share :math:`s` and second derivative :math:`\ell''` at its prediction, adds
:math:`w\,\phi\phi^T` with :math:`w = s\,\ell''`, whatever the label turns out to be (for a
logistic loss: to first order). With the covariance :math:`c(\phi, \psi) = \phi^T H^{-1} \psi` of
predictions (:mod:`cvxnn.training.inverse_hessian`), the label of :math:`\phi`

- multiplies the determinant of :math:`H` by :math:`1 + w\,c(\phi, \phi)`: the D-optimal choice
  takes the largest (Fedorov, 1972);
- lowers the variance of another prediction by
  :math:`w\,c(\phi, \psi)^2 / (1 + w\,c(\phi, \phi))`: the choice of least variance takes the
  largest mean over all candidates (Cohn, Ghahramani & Jordan, 1996), none that lies by itself.

What was chosen is added to the Hessian before the next choice.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.certificate import Certificate
from cvxnn.convex.host_program import on_host
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.numerics.arrays import dense
from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads
from cvxnn.training.inverse_hessian import InverseHessian

Criterion = Literal["variance", "determinant"]
# Most numbers of the kernels of candidates and fitted rows: 2 GiB.
_MOST_NUMBERS = 2**28

Floats = NDArray[np.floating]


class Asked(NamedTuple):
    """Candidates in the order in which their labels should be asked for.

    Attributes
    ----------
    order : ndarray of int, shape (n_asked,)
        Numbers of the candidates.
    gain : ndarray, shape (n_asked,)
        What each does given those before it: by how much the mean variance of the candidates'
        predictions falls, in units of that of the noise and added up over outputs, or the logarithm
        of the determinant rises.
    utility : ndarray, shape (n_candidates,)
        The same of each candidate as the first.
    """

    order: NDArray[np.intp]
    gain: Floats
    utility: Floats


def most_informative(
    certificate: Certificate,
    X: Any,
    mask: NDArray[np.bool_],
    n: int,
    criterion: Criterion = "variance",
    pairs: NDArray[np.intp] | None = None,
) -> Asked:
    """Choose candidates whose labels a gated program with a ridge penalty should get next.

    Parameters
    ----------
    certificate : Certificate
        Program and solution: the gated formulation with the penalty ``SquaredL2`` and no linear
        part, and a loss that treats each output by itself.
    X : ndarray or sparse array, shape (n_rows, n_features)
        Candidates, in the units of the program.
    mask : ndarray of bool, shape (n_rows, n_patterns)
        Gates that are open on them.
    n : int
        How many to choose, at least 1 and at most as many as there are.
    criterion : {"variance", "determinant"}, default="variance"
        Whether the mean variance of all candidates' predictions is to fall most, or the determinant
        of the Hessian to rise most.
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
        If ``n`` or ``criterion`` is out of range, or the candidates are too many to hold.
    """
    program = on_host(certificate.program, np.float64)
    if not isinstance(n, Integral):
        raise ValueError(f"n={n!r}; expected an integer.")
    if criterion not in get_args(Criterion):
        raise ValueError(f"criterion={criterion!r}; expected 'variance' or 'determinant'.")
    n_pool = X.shape[0] if pairs is None else len(pairs)
    if not 1 <= n <= n_pool:
        raise ValueError(f"n={n} of {n_pool} candidates; expected from 1 to {n_pool}.")
    n_rows = len(program.y)
    numbers = n_pool * (n_pool + n_rows)
    if numbers > _MOST_NUMBERS:
        raise ValueError(
            f"{n_pool} candidates beside {n_rows} fitted rows take {numbers / 2**27:.1f} GiB; "
            f"expected at most {_MOST_NUMBERS / 2**27:g}. Draw some of them at random first."
        )
    ones = np.ones((n_pool, 1))
    pool = RidgeData(dense(X).astype(np.float64), mask.astype(np.float32), ones, ones, pairs=pairs)
    inverses = InverseHessian.each(certificate)
    blocks = np.asarray(certificate.weights.blocks, np.float64)[:, 0]
    # The second derivatives of the losses in use do not depend on the label.
    seen, unit = pool.forward(blocks), float(np.mean(program.share))
    weights = unit * np.asarray(program.loss.hessian(seen, np.ones_like(seen)))
    covariances: list[Floats] = []
    own = between = np.empty(0)
    for inverse in inverses:
        if not covariances:
            own, between = (Kernel.between(part, pool) for part in (pool, inverse.data))
        with limit_threads(float(n_pool) * n_rows * n_pool, SHARED_FACTOR):
            covariances.append(inverse.given(own, between))
    return _greedy(covariances, weights, n, criterion, unit)


def _greedy(
    covariances: list[Floats], weights: Floats, n: int, criterion: Criterion, unit: float
) -> Asked:
    """Choose one candidate after another; the covariances are overwritten."""
    n_pool = len(weights)
    order, gain, utility = np.empty(n, np.intp), np.empty(n), np.empty(0)
    left = np.ones(n_pool, bool)
    for place in range(n):
        gains = np.zeros(n_pool)
        for weight, covariance in zip(weights.T, covariances, strict=True):
            rise = weight * np.maximum(np.diagonal(covariance), 0)
            if criterion == "determinant":
                gains += np.log1p(rise)
            else:
                squares = np.einsum("nm,nm->n", covariance, covariance)
                gains += unit * weight * squares / (1 + rise) / n_pool
        utility = gains if place == 0 else utility
        chosen = int(np.where(left, gains, -np.inf).argmax())
        order[place], gain[place], left[chosen] = chosen, gains[chosen], False
        for weight, covariance in zip(weights.T, covariances, strict=True):
            row = covariance[chosen].copy()
            row *= np.sqrt(weight[chosen] / (1 + weight[chosen] * max(row[chosen], 0.0)))
            covariance -= np.outer(row, row)
    return Asked(order, gain, utility)
