"""Server of rewards over HTTP, by the standard library alone."""

from __future__ import annotations

import json
import queue
import socket
import sys
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypedDict

import numpy as np

from cvxnn.llm.cutting import cut_pairs, longest_replies
from cvxnn.llm.decoding.scoring import RewardHead, check_embedder
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.reward_queue import RewardQueue
from cvxnn.preference.text_checks import check_is_text, check_prompt, kind
from cvxnn.preference.triplets import Prompt

_ROUTES = {"/score": "POST", "/rank": "POST", "/healthz": "GET"}
_FORMS = {
    "/score": '{"pairs": [{"prompt": ..., "response": ...}, ...]}',
    "/rank": '{"prompt": ..., "responses": [...]}',
}
_PLACES = "POST /score, POST /rank and GET /healthz"


class _Rewards(TypedDict):
    rewards: list[float]
    cut: int


class _RefusedError(Exception):
    """Request that is answered by an error: its status and its text."""


class RewardServer(ThreadingHTTPServer):
    """Server that scores and ranks replies by a head.

    ``POST /score`` takes ``{"pairs": [{"prompt": ..., "response": ...}, ...]}`` and answers
    ``{"rewards": [...], "cut": n}``. ``POST /rank`` takes ``{"prompt": ..., "responses": [...]}``
    and answers ``{"order": [...], "rewards": [...], "cut": n}``, the numbers of the replies from
    the best on and their rewards in the order of the request. In both, n is the number of replies
    that were longer, with their prompts, than the embeddings of the head allow, and were cut as in
    training. ``GET /healthz`` says which model is served and what the limits are. A prompt is a
    text or a list of messages. An error is ``{"error": ...}`` with a status of 400 or above.

    Replies of requests that arrive at the same time go through the model together. To be closed,
    the server answers the requests that it has.

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
        Largest number of replies in a request, and in a batch of several requests.
    max_bytes : int, default=1048576
        Largest size of a request.
    max_wait : float, default=0.005
        Seconds that a request waits for others that share its batch.
    max_waiting : int, default=1024
        Largest number of replies that wait; further requests are refused and may be repeated.
    max_seconds : float, default=60.0
        Seconds after which a request that still waits for its turn is given up.

    Attributes
    ----------
    server_address : tuple of (str, int)
        Address and port.

    Raises
    ------
    OSError
        If the port is taken; choose another one.
    ValueError
        If the head says that it was fitted to other embeddings; make the embedder by
        ``Embedder.from_description(lm, head.embedding)``.
    """

    daemon_threads = False  # server_close waits for them
    request_queue_size = 128

    def __init__(
        self,
        head: RewardHead,
        embedder: Embedder,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        max_replies: int = 64,
        max_bytes: int = 1_048_576,
        max_wait: float = 0.005,
        max_waiting: int = 1024,
        max_seconds: float = 60.0,
    ) -> None:
        check_embedder(head, embedder)
        self.head = head
        self.embedder = embedder
        self.max_replies = max_replies
        self.max_bytes = max_bytes
        self.max_seconds = max_seconds
        self.queue = RewardQueue(
            head,
            embedder.token_embedder(),
            max_batch=max_replies,
            max_wait=max_wait,
            max_waiting=max_waiting,
        )
        self._tokenizer = threading.Lock()  # tokenizers refuse a second thread
        super().__init__((host, port), _Handler)

    def server_close(self) -> None:
        """Stop listening, answer the requests that have arrived, and end."""
        super().server_close()
        self.queue.close()

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Say on stderr what went wrong, unless a client has gone before it had its answer.

        Parameters
        ----------
        request : socket
            Connection of the request.
        client_address : tuple
            Address of the client.
        """
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def health(self) -> dict[str, str | int]:
        """Return what ``GET /healthz`` answers.

        Returns
        -------
        dict
            The name of the model, the limits of a request, and how many replies wait.
        """
        return {
            "status": "ok",
            "model": self.embedder.lm.name,
            "max_replies": self.max_replies,
            "max_bytes": self.max_bytes,
            "max_tokens": self.embedder.limit,
            "waiting": self.queue.waiting,
        }

    def answer(self, path: str, request: object) -> Mapping[str, object]:
        """Return the answer to a request.

        Parameters
        ----------
        path : str
            ``"/score"`` or ``"/rank"``.
        request : object
            The body, as JSON holds it.

        Returns
        -------
        dict
            The answer.
        """
        if not isinstance(request, dict):
            raise ValueError(f"the body is {kind(request)}; expected an object, {_FORMS[path]}")
        if path == "/score":
            pairs = self._list(path, request, "pairs")
            if not all(isinstance(pair, dict) for pair in pairs):
                raise ValueError("pairs: expected objects with 'prompt' and 'response'")
            prompts = [pair.get("prompt") for pair in pairs]
            return self._rewards(prompts, [pair.get("response") for pair in pairs])
        responses = self._list(path, request, "responses")
        found = self._rewards([request.get("prompt")] * len(responses), responses, common_cut=True)
        order = np.argsort(-np.array(found["rewards"]), kind="stable")
        return {"order": order.tolist(), **found}

    def _list(self, path: str, request: dict[str, Any], name: str) -> list[Any]:
        values = request.get(name)
        if not isinstance(values, list) or not values:
            raise ValueError(
                f"{name}: expected a list with at least one entry; send {_FORMS[path]}"
            )
        if len(values) > self.max_replies:
            raise _RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{len(values)} replies; expected at most {self.max_replies}: send them in several "
                "requests",
            )
        return values

    def _rewards(
        self, prompts: list[Prompt | Any], responses: list[Any], *, common_cut: bool = False
    ) -> _Rewards:
        for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            if prompt is None or response is None:
                raise ValueError(
                    f"reply {i} lacks its prompt or its response; both are needed to score it"
                )
            check_prompt(prompt, f"prompt {i}")
            check_is_text(response, f"response {i}")
        lm, limit = self.embedder.lm, self.embedder.limit
        with self._tokenizer:
            reserved = longest_replies(lm, prompts, responses) if common_cut else None
            items, cut = cut_pairs(lm, prompts, responses, limit, reserved)
        try:
            future = self.queue.submit(items)
        except queue.Full:
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{self.queue.waiting} replies wait already; send the request again in a while",
            ) from None
        try:
            return {"rewards": future.result(self.max_seconds), "cut": cut.n_prompts}
        except TimeoutError:
            future.cancel()
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"no reward after {self.max_seconds:g} seconds; send fewer replies at once, or "
                "start the server with a larger max_seconds",
            ) from None


class _Handler(BaseHTTPRequestHandler):
    server: RewardServer
    timeout = 10.0  # seconds that a client may pause while it sends its request

    def do_GET(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()

    def log_message(self, *arguments: object) -> None:
        """Write no line for each request: texts of users do not belong into a log."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a malformed request in JSON; the standard library would send a page."""
        text = message or HTTPStatus(code).phrase
        self._send(HTTPStatus(code), {"error": f"{text}; expected {_PLACES}"})

    def _reply(self) -> None:
        path = self.path.partition("?")[0]
        try:
            if path not in _ROUTES:
                raise _RefusedError(HTTPStatus.NOT_FOUND, f"no {path}; expected {_PLACES}")
            if self.command != _ROUTES[path]:
                status = HTTPStatus.METHOD_NOT_ALLOWED
                raise _RefusedError(status, f"{self.command} {path}; expected {_PLACES}")
            if path == "/healthz":
                answer: Mapping[str, object] = self.server.health()
            else:
                answer = self.server.answer(path, self._body(path))
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

    def _body(self, path: str) -> object:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _RefusedError(
                HTTPStatus.LENGTH_REQUIRED,
                "the request has no Content-Length; send one, and the body in one piece",
            )
        most = self.server.max_bytes
        if int(length) > most:
            self._drain(min(int(length), 16 * most))
            text = f"{length} bytes; expected at most {most}: send the replies in several requests"
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        try:
            return json.loads(self.rfile.read(int(length)))
        except TimeoutError:
            text = f"fewer than the {length} bytes of Content-Length arrived; send all of them"
            raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, text) from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the body is not JSON ({error}); send {_FORMS[path]}") from error

    def _drain(self, n_bytes: int) -> None:
        """Read what is not used, so that the client has sent it and listens to the answer."""
        while n_bytes > 0 and (part := self.rfile.read(min(n_bytes, 1 << 16))):
            n_bytes -= len(part)

    def _send(self, status: HTTPStatus, answer: Mapping[str, object]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(content)
