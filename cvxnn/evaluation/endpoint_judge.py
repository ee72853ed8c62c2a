"""Language models behind the interface of OpenAI as judges, ``POST /v1/chat/completions``."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cvxnn.features.endpoint_client import EndpointClient
from cvxnn.preference.triplets import Prompt, as_text

TEMPLATE = """\
Two assistants have answered the same request. Decide which of the two answers serves the person
who asks better. Look at whether an answer is correct, whether it does what the request asks, and
whether it is clear and complete. Neither the length of an answer nor its place may count.

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

First give your reasons in at most three sentences. Then end with one line of exactly this form:
Verdict: A
or
Verdict: B
or
Verdict: tie
"""
"""What a judge is asked; a template of your own has the same three placeholders."""

_PLACES = ("{prompt}", "{first}", "{second}")
_VERDICT = re.compile(r"verdict\W*(a|b|tie)\b", re.IGNORECASE)
_PREFERENCES = {"a": 1.0, "b": 0.0, "tie": 0.5}


class EndpointJudge(EndpointClient):
    """Judge that asks a language model behind the interface of OpenAI, one question a request.

    An answer without a verdict counts as a tie; `n_unclear` counts such answers. A server that is
    busy is asked again, see `cvxnn.features.endpoint_client.EndpointClient`. Give
    `compare_with_judge` a log: what is answered is then never asked, or paid, twice.

    Parameters
    ----------
    url : str
        Address of the interface, such as ``"http://localhost:8000/v1"``.
    model : str
        Name of the model, as the server knows it.
    template : str, optional
        Text of a question, with ``{prompt}``, ``{first}`` and ``{second}``; by default ``TEMPLATE``
        of this module. The answer has to hold
        "Verdict: A", "Verdict: B" or "Verdict: tie"; of several, the last one counts.
    max_tokens : int, default=256
        Largest number of tokens of an answer.
    token_budget : int, optional
        Number of tokens, of questions and answers, after which no further question is asked. They
        are counted as the server counts them, or else as a quarter of the characters.
    n_requests : int, default=4
        Number of questions that are asked at a time.
    n_tries : int, default=8
        How often a request is sent before the work is given up.
    timeout : float, default=120.0
        Seconds to wait for an answer.

    Attributes
    ----------
    tokens : int
        Tokens that were used so far.
    n_unclear : int
        Number of answers without a verdict so far.

    Raises
    ------
    ValueError
        If the address is not one of HTTP, a number is below 1, or the template lacks a placeholder.
    """

    _task = "judge replies"

    def __init__(
        self,
        url: str,
        model: str,
        *,
        template: str = TEMPLATE,
        max_tokens: int = 256,
        token_budget: int | None = None,
        n_requests: int = 4,
        n_tries: int = 8,
        timeout: float = 120.0,
    ) -> None:
        super().__init__(url, model, n_requests=n_requests, n_tries=n_tries, timeout=timeout)
        if missing := [place for place in _PLACES if place not in template]:
            raise ValueError(f"the template lacks {', '.join(missing)}; it has to show all three")
        if max_tokens < 1 or (token_budget is not None and token_budget < 1):
            raise ValueError(
                f"max_tokens is {max_tokens} and token_budget {token_budget}; expected at least 1"
            )
        self.template = template
        self.max_tokens = max_tokens
        self.token_budget = token_budget
        self.tokens = 0
        self.n_unclear = 0
        self._counting = threading.Lock()

    def batch(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str]
    ) -> list[float]:
        """Return the preferences for the first replies.

        Parameters
        ----------
        prompts : sequence of Prompt, length n
            The prompts.
        firsts, seconds : sequence of str, length n
            The replies shown first and second.

        Returns
        -------
        list of float, length n
            1, 0, or 0.5 for a tie.

        Raises
        ------
        OSError
            If the server does not answer.
        ValueError
            If it refuses the question or answers something else, or the tokens are used up.
        """
        self._stopped.clear()
        with ThreadPoolExecutor(self.n_requests) as pool:
            try:
                return list(pool.map(self.__call__, prompts, firsts, seconds))
            except BaseException:
                self._stopped.set()
                raise

    def __call__(self, prompt: Prompt, first: str, second: str) -> float:
        """Return the preference for the first reply: 1, 0, or 0.5 for a tie."""
        if self.token_budget is not None and self.tokens >= self.token_budget:
            raise ValueError(
                f"the budget of {self.token_budget:,} tokens is used up; raise it to continue"
            )
        texts = dict(zip(_PLACES, (as_text(prompt), first, second), strict=True))
        question = re.sub("|".join(map(re.escape, _PLACES)), lambda m: texts[m[0]], self.template)
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
            said = answer["choices"][0]["message"]["content"] or ""
            used = (answer.get("usage") or {}).get("total_tokens")
            found = _VERDICT.findall(said) or re.findall(r"^\W*(a|b|tie)\W*$", said.lower())
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{self.url}/chat/completions answered {content[:80]!r}... ({error!r}); expected a "
                "chat completion as OpenAI documents it"
            ) from error
        with self._counting:
            self.tokens += int(used) if used else (len(question) + len(said)) // 4
            self.n_unclear += not found
        return _PREFERENCES[found[-1].lower()] if found else 0.5
