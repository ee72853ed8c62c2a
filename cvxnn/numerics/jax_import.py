"""Import of JAX, which leaves NumPy's global random numbers as they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cvxnn.numerics.interrupts import no_interrupt_lost


@contextmanager
def _generator_kept() -> Iterator[None]:
    """Leave NumPy's global random numbers as they are, should JAX be imported within a scope.

    JAX draws from them when it is imported (0.10.2, for the waiting times of its cluster of
    Kubernetes), so that the first fit of a process would differ from the next one of equal seed.
    """
    if "jax" in sys.modules:
        yield
        return
    import numpy as np  # the help of the command line does without it

    state = np.random.get_state()  # noqa: NPY002
    try:
        with no_interrupt_lost():  # half a second, of which JAX's hook is a part from early on
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def import_jax() -> None:
    """Import JAX, and leave NumPy's global random numbers as they are."""
    with _generator_kept():
        import jax  # noqa: F401


def keep_generator(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package some of whose modules import JAX."""

    def kept(name: str) -> Any:
        with _generator_kept():
            return load(name)

    return kept
