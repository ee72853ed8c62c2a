"""Batches of rows of tokens, and the inputs of a language model for a batch."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np
import torch

from cvxnn.features.description import Layers
from cvxnn.llm.hidden_states import hidden_states
from cvxnn.llm.models import LanguageModel
from cvxnn.llm.packing import Item, Pack, lay_out, plan

_log = logging.getLogger(__name__)

_MIN_FILL = 0.85  # rows of one batch are at least this long, relative to the longest


def batches(packs: list[Pack], batch_tokens: int) -> list[list[Pack]]:
    """Join rows of similar length into batches, the longest first.

    With the longest first, memory runs out at once or never.

    Parameters
    ----------
    packs : list of Pack
        The rows.
    batch_tokens : int
        Largest number of tokens of a batch, padding included. A longer row is a batch of its own.

    Returns
    -------
    list of list of Pack
        The batches.
    """
    found: list[list[Pack]] = []
    for pack in sorted(packs, key=lambda pack: -pack.length):
        if found:
            longest, n = found[-1][0].length, len(found[-1]) + 1
            if longest * n <= batch_tokens and pack.length >= _MIN_FILL * longest:
                found[-1].append(pack)
                continue
        found.append([pack])
    return found


def members_of(batch: list[Pack]) -> list[int]:
    """Return the numbers of the items in a batch.

    Parameters
    ----------
    batch : list of Pack
        Rows of the batch.

    Returns
    -------
    list of int
        Numbers of items, row by row.
    """
    return [i for pack in batch for i in pack.members]


def missing_batches(
    items: Mapping[bytes, Item],
    known: Container[bytes],
    plan_of: Callable[[list[Item]], list[list[Pack]]],
) -> tuple[list[bytes], list[list[Pack]]]:
    """Return the batches that compute what a cache lacks.

    An interrupted run leaves whole batches. The others then stay as they were planned, so that
    their results are the same to the last bit.

    Parameters
    ----------
    items : mapping of bytes to Item
        All items by their keys.
    known : container of bytes
        Keys of the items that the cache has.
    plan_of : callable
        Function from items to batches.

    Returns
    -------
    keys : list of bytes
        Keys of the items to which the members of the batches refer.
    todo : list of list of Pack
        The batches.
    """
    keys = list(items)
    absent = {i for i, key in enumerate(keys) if key not in known}
    if not absent:
        return keys, []
    planned = plan_of(list(items.values()))
    todo = [batch for batch in planned if not absent.isdisjoint(members_of(batch))]
    if sum(len(members_of(batch)) for batch in todo) > len(absent):
        keys = [keys[i] for i in sorted(absent)]
        todo = plan_of([items[key] for key in keys])
    return keys, todo


def model_inputs(
    lm: LanguageModel, items: Sequence[Item], batch: Sequence[Pack]
) -> tuple[dict[str, torch.Tensor], list[tuple[int, np.ndarray]]]:
    """Make the inputs of a call of the model for a batch of rows.

    Rows with several members are prefix trees, in which a mask hides the other branches.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    items : sequence of Item
        The items; members of rows are numbers of items.
    batch : sequence of Pack
        The rows.

    Returns
    -------
    inputs : dict
        Arguments of the decoder.
    where : list of (int, ndarray)
        Row and columns of the tokens of each member.
    """
    length = max(pack.length for pack in batch)
    shape = (len(batch), length)
    tokens, depth = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    separate = all(len(pack.members) == 1 for pack in batch)
    visible = np.zeros(shape if separate else (*shape, length), dtype=bool)
    where: list[tuple[int, np.ndarray]] = []
    for row, pack in enumerate(batch):
        sequences = [items[i].tokens for i in pack.members]
        if separate:
            tokens[row, : pack.length], visible[row, : pack.length] = sequences[0], True
            paths = [np.arange(pack.length)]
        else:
            np.fill_diagonal(visible[row], True)  # padding sees itself, else softmax is empty
            paths = lay_out(sequences, tokens[row], depth[row], visible[row])
        where += [(row, path) for path in paths]
    inputs: dict[str, torch.Tensor] = {"input_ids": torch.from_numpy(tokens).to(lm.device)}
    mask = torch.from_numpy(visible).to(lm.device)
    if separate:
        inputs["attention_mask"] = mask.long()
        return inputs, where
    inputs["position_ids"] = torch.from_numpy(depth).to(lm.device)
    mask = mask[:, None]
    if lm.config._attn_implementation == "eager":  # this kernel adds the mask to the scores
        lowest = torch.finfo(lm.dtype).min
        mask = torch.zeros_like(mask, dtype=lm.dtype).masked_fill_(~mask, lowest)
    inputs["attention_mask"] = mask
    return inputs, where


def may_share(lm: LanguageModel, longest: int) -> bool:
    """Return True if the configuration of a model allows prefix trees.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    longest : int
        Number of tokens of the longest sequence.

    Returns
    -------
    bool
        False if attention takes no free mask, or a sliding window is shorter than `longest`. The
        reason is logged as a warning, once.
    """
    config = lm.config
    window = getattr(config, "sliding_window", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        window = longest
    kinds = {
        *(getattr(config, "layer_types", None) or ()),
        *(getattr(config, "attention_layers", None) or ()),
    }
    others = sorted(kinds - {"full_attention", "sliding_attention", "global"})
    obstacles = {
        f"its attention {config._attn_implementation!r} accepts no mask from outside": (
            config._attn_implementation not in ("eager", "sdpa")
        ),
        "its attention is not causal": not getattr(config, "is_causal", True),
        "its attention runs in chunks": bool(getattr(config, "attention_chunk_size", None)),
        f"its sliding window of {window} tokens is too short": window < longest,
        f"it has layers of the kinds {others}": bool(others),
    }
    found = [reason for reason, holds in obstacles.items() if holds]
    if found:
        _tell(lm.name, found[0])
    return not found


@functools.lru_cache(maxsize=256)
def _tell(name: str, reason: str) -> None:
    """Log, once for each model and reason, why prefix trees are not used."""
    _log.warning(
        "%s computes the beginnings that replies share once for each reply, which takes longer: %s",
        name,
        reason,
    )


def prefix_trees(lm: LanguageModel, items: list[Item], batch_tokens: int) -> list[Pack]:
    """Join items with common beginnings into rows, where that saves operations.

    Parameters
    ----------
    lm : LanguageModel
        The model, whose size decides what a row saves.
    items : list of Item
        The items.
    batch_tokens : int
        Largest number of tokens of a row, unless an item is longer.

    Returns
    -------
    list of Pack
        Rows; each item is in one of them.
    """
    longest = max(len(item.tokens) for item in items)
    # A token costs 2 n_parameters operations, and a pair in attention costs 4 width in each layer.
    operations = 2 * lm.config.hidden_size * lm.config.num_hidden_layers
    return plan(items, max(batch_tokens, longest), lm.n_parameters / operations)


def trees_are_exact(lm: LanguageModel, layer: Layers = -1) -> bool:
    """Return True if a model gives the same for a small prefix tree as for its separate rows.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int, sequence of int or "all", default=-1
        Layers whose hidden states are compared; see `Embedder`.

    Returns
    -------
    bool
        False if the states differ by more than rounding, or the model takes no tree. The reason is
        logged as a warning, once.

    Raises
    ------
    torch.OutOfMemoryError
        If there is no memory for a dozen tokens.
    """
    ids = np.arange(3, 18) % lm.config.vocab_size
    branches = ([0, 1, 2, 3, 4, 5], [0, 1, 2, 6, 7, 8], [0, 1, 2, 6, 9, 10, 11])
    items = [Item(ids[branch], 1) for branch in branches]

    def states(batch: list[Pack]) -> torch.Tensor:
        inputs, paths = model_inputs(lm, items, batch)
        with torch.inference_mode():
            hidden = hidden_states(lm, layer, inputs)
            return torch.cat([hidden[row, torch.from_numpy(path)] for row, path in paths]).float()

    plain = states([Pack([i], len(item.tokens)) for i, item in enumerate(items)])
    try:
        packed = states([Pack([0, 1, 2], 12)])
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        # The separate rows passed, so it is the tree that the model does not take: it has no
        # position_ids or no mask of three dimensions. Each model reports that by its own error.
        _tell(lm.name, f"it takes no tree of them ({error!r:.200})")
        return False
    tolerance = 3e-2 if lm.dtype.itemsize == 2 else 1e-3
    exact = bool((packed - plain).norm() <= tolerance * plain.norm())
    if not exact:
        _tell(lm.name, f"its hidden states in a tree of them differ by more than {tolerance:g}")
    return exact
