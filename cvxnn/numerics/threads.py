"""Threads of BLAS: as many as the work is worth, and one for the small products of most fits.

On busy cores, threads that wait for each other are many times slower than one alone. Compiled code
has threads of its own, whose number XLA sets when it starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

# Flops from which threads are worth their synchronisation: of one product, and of a factorisation,
# which synchronises at each column. Two threads have little to win.
SHARED_PRODUCT = 1e8
SHARED_FACTOR = 2e10 / max((os.cpu_count() or 1) - 1, 1)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def limit_threads(flops: float, enough: float = SHARED_PRODUCT) -> AbstractContextManager[object]:
    """Give BLAS one thread, within a scope, if its work is too small to share.

    A scope never gives back threads that an outer one, or the user, took away.
    """
    return _controller().limit(limits=1 if flops < enough else None, user_api="blas")


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


def with_threads(number: int) -> AbstractContextManager[object]:
    """Give BLAS this number of threads within a scope, as one had before it took them away."""
    return _controller().limit(limits=number, user_api="blas")


def blas_threads() -> int:
    """Return the number of threads that BLAS has now."""
    found = (lib["num_threads"] for lib in _controller().info() if lib["user_api"] == "blas")
    return max(found, default=1)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
