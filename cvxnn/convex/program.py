r"""Convex program of a two-layer network, and its certificate.

For patterns :math:`D_1, \dots, D_P`, data ``X``, targets ``y`` and a strength :math:`\alpha`,

.. math::

    \min_{v, w} \; \frac1n \sum_{k=1}^n \ell\big((F u)_k, y_k\big)
        + \alpha \sum_{i=1}^P \big(\|v_i\|_2 + \|w_i\|_2\big)
    \quad \text{s.t.} \quad G u \ge 0 ,

equation (3) of the COALA paper with the loss divided by ``n``, so that :math:`\alpha` does not
depend on the number of rows. With the squared loss of this package, half the squared error, the
papers' :math:`\tfrac12\|Fu - y\|^2 + \beta \|u\|_{2,1}` (Algorithm 2) has
:math:`\beta = n \alpha`, and :math:`\|Fu - y\|^2 + \beta \|u\|_{2,1}` (equation 4) has
:math:`\beta = 2 n \alpha`. Sample weights replace :math:`1/n` by each row's share of their sum.

**Two formulations.** The *ReLU* formulation is the one above. The *gated* one has no cones and one
block :math:`z_i` for each pattern; it trains the network
:math:`\sum_i 1(x^T g_i \ge 0)\, x^T z_i`, and its optimum is never above that of the ReLU
formulation with the same patterns if the penalty is a norm (Mishkin et al., 2022).

**Two objectives.** The *program* objective holds where the cone constraints do. The *network*
objective replaces :math:`F u` by the predictions of the ReLU network with the same weights, and
so is the true (non-convex) training objective of that network for *any* weights. They agree on the
cones, and always in the gated formulation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from cvxnn.convex._checks import (
    check_alpha,
    check_formulation,
    check_linear_part,
    check_loss,
    check_penalty,
    check_shapes,
    check_values,
)
from cvxnn.convex._duality import (
    best_bound,
    least_alpha,
    linear_prediction,
    orthogonal_to_columns,
    removes,
    within_domain,
)
from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.losses import Loss, SquaredLoss
from cvxnn.convex.operators import GatedOperator, Weights
from cvxnn.convex.patterns import Formulation
from cvxnn.convex.penalties import NeuronGroupLasso, Penalty, SquaredL2
from cvxnn.convex.regularizer import Regularizer
from cvxnn.numerics.arrays import Array, map_leaves, namespace, register_pytree


class Evaluation(NamedTuple):
    """A point of the program, measured with one product with the data.

    Attributes
    ----------
    objective : Array
        Objective of the program, a scalar.
    network_objective : Array
        Objective of the network with the same weights, a scalar.
    violation : Array
        Norm of the scores that are outside their cones, relative to that of all scores.
    residual : Array, shape (n_rows, n_outputs)
        Minus the gradient of each row's loss.
    """

    objective: Array
    network_objective: Array
    violation: Array
    residual: Array


@register_pytree
@dataclass(frozen=True)
class ConvexProgram:
    """A convex two-layer network training problem.

    Attributes
    ----------
    operator : GatedOperator
        Data and activation patterns.
    y : Array, shape (n_samples, n_outputs)
        Targets; unless the loss couples them, the outputs are separate problems that share every
        factorisation.
    alpha : float, or Array of shape (n_outputs,)
        Strength of the penalty, at least 0. A leaf: another value compiles nothing. With
        ``SquaredL2`` each output may have its own. With a norm, that is a matter of units: output
        ``c`` in units ``1 / r`` times as large has the strength ``r`` times as large.
    loss : Loss, default=SquaredLoss()
        Loss of one row's predictions.
    penalty : Penalty, default=NeuronGroupLasso()
        Penalty on the blocks of weights.
    sample_weight : Array, shape (n_samples,), optional
        Weights of the rows, non-negative with a positive sum; only their ratios matter. By default
        all rows count the same. A row of weight zero still has its cone constraints, unless its
        ``X`` is zero too.
    formulation : {"relu", "gated"}, default="relu"
        Whether the blocks have cone constraints (a ReLU network) or none (a gated one).
    skip : float, optional
        Adds a linear part ``x^T z`` to the network, a skip connection, with the ridge penalty
        ``skip / 2 |z|^2``, which carries neither cones nor ``penalty``. At least 0; None, the
        default, for no linear part. The logistic losses need a positive one, since a linear part
        alone may separate the data, and then has no minimiser.

    Notes
    -----
    The certificate comes from Fenchel duality. A residual ``r`` and multipliers ``a >= 0`` of the
    cones, scaled until no block of ``F^T r / n + G^T a`` has a dual norm above ``alpha``, prove
    that no weights have an objective below the mean of ``-conjugate(-r_k, y_k)`` of the loss; a
    penalty that is no norm takes its own conjugate off instead.

    :meth:`evaluate`, :meth:`bound_of`, :meth:`alpha_max` and :meth:`zeros` take and give
    :class:`Weights` and :class:`DualPoint`. The other methods are for solvers: they work on the
    stacked arrays of :class:`GatedOperator`, for a program that :meth:`stacked` has prepared.
    """

    operator: GatedOperator
    y: Array
    alpha: Array | float
    loss: Loss = field(default_factory=SquaredLoss)
    penalty: Penalty = field(default_factory=NeuronGroupLasso)
    sample_weight: Array | None = None
    formulation: Formulation = field(default="relu", metadata={"static": True})
    skip: Array | float | None = None

    @property
    def n_signs(self) -> int:
        """Blocks for each pattern: 2 in the ReLU formulation, 1 in the gated one."""
        return 2 if self.formulation == "relu" else 1

    @property
    def share(self) -> Any:
        """Weight of each row's loss, summing to one: a scalar or shape (n_samples, 1)."""
        if self.sample_weight is None:
            return 1 / self.y.shape[0]
        return (self.sample_weight / self.sample_weight.sum())[:, None]

    def check(self) -> None:
        """Refuse what no solver can work with; ``solve`` and all that calls it do this first.

        Raises
        ------
        TypeError
            For parts of another type: arrays, loss, penalty.
        ValueError
            For shapes that do not fit together, data that are not finite, targets that the loss
            does not know, an unknown formulation, a strength or a ridge that is negative or not
            finite, a loss or penalty of your own whose methods contradict each other, or a linear
            part without a ridge under a logistic loss.
        """
        check_shapes(self.operator, self.y, self.sample_weight)
        check_formulation(self.formulation, self.operator, self.skip)
        check_alpha(self.alpha, self.y.shape[1], self.penalty)
        check_values(self.operator, self.y, self.sample_weight, self.loss)
        (C, S, P, d), y = self.stacked_shape, np.asarray(self.y, np.float64)
        check_loss(self.loss, y)
        check_penalty(self.penalty, (C, S, max(P - (self.skip is not None), 1), d))
        if self.skip is not None:
            check_linear_part(self.skip, self.loss)

    # For users: weights and dual points ---------------------------------------------------

    def zeros(self) -> Weights:
        """Return weights that are all zero."""
        (C, S, _, d), P, X = self.stacked_shape, self.operator.n_patterns, self.operator.X
        xp = namespace(X)
        linear = None if self.skip is None else xp.zeros((C, d), X.dtype)
        return Weights(xp.zeros((C, S, P - self.operator.linear, d), X.dtype), linear)

    def evaluate(self, weights: Weights | Array) -> Evaluation:
        """Measure a point.

        Parameters
        ----------
        weights : Weights, or Array of shape ``stacked_shape``
            The point; arrays are how solvers carry it.

        Returns
        -------
        Evaluation
            Both objectives, the relative cone violation and minus the loss gradient.
        """
        program = self.stacked()
        op = program.operator
        U = program.stack(weights) if isinstance(weights, Weights) else weights
        xp = namespace(U)
        scores = op.scores(U)
        prediction = op.compare(_difference(op.gate(scores).sum(axis=-1)))
        regularizer = program.regularizer.value(U)

        def objective(f: Array) -> Array:
            return (self.share * self.loss.value(f, self.y)).sum() + regularizer

        value, network_value, violation = objective(prediction), None, xp.zeros((), U.dtype)
        if self.formulation == "relu":
            of_patterns, linear = op.split(scores, axis=-1)
            hidden = op.join(xp.maximum(of_patterns, 0), linear, axis=-1)
            network_value = objective(op.compare(_difference(hidden.sum(axis=-1))))
            oriented = op.orient(scores)
            against = op.project_cones(oriented) - oriented
            tiny = xp.finfo(U.dtype).tiny
            violation = xp.linalg.norm(against) / xp.maximum(xp.linalg.norm(scores), tiny)
        return Evaluation(
            objective=value,
            network_objective=value if network_value is None else network_value,
            violation=violation,
            residual=-self.loss.gradient(prediction, self.y),
        )

    def bound_of(self, dual: DualPoint) -> Array:
        """Return the lower bound on the optimum that a dual point proves.

        Parameters
        ----------
        dual : DualPoint
            Any residual; multipliers of ``E_i X u >= 0``, whose negative parts are dropped.

        Returns
        -------
        Array, a scalar
            See :meth:`dual_bound`.
        """
        check_shapes(self.operator, self.y, self.sample_weight)
        dual.check(self.y.shape, self.operator.n_patterns, self.formulation)
        program = self.stacked()
        if program is not self:
            dual = dual.stacked(program.operator)
        cone_term: Array | float = 0.0
        if dual.multipliers is not None:
            multipliers = namespace(dual.residual).maximum(dual.multipliers, 0)
            cone_term = program.operator.constraints_adjoint(multipliers)
        return program.dual_bound(dual.residual, cone_term)

    @property
    def has_alpha_max(self) -> bool:
        """Whether all blocks are zero from some strength on; else :meth:`alpha_max` is infinite."""
        return removes(self.penalty, self.stacked_shape)

    def alpha_max(self) -> Array:
        """Return a strength from which on all blocks are zero at the optimum.

        Infinite for a penalty that shrinks but never removes, such as ``SquaredL2``.

        Raises
        ------
        ValueError
            With a linear part and another loss than the squared one: pass the strengths
            yourself.
        """
        check_shapes(self.operator, self.y, self.sample_weight)
        xp = namespace(self.y)
        if not self.has_alpha_max:
            return xp.asarray(xp.inf, self.y.dtype)
        prediction = xp.zeros_like(self.y)
        if self.skip is not None:
            if type(self.loss) is not SquaredLoss:
                raise ValueError(
                    "alpha_max of a program with a linear part is known for the squared loss "
                    f"only, not for {type(self.loss).__name__}; choose the strengths yourself."
                )
            prediction = linear_prediction(self.operator.X, self.y, self.share, self.skip)
        slope = self.slope(-self.loss.gradient(prediction, self.y))
        return least_alpha(self.penalty, self.operator.split(slope, axis=2)[0])

    def rounding(self) -> float:
        """Return the error of objective and bound that is mere rounding.

        It is a hundred units of rounding of the loss without weights, in the precision of the
        targets. Gaps are in units of the objective, or of this where the objective is smaller.
        """
        weight = None if self.sample_weight is None else np.asarray(self.sample_weight)
        loss = map_leaves(np.asarray, self.loss)
        host = replace(self, y=np.asarray(self.y), sample_weight=weight, loss=loss)
        with np.errstate(all="ignore"):  # squares of targets may overflow
            return float(host.resolution)

    # For solvers: stacked arrays ----------------------------------------------------------

    def stacked(self) -> ConvexProgram:
        """Return the program as solvers see it: with a column of the mask for the linear part."""
        if self.skip is None or self.operator.linear:
            return self
        return replace(self, operator=self.operator.with_linear())

    def stack(self, weights: Weights) -> Array:
        """Return weights as one array of :attr:`stacked_shape`.

        Parameters
        ----------
        weights : Weights
            Weights of the program.

        Raises
        ------
        ValueError
            If they are not weights of this program.
        """
        check_shapes(self.operator, self.y, self.sample_weight)
        C, S, _, d = self.stacked_shape
        P = self.operator.n_patterns - self.operator.linear
        expected = {"blocks": (C, S, P, d), "linear": None if self.skip is None else (C, d)}
        for name, part in weights._asdict().items():
            if part is not None and np.shape(part) != expected[name]:
                raise ValueError(
                    f"weights.{name} has shape {np.shape(part)}; expected {expected[name]}, as in "
                    "program.zeros()."
                )
        return self.operator.stack(weights, self.n_signs)

    @property
    def stacked_shape(self) -> tuple[int, int, int, int]:
        """Shape (n_outputs, n_signs, P, n_features) of all weights in one array."""
        op = self.operator
        P = op.n_patterns + (self.skip is not None and not op.linear)
        return (self.y.shape[1], self.n_signs, P, op.X.shape[1])

    @property
    def resolution(self) -> Any:
        """Scalar of :meth:`rounding`, above 0."""
        xp = namespace(self.y)
        precision = xp.finfo(self.y.dtype)
        # Not zeros_like, a constant: XLA takes seconds to fold what follows from many of them.
        size = abs((self.share * self.loss.value(0 * self.y, self.y)).sum())
        error = 100 * float(precision.eps) * xp.where(xp.isfinite(size), size, 0)
        return xp.maximum(error, precision.tiny)

    @property
    def linear_ridge(self) -> Any:
        """Ridge penalty of each sign's half of the linear part; 0 without one."""
        # z = v - w with v = -w at the optimum: 2 (|v|^2 + |w|^2) / 2 = |z|^2 / 2.
        return 0.0 if self.skip is None else self.skip * self.n_signs

    @property
    def regularizer(self) -> Regularizer:
        """Regularizer of stacked weights: its value and its proximal map."""
        return Regularizer(self.operator, self.penalty, self.alpha, self.linear_ridge)

    def slope(self, residual: Array) -> Array:
        """Return ``F^T`` of the residual times each row's share.

        At the residual of a point this is minus the gradient of the mean loss.

        Parameters
        ----------
        residual : Array, shape (n_rows, n_outputs)
            Vector with an entry for each target.
        """
        return self.operator.adjoint(self.share * residual, self.n_signs)

    def dual_bound(self, residual: Array, cone_term: Array | float = 0.0) -> Array:
        """Return a lower bound on the optimum of the program.

        Parameters
        ----------
        residual : Array, shape (n_samples, n_outputs)
            Any vector; at the optimum, minus the gradient of the loss.
        cone_term : Array of shape ``stacked_shape``, or 0
            ``G^T a`` for multipliers ``a >= 0`` (of any row scaling of ``G``).

        Returns
        -------
        Array, a scalar
            The bound; minus infinity for a residual outside the domain of the conjugate.
        """
        program, xp = self.stacked(), namespace(residual)
        # Rows without weight, such as padding, do not count.
        residual = within_domain(self.loss, xp.where(self.share > 0, residual, 0), self.y)
        # A ridge is known on the host, and then the projection is not needed.
        if self.skip is not None and not (xp is np and self.skip > 0):
            projected = orthogonal_to_columns(residual, self.operator.X, self.share)
            residual = xp.where(self.linear_ridge > 0, residual, projected)
        slope = program.slope(residual)
        _, linear = program.operator.split(slope, axis=2)
        slope, _ = program.operator.split(slope + cone_term, axis=2)
        extra: Array | float = 0.0
        if linear is not None:
            safe = xp.maximum(self.linear_ridge, xp.finfo(slope.dtype).tiny)
            # Without a ridge the projection has made it zero.
            extra = xp.where(self.linear_ridge > 0, (linear**2).sum(axis=(1, 2, 3)) / safe, 0)
        if type(self.penalty) is not SquaredL2:
            # Under a norm a slope that cancels to nothing would prove a bound at any strength.
            rounding = program.operator.adjoint_rounding(self.share * residual)
            slope = xp.copysign(xp.maximum(abs(slope), rounding[:, None, None]), slope)
        return best_bound(
            self.loss, self.penalty, self.alpha, self.y, self.share, residual, slope, extra
        )


def _difference(parts: Array) -> Array:
    """Sum over signs, (n, n_outputs, n_signs): positive neurons minus negative ones."""
    return parts[..., 0] - parts[..., 1] if parts.shape[-1] == 2 else parts[..., 0]
