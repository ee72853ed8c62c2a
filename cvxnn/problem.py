r"""The convex program and its certificate.

For patterns :math:`D_1, \dots, D_P`, data ``X``, targets ``y`` and a strength :math:`\alpha`,

.. math::

    \min_{v, w} \; \frac1n \sum_{k=1}^n \ell\big((F u)_k, y_k\big)
        + \alpha \sum_{i=1}^P \big(\|v_i\|_2 + \|w_i\|_2\big)
    \quad \text{s.t.} \quad G u \ge 0 ,

equation (3) of the COALA paper with the loss divided by ``n``, so that :math:`\alpha` does not
depend on the number of rows. With the squared loss of this package, half the squared error, the
papers' :math:`\tfrac12\|Fu - y\|^2 + \beta \|u\|_{2,1}` (Algorithm 2) has
:math:`\beta = n \alpha`, and :math:`\|Fu - y\|^2 + \beta \|u\|_{2,1}` (equation 4) has
:math:`\beta = 2 n \alpha`.

**Two objectives.** The *program* objective holds where the cone constraints do. The *network*
objective replaces :math:`F u` by the predictions of the ReLU network with the same weights, and
so is the true (non-convex) training objective of that network for *any* weights. They agree on the
cones.

**Certificate.** For any :math:`r \in R^n` and multipliers :math:`a \ge 0` with
:math:`\|\pm X^T D_i r / n + X^T E_i a_i\|_2 \le \alpha` for every block, the number
:math:`-\tfrac1n \sum_k \ell^*(-r_k, y_k)` is at most the optimum of the program. Any pair is scaled
down until it qualifies, so the bound is rigorous at every iteration, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from cvxnn.losses import Loss, SquaredLoss
from cvxnn.operators import GatedOperator
from cvxnn.penalties import NeuronGroupLasso, Penalty


class Evaluation(NamedTuple):
    """A point of the program, measured with one product with the data."""

    objective: Array
    network_objective: Array
    violation: Array
    residual: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ConvexProgram:
    """A convex two-layer ReLU network training problem.

    Attributes
    ----------
    operator : GatedOperator
        Data and activation patterns.
    y : Array, shape (n_samples, n_outputs)
        Targets; the outputs are separate problems that share every factorisation.
    alpha : float
        Strength of the penalty, at least 0. A leaf: another value compiles nothing.
    loss : Loss
    penalty : Penalty
    """

    operator: GatedOperator
    y: Array
    alpha: Array | float
    loss: Loss = field(default_factory=SquaredLoss)
    penalty: Penalty = field(default_factory=NeuronGroupLasso)

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """Shape (n_outputs, 2, n_patterns, n_features) of the weights."""
        return (self.y.shape[1], 2, self.operator.n_patterns, self.operator.X.shape[1])

    def zeros(self) -> Array:
        """All-zero weights."""
        return jnp.zeros(self.weights_shape, self.operator.X.dtype)

    def evaluate(self, U: Array) -> Evaluation:
        """Both objectives, the relative cone violation and minus the loss gradient at ``U``."""
        op, n = self.operator, self.y.shape[0]
        scores = op.scores(U)
        gated, hidden = op.gate(scores).sum(axis=-1), jax.nn.relu(scores).sum(axis=-1)
        prediction = gated[..., 0] - gated[..., 1]
        network_prediction = hidden[..., 0] - hidden[..., 1]
        penalty = self.alpha * self.penalty.value(U)
        against = jnp.minimum(op.orient(scores), 0)
        tiny = jnp.finfo(U.dtype).tiny
        return Evaluation(
            objective=self.loss.value(prediction, self.y).sum() / n + penalty,
            network_objective=self.loss.value(network_prediction, self.y).sum() / n + penalty,
            violation=jnp.linalg.norm(against) / jnp.maximum(jnp.linalg.norm(scores), tiny),
            residual=-self.loss.gradient(prediction, self.y),
        )

    def dual_bound(self, residual: Array, cone_term: Array | float = 0.0) -> Array:
        """Lower bound on the optimum of the program.

        Parameters
        ----------
        residual : Array, shape (n_samples, n_outputs)
            Any vector; at the optimum, minus the gradient of the loss.
        cone_term : Array of the shape of the weights, or 0
            ``G^T a`` for multipliers ``a >= 0`` (of any row scaling of ``G``).

        Returns
        -------
        Array, a scalar
            The bound; minus infinity for a residual outside the domain of the conjugate.
        """
        n = self.y.shape[0]
        slope = self.operator.adjoint(residual) / n + cone_term
        tiny = jnp.finfo(slope.dtype).tiny
        limit = self.alpha / jnp.maximum(self.penalty.dual_norm(slope), tiny)
        scale = jnp.clip(self.loss.dual_scale(residual, self.y), 0, limit)
        return -self.loss.conjugate(-scale * residual, self.y).sum() / n

    def alpha_max(self) -> Array:
        """Give a strength from which on all weights are zero at the optimum."""
        zero = jnp.zeros_like(self.y)
        residual = -self.loss.gradient(zero, self.y)
        return self.penalty.dual_norm(self.operator.adjoint(residual) / self.y.shape[0]).max()


class SmoothObjective(Protocol):
    """A smooth convex function, as accelerated gradient wants it."""

    def value(self, theta: Array) -> Array:
        """Objective, a scalar."""

    def gradient(self, theta: Array) -> Array:
        """Gradient, the shape of ``theta``."""

    def smoothness(self) -> Array:
        """An upper bound of the Lipschitz constant of the gradient."""

    def strong_convexity(self) -> Array:
        """A lower bound of the modulus of strong convexity; 0 where there is none."""

    def report(self, theta: Array) -> dict[str, Array]:
        """Further columns of the history; may be empty."""
