r"""Losses of one row's predictions, and what duality and the solvers need of them.

Predictions and targets have shape ``(n_samples, n_outputs)``. A loss that treats
each output separately gives values of that shape; one that couples the outputs (``coupled``) gives
``(n_samples, 1)``. All losses are convex in the prediction, and work on NumPy and JAX arrays alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from cvxnn.numerics.arrays import Array, namespace, register_pytree


@runtime_checkable
class Loss(Protocol):
    """Protocol of a loss: a smooth convex function of each row's prediction.

    A loss of your own is a frozen dataclass with these methods, registered by ``register_pytree``.
    One that inherits from ``Loss`` may leave out ``coupled`` and ``dual_scale``. ``solve`` refuses
    one whose methods contradict each other.

    Notes
    -----
    The methods take

    prediction : Array, shape (n_samples, n_outputs)
        Outputs of the network.
    target : Array, shape (n_samples, n_outputs)
        Targets.
    dual : Array, shape (n_samples, n_outputs)
        Slopes, where the conjugate is taken.
    residual : Array, shape (n_samples, n_outputs)
        Dual point before it is scaled.
    share : Array, shape (n_samples, 1), or float
        Share of each row in the loss; shares add up to one.
    extra : Array, shape (n_outputs,), or float
        What the penalty adds to the square of the scale, at least 0.
    """

    coupled: ClassVar[bool] = False
    """True if the loss of a row couples its outputs."""

    @property
    def curvature(self) -> float:
        """Upper bound of the second derivative in any direction."""

    def value(self, prediction: Array, target: Array) -> Array:
        """Return the loss of each entry, or of each row if outputs are coupled."""

    def gradient(self, prediction: Array, target: Array) -> Array:
        """Return the gradient in the prediction, of the shape of the prediction."""

    def hessian(self, prediction: Array, target: Array) -> Array:
        """Return the diagonal of the second derivative, of the shape of the prediction."""

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Return the convex conjugate at ``dual``, which is infinite outside its domain."""

    def dual_scale(self, residual: Array, target: Array, share: Any, extra: Array | float) -> Array:
        r"""Return a good scale ``t`` of each column of a dual point.

        Approximately maximises ``-sum(share * conjugate(-t residual)) - t**2 extra / 2``, or stays
        within the domain of the conjugate where the residual is minus a gradient, as ones do,
        which are the default.
        """
        return namespace(residual).ones_like(residual[0])


@register_pytree
@dataclass(frozen=True)
class SquaredLoss:
    r"""Half the squared error, :math:`\tfrac12 (f - y)^2`; conjugate :math:`\tfrac12 z^2 + z y`."""

    coupled: ClassVar[bool] = False
    curvature: ClassVar[float] = 1.0

    def value(self, prediction: Array, target: Array) -> Array:
        """Return the loss of each entry."""
        return 0.5 * (prediction - target) ** 2

    def gradient(self, prediction: Array, target: Array) -> Array:
        """Return the derivative in the prediction, ``f - y``."""
        return prediction - target

    def hessian(self, prediction: Array, target: Array) -> Array:
        """Return ones."""
        return namespace(prediction).ones_like(prediction)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Return the convex conjugate at ``dual``."""
        return 0.5 * dual**2 + dual * target

    def dual_scale(self, residual: Array, target: Array, share: Any, extra: Array | float) -> Array:
        """Return the maximiser of the dual objective along each column, in closed form."""
        return _quadratic_scale(residual, target, share, extra)


@register_pytree
@dataclass(frozen=True)
class HuberLoss:
    r"""Squared near the target, linear from ``delta`` on (Huber, 1964).

    :math:`\tfrac12 e^2` for :math:`|e| \le \delta`, else :math:`\delta(|e| - \delta/2)`, with
    :math:`e = f - y`. The conjugate is that of the squared loss on :math:`|z| \le \delta`.

    Attributes
    ----------
    delta : float, default=1.0
        Error from which on the loss is linear: positive, in units of the targets.
    """

    delta: float = 1.0

    coupled: ClassVar[bool] = False
    curvature: ClassVar[float] = 1.0

    def value(self, prediction: Array, target: Array) -> Array:
        """Return the loss of each entry."""
        xp = namespace(prediction)
        error = xp.abs(prediction - target)
        near = xp.minimum(error, self.delta)
        return near * (error - near / 2)

    def gradient(self, prediction: Array, target: Array) -> Array:
        """Return the error, clipped to ``[-delta, delta]``."""
        return namespace(prediction).clip(prediction - target, -self.delta, self.delta)

    def hessian(self, prediction: Array, target: Array) -> Array:
        """Return one near the target, zero beyond."""
        xp = namespace(prediction)
        near = xp.abs(prediction - target) <= self.delta
        return xp.where(near, xp.ones_like(prediction), 0)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Return the conjugate at ``dual``; the edge of its domain has room for rounding."""
        xp = namespace(dual)
        inside = xp.abs(dual) <= self.delta * (1 + 4 * xp.finfo(dual.dtype).eps)
        return xp.where(inside, 0.5 * dual**2 + dual * target, xp.inf)

    def dual_scale(self, residual: Array, target: Array, share: Any, extra: Array | float) -> Array:
        """Return the maximiser along each column, kept within the domain of the conjugate."""
        xp = namespace(residual)
        best = _quadratic_scale(residual, target, share, extra)
        # The floor keeps the division from overflowing where the residual is zero.
        floor = xp.finfo(residual.dtype).tiny * (1 + self.delta)
        return xp.minimum(best, self.delta / xp.maximum(xp.abs(residual).max(axis=0), floor))


