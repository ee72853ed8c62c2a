"""Hidden states of one layer of a language model, with or without the blocks above it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers

from cvxnn.llm.models import LanguageModel


def layer_index(lm: LanguageModel, layer: int) -> int:
    """Return the number of a layer, counted from the token embeddings.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int
        The layer as in `Embedder`; negative numbers count from the last one.

    Returns
    -------
    int
        From 0, the token embeddings, to the number of blocks.

    Raises
    ------
    ValueError
        If the model has no such layer.
    """
    n_layers = lm.config.num_hidden_layers
    if not -n_layers - 1 <= layer <= n_layers:
        raise ValueError(
            f"layer is {layer}; {lm.name} has {n_layers} blocks, so expected {-n_layers - 1} "
            f"to {n_layers}"
        )
    return int(layer % (n_layers + 1))


class _Reached(Exception):  # noqa: N818 (it reports a success)
    """Exception that ends a forward pass at the requested layer."""


def hidden_states(lm: LanguageModel, layer: int, inputs: dict[str, Any]) -> torch.Tensor:
    """Return the hidden states of one layer; the blocks above it are not run.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int
        0 is the token embeddings, k the output of block k; the last one is normalised.
    inputs : dict
        Arguments of the decoder.

    Returns
    -------
    Tensor of shape (rows, length, width)
        The hidden states.
    """
    index, n_layers = layer_index(lm, layer), lm.config.num_hidden_layers
    seen: list[torch.Tensor] = []
    if index == n_layers:
        seen.append(lm.decoder(**inputs, use_cache=False).last_hidden_state)
        return seen[0]
    block = _block(lm, index)
    if block is None:
        outputs = lm.decoder(**inputs, use_cache=False, output_hidden_states=True)
        seen.append(outputs.hidden_states[index])
        return seen[0]

    def stop(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    handle = block.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        lm.decoder(**inputs, use_cache=False)
    except _Reached:
        pass
    finally:
        handle.remove()
    return seen[0]


def next_logits(
    lm: LanguageModel, layer: int, tokens: torch.Tensor, cache: transformers.Cache | None
) -> tuple[torch.Tensor, torch.Tensor, transformers.Cache | None]:
    """Run tokens once, for the logits of the next token and the states of one layer.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int
        Layer of the hidden states, as in `hidden_states`.
    tokens : Tensor of shape (rows, length)
        Tokens that follow those in the cache.
    cache : transformers.Cache or None
        Keys and values of earlier tokens; None without any.

    Returns
    -------
    logits : Tensor of shape (rows, vocabulary), float32
        Logits after the last token.
    states : Tensor of shape (rows, length, width)
        Hidden states of the layer.
    cache : transformers.Cache or None
        The cache with these tokens; None if the model keeps none.
    """
    index, n_layers = layer_index(lm, layer), lm.config.num_hidden_layers
    options: dict[str, Any] = {}
    if tokens.shape[1] > 1 and "logits_to_keep" in inspect.signature(lm.model.forward).parameters:
        options["logits_to_keep"] = 1
    seen: list[torch.Tensor] = []

    def take_input(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    def take_output(_: Any, __: Any, output: Any) -> None:
        seen.append(output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0])

    block = None if index == n_layers else _block(lm, index)
    if index == n_layers:
        handle = lm.decoder.register_forward_hook(take_output)
    elif block is not None:
        handle = block.register_forward_pre_hook(take_input, with_kwargs=True)
    else:
        handle, options["output_hidden_states"] = None, True
    try:
        outputs = lm.model(input_ids=tokens, past_key_values=cache, use_cache=True, **options)
    finally:
        if handle is not None:
            handle.remove()
    states = seen[0] if seen else outputs.hidden_states[index]
    return outputs.logits[:, -1].float(), states, getattr(outputs, "past_key_values", None)


def _block(lm: LanguageModel, index: int) -> torch.nn.Module | None:
    """Return the block whose input is the layer; None if the blocks are not in one list."""
    lists, n_layers = torch.nn.ModuleList, lm.config.num_hidden_layers
    found = [m for m in lm.decoder.modules() if isinstance(m, lists) and len(m) == n_layers]
    return found[0][index] if found else None
