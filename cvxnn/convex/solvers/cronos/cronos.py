r"""CRONOS: ADMM with preconditioned conjugate gradient.

It is Algorithm 2 of the COALA paper (Feng et al., 2024), with additions that make it fast. The
program is split as :math:`u = v`, :math:`S G u = s` with a free positive row scaling ``S``:

.. math::

    u &\leftarrow \arg\min \tfrac1{2n}\|Fu - y\|^2 + \tfrac{\rho_1}2\|u - v + \lambda\|^2
        + \tfrac{\rho_2}2\|SGu - s + \nu\|^2 \\
    v &\leftarrow \operatorname{prox}_{\alpha/\rho_1}(u + \lambda), \qquad
    s \leftarrow (SGu + \nu)_+ \\
    \lambda &\leftarrow \lambda + u - v, \qquad \nu \leftarrow \nu + SGu - s .

Another loss than the squared one is replaced, in each u-update, by the quadratic above it that
touches it at the last ``u`` (majorised ADMM; Li, Sun & Toh, 2016): a squared loss with other
targets, so that all losses share the factorisations.

The u-update is exact through an ``n x n`` Cholesky, or a PCG whose tolerance falls like
:math:`k^{-1.1}`, summable as Theorem 1 asks. The two penalty parameters are balanced separately.

**The algorithm as printed.** Algorithm 2 in the paper differs from the above in two places.

- Its dual step is :math:`\lambda \leftarrow \lambda + \tfrac{\gamma\alpha}{\rho}(u - v)` and
  :math:`\nu \leftarrow \nu + \tfrac{\gamma\alpha}{\rho}(Gu - s)`. It omits the values of
  :math:`\gamma` and :math:`\alpha`: neither is an input of the algorithm or defined for it
  (elsewhere in the paper :math:`\gamma` is the offset of the Bradley-Terry model). Since
  :math:`\lambda` and :math:`\nu` are scaled by :math:`1/\rho` already, as the u-update shows, the
  step of ADMM is 1, which means :math:`\gamma\alpha = \rho`. That is the default here.
  ``Cronos(dual_step=...)`` takes the printed step for a given product :math:`\gamma\alpha`;
  convergence is proved for :math:`0 < \gamma\alpha/\rho < (1 + \sqrt5)/2` without over-relaxation
  (Glowinski, 1984).
- Its update of ``v`` and ``s`` omits the term :math:`\tfrac\rho2\|Gu - s + \nu\|^2`, without which
  every :math:`s \ge 0` is a minimiser. The term is always kept here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from cvxnn.convex.compiled_calls import Compiled
from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Measurement, Result, Solver, Start
from cvxnn.convex.solvers.cronos.cronos_flops import cheaper_solver, solve_flops
from cvxnn.convex.solvers.cronos.cronos_state import CronosState
from cvxnn.convex.solvers.cronos.u_system import Factors, USystem
from cvxnn.numerics.arrays import register_pytree

LinearSolver = Literal["auto", "dual", "mean_field", "block", "block_nystrom", "nystrom"]


@register_pytree
@dataclass(frozen=True)
class Cronos(Solver[ConvexProgram, CronosState]):
    r"""ADMM for the ReLU program, any loss, any penalty.

    Parameters
    ----------
    tol : float, default=1e-3
        Relative duality gap to reach; see ``certify``.
    max_iter : int, default=2000
        Most ADMM iterations.
    rho : float, default=0.01
        First penalty parameter of both constraints. The loss is a mean here: a value meant for
        the sum of squares, such as the paper's, has to be divided by the number of rows.
    balance : bool, default=True
        Adapt the two penalty parameters by residual balancing after 10, 20, 40, ... iterations;
        with ``False`` the method is the paper's, at fixed ``rho``.
    relaxation : float, default=1.6
        Over-relaxation in (0, 2); 1 is the paper's method.
    dual_step : float, optional
        The product :math:`\gamma\alpha` of the dual step that Algorithm 2 prints: the residuals are
        multiplied by ``dual_step / rho`` before they are added to the scaled multipliers. In units
        of ``rho``, and below ``1.618 rho`` for convergence. It needs ``balance=False``, because a
        new ``rho`` would change the step. None, the default, is the step 1 of ADMM.
    scale_rows : bool, default=True
        Bring the rows of ``G`` to equal norm, such that the eigenvalues of each block of ``G^T G``
        are 1 on average; a cone does not change when its rows are scaled.
    linear_solver : str, default="auto"
        How ``u`` is found. ``"dual"``: exactly, by one n x n inverse. ``"mean_field"``,
        ``"block"``, ``"block_nystrom"``: PCG on the differences v - w with a structured
        preconditioner. ``"nystrom"``: PCG on the whole system with the randomised Nystrom
        preconditioner, as published. ``"auto"``: ``"dual"`` or ``"mean_field"``, whichever
        needs fewer flops. In float32, ``"dual"`` preconditions PCG.
    rank : int, default=20
        Rank of the Nystrom sketches.
    cg_tol : float, default=0.01
        Relative residual of the first PCG solve; it falls like ``k**-1.1``, and with the largest
        residual of ADMM where that is smaller, down to ``cg_floor``.
    cg_floor : float, default=0
        Smallest relative residual that is asked of PCG; never below ten units of rounding.
    cg_max_iter : int, default=200
        Most PCG iterations within one ADMM iteration.
    certify : {"network", "program"}, default="network"
        The gap that ``tol`` limits. ``"network"``: the best network found so far is within ``tol``
        of (or below) the optimum over the given patterns. ``"program"``: the iterate itself solves
        the convex program, cone constraints included, and is what is returned.
    check_every : int, default=10
        Iterations between two certificates; each costs about as much as an iteration.
    seed : int, default=0
        Seed of the Nystrom sketch.

    Notes
    -----
    The gated formulation is refused: ``ProximalGradient`` and ``InteriorPoint`` take it.

    Beyond the data it needs memory for seven arrays of ``2 n P n_outputs`` floats and eight of the
    size of the weights; with ``"dual"`` also three of ``n x n``.
    """

    tol: float = 1e-3
    max_iter: int = 2000
    rho: float = 0.01
    balance: bool = field(default=True, metadata={"static": True})
    relaxation: float = 1.6
    dual_step: float | None = None
    scale_rows: bool = field(default=True, metadata={"static": True})
    linear_solver: LinearSolver = field(default="auto", metadata={"static": True})
    rank: int = field(default=20, metadata={"static": True})
    cg_tol: float = 0.01
    cg_floor: float = 0.0
    cg_max_iter: int = 200
    certify: Literal["network", "program"] = field(default="network", metadata={"static": True})
    check_every: int = 10
    seed: int = 0

    def across_devices(self) -> Cronos:
        """Choose conjugate gradient: the inverse of ``"dual"`` would need all rows in one place."""
        if self.linear_solver == "dual":
            raise ValueError(
                "linear_solver='dual' inverts a matrix of all rows, which a mesh divides; leave "
                "linear_solver='auto', or solve without mesh."
            )
        return replace(self, linear_solver="mean_field") if self.linear_solver == "auto" else self

    def accept(self, program: Any) -> Cronos:
        """Resolve ``linear_solver="auto"`` and refuse what the method cannot solve."""
        if not isinstance(program, ConvexProgram):
            raise TypeError(
                f"Cronos solves a ConvexProgram, not a {type(program).__name__}; "
                "for a smooth objective use AcceleratedGradient."
            )
        if program.formulation != "relu":
            raise TypeError(
                "Cronos solves the ReLU formulation; for the gated one use ProximalGradient or "
                "InteriorPoint."
            )
        choices = get_args(LinearSolver)
        if self.linear_solver not in choices:
            raise ValueError(f"linear_solver={self.linear_solver!r}; expected one of {choices}.")
        if self.certify not in ("network", "program"):
            raise ValueError(f"certify={self.certify!r}; expected 'network' or 'program'.")
        if not self.rho > 0:
            raise ValueError(f"rho={self.rho!r}; expected a number above 0.")
        if not 0 < self.relaxation < 2:
            raise ValueError(f"relaxation={self.relaxation!r}; expected a number between 0 and 2.")
        if self.dual_step is not None and not self.dual_step > 0:
            raise ValueError(f"dual_step={self.dual_step!r}; expected None or a number above 0.")
        if self.dual_step is not None and self.balance:
            raise ValueError(
                f"dual_step={self.dual_step!r} is for a fixed rho; set balance=False with it."
            )
        if not self.rank >= 1:
            raise ValueError(f"rank={self.rank!r}; expected at least 1.")
        if self.linear_solver != "auto":
            return self
        return replace(self, linear_solver=cheaper_solver(program))

    # What the loop calls ------------------------------------------------------------------

    def init(self, program: ConvexProgram, start: Start | None) -> CronosState:
        """Start at given weights, or at zero, with the duals that fit them."""
        # What does not depend on data is not computed from them: each product takes compilation.
        op, dtype, loss = program.operator, program.operator.X.dtype, program.loss
        rows = _row_scale(op.X) if self.scale_rows else jnp.ones(len(op.X), dtype)
        rho = jnp.full(2, self.rho, dtype)
        shape = (len(op.X), program.y.shape[1], 2, op.n_patterns)
        bound = jnp.asarray(-jnp.inf, dtype)
        dual = DualPoint(jnp.zeros_like(program.y), jnp.zeros(shape, dtype))
        cone_term: Array | float = 0.0
        if start is None:
            v, s = jnp.zeros(program.stacked_shape, dtype), jnp.zeros(shape, dtype)
            prediction = 0 * program.y
            objective = (program.share * loss.value(prediction, program.y)).sum()
            residual = -loss.gradient(prediction, program.y)
        else:
            v = jnp.asarray(start.weights)
            scores = op.scores(v)
            s = op.project_cones(op.orient(scores) * rows[:, None, None, None])
            gated = op.gate(scores).sum(axis=-1)
            prediction = gated[..., 0] - gated[..., 1]
            evaluation = program.evaluate(v)
            objective, residual = evaluation.network_objective, evaluation.residual
        if start is not None and start.rho is not None:
            rho = jnp.asarray(start.rho)
        if start is not None and start.dual is not None:
            residual, multipliers = (jnp.asarray(part) for part in start.dual)
            if multipliers is None:
                multipliers = jnp.zeros(shape, dtype)
            dual = DualPoint(residual, jnp.maximum(multipliers, 0))
            cone_term = op.constraints_adjoint(dual.multipliers)
            bound = program.dual_bound(residual, cone_term)
        # Stationarity of the u-update at u = v, s = SGv.
        slope = program.slope(residual) + cone_term
        dual_u = program.regularizer.within_dual_ball(slope) / rho[0]
        safe = jnp.where(rows > 0, rows, 1)[:, None, None, None]
        return CronosState(
            v=v,
            s=s,
            dual_u=dual_u,
            dual_s=-dual.multipliers / (rho[1] * safe),
            prediction=prediction,
            u=v,
            rho=rho,
            factors=None,
            rows=rows,
            n_steps=jnp.zeros((), jnp.int32),
            cg_iterations=jnp.zeros((), jnp.int32),
            residuals=jnp.ones(4, dtype),
            in_range=jnp.isfinite(jnp.sum(program.slope(program.y) ** 2)),
            best=v,
            best_objective=objective,
            bound=bound,
            dual=dual,
        )

    def refresh(self, program: ConvexProgram, state: CronosState) -> CronosState:
        """Factor the u-system for the present penalty parameters."""
        return state._replace(factors=_factor(program, self, state.rows, state.rho))

    def step(self, program: ConvexProgram, state: CronosState) -> CronosState:
        """Run one ADMM iteration (Algorithm 2)."""
        op, loss = program.operator, program.loss
        rho1, rho2 = state.rho
        rows = state.rows[:, None, None, None]
        # The loss is replaced by the quadratic above it that touches it at the last u: the
        # squared loss is its own.
        target = program.y
        if type(loss) is not SquaredLoss:
            target = state.prediction - loss.gradient(state.prediction, target) / loss.curvature
        system = _system(program, state.rows)
        # Both adjoints, F^T H target and G^T S(s - nu), in one product with the data.
        fit = jnp.broadcast_to(
            (system.curvature * target)[:, :, None], (*target.shape, op.n_patterns)
        )
        fit = op.gate(fit)
        cone = op.orient(rho2 * rows * (state.s - state.dual_s))
        back = op.back(cone + jnp.stack([fit, -fit], axis=2))
        rhs = rho1 * (state.v - state.dual_u) + back
        decay = jnp.minimum(1 / (1.0 + state.n_steps) ** 1.1, state.residuals.max())
        floor = jnp.maximum(self.cg_floor, 10 * jnp.finfo(rhs.dtype).eps)
        tol = jnp.maximum(self.cg_tol * decay, floor)
        assert state.factors is not None, "refresh has to run before step"
        u, cg = system.solve(state.factors, state.rho, rhs, state.u, tol, self.cg_max_iter)
        scores = op.scores(u)
        gated = op.gate(scores).sum(axis=-1)
        Gu = op.orient(scores) * rows
        u_relaxed = self.relaxation * u + (1 - self.relaxation) * state.v
        Gu_relaxed = self.relaxation * Gu + (1 - self.relaxation) * state.s
        v = program.regularizer.prox(u_relaxed + state.dual_u, 1 / rho1)
        # Patterns closed on every row do nothing; without a penalty only this keeps them at zero.
        v = jnp.where(op.mask.any(axis=0)[:, None], v, 0)
        s = op.project_cones(Gu_relaxed + state.dual_s)
        if self.dual_step is None:
            dual_u, dual_s = state.dual_u + u_relaxed - v, state.dual_s + Gu_relaxed - s
        else:
            dual_u = state.dual_u + self.dual_step / rho1 * (u_relaxed - v)
            dual_s = state.dual_s + self.dual_step / rho2 * (Gu_relaxed - s)
        norm = jnp.linalg.norm
        tiny = jnp.finfo(u.dtype).tiny
        # Residuals relative to what they are residuals of (Wohlberg, 2017).
        residuals = jnp.stack(
            [
                norm(u - v) / jnp.maximum(jnp.maximum(norm(u), norm(v)), tiny),
                norm(v - state.v) / jnp.maximum(norm(dual_u), tiny),
                norm(Gu - s) / jnp.maximum(jnp.maximum(norm(Gu), norm(s)), tiny),
                norm(s - state.s) / jnp.maximum(norm(dual_s), tiny),
            ]
        )
        return state._replace(
            u=u,
            v=v,
            s=s,
            dual_u=dual_u,
            dual_s=dual_s,
            prediction=gated[..., 0] - gated[..., 1],
            n_steps=state.n_steps + 1,
            cg_iterations=state.cg_iterations + cg,
            residuals=residuals,
        )

    def measure(
        self, program: ConvexProgram, state: CronosState
    ) -> tuple[CronosState, Measurement]:
        """Compute the certificate, keep the best network, balance the penalty parameters."""
        op = program.operator
        at_v = program.evaluate(state.v)
        # Closed patterns need no multipliers: their part of F^T r is zero.
        multipliers = jnp.maximum(-state.rho[1] * state.rows[:, None, None, None] * state.dual_s, 0)
        multipliers = jnp.where(op.mask.any(axis=0), multipliers, 0)
        # The residual at u meets the multipliers up to ADMM's dual residual; the one at v is
        # further off by the primal residual.
        dual = DualPoint(-program.loss.gradient(state.prediction, program.y), multipliers)
        bound = program.bound_of(dual)
        raised = bound > state.bound
        dual = jax.tree.map(lambda new, old: jnp.where(raised, new, old), dual, state.dual)
        bound = jnp.where(raised, bound, state.bound)
        # Of the program's certificate the last iterate is reported, with the gap that stops it.
        value = at_v.network_objective if self.certify == "network" else at_v.objective
        better = jnp.isfinite(value)
        if self.certify == "network":
            better = value < state.best_objective
        best_objective = jnp.where(better, value, state.best_objective)
        state = state._replace(
            best=jnp.where(better, state.v, state.best),
            best_objective=best_objective,
            bound=bound,
            dual=dual,
        )
        resolution = program.resolution
        if self.certify == "network":
            stopping = (best_objective - bound) / jnp.maximum(jnp.abs(best_objective), resolution)
        else:
            gap = jnp.abs(at_v.objective - bound) / jnp.maximum(jnp.abs(at_v.objective), resolution)
            stopping = jnp.maximum(gap, at_v.violation)
        # A NaN in the iterate must stop the loop even where the best network is finite; so must
        # squares beyond the range of the dtype, with which PCG would quietly do nothing.
        stopping = jnp.where(jnp.isfinite(at_v.objective) & state.in_range, stopping, jnp.nan)
        details = {
            "network_objective": at_v.network_objective,
            "program_objective": at_v.objective,
            "violation": at_v.violation,
            "residual_weights": state.residuals[0],
            "residual_cones": state.residuals[2],
            "rho_weights": state.rho[0],
            "rho_cones": state.rho[1],
            "cg_iterations": state.cg_iterations,
        }
        checks = state.n_steps // self.check_every
        state, changed = state.rebalanced(checks, balance=self.balance)
        return state, Measurement(best_objective, bound, stopping, changed, details)

    def weights(self, state: CronosState) -> Array:
        """Return the weights of the best network seen, or of the last iterate; see ``certify``."""
        return state.best

    def dual_point(self, state: CronosState) -> DualPoint:
        """Return the residual and multipliers of the best bound."""
        return state.dual

    def flops(self, program: ConvexProgram, result: Result) -> float:
        """Return the flops of a solve, counting dense products and factorisations."""
        return solve_flops(program, result, self.accept(program).linear_solver, self.rank)


def _system(program: ConvexProgram, rows: Array) -> USystem:
    curvature = jnp.asarray(program.loss.curvature * program.share, program.operator.X.dtype)
    return USystem(program.operator, curvature, rows)


@Compiled
def _factor(program: ConvexProgram, solver: Cronos, rows: Array, rho: Array) -> Factors:
    return _system(program, rows).factor(solver.linear_solver, rho, solver.rank, solver.seed)


def _row_scale(X: Array) -> Array:
    """Return factors that bring rows to equal norm, and the mean eigenvalue of the Gram to one."""
    norms = jnp.linalg.norm(X, axis=1)
    # The trace of the Gram matrix is the number of non-zero rows. With it divided among the
    # directions, rho2 weighs on each of them as rho1 does, whatever their number.
    n_rows = jnp.maximum((norms > 0).sum(), 1)
    size = jnp.sqrt(n_rows / jnp.minimum(n_rows, X.shape[1]))
    return jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0) / size
