r"""Accelerated proximal gradient for the gated formulation.

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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Measurement, Result, Solver, Start
from cvxnn.numerics.arrays import register_pytree

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


@register_pytree
@dataclass(frozen=True)
class ProximalGradient(Solver[ConvexProgram, ProximalGradientState]):
    """Accelerated proximal gradient for the gated formulation, any loss, any penalty.

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
    Beyond the data it needs memory for one array of ``n P n_outputs`` floats and six of the size of
    the weights. Rows are used as they are: unlike in ``Cronos``, scaling them would change the
    program.
    """

    tol: float = 1e-4
    max_iter: int = 5000
    restart: bool = field(default=True, metadata={"static": True})
    check_every: int = 20

    def accept(self, program: Any) -> ProximalGradient:
        """Refuse the ReLU formulation, whose cones have no cheap projection."""
        if not isinstance(program, ConvexProgram):
            raise TypeError(
                f"ProximalGradient solves a ConvexProgram, not a {type(program).__name__}; "
                "for a smooth objective use AcceleratedGradient."
            )
        if program.formulation != "gated":
            raise TypeError(
                'ProximalGradient solves the gated formulation (formulation="gated"); for the ReLU '
                "one use Cronos or InteriorPoint."
            )
        return self

    def streams_rows(self, program: ConvexProgram) -> bool:
        """Return whether there is no linear part, whose bound needs a matrix of all rows."""
        return program.skip is None

    def init(self, program: ConvexProgram, start: Start | None) -> ProximalGradientState:
        """Start at rest, at zero or at given weights."""
        dtype = program.operator.X.dtype
        z = jnp.zeros(program.stacked_shape, dtype) if start is None else jnp.asarray(start.weights)
        prediction = program.operator.forward(z)
        residual = jnp.zeros_like(program.y)
        if start is not None and start.dual is not None:
            residual = jnp.asarray(start.dual.residual)
        return ProximalGradientState(
            z=z,
            prediction=prediction,
            momentum=z,
            momentum_prediction=prediction,
            t=jnp.ones((), z.dtype),
            smoothness=_largest_curvature(program),
            n_restarts=jnp.zeros((), jnp.int32),
            best=z,
            best_objective=program.evaluate(z).objective,
            bound=program.dual_bound(residual),
            residual=residual,
        )

    def step(self, program: ConvexProgram, state: ProximalGradientState) -> ProximalGradientState:
        """Take a proximal step from the extrapolated point, if its upper bound holds there."""
        m, fm, L = state.momentum, state.momentum_prediction, state.smoothness
        gradient = -program.slope(-program.loss.gradient(fm, program.y))
        z = program.regularizer.prox(m - gradient / L, 1 / L)
        prediction = program.operator.forward(z)
        moved = z - m
        squared = jnp.sum(moved**2)
        # Loss at z above its tangent at m, in a form that does not cancel.
        above = _bregman(program, prediction, fm)
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
        self, program: ConvexProgram, state: ProximalGradientState
    ) -> tuple[ProximalGradientState, Measurement]:
        """Compute the certificate, and keep the best point."""
        at = program.evaluate(state.z)
        bound = program.dual_bound(at.residual)
        raised, better = bound > state.bound, at.objective < state.best_objective
        state = state._replace(
            best=jnp.where(better, state.z, state.best),
            best_objective=jnp.where(better, at.objective, state.best_objective),
            bound=jnp.where(raised, bound, state.bound),
            residual=jnp.where(raised, at.residual, state.residual),
        )
        unit = jnp.maximum(jnp.abs(state.best_objective), program.resolution)
        gap = (state.best_objective - state.bound) / unit
        stopping = jnp.where(jnp.isfinite(at.objective), gap, jnp.nan)
        details = {"smoothness": state.smoothness, "n_restarts": state.n_restarts}
        return state, Measurement(state.best_objective, state.bound, stopping, details=details)

    def weights(self, state: ProximalGradientState) -> Array:
        """Return the best point seen."""
        return state.best

    def dual_point(self, state: ProximalGradientState) -> DualPoint:
        """Return the residual of the best bound."""
        return DualPoint(state.residual, None)

    def flops(self, program: ConvexProgram, result: Result) -> float:
        """Return the floating-point operations of a solve, counting dense products."""
        n, d = program.operator.X.shape
        product = 2.0 * n * d * program.operator.n_patterns * program.y.shape[1]
        return product * (2 * result.n_iter + 2 * len(result.history["iteration"]) + 40)


def _bregman(program: ConvexProgram, f: Array, at: Array) -> Array:
    loss, y = program.loss, program.y
    linear = (loss.gradient(at, y) * (f - at)).sum()
    if program.sample_weight is not None:
        linear = (program.share * loss.gradient(at, y) * (f - at)).sum()
        return (program.share * (loss.value(f, y) - loss.value(at, y))).sum() - linear
    return ((loss.value(f, y) - loss.value(at, y)).sum() - linear) * program.share


def _largest_curvature(program: ConvexProgram) -> Array:
    """Estimate the Lipschitz constant of the gradient by the power method."""
    Z = jnp.ones(program.stacked_shape, program.operator.X.dtype)

    def iterate(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        Z, _ = carry
        Z = Z / jnp.maximum(jnp.linalg.norm(Z), jnp.finfo(Z.dtype).tiny)
        Z = program.slope(program.operator.forward(Z))
        return Z, jnp.linalg.norm(Z)

    _, size = jax.lax.fori_loop(0, 20, iterate, (Z, jnp.zeros((), Z.dtype)))
    return jnp.maximum(program.loss.curvature * size, _least(Z.dtype))


def _least(dtype: Any) -> Any:
    """Return the smallest constant whose inverse is finite, for data that are zero."""
    return jnp.finfo(dtype).tiny / jnp.finfo(dtype).eps
