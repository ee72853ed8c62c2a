"""A server that judges, and the command that asks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cvxnn.cli.main import main
from cvxnn.features.endpoint_client import EndpointClient

from .chat_server import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(EndpointClient, "_wait", lambda self: None)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def call(*arguments: object, code: int = 0) -> dict[str, Any]:
        assert main(["evaluate", *map(str, arguments), "--json"]) == code
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return call
