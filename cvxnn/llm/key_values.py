"""Caches of keys and values that may be repeated for several replies."""

from __future__ import annotations

from typing import TypeGuard

from transformers import cache_utils

# Subclasses of these layers hold other states beside keys and values: of recurrences, of indices.
_LAYERS = (
    cache_utils.DynamicLayer,
    getattr(cache_utils, "DynamicSlidingWindowLayer", cache_utils.DynamicLayer),
)


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
    return isinstance(cache, cache_utils.DynamicCache) and all(
        type(layer) in _LAYERS for layer in cache.layers
    )
