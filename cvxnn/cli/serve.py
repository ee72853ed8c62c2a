"""Serve the rewards of a head over HTTP, until it is interrupted.

POST /score takes {"pairs": [{"prompt": ..., "response": ...}, ...]}, POST /rank takes {"prompt":
..., "responses": [...]}, GET /healthz says which model is served. There are no passwords: listen at
an address that only your own programs reach.
"""

from __future__ import annotations

import argparse
import signal
import threading
from typing import Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, required, reward_head
from cvxnn.cli.option_building import natural, option_from
from cvxnn.cli.option_groups import BATCH, MODEL

HELP = "serve rewards over HTTP"
EXAMPLE = "  cvxnn serve head.safetensors --port 8000"
_LIMITS = ("max_replies", "max_bytes", "max_waiting", "max_wait", "max_seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument("head", nargs="?", metavar="HEAD", help="File of cvxnn fit")
    server = "cvxnn.llm.RewardServer"
    parser.add_argument("--host", **option_from(server, "host"))
    parser.add_argument("--port", **{**option_from(server, "port"), "type": natural})
    for name in _LIMITS:
        parser.add_argument(f"--{name.replace('_', '-')}", **option_from(server, name))
    for group in (MODEL, BATCH):
        group.add_to(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, head="HEAD")
    from cvxnn.llm.reward_server import RewardServer

    console.kept = lambda: "the server has ended"
    head = reward_head(options.head)
    embedder = embedder_of(options, console, head)
    embedder.progress = False
    limits = {name: getattr(options, name) for name in _LIMITS}
    with RewardServer(head, embedder, host=options.host, port=options.port, **limits) as server:

        def stop(*_: Any) -> None:  # in a thread, since it waits for the loop of this one
            threading.Thread(target=server.shutdown).start()

        before = signal.signal(signal.SIGTERM, stop)
        try:
            host, port = server.server_address[:2]
            console.show(f"serving   http://{host!s}:{port}")
            server.serve_forever()
        finally:
            signal.signal(signal.SIGTERM, before)
    return {"status": "done"}
