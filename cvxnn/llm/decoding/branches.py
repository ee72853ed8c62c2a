"""Branches of one text: replies that are written side by side in one batch with one cache."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import torch
from transformers import cache_utils

from cvxnn.features.description import Layers
from cvxnn.llm.hidden_states import layer_indices, next_logits
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.pooling import GrowingPool, pool_prompt

# Subclasses of these layers hold other states beside keys and values: of recurrences, of indices.
_LAYERS = (
    cache_utils.DynamicLayer,
    getattr(cache_utils, "DynamicSlidingWindowLayer", cache_utils.DynamicLayer),
)


class Branches:
    """Replies to one prompt, equal at first, that grow together by one token at a time.

    The prompt goes through the model once. The embeddings that a head scores come from the same
    forward passes as the next logits. To continue from one reply, the others get those of its keys
    and values in which they differ, in place; no cache is copied.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    tokens : list of int
        Tokens of the prompt and of the beginning of the reply.
    start : int
        Number of the first token of the reply.
    n : int
        Number of replies.
    layer : int, sequence of int or "all"
        Layers of the embeddings; see `Embedder`.
    pooling : {"mean", "last", "attention"}
        Pooling of the embeddings; see `Embedder`.
    context : bool
        Whether embeddings have that of the prompt behind that of the reply.

    Attributes
    ----------
    logits : Tensor of shape (n, vocabulary), float32
        Logits of the next token of each reply.

    Raises
    ------
    ValueError
        If the cache of the model holds more than keys and values of single tokens.
    """

    def __init__(
        self,
        lm: LanguageModel,
        tokens: list[int],
        start: int,
        n: int,
        *,
        layer: Layers,
        pooling: str,
        context: bool,
    ) -> None:
        self.lm = lm
        self.layer = layer
        n_layers = len(layer_indices(lm, layer))
        self._n_apart = 0  # tokens since the replies were equal
        with torch.inference_mode():
            ids = torch.tensor([tokens], device=lm.device)
            logits, states, cache = next_logits(lm, layer, ids, None)
            self._cache = _checked_cache(lm, cache)
            self._cache.batch_repeat_interleave(n)
            self.logits = logits.to(lm.device).expand(n, -1)
            self._pool = GrowingPool(states[0, start:], n, pooling, n_layers)
            self._prompt = None
            if context:
                self._prompt = pool_prompt(states[0, :start].float(), pooling, n_layers)

    def feed(self, tokens: torch.Tensor, alive: torch.Tensor) -> None:
        """Append a token to each reply.

        Parameters
        ----------
        tokens : Tensor of shape (n,), int64
            The tokens; those of replies that have ended do not count.
        alive : Tensor of shape (n,), bool
            False for replies that have ended.
        """
        with torch.inference_mode():
            # The cache grows in place.
            logits, states, _ = next_logits(self.lm, self.layer, tokens[:, None], self._cache)
            self.logits = logits.to(self.lm.device)
            self._pool.extend(states[:, -1], alive.to(states.device))
        self._n_apart += 1

    def keep(self, row: int) -> None:
        """Let all replies continue from one of them.

        Parameters
        ----------
        row : int
            Number of this reply, which has not ended.
        """
        with torch.inference_mode():
            for layer in self._cache.layers:
                if self._n_apart and layer.get_seq_length():
                    for states in (layer.keys, layer.values):
                        states[:, :, -self._n_apart :] = states[row, :, -self._n_apart :].clone()
            self.logits = self.logits[row : row + 1].expand_as(self.logits)
            self._pool.keep(row)
        self._n_apart = 0

    def embeddings(self) -> np.ndarray:
        """Embed the replies so far.

        Returns
        -------
        ndarray of shape (n, width), float32
            The embeddings. Each reply must have at least one token.
        """
        with torch.inference_mode():
            found = self._pool.value()
            if self._prompt is not None:
                found = torch.cat([found, self._prompt.expand_as(found)], dim=1)
            vectors: np.ndarray = found.cpu().numpy()
        return vectors


def holds_tokens_only(cache: object) -> TypeGuard[cache_utils.DynamicCache]:
    """Return True if a cache holds keys and values of single tokens and nothing else.

    Parameters
    ----------
    cache : object
        What a model keeps of earlier tokens.

    Returns
    -------
    bool
        False for recurrent states and hybrids, which cannot be repeated row by row.
    """
    # Caches that models derive from this one hold other states beside its layers.
    if (
        not isinstance(cache, cache_utils.DynamicCache)
        or type(cache) is not cache_utils.DynamicCache
    ):
        return False
    return all(type(layer) in _LAYERS for layer in cache.layers)


def _checked_cache(lm: LanguageModel, cache: cache_utils.Cache | None) -> cache_utils.DynamicCache:
    """Return the cache of a model if it holds keys and values of single tokens."""
    if not holds_tokens_only(cache):
        found = sorted({type(one).__name__ for one in getattr(cache, "layers", None) or [cache]})
        raise ValueError(
            f"{lm.name} keeps {found} of earlier tokens; guided decoding needs a model whose cache "
            "is a DynamicCache of keys and values (no recurrent states). Use generate_candidates "
            "and choose_reply instead"
        )
    return cache
