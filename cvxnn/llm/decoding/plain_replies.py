"""Replies of a language model: greedy, sampled, and chosen among candidates by a reward head."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from transformers.cache_utils import DynamicCache

from cvxnn._messages import warn
from cvxnn.llm.decoding.branches import holds_tokens_only
from cvxnn.llm.decoding.guidance import check_stop
from cvxnn.llm.decoding.reply_text import ReplyText
from cvxnn.llm.decoding.rules import Ending
from cvxnn.llm.decoding.scoring import RewardHead
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.models import LanguageModel, quiet, seeded, unwrapped
from cvxnn.preference.triplets import Prompt


class PlainReply(NamedTuple):
    """Reply that the model wrote alone.

    Attributes
    ----------
    text : str
        The reply, without special tokens.
    ending : {"end", "stop", "length"}
        Whether the model ended the reply, a stop string was written, or the largest number of
        tokens was reached.
    n_tokens : int
        Number of tokens that were written, without the one that ends the reply.
    """

    text: str
    ending: Ending
    n_tokens: int


def generate_candidates(
    lm: LanguageModel,
    prompt: Prompt,
    n: int = 5,
    *,
    max_new_tokens: int = 64,
    top_p: float = 0.9,
    top_k: int = 50,
    temperature: float = 1.0,
    stop: str | Sequence[str] = (),
    seed: int = 0,
) -> list[str]:
    """Sample replies to a prompt, in one batch.

    The defaults of `n`, `top_p` and `top_k` are those of guided sampling in COALA (appendix F.3).
    The generation configuration of the model counts for nothing but the tokens that end a reply.
    The global random state is not changed.

    Parameters
    ----------
    lm : LanguageModel
        The model that replies.
    prompt : str or list of Message
        What it replies to.
    n : int, default=5
        Number of candidates, at least 1; equal ones are not merged.
    max_new_tokens : int, default=64
        Largest number of tokens of a reply, at least 1.
    top_p : float, default=0.9
        Sample among the most likely tokens whose probabilities add up to this, in (0, 1].
    top_k : int, default=50
        Sample among this many tokens at most; 0 stands for no limit.
    temperature : float, default=1.0
        Positive; values above 1 flatten the distribution, values below 1 sharpen it.
    stop : str or sequence of str, default=()
        Strings that end a reply and are left out of it; see `Guidance`.
    seed : int, default=0
        Seed of the sampling. The same seed gives the same texts on the same device with the same
        versions of the libraries.

    Returns
    -------
    list of str
        `n` texts without special tokens; a text is empty if the model ends the reply at once.

    Raises
    ------
    ValueError
        If a setting is out of range, or `max_new_tokens` leaves no room for the prompt.
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected at least one candidate")
    if not 0.0 < top_p <= 1.0 or top_k < 0 or not temperature > 0.0:
        raise ValueError(
            f"top_p is {top_p}, top_k {top_k}, temperature {temperature}; expected 0 < top_p <= 1, "
            "top_k >= 0 and temperature > 0"
        )
    options = {"do_sample": True, "top_p": top_p, "top_k": top_k, "temperature": temperature}
    with seeded(lm.device, seed):
        replies = write_plain(lm, prompt, n, max_new_tokens, stop, options)
    return [reply.text for reply in replies]


def generate_greedy(
    lm: LanguageModel,
    prompt: Prompt,
    max_new_tokens: int = 64,
    *,
    stop: str | Sequence[str] = (),
) -> str:
    """Generate the reply that takes the most likely token at each step.

    The generation configuration of the model counts for nothing but the tokens that end a reply.

    Parameters
    ----------
    lm : LanguageModel
        The model that replies.
    prompt : str or list of Message
        What it replies to.
    max_new_tokens : int, default=64
        Largest number of tokens of the reply, at least 1.
    stop : str or sequence of str, default=()
        Strings that end the reply and are left out of it; see `Guidance`.

    Returns
    -------
    str
        The reply, without special tokens.

    Raises
    ------
    ValueError
        If `max_new_tokens` is not positive or leaves no room for the prompt.
    """
    return write_plain(lm, prompt, 1, max_new_tokens, stop)[0].text


def choose_reply(
    lm: LanguageModel,
    head: RewardHead,
    prompt: Prompt,
    candidates: Sequence[str],
    **settings: Any,
) -> tuple[int, np.ndarray]:
    """Choose the candidate with the highest reward.

    Parameters
    ----------
    lm : LanguageModel
        The model whose embeddings the head was fitted to.
    head : object with ``reward(X) -> (n,)``
        A fitted head; X are embeddings of the candidates. If it has a description of its
        embeddings (``head.embedding``), the settings come from there.
    prompt : str or list of Message
        What the candidates reply to.
    candidates : sequence of str
        Replies to choose from. An empty one gets the reward -inf.
    **settings : object
        Settings of `Embedder`. For a head without a description, pass those that it was fitted
        with.

    Returns
    -------
    index : int
        Number of the best candidate, from 0; the first one of equals.
    rewards : ndarray of shape (n,), float64
        Reward of each candidate.

    Raises
    ------
    ValueError
        If all candidates are empty, if the model or a setting is not that of the embeddings of the
        head, or if its rewards have another shape or are not finite.
    """
    rewards = np.full(len(candidates), -np.inf)
    filled = [i for i, candidate in enumerate(candidates) if candidate.strip()]
    if not filled:
        raise ValueError(f"none of the {len(candidates)} candidates has any text")
    description = getattr(head, "embedding", None)
    if description is None:
        embedder = Embedder(lm, **settings)
    else:
        embedder = Embedder.from_description(lm, description, **settings)
    embeddings = embedder.embed(
        [prompt] * len(filled), [candidates[i] for i in filled], common_cut=True
    )
    scores = np.asarray(head.reward(embeddings), dtype=np.float64)
    if scores.shape != (len(filled),) or not np.isfinite(scores).all():
        raise ValueError(
            f"the head's rewards are {scores!r}; expected {len(filled)} finite numbers, shape "
            f"({len(filled)},)"
        )
    rewards[filled] = scores
    return int(rewards.argmax()), rewards


