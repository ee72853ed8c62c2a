r"""Nesterov's accelerated gradient descent for smooth convex objectives.

.. math::

    \theta_{k+1} = z_k - \tfrac1L \nabla f(z_k), \qquad
    z_{k+1} = \theta_{k+1} + \tfrac{t_k - 1}{t_{k+1}} (\theta_{k+1} - \theta_k), \qquad
    t_{k+1} = t_k + \tfrac1a, \quad t_1 = 1,

with :math:`f(\theta_k) - f^* \le L \|\theta_0 - \theta^*\|^2 / (2 t_k^2)` (Nesterov, 1983;
Chambolle & Dossal, 2015). The friction :math:`a = 2` gives the bound
:math:`2 L \|\theta_0 - \theta^*\|^2 / (k + 1)^2` of the COALA paper's Theorem 2; more
of it delays the momentum, so that the iterates overshoot less. With restarts, ``t`` returns to 1
whenever the step turns against the gradient (O'Donoghue & Candes, 2015), which makes the method
fast on strongly convex objectives.

An objective that knows a matrix :math:`P` above all its Hessians gets steps
:math:`P^{-1} \nabla f(z_k)` in place of :math:`\nabla f(z_k) / L`: the same method in the variables
:math:`P^{1/2} \theta`, where :math:`L = 1`, with the same bound in the norm of :math:`P`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from cvxnn.convex.compiled_calls import Compiled
from cvxnn.convex.objectives import (
    SmoothObjective,
    WithCurvature,
    WithLowerBound,
    WithProjection,
)
from cvxnn.convex.solver import Measurement, Solver, Start
from cvxnn.numerics.arrays import Array, namespace, register_pytree


class AcceleratedGradientState(NamedTuple):
    """One iterate and its momentum."""

    theta: Array
    momentum: Array
    t: Array
    smoothness: Array
    n_restarts: Array
    best: Array
    best_objective: Array
    bound: Array
    factor: Array | None
    """Cholesky factor of the curvature, where steps are measured by it."""


@register_pytree
@dataclass(frozen=True)
class AcceleratedGradient(Solver[SmoothObjective, AcceleratedGradientState]):
    r"""Nesterov's method, with adaptive restart if wanted.

    Parameters
    ----------
    tol : float, default=1e-6
        Relative duality gap to reach on a strongly convex objective, where
        :math:`f^* \ge f - \|\nabla f\|^2 / (2\mu)` certifies it; otherwise the gradient's norm.
    max_iter : int, default=5000
        Most iterations.
    restart : bool, default=True
        Adaptive restart; without it the method is the plain one of Theorem 2.
    precondition : bool, default=True
        Measure steps by ``curvature()`` of objectives that have it: one Cholesky factorisation, and
        far fewer steps where features differ in scale or resemble each other.
    friction : float, default=2.0
        At least 2.
    check_every : int, default=20
        Iterations between two measurements.
    on_host : bool, default=False
        Whether to work on NumPy arrays in float64, for objectives that take them. Nothing is
        compiled then, which takes a second or more, but an iteration takes longer.

    Notes
    -----
    Accepts any ``SmoothObjective``: convex, differentiable, with a known smoothness constant. One
    with ``project`` is minimised over a convex set (Beck & Teboulle, 2009); one with
    ``lower_bound`` brings its own certificate.
    """

    tol: float = 1e-6
    max_iter: int = 5000
    restart: bool = field(default=True, metadata={"static": True})
    precondition: bool = field(default=True, metadata={"static": True})
    friction: float = 2.0
    check_every: int = 20
    on_host: bool = field(default=False, metadata={"static": True})  # type: ignore[misc]

    def across_devices(self) -> AcceleratedGradient:
        """Return the solver in compiled code."""
        return replace(self, on_host=False)

    def accept(self, objective: Any) -> AcceleratedGradient:
        """Refuse objectives that are not smooth."""
        if not self.friction >= 2:
            raise ValueError(f"friction={self.friction!r}; expected a number of at least 2.")
        if not isinstance(objective, SmoothObjective):
            raise TypeError(
                f"AcceleratedGradient needs a SmoothObjective, got {type(objective).__name__}; "
                "a ConvexProgram is solved by Cronos or solve_with_cvxpy."
            )
        return self

    def init(self, objective: SmoothObjective, start: Start | None) -> AcceleratedGradientState:
        """Start at rest."""
        if start is None:
            raise ValueError("AcceleratedGradient needs a start: pass solve(..., start=theta).")
        theta = start.weights
        if isinstance(objective, WithProjection):
            theta = objective.project(theta)
        value = objective.value(theta)
        xp = namespace(theta)
        return AcceleratedGradientState(
            theta=theta,
            momentum=theta,
            t=xp.ones((), theta.dtype),
            smoothness=xp.ones((), theta.dtype),
            n_restarts=xp.zeros((), xp.int32),
            best=theta,
            best_objective=value,
            bound=xp.full((), -xp.inf, theta.dtype),
            factor=None,
        )

    def refresh(
        self, objective: SmoothObjective, state: AcceleratedGradientState
    ) -> AcceleratedGradientState:
        """Find the step size."""
        # In another metric the projection would be another one, too.
        if (
            self.precondition
            and isinstance(objective, WithCurvature)
            and not isinstance(objective, WithProjection)
        ):
            factor = _factor if self.on_host else _compiled_factor
            return state._replace(factor=factor(objective))
        smoothness = _smoothness if self.on_host else _compiled_smoothness
        return state._replace(smoothness=smoothness(objective))

    def step(
        self, objective: SmoothObjective, state: AcceleratedGradientState
    ) -> AcceleratedGradientState:
        """Take a gradient step from the extrapolated point."""
        gradient = objective.gradient(state.momentum)
        if state.factor is None:
            theta = state.momentum - gradient / state.smoothness
        else:
            theta = state.momentum - _solve(state.factor, gradient)
        descent = gradient
        if isinstance(objective, WithProjection):
            theta = objective.project(theta)
            descent = state.momentum - theta
        moved = theta - state.theta
        xp = namespace(theta)
        restart = (xp.vdot(descent, moved) > 0) & self.restart
        t = xp.where(restart, 1.0, state.t + 1 / self.friction)
        weight = xp.where(restart, 0.0, (state.t - 1) / t)
        return state._replace(
            theta=theta,
            momentum=theta + weight * moved,
            t=t,
            n_restarts=state.n_restarts + restart,
        )

    def measure(
        self, objective: SmoothObjective, state: AcceleratedGradientState
    ) -> tuple[AcceleratedGradientState, Measurement]:
        """Measure objective, gradient norm and, if strongly convex, the certificate."""
        value, gradient = objective.value(state.theta), objective.gradient(state.theta)
        xp = namespace(value)
        squared = xp.vdot(gradient, gradient)
        modulus = objective.strong_convexity()
        if isinstance(objective, WithLowerBound):
            bound = objective.lower_bound(state.theta, value, gradient)
        else:
            bound = xp.where(
                modulus > 0, value - squared / (2 * xp.where(modulus > 0, modulus, 1)), -xp.inf
            )
        bound = xp.fmax(state.bound, bound)
        better = value < state.best_objective
        best_objective = xp.where(better, value, state.best_objective)
        state = state._replace(
            best=xp.where(better, state.theta, state.best),
            best_objective=best_objective,
            bound=bound,
        )
        tiny = xp.finfo(value.dtype).tiny
        gap = (best_objective - bound) / xp.maximum(xp.abs(best_objective), tiny)
        stopping = xp.where(xp.isfinite(bound), gap, xp.sqrt(squared))
        stopping = xp.where(xp.isfinite(value), stopping, xp.nan)
        details = {
            "gradient_norm": xp.sqrt(squared),
            "n_restarts": state.n_restarts,
            **objective.report(state.theta),
        }
        return state, Measurement(best_objective, bound, stopping, details=details)

    def weights(self, state: AcceleratedGradientState) -> Array:
        """Return the best point seen."""
        return state.best


def _smoothness(objective: SmoothObjective) -> Array:
    return objective.smoothness()


def _factor(objective: WithCurvature) -> Array:
    curvature = objective.curvature()
    xp = namespace(curvature)
    # Without a ridge it may be singular; what is added keeps it above the Hessians.
    least = 10 * xp.finfo(curvature.dtype).eps * xp.trace(curvature)
    shifted = curvature + least * xp.eye(len(curvature), dtype=curvature.dtype)
    try:
        return xp.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:  # of NumPy, where JAX returns NaN
        return np.full_like(curvature, np.nan)


_compiled_smoothness, _compiled_factor = Compiled(_smoothness), Compiled(_factor)


def _solve(factor: Array, right: Array) -> Array:
    if namespace(factor) is np:
        return scipy.linalg.cho_solve((factor, True), right, check_finite=False)
    from jax.scipy.linalg import cho_solve

    return cho_solve((factor, True), right)
