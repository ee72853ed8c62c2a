r"""The gated program under linear side constraints, with the price of each.

With the squared loss and the ridge penalty the objective is a quadratic with Hessian
:math:`H = A^T A + \alpha I`. Its minimiser :math:`z_0` becomes, under constraints
:math:`c_j^T z \le b_j` or :math:`c_j^T z = b_j` on sums of predictions,

.. math::

    z = z_0 - H^{-1} C \lambda, \qquad
    \lambda \text{ minimises } \tfrac12 \lambda^T C^T H^{-1} C \lambda - \lambda^T (C^T z_0 - b)

over multipliers that are not negative where the constraint is an inequality. The multiplier is the
price: what the objective falls by for each unit that the bound gives way (Boyd & Vandenberghe,
2004, section 5.6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import lsq_linear

from cvxnn.convex.certificate import Certificate
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.operators import Weights
from cvxnn.convex.program import on_host
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import shifted_inverse
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.numerics.threads import SHARED_FACTOR, limits_threads
from cvxnn.training.left_out import require_ridge, solution_flops

# Least curvature of constraints, in units of their own, that counts as one.
_LEAST_CURVATURE = 1e-10
# Part of a constraint's range by which it may be missed.
_MISSED = 1e-6

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class SideConstraint:
    """A bound on a weighted sum of predictions.

    Attributes
    ----------
    X : ndarray, shape (n_rows, n_features)
        Rows whose predictions are added up.
    coefficients : ndarray, shape (n_rows,)
        Their weights in the sum.
    bound : float
        What the sum has to be, or may be at most.
    equal : bool
        Whether the sum has to be equal to the bound.
    """

    X: Any
    coefficients: Floats
    bound: float = 0.0
    equal: bool = True

    @classmethod
    def uncorrelated(cls, X: Any, values: ArrayLike) -> SideConstraint:
        """Ask for predictions whose correlation with some values is 0.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Rows, such as embeddings of replies.
        values : array-like, shape (n_rows,)
            A number for each, such as its length.

        Returns
        -------
        SideConstraint
            On the covariance of predictions and standardised values.

        Raises
        ------
        ValueError
            If the values are constant, not finite, or not one for each row.
        """
        return cls(X, _standardised(X, values))

    @classmethod
    def not_rising(cls, X: Any, values: ArrayLike) -> SideConstraint:
        """Ask for predictions whose correlation with some values is at most 0.

        Parameters
        ----------
        X, values : array-like
            As for :meth:`uncorrelated`.

        Returns
        -------
        SideConstraint
            On the covariance of predictions and standardised values.

        Raises
        ------
        ValueError
            As for :meth:`uncorrelated`.
        """
        return cls(X, _standardised(X, values), equal=False)

    @classmethod
    def in_pairs(
        cls, first: Any, second: Any, differences: ArrayLike, *, equal: bool = True
    ) -> SideConstraint:
        """Ask for differences of predictions that do not follow those of some value.

        The constraint to take for rewards: which reply wins depends on differences within a prompt,
        and a reward can lose its correlation with length over all replies by what those to one
        prompt have in common. It is the correlation over pairs in both orders, whose differences
        have a mean of 0; over pairs in the order of the chosen reply, it is not centred.

        Parameters
        ----------
        first, second : array-like, shape (n_pairs, n_features)
            Rows such as embeddings of two replies to each prompt.
        differences : array-like, shape (n_pairs,)
            By how much the first exceeds the second, such as in length; not all 0.
        equal : bool, default=True
            Whether differences of predictions must not fall with these either.

        Returns
        -------
        SideConstraint
            On the mean product of both differences, in units of the root mean square of these.

        Raises
        ------
        ValueError
            If the differences are all 0, not finite, or not one for each pair.
        """
        given, n = np.asarray(differences, np.float64), len(first)
        if given.shape != (n,) or len(second) != n or not np.isfinite(given).all():
            raise ValueError(
                f"differences of shape {given.shape} for {n} and {len(second)} rows; expected a "
                "finite number for each pair."
            )
        if not given.any():
            raise ValueError("differences are all 0: there is nothing to follow.")
        coefficients = given / (np.sqrt(np.mean(given**2)) * n)
        rows = np.concatenate([first, second])
        return cls(rows, np.concatenate([coefficients, -coefficients]), equal=equal)

    @classmethod
    def equal_means(cls, X: Any, groups: ArrayLike) -> SideConstraint:
        """Ask for predictions whose means over two groups of rows are equal.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Rows.
        groups : array-like, shape (n_rows,)
            One of two labels for each.

        Returns
        -------
        SideConstraint
            On the difference of the means.

        Raises
        ------
        ValueError
            If there are not two groups.
        """
        labels, own = np.unique(np.asarray(groups), return_inverse=True)
        if len(labels) != 2 or len(own) != len(X):
            raise ValueError(
                f"groups has {len(labels)} labels for {len(own)} of {len(X)} rows; expected one of "
                "two labels for each row."
            )
        counts = np.bincount(own)
        return cls(X, np.where(own == 1, 1 / counts[1], -1 / counts[0]))


class Functional(NamedTuple):
    """A side constraint in the units of the program.

    Attributes
    ----------
    X : ndarray, shape (n_rows, n_features)
        Rows.
    mask : ndarray of bool, shape (n_rows, n_patterns)
        Gates that are open on them.
    coefficients : ndarray, shape (n_rows,)
        Weights in the sum.
    bounds : ndarray, shape (n_outputs,)
        Bound of each output.
    equal : bool
        Whether the bound has to be met.
    """

    X: Floats
    mask: NDArray[np.bool_]
    coefficients: Floats
    bounds: Floats
    equal: bool


class Constrained(NamedTuple):
    """The solution under side constraints, with its proof.

    Attributes
    ----------
    weights : Weights
        Of the program.
    prices : ndarray, shape (n_constraints, n_outputs)
        Multipliers: by how much the objective falls for each unit that a bound gives way.
    values : ndarray, shape (n_constraints, n_outputs)
        The sums of predictions at the solution.
    objective, dual_bound : float
        Objective, and a lower bound on that of all weights that satisfy the constraints.
    """

    weights: Weights
    prices: Floats
    values: Floats
    objective: float
    dual_bound: float


@limits_threads(lambda certificate, _: solution_flops(certificate.program), SHARED_FACTOR)
def constrain(certificate: Certificate, functionals: list[Functional]) -> Constrained:
    """Minimise a gated program with squared loss and ridge penalty under side constraints.

    Parameters
    ----------
    certificate : Certificate
        Program, and its solution without them.
    functionals : list of Functional
        At least one.

    Returns
    -------
    Constrained
        Solution, prices and proof.

    Raises
    ------
    TypeError
        If the program is another.
    ValueError
        If constraints contradict each other, or no weights can change what they bound.
    """
    program = on_host(certificate.program, np.float64)
    require_ridge(program)
    if not isinstance(program.loss, SquaredLoss):
        raise TypeError(
            f"side constraints need loss='squared', whose solution moves by a linear system, not "
            f"{type(program.loss).__name__}."
        )
    data = RidgeData.of(program)
    start = np.asarray(certificate.weights.blocks, np.float64)[:, 0]
    alphas = np.broadcast_to(np.asarray(program.alpha, np.float64), len(start))
    sums = np.stack([(f.mask * f.coefficients[:, None]).T @ f.X for f in functionals])
    bounds = np.stack([np.broadcast_to(f.bounds, len(start)) for f in functionals])
    lowest = np.array([-np.inf if f.equal else 0.0 for f in functionals])
    flat = sums.reshape(len(sums), -1)
    seen = data.root * data.forward(sums)
    kernel = Kernel.stored(data).matrix
    blocks, prices = start.copy(), np.empty(bounds.shape)
    for alpha in np.unique(alphas):
        inverse = shifted_inverse(kernel, float(alpha))
        moves = (sums - data.adjoint(data.root * inverse(seen))) / alpha  # H^{-1} C
        curvature = flat @ moves.reshape(len(sums), -1).T
        for output in np.flatnonzero(alphas == alpha):
            off = flat @ start[output].ravel() - bounds[:, output]
            prices[:, output] = _multipliers(curvature, off, lowest)
            blocks[output] -= np.tensordot(prices[:, output], moves, 1)
    values = flat @ blocks.reshape(len(blocks), -1).T
    missed = np.where(np.isinf(lowest)[:, None], np.abs(values - bounds), values - bounds)
    before = np.abs(flat @ start.reshape(len(start), -1).T - bounds)
    if np.any(missed > _MISSED * np.maximum(before, np.abs(bounds)) + np.finfo(float).tiny):
        worst = int(missed.max(axis=1).argmax())
        raise ValueError(
            f"side constraint {worst} cannot be met: it contradicts another one, or no weights "
            "change the sum of predictions that it bounds."
        )
    weights = Weights(blocks[:, None], None)
    objective = float(program.evaluate(weights).network_objective)
    residual = data.root**2 * (data.forward(blocks) - data.y)
    slope = data.adjoint(residual) + alphas[:, None, None] * blocks
    slope = slope + np.tensordot(prices.T, sums, 1)
    # The Lagrangian is alpha-strongly convex: it is nowhere lower than this.
    below = ((slope**2).sum(axis=(1, 2)) / (2 * alphas)).sum()
    bound = objective + min(float((prices * (values - bounds)).sum() - below), 0.0)
    return Constrained(weights, prices, values, objective, bound)


def _multipliers(curvature: Floats, off: Floats, lowest: Floats) -> Floats:
    """Return the multipliers of one output, which are least squares with bounds."""
    size = np.sqrt(np.diagonal(curvature))
    size = np.where(size > 0, size, 1)
    # Constraints that repeat each other leave eigenvalues of 0, or of less by rounding.
    values, vectors = np.linalg.eigh(curvature / np.outer(size, size))
    root = np.sqrt(np.maximum(values, _LEAST_CURVATURE))
    target = vectors.T @ (off / size) / root
    if np.isinf(lowest).all():
        return np.asarray(vectors @ (target / root) / size)
    factor = root[:, None] * vectors.T
    found = lsq_linear(factor, target, (lowest, np.inf), method="bvls", tol=1e-14)
    return np.asarray(found.x / size)


def _standardised(X: Any, values: ArrayLike) -> Floats:
    """Return coefficients whose sum of predictions is a covariance with standardised values."""
    given = np.asarray(values, np.float64)
    if given.shape != (len(X),) or not np.isfinite(given).all() or not np.ptp(given) > 0:
        raise ValueError(
            f"values of shape {given.shape} for {len(X)} rows; expected a finite number for each, "
            "and not the same for all."
        )
    centred = given - given.mean()
    return np.asarray(centred / (centred.std() * len(given)))
