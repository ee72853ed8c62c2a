"""The Hugging Face Hub, where it cannot be reached: the cache of this machine, or a clear refusal.

Its client asks six times for each file, which takes half a minute, and writes a line each time.
Here one question says whether it can be reached.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

# Errors of the client's HTTP library, whose name and version differ: no server was reached.
_NOT_REACHED = {"ConnectError", "TimeoutException", "ProxyError", "OfflineModeIsEnabled"}

_SWITCHES = "huggingface_hub.constants", "datasets.config"  # modules with one each


@contextlib.contextmanager
def hub_or_cache(what: str, remedy: str, endpoint: str | None = None) -> Iterator[bool]:
    """Let a block take files from the Hub, or only from its cache if the Hub cannot be reached.

    Parameters
    ----------
    what : str
        What the block does, for the message, such as ``"load 'a/b'"``.
    remedy : str
        What helps without the Hub, for the message.
    endpoint : str, optional
        Address of the Hub; by default that of its client.

    Yields
    ------
    bool
        Whether the Hub is asked: it can be reached, or the package huggingface_hub is not there.

    Raises
    ------
    OSError
        If the Hub cannot be reached and its cache lacks what the block asks for.
    """
    reason = why_unreachable(endpoint)
    if reason is None:
        yield True
        return
    with _offline():
        try:
            yield False
        except OSError as error:
            raise OSError(
                f"cannot {what}: it is not in the Hub's cache on this machine, and {reason}; "
                f"check the name. {remedy}"
            ) from error


def why_unreachable(endpoint: str | None = None) -> str | None:
    """Ask the Hub once.

    Parameters
    ----------
    endpoint : str, optional
        Address of the Hub; by default that of its client, which ``HF_ENDPOINT`` sets.

    Returns
    -------
    str or None
        Why it cannot be reached, as a clause; None if it answers, whatever it says, or if the
        package huggingface_hub is not there.
    """
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session
    except ImportError:
        return None
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids to ask the Hub"
    address, seconds = endpoint or constants.ENDPOINT, constants.HF_HUB_ETAG_TIMEOUT
    found: list[Exception | None] = []

    def ask() -> None:
        try:
            get_session().head(address, timeout=seconds)
            found.append(None)
        except Exception as error:  # of an HTTP library that the client chooses
            found.append(error)

    # The time limit of the HTTP library does not hold for the look-up of the address.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        return (
            f"the Hub cannot be reached ({address}: no answer within {seconds} s, the value of "
            "HF_HUB_ETAG_TIMEOUT)"
        )
    [error] = found
    if error is None or not _NOT_REACHED & {kind.__name__ for kind in type(error).__mro__}:
        return None
    return f"the Hub cannot be reached ({address}: {error or type(error).__name__})"


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Let the libraries of the Hub ask nothing of it, within this block."""
    modules: list[Any] = [sys.modules[name] for name in _SWITCHES if name in sys.modules]
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value
