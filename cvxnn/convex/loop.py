"""The one loop that drives every solver: stopping, history, progress, the check for non-finite."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from cvxnn._arrays import Array
from cvxnn.convex._padding import pad, pad_dual, pad_weights, unpad_dual, unpad_weights
from cvxnn.convex.operators import Weights
from cvxnn.convex.program import ConvexProgram, DualPoint, on_host


class Status(enum.Enum):
    """Why a solver stopped; ``remedy`` says what to do about it."""

    CONVERGED = "converged"
    MAX_ITER = "max_iter"
    TIME_LIMIT = "time_limit"
    STALLED = "stalled"
    STOPPED = "stopped"
    NON_FINITE = "non_finite"

    @property
    def remedy(self) -> str:
        """One sentence of advice; empty when the solver converged."""
        return _REMEDIES[self]


# Columns of the history that hold penalty parameters, which a warm start takes over.
_RHO = ("rho_weights", "rho_cones")

_REMEDIES = {
    Status.CONVERGED: "",
    Status.MAX_ITER: "Increase max_iter, raise tol, or raise alpha.",
    Status.TIME_LIMIT: "Raise the time limit, or raise tol.",
    Status.STALLED: "Rounding stops progress: raise tol, standardise X, or use float64.",
    Status.STOPPED: "A callback asked for it.",
    Status.NON_FINITE: "The data hold NaN, or a value overflowed: standardise X, use float64, or "
    "raise alpha.",
}


class Measurement(NamedTuple):
    """What a solver reports of its state, all scalars."""

    objective: Array
    """Objective of the point that would be returned now."""
    dual_bound: Array
    """Largest lower bound of the optimum so far; minus infinity where there is none."""
    stopping: Array
    """The number that is compared with ``tol``."""
    refresh: Array
    """Whether parameters changed such that ``Solver.refresh`` has to run."""
    details: dict[str, Array]
    """Further columns of the history."""
    stalled: Array | bool = False
    """Whether further iterations would gain nothing."""


class Solver(Protocol):
    """A frozen bundle of options; its work happens in pure functions of a state."""

    on_host: ClassVar[bool]
    """Whether it works on NumPy arrays in float64 instead of compiled JAX."""

    @property
    def tol(self) -> float:
        """Target of ``Measurement.stopping``."""

    @property
    def max_iter(self) -> int:
        """Most iterations."""

    @property
    def check_every(self) -> int:
        """Iterations between two measurements."""

    def accept(self, problem: Any) -> Any:
        """Return the solver as it should run on this problem, or raise with the alternatives."""

    def init(self, problem: Any, start: Start | None) -> Any:
        """First state; ``refresh`` completes it."""

    def refresh(self, problem: Any, state: Any) -> Any:
        """Factorisations and step sizes, which outlast many iterations; not traced as a whole."""

    def step(self, problem: Any, state: Any) -> Any:
        """One iteration."""

    def measure(self, problem: Any, state: Any) -> tuple[Any, Measurement]:
        """Look at the state; may adapt parameters and keep the best point."""

    def weights(self, state: Any) -> Array:
        """Return the weights to report."""

    def dual_point(self, state: Any) -> DualPoint | None:
        """Return what proves the reported bound, where the problem is a ConvexProgram."""

    def flops(self, problem: Any, result: Any) -> float:
        """Floating-point operations of a solve."""


class Start(NamedTuple):
    """Where a solver starts: weights, and what a previous solve left."""

    weights: Any
    dual: DualPoint | None = None
    rho: Any = None


class Result(NamedTuple):
    """What a solver found, on the host.

    Attributes
    ----------
    weights : Weights, or ndarray
        The best point seen: :class:`Weights` of a ``ConvexProgram``, a vector of a smooth
        objective.
    objective : float
        Objective of exactly these weights.
    dual_bound : float
        No point of the program has a lower objective (``-inf`` where no bound is known).
    gap : float
        Relative duality gap ``(objective - dual_bound) / |objective|``. A negative gap is good
        news: the recovered network lies outside the sampled patterns and beats every one inside.
    status : Status
    n_iter : int
    history : dict of ndarray
        One entry per measurement: ``iteration``, ``time`` (seconds), ``objective``,
        ``dual_bound``, ``stopping`` and columns of the solver's own.
    dual : DualPoint or None
        What proves ``dual_bound``: ``problem.bound_of(result.dual)`` recomputes it.
    """

    weights: Any
    objective: float
    dual_bound: float
    gap: float
    status: Status
    n_iter: int
    history: dict[str, NDArray[np.floating]]
    dual: DualPoint | None = None


Callback = Callable[[dict[str, float], Callable[[], Any]], bool | None]


@contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """Scope in which JAX computes in ``dtype`` with full-precision products.

    TensorFloat-32 products are too coarse for conjugate gradient and Cholesky.
    """
    with (
        jax.enable_x64(np.dtype(dtype) == np.float64),
        jax.default_matmul_precision("highest"),
    ):
        yield


def relative_gap(objective: float, bound: float) -> float:
    """Duality gap in units of the objective; infinite where there is no bound."""
    if not np.isfinite(bound):
        return float("inf")
    return (objective - bound) / max(abs(objective), np.finfo(np.float64).tiny)


@jax.jit
def _init(problem: Any, solver: Any, start: Any) -> Any:
    return solver.init(problem, start)


@partial(jax.jit, donate_argnums=(2,))
def _advance(problem: Any, solver: Any, state: Any, n_steps: Array) -> Any:
    state = jax.lax.fori_loop(0, n_steps, lambda _, s: solver.step(problem, s), state)
    return solver.measure(problem, state)


def _advance_on_host(problem: Any, solver: Any, state: Any, n_steps: Any) -> Any:
    with np.errstate(all="ignore"):  # what is not finite is reported, as compiled code does
        for _ in range(n_steps):
            state = solver.step(problem, state)
        return solver.measure(problem, state)


def solve(
    problem: Any,
    solver: Solver,
    *,
    start: Any = None,
    time_limit: float | None = None,
    callback: Callback | None = None,
) -> Result:
    """Solve a problem.

    Parameters
    ----------
    problem : ConvexProgram or SmoothObjective
    solver : Solver
        Options; see ``cvxnn.convex``. Other tolerances and strengths compile nothing; another
        shape or dtype does.
    start : Weights, array or Result, optional
        Weights of a ``ConvexProgram``, or the vector of a smooth objective, to start from; or the
        result of a similar problem, of which solvers that can use them take the multipliers too.
        By default a program starts at zero.
    time_limit : float, optional
        Seconds after which to stop at the next measurement; compilation counts.
    callback : callable, optional
        Called after each measurement with the newest row of the history as a dict of floats, and
        a function that gives the weights to be returned if this were the end. The solver stops
        where it returns true. To interrupt, let it raise; nothing is left behind.

    Returns
    -------
    Result

    Raises
    ------
    TypeError, ValueError
        If an option is out of range, or the solver does not accept the problem; the message then
        names those that do.
    """
    began = time.perf_counter()
    dtype = jax.tree.leaves(problem)[0].dtype
    _check(problem, solver)
    convex = isinstance(problem, ConvexProgram)
    given = problem.stacked() if convex else problem
    solver = solver.accept(given)
    working = np.dtype(np.float64) if solver.on_host else dtype
    padded = convex and not solver.on_host
    with precision(working):
        beginning = _start(start, given, working)
        problem = given
        if padded:
            problem = pad(given)
            if beginning is not None:
                weights = pad_weights(given, beginning.weights)
                dual = pad_dual(given, beginning.dual)
                beginning = beginning._replace(weights=weights, dual=dual)
        if solver.on_host:
            problem = on_host(problem, working)
            with np.errstate(all="ignore"):
                advance, first = _advance_on_host, solver.init(problem, beginning)
        else:
            problem = jax.tree.map(jnp.asarray, problem)
            advance, first = _advance, _init(problem, solver, beginning)
        state = solver.refresh(problem, first)

        def reported(state: Any) -> Any:
            weights = np.asarray(solver.weights(state)).astype(dtype, copy=False)
            if padded:
                weights = unpad_weights(given, weights)
            return given.operator.unstack(weights) if convex else weights

        rows: list[dict[str, float]] = []
        status, n_iter = Status.MAX_ITER, 0
        while True:
            n_steps = min(solver.check_every, solver.max_iter - n_iter)
            state, measured = advance(problem, solver, state, np.int32(n_steps))
            n_iter += n_steps
            m = jax.device_get(measured)
            elapsed = time.perf_counter() - began
            rows.append(
                {
                    "iteration": float(n_iter),
                    "time": elapsed,
                    "objective": float(m.objective),
                    "dual_bound": float(m.dual_bound),
                    "stopping": float(m.stopping),
                    **{name: float(value) for name, value in m.details.items()},
                }
            )
            stop = callback is not None and callback(rows[-1], partial(reported, state))
            if not np.isfinite(m.stopping):
                status = Status.NON_FINITE
                break
            if m.stopping <= solver.tol:
                status = Status.CONVERGED
                break
            if stop:
                status = Status.STOPPED
                break
            if m.stalled:
                status = Status.STALLED
                break
            if n_iter >= solver.max_iter:
                break
            if time_limit is not None and elapsed > time_limit:
                status = Status.TIME_LIMIT
                break
            if m.refresh:
                state = solver.refresh(problem, state)
        weights = reported(state)
        dual = jax.tree.map(np.asarray, solver.dual_point(state))
        if padded:
            dual = unpad_dual(given, dual)
        if dual is not None:
            dual = dual.unstacked(given.operator)
    objective, bound = rows[-1]["objective"], rows[-1]["dual_bound"]
    return Result(
        weights=weights,
        objective=objective,
        dual_bound=bound,
        gap=relative_gap(objective, bound),
        status=status,
        n_iter=n_iter,
        history={name: np.array([row[name] for row in rows]) for name in rows[0]},
        dual=dual,
    )


def _check(problem: Any, solver: Solver) -> None:
    """Refuse options and strengths with which no solver can work."""
    for name in ("max_iter", "check_every"):
        if not getattr(solver, name) >= 1:
            value = getattr(solver, name)
            raise ValueError(f"{type(solver).__name__}: {name}={value!r}; expected at least 1.")
    if np.isnan(solver.tol):
        raise ValueError(f"{type(solver).__name__}: tol is nan; expected a number.")
    if isinstance(problem, ConvexProgram):
        problem.check()


def _start(start: Any, problem: Any, dtype: Any) -> Start | None:
    """Return copies in the solver's layout, since the state is donated and may alias the start."""
    if start is None:
        return None

    def arrays(weights: Any) -> NDArray[np.floating]:
        if isinstance(weights, Weights):
            weights = problem.operator.stack(weights, problem.n_signs)
        return np.array(weights, dtype)

    if not isinstance(start, Result):
        return Start(arrays(start))
    rho = [start.history[name][-1] for name in _RHO if name in start.history]
    dual = start.dual
    if dual is not None:
        dual = jax.tree.map(lambda part: np.array(part, dtype), dual.stacked(problem.operator))
    return Start(arrays(start.weights), dual, np.array(rho, dtype) if rho else None)
