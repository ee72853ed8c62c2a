"""Fixed-length embeddings of replies from the hidden states of a frozen language model.

Pairs of one conversation, or of one prompt, begin with the same tokens. Those tokens are run
through the model once: sequences that share a beginning are laid out in one row as a prefix tree,
in which a token has its depth as position and attends to its ancestors alone. The hidden states are
the same as those of separate rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxnn._extras import require
from cvxnn.llm.cache import EmbeddingCache
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item, Pack, lay_out, plan

if TYPE_CHECKING:
    import torch

    from cvxnn.preference.data import Prompt

POOLINGS = ("mean", "last", "attention")

_log = logging.getLogger(__name__)

_MIN_FILL = 0.85  # rows of one batch are at least this long, relative to the longest


class Embedder:
    """Turn (prompt, reply) pairs into vectors: hidden states pooled over the tokens of the reply.

    Equal pairs are computed once, and so are equal beginnings of pairs (see `share_prefixes`).
    With hidden states h_1, ..., h_T of the reply's tokens, the embedding is

    - ``"mean"``: their average;
    - ``"last"``: h_T;
    - ``"attention"``: sum_t w_t h_t with w = softmax over t of <z_t, z_T> / sqrt(width), where z_t
      is h_t less its mean, divided by its standard deviation (layer normalisation, no weights).

    Parameters
    ----------
    lm : LanguageModel
    pooling : {"mean", "last", "attention"}, default="mean"
    layer : int, default=-1
        0 is the token embeddings, k the output of block k, and -1 (or the number of blocks) the
        output of the last block after the final normalisation. Blocks above the layer are not run.
    max_length : int, default=1024
        Tokens of prompt and reply together; capped by the context length of the model. Of longer
        pairs, the oldest tokens of the prompt are dropped; of a reply that is longer still, the
        first `max_length` tokens are kept. A warning tells how many.
    batch_tokens : int, default=2048
        Tokens in one call of the model, padding included. Beside the weights, memory holds the
        activations of at most ``T = max(batch_tokens, max_length)`` tokens and an attention mask of
        at most T**2 entries (and as many scores a head where attention has no fused kernel).
    share_prefixes : bool, default=True
        Compute common beginnings once. It is checked on a few tokens that the model computes the
        same either way; where it does not (a sliding window that binds, recurrent blocks,
        attention kernels without masks, ...), pairs are computed in ordinary padded batches.
    cache : EmbeddingCache or path-like, optional
        Look embeddings up there before they are computed, and keep them, batch by batch.
    progress : bool, default=False
        Show tokens per second and the time left on stderr.

    Attributes
    ----------
    tokens_naive_ : int
        Tokens in the last call's pairs, each pair counted by itself.
    tokens_computed_ : int
        Tokens run through the model in the last call, padding included; about
        ``2 * lm.n_parameters * tokens_computed_`` floating-point operations.
    seconds_ : float
        Duration of the last call.
    shares_prefixes_ : bool
        Whether common beginnings were computed once in the last call.

    Raises
    ------
    ValueError
        If a setting is out of range; the message names the range.

    Examples
    --------
    >>> from cvxnn.llm import Embedder, load_model            # doctest: +SKIP
    >>> embedder = Embedder(load_model())                     # doctest: +SKIP
    >>> embedder.embed(["Why?"] * 2, ["Because.", "No."])     # doctest: +SKIP
    """

    tokens_naive_: int
    tokens_computed_: int
    seconds_: float
    shares_prefixes_: bool

    def __init__(
        self,
        lm: LanguageModel,
        *,
        pooling: str = "mean",
        layer: int = -1,
        max_length: int = 1024,
        batch_tokens: int = 2048,
        share_prefixes: bool = True,
        cache: EmbeddingCache | str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}; expected one of {POOLINGS}")
        n_layers = lm.config.num_hidden_layers
        if not -n_layers - 1 <= layer <= n_layers:
            raise ValueError(
                f"layer is {layer}; {lm.name} has {n_layers} blocks, so expected {-n_layers - 1} "
                f"to {n_layers}"
            )
        if max_length < 1 or batch_tokens < 1:
            raise ValueError(
                f"max_length is {max_length} and batch_tokens {batch_tokens}; expected at least 1"
            )
        self.lm = lm
        self.pooling = pooling
        self.layer = layer
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.share_prefixes = share_prefixes
        self.cache = cache
        self.progress = progress

    def embed(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Embed the reply of each pair, given its prompt.

        Parameters
        ----------
        prompts : sequence of (str or list of Message), length n
        responses : sequence of str, length n

        Returns
        -------
        ndarray of shape (n, width), float32

        Raises
        ------
        ValueError
            If there is no pair, the lengths differ, a reply is empty, the model is in training
            mode, or an embedding is not finite.
        """
        began = time.perf_counter()
        if len(prompts) != len(responses):
            raise ValueError(
                f"{len(prompts)} prompts but {len(responses)} responses; expected as many of each"
            )
        if isinstance(prompts, str) or isinstance(responses, str):
            raise ValueError("prompts and responses are lists with one entry a pair, not strings")
        if len(prompts) == 0:
            raise ValueError("nothing to embed: expected at least one prompt and response")
        if self.lm.model.training:
            raise ValueError(
                "the model is in training mode (dropout is on); call model.eval() first"
            )
        rows = self._tokenise(prompts, responses)
        self.tokens_naive_ = sum(len(row.tokens) for row in rows)
        self.tokens_computed_ = 0
        self.shares_prefixes_ = False
        keys = [row.key for row in rows]
        items = dict(zip(keys, rows, strict=True))
        if self.cache is None:
            vectors = self._compute(items, None, "")
        elif isinstance(self.cache, EmbeddingCache):
            vectors = self._compute(items, self.cache, self._settings())
        else:
            with EmbeddingCache(self.cache) as cache:
                vectors = self._compute(items, cache, self._settings())
        self.seconds_ = time.perf_counter() - began
        return np.stack([vectors[key] for key in keys])

    def _settings(self) -> str:
        """All that an embedding depends on, beside its tokens."""
        layer = self.layer % (self.lm.config.num_hidden_layers + 1)
        return json.dumps([self.lm.fingerprint, self.pooling, layer, str(self.lm.dtype)])

    def _tokenise(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Item]:
        limit = min(self.max_length, self.lm.context_length or self.max_length)
        names = [prompt if isinstance(prompt, str) else json.dumps(prompt) for prompt in prompts]
        distinct = dict(zip(names, prompts, strict=True))
        encoded = dict(zip(distinct, self.lm.encode_prompts(list(distinct.values())), strict=True))
        rows, n_prompts, n_responses = [], 0, 0
        for name, reply in zip(names, self.lm.encode_responses(responses), strict=True):
            prompt = encoded[name]
            room = max(limit - len(reply), 0)
            n_prompts += len(prompt) > room
            n_responses += len(reply) > limit
            kept = prompt[len(prompt) - room :] if len(prompt) > room else prompt
            rows.append(Item(np.array(kept + reply[:limit], dtype=np.int64), len(kept)))
        if n_prompts or n_responses:
            warnings.warn(
                f"{n_prompts} of {len(rows)} pairs are longer than {limit} tokens and lost the "
                f"beginning of the prompt; {n_responses} of them the end of the response too. "
                f"Increase max_length (now {self.max_length}) if the model and the memory allow it",
                stacklevel=4,
            )
        return rows

    def _compute(
        self, items: dict[bytes, Item], cache: EmbeddingCache | None, settings: str
    ) -> dict[bytes, np.ndarray]:
        vectors: dict[bytes, np.ndarray] = {}
        stored: dict[bytes, bytes] = {}
        if cache is not None:
            stored = {key: hashlib.sha256(settings.encode() + key).digest() for key in items}
            found = cache.get(stored.values())
            vectors = {key: found[name] for key, name in stored.items() if name in found}
        keys = [key for key in items if key not in vectors]
        if not keys:
            return vectors
        todo = [items[key] for key in keys]
        batches = list(self._batches(todo))
        tqdm = require("tqdm", extra="llm").tqdm
        total = sum(max(pack.length for pack in batch) * len(batch) for batch in batches)
        with tqdm(
            total=total, desc="embedding", unit="tok", unit_scale=True, disable=not self.progress
        ) as bar:
            for batch in batches:
                before = self.tokens_computed_
                pooled = self._forward(todo, batch)
                if not np.isfinite(pooled).all():
                    raise ValueError(
                        f"an embedding in {self.lm.dtype} is not finite; load the model with "
                        "dtype='bfloat16' or 'float32'"
                    )
                members = [i for pack in batch for i in pack.members]
                new = {keys[i]: vector for i, vector in zip(members, pooled, strict=True)}
                if cache is not None:
                    cache.put({stored[key]: vector for key, vector in new.items()})
                vectors.update(new)
                bar.update(self.tokens_computed_ - before)
        return vectors

    def _batches(self, items: list[Item]) -> Iterator[list[Pack]]:
        """Group packs of similar length, longest first, so that memory runs out early or never."""
        longest = max(len(item.tokens) for item in items)
        packs = [Pack([i], len(item.tokens)) for i, item in enumerate(items)]
        if self.share_prefixes and len(items) > 1 and _may_share(self.lm, longest):
            width, n_layers = self.lm.config.hidden_size, self.lm.config.num_hidden_layers
            # A token costs 2 n_parameters operations, a pair in attention 4 width a layer.
            pairs_per_token = self.lm.n_parameters / (2 * width * n_layers)
            trees = plan(items, max(self.batch_tokens, longest), pairs_per_token)
            if len(trees) < len(packs) and self._sharing_is_exact():
                packs, self.shares_prefixes_ = trees, True
        packs.sort(key=lambda pack: -pack.length)
        batch: list[Pack] = []
        for pack in packs:
            if batch and (
                batch[0].length * (len(batch) + 1) > self.batch_tokens
                or pack.length < _MIN_FILL * batch[0].length
            ):
                yield batch
                batch = []
            batch.append(pack)
        if batch:
            yield batch

    def _sharing_is_exact(self) -> bool:
        """Compare a small tree with its separate rows, on this very model."""
        ids = np.arange(3, 18) % self.lm.config.vocab_size
        branches = ([0, 1, 2, 3, 4, 5], [0, 1, 2, 6, 7, 8], [0, 1, 2, 6, 9, 10, 11])
        items = [Item(ids[branch], 1) for branch in branches]
        before = self.tokens_computed_
        try:
            plain = self._forward(items, [Pack([i], len(items[i].tokens)) for i in range(3)])
            try:
                packed = self._forward(items, [Pack([0, 1, 2], 12)])
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                # The plain rows went through, so it is the tree that the model does not take:
                # no position_ids, no mask of three dimensions.
                _log.info("common beginnings are computed for each reply: %r", error)
                return False
        finally:
            self.tokens_computed_ = before
        tolerance = 1e-3 if "32" in str(self.lm.dtype) else 3e-2
        return bool(np.linalg.norm(packed - plain) <= tolerance * np.linalg.norm(plain))

    def _forward(self, items: list[Item], batch: list[Pack]) -> np.ndarray:
        """Pooled embeddings of all members of a batch of packs, in their order."""
        torch = require("torch", extra="llm")
        device, length = self.lm.device, max(pack.length for pack in batch)
        shape = (len(batch), length)
        self.tokens_computed_ += len(batch) * length
        tokens, depth = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        separate = all(len(pack.members) == 1 for pack in batch)
        visible = np.zeros(shape if separate else (*shape, length), dtype=bool)
        where: list[tuple[int, np.ndarray]] = []  # row, and columns of the reply's tokens
        for row, pack in enumerate(batch):
            if separate:
                item = items[pack.members[0]]
                tokens[row, : pack.length] = item.tokens
                visible[row, : pack.length] = True
                paths = [np.arange(pack.length)]
            else:
                np.fill_diagonal(
                    visible[row], True
                )  # padding sees itself, else softmax has no term
                paths = lay_out(
                    [items[i].tokens for i in pack.members], tokens[row], depth[row], visible[row]
                )
            where += [
                (row, path[items[i].start :]) for i, path in zip(pack.members, paths, strict=True)
            ]
        inputs = {"input_ids": torch.from_numpy(tokens).to(device)}
        mask = torch.from_numpy(visible).to(device)
        if separate:
            inputs["attention_mask"] = mask.long()
        else:
            inputs["position_ids"] = torch.from_numpy(depth).to(device)
            mask = mask[:, None]
            if self.lm.config._attn_implementation == "eager":  # adds the mask to the scores
                lowest = torch.finfo(self.lm.dtype).min
                mask = torch.zeros_like(mask, dtype=self.lm.dtype).masked_fill_(~mask, lowest)
            inputs["attention_mask"] = mask
        with torch.inference_mode():
            hidden = _hidden_states(self.lm, self.layer, inputs)
            pooled = []
            for row, columns in where:
                states = hidden[row, torch.from_numpy(columns).to(hidden.device)]
                pooled.append(_pool(states.float(), self.pooling))
            vectors: np.ndarray = torch.stack(pooled).cpu().numpy()
        return vectors


