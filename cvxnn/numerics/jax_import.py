"""What follows an import of JAX, whoever imports it: most fits and all predictions do without.

JAX takes half a second to import. Classes that it has to know wait until it is there, and NumPy's
global random numbers stay as they are: JAX draws from them when it is imported (0.10.2, for the
waiting times of its cluster of Kubernetes), so that the first fit of a process would differ from
the next one of equal seed.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from cvxnn.numerics.interrupts import no_interrupt_lost

# What is to be done once JAX is there.
_waiting: deque[Callable[[], object]] = deque()


def when_jax_is_there(action: Callable[[], object]) -> None:
    """Do something at once if JAX is imported, else as soon as anything imports it.

    Parameters
    ----------
    action : callable
        Function without arguments.
    """
    _waiting.append(action)
    if "jax" in sys.modules:
        import jax  # noqa: F401  another thread may be importing it: waits for its end

        _do_what_waits()


def prepare_for_jax() -> None:
    """Let the next import of JAX, if there was none yet, keep NumPy's global random numbers."""
    if "jax" not in sys.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


@contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """Compute with JAX in ``dtype``, with full-precision products, within a scope.

    TensorFloat-32 products are too coarse for conjugate gradient and Cholesky. Where JAX is not
    imported, there is nothing to set.

    Parameters
    ----------
    dtype : dtype
        float32 or float64.
    """
    if "jax" not in sys.modules:
        yield
        return
    import jax
    import numpy as np  # the help of the command line does without it

    with (
        jax.enable_x64(np.dtype(dtype) == np.float64),
        jax.default_matmul_precision("highest"),
    ):
        yield


def _do_what_waits() -> None:
    while _waiting:
        _waiting.popleft()()


class _JaxFinder(MetaPathFinder):
    """Finder of JAX alone, by the other finders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "jax":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _JaxLoader(spec.loader)
        return spec


class _JaxLoader(Loader):
    """Loader of JAX by another loader, which takes its place in the end."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import numpy as np

        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        state = np.random.get_state()  # noqa: NPY002
        try:
            with no_interrupt_lost():  # half a second, of which JAX's hook is a part from early on
                self._loader.exec_module(module)
        finally:
            np.random.set_state(state)  # noqa: NPY002
        _do_what_waits()
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)


_finder = _JaxFinder()
