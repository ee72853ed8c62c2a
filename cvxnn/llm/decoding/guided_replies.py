"""Replies written under the guidance of a reward head."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

from cvxnn._messages import warn
from cvxnn.llm.decoding.guidance import Guidance
from cvxnn.llm.decoding.reply_text import ReplyText
from cvxnn.llm.decoding.rules import Ending, Proposer, draw_candidate
from cvxnn.llm.decoding.scoring import DescribedHead, Scorer
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.models import LanguageModel
from cvxnn.preference.text_checks import check_is_text
from cvxnn.preference.triplets import Prompt


class GuidedReply(NamedTuple):
    """Reply of guided decoding, with the decisions that led to it.

    Attributes
    ----------
    text : str
        The reply, with the beginning that was given and without the stop string.
    tokens : list of int
        Tokens of the reply, those of the beginning included, without the one that ends it.
    n_given : int
        Number of tokens of the beginning.
    ending : {"end", "stop", "length"}
        Whether the model ended the reply, a stop string was written, or `max_new_tokens` were
        reached.
    rewards : ndarray of shape (n_decisions,)
        Reward of the reply after each decision, equal to that of `Embedder` and ``head.reward`` for
        the tokens so far.
    scores : ndarray of shape (n_decisions, n_candidates)
        Scores as in `Guidance`; -inf where there were fewer candidates (in token mode, if `top_p`
        or `top_k` leave fewer).
    chosen : ndarray of shape (n_decisions,), int
        Number of the candidate that was taken.
    """

    text: str
    tokens: list[int]
    n_given: int
    ending: Ending
    rewards: np.ndarray
    scores: np.ndarray
    chosen: np.ndarray


def generate_guided(
    lm: LanguageModel,
    head: DescribedHead,
    prompt: Prompt,
    guidance: Guidance | None = None,
    *,
    reply_start: str = "",
    stream: Callable[[str], None] | None = None,
) -> GuidedReply:
    """Write a reply under the guidance of a head.

    The prompt goes through the model once, and so does each token of each candidate; the embeddings
    for the head come from those passes. The global random state is not changed.

    Parameters
    ----------
    lm : LanguageModel
        The model whose embeddings the head was fitted to.
    head : object with ``reward(X) -> (n,)`` and ``embedding``
        A fitted head, with the description of its embeddings.
    prompt : str or list of Message
        What to reply to.
    guidance : Guidance, optional
        Settings; the defaults of `Guidance` if not given.
    reply_start : str, default=""
        Beginning of the reply; white space at its end is best avoided.
    stream : callable, optional
        Function that is called with each piece of the text as soon as it is decided.

    Returns
    -------
    GuidedReply
        The reply, with the decisions that led to it.

    Raises
    ------
    ValueError
        If the head has no description, the model is not the one described or is in training mode,
        the prompt is empty, there is no room for it, or rewards are not finite.

    Examples
    --------
    >>> from cvxnn.llm import Guidance, generate_guided, load_model
    >>> guidance = Guidance(weight=2.0, max_new_tokens=40)
    >>> generate_guided(load_model(), head, "Hello!", guidance).text  # doctest: +SKIP
    """
    pieces = stream_guided(lm, head, prompt, guidance, reply_start=reply_start)
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            reply: GuidedReply = end.value
            return reply
        if stream is not None:
            stream(piece)


def stream_guided(
    lm: LanguageModel,
    head: DescribedHead,
    prompt: Prompt,
    guidance: Guidance | None = None,
    *,
    reply_start: str = "",
) -> Generator[str, None, GuidedReply]:
    """Write a reply under the guidance of a head, and yield its text in pieces.

    Parameters
    ----------
    lm : LanguageModel
        The model whose embeddings the head was fitted to.
    head : object with ``reward(X) -> (n,)`` and ``embedding``
        A fitted head, with the description of its embeddings.
    prompt : str or list of Message
        What to reply to.
    guidance : Guidance, optional
        Settings; the defaults of `Guidance` if not given.
    reply_start : str, default=""
        Beginning of the reply; white space at its end is best avoided.

    Yields
    ------
    str
        A piece of the text, as soon as it is decided. The first one is `reply_start`, if there is
        one.

    Returns
    -------
    GuidedReply
        The reply, as the value of the ``StopIteration``.

    Raises
    ------
    ValueError
        As `generate_guided` does.
    """
    guidance = Guidance() if guidance is None else guidance
    check_is_text(reply_start, "reply_start")
    score = Scorer(lm, head, guidance)
    [start] = lm.encode_responses([reply_start]) if reply_start else [[]]
    tokens = _prompt_tokens(score.embedder, prompt, len(start), guidance)
    text = ReplyText(lm, start, reply_start, guidance.stop)
    propose = Proposer(lm, guidance, text, len(start))
    return _write(tokens, start, guidance, propose, score, text)


def _write(
    prompt: list[int],
    start: list[int],
    guidance: Guidance,
    propose: Proposer,
    score: Scorer,
    text: ReplyText,
) -> Generator[str, None, GuidedReply]:
    rng = np.random.default_rng(guidance.seed)
    given = text.read([], ended=False)
    if given:
        yield given
    branches = score.branches(prompt + start, len(prompt))
    tokens: list[int] = []
    ending: Ending | None = None
    scores, embeddings, chosen = [], [], []
    while ending is None:
        candidates = propose(branches, tokens)
        values, vectors = score(branches, candidates.log_probabilities)
        row = draw_candidate(values, guidance.tau, rng)
        scores.append(values)
        embeddings.append(vectors[row])
        chosen.append(row)
        tokens += candidates.tokens[row]
        ending = candidates.endings[row]
        if ending is None and len(tokens) == guidance.max_new_tokens:
            ending = "length"
        if ending is None:
            branches.keep(row)
        piece = text.read(tokens, ended=ending is not None)[len(given) :]
        if piece:
            yield piece
            given += piece
    rewards = score.head.reward(np.stack(embeddings))
    return GuidedReply(
        text=given,
        tokens=start + tokens,
        n_given=len(start),
        ending=ending,
        rewards=np.asarray(rewards, dtype=np.float64),
        scores=np.stack(scores),
        chosen=np.array(chosen),
    )


def _prompt_tokens(
    embedder: Embedder, prompt: Prompt, n_start: int, guidance: Guidance
) -> list[int]:
    """Return the last tokens of the prompt, as many as there is room for beside the reply."""
    if isinstance(prompt, str) and not prompt.strip():
        raise ValueError(f"the prompt is {prompt!r}; expected some text, or messages")
    [tokens] = embedder.lm.encode_prompts([prompt])
    limit = min(embedder.max_length, embedder.lm.context_length or embedder.max_length)
    room = limit - n_start - guidance.max_new_tokens
    if room < 1:
        raise ValueError(
            f"max_new_tokens is {guidance.max_new_tokens} and the beginning of the reply has "
            f"{n_start} tokens; model and embeddings hold {limit}, the prompt included"
        )
    if not tokens:
        raise ValueError(f"the prompt {prompt!r:.80} has no token; expected some text")
    if len(tokens) > room:
        warn(
            f"the prompt has {len(tokens)} tokens; its oldest {len(tokens) - room} are dropped, as "
            f"model and embeddings hold {limit}, max_new_tokens={guidance.max_new_tokens} included",
        )
    return tokens[-room:]
