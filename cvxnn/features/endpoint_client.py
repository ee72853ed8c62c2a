"""Requests to a server with the interface of OpenAI, repeated while that may help.

Only the standard library is needed here.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn
from urllib.parse import urlsplit

KEY_VARIABLE = "OPENAI_API_KEY"
"""Variable of the environment with the key that the server is sent, if there is one."""

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}  # states of a server that may be over soon
_LONGEST = 60.0  # seconds between two tries, unless the server asks for more
# Errors of an address at which no server has answered yet: to wait and try again does not help.
_NOBODY = (ConnectionRefusedError, socket.gaierror)


class EndpointClient:
    """Client of a server with the interface of OpenAI.

    A server that is busy (status 408, 409, 425, 429, 500, 502, 503 or 504, or no answer) is asked
    again: after as long as its header ``Retry-After`` says, otherwise after 1, 2, 4, ... seconds,
    60 at most. While one request waits, none is sent. One that refuses the first connection is an
    error at once. If the environment has ``OPENAI_API_KEY``, each request carries it as a bearer
    token.

    Parameters
    ----------
    url : str
        Address of the interface, such as ``"http://localhost:8000/v1"``.
    model : str
        Name of the model, as the server knows it.
    n_requests : int, default=4
        Largest number of requests that run at a time.
    n_tries : int, default=8
        How often a request is sent before the work is given up.
    timeout : float, default=120.0
        Seconds to wait for an answer.

    Raises
    ------
    ValueError
        If the address is not one of HTTP, or a number is out of range.
    """

    _task: ClassVar[str] = "answer"  # what the server is asked to do, for messages

    def __init__(
        self,
        url: str,
        model: str,
        *,
        n_requests: int = 4,
        n_tries: int = 8,
        timeout: float = 120.0,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ValueError(
                f"url is {url!r}; expected an address such as http://localhost:8000/v1"
            )
        if min(n_requests, n_tries) < 1 or timeout <= 0:
            raise ValueError(
                f"n_requests is {n_requests}, n_tries {n_tries} and timeout {timeout}; expected at "
                "least 1 of each, and a timeout above 0"
            )
        self.url = url.rstrip("/")
        self.model = model
        self.n_requests = n_requests
        self.n_tries = n_tries
        self.timeout = timeout
        self._not_before = 0.0  # when the server may be asked again
        self._reached = False
        self._stopped = threading.Event()

    def _post(self, route: str, body: dict[str, Any]) -> bytes:
        """Return the answer to a request, which is repeated while that may help."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.url}/{route}", json.dumps(body).encode(), headers, method="POST"
        )
        reason, pauses = "", _pauses()
        for _ in range(self.n_tries):
            self._wait()
            asked: float | None = None
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    content: bytes = answer.read()
                self._reached = True
                return content
            except urllib.error.HTTPError as error:
                self._reached = True
                with error:
                    reason = f"status {error.code}: {_message(error)}"
                if error.code not in _PASSING:
                    self._refuse(error.code, reason)
                asked = _seconds_asked(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                cause = getattr(error, "reason", error)
                if isinstance(cause, _NOBODY) and not self._reached:
                    raise OSError(
                        f"{self.url} cannot be reached ({reason}); is the address right, and does "
                        "the server run?"
                    ) from error
            pause = next(pauses)
            self._not_before = max(
                self._not_before, time.monotonic() + (pause if asked is None else asked)
            )
        raise OSError(
            f"{self.url} did not {self._task} in {self.n_tries} tries ({reason}); what is finished "
            "is kept, so that the same call continues once the server answers"
        )

    def _wait(self) -> None:
        """Wait until the server may be asked."""
        while (left := self._not_before - time.monotonic()) > 0:
            if self._stopped.wait(left):
                raise OSError("another request failed")

    def _refuse(self, code: int, reason: str) -> NoReturn:
        remedy = "is the model's name right, and is each text short enough for it?"
        if code in (401, 403):
            remedy = f"set {KEY_VARIABLE} in the environment to a key that the server accepts"
        raise ValueError(f"{self.url} refused to {self._task} by {self.model} ({reason}); {remedy}")


def _pauses() -> Iterator[float]:
    """Yield the seconds to wait after each failure; 1, 2, 4, ..."""
    pause = 1.0
    while True:
        yield min(pause, _LONGEST)
        pause *= 2


def _seconds_asked(header: str | None) -> float | None:
    """Return how long a server asks to wait: it says seconds, or a date."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _message(error: urllib.error.HTTPError) -> str:
    """Return what a server says about an error."""
    content = error.read(2000).decode("utf-8", errors="replace")
    try:
        said: Any = json.loads(content)
        said = said.get("error", said.get("message", said))
        text = said.get("message", said) if isinstance(said, dict) else said
    except (ValueError, AttributeError):
        text = content
    return " ".join(str(text).split())[:300] or error.reason
