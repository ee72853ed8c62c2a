r"""Normal equations of a gated program, to which rows are added and from which they are removed.

With the gated features :math:`\varphi_k` of row :math:`k`, its weight :math:`w_k` and a ridge
:math:`\lambda`, the weights of one output minimise
:math:`f(z) = \sum_k w_k \ell(\varphi_k^T z, y_k) + \tfrac\lambda2 \|z\|^2`. At a fixed centre
:math:`z_0`, with :math:`t = \varphi^T z_0`, the sums

.. math::

    G = \sum_k w_k \ell''(t_k) \varphi_k \varphi_k^T, \qquad
    b = \sum_k w_k \big(\ell''(t_k) t_k - \ell'(t_k)\big) \varphi_k

are all that Newton's step :math:`(G + \lambda I) z = b` needs. A row adds its own term or takes it
away, at a cost that does not depend on the other rows. For the squared loss the step is the
solution, whatever the centre. For the logistic loss, :math:`|\ell'''| \le \ell''` bounds what is
missing from the same sums: with :math:`\Delta = z - z_0`, :math:`B = \max_k \|\varphi_k\|`,
:math:`\rho = B\,\sigma(\Delta)`, :math:`\kappa = (e^\rho - 1 - \rho) / \rho` and
:math:`H = G + \lambda I`,

.. math::

    \nu = \|\nabla f(z)\|_{H^{-1}} \le \|b - H z\| / \sqrt\lambda
        + \kappa \sqrt{\Delta^T G \Delta}, \qquad
    \|z - z^*\|_H \le -\tfrac{\sqrt\lambda}{B} \log(1 - q), \quad
    q = e^\rho \nu B / \sqrt\lambda < 1 .

Here :math:`\sigma` is the largest singular value of the weights as a matrix with a row for each
gate. Since the features of a row are the outer product of its open gates :math:`D_k` and its inputs
:math:`x_k`, :math:`|\varphi_k^T \Delta| = |D_k^T \Delta x_k| \le \|D_k\| \|x_k\|
\sigma(\Delta) \le \rho`. The first inequality is Taylor's; the second integrates
:math:`\nabla^2 f(z + s \eta) \succeq e^{-\rho - s B \|\eta\|} H` from :math:`z` to the optimum
(self-concordance as in Bach, 2010). A bound on the distance to the fit without some rows is what
Guo, Goldstein, Hannun & van der Maaten (2020) call a certificate of their removal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.linalg.blas import dsymm, dsyrk

from cvxnn.convex.host_program import on_host
from cvxnn.convex.losses import LogisticLoss, Loss, SquaredLoss
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import rounding_named
from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads
from cvxnn.training.left_out import require_ridge

# Most steps of conjugate gradient before the matrix is factored again, and tries to solve.
_MOST_STEPS, _MOST_TRIES = 25, 3
# Most steps of Newton's method to the centre, the part of the objective that the last one may still
# gain, and the shortest step.
_MOST_CENTRES, _CENTRED, _SHORTEST = 50, 1e-14, 1e-6

Floats = NDArray[np.floating]


class Solution(NamedTuple):
    """Weights that solve normal equations, and how far they are from the optimum at most.

    Attributes
    ----------
    blocks : ndarray, shape (n_outputs, n_patterns, n_features)
        The weights.
    distance : ndarray, shape (n_outputs,)
        Bound on the Euclidean distance of each output's weights from the optimum, up to rounding.
    objective, bound : float
        Objective per unit of weight, at most, and a lower bound on the optimum's.
    """

    blocks: Floats
    distance: Floats
    objective: float
    bound: float


@dataclass(frozen=True)
class NormalEquations:
    """Sums over rows that determine the weights of all outputs.

    Attributes
    ----------
    gram : ndarray, shape (n_matrices, n_weights, n_weights)
        Upper triangles of ``G``: one for all outputs with the squared loss, else one for each.
    right : ndarray, shape (n_outputs, n_weights)
        Right-hand sides ``b``.
    constant : ndarray, shape (n_outputs,)
        Value of the quadratic models of the losses at weights of 0.
    total : float
        Sum of the weights of the rows.
    ridge : ndarray, shape (n_outputs,)
        The ridge of each output, above 0.
    centre : ndarray, shape (n_outputs, n_patterns, n_features)
        The weights at which losses are expanded.
    reach : float
        Largest norm of the features of a row so far; of a pair, the sum of both.
    loss : Loss
        ``SquaredLoss`` or ``LogisticLoss``.

    Notes
    -----
    The methods take

    blocks : ndarray, shape (n_outputs, n_patterns, n_features)
        Weights of all outputs.
    z : ndarray, shape (n_weights,)
        Weights of one output.
    output : int
        Number of the output.
    """

    gram: Floats
    right: Floats
    constant: Floats
    total: float
    ridge: Floats
    centre: Floats
    reach: float
    loss: Loss

    @classmethod
    def at(cls, centre: Floats, ridge: Floats, loss: Loss) -> NormalEquations:
        """Return the sums over no rows.

        Parameters
        ----------
        centre : ndarray, shape (n_outputs, n_patterns, n_features)
            Weights at which losses are expanded.
        ridge : ndarray, shape (n_outputs,)
            The ridge of each output.
        loss : Loss
            ``SquaredLoss`` or ``LogisticLoss``.
        """
        C, P, d = centre.shape
        gram = np.zeros((1 if type(loss) is SquaredLoss else C, P * d, P * d))
        zeros = np.zeros((C, P * d)), np.zeros(C)
        return cls(gram, *zeros, 0.0, ridge, centre, 0.0, loss)

    @classmethod
    def of(cls, program: ConvexProgram, total: float, centre: Floats) -> NormalEquations:
        """Return the sums over the rows of a program, at a centre that is their solution.

        Parameters
        ----------
        program : ConvexProgram
            The gated formulation with the penalty ``SquaredL2`` and no linear part; the ridge is
            ``alpha * total``.
        total : float
            Sum of the weights of its rows.
        centre : ndarray, shape (n_outputs, n_patterns, n_features)
            Weights near the solution; for the logistic loss Newton's method takes them there.

        Raises
        ------
        TypeError
            If the program is another.
        """
        require_ridge(program)
        loss = program.loss
        if type(loss) not in (SquaredLoss, LogisticLoss):
            raise TypeError(
                f"sums over rows determine fits with SquaredLoss or LogisticLoss, not with "
                f"{type(loss).__name__}."
            )
        ridge = np.broadcast_to(np.asarray(program.alpha, np.float64) * total, len(centre)).copy()
        data = _weighted(program, total)
        sums = cls.at(centre, ridge, loss)._changed(data, 1.0)
        for _ in range(0 if type(loss) is SquaredLoss else _MOST_CENTRES):
            ahead = KeptFactors().solve(sums).blocks - sums.centre
            promised = sum(sums.slope(sums.centre, c) @ a.ravel() for c, a in enumerate(ahead))
            before, size = sums._value(data, sums.centre), 1.0
            if promised <= _CENTRED * before:
                break
            while sums._value(data, sums.centre + size * ahead) > before - 1e-4 * size * promised:
                size /= 2
                if size < _SHORTEST:  # rounding hides what is left
                    return sums
            sums = cls.at(sums.centre + size * ahead, ridge, loss)._changed(data, 1.0)
        return sums

    def changed(
        self, program: ConvexProgram, total: float, *, remove: bool = False
    ) -> NormalEquations:
        """Return the sums with the rows of a program, or without rows that they have.

        Parameters
        ----------
        program : ConvexProgram
            Rows, with the same patterns and loss.
        total : float
            Sum of their weights.
        remove : bool, default=False
            Whether to take them away.

        Notes
        -----
        ``k`` rows take ``k n_weights**2`` flops and a copy of the matrix.
        """
        return self._changed(_weighted(program, total), -1.0 if remove else 1.0)

    def _changed(self, data: RidgeData, sign: float) -> NormalEquations:
        """Return the sums with rows, or, with the sign -1, without them."""
        weight, seen = data.root**2, data.forward(self.centre)
        slope = np.asarray(self.loss.gradient(seen, data.y))
        curvature = np.asarray(self.loss.hessian(seen, data.y))
        gram, right = self.gram.copy(), self.right.copy()
        own = weight * (curvature * seen - slope)
        with limit_threads(1.0 * len(gram) * len(weight) * gram[0].size):
            for rows, A in data.features():
                right += sign * (own[rows].T @ A)
                for matrix, h in zip(gram, curvature.T, strict=False):
                    B = A * np.sqrt(weight[rows] * h[rows, None])
                    dsyrk(sign, B.T, beta=1.0, c=matrix.T, lower=1, overwrite_c=1)
        value = np.asarray(self.loss.value(seen, data.y)) - slope * seen + curvature * seen**2 / 2
        norms = np.sqrt((data.X**2).sum(axis=1) * data.columns.sum(axis=1))
        norms = norms if data.pairs is None else norms[data.pairs].sum(axis=1)
        return replace(
            self,
            gram=gram,
            right=right,
            constant=self.constant + sign * (weight * value).sum(axis=0),
            total=self.total + sign * float(weight.sum()),
            reach=max(self.reach, float(norms.max(initial=0.0))),
        )

    def matrix(self, output: int) -> int:
        """Return the number of an output's matrix."""
        return min(output, len(self.gram) - 1)

    def product(self, z: Floats, output: int) -> Floats:
        """Return ``G`` of an output times weights."""
        return dsymm(1.0, self.gram[self.matrix(output)].T, z[:, None], lower=1)[:, 0]

    def slope(self, blocks: Floats, output: int) -> Floats:
        """Return minus the gradient of an output's quadratic model, ``b - H z``."""
        z = blocks[output].ravel()
        return self.right[output] - self.product(z, output) - self.ridge[output] * z

    def _value(self, data: RidgeData, blocks: Floats) -> float:
        """Return the objective of all outputs, from the rows."""
        losses = np.asarray(self.loss.value(data.forward(blocks), data.y))
        return float((data.root**2 * losses).sum() + (self.ridge / 2) @ (blocks**2).sum((1, 2)))

    def proven(self, blocks: Floats) -> Solution:
        """Bound how far weights are from the optimum, from the sums alone.

        Parameters
        ----------
        blocks : ndarray, shape (n_outputs, n_patterns, n_features)
            Weights that solve the equations, up to rounding.

        Returns
        -------
        Solution
            Infinite distance where the weights are too far from the centre for a bound.
        """
        distance, high, low = np.empty(len(blocks)), 0.0, 0.0
        for c, ridge in enumerate(self.ridge):
            z, rest = blocks[c].ravel(), self.slope(blocks, c)
            pull = float(np.linalg.norm(rest) / np.sqrt(ridge))
            value = self.constant[c] - (self.right[c] + rest) @ z / 2  # as G z = b - rest - ridge z
            if type(self.loss) is SquaredLoss:
                distance[c] = pull / np.sqrt(ridge)
                high, low = high + value, low + value - pull**2 / 2
                continue
            moved = z - self.centre[c].ravel()
            covered = max(float(moved @ self.product(moved, c)), 0.0)
            rho = self.reach * float(np.linalg.norm(moved.reshape(blocks[c].shape), 2))
            with np.errstate(over="ignore", invalid="ignore"):
                pull += np.sqrt(covered) * _remainder(rho, 2) * rho
                missed = covered * _remainder(rho, 3) * rho
                unit = np.sqrt(ridge) / max(self.reach, np.finfo(float).tiny)
                q = float(np.exp(rho) * pull / unit)
            if not q < 1:
                distance[c], high, low = np.inf, np.inf, -np.inf
                continue
            energy = -unit * np.log1p(-q)
            distance[c] = energy / np.sqrt(ridge)
            high, low = high + value + missed, low + value - missed - pull * energy
        # No loss is negative.
        return Solution(blocks, distance, high / self.total, max(low, 0.0) / self.total)


