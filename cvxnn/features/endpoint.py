"""Embeddings of replies by a server with the interface of OpenAI, ``POST /v1/embeddings``.

The server decides about model, layer and pooling: it sees each prompt with its reply as one text,
and gives one vector. Only the standard library is needed here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cvxnn._messages import counted
from cvxnn._progress import Progress
from cvxnn.features.blocks import missing_blocks
from cvxnn.features.description import ENDPOINT, Description
from cvxnn.features.endpoint_client import EndpointClient
from cvxnn.features.writer import FeatureWriter
from cvxnn.files.digests import digest
from cvxnn.preference.triplets import PreferenceTriplet, Prompt, as_text

_NO_CUT, _NO_DATE = 2**31 - 1, "1970-01-01"  # the server's own limit; no chat template is filled


class EndpointEmbedder(EndpointClient):
    r"""Embedder of replies by a server with the interface of OpenAI.

    The text of a reply is its prompt, a blank line, and the reply; of a prompt of several messages,
    each message follows its role. A server that is busy is asked again, as ``EndpointClient`` of
    ``cvxnn.features.endpoint_client`` says.

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

    _task = "embed texts"

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
        super().__init__(url, model, n_requests=n_requests, n_tries=n_tries, timeout=timeout)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        self.batch_size = batch_size
        self.progress = progress
        self._width: int | None = None

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
        prompts = [pair.prompt for pair in pairs for _ in range(2)]
        rows = self.embed(prompts, [reply for p in pairs for reply in (p.chosen, p.rejected)])
        return rows[0::2], rows[1::2]

    def embed(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Embed the reply of each pair, given its prompt.

        Parameters
        ----------
        prompts : sequence of (str or list of Message), length n
            What is replied to.
        responses : sequence of str, length n
            The replies.

        Returns
        -------
        ndarray of shape (n, width), float32
            One embedding for each pair.

        Raises
        ------
        OSError
            If the server does not answer.
        ValueError
            If there is no pair, the numbers of prompts and responses differ, the server refuses the
            texts, or answers something else.
        """
        if len(prompts) != len(responses) or len(prompts) == 0:
            raise ValueError(
                f"{counted(len(prompts), 'prompt')} and {counted(len(responses), 'response')}; "
                "expected as many of each, and at least one"
            )
        with ThreadPoolExecutor(self.n_requests) as pool:
            return self._embed(list(map(text_of, prompts, responses)), pool)

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
        """Return the vectors of the texts of one request."""
        body = {"model": self.model, "input": texts, "encoding_format": "float"}
        return self._vectors(self._post("embeddings", body), len(texts))

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
