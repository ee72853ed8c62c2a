"""Description of embeddings, as plain data that heads and folders of features keep."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args

Pooling = Literal["mean", "last", "attention"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
"""Names of the formulas that make one vector of the hidden states of a reply."""

ENDPOINT = "endpoint"
"""In the place of a pooling: a server made the embeddings, and alone knows how."""

_LEAST = {"layer": 0, "max_length": 1, "context": 0, "width": 1}


class Description(TypedDict):
    """Everything that embeddings depend on, beside the texts.

    Attributes
    ----------
    model : str
        Name of the language model, for messages.
    fingerprint : str
        Identity of the model; see ``LanguageModel.fingerprint``.
    fingerprint_float16 : str
        Fingerprint of the model with its weights rounded to float16.
    fingerprint_bfloat16 : str
        Fingerprint of the model with its weights rounded to bfloat16.
    dtype : str
        Type of the weights that made the embeddings, such as ``"float32"``.
    layer : int
        Layer of the hidden states, from 0, the token embeddings, to the number of blocks.
    pooling : {"mean", "last", "attention", "endpoint"}
        Formula that makes one vector of the hidden states of a reply; with ``"endpoint"``, a server
        decided about that, and `layer`, `max_length` and `date` say nothing.
    max_length : int
        Largest number of tokens of prompt and reply, at least 1.
    date : str
        What chat templates took for today, such as ``"2024-07-26"``.
    context : int
        How many of the last numbers describe the prompt and not the reply; 0 for none.
    width : int
        Number of numbers in an embedding, at least 1.
    """

    model: str
    fingerprint: str
    fingerprint_float16: str
    fingerprint_bfloat16: str
    dtype: str
    layer: int
    pooling: str
    max_length: int
    date: str
    context: int
    width: int


def check_description(description: Any) -> None:
    """Refuse an object that is not a description of embeddings.

    Parameters
    ----------
    description : object
        The object to check.

    Raises
    ------
    ValueError
        If it is not a dict with the entries of `Description`, or an entry is out of range; pass
        ``Embedder.description``.
    """
    names = list(Description.__annotations__)
    if not isinstance(description, Mapping):
        raise ValueError(
            f"embedding is {description!r:.80}; expected Embedder.description, a dict of {names}"
        )
    if description.keys() != set(names):
        # What earlier versions wrote lacks this entry.
        known_before = {*names} - {"context"}
        hint = "; an earlier version made them: extract the features and fit the heads again"
        raise ValueError(
            f"embedding has the entries {sorted(description)}; expected those of "
            f"Embedder.description, {names}{hint if description.keys() == known_before else ''}"
        )
    for name, value in description.items():
        if name not in _LEAST:
            if not isinstance(value, str):
                raise ValueError(f"embedding[{name!r}] is {value!r}; expected text")
        elif not isinstance(value, int) or isinstance(value, bool) or value < _LEAST[name]:
            raise ValueError(
                f"embedding[{name!r}] is {value!r}; expected an integer of at least {_LEAST[name]}"
            )
    try:
        datetime.date.fromisoformat(description["date"])
    except ValueError as error:
        raise ValueError(
            f"embedding['date'] is {description['date']!r}; expected a date like '2024-07-26'"
        ) from error
    if description["pooling"] not in (*POOLINGS, ENDPOINT):
        raise ValueError(
            f"embedding['pooling'] is {description['pooling']!r}; expected one of "
            f"{(*POOLINGS, ENDPOINT)}"
        )
