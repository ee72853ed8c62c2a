"""Identity of a language model beyond one process: describe it, and recognise it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import torch

from cvxnn._messages import warn
from cvxnn.features.description import Description, Layers, check_description, check_not_of_server
from cvxnn.llm.devices import dtype_name
from cvxnn.llm.fingerprint import fingerprints
from cvxnn.llm.hidden_states import described, layer_indices
from cvxnn.llm.models import LanguageModel


class Identity(TypedDict):
    """What identifies a language model, in words and digests."""

    model: str
    dtype: str
    date: str
    fingerprints: dict[str, str]


def describe_model(lm: LanguageModel) -> Identity:
    """Describe a model, so that `is_same_model` recognises it.

    Parameters
    ----------
    lm : LanguageModel
        The model.

    Returns
    -------
    Identity
        ``model``, its name; ``dtype``, the type of its weights; ``date``, what its chat template
        takes for today; ``fingerprints``, those of the weights as they are (``exact``) and rounded
        (``float16``, ``bfloat16``).
    """
    exact, half, brain = fingerprints(lm.model, lm.tokenizer, [None, torch.float16, torch.bfloat16])
    return {
        "model": lm.name,
        "dtype": dtype_name(lm.dtype),
        "date": lm.date.isoformat(),
        "fingerprints": {"exact": exact, "float16": half, "bfloat16": brain},
    }


def is_same_model(lm: LanguageModel, dtype: str, known: Mapping[str, str]) -> bool:
    """Return True if a model is the one that was described, perhaps in another type.

    A copy in another floating-point type is the same model if rounding the weights of one gives
    those of the other.

    Parameters
    ----------
    lm : LanguageModel
        The model at hand.
    dtype : str
        Type of the weights of the model that was described.
    known : mapping of str to str
        Its fingerprints, as `describe_model` gives them.

    Returns
    -------
    bool
        False for other weights, another vocabulary, chat template or configuration.
    """
    types = [None, getattr(torch, dtype, None)]
    exact, rounded = fingerprints(lm.model, lm.tokenizer, types)
    return known.get("exact") in (exact, rounded) or known.get(dtype_name(lm.dtype)) == exact


def describe_embeddings(
    lm: LanguageModel, *, layer: Layers, pooling: str, max_length: int, context: bool
) -> Description:
    """Describe the embeddings that a model gives with these settings.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int, sequence of int or "all"
        Layers of the hidden states, as in `Embedder`.
    pooling : {"mean", "last", "attention"}
        Formula of `Embedder` that makes one vector of the hidden states.
    max_length : int
        Largest number of tokens of prompt and reply together.
    context : bool
        Whether the prompt is described as well, behind the reply.

    Returns
    -------
    Description
        Everything that the embeddings depend on, beside the texts.
    """
    identity = describe_model(lm)
    known, indices = identity["fingerprints"], layer_indices(lm, layer)
    width = len(indices) * int(lm.config.hidden_size)
    return Description(
        model=identity["model"],
        fingerprint=known["exact"],
        fingerprint_float16=known["float16"],
        fingerprint_bfloat16=known["bfloat16"],
        dtype=identity["dtype"],
        layer=described(indices),
        pooling=pooling,
        max_length=max_length,
        date=identity["date"],
        context=width if context else 0,
        width=2 * width if context else width,
    )


def check_model(lm: LanguageModel, description: Description) -> None:
    """Refuse a model other than the one whose embeddings are described.

    Parameters
    ----------
    lm : LanguageModel
        The model at hand. A copy in another floating-point type is accepted with a warning, as its
        embeddings differ in their last digits.
    description : Description
        Description of the embeddings.

    Raises
    ------
    ValueError
        If it is another model: with other weights, vocabulary, chat template or configuration.
        Load the model that the message names.

    Warns
    -----
    UserWarning
        If the weights have another type than those that made the embeddings.
    """
    check_description(description)
    check_not_of_server(description)
    here, there = dtype_name(lm.dtype), description["dtype"]
    known = {
        "exact": description["fingerprint"],
        "float16": description["fingerprint_float16"],
        "bfloat16": description["fingerprint_bfloat16"],
    }
    if not is_same_model(lm, there, known):
        raise ValueError(
            f"the embeddings were made by {description['model']} in {there} (fingerprint "
            f"{known['exact'][:12]}, {description['width']} numbers each), but the model is "
            f"{lm.name} in {here} (fingerprint {lm.fingerprint[:12]}, {lm.config.hidden_size} "
            f"numbers). Load the model that made them, with dtype={there!r} if in doubt, or embed "
            "again and fit a new head"
        )
    if here != there:
        warn(
            f"the embeddings were made by {lm.name} in {there}, and it computes in {here} now: "
            f"rewards differ slightly. load_model(..., dtype={there!r}) gives the same",
        )