class KeptFactors:
    """Solutions of normal equations that change little: conjugate gradient, and kept factors."""

    def __init__(self) -> None:
        """Begin without a factor."""
        self._factors: dict[tuple[int, float], Floats] = {}

    def solve(self, sums: NormalEquations, start: Floats | None = None) -> Solution:
        """Return the solution of normal equations, to rounding.

        The factor of earlier sums preconditions conjugate gradient: after a change by ``k`` rows
        ``k + 1`` steps are enough. Where these would take longer than a factor, or more than 25 of
        them, the new matrix is factored.

        Parameters
        ----------
        sums : NormalEquations
            The equations.
        start : ndarray, shape (n_outputs, n_patterns, n_features), optional
            The solution of earlier sums.
        """
        blocks = np.zeros(sums.centre.shape) if start is None else start.copy()
        # Outputs of one matrix and one ridge are solved together.
        keys = [(sums.matrix(output), ridge) for output, ridge in enumerate(sums.ridge.tolist())]
        with limit_threads(sums.gram[0].shape[0] ** 3 / 3, SHARED_FACTOR):
            for key in dict.fromkeys(keys):
                outputs = [output for output, own in enumerate(keys) if own == key]
                z = blocks[outputs].reshape(len(outputs), -1).T
                blocks[outputs] = self._solve(sums, key, outputs, z).T.reshape(
                    len(outputs), *blocks.shape[1:]
                )
        return sums.proven(blocks)

    def _solve(
        self, sums: NormalEquations, key: tuple[int, float], outputs: list[int], z: Floats
    ) -> Floats:
        """Return the solutions, (n_weights, n_outputs), of one matrix and one ridge."""
        (number, ridge), right = key, sums.right[outputs].T
        matrix = sums.gram[number].T
        size = np.trace(matrix) + ridge
        for _ in range(_MOST_TRIES):
            if key not in self._factors:
                shifted = matrix.copy(order="F")
                shifted[np.diag_indices(len(shifted))] += ridge
                with rounding_named():
                    factor = cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
                self._factors[key] = factor
            steps = max(min(len(matrix) // (12 * len(outputs)), _MOST_STEPS), 2)
            for _ in range(2):  # the second time from the true residual
                rest = right - dsymm(1.0, matrix, z, lower=1) - ridge * z
                norms = np.linalg.norm(z, axis=0), np.linalg.norm(right, axis=0)
                enough = np.finfo(np.float64).eps * (size * norms[0] + norms[1])
                if np.all(np.linalg.norm(rest, axis=0) <= enough):
                    return z
                z, near = _steps(matrix, self._factors[key], ridge, z, rest, enough, steps)
                if not near:
                    break
            if near:  # the true residual is that of rounding, too, or nearly so
                return z
            del self._factors[key]
        return z


def _steps(
    matrix: Floats,
    factor: Floats,
    ridge: float,
    z: Floats,
    rest: Floats,
    enough: Floats,
    most: int,
) -> tuple[Floats, bool]:
    """Take steps of conjugate gradient, each column by itself; return whether they were enough."""
    direction, before = np.zeros_like(rest), np.ones(z.shape[1])
    for _ in range(most):
        solved = cho_solve((factor, True), rest, check_finite=False)
        now = np.einsum("mc,mc->c", rest, solved)
        direction = solved + now / before * direction
        image = dsymm(1.0, matrix, direction, lower=1) + ridge * direction
        curvature = np.einsum("mc,mc->c", direction, image)
        step = np.where(curvature > 0, now / np.where(curvature > 0, curvature, 1), 0)
        z, rest = z + step * direction, rest - step * image
        before = np.where(now > 0, now, 1)
        if np.all(np.linalg.norm(rest, axis=0) <= enough):
            return z, True
    return z, False


def _weighted(program: ConvexProgram, total: float) -> RidgeData:
    """Return the rows of a program in float64, with the roots of their weights."""
    data = RidgeData.of(on_host(program, np.float64))
    return replace(data, root=np.broadcast_to(data.root * np.sqrt(total), data.root.shape).copy())


def _remainder(rho: float, order: int) -> float:
    """Return what Taylor's series of the exponential leaves from an order on, over its power."""
    if rho < 0.1:  # without cancellation
        terms = [1 / float(math.factorial(k)) * rho ** (k - order) for k in range(order, order + 9)]
        return sum(terms)
    known = sum(rho**k / math.factorial(k) for k in range(order))
    return float((np.exp(rho) - known) / rho**order)
