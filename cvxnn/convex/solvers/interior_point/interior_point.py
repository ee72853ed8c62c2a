r"""Primal-dual interior-point method, which takes few iterations to high accuracy.

Outputs are separate programs, unless the loss couples them.
``cvxnn.convex.solvers.interior_point.central_path`` takes the steps of each, and
``cvxnn.convex.solvers.interior_point.newton_system`` has the linear algebra.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.losses import MultinomialLoss
from cvxnn.convex.penalties import NeuronGroupLasso, SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Measurement, Result, Solver, Start
from cvxnn.convex.solvers.interior_point import newton_system
from cvxnn.convex.solvers.interior_point.central_path import Iterate, Outputs, advance
from cvxnn.convex.solvers.interior_point.newton_system import Data, Floats
from cvxnn.convex.solvers.interior_point.starting_points import begin, begin_near
from cvxnn.numerics.arrays import register_pytree
from cvxnn.numerics.threads import limit_threads

# Measurements without progress in anything after which the method stops.
_PATIENCE = 8


class InteriorPointState(NamedTuple):
    """Iterates of all outputs, and the best that was measured."""

    rows: NDArray[np.intp]
    patterns: NDArray[np.intp]
    outputs: tuple[Outputs, ...]
    iterates: tuple[Iterate, ...]
    best: Floats
    best_objective: float
    bound: float
    dual: DualPoint
    rounding: float
    lowest: Floats
    n_stalled: int


@register_pytree
@dataclass(frozen=True)
class InteriorPoint(Solver[ConvexProgram, InteriorPointState]):
    """Interior-point method for programs of small and medium size.

    Parameters
    ----------
    tol : float, default=1e-6
        Relative duality gap to reach; see ``certify``.
    max_iter : int, default=100
        Most iterations; ten to forty are usual.
    check_every : int, default=1
        Iterations between two certificates, each much cheaper than an iteration.
    max_dense : int, default=6000
        Side of the largest matrix that is factored: the smaller of the number of rows and that of
        the weights of one sign, fewer where neurons are inactive. Two such matrices of float64
        take 576 MB. Beyond it, conjugate gradient makes up for what is left out of the matrix,
        slowly where that is much.
    certify : {"network", "program"}, default="network"
        The gap that ``tol`` limits. ``"network"``: the best network found so far is within ``tol``
        of (or below) the optimum over the given patterns. ``"program"``: the iterate itself solves
        the convex program, cone constraints included, and is what is returned.

    Notes
    -----
    It takes both formulations, the losses of this package and others that treat each output
    separately, and the penalties ``NeuronGroupLasso`` and ``SquaredL2``.

    All is NumPy in float64, whatever the data, but for a part of the preconditioner that may be in
    float32; nothing is compiled. Memory: about ten arrays of ``2 n P n_outputs`` floats, two of
    ``n d P``, six of ``2 P d**2``, and the dense matrix.

    It starts near given weights if they show the inside of each cone, as those of a local network
    over its own patterns do. Others, such as the solution of a similar program, which lies on the
    boundary, or a network whose neurons have left their patterns, serve as the best point so far
    only.

    With the logistic loss and a tiny ``alpha``, on data that can be separated or with features of
    very different scales, the method may stall before it reaches ``tol``; the bound is valid then.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.convex import ConvexProgram, GatedOperator, InteriorPoint, solve
    >>> X = np.array([[1.0, 1.0], [-1.0, 1.0], [2.0, 1.0]])
    >>> mask = np.array([[True, False], [False, True], [True, False]])
    >>> program = ConvexProgram(GatedOperator(X, mask), np.array([[1.0], [0.5], [2.0]]), 1e-3)
    >>> bool(solve(program, InteriorPoint()).gap <= 1e-6)
    True
    """

    on_host: ClassVar[bool] = True

    tol: float = 1e-6
    max_iter: int = 100
    check_every: int = 1
    max_dense: int = field(default=6000, metadata={"static": True})
    certify: Literal["network", "program"] = field(default="network", metadata={"static": True})

    def accept(self, program: Any) -> InteriorPoint:
        """Refuse what the method cannot solve."""
        if not isinstance(program, ConvexProgram):
            raise TypeError(
                f"InteriorPoint solves a ConvexProgram, not a {type(program).__name__}; "
                "for a smooth objective use AcceleratedGradient."
            )
        # Only the gated formulation has cones that the first-order method can do without.
        other = "ProximalGradient" if program.formulation == "gated" else "Cronos"
        if program.loss.coupled and type(program.loss) is not MultinomialLoss:
            raise TypeError(
                "InteriorPoint takes no loss that couples outputs but MultinomialLoss, got "
                f"{type(program.loss).__name__}; use {other}."
            )
        if type(program.penalty) not in (NeuronGroupLasso, SquaredL2):
            raise TypeError(
                "InteriorPoint takes NeuronGroupLasso and SquaredL2, got "
                f"{type(program.penalty).__name__}; use {other}."
            )
        if not np.all(np.asarray(program.alpha) > 0):
            raise ValueError(
                f"alpha={np.asarray(program.alpha).tolist()!r}; InteriorPoint needs a positive "
                "one, which may be tiny: without a penalty the minimiser is not unique. Or use "
                f"{other}."
            )
        if self.max_dense < 1:
            raise ValueError(f"max_dense={self.max_dense!r}; expected at least 1.")
        if self.certify not in ("network", "program"):
            raise ValueError(f"certify={self.certify!r}; expected 'network' or 'program'.")
        return self

    # What the loop calls ------------------------------------------------------------------

    def init(self, program: ConvexProgram, start: Start | None) -> InteriorPointState:
        """Start in the middle of the cones, or between them and given weights inside."""
        rows, patterns, outputs = _outputs(program)
        best = np.zeros(program.stacked_shape) if start is None else np.asarray(start.weights)
        at = program.evaluate(best)
        with np.errstate(all="ignore"):
            if start is None:
                iterates = tuple(begin(output) for output in outputs)
            else:
                near = np.split(best[:, :, patterns], len(outputs))
                iterates = tuple(begin_near(*pair) for pair in zip(outputs, near, strict=True))
        dual = _dual_point(program, rows, patterns, outputs, iterates)
        if dual.multipliers is not None:
            dual = dual._replace(multipliers=np.zeros_like(dual.multipliers))
        return InteriorPointState(
            rows=rows,
            patterns=patterns,
            outputs=outputs,
            iterates=iterates,
            best=best,
            best_objective=float(
                at.network_objective if self.certify == "network" else at.objective
            ),
            bound=float(program.bound_of(dual)),
            dual=dual,
            rounding=program.rounding(),
            lowest=np.full(4, np.inf),
            n_stalled=0,
        )

    def step(self, program: ConvexProgram, state: InteriorPointState) -> InteriorPointState:
        """Advance each output that is not at its optimum."""
        pairs = list(zip(state.outputs, state.iterates, strict=True))
        rests = [it.failed or it.is_done(output.degree, self.tol) for output, it in pairs]
        if all(rests):  # the loop continues for another reason
            rests = [it.failed for it in state.iterates]
        with np.errstate(all="ignore"):  # a point that is not finite is discarded
            iterates = tuple(
                it if rest else advance(output, it, self.max_dense)
                for (output, it), rest in zip(pairs, rests, strict=True)
            )
        return state._replace(iterates=iterates)

    def measure(
        self, program: ConvexProgram, state: InteriorPointState
    ) -> tuple[InteriorPointState, Measurement]:
        """Compute the certificate of the iterate, and keep the best network."""
        with limit_threads(state.outputs[0].data.flops):
            return self._measure(program, state)

    def _measure(
        self, program: ConvexProgram, state: InteriorPointState
    ) -> tuple[InteriorPointState, Measurement]:
        weights = np.zeros(program.stacked_shape)
        pairs = zip(state.outputs, state.iterates, strict=True)
        weights[:, :, state.patterns] = np.concatenate([_without_inactive(*pair) for pair in pairs])
        at = program.evaluate(weights)
        dual = _dual_point(program, state.rows, state.patterns, state.outputs, state.iterates)
        bound = float(program.bound_of(dual))
        if bound > state.bound:
            state = state._replace(bound=bound, dual=dual)
        if self.certify == "program":
            state = state._replace(best=weights, best_objective=float(at.objective))
        elif not at.network_objective >= state.best_objective:
            state = state._replace(best=weights, best_objective=float(at.network_objective))
        objective = state.best_objective
        gap = (objective - state.bound) / max(abs(objective), state.rounding)
        stopping = gap if self.certify == "network" else max(abs(gap), float(at.violation))
        details = {
            "mu": max(it.mu for it in state.iterates),
            "primal_residual": max(it.primal_residual for it in state.iterates),
            "dual_residual": max(it.dual_residual for it in state.iterates),
            "step_length": min(it.step_length for it in state.iterates),
            "cg_iterations": sum(it.cg_iterations for it in state.iterates),
            "rank": max(it.rank for it in state.iterates),
            "violation": at.violation,
            "program_objective": at.objective,
        }
        now = np.array([stopping, *(max(details[k], 1e-9) for k in list(details)[:3])])
        progress = bool((now < 0.9 * state.lowest).any())
        state = state._replace(
            lowest=np.fmin(now, state.lowest), n_stalled=0 if progress else state.n_stalled + 1
        )
        idle = all(it.failed for it in state.iterates)
        return state, Measurement(
            objective=np.float64(objective),
            dual_bound=np.float64(state.bound),
            stopping=np.float64(stopping if np.isfinite(objective) else np.nan),
            details=details,
            stalled=idle or state.n_stalled >= _PATIENCE,
        )

    def weights(self, state: InteriorPointState) -> Floats:
        """Return the weights of the best network seen, or of the last iterate; see ``certify``."""
        return state.best

    def dual_point(self, state: InteriorPointState) -> DualPoint:
        """Return the proof of the best bound seen."""
        return state.dual

    def flops(self, program: ConvexProgram, result: Result) -> float:
        """Return the flops of a solve, counting dense products and factorisations."""
        n, d = program.operator.X.shape
        P, S, C = program.operator.n_patterns, program.n_signs, program.y.shape[1]
        product = 2.0 * S * n * d * P
        ranks = np.minimum(result.history["rank"], P * d)
        factored = (
            sum(newton_system.newton_flops((n, d), P, S, rank) for rank in ranks) * self.check_every
        )
        # A PCG iteration: two products with the matrix, two in the preconditioner.
        solves = float(result.history["cg_iterations"][-1]) * (4 * product + 4.0 * n * ranks.mean())
        solves *= C if program.loss.coupled else 1
        return C * (factored + 16 * product * result.n_iter) + solves


def cost(program: ConvexProgram) -> float:
    """Return the floating-point operations of an early iteration, which keeps every column.

    Parameters
    ----------
    program : ConvexProgram
        Program to be solved.

    Returns
    -------
    float
        An estimate, without regard to ``max_dense``; later iterations cost a fraction.
    """
    n, d = program.operator.X.shape
    P, S, C = program.operator.n_patterns, program.n_signs, program.y.shape[1]
    products = 400.0 if program.loss.coupled else 40.0
    return C * (newton_system.newton_flops((n, d), P, S, P * d) + products * S * n * d * P)


def _outputs(
    program: ConvexProgram,
) -> tuple[NDArray[np.intp], NDArray[np.intp], tuple[Outputs, ...]]:
    """Return each output's program, without rows and patterns that do nothing."""
    X, mask = program.operator.X, program.operator.mask
    rows = np.flatnonzero(X.any(axis=1))
    patterns = np.flatnonzero(mask[rows].any(axis=0))
    data = Data(X[rows], mask[np.ix_(rows, patterns)], program.n_signs)
    has_norms = type(program.penalty) is NeuronGroupLasso
    n_penalised = len(patterns)
    n_outputs = program.y.shape[1]
    alphas = np.broadcast_to(program.alpha, n_outputs).astype(float)[:, None, None]
    ridges = np.zeros((n_outputs, 1, n_penalised)) + (0.0 if has_norms else alphas)
    if program.operator.linear and len(patterns):
        n_penalised -= 1
        ridges[..., -1] = program.linear_ridge
    share = np.broadcast_to(program.share, (len(X), 1))[rows, 0]
    alone = [slice(None)] if program.loss.coupled else [slice(c, c + 1) for c in range(n_outputs)]
    outputs = tuple(
        Outputs(
            data=data,
            y=np.ascontiguousarray(program.y[rows, own].T),
            share=share,
            alpha=alphas[own],
            ridge=ridges[own],
            n_cones=n_penalised if program.formulation == "relu" else 0,
            n_norms=n_penalised if has_norms else 0,
            loss=program.loss,
        )
        for own in alone
    )
    return rows, patterns, outputs


