"""Server of rewards over HTTP, by the standard library alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from cvxnn.llm.decoding.scoring import RewardHead
from cvxnn.llm.embeddings import Embedder
from cvxnn.preference.text_checks import check_is_text, check_prompt
from cvxnn.preference.triplets import Prompt

_PLACES = "POST /score, POST /rank and GET /healthz"


class _RefusedError(Exception):
    """Request that is answered by an error; its first argument is the status."""


class RewardServer(ThreadingHTTPServer):
    """Server that scores and ranks replies by a head.

    ``POST /score`` takes ``{"pairs": [{"prompt": ..., "response": ...}, ...]}`` and answers
    ``{"rewards": [...]}``. ``POST /rank`` takes ``{"prompt": ..., "responses": [...]}`` and answers
    ``{"order": [...], "rewards": [...]}``, the numbers of the replies from the best on and their
    rewards in the order of the request. ``GET /healthz`` says which model is served. A prompt is a
    text or a list of messages. An error is ``{"error": ...}`` with a status of 400 or above. The
    replies of a request are embedded as one batch; requests take turns.

    Parameters
    ----------
    head : RewardHead
        Fitted head.
    embedder : Embedder
        Makes the embeddings that the head was fitted to.
    host : str, default="127.0.0.1"
        Address to listen at. Whoever reaches it may use the server: there are no passwords.
    port : int, default=8000
        Port to listen at; 0 takes one that is free.
    max_replies : int, default=64
        Largest number of replies in a request.
    max_bytes : int, default=1048576
        Largest size of a request.

    Attributes
    ----------
    server_address : tuple of (str, int)
        Address and port.

    Raises
    ------
    OSError
        If the port is taken; choose another one.
    """

    daemon_threads = True

    def __init__(
        self,
        head: RewardHead,
        embedder: Embedder,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        max_replies: int = 64,
        max_bytes: int = 1_048_576,
    ) -> None:
        self.head = head
        self.embedder = embedder
        self.max_replies = max_replies
        self.max_bytes = max_bytes
        self.turn = threading.Lock()
        super().__init__((host, port), _Handler)

    def answer(self, path: str, request: Any) -> Mapping[str, Any]:
        """Return the answer to a request.

        Parameters
        ----------
        path : str
            ``"/score"`` or ``"/rank"``.
        request : object
            The body, as JSON holds it.

        Returns
        -------
        mapping
            The answer.
        """
        if not isinstance(request, dict):
            raise ValueError("the body is not an object; expected one")
        if path == "/score":
            pairs = self._list(request, "pairs")
            if not all(isinstance(pair, dict) for pair in pairs):
                raise ValueError("pairs: expected objects with 'prompt' and 'response'")
            prompts = [pair.get("prompt") for pair in pairs]
            return {"rewards": self._rewards(prompts, [pair.get("response") for pair in pairs])}
        responses = self._list(request, "responses")
        prompts = [request.get("prompt")] * len(responses)
        rewards = self._rewards(prompts, responses, common_cut=True)
        order = np.argsort(-np.array(rewards), kind="stable")
        return {"order": order.tolist(), "rewards": rewards}

    def _list(self, request: dict[str, Any], name: str) -> list[Any]:
        values = request.get(name)
        if not isinstance(values, list) or not values:
            raise ValueError(f"{name}: expected a list with at least one entry")
        if len(values) > self.max_replies:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            raise _RefusedError(
                status, f"{len(values)} replies; expected at most {self.max_replies}"
            )
        return values

    def _rewards(
        self, prompts: list[Prompt | Any], responses: list[Any], *, common_cut: bool = False
    ) -> list[float]:
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            if prompt is None or response is None:
                raise ValueError(f"reply {i} lacks its prompt or its response")
            check_prompt(prompt, f"prompt {i}")
            check_is_text(response, f"response {i}")
        with self.turn:
            X = self.embedder.embed(prompts, responses, common_cut=common_cut)
            rewards = np.asarray(self.head.reward(X), float)
        found: list[float] = rewards.tolist()
        return found


class _Handler(BaseHTTPRequestHandler):
    server: RewardServer
    timeout = 60.0  # seconds that a client may take to send its request

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._send(HTTPStatus.OK, {"status": "ok", "model": self.server.embedder.lm.name})
        else:
            self._send(HTTPStatus.NOT_FOUND, {"error": f"no {self.path}; expected {_PLACES}"})

    def do_POST(self) -> None:
        try:
            if self.path not in ("/score", "/rank"):
                raise _RefusedError(HTTPStatus.NOT_FOUND, f"no {self.path}; expected {_PLACES}")
            answer = self.server.answer(self.path, self._body())
        except _RefusedError as error:
            self._send(error.args[0], {"error": error.args[1]})
        except (ValueError, TypeError) as error:
            self._send(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        except Exception as error:
            self._send(
                HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{type(error).__name__}: {error}"}
            )
        else:
            self._send(HTTPStatus.OK, answer)

    def log_message(self, *arguments: Any) -> None:
        """Write no line for each request: texts of users do not belong into a log."""

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "the request has no Content-Length")
        if int(length) > self.server.max_bytes:
            text = f"{length} bytes; expected at most {self.server.max_bytes}"
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        try:
            return json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise ValueError(f"the body is not JSON: {error}") from error

    def _send(self, status: HTTPStatus, answer: Mapping[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status != HTTPStatus.OK:
            self.send_header("Connection", "close")  # what was not read is not taken for a request
            self.close_connection = True
        self.end_headers()
        self.wfile.write(content)
