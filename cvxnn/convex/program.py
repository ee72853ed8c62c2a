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
:math:`\beta = 2 n \alpha`. Sample weights replace :math:`1/n` by each row's share of their sum.

**Two forms.** The *ReLU* form is the one above. The *gated* form has no cones and one block
:math:`z_i` for each pattern; it trains the network :math:`\sum_i 1(x^T g_i \ge 0)\, x^T z_i`, and
its optimum is never above that of the ReLU form with the same patterns if the penalty is a norm
(Mishkin et al., 2022).

**Two objectives.** The *program* objective holds where the cone constraints do. The *network*
objective replaces :math:`F u` by the predictions of the ReLU network with the same weights, and
so is the true (non-convex) training objective of that network for *any* weights. They agree on the
cones, and always in the gated form.

**Certificate.** For any :math:`r \in R^n` and multipliers :math:`a \ge 0` with
:math:`\|\pm X^T D_i r / n + X^T E_i a_i\|_2 \le \alpha` for every block, the number
:math:`-\tfrac1n \sum_k \ell^*(-r_k, y_k)` is at most the optimum of the program. Any pair is scaled
down until it qualifies, so the bound is rigorous at every iteration, up to rounding. Other
penalties put their dual norm in the place of the Euclidean one;
:class:`~cvxnn.convex.penalties.SquaredL2`
subtracts its conjugate instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from cvxnn._arrays import Array, is_sparse, namespace
from cvxnn.convex.losses import LogisticLoss, Loss, MultinomialLoss, SquaredLoss
from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.penalties import NeuronGroupLasso, Penalty

Formulation = Literal["relu", "gated"]


class Evaluation(NamedTuple):
    """A point of the program, measured with one product with the data."""

    objective: Array
    network_objective: Array
    violation: Array
    residual: Array


class DualPoint(NamedTuple):
    """What proves a lower bound; see :meth:`ConvexProgram.bound_of`.

    Attributes
    ----------
    residual : array, shape (n_samples, n_outputs)
        Any vector; at the optimum, minus the gradient of each row's loss.
    multipliers : array, shape (n_samples, n_outputs, 2, n_patterns), or None
        Multipliers of the cone constraints, non-negative; None in the gated form.
    """

    residual: Any
    multipliers: Any


