r"""Several objectives of preference pairs at once: the exact front between them.

Objective :math:`k` is half the mean squared error of its own pairs, :math:`L_k(z)`. Each minimiser
of

.. math:: \sum_k \lambda_k L_k(z) + \tfrac\alpha2 \|z\|^2, \qquad \lambda \ge 0,

is Pareto optimal for the objectives and the penalty, and since all of them are convex, every point
of the front is one of these (Boyd & Vandenberghe, 2004, section 4.7). All share one kernel; each
takes a factorisation of its own. The point of least :math:`L_1` among those with
:math:`L_k \le t_k` is the one whose weights :math:`\lambda_k` maximise the concave dual function

.. math:: g(\lambda) = \min_z L_1(z) + \sum_{k>1} \lambda_k (L_k(z) - t_k)
    + \tfrac\alpha2 \|z\|^2,

and :math:`\lambda_k` is the price: what :math:`L_1` with its penalty falls by for each unit that
:math:`t_k` gives way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from cvxnn._messages import warn
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import shifted_inverse
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.training.left_out import require_ridge

Floats = NDArray[np.floating]

# Largest price that is tried: beyond it, a threshold counts as out of reach.
_DEAREST = 1e6
# Price above which thresholds are so near to the least loss that the rest hardly counts.
_DEAR = 1e4
# Smallest threshold: below it, rounding decides.
_SMALLEST = 1e-7
# Part of a threshold by which it may be missed, or of the least one that counts.
_MISSED, _LEAST = 1e-6, 1e-3


class Point(NamedTuple):
    """One point of the front, with its proof.

    Attributes
    ----------
    blocks : ndarray, shape (1, n_patterns, n_features)
        Weights of the program.
    weights : ndarray, shape (n_objectives,)
        Those of the objectives, which are prices where thresholds were given.
    losses : ndarray, shape (n_objectives,)
        Half the mean squared error of each objective.
    objective : float
        What was minimised, at these weights, the penalty included.
    dual_bound : float
        No weights reach less.
    """

    blocks: Floats
    weights: Floats
    losses: Floats
    objective: float
    dual_bound: float


@dataclass(frozen=True)
class Objectives:
    """Squared losses of several sets of pairs, and the kernel that they share.

    Attributes
    ----------
    names : ndarray, shape (n_objectives,)
        What the objectives are called.
    data : RidgeData
        All pairs; ``root`` is of ones.
    shares : ndarray, shape (n_pairs, n_objectives)
        Share of each pair in the mean of each objective; columns add up to 1.
    kernel : ndarray, shape (n_pairs, n_pairs)
        Of the features.
    alpha : float
        Strength of the penalty, above 0.
    """

    names: NDArray[Any]
    data: RidgeData
    shares: Floats
    kernel: Floats
    alpha: float

    @classmethod
    def of(
        cls,
        names: NDArray[Any],
        program: ConvexProgram,
        X: Floats,
        mask: NDArray[np.bool_],
        pairs: NDArray[np.intp],
        shares: Floats,
    ) -> Objectives:
        """Compute the kernel.

        Parameters
        ----------
        names : ndarray, shape (n_objectives,)
            What the objectives are called.
        program : ConvexProgram
            Of all pairs, whose penalty is kept: the gated formulation with ``SquaredL2``.
        X : ndarray, shape (n_rows, n_features)
            Rows, in its units.
        mask : ndarray of bool, shape (n_rows, n_patterns)
            Gates that are open on them.
        pairs : ndarray of int, shape (n_pairs, 2)
            Rows of each pair, the chosen one first.
        shares : ndarray, shape (n_pairs, n_objectives)
            Share of each pair in the mean of each objective.

        Raises
        ------
        TypeError
            If the program is another.
        """
        require_ridge(program)
        alpha, ones = float(np.ravel(program.alpha)[0]), np.ones((len(pairs), 1))
        X = np.asarray(X, np.float64)
        data = RidgeData(X, mask.astype(np.float32), ones, ones, pairs=pairs)
        return cls(names, data, shares, Kernel.between(data, data), alpha)

    def at(self, weights: ArrayLike) -> Point:
        """Return the point of some weights of the objectives.

        Parameters
        ----------
        weights : array-like, shape (n_objectives,)
            Not negative, and not all 0.

        Raises
        ------
        ValueError
            If they are negative, not finite, all 0, or not one for each objective.
        """
        own = np.asarray(weights, np.float64)
        if own.shape != self.names.shape or not (np.isfinite(own).all() and own.min() >= 0):
            raise ValueError(
                f"weights={weights!r}; expected {len(self.names)} finite numbers that are not "
                "negative, one for each objective."
            )
        if not own.any():
            raise ValueError("weights are all 0; expected one above 0.")
        share = self.shares @ own
        root = np.sqrt(share)[:, None]
        inverse = shifted_inverse(root * self.kernel * root[:, 0], self.alpha, overwrite=True)
        u = root * inverse(root * self.data.y)
        seen = self.kernel @ u
        error = seen - self.data.y
        losses = (self.shares.T @ error**2)[:, 0] / 2
        norm = float((u * seen).sum())
        objective = float(own @ losses) + self.alpha / 2 * norm
        # The objective is alpha-strongly convex: it is nowhere lower than this.
        slope = share[:, None] * error + self.alpha * u
        below = float((slope * (self.kernel @ slope)).sum()) / (2 * self.alpha)
        return Point(self.data.adjoint(u), own, losses, objective, objective - max(below, 0.0))

    def within(self, first: int, thresholds: ArrayLike) -> Point:
        """Return the point of least loss of one objective under thresholds on the others.

        Parameters
        ----------
        first : int
            Number of the objective whose loss is minimised.
        thresholds : array-like, shape (n_objectives,)
            The largest loss of each that is allowed, at least 1e-7, infinite for any; that of
            ``first`` is not read.

        Returns
        -------
        Point
            With a weight of 1 for ``first`` and prices for the others.

        Raises
        ------
        ValueError
            If no weights keep to the thresholds, one is the least loss itself, whose price has no
            bound, or there is not one for each objective.

        Warns
        -----
        UserWarning
            If a price is above 1e4.
        """
        most = np.array(thresholds, np.float64)
        if most.shape != self.names.shape or np.isnan(most).any():
            raise ValueError(
                f"thresholds={thresholds!r}; expected {len(self.names)} numbers, one for each "
                "objective."
            )
        most[first] = np.inf
        bound = np.flatnonzero(np.isfinite(most))
        for k in bound[most[bound] < _SMALLEST]:
            raise ValueError(
                f"the threshold on {self.names[k]!s} is {most[k]:g}; expected at least "
                f"{_SMALLEST:g}: rounding hides smaller losses."
            )
        weights = np.zeros(len(most))
        weights[first] = 1
        if len(bound) == 0:
            return self.at(weights)

        def dual(prices: Floats) -> tuple[float, Floats]:
            weights[bound] = prices
            point = self.at(weights)
            return float(prices @ most[bound]) - point.objective, most[bound] - point.losses[bound]

        found = minimize(
            dual,
            np.ones(len(bound)),
            jac=True,
            bounds=[(0, _DEAREST)] * len(bound),
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 200},
        )
        weights[bound] = found.x
        point = self.at(weights)
        missed = (point.losses - most)[bound]
        if np.any(missed > _MISSED * np.maximum(most[bound], _LEAST)):
            worst = bound[missed.argmax()]
            raise ValueError(
                f"no weights keep the loss of {self.names[worst]!s} to {most[worst]:g} together "
                f"with the other thresholds; the least that was found is {point.losses[worst]:.4g}."
            )
        for k in bound[weights[bound] > _DEAR]:
            near = (
                f"the threshold on {self.names[k]!s}, {most[k]:.6g}, is near the least loss that "
                "any weights reach"
            )
            if weights[k] > 0.99 * _DEAREST:
                raise ValueError(f"{near}, so that its price has no bound: give it more room.")
            warn(
                f"{near}: at its price of {weights[k]:.2g} other losses and the penalty hardly "
                "count. Give it more room.",
                UserWarning,
            )
        return point
