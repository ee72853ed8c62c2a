r"""CRONOS: ADMM with preconditioned conjugate gradient.

Algorithm 2 of the COALA paper (Feng et al., 2024), with what makes it fast.

The program is split as :math:`u = v`, :math:`S G u = s` with a free positive row scaling ``S``:

.. math::

    u &\leftarrow \arg\min \tfrac1{2n}\|Fu - y\|^2 + \tfrac{\rho_1}2\|u - v + \lambda\|^2
        + \tfrac{\rho_2}2\|SGu - s + \nu\|^2 \\
    v &\leftarrow \operatorname{prox}_{\alpha/\rho_1}(u + \lambda), \qquad
    s \leftarrow (SGu + \nu)_+ \\
    \lambda &\leftarrow \lambda + u - v, \qquad \nu \leftarrow \nu + SGu - s .

The u-update is exact through an ``n x n`` Cholesky, or a PCG whose tolerance falls like
:math:`k^{-1.1}`, summable as Theorem 1 asks. The two penalties are balanced apart from each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from cvxnn.losses import SquaredLoss
from cvxnn.operators import GatedOperator
from cvxnn.problem import ConvexProgram
from cvxnn.solvers._linear import (
    Block,
    BlockNystrom,
    Dual,
    MeanField,
    Nystrom,
    dual,
    inverse_spd,
    nystrom,
    pcg,
)
from cvxnn.solvers._loop import Measurement, Result

LinearSolver = Literal["auto", "dual", "mean_field", "block", "block_nystrom", "nystrom"]


class Factors(NamedTuple):
    """What the u-update needs and only a new penalty parameter changes."""

    inverse: Array
    q_solver: Dual | MeanField | Block | BlockNystrom | Nystrom


class CronosState(NamedTuple):
    """One ADMM iterate; duals are scaled by their penalty parameters."""

    u: Array
    v: Array
    s: Array
    dual_u: Array
    dual_s: Array
    rho: Array
    factors: Factors | None
    scaled: Array
    adjoint_y: Array
    n_steps: Array
    cg_iterations: Array
    residuals: Array
    best: Array
    best_objective: Array
    bound: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cronos:
    """ADMM for the ReLU program with squared loss.

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
    scale_rows : bool, default=True
        Bring the rows of ``G`` to equal norm; a cone does not change when its rows are scaled.
    linear_solver : str, default="auto"
        How ``u`` is found. ``"dual"``: exactly, by one n x n inverse. ``"mean_field"``,
        ``"block"``, ``"block_nystrom"``: PCG on the differences v - w with a structured
        preconditioner. ``"nystrom"``: PCG on the whole system with the randomised Nystrom
        preconditioner, as published. ``"auto"``: ``"dual"`` up to 1,000 rows, else
        ``"mean_field"``. In float32, ``"dual"`` preconditions PCG.
    rank : int, default=20
        Rank of the Nystrom sketches.
    cg_tol : float, default=0.1
        Relative residual of the first PCG solve; it falls like ``k**-1.1``, and with the largest
        residual of ADMM where that is smaller, down to ``cg_floor``.
    cg_floor : float, default=0
        Smallest relative residual that is asked of PCG; never below ten units of rounding.
    cg_max_iter : int, default=200
        Most PCG iterations within one ADMM iteration.
    certify : {"network", "program"}, default="network"
        What ``tol`` is the gap of. ``"network"``: the best network found so far is within ``tol``
        of (or below) the optimum over the given patterns. ``"program"``: the iterate itself solves
        the convex program, cone constraints included, and is what is returned.
    check_every : int, default=10
        Iterations between two certificates; each costs about as much as an iteration.
    seed : int, default=0
        Seed of the Nystrom sketch.

    Notes
    -----
    =========  ==========  =============
    form       loss        accepted
    =========  ==========  =============
    ReLU       squared     yes
    ReLU       other       no
    =========  ==========  =============

    Memory beyond the data: six arrays of ``2 n P n_outputs`` floats and eight of the size of the
    weights; with ``"dual"`` also three of ``n x n``.
    """

    tol: float = 1e-3
    max_iter: int = 2000
    rho: float = 0.01
    balance: bool = field(default=True, metadata={"static": True})
    relaxation: float = 1.6
    scale_rows: bool = field(default=True, metadata={"static": True})
    linear_solver: LinearSolver = field(default="auto", metadata={"static": True})
    rank: int = field(default=20, metadata={"static": True})
    cg_tol: float = 0.1
    cg_floor: float = 0.0
    cg_max_iter: int = 200
    certify: Literal["network", "program"] = field(default="network", metadata={"static": True})
    check_every: int = 10
    seed: int = 0

    def accept(self, problem: Any) -> Cronos:
        """Resolve ``linear_solver="auto"`` and refuse what the method cannot solve."""
        if not isinstance(problem, ConvexProgram):
            raise TypeError(
                f"Cronos solves a ConvexProgram, not a {type(problem).__name__}; "
                "for a smooth objective use AcceleratedGradient."
            )
        if not isinstance(problem.loss, SquaredLoss):
            raise TypeError(
                f"Cronos needs SquaredLoss, got {type(problem.loss).__name__}; "
                "reference.solve (CVXPY) takes any loss."
            )
        choices = get_args(LinearSolver)
        if self.linear_solver not in choices:
            raise ValueError(f"linear_solver={self.linear_solver!r}; expected one of {choices}.")
        if self.linear_solver != "auto":
            return self
        # One n x n product a step against a handful of PCG iterations: about equal here.
        n = problem.operator.X.shape[0]
        return replace(self, linear_solver="dual" if n <= 1000 else "mean_field")

    # What the loop calls ------------------------------------------------------------------

    def init(self, problem: ConvexProgram, start: Array | None) -> CronosState:
        """Start at given weights, or at zero, with the duals that fit them."""
        op, dtype = problem.operator, problem.operator.X.dtype
        n = problem.y.shape[0]
        scaled = _scaled_rows(op.X) if self.scale_rows else op.X
        adjoint_y = op.adjoint(problem.y) / n
        v = problem.zeros() if start is None else start
        rho = jnp.full(2, self.rho, dtype)
        evaluation = problem.evaluate(v)
        # Stationarity of the u-update at u = v, s = SGv, nu = 0.
        dual_u = op.adjoint(evaluation.residual) / n / rho[0]
        dual_u = dual_u * jnp.minimum(
            1,
            problem.alpha
            / rho[0]
            / jnp.maximum(jnp.linalg.norm(dual_u, axis=-1, keepdims=True), jnp.finfo(dtype).tiny),
        )
        s = jax.nn.relu(op.orient(op.scores(v, scaled)))
        return CronosState(
            u=v,
            v=v,
            s=s,
            dual_u=dual_u,
            dual_s=jnp.zeros_like(s),
            rho=rho,
            factors=None,
            scaled=scaled,
            adjoint_y=adjoint_y,
            n_steps=jnp.zeros((), jnp.int32),
            cg_iterations=jnp.zeros((), jnp.int32),
            residuals=jnp.ones(4, dtype),
            best=v,
            best_objective=evaluation.network_objective,
            bound=problem.dual_bound(jnp.zeros_like(problem.y)),
        )

    def refresh(self, problem: ConvexProgram, state: CronosState) -> CronosState:
        """Factor the u-system for the present penalty parameters."""
        factors = _factors(problem, self, state.scaled, state.rho)
        return state._replace(factors=factors)

    def step(self, problem: ConvexProgram, state: CronosState) -> CronosState:
        """One ADMM iteration (Algorithm 2)."""
        op = problem.operator
        rho1, rho2 = state.rho
        rhs = (
            state.adjoint_y
            + rho1 * (state.v - state.dual_u)
            + rho2 * op.back(op.orient(state.s - state.dual_s), state.scaled)
        )
        decay = jnp.minimum(1 / (1.0 + state.n_steps) ** 1.1, state.residuals.max())
        floor = jnp.maximum(self.cg_floor, 10 * jnp.finfo(rhs.dtype).eps)
        tol = jnp.maximum(self.cg_tol * decay, floor)
        u, cg = self._update(problem, state, rhs, tol)
        Gu = op.orient(op.scores(u, state.scaled))
        u_relaxed = self.relaxation * u + (1 - self.relaxation) * state.v
        Gu_relaxed = self.relaxation * Gu + (1 - self.relaxation) * state.s
        v = problem.penalty.prox(u_relaxed + state.dual_u, problem.alpha / rho1)
        # Patterns closed on every row do nothing; without a penalty nothing else says so.
        v = jnp.where(op.mask.any(axis=0)[:, None], v, 0)
        s = jax.nn.relu(Gu_relaxed + state.dual_s)
        dual_u, dual_s = state.dual_u + u_relaxed - v, state.dual_s + Gu_relaxed - s
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
            n_steps=state.n_steps + 1,
            cg_iterations=state.cg_iterations + cg,
            residuals=residuals,
        )

    def measure(
        self, problem: ConvexProgram, state: CronosState
    ) -> tuple[CronosState, Measurement]:
        """Certificate, best network so far, balancing of the penalty parameters."""
        op = problem.operator
        at_v = problem.evaluate(state.v)
        # Closed patterns need no multipliers: their part of F^T r is zero.
        multipliers = jnp.maximum(-state.rho[1] * state.dual_s, 0)
        multipliers = jnp.where(op.mask.any(axis=0), multipliers, 0)
        cone_term = op.back(op.orient(multipliers), state.scaled)
        # The residual at u meets the multipliers up to ADMM's dual residual; the one at v is
        # further off by the primal residual.
        residual = -problem.loss.gradient(op.forward(state.u), problem.y)
        bound = jnp.fmax(state.bound, problem.dual_bound(residual, cone_term))
        if self.certify == "network":
            better = at_v.network_objective < state.best_objective
        else:
            better = jnp.isfinite(at_v.network_objective)
        best_objective = jnp.where(better, at_v.network_objective, state.best_objective)
        state = state._replace(
            best=jnp.where(better, state.v, state.best),
            best_objective=best_objective,
            bound=bound,
        )
        tiny = jnp.finfo(bound.dtype).tiny
        if self.certify == "network":
            stopping = (best_objective - bound) / jnp.maximum(jnp.abs(best_objective), tiny)
        else:
            gap = jnp.abs(at_v.objective - bound) / jnp.maximum(jnp.abs(at_v.objective), tiny)
            stopping = jnp.maximum(gap, at_v.violation)
        # A NaN in the iterate must stop the loop even where the best network is finite; so must
        # squares beyond the range of the dtype, with which PCG would quietly do nothing.
        finite = jnp.isfinite(at_v.objective) & jnp.isfinite(jnp.sum(state.adjoint_y**2))
        stopping = jnp.where(finite, stopping, jnp.nan)
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
        state, changed = self._rebalance(state)
        return state, Measurement(best_objective, bound, stopping, changed, details)

    def weights(self, state: CronosState) -> Array:
        """Weights of the best network seen, or of the last iterate; see ``certify``."""
        return state.best

    def flops(self, problem: ConvexProgram, result: Result) -> float:
        """Floating-point operations of a solve, counting dense products and factorisations."""
        n, d = problem.operator.X.shape
        P, C = problem.operator.n_patterns, problem.y.shape[1]
        product, small = 2.0 * n * d * P * C, 2.0 * d * d * P * C
        steps, checks = result.n_iter, len(result.history["iteration"])
        factorings = 1 + np.count_nonzero(np.diff(result.history["rho_weights"]))
        cg = result.history["cg_iterations"][-1]
        kind = self.accept(problem).linear_solver
        update = 2 * product + 3 * small if kind != "nystrom" else 6 * product
        if kind == "dual":
            update += 2.0 * n * n * C
        per_cg = 2 * product + 2 * small if kind != "nystrom" else 6 * product
        if kind == "dual":
            per_cg += 2 * product + 2.0 * n * n * C
        factor = 2.0 * n * d * d + 2.5 * d**3
        if kind == "dual":
            factor += 2.0 * n * n * (d + P) + 2.5 * n**3
        if kind in ("nystrom", "block_nystrom"):
            factor += (6 if kind == "nystrom" else 2) * product * self.rank / C
        return (
            steps * (4 * product + update)
            + cg * per_cg
            + checks * 6 * product
            + (factorings * factor)
        )

    # Parts --------------------------------------------------------------------------------

    def _update(
        self, problem: ConvexProgram, state: CronosState, rhs: Array, tol: Array
    ) -> tuple[Array, Array]:
        """Solve the u-system; also the number of PCG iterations."""
        op, n = problem.operator, problem.y.shape[0]
        assert state.factors is not None, "refresh has to run before step"
        inverse, q_solver = state.factors
        if isinstance(q_solver, Nystrom):
            full = _full_system(op, state.scaled, state.rho, n)
            return pcg(full, q_solver.apply, rhs, state.u, tol, self.cg_max_iter)
        p = (rhs[:, 0] + rhs[:, 1]) @ inverse
        b = rhs[:, 0] - rhs[:, 1]
        gram = _regularised_gram(state.scaled, state.rho)

        def matvec(Q: Array) -> Array:
            return Q @ gram + (2 / n) * op.adjoint_difference(op.forward_difference(Q))

        previous = state.u[:, 0] - state.u[:, 1]
        if not isinstance(q_solver, Dual):
            q, cg = pcg(matvec, q_solver.apply, b, previous, tol, self.cg_max_iter)
        elif b.dtype == jnp.float64:
            q, cg = q_solver.solve(op, b), jnp.zeros((), jnp.int32)
        else:
            # Woodbury subtracts two large numbers where rho1 is small: in single precision it
            # is a preconditioner, whose few iterations mend what cancels.
            solve_dual = partial(q_solver.solve, op)
            q, cg = pcg(matvec, solve_dual, b, previous, tol, self.cg_max_iter)
        return jnp.stack([p + q, p - q], axis=1) / 2, cg

    def _rebalance(self, state: CronosState) -> tuple[CronosState, Array]:
        """New penalty parameters after 1, 2, 4, ... measurements; whether they changed."""
        k = state.n_steps // self.check_every
        primal, dual = state.residuals[0::2], state.residuals[1::2]
        factor = jnp.sqrt(primal / jnp.maximum(dual, jnp.finfo(primal.dtype).tiny))
        factor = jnp.clip(factor, 0.2, 5.0)
        due = self.balance & ((k & (k - 1)) == 0) & jnp.all(jnp.isfinite(factor))
        large = (factor > 1.5) | (factor < 1 / 1.5)
        factor = jnp.where(due & large, factor, 1.0)
        state = state._replace(
            rho=state.rho * factor,
            dual_u=state.dual_u / factor[0],
            dual_s=state.dual_s / factor[1],
        )
        return state, jnp.any(factor != 1.0)


@jax.jit
def _factors(problem: ConvexProgram, solver: Cronos, scaled: Array, rho: Array) -> Factors:
    op = problem.operator
    n, P, X = problem.y.shape[0], problem.operator.n_patterns, problem.operator.X
    gram = _regularised_gram(scaled, rho)
    inverse = inverse_spd(gram)
    if solver.linear_solver == "dual":
        return Factors(inverse, dual(op, inverse))
    if solver.linear_solver == "block":
        return Factors(inverse, Block(inverse))
    if solver.linear_solver == "mean_field":
        covariance = X.T @ X / n
        return Factors(
            inverse,
            MeanField(
                inverse_spd(gram + covariance / 2),
                inverse_spd(gram + (1 + P) / 2 * covariance),
            ),
        )
    key = jax.random.key(solver.seed)
    if solver.linear_solver == "block_nystrom":
        eye = jnp.eye(len(gram), dtype=X.dtype)
        root = solve_triangular(jnp.linalg.cholesky(gram), eye, lower=True)

        def remainder(Q: Array) -> Array:
            F0TF0 = op.adjoint_difference(op.forward_difference(Q @ root))
            return (2 / n) * F0TF0 @ root.T

        shape = problem.weights_shape[2:]
        sketch = nystrom(remainder, shape, solver.rank, 1.0, key, X.dtype)
        return Factors(inverse, BlockNystrom(root, sketch))
    full = _full_system(op, scaled, rho, n)
    sketch = nystrom(
        lambda U: full(U) - rho[0] * U,
        problem.weights_shape[1:],
        solver.rank,
        rho[0],
        key,
        X.dtype,
    )
    return Factors(inverse, sketch)


def _scaled_rows(X: Array) -> Array:
    """Rows at equal norm, the whole at spectral norm about one; zero rows stay zero."""
    norms = jnp.linalg.norm(X, axis=1, keepdims=True)
    unit = X / jnp.where(norms > 0, norms, 1)
    gram = unit.T @ unit
    # The trace bounds the largest eigenvalue; the balancing of rho2 makes up for the rest.
    size = jnp.trace(gram)
    return unit / jnp.sqrt(jnp.where(size > 0, size, 1))


def _regularised_gram(scaled: Array, rho: Array) -> Array:
    """``M = rho1 I + rho2 Xs^T Xs``."""
    return rho[0] * jnp.eye(scaled.shape[1], dtype=scaled.dtype) + rho[1] * (scaled.T @ scaled)


def _full_system(op: GatedOperator, scaled: Array, rho: Array, n: int) -> Any:
    """Map ``U`` to ``(F^T F / n + rho1 I + rho2 G^T G) U``, with two products each way."""

    def matvec(U: Array) -> Array:
        cone = op.back(op.scores(U, scaled), scaled)
        return op.adjoint(op.forward(U)) / n + rho[0] * U + rho[1] * cone

    return matvec
