"""Measures of replies that no head sees: length, how likely the model finds them, repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cvxnn.llm.log_probabilities import response_log_probabilities
from cvxnn.llm.models import LanguageModel
from cvxnn.preference.triplets import Prompt

_RUN = 3  # tokens of a run that counts as repeated


class ReplyMeasures(NamedTuple):
    """Measures of a reply that stand beside its reward.

    Attributes
    ----------
    n_tokens : int
        Number of tokens of the reply.
    log_probability : float or None
        Mean natural logarithm of the probability of a token, given the prompt and the tokens before
        it, under the model at temperature 1; None for an empty reply.
    repetition : float
        Share of the runs of three tokens that were in the reply before, in [0, 1].
    """

    n_tokens: int
    log_probability: float | None
    repetition: float


def measure_replies(
    lm: LanguageModel, prompt: Prompt, replies: Sequence[str]
) -> list[ReplyMeasures]:
    """Measure replies to one prompt.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    prompt : str or list of Message
        What is replied to; it goes through the model once for all replies.
    replies : sequence of str
        The replies; empty ones have no tokens.

    Returns
    -------
    list of ReplyMeasures
        One for each reply.

    Examples
    --------
    >>> from cvxnn.llm import load_model, measure_replies
    >>> measure_replies(load_model(), "2 + 2?", ["4", "Four."])    # doctest: +SKIP
    """
    filled = [reply for reply in replies if reply.strip()]
    if not filled:
        return [ReplyMeasures(0, None, 0.0)] * len(replies)
    limit = lm.context_length or 2**31
    sums, lengths = response_log_probabilities(
        lm, [prompt] * len(filled), filled, max_length=limit, end_of_turn=False
    )
    found = (
        ReplyMeasures(int(length), float(total) / int(length), repetition(tokens))
        for tokens, total, length in zip(lm.encode_responses(filled), sums, lengths, strict=True)
    )
    return [next(found) if reply.strip() else ReplyMeasures(0, None, 0.0) for reply in replies]


def repetition(tokens: Sequence[int]) -> float:
    """Return the share of the runs of three tokens that came before.

    Parameters
    ----------
    tokens : sequence of int
        Tokens of a reply.

    Returns
    -------
    float
        In [0, 1]; 0 for fewer than four tokens.
    """
    runs = [tuple(tokens[i : i + _RUN]) for i in range(len(tokens) - _RUN + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0
