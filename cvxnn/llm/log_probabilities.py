"""Log-probabilities of replies under a language model: ``log pi(y | x)``, summed over tokens."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch

from cvxnn._progress import Progress
from cvxnn.llm.batches import missing_batches
from cvxnn.llm.cache import EmbeddingCache, cache_key
from cvxnn.llm.cutting import Cut, check_pairs, warn_of_cuts
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item
from cvxnn.llm.response_scorer import ResponseScorer
from cvxnn.preference.triplets import Prompt


class ResponseLogProbabilities(NamedTuple):
    """Log-probabilities of replies, with the number of tokens that they are summed over.

    Attributes
    ----------
    log_probabilities : ndarray of shape (n,), float64
        Natural logarithms, with the precision of float32.
    lengths : ndarray of shape (n,), int64
        Number of tokens of each reply.
    """

    log_probabilities: np.ndarray
    lengths: np.ndarray


def response_log_probabilities(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    max_length: int = 1024,
    end_of_turn: bool = True,
    batch_tokens: int = 2048,
    share_prefixes: bool = True,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> ResponseLogProbabilities:
    """Return the log-probability of each reply given its prompt, as a natural logarithm.

    Texts become tokens as in `Embedder`. Only the tokens of the reply count, each given the prompt
    and the tokens before it. Equal pairs are computed once, and so are common beginnings.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    prompts : sequence of (str or list of Message), length n
        What is replied to.
    responses : sequence of str, length n
        The replies.
    max_length : int, default=1024
        Largest number of tokens of prompt and reply together, capped by the context length of the
        model. If a pair is longer, the oldest tokens of the prompt are dropped; if the reply alone
        is longer, its end is dropped. A warning says how many pairs were cut.
    end_of_turn : bool, default=True
        Whether the token that ends the reply counts (``lm.end_of_turn``, if there is one). With it,
        the result is the probability of saying this *and then stopping*, which a model has to
        learn; without it, of all replies that begin like this. A reply that was cut gets none, and
        one that already ends in such a token gets no second one.
    batch_tokens : int, default=2048
        Largest number of tokens in one call of the model, padding included.
    share_prefixes : bool, default=True
        Whether to compute common beginnings once, where the model gives the same either way.
    cache : EmbeddingCache or path-like, optional
        Where log-probabilities are looked up before they are computed, and kept batch by batch.
        The key is made of the weights of the model and the tokens.
    progress : bool, default=False
        Whether to show a progress bar on stderr.

    Returns
    -------
    ResponseLogProbabilities
        ``log_probabilities`` and ``lengths``, each an array of shape (n,).

    Raises
    ------
    ValueError
        If there is no pair, the numbers of prompts and responses differ, a reply is empty, the
        model is in training mode or a result is not finite.

    Examples
    --------
    >>> from cvxnn.llm import load_model, response_log_probabilities
    >>> response_log_probabilities(load_model(), ["2 + 2?"] * 2, ["4", "5"])    # doctest: +SKIP
    """
    if lm.model.training:
        raise ValueError("the model is in training mode (dropout is on); call model.eval() first")
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens is {batch_tokens}; expected at least 1")
    items = encode_pairs(lm, prompts, responses, max_length=max_length, end_of_turn=end_of_turn)
    values, _ = score_items(
        lm,
        items,
        batch_tokens=batch_tokens,
        share_prefixes=share_prefixes,
        cache=cache,
        progress=progress,
    )
    lengths = np.array([len(item.tokens) - item.start for item in items], dtype=np.int64)
    return ResponseLogProbabilities(values, lengths)


def encode_pairs(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    max_length: int = 1024,
    end_of_turn: bool = True,
) -> list[Item]:
    """Encode prompts and replies as tokens, within `max_length`.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : sequence of (str or list of Message), length n
        What is replied to.
    responses : sequence of str, length n
        The replies.
    max_length : int, default=1024
        Largest number of tokens of prompt and reply; see `response_log_probabilities`.
    end_of_turn : bool, default=True
        Whether the token that ends a reply is part of it.

    Returns
    -------
    list of Item
        Tokens of each pair; each prompt and each reply has at least one.

    Raises
    ------
    ValueError
        If there is no pair, the numbers of prompts and responses differ, or a text is empty.
    """
    check_pairs(prompts, responses)
    limit = min(max_length, lm.context_length or max_length)
    if limit < 2:
        raise ValueError(f"max_length is {max_length}; expected at least 2, a prompt and a reply")
    encoded = lm.encode_prompts(prompts), lm.encode_responses(responses)
    end, ends = lm.end_of_turn if end_of_turn else None, lm.end_tokens
    begin = lm.tokenizer.bos_token_id
    begin = lm.tokenizer.eos_token_id if begin is None else begin
    lm.check_known([token for token in (end, begin) if token is not None], "the frame of a reply")
    rows: list[Item] = []
    n_prompts = n_responses = 0
    for tokens, response in zip(*encoded, strict=True):
        if end is not None:
            response = [*_without_end(lm, response, ends), end]
        reply = response[: limit - 1]
        prompt = tokens or ([] if begin is None else [begin])
        if not prompt:
            raise ValueError(
                f"prompt {len(rows)} has no token ({prompts[len(rows)]!r:.80}) and {lm.name} has "
                "none to begin with, so the first token of its reply follows nothing; add text"
            )
        room = limit - len(reply)
        n_prompts += len(prompt) > room
        n_responses += len(response) > len(reply)
        kept = prompt[-room:]
        rows.append(Item(np.array(kept + reply, dtype=np.int64), len(kept)))
    warn_of_cuts(Cut(len(rows), n_prompts, n_responses), limit, max_length)
    return rows


def _without_end(lm: LanguageModel, reply: list[int], ends: Collection[int]) -> list[int]:
    """Return a reply without tokens that end it, and without white space after them."""
    while True:
        last = max((i for i, token in enumerate(reply) if token in ends), default=-1)
        if last < 0 or lm.decode(reply[last + 1 :]).strip():
            return reply
        reply = reply[:last]


def score_items(
    lm: LanguageModel,
    items: Sequence[Item],
    *,
    batch_tokens: int = 2048,
    share_prefixes: bool = True,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: bool = False,
    autocast: torch.dtype | None = None,
    count: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, int]:
    """Return the log-probabilities of items, looked up in a cache or computed.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    items : sequence of Item
        The items; equal ones are computed once.
    batch_tokens : int, default=2048
        Largest number of tokens in one call of the model, padding included.
    share_prefixes : bool, default=True
        Whether to compute common beginnings once, where the model allows it.
    cache : EmbeddingCache or path-like, optional
        Where log-probabilities are looked up first, and kept batch by batch.
    progress : bool, default=False
        Whether to show a progress bar on stderr.
    autocast : torch.dtype, optional
        Type to which the arithmetic is cast; by default that of the weights.
    count : callable, optional
        Called after each batch that was kept, with the tokens that were run through the model.

    Returns
    -------
    log_probabilities : ndarray of shape (n,), float64
        Log-probability of the reply of each item.
    n_tokens : int
        Number of tokens that were run through the model.

    Raises
    ------
    ValueError
        If a log-probability is not finite; load the model in another type.
    """
    distinct = {item.key: item for item in items}
    found: dict[bytes, float] = {}
    stored: dict[bytes, bytes] = {}
    n_tokens = 0
    with contextlib.ExitStack() as stack:
        if cache is not None:
            if not isinstance(cache, EmbeddingCache):
                cache = stack.enter_context(EmbeddingCache(cache))
            settings = ["log-probability", lm.fingerprint, str(autocast or lm.dtype)]
            stored = {key: cache_key(settings, key) for key in distinct}
            kept = cache.get(stored.values())
            found = {key: float(kept[name][0]) for key, name in stored.items() if name in kept}
        if len(found) < len(distinct):
            scorer = ResponseScorer(lm, share_prefixes=share_prefixes, autocast=autocast)
            keys, todo = missing_batches(
                distinct, found, functools.partial(scorer.plan, batch_tokens=batch_tokens)
            )
            total, done = len(distinct), len(found)
            bar = Progress("log-probabilities", total, "replies", show=progress, done=done)
            stack.enter_context(bar)
            for members, sums in scorer.sums([distinct[key] for key in keys], todo):
                if not np.isfinite(sums).all():
                    raise ValueError(
                        f"a log-probability in {lm.dtype} is not finite; load the model with "
                        "dtype='bfloat16' or 'float32'"
                    )
                new = {keys[i]: sums[k : k + 1] for k, i in enumerate(members)}
                if cache is not None:
                    cache.put({stored[key]: vector for key, vector in new.items()})
                found.update({key: float(vector[0]) for key, vector in new.items()})
                bar.update(len(members))
                if count is not None:
                    count(scorer.tokens_computed)
            n_tokens = scorer.tokens_computed
    return np.array([found[item.key] for item in items], dtype=np.float64), n_tokens
