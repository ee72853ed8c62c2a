"""Interrupts (Ctrl-C): held while compiled code runs, and raised again where Python drops them."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

# Seconds after which an interrupt that was lost comes again: the hook that lost it has ended then.
_AGAIN = 0.01


@contextmanager
def interrupt_held() -> Iterator[None]:
    """Raise Ctrl-C at the end of a scope, when the compiled code that it waits for has ended.

    Without this, an interrupt between a call and the wait for its result would leave the call
    running. A handler of the user's own is left alone, and so are threads, which get no signals.
    """
    own = signal.default_int_handler
    if not _in_main() or signal.getsignal(signal.SIGINT) is not own:
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


@contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Raise Ctrl-C again, within a scope, where it came in a function whose errors Python ignores.

    Hooks of the garbage collector, of which JAX has one, finalisers and callbacks of weak
    references are such functions: Python shows the interrupt ("Exception ignored in ..."), and goes
    on. Instead, the interrupt comes again a moment later, until it is raised where it counts.
    """
    if not _in_main():
        yield
        return
    before = sys.unraisablehook
    sys.unraisablehook = partial(_again, before)
    try:
        yield
    finally:
        sys.unraisablehook = before


def _in_main() -> bool:
    """Return whether this is the thread that gets the signals of the process."""
    return threading.current_thread() is threading.main_thread()


def _again(before: Callable[[Any], Any], ignored: Any) -> None:
    """Interrupt the process again if an interrupt was ignored; hand other errors on."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        threading.Timer(_AGAIN, _interrupt).start()
    else:
        before(ignored)


def _interrupt() -> None:
    """Send Ctrl-C to the main thread; but for Windows, that also ends its waiting."""
    main = threading.main_thread().ident
    handled = callable(signal.getsignal(signal.SIGINT))
    if main is not None and handled and sys.platform != "win32":
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()
