"""Objective of phase II of COALA: the last layer of a network, fitted to preferences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxnn.numerics.arrays import Array, namespace, register_pytree


@register_pytree
@dataclass(frozen=True)
class CoalaObjective:
    r"""Mean COALA loss plus a ridge, a smooth convex function of ``theta``.

    .. math::

        f(\theta) = \sum_k \omega_k \log\big(1 + e^{-\beta\, m_k^T \theta + \gamma}\big)
            + \tfrac\mu2 \|\theta\|^2 , \qquad \sum_k \omega_k = 1 .

    Attributes
    ----------
    margins : Array, shape (n, n_features)
        Rows :math:`m_k`: ``y_k h_k`` (pointwise) or ``h_w - h_l`` (pairwise).
    weights : Array, shape (n,)
        Weights of the rows, at least 0 with sum 1.
    beta : float
        Inverse temperature, above 0.
    gamma : float
        Offset, at least 0: the margin that preferred replies should have.
    ridge : float
        Strength :math:`\mu` of the ridge, at least 0. With 0 and separable data no minimiser
        exists.
    chosen : Array, shape (n_chosen, n_features), optional
        Hidden features of preferred replies, whose rewards ``report`` follows.
    rejected : Array, shape (n_rejected, n_features), optional
        Hidden features of the other replies. Equal numbers of both are taken as pairs.
    present : tuple of Array, shapes (n_chosen,) and (n_rejected,), optional
        Weights of both in ``report``; 0 for rows that were added. Equal by default.

    Notes
    -----
    The methods take

    theta : Array, shape (n_features,)
        Point.
    """

    margins: Array
    weights: Array
    beta: Array | float
    gamma: Array | float
    ridge: Array | float
    chosen: Array | None = None
    rejected: Array | None = None
    present: tuple[Array, Array] | None = None

    def by_rows(self) -> dict[str, Any]:
        """Return what devices may share: margins, their weights, and features of replies."""
        rows: dict[str, Any] = {"margins": self.margins, "weights": self.weights}
        if self.chosen is None or self.rejected is None:
            return rows
        replies = {"chosen": self.chosen, "rejected": self.rejected}
        ones = tuple(np.ones(len(part), part.dtype) for part in replies.values())
        return rows | replies | {"present": self.present or ones}

    def value(self, theta: Array) -> Array:
        """Return the objective at ``theta``, of shape (n_features,)."""
        xp = namespace(theta)
        loss = xp.logaddexp(0, self.gamma - self.beta * (self.margins @ theta))
        return self.weights @ loss + self.ridge / 2 * xp.vdot(theta, theta)

    def gradient(self, theta: Array) -> Array:
        """Return the gradient at ``theta``, of the same shape."""
        z = self.beta * (self.margins @ theta) - self.gamma
        slope = namespace(z).exp(-namespace(z).logaddexp(0, z))  # the sigmoid of -z
        return -self.beta * (self.weights * slope) @ self.margins + self.ridge * theta

    def smoothness(self) -> Array:
        r"""Return the Lipschitz constant :math:`\tfrac{\beta^2}4 \|\Omega^{1/2} M\|_2^2 + \mu`.

        The spectral norm is computed from the smaller of the two Gram matrices.
        """
        xp = namespace(self.margins)
        rows = xp.sqrt(self.weights)[:, None] * self.margins
        n, d = rows.shape
        gram = rows @ rows.T if n < d else rows.T @ rows
        return self.beta**2 / 4 * xp.linalg.norm(gram, 2) + self.ridge

    def curvature(self) -> Array:
        r"""Return :math:`\tfrac{\beta^2}4 M^T \Omega M + \mu I`, an upper bound on every Hessian.

        The second derivative of the logistic loss is largest at a margin of 0 (Boehning & Lindsay,
        1988).
        """
        xp = namespace(self.margins)
        rows = xp.sqrt(self.weights)[:, None] * self.margins
        ridge = self.ridge * xp.eye(rows.shape[1], dtype=rows.dtype)
        return self.beta**2 / 4 * (rows.T @ rows) + ridge

    def strong_convexity(self) -> Array:
        """Return the modulus of strong convexity, which is the ridge."""
        return namespace(self.margins).asarray(self.ridge, self.margins.dtype)

    def report(self, theta: Array) -> dict[str, Array]:
        """Return mean rewards ``beta log sigmoid(logit)`` under TRL's names, for the history.

        The mean over no response is NaN.
        """
        if self.chosen is None or self.rejected is None:
            return {}
        xp = namespace(theta)
        won = -self.beta * xp.logaddexp(0, -(self.chosen @ theta))
        lost = -self.beta * xp.logaddexp(0, -(self.rejected @ theta))
        counts = self.present or (None, None)
        chosen, rejected = _mean(won, counts[0]), _mean(lost, counts[1])
        metrics = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
        }
        if won.shape == lost.shape:
            better = xp.where(won > lost, 1.0, xp.where(won == lost, 0.5, 0.0))
            metrics["rewards/accuracies"] = _mean(better, counts[0])
            if self.present is not None:  # of other numbers, which rows of zeros made equal
                paired = (self.present[0] == self.present[1]).all()
                metrics["rewards/accuracies"] = xp.where(
                    paired, metrics["rewards/accuracies"], xp.nan
                )
        return metrics


def _mean(values: Array, weights: Array | None) -> Array:
    """Return a mean; NaN of nothing."""
    if weights is None:
        xp = namespace(values)
        return values.mean() if len(values) else xp.full((), xp.nan, values.dtype)
    return weights @ values / weights.sum()
