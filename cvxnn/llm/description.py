"""Describe the embeddings that a model gives, and check that a model is the one described."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from cvxnn._extras import require
from cvxnn.features.description import Description, check_description
from cvxnn.llm.fingerprint import fingerprints
from cvxnn.llm.hidden_states import layer_index
from cvxnn.llm.models import LanguageModel

_HALVES = ("float16", "bfloat16")


def describe(lm: LanguageModel, *, layer: int, pooling: str, max_length: int) -> Description:
    """Describe the embeddings that a model gives with these settings."""
    torch = require("torch", extra="llm")
    types = [None, *(getattr(torch, name) for name in _HALVES)]
    exact, half, brain = fingerprints(lm.model, lm.tokenizer, types)
    return Description(
        model=lm.name,
        fingerprint=exact,
        fingerprint_float16=half,
        fingerprint_bfloat16=brain,
        dtype=_name(lm.dtype),
        layer=layer_index(lm, layer),
        pooling=pooling,
        max_length=max_length,
        width=int(lm.config.hidden_size),
    )


def require_model(lm: LanguageModel, description: Description) -> None:
    """Refuse a model other than the one that is described.

    A copy in another floating-point type is the same model where rounding the weights of one gives
    those of the other. It is taken with a warning, as its embeddings differ in their last digits.

    Parameters
    ----------
    lm : LanguageModel
    description : Description

    Raises
    ------
    ValueError
        If it is another model: with other weights, vocabulary, chat template or configuration.
    """
    torch = require("torch", extra="llm")
    check_description(description)
    here, there = _name(lm.dtype), description["dtype"]
    known = description["fingerprint"]
    types = [None, getattr(torch, there, None)]
    exact, rounded = fingerprints(lm.model, lm.tokenizer, types)
    recorded: Mapping[str, Any] = description
    # Rounded from that one, or that one rounded from this one.
    same = known in (exact, rounded) or recorded.get(f"fingerprint_{here}") == exact
    if not same:
        raise ValueError(
            f"the embeddings were made by {description['model']} in {there} (fingerprint "
            f"{known[:12]}, {description['width']} numbers each), but the model is {lm.name} in "
            f"{here} (fingerprint {exact[:12]}, {lm.config.hidden_size} numbers). Load the model "
            f"that made them, with dtype={there!r} if in doubt, or embed again and fit a new head"
        )
    if here != there:
        warnings.warn(
            f"the embeddings were made by {lm.name} in {there}, and it computes in {here} now: "
            f"rewards differ slightly. load_model(..., dtype={there!r}) gives the same",
            stacklevel=3,
        )


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
