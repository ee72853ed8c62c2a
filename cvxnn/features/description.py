"""What an embedding depends on, as plain data that a head and a folder of features can keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args

Pooling = Literal["mean", "last", "attention"]
POOLINGS: tuple[str, ...] = get_args(Pooling)

_LEAST = {"layer": 0, "max_length": 1, "width": 1}


class Description(TypedDict):
    """All that an embedding depends on, beside the texts.

    Attributes
    ----------
    model : str
        Name of the language model, for messages.
    fingerprint : str
        Identity of the model; see ``LanguageModel.fingerprint``.
    fingerprint_float16, fingerprint_bfloat16 : str
        What the fingerprint is once the weights are rounded to these types.
    dtype : str
        Type the model computed in, such as ``"float32"``.
    layer : int
        From 0, the token embeddings, to the number of blocks.
    pooling : str
    max_length : int
        Tokens of prompt and reply.
    width : int
        Numbers in an embedding.
    """

    model: str
    fingerprint: str
    fingerprint_float16: str
    fingerprint_bfloat16: str
    dtype: str
    layer: int
    pooling: str
    max_length: int
    width: int


def check_description(description: Any) -> None:
    """Refuse what is no description.

    Raises
    ------
    ValueError
        If it is not a dict with the entries of `Description`, or one of them cannot be.
    """
    names = list(Description.__annotations__)
    if not isinstance(description, Mapping):
        raise ValueError(
            f"embedding is {description!r:.80}; expected Embedder.description, a dict of {names}"
        )
    if description.keys() != set(names):
        raise ValueError(
            f"embedding has the entries {sorted(description)}; expected those of "
            f"Embedder.description, {names}"
        )
    for name, value in description.items():
        if name not in _LEAST:
            if not isinstance(value, str):
                raise ValueError(f"embedding[{name!r}] is {value!r}; expected text")
        elif not isinstance(value, int) or isinstance(value, bool) or value < _LEAST[name]:
            raise ValueError(
                f"embedding[{name!r}] is {value!r}; expected an integer of at least {_LEAST[name]}"
            )
    if description["pooling"] not in POOLINGS:
        raise ValueError(
            f"embedding['pooling'] is {description['pooling']!r}; expected one of {POOLINGS}"
        )
