r"""Objectives that are convex in a softmax policy over candidate replies.

The policy is

.. math::

    \pi_\theta(y \mid x) = \frac{\exp(\theta^T \phi_{y,x})}{\sum_{y'} \exp(\theta^T \phi_{y',x})}

over the candidates :math:`y'` of the prompt (section 3.2 of "Understanding Forgetting in LLM
Supervised Fine-Tuning and Preference Learning", whose equation numbers this file uses). The
features are frozen: embeddings, or the hidden layer of a fitted network. Such a policy is the last
layer of a language model, and the objectives of this file are convex in :math:`\theta`.

**One form.** With rows :math:`a_j` and shifts :math:`b_j`, one for each *rival* of the chosen
reply,

.. math::

    f(\theta) = \sum_k \omega_k \log\Big(1 + \sum_{j \in k} e^{a_j^T \theta + b_j}\Big)
        + \tfrac\mu2 \|\theta\|^2 , \qquad \|\theta\| \le R

is supervised fine-tuning (equation 4) with :math:`a_j = \phi_j - \phi_{target}` and :math:`b = 0`,
and DPO (equations 1, 2 and 17, where the partition functions cancel) with one rival each,
:math:`a = -\beta (\phi_w - \phi_l)` and :math:`b = \beta\, \theta_{ref}^T (\phi_w - \phi_l)`.
Bradley-Terry is DPO without a reference, R-DPO shifts :math:`b` by the lengths, and a mix of such
functions is such a function.

**Objectives without this form.** SimPO, RRHF and ORPO divide :math:`\log \pi` by the length of the
reply. If :math:`|y_w| \ne |y_l|`, the partition functions do not cancel, and a convex term remains
with the wrong sign if the chosen reply is the longer one. The odds of ORPO are not convex even at
equal lengths above one. For each of the three, the tests exhibit a segment on which it is not
convex.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cvxnn.numerics.arrays import Array, namespace, register_pytree


@register_pytree
@dataclass(frozen=True, eq=False)
class ChoiceObjective:
    r"""Mean negative log-likelihood of choices, over a ball.

    .. math::

        f(\theta) = \sum_k \omega_k \log\Big(1 + \sum_{j \in k} e^{a_j^T \theta + b_j}\Big)
            + \tfrac\mu2 \|\theta\|^2 , \qquad \|\theta\| \le R

    It is a ``cvxnn.convex.SmoothObjective``; ``sft_objective``, ``dpo_objective``,
    ``bradley_terry_objective`` and ``mix_objective`` make one.

    Attributes
    ----------
    rows : array, shape (n_rivals_total, n_features)
        Rows :math:`a_j`: features of each rival minus features of the reply chosen over it.
    shifts : array, shape (n_rivals_total,)
        Shifts :math:`b_j`.
    offsets : array of int, shape (n_choices + 1,)
        Borders of the choices, from 0: the rivals of choice ``k`` are the rows
        ``offsets[k]:offsets[k + 1]``, at least one.
    weights : array, shape (n_choices,)
        Weights :math:`\omega_k`, at least 0 with sum 1.
    ridge : float, default=0
        Modulus :math:`\mu` of strong convexity, at least 0.
    radius : float, default=inf
        Radius :math:`R` of the ball in which ``theta`` lies, above 0.

    Notes
    -----
    The methods take

    theta : Array, shape (n_features,)
        Point.
    thetas : Array, shape (n_points, n_features)
        Several points.
    """

    rows: Array
    shifts: Array
    offsets: Array
    weights: Array
    ridge: Array | float = 0.0
    radius: Array | float = np.inf

    @property
    def n_choices(self) -> int:
        """Number of choices: prompts with a target, or pairs."""
        return len(self.weights)

    @property
    def n_features(self) -> int:
        """Length of ``theta``."""
        return int(self.rows.shape[1])

    def value(self, theta: Array) -> Array:
        """Return the objective at ``theta``, of shape (n_features,)."""
        return self._loss(theta)[0] + self.ridge / 2 * (theta @ theta)

    def values(self, thetas: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the objective at points of shape (n_points, n_features), for NumPy arrays only."""
        scores = self.rows @ thetas.T + self.shifts[:, None]
        starts = self.offsets[:-1]
        top = np.maximum(np.maximum.reduceat(scores, starts), 0)
        odds = np.exp(scores - self._spread(top))
        losses = top + np.log(np.add.reduceat(odds, starts) + np.exp(-top))
        values: NDArray[np.float64] = self.weights @ losses + self.ridge / 2 * (thetas**2).sum(1)
        return values

    def gradient(self, theta: Array) -> Array:
        """Return the gradient at ``theta``, equations (18) and (22)."""
        return self.value_and_gradient(theta)[1]

    def value_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return both at ``theta``, at the price of the gradient."""
        loss, p = self._loss(theta)
        gradient = self._spread(self.weights) * p @ self.rows + self.ridge * theta
        return loss + self.ridge / 2 * (theta @ theta), gradient

    def hessian(self, theta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the Hessian at ``theta``, equation (26), for NumPy arrays only.

        It is the weighted sum of the covariances of the features among the replies of each choice.
        """
        _, p = self._loss(theta)
        each = np.sqrt(self._spread(self.weights) * p)[:, None] * self.rows
        # The chosen reply has features 0, so the mean is a sum over the rivals.
        n, m = self.n_choices, len(p)
        entries = self._spread(np.sqrt(self.weights)) * p
        mean = csr_array((entries, np.arange(m), self.offsets), shape=(n, m)) @ self.rows
        square = each.T @ each
        # Rounding errors could make the difference indefinite; the floor is as large as they are.
        floor = self.ridge + 4 * np.finfo(float).eps * np.trace(square)
        square -= mean.T @ mean
        square.flat[:: self.n_features + 1] += floor
        return square

    def smoothness(self) -> Array:
        r"""Return a Lipschitz constant of the gradient.

        It follows from :math:`\mathrm{diag}(p) - pp^T \preceq I/2`; with one rival it is a quarter
        of the squared spectral norm, as in logistic regression.
        """
        xp = namespace(self.rows)
        total = self._sum(self.rows)
        size = xp.diff(self.offsets) + 1
        gram = (self._spread(self.weights)[:, None] * self.rows).T @ self.rows
        gram = gram - ((self.weights / size)[:, None] * total).T @ total
        return xp.linalg.eigvalsh(gram)[-1] / 2 + self.ridge

    def curvature(self, theta: Array) -> Array:
        """Return the trace of the loss's Hessian at ``theta``, without the ridge."""
        _, p = self._loss(theta)
        squares = self._sum(p * (self.rows**2).sum(axis=1))
        means = self._sum(p[:, None] * self.rows)
        return self.weights @ (squares - (means**2).sum(axis=1))

    def strong_convexity(self) -> Array:
        """Return the modulus of strong convexity, which is the ridge."""
        return namespace(self.rows).asarray(self.ridge, self.rows.dtype)

    def project(self, theta: Array) -> Array:
        """Return the point of the ball that is nearest to ``theta``."""
        xp = namespace(theta)
        norm = xp.linalg.norm(theta)
        return xp.where(norm > self.radius, theta * (self.radius / xp.maximum(norm, 1e-300)), theta)

    def lower_bound(self, theta: Array, value: Array, gradient: Array) -> Array:
        r"""Return a lower bound on the optimum over the ball, up to rounding errors.

        The bound follows from value and gradient at one point:

        .. math::

            f(u) \ge f(\theta) + g^T (u - \theta) + \tfrac\mu2 \|u - \theta\|^2
            \quad\text{for all } u ,

        minimised over the ball: the gap is :math:`\|g\|^2 / 2\mu` without a ball, and
        :math:`\max_u g^T(\theta - u) = g^T\theta + R \|g\|` without a ridge. Without ball and ridge
        the bound is minus infinity.

        Parameters
        ----------
        theta : array, shape (n_features,)
            Point of the ball.
        value : float
            Objective at ``theta``.
        gradient : array, shape (n_features,)
            Gradient at ``theta``.

        Returns
        -------
        float
            The lower bound.
        """
        xp = namespace(theta)
        norm, ridge, radius = xp.linalg.norm(gradient), self.ridge, self.radius
        unit = gradient / xp.maximum(norm, 1e-300)
        convex = ridge > 0
        # With a ridge, the minimiser over the whole space exists; outside of the ball it is scaled
        # to the border.
        free = theta - gradient / xp.where(convex, ridge, 1)
        inside = convex & (xp.linalg.norm(free) <= radius)
        edge = xp.where(convex, free / xp.maximum(xp.linalg.norm(free), 1e-300), -unit)
        bounded = xp.isfinite(radius)
        edge = edge * xp.where(bounded, radius, 0)
        move = xp.where(inside, free, edge) - theta
        bound = value + gradient @ move + ridge / 2 * (move @ move)
        return xp.where(inside | bounded, bound, -xp.inf)

    def report(self, theta: Array) -> dict[str, Array]:
        """Return no further columns for the history."""
        return {}

    def _loss(self, theta: Array) -> tuple[Array, Array]:
        """Return the mean loss, and the probability of each rival."""
        xp = namespace(self.rows)
        scores = self.rows @ theta + self.shifts
        if xp is np:
            top: Array = np.maximum.reduceat(scores, self.offsets[:-1])
        else:
            top = jax.ops.segment_max(scores, self._segments(), self.n_choices)
        top = xp.maximum(top, 0)
        odds = xp.exp(scores - self._spread(top))
        total = self._sum(odds) + xp.exp(-top)
        return self.weights @ (top + xp.log(total)), odds / self._spread(total)

    def _sum(self, per_rival: Array) -> Array:
        if isinstance(per_rival, np.ndarray):
            return np.add.reduceat(per_rival, self.offsets[:-1])
        return jax.ops.segment_sum(per_rival, self._segments(), self.n_choices)

    def _spread(self, per_choice: Array) -> Array:
        if isinstance(per_choice, np.ndarray):
            return np.repeat(per_choice, np.diff(self.offsets), axis=0)
        return per_choice[self._segments()]

    def _segments(self) -> Array:
        """Return the number of the choice to which each rival belongs."""
        choices, sizes = jnp.arange(self.n_choices), jnp.diff(self.offsets)
        return jnp.repeat(choices, sizes, total_repeat_length=len(self.shifts))
