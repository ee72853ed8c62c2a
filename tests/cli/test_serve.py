"""Rewards over HTTP, against those of the head itself."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import cvxnn
from cvxnn.cli.main import COMMANDS, main
from cvxnn.llm import Embedder, RewardServer, load_model


@pytest.fixture(scope="module")
def server(head: str, model: str) -> Iterator[RewardServer]:
    loaded = cvxnn.load(head)
    embedder = Embedder.from_description(load_model(model, dtype="float32"), loaded.embedding)
    with RewardServer(loaded, embedder, port=0, max_replies=4, max_bytes=2000) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def call(server: RewardServer, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    content = body if isinstance(body, str) else json.dumps(body)
    connection.request(method, path, None if body is None else content)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_rewards_are_those_of_the_head(server: RewardServer) -> None:
    texts = ["b c", "q r s", "a", "t t"]
    chat = [{"role": "user", "content": "a b"}]
    expected = server.head.reward(server.embedder.embed([chat] * 4, texts))
    pairs = [{"prompt": chat, "response": text} for text in texts]
    with ThreadPoolExecutor(4) as pool:  # at once
        answers = list(pool.map(lambda _: call(server, "POST", "/score", {"pairs": pairs}), "abcd"))
    for status, found in answers:
        assert status == 200
        np.testing.assert_allclose(found["rewards"], expected, rtol=1e-4, atol=1e-5)
    status, found = call(server, "POST", "/rank", {"prompt": chat, "responses": texts})
    assert status == 200
    assert found["order"] == np.argsort(-np.asarray(expected), kind="stable").tolist()
    assert call(server, "GET", "/healthz") == (200, {"status": "ok", "model": "tiny"})


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/other", {}, 404, "expected POST /score, POST /rank and GET /healthz"),
        ("/score", "no json", 400, "the body is not JSON"),
        ("/score", [1], 400, "not an object"),
        ("/score", {"pairs": []}, 400, "pairs: expected a list"),
        ("/score", {"pairs": [3]}, 400, "expected objects"),
        ("/score", {"pairs": [{"prompt": "a"}]}, 400, "reply 0 lacks its prompt or its response"),
        ("/rank", {"prompt": "a", "responses": ["b", 3]}, 400, "response 1"),
        ("/rank", {"prompt": 3, "responses": ["b"]}, 400, "prompt 0"),
        ("/rank", {"prompt": "a", "responses": [""]}, 400, "response 0 is empty"),
        ("/rank", {"prompt": "a", "responses": ["b"] * 5}, 413, "5 replies; expected at most 4"),
        ("/rank", {"prompt": "a" * 3000, "responses": ["b"]}, 413, "expected at most 2000"),
    ],
)
def test_bad_requests_are_named(
    server: RewardServer, path: str, body: Any, status: int, said: str
) -> None:
    found, answer = call(server, "POST", path, body)
    assert found == status
    assert said in answer["error"]
    assert call(server, "GET", "/healthz")[0] == 200  # it goes on


def test_the_command_serves_until_it_is_interrupted(
    head: str, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(self: RewardServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RewardServer, "serve_forever", stop)
    assert main(["serve", head, "--model", model, "--port", "0"]) == 130
    said = capsys.readouterr()
    assert said.out.startswith("serving   http://127.0.0.1:")
    assert "interrupted; the server has ended" in said.err
    assert "serve" in COMMANDS