def _dual_point(
    program: ConvexProgram,
    rows: NDArray[np.intp],
    patterns: NDArray[np.intp],
    outputs: tuple[Outputs, ...],
    iterates: tuple[Iterate, ...],
) -> DualPoint:
    """Return the dual point of the whole program, from the iterates of all outputs."""
    # Rows of zeros have the prediction zero.
    residual = -program.loss.gradient(np.zeros_like(program.y), program.y)
    residual[rows] = -np.concatenate([it.g for it in iterates]).T
    if program.formulation != "relu":
        return DualPoint(residual, None)
    multipliers = np.zeros((*program.y.shape, 2, program.operator.n_patterns))
    for c, a in enumerate(_multipliers(outputs, iterates)):
        if a[0].T.shape == multipliers[:, c, 0].shape:  # much faster than what follows
            multipliers[:, c] = a.transpose(2, 0, 1)
            continue
        # The integer indices broadcast against each other and come first.
        multipliers[rows[:, None], c, :, patterns[: a.shape[1]]] = a.transpose(2, 1, 0)
    return DualPoint(residual, multipliers)


def _multipliers(outputs: tuple[Outputs, ...], iterates: tuple[Iterate, ...]) -> Iterator[Floats]:
    """Yield the multipliers of the cones of each output, (2, n_cones, n)."""
    for output, it in zip(outputs, iterates, strict=True):
        shape = (*it.u.shape[:2], output.n_cones, len(output.share))
        yield from it.a[: math.prod(shape)].reshape(shape)


def _without_inactive(output: Outputs, it: Iterate) -> Floats:
    """Set inactive neurons to zero where that is certain to lower the objective."""
    u, n_norms = it.u.copy(), output.n_norms
    # To first order the penalty falls by more than the loss grows, by this much; the loss is at
    # most so much above its tangent, even where all these neurons vanish together.
    own = it.x[..., 1:]
    gain = output.alpha * np.linalg.norm(own, axis=-1) + (own * it.z[..., 1:]).sum(axis=-1)
    open_scores = it.scores[:, :, :n_norms] * output.data.gates[:n_norms]
    bend = output.loss.curvature / 2 * (open_scores**2 @ output.share)
    u[:, :, :n_norms][gain >= gain.size * bend] = 0
    return u
