"""Rewards over HTTP, against those of the head itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

import cvxnn
from cvxnn.cli.main import main
from cvxnn.llm import Embedder, RewardServer, load_model


@pytest.fixture(scope="module")
def server(head: str, model: str) -> Iterator[RewardServer]:
    loaded = cvxnn.load(head)
    embedder = Embedder.from_description(load_model(model, dtype="float32"), loaded.embedding)
    with serving(RewardServer(loaded, embedder, port=0, max_replies=4, max_bytes=2000)) as found:
        yield found


@contextlib.contextmanager
def serving(server: RewardServer) -> Iterator[RewardServer]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
        thread.start()
        yield server
        server.shutdown()  # a second time does no harm
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
    limits = {"max_replies": 4, "max_bytes": 2000, "max_tokens": server.embedder.limit}
    health = {"status": "ok", "model": "tiny", **limits, "waiting": 0}
    assert call(server, "GET", "/healthz?all") == (200, health)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/other", {}, 404, "expected POST /score, POST /rank and GET /healthz"),
        ("/healthz", {}, 405, "POST /healthz; expected POST /score"),
        ("/score", "no json", 400, "the body is not JSON"),
        ("/score", "[" * 1900, 400, "the body is not JSON"),
        ("/score", [1], 400, "the body is a list; expected an object"),
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


def test_long_replies_are_cut_as_in_training_and_counted(server: RewardServer) -> None:
    prompt, texts = "a b " * 50, ["b " * 30, "c d"]
    with pytest.warns(UserWarning, match="2 of 2 replies have more than"):
        X = server.embedder.embed([prompt] * 2, texts, common_cut=True)
    status, found = call(server, "POST", "/rank", {"prompt": prompt, "responses": texts})
    assert (status, found["cut"]) == (200, 2)
    np.testing.assert_allclose(found["rewards"], server.head.reward(X), rtol=1e-4, atol=1e-5)


def test_what_is_no_request_of_ours_is_answered_in_json(server: RewardServer) -> None:
    assert call(server, "PUT", "/score", {})[0] == 501
    with socket.create_connection(server.server_address[:2]) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert b" 411 " in answer
    assert b"send one, and the body in one piece" in answer


class Held:
    """A head that judges when it is let."""

    def __init__(self, head: Any) -> None:
        self.head, self.asked, self.may_judge = head, threading.Event(), threading.Event()

    def reward(self, X: np.ndarray) -> Any:
        self.asked.set()
        assert self.may_judge.wait(60)
        return self.head.reward(X)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_requests_are_refused_or_given_up_or_answered_before_the_end(server: RewardServer) -> None:
    head, body = Held(server.head), {"prompt": "a", "responses": ["b", "c"]}
    limits: dict[str, Any] = {"max_replies": 2, "max_waiting": 2, "max_seconds": 0.2}
    slow = RewardServer(head, server.embedder, port=0, **limits)
    with ThreadPoolExecutor(3) as pool, serving(slow):
        judged = pool.submit(call, slow, "POST", "/rank", body)
        assert head.asked.wait(60)
        waits = pool.submit(call, slow, "POST", "/rank", body)
        wait_until(lambda: slow.queue.waiting == 2)
        refused, answer = call(slow, "POST", "/rank", body)
        assert (refused, answer["error"][:22]) == (503, "2 replies wait already")
        for given_up in (judged, waits):
            status, answer = given_up.result(60)
            assert (status, answer["error"][:28]) == (503, "no reward after 0.2 seconds;")
        head.may_judge.set()
        wait_until(lambda: slow.queue.waiting == 0)
        head.may_judge.clear()
        head.asked.clear()
        slow.max_seconds = 60
        last = pool.submit(call, slow, "POST", "/rank", body)
        assert head.asked.wait(60)
        slow.shutdown()
        pool.submit(lambda: (time.sleep(0.05), head.may_judge.set()))
    assert last.result()[0] == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_well_where_it_is_told_to(
    head: str,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    def serve(self: RewardServer) -> None:
        os.kill(os.getpid(), number)
        ThreadingHTTPServer.serve_forever(self, 0.02)

    before = signal.getsignal(number)
    monkeypatch.setattr(RewardServer, "serve_forever", serve)
    limits = ["--max-replies", "8", "--max-wait", "0", "--max-seconds", "5"]
    assert main(["serve", head, "--model", model, "--port", "0", *limits]) == 0
    assert signal.getsignal(number) == before
    said = capsys.readouterr()
    assert said.out.startswith("serving   http://127.0.0.1:")
    assert said.err.endswith("ended     the requests that had come are answered\n")


def test_who_asks_twice_does_not_wait(
    head: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(self: RewardServer) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        pytest.fail("the second signal must interrupt")

    monkeypatch.setattr(RewardServer, "serve_forever", serve)
    monkeypatch.setattr(RewardServer, "shutdown", lambda _: None)
    # A process that was started in the background may ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["serve", head, "--model", model, "--port", "0"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
