"""What an iteration of CRONOS carries."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.solvers.cronos.u_system import Factors


class CronosState(NamedTuple):
    """One ADMM iterate; duals are scaled by their penalty parameters."""

    u: Array
    v: Array
    s: Array
    dual_u: Array
    dual_s: Array
    prediction: Array
    rho: Array
    factors: Factors | None
    rows: Array
    n_steps: Array
    cg_iterations: Array
    residuals: Array
    in_range: Array
    """Whether squares of slopes stay within the range of the dtype."""
    best: Array
    best_objective: Array
    bound: Array
    dual: DualPoint

    def rebalanced(self, checks: Array, *, balance: bool) -> tuple[CronosState, Array]:
        """Return the state with balanced penalty parameters, and whether they changed.

        Parameters
        ----------
        checks : Array, a scalar integer
            Certificates so far; the parameters change after 1, 2, 4, ... of them.
        balance : bool
            Whether they change at all.
        """
        primal, dual = self.residuals[0::2], self.residuals[1::2]
        factor = jnp.sqrt(primal / jnp.maximum(dual, jnp.finfo(primal.dtype).tiny))
        factor = jnp.clip(factor, 0.2, 5.0)
        due = balance & ((checks & (checks - 1)) == 0) & jnp.all(jnp.isfinite(factor))
        large = (factor > 1.5) | (factor < 1 / 1.5)
        factor = jnp.where(due & large, factor, 1.0)
        state = self._replace(
            rho=self.rho * factor,
            dual_u=self.dual_u / factor[0],
            dual_s=self.dual_s / factor[1],
        )
        return state, jnp.any(factor != 1.0)
