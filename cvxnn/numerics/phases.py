"""What a long computation is at, for whoever watches it; without a watcher, nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Takes a text, and whether it is a result, which stays, or the name of a phase, which passes.
Watcher = Callable[[str, bool], object]

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher what the computations of a scope are at."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(text: str, *, stays: bool = False) -> None:
    """Say which phase begins, or what was measured."""
    if (watcher := _watcher.get()) is not None:
        watcher(text, stays)
