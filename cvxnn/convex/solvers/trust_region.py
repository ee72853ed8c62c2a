r"""Newton's method for smooth convex objectives of moderate dimension, over a ball if there is one.

Each step minimises the second-order model over the ball :math:`\|\theta\| \le R`,

.. math::

    \min_{\|u\| \le R} \; g^T (u - \theta) + \tfrac12 (u - \theta)^T H (u - \theta) ,
    \qquad (H + \nu I)\, u = H \theta - g ,

with the multiplier :math:`\nu \ge 0` of the ball from the secular equation (More & Sorensen, 1983),
and then searches the segment from :math:`\theta` to the minimiser. The Hessian is the costly part:
it is kept for as long as the certified gap falls fast enough without a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from cvxnn.convex.objectives import BallObjective
from cvxnn.convex.solver import Measurement, Solver, Start
from cvxnn.numerics.arrays import register_pytree

# A Hessian is kept while a step without a new one leaves at most this part of the gap.
_FAST_ENOUGH = 0.1
# A step has to bring this part of the decrease that the slope promises.
_SUFFICIENT = 1e-4
_SHORTEST_STEP = 2.0**-30

Vector = NDArray[np.float64]


class NewtonState(NamedTuple):
    """An iterate with its slope, the Hessian in use, and the best bound."""

    theta: Vector
    value: Any
    gradient: Vector
    bound: Any
    gap: Any
    hessian: Any
    factor: Any
    multiplier: float
    n_hessians: int
    stuck: bool


@register_pytree
@dataclass(frozen=True)
class TrustRegionNewton(Solver[BallObjective, NewtonState]):
    """Newton's method on the host, in float64.

    Parameters
    ----------
    tol : float, default=1e-8
        Duality gap to reach, in units of the objective or of 1, whichever is larger, because a
        log-likelihood may be close to 0.
    max_iter : int, default=200
        Most steps.
    check_every : int, default=1
        Steps between two measurements.

    Notes
    -----
    Accepts a ``BallObjective``, such as ``cvxnn.joint.ChoiceObjective``. Memory
    and
    time grow with the square and the cube of the dimension: from some thousands on,
    ``AcceleratedGradient`` is the better choice.
    """

    on_host: ClassVar[bool] = True

    tol: float = 1e-8
    max_iter: int = 200
    check_every: int = 1

    def accept(self, objective: Any) -> TrustRegionNewton:
        """Refuse objectives without a Hessian."""
        if not isinstance(objective, BallObjective):
            raise TypeError(
                "TrustRegionNewton needs a BallObjective, with hessian and lower_bound; got "
                f"{type(objective).__name__}; a SmoothObjective is solved by AcceleratedGradient, "
                "a ConvexProgram by Cronos."
            )
        return self

    def init(self, objective: BallObjective, start: Start | None) -> NewtonState:
        """Start within the ball."""
        if start is None:
            raise ValueError("TrustRegionNewton needs a start: pass solve(..., start=theta).")
        theta = objective.project(np.asarray(start.weights))
        value, gradient = objective.value_and_gradient(theta)
        bound = objective.lower_bound(theta, value, gradient)
        return NewtonState(
            theta, value, gradient, bound, value - bound, None, None, 0.0, 0, stuck=False
        )

    def curvature(self, objective: BallObjective, state: NewtonState) -> Vector:
        """Return the Hessian to work with; another matrix is possible and takes more steps.

        Parameters
        ----------
        objective : BallObjective
            What is minimised.
        state : NewtonState
            State whose point counts.
        """
        return objective.hessian(state.theta)

    def refresh(self, objective: BallObjective, state: NewtonState) -> NewtonState:
        """Take the Hessian here, and its factors."""
        hessian = self.curvature(objective, state)
        factor = None
        if np.isfinite(hessian).all():
            # Directions without curvature get some, far below rounding elsewhere.
            spread = np.trace(hessian) / len(hessian)
            hessian.flat[:: len(hessian) + 1] += 1e-14 * spread + np.finfo(float).tiny
            factor = _shifted_cholesky(hessian)
        return state._replace(hessian=hessian, factor=factor, n_hessians=state.n_hessians + 1)

    def step(self, objective: BallObjective, state: NewtonState) -> NewtonState:
        """Minimise the model over the ball, and search the way there."""
        if state.factor is None:
            return state._replace(value=np.float64(np.nan))
        target, multiplier = _minimise_model(
            state.theta,
            state.gradient,
            state.hessian,
            state.factor,
            float(objective.radius),
            state.multiplier,
        )
        move = objective.project(target) - state.theta
        slope = state.gradient @ move
        length = 1.0
        while length >= _SHORTEST_STEP:
            theta = state.theta + length * move
            value, gradient = objective.value_and_gradient(theta)
            if value <= state.value + _SUFFICIENT * length * slope:
                break
            length /= 2
        else:
            return state._replace(stuck=True)
        bound = np.fmax(state.bound, objective.lower_bound(theta, value, gradient))
        return state._replace(
            theta=theta, value=value, gradient=gradient, bound=bound, multiplier=multiplier
        )

    def measure(
        self, objective: BallObjective, state: NewtonState
    ) -> tuple[NewtonState, Measurement]:
        """Compute the gap, and decide whether a new Hessian is needed."""
        gap = state.value - state.bound
        aged = state.stuck or not gap <= _FAST_ENOUGH * state.gap
        stopping = gap / max(abs(state.value), 1.0)
        if not np.isfinite(state.value):
            stopping = np.nan
        elif not np.isfinite(stopping):
            stopping = np.finfo(float).max  # no bound: not yet a failure
        details = {
            "gradient_norm": np.linalg.norm(state.gradient),
            "multiplier": np.float64(state.multiplier),
            "n_hessians": np.float64(state.n_hessians),
        }
        measured = Measurement(
            state.value, state.bound, stopping, aged, details, stalled=state.stuck
        )
        return state._replace(gap=gap), measured

    def weights(self, state: NewtonState) -> Vector:
        """Return the last iterate: the objective only falls."""
        return state.theta


def _shifted_cholesky(matrix: Vector) -> Any:
    """Factor, with a little more on the diagonal if rounding made the matrix indefinite."""
    size = abs(np.trace(matrix)) / len(matrix)
    for shift in (0.0, *np.logspace(-13, 3, 17)):
        shifted = matrix.copy()
        shifted.flat[:: len(matrix) + 1] += shift * size
        try:
            return cho_factor(shifted, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            continue
    return None


def _minimise_model(
    theta: Vector,
    gradient: Vector,
    hessian: Vector,
    factor: Any,
    radius: float,
    multiplier: float,
) -> tuple[Vector, float]:
    """Minimise the model over the ball; return the minimiser and the ball's multiplier."""
    free = theta - cho_solve(factor, gradient, check_finite=False)
    if np.linalg.norm(free) <= radius:
        return free, 0.0
    right = hessian @ theta - gradient
    lower, upper = 0.0, float(np.linalg.norm(right)) / radius  # |u| <= |right| / nu
    nu = min(multiplier, upper)
    u = free
    for _ in range(50):
        shifted = hessian.copy()
        shifted.flat[:: len(hessian) + 1] += nu
        roots = _shifted_cholesky(shifted)
        u = cho_solve(roots, right, check_finite=False)
        norm = float(np.linalg.norm(u))
        if norm > radius:
            lower = nu
        else:
            upper = nu
        if abs(norm - radius) <= 1e-12 * radius:
            break
        half = solve_triangular(roots[0], u, lower=True, check_finite=False)
        # Newton on 1/|u| - 1/R, which is nearly linear in nu.
        nu = nu + (norm / float(np.linalg.norm(half))) ** 2 * (norm - radius) / radius
        if not lower <= nu <= upper:
            nu = (lower + upper) / 2
    return u, nu
