"""Embeddings by the pooling runner of vLLM, which gives the hidden states of all tokens.

Tokens, cuts, pooling and files are those of `Embedder`; vLLM runs the model. It is written to the
offline interface that vLLM documents (``LLM(runner="pooling")``, ``LLM.encode`` with the task
``"token_embed"``), and compares one text with the model itself before it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from cvxnn._extras import require
from cvxnn.llm.block_journal import BlockJournal
from cvxnn.llm.cache import EmbeddingCache
from cvxnn.llm.devices import dtype_name
from cvxnn.llm.embeddings import Embedder
from cvxnn.llm.hidden_states import layer_indices
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item, Pack
from cvxnn.llm.pooling import pool, pool_prompt
from cvxnn.llm.token_embeddings import TokenEmbedder

_TASK = "token_embed"  # vLLM's name of the hidden states of all tokens
_TOLERANCE = 0.05  # relative; kernels differ, and so does the order of sums in half precision


class PoolingEngine(Protocol):
    """Protocol of what `VllmEmbedder` needs of ``vllm.LLM``."""

    def encode(
        self, prompts: list[dict[str, list[int]]], *, pooling_task: str, use_tqdm: bool
    ) -> Sequence[Any]:
        """Return an object with ``outputs.data`` for each prompt: the states of its tokens.

        Parameters
        ----------
        prompts : list of dict
            ``prompt_token_ids`` of each text.
        pooling_task : str
            What is asked for: ``"token_embed"``.
        use_tqdm : bool
            Whether a progress bar is shown.
        """


class VllmEmbedder(Embedder):
    """Embedder whose model runs in vLLM.

    Its description is that of `Embedder`, and its embeddings are the same to rounding, so that a
    head fitted to them serves with any other model of the same weights.

    Parameters
    ----------
    lm : LanguageModel
        The same model, for its tokenizer and the identity of its weights; it may stay on the CPU.
    engine : vllm.LLM
        The same model as vLLM runs it; see `vllm_engine`.
    **settings : object
        Settings of `Embedder`. The layer is the last one, as vLLM gives no other; vLLM makes its
        own batches.

    Raises
    ------
    ValueError
        If another layer is asked for, or if vLLM gives other hidden states than the model.
    """

    def __init__(self, lm: LanguageModel, engine: PoolingEngine, **settings: Any) -> None:
        super().__init__(lm, **settings)
        check_layer(self)
        self.engine = engine
        self._check_agreement()

    def token_embedder(self, cache: EmbeddingCache | BlockJournal | None = None) -> TokenEmbedder:
        """Make the embedder of token sequences, which asks vLLM.

        Parameters
        ----------
        cache : EmbeddingCache or BlockJournal, optional
            Where embeddings are looked up first, and kept.

        Returns
        -------
        TokenEmbedder
            The embedder, which counts the tokens of all calls.
        """
        return embedder_of_tokens(self, self.engine, cache)

    def _check_agreement(self) -> None:
        """Refuse an engine that runs other weights, or changes what it gives."""
        ids = np.arange(3, 15) % self.lm.config.vocab_size
        [found] = _hidden_states(self.engine, [ids])
        with torch.inference_mode():
            inputs = torch.from_numpy(ids)[None].to(self.lm.device)
            own = self.lm.decoder(input_ids=inputs, use_cache=False).last_hidden_state[0].float()
        own = own.cpu()
        if found.shape != own.shape or (found - own).norm() > _TOLERANCE * own.norm():
            raise ValueError(
                f"vLLM gives other hidden states than {self.lm.name} (of shapes "
                f"{tuple(found.shape)} and {tuple(own.shape)}); is it the same model, without "
                "normalisation (use_activation=False of its PoolerConfig)?"
            )


def check_layer(embedder: Embedder) -> None:
    """Refuse an embedder of other layers than the last one.

    Parameters
    ----------
    embedder : Embedder
        The embedder.

    Raises
    ------
    ValueError
        If it has other layers; fit a head to the last one.
    """
    lm = embedder.lm
    if layer_indices(lm, embedder.layer) != [lm.config.num_hidden_layers]:
        raise ValueError(
            f"layer is {embedder.layer}, and vLLM gives the last layer only; set layer=-1, or "
            "embed without vLLM"
        )


def embedder_of_tokens(
    embedder: Embedder, engine: PoolingEngine, cache: EmbeddingCache | BlockJournal | None = None
) -> TokenEmbedder:
    """Make the embedder of token sequences with the settings of another one, which asks vLLM.

    Parameters
    ----------
    embedder : Embedder
        Whose settings and model.
    engine : PoolingEngine
        What computes the hidden states.
    cache : EmbeddingCache or BlockJournal, optional
        Where embeddings are looked up first, and kept.

    Returns
    -------
    TokenEmbedder
        The embedder.
    """
    return _VllmTokenEmbedder(
        engine,
        lm=embedder.lm,
        layer=embedder.layer,
        pooling=embedder.pooling,
        context=embedder.context,
        batch_tokens=embedder.batch_tokens,
        share_prefixes=False,
        cache=cache,
    )


def vllm_engine(
    name_or_path: str, lm: LanguageModel, max_length: int, **options: object
) -> PoolingEngine:
    """Start vLLM's pooling runner.

    Parameters
    ----------
    name_or_path : str
        The model: a folder, or a name on the Hub.
    lm : LanguageModel
        The same model, from which vLLM takes the type of the weights.
    max_length : int
        Largest number of tokens of prompt and reply together.
    **options : object
        Further arguments of ``vllm.LLM``, such as ``tensor_parallel_size``.

    Returns
    -------
    vllm.LLM
        The engine.

    Raises
    ------
    ImportError
        If vLLM is missing; the message names the extra.
    """
    vllm = require("vllm", extra="vllm")
    config = require("vllm.config", extra="vllm").PoolerConfig
    pooler: dict[str, bool | str] = {"use_activation": False}  # else the states are normalised
    if "task" in getattr(config, "__dataclass_fields__", {}):
        pooler["task"] = _TASK  # newer versions run the task that they were started for alone
    return vllm.LLM(
        model=name_or_path,
        runner="pooling",
        convert="embed",
        pooler_config=config(**pooler),
        dtype=dtype_name(lm.dtype),
        max_model_len=max_length,
        **options,
    )


class _VllmTokenEmbedder(TokenEmbedder):
    """Embedder of token sequences that leaves the model and its batches to vLLM."""

    def __init__(self, engine: PoolingEngine, **settings: Any) -> None:
        super().__init__(**settings)
        self._engine = engine

    def _batches(self, items: list[Item]) -> list[list[Pack]]:
        return [[Pack([i], len(item.tokens)) for i, item in enumerate(items)]]

    def _forward(self, items: list[Item], batch: list[Pack]) -> np.ndarray:
        members = [items[i] for pack in batch for i in pack.members]
        self.tokens_computed += sum(len(item.tokens) for item in members)
        pooled = []
        states_of = _hidden_states(self._engine, [item.tokens for item in members])
        for item, states in zip(members, states_of, strict=True):
            parts = [pool(states[item.start :], self.pooling)]
            if self.context:
                parts.append(pool_prompt(states[: item.start], self.pooling))
            pooled.append(torch.cat(parts))
        vectors: np.ndarray = torch.stack(pooled).numpy()
        return vectors


def _hidden_states(engine: PoolingEngine, sequences: list[np.ndarray]) -> list[torch.Tensor]:
    """Return the hidden states of all tokens of sequences, in float32."""
    prompts = [{"prompt_token_ids": ids.tolist()} for ids in sequences]
    outputs = engine.encode(prompts, pooling_task=_TASK, use_tqdm=False)
    found = [torch.as_tensor(output.outputs.data).float().cpu() for output in outputs]
    for ids, states in zip(sequences, found, strict=True):
        if len(states) != len(ids):
            raise ValueError(
                f"vLLM gave hidden states of {len(states)} of {len(ids)} tokens; start it with a "
                "pooler of all tokens (task 'token_embed')"
            )
    return found