@register_pytree
@dataclass(frozen=True)
class LogisticLoss:
    r"""Logistic loss of a margin, :math:`\log(1 + e^{-y f})`, targets -1 and 1.

    The conjugate at :math:`z = -y p` is the negative entropy :math:`p\log p + (1-p)\log(1-p)` for
    :math:`p \in [0, 1]`, infinite elsewhere.
    """

    coupled: ClassVar[bool] = False
    curvature: ClassVar[float] = 0.25

    def value(self, prediction: Array, target: Array) -> Array:
        """Return the loss of each entry, without overflow."""
        return namespace(prediction).logaddexp(0, -target * prediction)

    def gradient(self, prediction: Array, target: Array) -> Array:
        """Return the derivative in the prediction."""
        return -target * _sigmoid(-target * prediction)

    def hessian(self, prediction: Array, target: Array) -> Array:
        """Return the variance of the predicted label."""
        return _sigmoid(prediction) * _sigmoid(-prediction)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Return the convex conjugate at ``dual``."""
        xp = namespace(dual)
        p = -target * dual
        inside = (p >= 0) & (p <= 1)
        p = xp.clip(p, 0, 1)
        return xp.where(inside, _xlogx(p) + _xlogx(1 - p), xp.inf)

    def dual_scale(self, residual: Array, target: Array, share: Any, extra: Array | float) -> Array:
        """Return ones: at the optimum the dual point is minus the gradient itself."""
        return namespace(residual).ones_like(residual[0])


@register_pytree
@dataclass(frozen=True)
class MultinomialLoss:
    r"""Softmax cross-entropy, :math:`\log \sum_c e^{f_c} - \sum_c y_c f_c`, one-hot targets.

    The conjugate at ``z`` is the negative entropy :math:`\sum_c p_c \log p_c` of
    :math:`p = y + z` on the probability simplex.
    """

    coupled: ClassVar[bool] = True
    curvature: ClassVar[float] = 0.5

    def value(self, prediction: Array, target: Array) -> Array:
        """Return the loss of each row, shape (n_samples, 1)."""
        xp = namespace(prediction)
        top = prediction.max(axis=1, keepdims=True)
        total = xp.log(xp.exp(prediction - top).sum(axis=1, keepdims=True)) + top
        return total - (target * prediction).sum(axis=1, keepdims=True)

    def gradient(self, prediction: Array, target: Array) -> Array:
        """Return probabilities minus targets."""
        return _softmax(prediction) - target

    def hessian(self, prediction: Array, target: Array) -> Array:
        """Return the diagonal ``p (1 - p)``; its other entries couple the outputs."""
        p = _softmax(prediction)
        return p * (1 - p)

    def conjugate(self, dual: Array, target: Array) -> Array:
        """Return the convex conjugate at ``dual``, shape (n_samples, 1)."""
        xp = namespace(dual)
        p = target + dual
        room = 16 * p.shape[1] * xp.finfo(p.dtype).eps
        inside = (p >= -room).all(axis=1, keepdims=True)
        inside &= xp.abs(dual.sum(axis=1, keepdims=True)) <= room
        entropy = _xlogx(xp.clip(p, 0, 1)).sum(axis=1, keepdims=True)
        return xp.where(inside, entropy, xp.inf)

    def dual_scale(self, residual: Array, target: Array, share: Any, extra: Array | float) -> Array:
        """Return ones: at the optimum the dual point is minus the gradient itself."""
        return namespace(residual).ones_like(residual[0])


def _quadratic_scale(residual: Array, target: Array, share: Any, extra: Array | float) -> Array:
    """Return the factor of ``residual`` of best bound, if the conjugate is that of squares."""
    xp = namespace(residual)
    tiny = xp.finfo(residual.dtype).tiny
    size = (share * residual**2).sum(axis=0) + extra
    return (share * residual * target).sum(axis=0) / xp.maximum(size, tiny)


def _sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))``, which no ``x`` overflows."""
    return 0.5 * (1 + namespace(x).tanh(x / 2))


def _softmax(x: Array) -> Array:
    """Return the softmax of each row."""
    e = namespace(x).exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _xlogx(p: Array) -> Array:
    """Return ``p log p``, which is 0 at 0."""
    xp = namespace(p)
    return p * xp.log(xp.where(p > 0, p, 1))