@jax.tree_util.register_dataclass
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
    alpha : float
        Strength of the penalty, at least 0. A leaf: another value compiles nothing.
    loss : Loss
    penalty : Penalty
    sample_weight : Array, shape (n_samples,), optional
        Non-negative, with a positive sum; only ratios matter. A row of weight zero still has its
        cone constraints unless its ``X`` is zero too.
    form : {"relu", "gated"}
    skip : float, optional
        Adds a linear term ``x^T z`` to the network with the ridge penalty ``skip / 2 |z|^2``,
        0 for none. The *last* pattern is then that term: it must be open on every row, and carries
        neither cones nor ``penalty``. See :func:`with_skip`.
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
        """Blocks for each pattern: 2 in the ReLU form, 1 in the gated form."""
        return 2 if self.formulation == "relu" else 1

    @property
    def weights_shape(self) -> tuple[int, int, int, int]:
        """Shape (n_outputs, n_signs, n_patterns, n_features) of the weights."""
        op = self.operator
        return (self.y.shape[1], self.n_signs, op.n_patterns, op.X.shape[1])

    @property
    def share(self) -> Any:
        """Weight of each row's loss, summing to one: a scalar or shape (n_samples, 1)."""
        if self.sample_weight is None:
            return 1 / self.y.shape[0]
        return (self.sample_weight / self.sample_weight.sum())[:, None]

    def zeros(self) -> Array:
        """All-zero weights."""
        X = self.operator.X
        return namespace(X).zeros(self.weights_shape, X.dtype)

    def regularizer(self, U: Array) -> Array:
        """Penalty of the weights times ``alpha``, and the ridge of the skip connection."""
        if self.skip is None:
            return self.alpha * self.penalty.value(U)
        ridge = self._skip_ridge * (U[:, :, -1] ** 2).sum() / 2
        return self.alpha * self.penalty.value(U[:, :, :-1]) + ridge

    def prox(self, U: Array, step: Array | float) -> Array:
        """Proximal map of ``step`` times :meth:`regularizer`."""
        if self.skip is None:
            return self.penalty.prox(U, step * self.alpha)
        blocks = self.penalty.prox(U[:, :, :-1], step * self.alpha)
        linear = U[:, :, -1:] / (1 + step * self._skip_ridge)
        return namespace(U).concatenate([blocks, linear], axis=2)

    @property
    def _skip_ridge(self) -> Any:
        # z = v - w with v = -w at the optimum: 2 (|v|^2 + |w|^2) / 2 = |z|^2 / 2.
        ridge: Any = self.skip
        return ridge * self.n_signs

    def within_dual_ball(self, slope: Array) -> Array:
        """Project slopes on what subgradients of the penalty can be, by Moreau's identity."""
        if not self.penalty.is_norm:
            return slope
        return slope - self.penalty.prox(slope, self.alpha)

    def project_cones(self, S: Array) -> Array:
        """Positive part of the oriented scores; those of the skip connection are free."""
        xp = namespace(S)
        positive = xp.maximum(S, 0)
        if self.skip is None:
            return positive
        return xp.concatenate([positive[..., :-1], S[..., -1:]], axis=-1)

    def evaluate(self, U: Array) -> Evaluation:
        """Both objectives, the relative cone violation and minus the loss gradient at ``U``."""
        op, xp = self.operator, namespace(U)
        scores = op.scores(U)
        prediction = _difference(op.gate(scores).sum(axis=-1))
        regularizer = self.regularizer(U)

        def objective(f: Array) -> Array:
            return (self.share * self.loss.value(f, self.y)).sum() + regularizer

        value, network_value, violation = objective(prediction), None, xp.zeros((), U.dtype)
        if self.formulation == "relu":
            hidden = xp.maximum(scores, 0)
            if self.skip is not None:
                hidden = xp.concatenate([hidden[..., :-1], scores[..., -1:]], axis=-1)
            network_value = objective(_difference(hidden.sum(axis=-1)))
            oriented = op.orient(scores)
            against = self.project_cones(oriented) - oriented
            tiny = xp.finfo(U.dtype).tiny
            violation = xp.linalg.norm(against) / xp.maximum(xp.linalg.norm(scores), tiny)
        return Evaluation(
            objective=value,
            network_objective=value if network_value is None else network_value,
            violation=violation,
            residual=-self.loss.gradient(prediction, self.y),
        )

    def slope(self, residual: Array) -> Array:
        """``F^T`` of the residual times each row's share: minus the gradient of the mean loss."""
        return self.operator.adjoint(self.share * residual, self.n_signs)

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
        xp = namespace(residual)
        # Rows without weight, such as padding, have no say.
        residual = xp.where(self.share > 0, residual, 0)
        if self.skip is not None:
            residual = self._orthogonal_to_skip(residual)
        slope = self.slope(residual) + cone_term
        tiny = xp.finfo(slope.dtype).tiny
        extra: Array | float = 0.0
        limit: Array | float = xp.inf
        if self.skip is not None:
            linear = self.slope(residual)[:, :, -1]
            safe = xp.maximum(self._skip_ridge, tiny)
            # Without a ridge the projection has made it zero.
            extra = xp.where(self._skip_ridge > 0, (linear**2).sum(axis=(1, 2)) / safe, 0)
            slope = slope[:, :, :-1]
        size = self.penalty.dual_norm(slope)
        if self.penalty.is_norm:
            # Without a slope any scale will do; the division must not overflow.
            limit = self.alpha / xp.maximum(size, tiny * xp.maximum(self.alpha, 1))
        else:
            extra = extra + size**2 / xp.maximum(self.alpha, tiny)
        scale = xp.clip(self.loss.dual_scale(residual, self.y, self.share, extra), 0, limit)
        if self.loss.coupled:
            scale = scale.min()
        conjugate = self.loss.conjugate(-scale * residual, self.y)
        return -(self.share * conjugate).sum() - (scale**2 * extra / 2).sum()

    def bound_of(self, dual: DualPoint) -> Array:
        """:meth:`dual_bound` of a dual point, whose multipliers are those of ``E_i X u >= 0``."""
        cone_term: Array | float = 0.0
        if dual.multipliers is not None:
            multipliers = namespace(dual.residual).maximum(dual.multipliers, 0)
            cone_term = self.operator.constraints_adjoint(multipliers)
        return self.dual_bound(dual.residual, cone_term)

    def alpha_max(self) -> Array:
        """Give a strength from which on all weights are zero at the optimum.

        Infinite for a penalty that is no norm, which shrinks but never removes.

        Raises
        ------
        ValueError
            With a skip connection and another loss than the squared one.
        """
        xp = namespace(self.y)
        if not self.penalty.is_norm:
            return xp.asarray(xp.inf, self.y.dtype)
        prediction = xp.zeros_like(self.y)
        if self.skip is not None:
            if not isinstance(self.loss, SquaredLoss):
                raise ValueError(
                    "alpha_max of a program with a skip connection is known for the squared loss "
                    f"only, not for {type(self.loss).__name__}; choose the strengths yourself."
                )
            # With all else zero the skip connection is a ridge regression.
            X, weighted = self.operator.X, self.share * self.operator.X
            gram = X.T @ weighted + self.skip * xp.eye(X.shape[1], dtype=X.dtype)
            prediction = X @ (xp.linalg.pinv(gram) @ (weighted.T @ self.y))
        slope = self.slope(-self.loss.gradient(prediction, self.y))
        return self.penalty.dual_norm(slope if self.skip is None else slope[:, :, :-1]).max()

    def _orthogonal_to_skip(self, residual: Array) -> Array:
        """Project a dual point on what an unpenalised linear term allows: ``X^T r = 0``."""
        xp, X = namespace(residual), self.operator.X
        weighted = self.share * X
        gram = X.T @ weighted
        # Weighted least squares on X; the tolerance drops directions that X does not have.
        values, vectors = xp.linalg.eigh(gram)
        cut = values[-1] * len(gram) * xp.finfo(gram.dtype).eps
        inverse = xp.where(values > cut, 1 / xp.where(values > cut, values, 1), 0)
        given = xp.linalg.norm(residual, axis=0)
        for _ in range(2):  # the second time takes off what rounding left
            fit = X @ ((vectors * inverse) @ (vectors.T @ (weighted.T @ residual)))
            residual = residual - xp.where(self._skip_ridge > 0, 0, fit)
        # What is nothing but rounding must not be scaled up to pass for a dual point.
        noise = 100 * len(residual) ** 0.5 * xp.finfo(residual.dtype).eps * given
        kept = (xp.linalg.norm(residual, axis=0) > noise) | (self._skip_ridge > 0)
        return xp.where(kept, residual, 0)