def embed_responses(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    *,
    pooling: str = "mean",
    layer: int = -1,
    max_length: int = 1024,
    batch_tokens: int = 2048,
    share_prefixes: bool = True,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Embed replies given their prompts: `Embedder` as a function, with the same settings.

    Returns
    -------
    ndarray of shape (n, width), float32

    Raises
    ------
    ValueError
        As `Embedder` and `Embedder.embed` do.
    """
    embedder = Embedder(
        lm,
        pooling=pooling,
        layer=layer,
        max_length=max_length,
        batch_tokens=batch_tokens,
        share_prefixes=share_prefixes,
        cache=cache,
        progress=progress,
    )
    return embedder.embed(prompts, responses)


def _may_share(lm: LanguageModel, longest: int) -> bool:
    """Whether the configuration allows trees: a free mask, and no window that binds."""
    config = lm.config
    if config._attn_implementation not in ("eager", "sdpa"):
        return False
    if not getattr(config, "is_causal", True) or getattr(config, "attention_chunk_size", None):
        return False
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        window = longest
    kinds = {
        *(getattr(config, "layer_types", None) or ()),
        *(getattr(config, "attention_layers", None) or ()),
    }
    return window >= longest and kinds <= {"full_attention", "sliding_attention", "global"}


class _Reached(Exception):  # noqa: N818 (it tells of success)
    """Ends a forward pass at the wanted layer."""


def _hidden_states(lm: LanguageModel, layer: int, inputs: dict[str, Any]) -> torch.Tensor:
    """Hidden states of one layer, shape (rows, length, width); later blocks are not run."""
    decoder, n_layers = lm.decoder, lm.config.num_hidden_layers
    index = layer % (n_layers + 1)
    seen: list[torch.Tensor] = []
    if index == n_layers:
        seen.append(decoder(**inputs, use_cache=False).last_hidden_state)
        return seen[0]
    lists = require("torch.nn", extra="llm").ModuleList
    blocks = [m for m in decoder.modules() if isinstance(m, lists) and len(m) == n_layers]
    if not blocks:
        outputs = decoder(**inputs, use_cache=False, output_hidden_states=True)
        seen.append(outputs.hidden_states[index])
        return seen[0]

    def stop(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    handle = blocks[0][index].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        decoder(**inputs, use_cache=False)
    except _Reached:
        pass
    finally:
        handle.remove()
    return seen[0]


def _pool(states: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector from the states of a reply, shape (tokens, width)."""
    if pooling == "last":
        return states[-1]
    if pooling == "mean":
        return states.mean(dim=0)
    centred = states - states.mean(dim=1, keepdim=True)
    z = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    return (z @ z[-1] / states.shape[1] ** 0.5).softmax(dim=0) @ states
