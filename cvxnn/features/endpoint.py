"""Embeddings of replies by a server with the interface of OpenAI, ``POST /v1/embeddings``.

The server decides about model, layer and pooling: it sees each prompt with its reply as one text,
and gives one vector. Only the standard library is needed here.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn
from urllib.parse import urlsplit

import numpy as np

from cvxnn._progress import Progress
from cvxnn.features.blocks import missing_blocks
from cvxnn.features.description import ENDPOINT, Description
from cvxnn.features.store import FeatureWriter
from cvxnn.files.digests import digest
from cvxnn.preference.triplets import PreferenceTriplet, Prompt, as_text

KEY_VARIABLE = "OPENAI_API_KEY"
"""Variable of the environment with the key that the server is sent, if there is one."""

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}  # states of a server that may be over soon
_LONGEST = 60.0  # seconds between two tries, unless the server asks for more
_NO_CUT, _NO_DATE = 2**31 - 1, "1970-01-01"  # the server's own limit; no chat template is filled


class EndpointEmbedder:
    r"""Embedder of replies by a server with the interface of OpenAI.

    The text of a reply is its prompt, a blank line, and the reply; of a prompt of several messages,
    each message follows its role. A server that is busy (status 429 or 5xx, or no answer) is asked
    again: after as long as its header ``Retry-After`` says, otherwise after 1, 2, 4, ... seconds.
    While one request waits, none is sent.

    Parameters
    ----------
    url : str
        Address of the interface, such as ``"http://localhost:8000/v1"``.
    model : str
        Name of the model, as the server knows it.
    batch_size : int, default=64
        Number of texts in a request.
    n_requests : int, default=4
        Largest number of requests that run at a time.
    n_tries : int, default=8
        How often a request is sent before the work is given up.
    timeout : float, default=120.0
        Seconds to wait for an answer.
    progress : bool, default=False
        Whether to say on stderr how many replies are done and how long the rest will take.

    Raises
    ------
    ValueError
        If the address is not one of HTTP, or a number is below 1.

    Notes
    -----
    If the environment has ``OPENAI_API_KEY``, each request carries it as a bearer token.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        batch_size: int = 64,
        n_requests: int = 4,
        n_tries: int = 8,
        timeout: float = 120.0,
        progress: bool = False,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise ValueError(
                f"url is {url!r}; expected an address such as http://localhost:8000/v1"
            )
        if min(batch_size, n_requests, n_tries) < 1 or timeout <= 0:
            raise ValueError(
                f"batch_size is {batch_size}, n_requests {n_requests}, n_tries {n_tries} and "
                f"timeout {timeout}; expected at least 1 of each, and a timeout above 0"
            )
        self.url = url.rstrip("/")
        self.model = model
        self.batch_size = batch_size
        self.n_requests = n_requests
        self.n_tries = n_tries
        self.timeout = timeout
        self.progress = progress
        self._width: int | None = None
        self._not_before = 0.0  # when the server may be asked again
        self._stopped = threading.Event()

    @property
    def description(self) -> Description:
        """Description of the embeddings; the first access asks the server for one of them.

        The server's name of the model stands for the model: a server that changes it under that
        name is not noticed.
        """
        if self._width is None:
            self._width = len(self._request(["width"])[0])
        fingerprint = digest("endpoint", self.model, digits=64)
        return Description(
            model=self.model,
            fingerprint=fingerprint,
            fingerprint_float16=fingerprint,
            fingerprint_bfloat16=fingerprint,
            dtype="float32",
            layer=0,
            pooling=ENDPOINT,
            max_length=_NO_CUT,
            date=_NO_DATE,
            context=0,
            width=self._width,
        )

    def embed_pairs(self, pairs: Sequence[PreferenceTriplet]) -> tuple[np.ndarray, np.ndarray]:
        """Embed both replies of preference pairs, for ``fit_pairs`` of a head.

        Parameters
        ----------
        pairs : sequence of PreferenceTriplet
            The pairs.

        Returns
        -------
        chosen, rejected : ndarray of shape (n_pairs, width), float32
            Embeddings of the preferred replies, and of the others.

        Raises
        ------
        OSError
            If the server does not answer.
        ValueError
            If it refuses the texts, or answers something else.
        """
        texts = [text_of(p.prompt, reply) for p in pairs for reply in (p.chosen, p.rejected)]
        with ThreadPoolExecutor(self.n_requests) as pool:
            rows = self._embed(texts, pool)
        return rows[0::2], rows[1::2]

    def embed_to_file(
        self,
        path: str | os.PathLike[str],
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        common_cut: bool = False,
        rows: range | None = None,
    ) -> int:
        """Embed replies into a ``.npy`` file; the same call continues after an interruption.

        Parameters
        ----------
        path : path-like
            The file; ``PATH.json`` beside it has the description. ``read_features`` opens both.
        prompts : sequence of (str or list of Message)
            What is replied to.
        responses : sequence of str
            The replies, as many as there are prompts.
        common_cut : bool, default=False
            Has no effect: nothing is cut here.
        rows : range, optional
            Which of the replies are embedded, by default all.

        Returns
        -------
        int
            Number of rows.

        Raises
        ------
        OSError
            If the server does not answer; finished blocks are kept.
        ValueError
            If it refuses the texts, or answers something else.
        """
        part = slice(None) if rows is None else slice(rows.start, rows.stop)
        prompts, responses = prompts[part], responses[part]
        with (
            FeatureWriter(path, self.description) as file,
            Progress("embedding", len(prompts), "replies", show=self.progress) as bar,
            ThreadPoolExecutor(self.n_requests) as pool,
        ):
            for block in missing_blocks(file, prompts, responses, bar):
                texts = list(map(text_of, block.prompts, block.responses))
                file.append(self._embed(texts, pool), block.identity)
                bar.update(len(texts))
            file.finish()
        return file.n_rows

    def _embed(self, texts: list[str], pool: ThreadPoolExecutor) -> np.ndarray:
        """Return the vector of each text; equal ones are asked for once."""
        distinct = list(dict.fromkeys(texts))
        parts = [
            distinct[start : start + self.batch_size]
            for start in range(0, len(distinct), self.batch_size)
        ]
        self._stopped.clear()
        try:
            found = np.concatenate(list(pool.map(self._request, parts)))
        except BaseException:
            self._stopped.set()  # requests that wait for the server give up
            raise
        place = {text: i for i, text in enumerate(distinct)}
        vectors: np.ndarray = found[[place[text] for text in texts]]
        return vectors

    def _request(self, texts: list[str]) -> np.ndarray:
        """Return the vectors of the texts of one request, which is repeated while that may help."""
        body = {"model": self.model, "input": texts, "encoding_format": "float"}
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.url}/embeddings", json.dumps(body).encode(), headers, method="POST"
        )
        reason, pauses = "", _pauses()
        for _ in range(self.n_tries):
            self._wait()
            asked: float | None = None
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    content = answer.read()
                return self._vectors(content, len(texts))
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"status {error.code}: {_message(error)}"
                if error.code not in _PASSING:
                    self._refuse(error.code, reason)
                asked = _seconds_asked(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            pause = next(pauses)
            self._not_before = max(
                self._not_before, time.monotonic() + (pause if asked is None else asked)
            )
        raise OSError(
            f"{self.url} did not embed texts in {self.n_tries} tries ({reason}); what is finished "
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
        raise ValueError(f"{self.url} refused to embed texts by {self.model} ({reason}); {remedy}")

    def _vectors(self, content: bytes, n: int) -> np.ndarray:
        """Take the vectors out of an answer, in the order of the texts."""
        try:
            data = json.loads(content)["data"]
            by_place = {entry["index"]: entry["embedding"] for entry in data}
            rows = np.array([by_place[i] for i in range(n)], dtype=np.float32)
            if rows.ndim != 2 or len(data) != n or rows.shape[1] == 0:
                raise ValueError(f"{len(data)} vectors for {n} texts, or of several lengths")
            if self._width not in (None, rows.shape[1]):
                raise ValueError(f"vectors of {rows.shape[1]} numbers, after some of {self._width}")
            if not np.isfinite(rows).all():
                raise ValueError("numbers that are not finite")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.url}/embeddings answered {content[:80]!r}... to {n} texts ({error}); "
                "expected embeddings as OpenAI documents them"
            ) from error
        return rows


def text_of(prompt: Prompt, response: str) -> str:
    r"""Return the text that a server embeds for a reply.

    Parameters
    ----------
    prompt : str or list of Message
        What is replied to.
    response : str
        The reply.

    Returns
    -------
    str
        Prompt and reply, with a blank line between them.
    """
    return f"{as_text(prompt)}\n\n{response}"


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
