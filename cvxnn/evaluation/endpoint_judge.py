"""Language models behind the interface of OpenAI as judges, ``POST /v1/chat/completions``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cvxnn.evaluation.arena_hard import VERDICTS
from cvxnn.evaluation.chat_client import ChatClient
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

_VERDICT = re.compile(r"verdict\W*(a|b|tie)\b", re.IGNORECASE)
_PREFERENCES = {"a": 1.0, "b": 0.0, "tie": 0.5}
_LEVEL = re.compile(r"\[\[\s*(A>>B|A>B|A=B|B>A|B>>A|A|B|C)\s*\]\]")  # of Arena-Hard, MT-Bench
_LEVELS = {**VERDICTS, "A": 1.0, "B": 0.0, "C": 0.5}
_MODEL = re.compile(r"(?:^|[Vv]erdict\W*)(m|M)\W*$", re.MULTILINE)  # of AlpacaEval


class EndpointJudge(ChatClient):
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
        of this module; `cvxnn.evaluation.protocols.PAIR_TEMPLATES` has those of benchmarks.
        The answer has to hold "Verdict: A", "Verdict: B" or "Verdict: tie", a level such as
        ``[[A>>B]]`` (how clear a win is does not count), or the name m or M of a model as
        AlpacaEval writes it; of several, the last one counts.
    max_tokens : int, default=1024
        Largest number of tokens of an answer. Some templates ask for an answer of the judge's own
        before the verdict, which is lost where the tokens end before it.
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
    places = ("{prompt}", "{first}", "{second}")
    default_template = TEMPLATE
    n_unclear = 0

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
        self.resume()
        with ThreadPoolExecutor(self.n_requests) as pool:
            try:
                return list(pool.map(self.__call__, prompts, firsts, seconds))
            except BaseException:
                self.stop()
                raise

    def __call__(self, prompt: Prompt, first: str, second: str) -> float:
        """Return the preference for the first reply: 1, 0, or 0.5 for a tie."""
        texts = dict(zip(self.places, (as_text(prompt), first, second), strict=True))
        found = preference_in(self.ask(texts))
        with self.counting:
            self.n_unclear += found is None
        return 0.5 if found is None else found


def preference_in(answer: str) -> float | None:
    """Return the preference for the first reply that an answer of a judge states.

    Parameters
    ----------
    answer : str
        What the judge said, in any of the forms that `EndpointJudge` lists.

    Returns
    -------
    float or None
        1, 0, or 0.5 for a tie; None if there is no verdict.
    """
    if levels := _LEVEL.findall(answer):
        return _LEVELS[levels[-1]]
    if verdicts := _VERDICT.findall(answer) or re.findall(r"^\W*(a|b|tie)\W*$", answer.lower()):
        return _PREFERENCES[verdicts[-1].lower()]
    if models := _MODEL.findall(answer.strip()):
        return float(models[-1] == "m")
    return None
