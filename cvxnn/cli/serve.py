"""Serve the rewards of a head over HTTP, until it is interrupted.

POST /score takes {"pairs": [{"prompt": ..., "response": ...}, ...]}, POST /rank takes {"prompt":
..., "responses": [...]}, GET /healthz says which model is served. There are no passwords: listen at
an address that only your own programs reach.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import threading
from typing import Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, required, reward_head
from cvxnn.cli.option_building import option_from
from cvxnn.cli.option_groups import BATCH, MODEL
from cvxnn.cli.option_types import port, real

HELP = "serve rewards over HTTP"
EXAMPLE = "  cvxnn serve head.safetensors --port 8000"
_ENDS = (signal.SIGINT, signal.SIGTERM)
_LIMITS: dict[str, dict[str, Any]] = {
    "max_replies": {},
    "max_bytes": {},
    "max_waiting": {},
    "max_wait": {"type": real(least=0)},
    "max_seconds": {"type": real(above=0)},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument("head", nargs="?", metavar="HEAD", help="File of cvxnn fit")
    server = "cvxnn.llm.RewardServer"
    parser.add_argument("--host", **option_from(server, "host"))
    parser.add_argument("--port", **{**option_from(server, "port"), "type": port})
    for name, own in _LIMITS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **{**option_from(server, name), **own})
    for group in (MODEL, BATCH):
        group.add_to(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, head="HEAD")
    from cvxnn.llm.reward_server import RewardServer

    console.kept = lambda: "the server had not begun"
    head = reward_head(options.head)
    _check_address(options.host, options.port)
    embedder = embedder_of(options, console, head)
    embedder.progress = False
    limits = {name: getattr(options, name) for name in _LIMITS}
    with RewardServer(head, embedder, host=options.host, port=options.port, **limits) as server:

        def stop(*_: Any) -> None:
            _restore(before)  # whoever asks a second time does not wait
            # In a thread, since it waits for the loop of this one.
            threading.Thread(target=server.shutdown).start()

        before = {number: signal.signal(number, stop) for number in _ENDS}
        try:
            host, number = server.server_address[:2]
            console.show(f"serving   http://{host!s}:{number}, until Ctrl-C")
            server.serve_forever()
        finally:
            _restore(before)
    console.progress("ended     the requests that had come are answered")
    return {"status": "done"}


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _check_address(host: str, number: int) -> None:
    """Refuse an address at which nothing can listen, before the model is loaded."""
    try:
        with contextlib.closing(socket.create_server((host, number), reuse_port=False)):
            pass
    except OSError as error:
        raise OSError(
            f"cannot listen at {host}:{number} ({error.strerror}); choose another --port or --host"
        ) from error
