"""Steps of compiled solvers: what XLA compiles, in calls that are short enough for an interrupt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvxnn.convex._solve_arguments import step_flops
from cvxnn.convex.compiled_calls import Compiled, compiled_work, steps_of_a_call
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.sharding import RowShards, ends_noticed
from cvxnn.convex.solver import Start
from cvxnn.numerics.arrays import Array
from cvxnn.numerics.interrupts import interrupt_held

# Seconds of a call of compiled code from which on the next one takes fewer steps.
_SHORT = 0.4

Advance = Callable[[Any, Any, Any, Any], Any]
"""From problem, solver, state and a number of steps to the state after them, and its measures."""


@Compiled
def compiled_init(problem: Any, solver: Any, start: Any) -> Any:
    """Return the first state."""
    return solver.init(problem, start)


@partial(Compiled, donate_argnums=(2,))
def compiled_advance(problem: Any, solver: Any, state: Any, n_steps: Array) -> Any:
    """Take steps, and measure."""
    state = jax.lax.fori_loop(0, n_steps, lambda _, s: solver.step(problem, s), state)
    return solver.measure(problem, state)


@partial(Compiled, donate_argnums=(2,))
def compiled_take(problem: Any, solver: Any, state: Any, n_steps: Array) -> Any:
    """Take steps."""
    return jax.lax.fori_loop(0, n_steps, lambda _, s: solver.step(problem, s), state)


@contextmanager
def scope() -> Iterator[None]:
    """Run compiled code within a scope, whose devices may belong to other processes as well."""
    with ends_noticed(), compiled_work():
        yield


def begin_compiled(
    given: Any, problem: Any, solver: Any, start: Start | None, shards: RowShards | None
) -> tuple[Any, Any, Advance]:
    """Put a problem on its devices.

    Parameters
    ----------
    given : ConvexProgram or objective
        What is to be solved.
    problem : ConvexProgram or objective
        The same, padded where that is needed.
    solver : Solver
        The method.
    start : Start or None
        Where to begin, padded too.
    shards : RowShards or None
        Devices that share the rows, if there are several.

    Returns
    -------
    tuple of (problem, state, callable)
        The problem there, the first state, and the function that advances it.
    """
    if shards is None:
        problem = jax.tree.map(jnp.asarray, problem)
    else:
        divide = shards.program if isinstance(given, ConvexProgram) else shards.objective
        problem, start = divide(problem), shards.start(start)
    most = steps_of_a_call(step_flops(given))
    advance: Advance = _advance_and_wait
    if solver.check_every > most:
        advance = _advance_in_parts(most, alone=shards is None)
    with interrupt_held():
        return problem, jax.block_until_ready(compiled_init(problem, solver, start)), advance


def refresh(solver: Any, problem: Any, state: Any) -> Any:
    """Refresh a state.

    It is waited for: sums over devices of two programs that run at once may wait for each other.
    """
    return jax.block_until_ready(solver.refresh(problem, state))


def _advance_and_wait(problem: Any, solver: Any, state: Any, n_steps: Any) -> Any:
    with interrupt_held():
        state, measured = jax.block_until_ready(compiled_advance(problem, solver, state, n_steps))
    return state, jax.device_get(measured)


def _advance_in_parts(most: int, *, alone: bool) -> Advance:
    """Return the function that advances in several calls, the last of which measures.

    The first takes one step, later ones up to ``most``, as long as they are short: how many
    iterations of conjugate gradient a step has is not known before. Processes that share the rows
    have other clocks, and always take ``most``.
    """
    part = 1 if alone else most

    def advance(problem: Any, solver: Any, state: Any, n_steps: Any) -> Any:
        nonlocal part
        while n_steps > part:
            began = time.perf_counter()
            with interrupt_held():
                state = jax.block_until_ready(compiled_take(problem, solver, state, np.int32(part)))
            n_steps -= part
            if alone:
                short = time.perf_counter() - began < _SHORT
                part = min(2 * part, most) if short else max(part // 2, 1)
        return _advance_and_wait(problem, solver, state, np.int32(n_steps))

    return advance
