r"""Accelerated proximal gradient for the gated form.

.. math::

    z_k &= \operatorname{prox}_{1/L}\big(m_k - \nabla f(m_k) / L\big) \\
    m_{k+1} &= z_k + \tfrac{t_k - 1}{t_{k+1}} (z_k - z_{k-1}), \qquad
    t_{k+1} = \tfrac12 \big(1 + \sqrt{1 + 4 t_k^2}\big) ,

FISTA (Beck & Teboulle, 2009) with the gradient restart of O'Donoghue & Candes (2015). The step
``1/L`` grows a little at each iteration and shrinks where the quadratic upper bound fails. The
predictions at ``m`` are combined from those at ``z``, so that an iteration is one product with the
data each way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cvxnn.convex.loop import Measurement, Result, Start
from cvxnn.convex.program import ConvexProgram, DualPoint

# Factors of L after an accepted and after a refused step.
_EASE, _TIGHTEN = 0.97, 2.0


class ProximalGradientState(NamedTuple):
    """One iterate, its predictions and its momentum."""

    z: Array
    prediction: Array
    momentum: Array
    momentum_prediction: Array
    t: Array
    smoothness: Array
    n_restarts: Array
    best: Array
    best_objective: Array
    bound: Array
    residual: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ProximalGradient:
    """Accelerated proximal gradient for the gated form, any loss, any penalty.

    Parameters
    ----------
    tol : float, default=1e-4
        Relative duality gap to reach.
    max_iter : int, default=5000
        Most iterations; one costs ``4 n d P n_outputs`` flops.
    restart : bool, default=True
        Drop the momentum where it points uphill.
    check_every : int, default=20
        Iterations between two certificates.

    Notes
    -----
    Memory beyond the data: one array of ``n P n_outputs`` floats and six of the size of the
    weights. Rows are used as they are: unlike in ``Cronos``, scaling them would change the problem.
    """

    on_host: ClassVar[bool] = False

    tol: float = 1e-4
    max_iter: int = 5000
    restart: bool = field(default=True, metadata={"static": True})
    check_every: int = 20

    def accept(self, problem: Any) -> ProximalGradient:
        """Refuse the ReLU form, whose cones have no cheap projection."""
        if not isinstance(problem, ConvexProgram):
            raise TypeError(
                f"ProximalGradient solves a ConvexProgram, not a {type(problem).__name__}; "
                "for a smooth objective use AcceleratedGradient."
            )
        if problem.form != "gated":
            raise TypeError(
                'ProximalGradient solves the gated form (form="gated"); for the ReLU form use '
                "Cronos or InteriorPoint."
            )
        return self

    def init(self, problem: ConvexProgram, start: Start | None) -> ProximalGradientState:
        """Start at rest, at zero or at given weights."""
        z = problem.zeros() if start is None else jnp.asarray(start.weights)
        prediction = problem.operator.forward(z)
        residual = jnp.zeros_like(problem.y)
        if start is not None and start.dual is not None:
            residual = jnp.asarray(start.dual.residual)
        return ProximalGradientState(
            z=z,
            prediction=prediction,
            momentum=z,
            momentum_prediction=prediction,
            t=jnp.ones((), z.dtype),
            smoothness=_largest_curvature(problem),
            n_restarts=jnp.zeros((), jnp.int32),
            best=z,
            best_objective=problem.evaluate(z).objective,
            bound=problem.dual_bound(residual),
            residual=residual,
        )

    def refresh(
        self, problem: ConvexProgram, state: ProximalGradientState
    ) -> ProximalGradientState:
        """Nothing to factor."""
        return state

    def step(self, problem: ConvexProgram, state: ProximalGradientState) -> ProximalGradientState:
        """One proximal step from the extrapolated point, if its upper bound holds there."""
        m, fm, L = state.momentum, state.momentum_prediction, state.smoothness
        gradient = -problem.slope(-problem.loss.gradient(fm, problem.y))
        z = problem.prox(m - gradient / L, 1 / L)
        prediction = problem.operator.forward(z)
        moved = z - m
        squared = jnp.sum(moved**2)
        # Loss at z above its tangent at m, in a form that does not cancel.
        above = _bregman(problem, prediction, fm)
        slack = 10 * jnp.finfo(z.dtype).eps * jnp.abs(state.best_objective)
        refused = above > L / 2 * squared + slack
        uphill = (jnp.vdot(moved, z - state.z) < 0) & self.restart
        t = jnp.where(uphill, 1.0, (1 + jnp.sqrt(1 + 4 * state.t**2)) / 2)
        weight = jnp.where(uphill, 0.0, (state.t - 1) / t)

        def keep(old: Array, new: Array) -> Array:
            return jnp.where(refused, old, new)

        return state._replace(
            z=keep(state.z, z),
            prediction=keep(state.prediction, prediction),
            momentum=keep(m, z + weight * (z - state.z)),
            momentum_prediction=keep(fm, prediction + weight * (prediction - state.prediction)),
            t=keep(state.t, t),
            smoothness=jnp.maximum(L * jnp.where(refused, _TIGHTEN, _EASE), _least(z.dtype)),
            n_restarts=state.n_restarts + (uphill & ~refused),
        )

    def measure(
        self, problem: ConvexProgram, state: ProximalGradientState
    ) -> tuple[ProximalGradientState, Measurement]:
        """Objective and certificate; predictions anew, against the drift of their recurrence."""
        at = problem.evaluate(state.z)
        bound = problem.dual_bound(at.residual)
        raised, better = bound > state.bound, at.objective < state.best_objective
        state = state._replace(
            best=jnp.where(better, state.z, state.best),
            best_objective=jnp.where(better, at.objective, state.best_objective),
            bound=jnp.where(raised, bound, state.bound),
            residual=jnp.where(raised, at.residual, state.residual),
        )
        tiny = jnp.finfo(bound.dtype).tiny
        gap = (state.best_objective - state.bound) / jnp.maximum(
            jnp.abs(state.best_objective), tiny
        )
        stopping = jnp.where(jnp.isfinite(at.objective), gap, jnp.nan)
        details = {"smoothness": state.smoothness, "n_restarts": state.n_restarts}
        return state, Measurement(
            state.best_objective, state.bound, stopping, jnp.asarray(False), details
        )

    def weights(self, state: ProximalGradientState) -> Array:
        """Best point seen."""
        return state.best

    def dual_point(self, state: ProximalGradientState) -> DualPoint:
        """Residual of the best bound."""
        return DualPoint(state.residual, None)

    def flops(self, problem: ConvexProgram, result: Result) -> float:
        """Floating-point operations of a solve, counting dense products."""
        n, d = problem.operator.X.shape
        product = 2.0 * n * d * problem.operator.n_patterns * problem.y.shape[1]
        return product * (2 * result.n_iter + 2 * len(result.history["iteration"]) + 40)


def _bregman(problem: ConvexProgram, f: Array, at: Array) -> Array:
    loss, y = problem.loss, problem.y
    linear = (loss.gradient(at, y) * (f - at)).sum()
    if problem.sample_weight is not None:
        linear = (problem.share * loss.gradient(at, y) * (f - at)).sum()
        return (problem.share * (loss.value(f, y) - loss.value(at, y))).sum() - linear
    return ((loss.value(f, y) - loss.value(at, y)).sum() - linear) * problem.share


def _largest_curvature(problem: ConvexProgram) -> Array:
    """Estimate the Lipschitz constant of the gradient by the power method."""
    Z = jnp.ones(problem.weights_shape, problem.operator.X.dtype)

    def iterate(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        Z, _ = carry
        Z = Z / jnp.maximum(jnp.linalg.norm(Z), jnp.finfo(Z.dtype).tiny)
        Z = problem.slope(problem.operator.forward(Z))
        return Z, jnp.linalg.norm(Z)

    _, size = jax.lax.fori_loop(0, 20, iterate, (Z, jnp.zeros((), Z.dtype)))
    return jnp.maximum(problem.loss.curvature * size, _least(Z.dtype))


def _least(dtype: Any) -> Any:
    """Smallest constant whose inverse is finite: of data that are zero, say."""
    return jnp.finfo(dtype).tiny / jnp.finfo(dtype).eps
