"""The example of best of n, with a stand-in for a server that writes and one that rewards."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import cvxnn
from cvxnn.llm import Embedder, RewardServer, choose_reply, load_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "best_of_n.py"
TEXTS = ["q r", "", "b c", "s t t", "a b a"]


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("best_of_n", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def served(answer: Callable[[str, Any], Any]) -> Iterator[str]:
    """Give the address of a server that answers requests by a function of path and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                content, status = json.dumps(answer(self.path, body)).encode(), 200
            except ValueError as error:
                content, status = str(error).encode(), 400
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_best_of_what_another_server_writes(
    example: Any, head: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def write(path: str, body: dict[str, Any]) -> Any:
        assert path == "/v1/chat/completions"
        asked.append(body)
        first = 2 * (len(asked) - 1)  # two at a time, however many are asked for
        replies = [{"message": {"content": text}} for text in TEXTS[first : first + 2]]
        return {"choices": replies}

    loaded = cvxnn.load(head)
    lm = load_model(model, dtype="float32")
    embedder = Embedder.from_description(lm, loaded.embedding)
    with served(write) as generator, RewardServer(loaded, embedder, port=0) as rewards:
        threading.Thread(target=rewards.serve_forever, args=[0.02], daemon=True).start()
        host, port = rewards.server_address[:2]
        places = ["--generator", f"{generator}/v1/", "--rewards", f"http://{host!s}:{port}"]
        example.main(["a b", *places, "-n", "4", "--model", "m"])
        rewards.shutdown()
    assert [body["n"] for body in asked] == [4, 3, 1]  # one of them was empty
    assert asked[0]["messages"] == [{"role": "user", "content": "a b"}]
    assert (asked[0]["model"], asked[0]["temperature"]) == ("m", 1.0)
    written = [text for text in TEXTS if text]
    best, values = choose_reply(lm, loaded, "a b", written)
    said = capsys.readouterr()
    assert said.out == f"{written[best]}\n"
    assert [float(line[:8]) for line in said.err.splitlines()] == pytest.approx(values, abs=2e-3)


def test_errors_say_which_server_and_what_it_said(example: Any) -> None:
    def refuse(path: str, body: Any) -> Any:
        raise ValueError("no such model")

    with (
        served(refuse) as address,
        pytest.raises(SystemExit, match="chat/completions answers 400: no such model"),
    ):
        example.main(["a", "--generator", address])
    with pytest.raises(SystemExit, match=r"cannot be reached .*is the server running there"):
        example.main(["a", "--generator", address])
    with (
        served(lambda *_: {"choices": [{"message": {"content": None}}]}) as address,
        pytest.raises(SystemExit, match="wrote no text"),
    ):
        example.main(["a", "--generator", address, "-n", "1"])
