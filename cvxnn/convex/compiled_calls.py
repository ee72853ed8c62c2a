"""Calls of compiled code: their precision and length, and the process that they run in."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvxnn.convex.kept_programs import kept_programs
from cvxnn.numerics.arrays import Array

# Operations of one call of compiled code: about half a second, for which an interrupt waits.
# Shorter calls would cost some per cent, since each asks the system for its memory.
_CALL = 2e10

# The process whose threads run compiled code; None before there was any.
_process: int | None = None


@contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """Compute with JAX in ``dtype``, with full-precision products, within a scope.

    TensorFloat-32 products are too coarse for conjugate gradient and Cholesky.

    Parameters
    ----------
    dtype : dtype
        float32 or float64.
    """
    with (
        jax.enable_x64(np.dtype(dtype) == np.float64),
        jax.default_matmul_precision("highest"),
    ):
        yield


@contextmanager
def compiled_work() -> Iterator[None]:
    """Run compiled code within a scope: in the process that began with it, and to its end.

    XLA runs it in threads, which a forked process does not have. And an interrupt ends the wait for
    a result, not the computation, which could then fail where the interpreter frees what it works
    on: the process therefore waits at its exit for what an exception left running here. A thread's
    computations run in the order of their calls, so one more tells when all have ended, also those
    whose result was lost on the way.

    Raises
    ------
    RuntimeError
        In a process that was forked from one which had run compiled code.
    """
    global _process
    here = os.getpid()
    if _process is None:
        _process = here
    if _process != here:
        raise RuntimeError(
            "this process was forked from one that had already run code compiled by JAX, whose "
            "threads it lacks: the fit would never end. Start processes by spawn "
            "(multiprocessing.get_context('spawn')) or by joblib's default backend, loky; or use a "
            "solver that compiles nothing (Ridge, InteriorPoint)."
        )
    try:
        with kept_programs():
            yield
    except BaseException:
        atexit.register(_wait, jnp.zeros(()) + 1, here)
        raise


@contextmanager
def interrupt_held() -> Iterator[None]:
    """Raise Ctrl-C at the end of a scope, when the compiled code that it waits for has ended.

    Without this, an interrupt between a call and the wait for its result would leave the call
    running. A handler of the user's own is left alone, and so are threads, which get no signals.
    """
    own = signal.default_int_handler
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not own:
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, own)
    if held:
        raise KeyboardInterrupt


def _wait(last: Array, process: int) -> None:
    """Wait for a computation of this process; one forked from it has nothing to wait for."""
    if os.getpid() == process:
        jax.block_until_ready(last)


def steps_of_a_call(flops: float) -> int:
    """Return how many steps of so many operations one call of compiled code takes at most."""
    return max(1, int(_CALL // max(flops, 1.0)))
