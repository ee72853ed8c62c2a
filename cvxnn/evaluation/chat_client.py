"""Questions to a language model behind the interface of OpenAI, within a budget of tokens."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from typing import ClassVar

from cvxnn.features.endpoint_client import EndpointClient


class ChatClient(EndpointClient):
    """Client that fills a template, asks one question a request, and counts tokens.

    Parameters
    ----------
    url : str
        Address of the interface, such as ``"http://localhost:8000/v1"``.
    model : str
        Name of the model, as the server knows it.
    template : str, optional
        Text of a question, which shows all ``places``; by default ``default_template``.
    max_tokens : int, default=1024
        Largest number of tokens of an answer. Some templates ask for an answer of the judge's own
        before the verdict, which is lost where the tokens end before it.
    token_budget : int, optional
        Number of tokens, of questions and answers, after which no further question is asked.
    n_requests : int, default=4
        Number of questions that are asked at a time.
    n_tries : int, default=8
        How often a request is sent before the work is given up.
    timeout : float, default=120.0
        Seconds to wait for an answer.

    Attributes
    ----------
    places : tuple of str
        Placeholders, such as ``{prompt}``, one for each text; set on the class.
    default_template : str
        Text of a question; set on the class.
    tokens : int
        Tokens that were used so far.
    counting : threading.Lock
        Held while what several requests share is changed.

    Raises
    ------
    ValueError
        If a number is below 1, or the template lacks a placeholder.
    """

    places: ClassVar[tuple[str, ...]]
    default_template: ClassVar[str]

    def __init__(
        self,
        url: str,
        model: str,
        *,
        template: str | None = None,
        max_tokens: int = 1024,
        token_budget: int | None = None,
        n_requests: int = 4,
        n_tries: int = 8,
        timeout: float = 120.0,
    ) -> None:
        super().__init__(url, model, n_requests=n_requests, n_tries=n_tries, timeout=timeout)
        template = self.default_template if template is None else template
        if missing := [place for place in self.places if place not in template]:
            raise ValueError(
                f"the template lacks {', '.join(missing)}; it has to show all of "
                f"{', '.join(self.places)}"
            )
        if max_tokens < 1 or (token_budget is not None and token_budget < 1):
            raise ValueError(
                f"max_tokens is {max_tokens} and token_budget {token_budget}; expected at least 1"
            )
        self.template = template
        self.max_tokens = max_tokens
        self.token_budget = token_budget
        self.tokens = 0
        self.counting = threading.Lock()

    def ask(self, texts: Mapping[str, str]) -> str:
        """Return the answer to one question.

        Parameters
        ----------
        texts : mapping of str to str
            Text for each placeholder. What looks like a placeholder in a text is none.

        Returns
        -------
        str
            The answer.

        Raises
        ------
        OSError
            If the server does not answer.
        ValueError
            If it refuses the question or answers something else, or the tokens are used up.
        """
        if self.token_budget is not None and self.tokens >= self.token_budget:
            raise ValueError(
                f"the budget of {self.token_budget:,} tokens is used up; raise it to continue"
            )
        question = re.sub("|".join(map(re.escape, texts)), lambda m: texts[m[0]], self.template)
        content = self._post(
            "chat/completions",
            {
                "model": self.model,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": self.max_tokens,
                "temperature": 0,
            },
        )
        try:
            answer = json.loads(content)
            said = str(answer["choices"][0]["message"]["content"] or "")
            used = (answer.get("usage") or {}).get("total_tokens")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{self.url}/chat/completions answered {content[:80]!r}... ({error!r}); expected a "
                "chat completion as OpenAI documents it"
            ) from error
        with self.counting:
            self.tokens += int(used) if used else (len(question) + len(said)) // 4
        return said

    def stop(self) -> None:
        """Let requests that wait for the server give up."""
        self._stopped.set()

    def resume(self) -> None:
        """Let requests wait for the server again."""
        self._stopped.clear()