def with_skip(program: ConvexProgram, ridge: float = 0.0) -> ConvexProgram:
    """Add a linear skip connection to a program.

    Parameters
    ----------
    program : ConvexProgram
        Without one.
    ridge : float, default=0
        Strength of its ridge penalty, at least 0. With the logistic losses a positive one is
        needed: a linear term alone may separate the data, and then has no minimiser.

    Returns
    -------
    ConvexProgram
        With one pattern more, the last, open on every row.

    Raises
    ------
    ValueError
        For a negative ridge, none with a logistic loss, or a program that has a skip connection.
    """
    if program.skip is not None:
        raise ValueError("The program has a skip connection already.")
    if not ridge >= 0:
        raise ValueError(f"ridge={ridge!r}; expected a number of at least 0.")
    if ridge == 0 and isinstance(program.loss, LogisticLoss | MultinomialLoss):
        raise ValueError(
            "A skip connection without a ridge may have no minimiser under a logistic loss; "
            "give it a small one, such as 1e-4."
        )
    mask = program.operator.mask
    xp = namespace(mask)
    mask = xp.concatenate([mask, xp.ones((len(mask), 1), bool)], axis=1)
    return replace(program, operator=replace(program.operator, mask=mask), skip=ridge)


def on_host(program: ConvexProgram, dtype: Any = None) -> ConvexProgram:
    """Give the same program as NumPy arrays, floats in ``dtype`` if given."""

    def convert(leaf: Any) -> Any:
        array = leaf if is_sparse(leaf) else np.asarray(leaf)
        floating = np.issubdtype(array.dtype, np.floating)
        return array.astype(dtype, copy=False) if floating and dtype is not None else array

    return jax.tree.map(convert, program)


def _difference(parts: Array) -> Array:
    """Sum over signs, (n, n_outputs, n_signs): positive neurons less negative ones."""
    return parts[..., 0] - parts[..., 1] if parts.shape[-1] == 2 else parts[..., 0]


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
