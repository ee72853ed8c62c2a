"""Compiled code: how it is compiled, length of calls, and the process that it runs in.

JAX is imported by the first call.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, wraps
from typing import Any

from cvxnn.numerics.arrays import Array, node_classes

# Operations of one call of compiled code: about half a second, for which an interrupt waits.
# Shorter calls would cost some per cent, since each asks the system for its memory.
_CALL = 2e10

# For each product on a GPU, XLA would compile and time kernels of Triton: two minutes for CRONOS on
# 131,072 x 4,096. Kernels of the library, which it takes then, are as fast (asv_bench/device).
_OPTIONS = {"xla_gpu_enable_triton_gemm": False}

# The process whose threads run compiled code; None before there was any.
_process: int | None = None


class Compiled:
    """A function compiled by ``jax.jit``, for the classes of its arguments and for no others.

    See :func:`node_classes` for why classes count. Within another compiled function it is a part
    of that one.

    Parameters
    ----------
    function : callable
        What to compile.
    donate_argnums : tuple of int, default=()
        Arguments whose memory the result may take over.
    """

    def __init__(
        self, function: Callable[..., Any], *, donate_argnums: tuple[int, ...] = ()
    ) -> None:
        self.function = function
        self._donated = tuple(number + 1 for number in donate_argnums)

    @cached_property
    def _compiled(self) -> Any:
        import jax

        @wraps(self.function)
        def traced(classes: tuple[type, ...], *arguments: Any) -> Any:
            return self.function(*arguments)

        return jax.jit(
            traced,
            static_argnums=(0,),
            donate_argnums=self._donated,
            compiler_options=_OPTIONS,
        )

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns; shapes and types that are new are compiled for."""
        import jax

        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
            return self.function(*arguments)
        return self._compiled(node_classes(arguments), *arguments)

    def lower(self, *arguments: Any) -> Any:
        """Return what the compiler would be given for such arguments."""
        return self._compiled.lower(node_classes(arguments), *arguments)

    @property
    def n_programs(self) -> int:
        """Number of programs in memory."""
        return int(self._compiled._cache_size())


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
    import jax.numpy as jnp

    from cvxnn.convex.kept_programs import kept_programs

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


def _wait(last: Array, process: int) -> None:
    """Wait for a computation of this process; one forked from it has nothing to wait for."""
    if os.getpid() == process:
        import jax

        jax.block_until_ready(last)


def steps_of_a_call(flops: float) -> int:
    """Return how many steps of so many operations one call of compiled code takes at most."""
    return max(1, int(_CALL // max(flops, 1.0)))
