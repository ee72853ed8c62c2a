"""Embeddings of token sequences: computed in batches of rows, or looked up in a cache."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from cvxnn._progress import Progress
from cvxnn.features.description import Layers
from cvxnn.llm.batches import (
    batches,
    may_share,
    members_of,
    missing_batches,
    model_inputs,
    prefix_trees,
    trees_are_exact,
)
from cvxnn.llm.block_journal import BlockJournal
from cvxnn.llm.cache import EmbeddingCache, cache_key
from cvxnn.llm.hidden_states import described, hidden_states, layer_indices
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item, Pack
from cvxnn.llm.pooling import pool, pool_prompt


class TokenEmbedder:
    """Embedder of token sequences under fixed settings, which counts its tokens.

    Parameters
    ----------
    lm : LanguageModel
        The model, in evaluation mode.
    layer : int, sequence of int or "all"
        Layers of the hidden states, as in `Embedder`.
    pooling : {"mean", "last", "attention"}
        Formula of `Embedder` that makes one vector of the hidden states.
    context : bool
        Whether an embedding has that of the prompt behind that of the reply.
    batch_tokens : int
        Largest number of tokens in one call of the model, padding included.
    share_prefixes : bool
        Whether to compute common beginnings once, where the model allows it.
    cache : EmbeddingCache, BlockJournal or None
        Where embeddings are looked up first, and kept batch by batch.

    Attributes
    ----------
    tokens_naive : int
        Tokens of all sequences so far, each counted by itself.
    tokens_computed : int
        Tokens run through the model so far, padding included.
    shares_prefixes : bool
        Whether common beginnings were computed once.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        layer: Layers,
        pooling: str,
        context: bool,
        batch_tokens: int,
        share_prefixes: bool,
        cache: EmbeddingCache | BlockJournal | None,
    ) -> None:
        self.lm = lm
        self.layer = layer
        indices = layer_indices(lm, layer)
        self._n_layers = len(indices)
        self.pooling = pooling
        self.context = context
        self.batch_tokens = batch_tokens
        self.share_prefixes = share_prefixes
        self.cache = cache
        self._settings: list[object] = []  # what an embedding depends on, beside its tokens
        if cache is not None:
            self._settings = [lm.fingerprint, pooling, described(indices), str(lm.dtype)]
            self._settings += ["context"] if context else []
        self.tokens_naive = 0
        self.tokens_computed = 0
        self.shares_prefixes = False

    def embed(self, rows: list[Item], bar: Progress) -> np.ndarray:
        """Embed token sequences, or look them up; equal ones are computed once.

        Parameters
        ----------
        rows : list of Item
            The sequences.
        bar : Progress
            Counts the sequences.

        Returns
        -------
        ndarray of shape (n, width), float32
            The embedding of each sequence.

        Raises
        ------
        ValueError
            If an embedding is not finite; load the model in another type.
        """
        self.tokens_naive += sum(len(row.tokens) for row in rows)
        items = {row.key: row for row in rows}
        vectors = self._compute(items, bar)
        bar.update(len(rows) - len(items))
        return np.stack([vectors[row.key] for row in rows])

    def _compute(self, items: dict[bytes, Item], bar: Progress) -> dict[bytes, np.ndarray]:
        vectors: dict[bytes, np.ndarray] = {}
        stored: dict[bytes, bytes] = {}
        if self.cache is not None:
            stored = {key: cache_key(self._settings, key) for key in items}
            found = self.cache.get(stored.values())
            vectors = {key: found[name] for key, name in stored.items() if name in found}
        keys, todo = missing_batches(items, vectors, self._batches)
        rows = [items[key] for key in keys]
        bar.update(len(items) - sum(len(members_of(batch)) for batch in todo), skipped=True)
        for batch in todo:
            pooled = self._forward(rows, batch)
            if not np.isfinite(pooled).all():
                raise ValueError(
                    f"an embedding in {self.lm.dtype} is not finite; load the model with "
                    "dtype='bfloat16' or 'float32'"
                )
            new = {keys[i]: vector for i, vector in zip(members_of(batch), pooled, strict=True)}
            if self.cache is not None:
                self.cache.put({stored[key]: vector for key, vector in new.items()})
            vectors.update(new)
            bar.update(len(new))
        return vectors

    @cached_property
    def _trees_are_exact(self) -> bool:
        return trees_are_exact(self.lm, self.layer)

    def _batches(self, items: list[Item]) -> list[list[Pack]]:
        longest = max(len(item.tokens) for item in items)
        packs = [Pack([i], len(item.tokens)) for i, item in enumerate(items)]
        if self.share_prefixes and len(items) > 1:
            trees = prefix_trees(self.lm, items, self.batch_tokens)
            saves = len(trees) < len(packs)
            if saves and may_share(self.lm, longest) and self._trees_are_exact:
                packs, self.shares_prefixes = trees, True
        return batches(packs, self.batch_tokens)

    def _forward(self, items: list[Item], batch: list[Pack]) -> np.ndarray:
        """Embed all members of a batch of rows, in their order, by one call of the model."""
        self.tokens_computed += len(batch) * max(pack.length for pack in batch)
        inputs, paths = model_inputs(self.lm, items, batch)
        with torch.inference_mode():
            hidden = hidden_states(self.lm, self.layer, inputs)
            pooled = []
            for i, (row, path) in zip(members_of(batch), paths, strict=True):
                first = 0 if self.context else items[i].start
                columns = torch.from_numpy(path[first:]).to(hidden.device)
                states = hidden[row, columns].float()
                start = items[i].start - first
                parts = [pool(states[start:], self.pooling, self._n_layers)]
                if self.context:
                    parts.append(pool_prompt(states[:start], self.pooling, self._n_layers))
                pooled.append(torch.cat(parts))
            vectors: np.ndarray = torch.stack(pooled).cpu().numpy()
        return vectors
