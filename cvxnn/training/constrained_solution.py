r"""The gated program under linear side constraints, with the price of each.

With the squared loss and the ridge penalty the objective is a quadratic with Hessian
:math:`H = A^T A + \alpha I`. Its minimiser :math:`z_0` becomes, under constraints
:math:`c_j^T z \le b_j` or :math:`c_j^T z = b_j` on sums of predictions,

.. math::

    z = z_0 - H^{-1} C \lambda, \qquad
    \lambda \text{ minimises } \tfrac12 \lambda^T C^T H^{-1} C \lambda - \lambda^T (C^T z_0 - b)

over multipliers that are not negative where the constraint is an inequality. Of many constraints,
such as those of monotonicity, the worst are taken first and those that are still missed are added,
until none is (cutting planes; Kelley, 1960). The multiplier is the price: what the objective falls
by for each unit that the bound gives way (Boyd & Vandenberghe, 2004, section 5.6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from scipy.sparse import csr_array, issparse

from cvxnn.convex.certificate import Certificate
from cvxnn.convex.host_program import on_host
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.operators import Weights
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import shifted_inverse
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.numerics.threads import SHARED_FACTOR, limits_threads
from cvxnn.training.left_out import require_ridge, solution_flops

# Least curvature of constraints, in units of their own, that counts as one.
_LEAST_CURVATURE = 1e-10
# Part of a constraint's range by which it may be missed.
_MISSED = 1e-6
# Bounds that are all taken at once, and how many are added at a time where there are more.
_AT_ONCE, _ADDED = 128, 64

Floats = NDArray[np.floating]


class Functional(NamedTuple):
    """A side constraint in the units of the program.

    Attributes
    ----------
    X : ndarray, shape (n_rows, n_features)
        Rows.
    mask : ndarray of bool, shape (n_rows, n_patterns)
        Gates that are open on them.
    coefficients : ndarray, shape (n_rows,), or sparse array, shape (n_bounds, n_rows)
        Weights in the sum, or in each of several sums.
    bounds : ndarray, shape (n_outputs,) or (n_bounds, n_outputs)
        Bound of each output.
    equal : bool
        Whether the bound has to be met.
    """

    X: Floats
    mask: NDArray[np.bool_]
    coefficients: Any
    bounds: Floats
    equal: bool


class Constrained(NamedTuple):
    """The solution under side constraints, with its proof.

    Attributes
    ----------
    weights : Weights
        Of the program.
    prices : ndarray, shape (n_bounds, n_outputs)
        Multipliers: by how much the objective falls for each unit that a bound gives way.
    values : ndarray, shape (n_bounds, n_outputs)
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
    given = _Given(functionals, len(start))
    kernel = Kernel.stored(data).matrix
    strengths = {
        float(alpha): _Moves(data, shifted_inverse(kernel, float(alpha)), float(alpha), given)
        for alpha in np.unique(alphas)
    }
    before = given.values(start)
    room = _MISSED * np.maximum(np.abs(before - given.bounds), np.abs(given.bounds))
    room += np.finfo(float).tiny
    active = given.first(before)
    while True:
        blocks, prices = start.copy(), np.zeros_like(given.bounds)
        for moves in strengths.values():
            moves.extend(active)
        for output, alpha in enumerate(alphas):
            moves = strengths[float(alpha)]
            off = moves.sums @ start[output].ravel() - given.bounds[active, output]
            own = _multipliers(moves.curvature, off, given.lowest[active])
            prices[active, output] = own
            blocks[output] -= (own @ moves.moves).reshape(blocks[output].shape)
        values = given.values(blocks)
        missed = given.missed(values) - room
        missed[active] = -np.inf  # they are as well satisfied as they can be
        more = np.argsort(-missed.max(axis=1), kind="stable")[:_ADDED]
        more = more[missed[more].max(axis=1) > 0]
        if len(more) == 0:
            break
        active = np.concatenate([active, more])
    if np.any(given.missed(values) > room):
        worst = given.owner[int((given.missed(values) - room).max(axis=1).argmax())]
        raise ValueError(
            f"side constraint {worst} cannot be met: it contradicts another one, or no weights "
            "change the sum of predictions that it bounds; loosen it, or leave it out."
        )
    weights = Weights(blocks[:, None], None)
    objective = float(program.evaluate(weights).network_objective)
    residual = data.root**2 * (data.forward(blocks) - data.y)
    slope = data.adjoint(residual) + alphas[:, None, None] * blocks
    sums = given.sums(active)
    slope = slope + np.tensordot(prices[active].T, sums, 1)
    # The Lagrangian is alpha-strongly convex: it is nowhere lower than this.
    below = ((slope**2).sum(axis=(1, 2)) / (2 * alphas)).sum()
    paid = float((prices * (values - given.bounds)).sum())
    return Constrained(weights, prices, values, objective, objective + min(paid - below, 0.0))


