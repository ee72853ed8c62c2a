"""Threads of BLAS: as many as the work is worth, and one for the small products of most fits.

On busy cores, threads that wait for each other are many times slower than one alone. Compiled code
has threads of its own, whose number XLA sets when it starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, wraps
from threading import Lock
from typing import Any, ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

# Flops from which threads are worth their synchronisation: of one product, and of a factorisation,
# which synchronises at each column. Two threads have little to win.
SHARED_PRODUCT = 1e8
SHARED_FACTOR = 2e10 / max((os.cpu_count() or 1) - 1, 1)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def limit_threads(flops: float, enough: float = SHARED_PRODUCT) -> AbstractContextManager[object]:
    """Give BLAS one thread, within a scope, if its work is too small to share.

    A scope never gives back threads that an outer one, one of another thread, or the user took
    away.
    """
    return _one_thread() if flops < enough else nullcontext()


class _Scopes:
    """Scopes of one thread that are open now, in all threads: BLAS has one limit for a process."""

    def __init__(self) -> None:
        self.lock, self.n_open = Lock(), 0
        self.limit: Any = None


_scopes = _Scopes()
if hasattr(os, "register_at_fork"):  # another thread may have held the lock
    os.register_at_fork(after_in_child=lambda: setattr(_scopes, "lock", Lock()))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Take the threads where the first scope begins; give them back where the last one ends."""
    with _scopes.lock:
        if _scopes.n_open == 0:
            _scopes.limit = _controller().limit(limits=1, user_api="blas")
        _scopes.n_open += 1
    try:
        yield
    finally:
        with _scopes.lock:
            _scopes.n_open -= 1
            if _scopes.n_open == 0:
                _scopes.limit.restore_original_limits()


def limits_threads(
    flops: Callable[..., float], enough: float = SHARED_PRODUCT
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a function whose arguments tell the work: it then runs in :func:`limit_threads`."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def limited(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with limit_threads(flops(*args, **kwargs), enough):
                return function(*args, **kwargs)

        return limited

    return decorate


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
