from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn import LinearPreferenceHead
from cvxnn.features import (
    EndpointEmbedder,
    Shard,
    blocks,
    extract_pairs,
    extract_shard,
    merge_pairs,
)
from cvxnn.features.endpoint import text_of
from cvxnn.features.endpoint_client import KEY_VARIABLE
from cvxnn.features.shards import all_shards
from cvxnn.sharing import model_card

from .stand_in import letter_pairs

PAIRS = letter_pairs()


def vector(text: str) -> list[float]:
    return [text.count(letter) / 3 for letter in "abcd"]


class Server(ThreadingHTTPServer):
    """Answers as OpenAI documents it, in another order; `trouble` has answers to give first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.trouble: list[tuple[int, dict[str, str], Any]] = []
        self.largest = self.running = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        lock = self.server.__dict__.setdefault("lock", threading.Lock())
        with lock:
            self.server.running += 1
            self.server.largest = max(self.server.largest, self.server.running)
            self.server.requests.append(body)
            self.server.keys.append(self.headers["Authorization"])
            status, headers, answer = 200, {}, None
            if self.server.trouble:
                status, headers, answer = self.server.trouble.pop(0)
        if answer is None:
            data = [{"index": i, "embedding": vector(t)} for i, t in enumerate(body["input"])]
            answer = {"object": "list", "data": data[::-1], "model": body["model"]}
        assert self.path == "/v1/embeddings"
        content = json.dumps(answer).encode()
        with lock:
            self.server.running -= 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, which pass at once."""
    seen: list[float] = []

    def wait(self: EndpointEmbedder) -> None:
        now = time.monotonic()
        seen.extend([self._not_before - now] * (self._not_before > now))
        self._not_before = 0.0

    monkeypatch.setattr(EndpointEmbedder, "_wait", wait)
    return seen


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 16)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def test_rows_are_those_of_the_server(server: Server, tmp_path: Path) -> None:
    embedder = EndpointEmbedder(server.url + "/", "letters", batch_size=5)
    features = extract_pairs(embedder, PAIRS, tmp_path)
    for rows, replies in (
        (features.chosen, [p.chosen for p in PAIRS]),
        (features.rejected, [p.rejected for p in PAIRS]),
    ):
        texts = [text_of(p.prompt, reply) for p, reply in zip(PAIRS, replies, strict=True)]
        np.testing.assert_array_equal(rows, np.array([vector(t) for t in texts], np.float32))
    assert text_of([{"role": "user", "content": "Why?"}], "So.") == "User: Why?\n\nSo."
    assert features.embedding["pooling"] == "endpoint"
    assert features.embedding["width"] == 4
    assert max(len(body["input"]) for body in server.requests) == 5
    assert {body["model"] for body in server.requests} == {"letters"}
    assert 1 <= server.largest <= 4
    sent = [text for body in server.requests for text in body["input"]]
    assert len(sent) == 1 + 2 * len(PAIRS)  # one for the width
    assert server.keys[0] is None
    np.testing.assert_array_equal(embedder.embed_pairs(PAIRS)[1], features.rejected)
    found = embedder.embed([p.prompt for p in PAIRS], [p.chosen for p in PAIRS])
    np.testing.assert_array_equal(found, features.chosen)
    with pytest.raises(ValueError, match="as many of each"):
        embedder.embed(["a"], [])
    head = LinearPreferenceHead(embedding=features.embedding)
    head.fit_pairs(features.chosen, features.rejected)
    assert head.reward(features.chosen).shape == (len(PAIRS),)
    card = model_card(head)
    assert 'EndpointEmbedder("http://localhost:8000/v1", head.embedding["model"])' in card
    assert "| width | `4` |" in card
    assert "max_length" not in card


def test_equal_texts_are_sent_once(server: Server) -> None:
    EndpointEmbedder(server.url, "letters").embed_pairs([PAIRS[0]] * 9)
    assert [len(body["input"]) for body in server.requests] == [2]


