"""Loop that drives every solver: stopping, history, callbacks, the check for finite values."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxnn.convex._padding import bucket, pad, pad_dual, pad_weights, unpad_dual, unpad_weights
from cvxnn.convex._solve_arguments import (
    across_devices,
    check_arguments,
    checkpoint_of,
    shared_work,
    start_of,
)
from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.host_program import on_host, read
from cvxnn.convex.mesh_scope import mesh_of_scope
from cvxnn.convex.objectives import WithRows
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Callback, Measurement, Result, Solver, Status, relative_gap
from cvxnn.numerics.arrays import leaves_of, map_leaves
from cvxnn.numerics.interrupts import no_interrupt_lost
from cvxnn.numerics.jax_import import precision
from cvxnn.numerics.threads import limit_threads

if TYPE_CHECKING:
    from jax.sharding import Mesh


# An incumbent stays within this part of the tolerance of the optimum, and this gap at most.
_INCUMBENT_PART, _INCUMBENT_GAP = 0.01, 1e-4


def _advance_on_host(problem: Any, solver: Any, state: Any, n_steps: Any) -> Any:
    with np.errstate(all="ignore"):  # what is not finite is reported, as compiled code does
        for _ in range(n_steps):
            state = solver.step(problem, state)
        return solver.measure(problem, state)


@no_interrupt_lost()
def solve(
    problem: Any,
    solver: Solver[Any, Any],
    *,
    start: Any = None,
    incumbent: float = np.inf,
    time_limit: float | None = None,
    callback: Callback | None = None,
    mesh: Mesh | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Result:
    """Solve a convex program, or minimise a smooth objective.

    Parameters
    ----------
    problem : ConvexProgram, SmoothObjective or BallObjective
        What to minimise, as the solver takes it.
    solver : Solver
        Method and options; see ``cvxnn.convex``. Other tolerances and strengths compile nothing;
        another shape or dtype does.
    start : Weights, array or Result, optional
        Weights of a ``ConvexProgram``, or the vector of a smooth objective, to start from; or the
        result of a similar problem, of which solvers that can use them take the multipliers too.
        By default a program starts at zero.
    incumbent : float, default=inf
        Objective of a point that is known already. The solver goes on until its own point is lower
        by more than rounding, or until the gap is a hundredth of its tolerance and at most 1e-4,
        so that it does not stop with a point that is merely as good.
    time_limit : float, optional
        Seconds after which to stop at the next measurement; compilation counts.
    callback : callable, optional
        Called after each measurement with the newest row of the history as a dict of floats, and
        a function that gives the weights to be returned if this were the end. The solver stops
        where it returns true. To interrupt, let it raise; nothing is left behind.
    mesh : jax.sharding.Mesh, optional
        Devices that share the rows of a ``ConvexProgram``, or of an objective ``WithRows`` such as
        ``cvxnn.preference.CoalaObjective``: ``jax.make_mesh((4,), ("rows",))``. With devices of
        several processes (``jax.distributed.initialize``), each process calls ``solve`` with its
        own rows, the same patterns in the same order, and all else equal; each gets the same
        weights, and the dual point of its rows. By default those of ``on_mesh``; else one device
        computes: that of JAX if the solver is compiled, the processor if it is not, where JAX's
        accelerator would not pay.
    checkpoint : path-like, optional
        File for the point so far, of a ``ConvexProgram`` and a compiled solver. It is written after
        a measurement, at most twice a minute, and at the end. Where it exists, the solver starts
        there, unless ``start`` is given: the same call goes on after an interruption. Of several
        processes each has a file of its own.

    Returns
    -------
    Result
        The best point, its certificate, the reason why it stopped, and the history.

    Raises
    ------
    TypeError
        If the solver does not accept the problem, where the message names those that do, or not
        its sparse rows; or if a part of the program is of another type, such as a penalty's name.
    ValueError
        If an option of the solver or a parameter of the program is out of range, arrays do not fit
        together or are not finite, or a loss or penalty of your own contradicts itself; see
        :meth:`ConvexProgram.check`.
    ConnectionError
        If another process of the mesh has ended; start all of them again.
    RuntimeError
        If the solver compiles, in a process forked from one that had run compiled code; spawn it.
    """
    began = time.perf_counter()
    check_arguments(problem, solver, time_limit)
    if np.isnan(incumbent):
        raise ValueError("incumbent is nan; expected the objective of a known point.")
    dtype = _dtype_of(problem)
    convex = isinstance(problem, ConvexProgram)
    given = problem.stacked() if convex else problem
    if mesh is None and isinstance(given, ConvexProgram | WithRows):
        mesh = mesh_of_scope()
        if mesh is None:
            mesh = solver.accelerator(given)
        elif not solver.gains_from_devices(given):
            mesh = None
    solver = (solver if mesh is None else across_devices(given, solver)).accept(given)
    rounding = given.rounding() if convex else 0.0
    compiled: Any = None
    if not solver.on_host:
        from cvxnn.convex import compiled_steps  # and with it JAX

        compiled = compiled_steps
    shards = None if mesh is None else compiled.RowShards(mesh)
    if shards is not None and convex:
        weight = given.operator.n_rows if given.sample_weight is None else given.sample_weight.sum()
        rounding = shards.mean(rounding, float(weight))
    kept = None if checkpoint is None else checkpoint_of(checkpoint, problem, solver)
    if kept is not None and start is None:
        start = kept.read()
        if shards is not None and shards.any(start is None):  # one died before it wrote
            start = None
    working = np.dtype(np.float64) if solver.on_host else dtype
    padded = convex and not solver.on_host
    scope = nullcontext() if compiled is None else compiled.scope()
    with scope, precision(working), limit_threads(shared_work(given), 1):
        beginning = start_of(start, given, working)
        problem = given
        if padded:
            rounded = bucket if shards is None else shards.padded
            n_rows = rounded(given.operator.n_rows)
            stays = shards is not None and solver.streams_rows(given)
            problem = pad(given if stays else read(given), n_rows)
            if beginning is not None:
                weights = pad_weights(given, beginning.weights)
                dual = pad_dual(given, beginning.dual, n_rows)
                beginning = beginning._replace(weights=weights, dual=dual)
        if compiled is None:
            problem = on_host(problem, working)
            advance, refresh = _advance_on_host, solver.refresh
            with np.errstate(all="ignore"):
                first = solver.init(problem, beginning)
        else:
            problem, first, advance = compiled.begin_compiled(
                given, problem, solver, beginning, shards
            )
            refresh = partial(compiled.refresh, solver)
        state = refresh(problem, first)

        def reported(state: Any) -> Any:
            exact = working if convex else dtype  # what proof and objective belong to
            weights = solver.weights(state)
            weights = np.asarray(weights) if shards is None else shards.weights(weights)
            weights = weights.astype(exact, copy=False)
            if padded:
                weights = unpad_weights(given, weights)
            return given.operator.unstack(weights) if convex else weights

        def proven(state: Any) -> DualPoint | None:
            dual = solver.dual_point(state)
            dual = map_leaves(np.asarray, dual) if shards is None else shards.dual(dual)
            if padded:
                dual = unpad_dual(given, dual)
            return None if dual is None else dual.unstacked(given.operator)

        rows: list[dict[str, float]] = []
        unknown: list[str] = []
        n_iter = 0
        while True:
            n_steps = min(solver.check_every, solver.max_iter - n_iter)
            state, m = advance(problem, solver, state, np.int32(n_steps))
            n_iter += n_steps
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
            # What has no value at first never has: accuracies of replies that are not paired.
            if len(rows) == 1:
                unknown = [name for name in m.details if np.isnan(rows[0][name])]
            for name in unknown:
                del rows[-1][name]
            stop = callback is not None and callback(rows[-1], partial(reported, state))
            late = time_limit is not None and elapsed > time_limit
            if shards is not None:  # their clocks and callbacks may differ
                stop, late = shards.any(bool(stop)), shards.any(late)
            status = _status(m, solver, n_iter, incumbent, rounding, stop=bool(stop), late=late)
            if status is not None:
                break
            if kept is not None:
                due = kept.is_due()
                if due if shards is None else shards.any(due):
                    kept.write(reported(state), proven(state), rows[-1])
            if m.refresh:
                state = refresh(problem, state)
        again = None
        if status not in (Status.CONVERGED, Status.NON_FINITE):
            again = solver.conclude(problem, state)
        if again is not None:
            state, m = again
            exact = {"objective": m.objective, "dual_bound": m.dual_bound, "stopping": m.stopping}
            rows[-1] |= {name: float(value) for name, value in exact.items()}
            if m.stopping <= solver.tol:
                status = Status.CONVERGED
        if m.stopping <= solver.tol and status is not Status.STOPPED:
            status = Status.CONVERGED  # no better than the incumbent, which is good enough
        weights, dual = reported(state), proven(state)
        if kept is not None and status is not Status.NON_FINITE:
            kept.write(weights, dual, rows[-1])
    objective, bound = rows[-1]["objective"], rows[-1]["dual_bound"]
    # Where a value overflowed, these two still hold.
    objective = np.inf if np.isnan(objective) else objective
    bound = -np.inf if np.isnan(bound) else bound
    unit = problem.rounding() if convex and shards is None else rounding
    return Result(
        weights=weights,
        objective=objective,
        dual_bound=bound,
        gap=relative_gap(objective, bound, unit),
        status=status,
        n_iter=n_iter,
        history={name: np.array([row[name] for row in rows]) for name in rows[0]},
        dual=dual,
    )


def _dtype_of(problem: Any) -> Any:
    if isinstance(problem, ConvexProgram):
        return problem.operator.X.dtype
    return next(leaf.dtype for leaf in leaves_of(problem) if hasattr(leaf, "dtype"))


def _status(
    m: Measurement,
    solver: Any,
    n_iter: int,
    incumbent: float,
    rounding: float,
    *,
    stop: bool,
    late: bool,
) -> Status | None:
    """Return the reason to stop after a measurement, or None."""
    if not np.isfinite(m.stopping):
        return Status.NON_FINITE
    # Either the incumbent is beaten, or there is next to nothing to win.
    better = m.objective < incumbent - rounding
    settled = incumbent - m.dual_bound <= 2 * rounding
    least = min(_INCUMBENT_PART * solver.tol, _INCUMBENT_GAP)
    if m.stopping <= (solver.tol if better or settled else least):
        return Status.CONVERGED
    if stop:
        return Status.STOPPED
    if m.stalled:
        return Status.STALLED
    if n_iter >= solver.max_iter:
        return Status.MAX_ITER
    return Status.TIME_LIMIT if late else None
