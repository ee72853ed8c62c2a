"""Replies of a language model: greedy, sampled candidates, and the one a reward head prefers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cvxnn._extras import require
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.models import LanguageModel, quiet, seeded

if TYPE_CHECKING:
    import torch

    from cvxnn.preference.triplets import Prompt


class RewardHead(Protocol):
    """Anything that scores embeddings."""

    def reward(self, X: np.ndarray) -> Any:
        """Rewards of shape (n,) of embeddings of shape (n, width)."""


def generate_candidates(
    lm: LanguageModel,
    prompt: Prompt,
    n: int = 5,
    *,
    max_new_tokens: int = 64,
    top_p: float = 0.9,
    top_k: int = 50,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Sample replies to a prompt, in one batch.

    The defaults of `n`, `top_p` and `top_k` are those of COALA's guided sampling (appendix F.3).
    The global random state is left as it was.

    Parameters
    ----------
    lm : LanguageModel
    prompt : str or list of Message
    n : int, default=5
        Number of candidates; equal ones are not merged.
    max_new_tokens : int, default=64
    top_p : float, default=0.9
        Sample among the most likely tokens that have this probability together, in (0, 1].
    top_k : int, default=50
        Sample among this many tokens at most; 0 lifts the limit.
    temperature : float, default=1.0
        Above 1 flattens the distribution, below 1 sharpens it; positive.
    seed : int, default=0
        The same seed gives the same texts (on the same device and library versions).

    Returns
    -------
    list of str
        `n` texts without special tokens; a text may be empty if the model ends at once.

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
        return _generate(lm, prompt, n, max_new_tokens, options)


def generate_greedy(lm: LanguageModel, prompt: Prompt, max_new_tokens: int = 64) -> str:
    """Generate the reply that takes the most likely token at each step.

    Parameters
    ----------
    lm : LanguageModel
    prompt : str or list of Message
    max_new_tokens : int, default=64

    Returns
    -------
    str
        Without special tokens.

    Raises
    ------
    ValueError
        If `max_new_tokens` is not positive or leaves no room for the prompt.
    """
    return _generate(lm, prompt, 1, max_new_tokens, {"do_sample": False})[0]


def choose(
    lm: LanguageModel,
    head: RewardHead,
    prompt: Prompt,
    candidates: Sequence[str],
    **settings: Any,
) -> tuple[int, np.ndarray]:
    """Find the candidate with the highest reward.

    Parameters
    ----------
    lm : LanguageModel
    head : object with ``reward(X) -> (n,)``
        A fitted head; X are embeddings of the candidates. If it has a description of its
        embeddings (``head.embedding``), the settings come from there.
    prompt : str or list of Message
    candidates : sequence of str
        An empty one gets the reward -inf.
    **settings
        Settings of `Embedder`. Without a description, give those that the head was trained with.

    Returns
    -------
    index : int
        Of the best candidate; the first of equals.
    rewards : ndarray of shape (n,), float64

    Raises
    ------
    ValueError
        If all candidates are empty, if the model or a setting is not that of the head's embeddings,
        or if the head's rewards have another shape or are not finite.
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
    embeddings = embedder.embed([prompt] * len(filled), [candidates[i] for i in filled])
    scores = np.asarray(head.reward(embeddings), dtype=np.float64)
    if scores.shape != (len(filled),) or not np.isfinite(scores).all():
        raise ValueError(
            f"the head's rewards are {scores!r}; expected {len(filled)} finite numbers, shape "
            f"({len(filled)},)"
        )
    rewards[filled] = scores
    return int(rewards.argmax()), rewards


def _generate(
    lm: LanguageModel, prompt: Prompt, n: int, max_new_tokens: int, options: dict[str, Any]
) -> list[str]:
    torch = require("torch", extra="llm")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; expected at least 1")
    [tokens] = lm.encode_prompts([prompt])
    if lm.context_length is not None:
        room = lm.context_length - max_new_tokens
        if room < 1:
            raise ValueError(
                f"max_new_tokens is {max_new_tokens}; {lm.name} holds {lm.context_length} tokens, "
                "the prompt included"
            )
        if len(tokens) > room:
            warnings.warn(
                f"the prompt has {len(tokens)} tokens; its oldest {len(tokens) - room} are dropped "
                f"to leave room for max_new_tokens={max_new_tokens}",
                stacklevel=3,
            )
            tokens = tokens[-room:]
    pad = lm.tokenizer.pad_token_id
    ids = torch.tensor([tokens], device=lm.device)
    with torch.inference_mode(), quiet():
        generated = lm.model.generate(
            ids.repeat(n, 1),
            attention_mask=torch.ones_like(ids).repeat(n, 1),
            past_key_values=_prefill(lm, ids, n),
            pad_token_id=lm.tokenizer.eos_token_id if pad is None else pad,
            max_new_tokens=max_new_tokens,
            **options,
        )
    texts: list[str] = lm.tokenizer.batch_decode(
        generated[:, len(tokens) :], skip_special_tokens=True
    )
    return texts


def _prefill(lm: LanguageModel, ids: torch.Tensor, n: int) -> Any:
    """Attention keys and values of the prompt, computed once for all `n` candidates."""
    if n == 1 or ids.shape[1] == 1:
        return None
    layers = require("transformers.cache_utils", extra="llm")
    cache = getattr(lm.decoder(input_ids=ids[:, :-1], use_cache=True), "past_key_values", None)
    if not isinstance(cache, layers.DynamicCache) or not all(
        isinstance(layer, layers.DynamicLayer) for layer in cache.layers
    ):
        return None  # recurrent states and the like: the model reads the prompt n times
    cache.batch_repeat_interleave(n)
    return cache