def write_plain(
    lm: LanguageModel,
    prompt: Prompt,
    n: int,
    max_new_tokens: int,
    stop: str | Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> list[PlainReply]:
    """Write replies of the model alone, in one batch, and say what ended them.

    Parameters
    ----------
    lm : LanguageModel
        The model that replies.
    prompt : str or list of Message
        What it replies to.
    n : int
        Number of replies.
    max_new_tokens : int
        Largest number of tokens of a reply.
    stop : str or sequence of str, default=()
        Strings that end a reply and are left out of it; see `Guidance`.
    options : mapping of str to object, optional
        How tokens are drawn, in the words of ``transformers.GenerationConfig``; by default the most
        likely one is taken.

    Returns
    -------
    list of PlainReply
        The replies, and what ended them.

    Raises
    ------
    ValueError
        If `max_new_tokens` is not positive or leaves no room for the prompt.
    """
    [tokens] = lm.encode_prompts([prompt])
    return _write_after(lm, tokens, [], n, max_new_tokens, stop, options)


def continue_text(
    lm: LanguageModel,
    text: str,
    max_new_tokens: int,
    stop: str | Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> str:
    """Write what follows a text, which is no conversation.

    Parameters
    ----------
    lm : LanguageModel
        The model that writes.
    text : str
        The text, which the model reads as it is.
    max_new_tokens : int
        Largest number of tokens to write.
    stop : str or sequence of str, default=()
        Strings at which writing ends, and which are left out; see `Guidance`.
    options : mapping of str to object, optional
        How tokens are drawn, in the words of ``transformers.GenerationConfig``; by default the most
        likely one is taken.

    Returns
    -------
    str
        What follows, without special tokens; white space at its beginning is kept.

    Raises
    ------
    ValueError
        If the text is empty and the tokenizer puts nothing before it, or `max_new_tokens` is not
        positive or leaves no room for the text.
    """
    tokens = lm.encode_text(text)
    if not tokens:
        raise ValueError("the text is empty; expected some text to continue")
    return _write_after(lm, tokens, tokens[-1:], 1, max_new_tokens, stop, options)[0].text


def _write_after(
    lm: LanguageModel,
    tokens: list[int],
    before: list[int],
    n: int,
    max_new_tokens: int,
    stop: str | Sequence[str],
    options: Mapping[str, object] | None,
) -> list[PlainReply]:
    """Write after given tokens; `before` are those that decide how the first new one is spaced."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    reply = ReplyText(lm, before, "", check_stop(stop))
    if lm.context_length is not None:
        room = lm.context_length - max_new_tokens
        if room < 1:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens}; {lm.name} holds {lm.context_length} tokens, "
                "the prompt included"
            )
        if len(tokens) > room:
            warn(
                f"the prompt has {len(tokens)} tokens; its oldest {len(tokens) - room} are dropped "
                f"to leave room for max_new_tokens={max_new_tokens}",
            )
            tokens = tokens[-room:]
    ends = sorted({*lm.end_tokens, *reply.stop_tokens})
    # Every setting is written here: what the model's own generation configuration says, such as a
    # penalty on repetitions, would make replies differ from those of guided decoding.
    settings = transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,  # follows the end of a reply; it is cut off
        **(options or {"do_sample": False}),
    )
    model = copy.copy(unwrapped(lm.model))  # the same weights
    model.generation_config = transformers.GenerationConfig()
    ids = torch.tensor([tokens], device=lm.device)
    with torch.inference_mode(), quiet():
        generated = model.generate(
            ids.repeat(n, 1),
            attention_mask=torch.ones_like(ids).repeat(n, 1),
            past_key_values=_prefill(lm, ids, n),
            generation_config=settings,
            stopping_criteria=[_Stopping(reply, len(tokens))] if stop else None,
        )
    rows: list[list[int]] = generated[:, len(tokens) :].tolist()
    replies = []
    for row in rows:
        written = list(itertools.takewhile(lambda token: token not in ends, row))
        if reply.stops(written) or {*row[len(written) : len(written) + 1]} & {*reply.stop_tokens}:
            ending: Ending = "stop"
        else:
            ending = "end" if len(written) < len(row) else "length"
        replies.append(PlainReply(reply.read(written, ended=True), ending, len(written)))
    return replies


class _Stopping(transformers.StoppingCriteria):
    """Criterion of ``generate`` that ends replies at stop strings."""

    def __init__(self, reply: ReplyText, start: int) -> None:
        self._reply = reply
        self._start = start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        rows = input_ids[:, self._start :].tolist()
        return torch.tensor([self._reply.stops(row) for row in rows], device=input_ids.device)


def _prefill(lm: LanguageModel, ids: torch.Tensor, n: int) -> DynamicCache | None:
    """Compute the attention keys and values of the prompt once for all `n` candidates."""
    if n == 1 or ids.shape[1] == 1:
        return None
    cache = getattr(lm.decoder(input_ids=ids[:, :-1], use_cache=True), "past_key_values", None)
    if not holds_tokens_only(cache):
        return None  # for recurrent states and others, the model reads the prompt n times
    cache.batch_repeat_interleave(n)
    return cache