class _Given:
    """All bounds, of all functionals, one after another."""

    def __init__(self, functionals: list[Functional], n_outputs: int) -> None:
        self.functionals = functionals
        self.coefficients = [_sparse(f.coefficients) for f in functionals]
        counts = [c.shape[0] for c in self.coefficients]
        self.owner = np.repeat(np.arange(len(counts)), counts)
        self.place = np.concatenate([np.arange(count) for count in counts])
        self.bounds = np.concatenate(
            [
                np.broadcast_to(f.bounds, (count, n_outputs))
                for f, count in zip(functionals, counts, strict=True)
            ]
        )
        equal = np.array([f.equal for f in functionals])[self.owner]
        self.lowest = np.where(equal, -np.inf, 0.0)

    def values(self, blocks: Floats) -> Floats:
        """Return the sums of predictions of weights, (n_bounds, n_outputs)."""
        found = []
        for functional, coefficients in zip(self.functionals, self.coefficients, strict=True):
            ones = np.ones((len(functional.X), 1))
            X = np.asarray(functional.X, np.float64)
            rows = RidgeData(X, functional.mask.astype(np.float32), ones, ones)
            found.append(coefficients @ rows.forward(blocks))
        return np.concatenate(found)

    def sums(self, some: NDArray[np.intp]) -> Floats:
        """Return what some bounds are in the weights, (n_some, n_patterns, n_features)."""
        found = []
        for owner, place in zip(self.owner[some], self.place[some], strict=True):
            functional, row = self.functionals[owner], self.coefficients[owner]
            part = slice(row.indptr[place], row.indptr[place + 1])
            rows = row.indices[part]
            weighted = functional.mask[rows] * row.data[part][:, None]
            found.append(weighted.T @ np.asarray(functional.X, np.float64)[rows])
        return np.stack(found)

    def missed(self, values: Floats) -> Floats:
        """Return by how much values are beyond their bounds."""
        beyond = values - self.bounds
        return np.where(np.isinf(self.lowest)[:, None], np.abs(beyond), beyond)

    def first(self, values: Floats) -> NDArray[np.intp]:
        """Return the bounds to begin with: all of a few; of many, equalities and the worst."""
        if len(self.bounds) <= _AT_ONCE:
            return np.arange(len(self.bounds))
        worst = self.missed(values).max(axis=1)
        worst[np.isinf(self.lowest)] = np.inf
        n = max(_ADDED, int(np.isinf(self.lowest).sum()))
        return np.argsort(-worst, kind="stable")[:n]


class _Moves:
    """Where multipliers of the active bounds take the weights, at one strength."""

    def __init__(
        self, data: RidgeData, inverse: Callable[[Floats], Floats], alpha: float, given: _Given
    ) -> None:
        self.data, self.inverse, self.alpha, self.given = data, inverse, alpha, given
        self.sums = self.moves = np.empty((0, data.n_weights))

    def extend(self, active: NDArray[np.intp]) -> None:
        """Add those that are active now."""
        new = active[len(self.sums) :]
        if len(new) == 0:
            return
        sums, data = self.given.sums(new), self.data
        moves = (
            sums - data.adjoint(data.root * self.inverse(data.root * data.forward(sums)))
        ) / self.alpha  # H^{-1} C
        self.sums = np.concatenate([self.sums, sums.reshape(len(new), -1)])
        self.moves = np.concatenate([self.moves, moves.reshape(len(new), -1)])

    @property
    def curvature(self) -> Floats:
        """Curvature of the dual objective."""
        return np.asarray(self.sums @ self.moves.T)


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
    return np.asarray(np.maximum(found.x, lowest) / size)  # rounding may leave less than 0


def _sparse(coefficients: Any) -> Any:
    """Return coefficients, of one sum or of several, as a sparse array of two axes."""
    given: Any = coefficients if issparse(coefficients) else np.atleast_2d(coefficients)
    return csr_array(given)