def test_a_busy_server_is_asked_again(
    server: Server, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.trouble = [
        (429, {"Retry-After": "7"}, {"error": {"message": "slow down"}}),
        (503, {}, {}),
        (500, {"Retry-After": "soon"}, {}),
        (429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, {}),
    ]
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    embedder = EndpointEmbedder(server.url, "letters", n_requests=1)
    chosen, _ = embedder.embed_pairs(PAIRS[:2])
    np.testing.assert_allclose(chosen[:, 0], [1 / 3, 2 / 3])
    assert len(server.requests) == 5
    assert server.keys[0] == "Bearer secret"
    np.testing.assert_allclose(pauses, [7, 2, 4], atol=0.5)


def test_a_server_that_stays_busy_leaves_what_is_finished(
    server: Server, pauses: list[float], tmp_path: Path
) -> None:
    embedder = EndpointEmbedder(server.url, "letters", n_tries=2, n_requests=1)
    whole = extract_pairs(embedder, PAIRS, tmp_path / "whole")
    server.requests.clear()

    server.trouble = [(200, {}, None)] * 2 + [(429, {}, {"error": "busy"})] * 2
    with pytest.raises(OSError, match=r"in 2 tries \(status 429: busy\); what is finished is kept"):
        extract_pairs(embedder, PAIRS, tmp_path / "features")
    assert (tmp_path / "features" / "features.npy.part").exists()
    n = len(server.requests)
    features = extract_pairs(embedder, PAIRS, tmp_path / "features")
    assert len(server.requests) == n + 1  # two of three blocks were kept
    np.testing.assert_array_equal(features.chosen, whole.chosen)


def test_no_server(tmp_path: Path, pauses: list[float]) -> None:
    embedder = EndpointEmbedder("http://127.0.0.1:9/v1", "letters", n_tries=3)
    with pytest.raises(OSError, match=r"127.0.0.1:9/v1 cannot be reached \(.*refused"):
        extract_pairs(embedder, PAIRS, tmp_path)
    assert pauses == []


def test_a_server_that_answered_before_is_waited_for(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    embedder = EndpointEmbedder(server.url, "letters", n_tries=3)
    embedder.embed_pairs(PAIRS[:1])
    embedder.url = "http://127.0.0.1:9/v1"
    with pytest.raises(OSError, match=r"in 3 tries \(.*refused"):
        extract_pairs(embedder, PAIRS, tmp_path)
    np.testing.assert_allclose(pauses, [1, 2], atol=0.5)


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (400, {"error": {"message": "too long"}}, r"status 400: too long\).*short enough"),
        (404, {"message": "no such model"}, "no such model.*name right"),
        (401, "key!", "key!.*OPENAI_API_KEY"),
        (200, {"data": []}, "to 1 texts"),
        (200, {"data": [{"index": 0, "embedding": [1.0, float("nan")]}]}, "not finite"),
        (200, {"data": [{"index": 0, "embedding": 3}]}, "expected embeddings"),
        (200, [1], "expected embeddings"),
    ],
)
def test_other_answers_are_refused_at_once(
    server: Server, status: int, answer: Any, message: str
) -> None:
    server.trouble = [(status, {}, answer)]
    with pytest.raises(ValueError, match=message):
        _ = EndpointEmbedder(server.url, "letters").description
    assert len(server.requests) == 1


def test_shards_of_an_endpoint(server: Server, tmp_path: Path) -> None:
    embedder = EndpointEmbedder(server.url, "letters")
    extract_pairs(embedder, PAIRS, tmp_path / "whole")
    for shard in all_shards(3):
        extract_shard(embedder, PAIRS, tmp_path / "shards", Shard(shard.number, 3))
    merge_pairs(tmp_path / "shards")
    files = [tmp_path / name / "features.npy" for name in ("whole", "shards")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"n_tries": 0}, {"timeout": 0}])
def test_bad_settings(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        EndpointEmbedder("http://localhost", "m", **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected an address"):
        EndpointEmbedder("localhost:8000", "m")
