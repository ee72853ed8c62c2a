"""Hidden states of layers of a language model, with or without the blocks above them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import torch
import transformers

from cvxnn.features.description import Layers
from cvxnn.llm.layer_numbers import layer_numbers
from cvxnn.llm.models import LanguageModel


def layer_indices(lm: LanguageModel, layer: Layers) -> list[int]:
    """Return the numbers of one or several layers of a model, counted from the token embeddings.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int, sequence of int or "all"
        The layers as in `Embedder`.

    Returns
    -------
    list of int
        Each from 0, the token embeddings, to the number of blocks.

    Raises
    ------
    ValueError
        If the model has no such layer, or none or the same one twice is named.
    """
    return layer_numbers(layer, lm.config.num_hidden_layers, lm.name)


def described(indices: list[int]) -> int | list[int]:
    """Return the numbers of layers as a description has them.

    Parameters
    ----------
    indices : list of int
        As of `layer_indices`.

    Returns
    -------
    int or list of int
        A number if it is one layer.
    """
    return indices[0] if len(indices) == 1 else indices


class _Reached(Exception):  # noqa: N818 (it reports a success)
    """Exception that ends a forward pass at the requested layer."""


def hidden_states(
    lm: LanguageModel, layer: Layers, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the hidden states of layers; the blocks above them are not run.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int, sequence of int or "all"
        0 is the token embeddings, k the output of block k; the last one is normalised.
    inputs : dict
        Arguments of the decoder.

    Returns
    -------
    Tensor of shape (rows, length, width)
        The hidden states; those of several layers stand side by side.
    """
    indices, n_layers = layer_indices(lm, layer), lm.config.num_hidden_layers
    seen: dict[int, torch.Tensor] = {}
    if not _blocks(lm) and indices != [n_layers]:
        states = lm.decoder(**inputs, use_cache=False, output_hidden_states=True).hidden_states
        return _side_by_side([states[index] for index in indices])
    highest = max(indices)
    with _inputs_of_blocks(lm, indices, seen, stop=highest):
        try:
            outputs = lm.decoder(**inputs, use_cache=False)
            seen[n_layers] = outputs.last_hidden_state
        except _Reached:
            pass
    return _side_by_side([seen[index] for index in indices])


def next_logits(
    lm: LanguageModel, layer: Layers, tokens: torch.Tensor, cache: transformers.Cache | None
) -> tuple[torch.Tensor, torch.Tensor, transformers.Cache | None]:
    """Run tokens once, for the logits of the next token and the states of layers.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int, sequence of int or "all"
        Layers of the hidden states, as in `hidden_states`.
    tokens : Tensor of shape (rows, length)
        Tokens that follow those in the cache.
    cache : transformers.Cache or None
        Keys and values of earlier tokens; None without any.

    Returns
    -------
    logits : Tensor of shape (rows, vocabulary), float32
        Logits after the last token.
    states : Tensor of shape (rows, length, width)
        Hidden states of the layers, side by side.
    cache : transformers.Cache or None
        The cache with these tokens; None if the model keeps none.
    """
    indices, n_layers = layer_indices(lm, layer), lm.config.num_hidden_layers
    options: dict[str, int | bool] = {}
    if tokens.shape[1] > 1 and "logits_to_keep" in inspect.signature(lm.model.forward).parameters:
        options["logits_to_keep"] = 1
    seen: dict[int, torch.Tensor] = {}

    def take_output(
        _: torch.nn.Module,
        __: tuple[torch.Tensor, ...],
        output: transformers.utils.ModelOutput | tuple[torch.Tensor, ...],
    ) -> None:
        last = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
        seen[n_layers] = last

    whole = not _blocks(lm) and indices != [n_layers]
    if whole:
        options["output_hidden_states"] = True
    with _inputs_of_blocks(lm, [] if whole else indices, seen):
        handle = lm.decoder.register_forward_hook(take_output)
        try:
            outputs = lm.model(input_ids=tokens, past_key_values=cache, use_cache=True, **options)
        finally:
            handle.remove()
    known = dict(enumerate(outputs.hidden_states)) if whole else seen
    states = _side_by_side([known[index] for index in indices])
    return outputs.logits[:, -1].float(), states, getattr(outputs, "past_key_values", None)


@contextlib.contextmanager
def _inputs_of_blocks(
    lm: LanguageModel, indices: list[int], seen: dict[int, torch.Tensor], stop: int | None = None
) -> Iterator[None]:
    """Keep what the blocks of these numbers get, and end the pass at one of them."""
    with contextlib.ExitStack() as stack:
        for index in indices:
            if index == lm.config.num_hidden_layers:
                continue

            def keep(
                _: torch.nn.Module,
                args: tuple[torch.Tensor, ...],
                kwargs: dict[str, torch.Tensor],
                index: int = index,
            ) -> None:
                seen[index] = args[0] if args else kwargs["hidden_states"]
                if index == stop:
                    raise _Reached

            block = _blocks(lm)[0][index]
            stack.callback(block.register_forward_pre_hook(keep, with_kwargs=True).remove)
        yield


def _side_by_side(states: list[torch.Tensor]) -> torch.Tensor:
    if len(states) == 1:
        return states[0]
    return torch.cat([part.to(states[0].device) for part in states], dim=-1)


def _blocks(lm: LanguageModel) -> list[torch.nn.ModuleList]:
    """Return the lists of as many modules as the model has blocks; none if it has no such list."""
    lists, n_layers = torch.nn.ModuleList, lm.config.num_hidden_layers
    return [m for m in lm.decoder.modules() if isinstance(m, lists) and len(m) == n_layers]
