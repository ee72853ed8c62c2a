"""Description of embeddings, as plain data that heads and folders of features keep."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, get_args

Pooling = Literal["mean", "last", "attention"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
"""Names of the formulas that make one vector of the hidden states of a reply."""

ENDPOINT = "endpoint"
"""In the place of a pooling: a server made the embeddings, and alone knows how."""

Layers: TypeAlias = "int | Sequence[int] | Literal['all']"
"""Layer of a model, or several whose embeddings stand side by side."""

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
    layer : int or list of int
        Layer of the hidden states, from 0, the token embeddings, to the number of blocks; of
        several, whose embeddings stand side by side in this order, a list.
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
    layer: int | list[int]
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
        if name == "layer" and isinstance(value, list):
            _check_layers(value)
        elif name not in _LEAST:
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


def check_not_of_server(description: Mapping[str, Any]) -> None:
    """Refuse embeddings that a server made, where a model has to make more of them.

    Parameters
    ----------
    description : Description
        Description of the embeddings.

    Raises
    ------
    ValueError
        If a server made them; ask it for the others too.
    """
    if description["pooling"] == ENDPOINT:
        raise ValueError(
            f"a server made the embeddings, by {description['model']}, so no model here makes more "
            "of them; ask it by EndpointEmbedder, or by cvxnn extract --engine and score that "
            "folder"
        )


def layers_of(description: Mapping[str, Any]) -> list[int]:
    """Return the layers whose embeddings stand side by side.

    Parameters
    ----------
    description : Description
        Description of the embeddings.

    Returns
    -------
    list of int
        The layers in the order of the columns; one if the embeddings are of one layer.
    """
    layer = description["layer"]
    return list(layer) if isinstance(layer, list) else [layer]


def _check_layers(layers: list[Any]) -> None:
    numbers = [n for n in layers if isinstance(n, int) and not isinstance(n, bool) and n >= 0]
    if len(layers) < 2 or len(set(numbers)) != len(layers):
        raise ValueError(
            f"embedding['layer'] is {layers!r}; expected an integer of at least 0, or a list of "
            "several different ones"
        )


def describe_layers(description: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    """Describe the embeddings of some of the layers that stand side by side.

    Parameters
    ----------
    description : Description
        Description of the embeddings.
    layers : sequence of int
        Some of their layers.

    Returns
    -------
    dict
        The description of these layers, in this order.
    """
    n_known, n_context = len(layers_of(description)), description["context"]
    own = (description["width"] - n_context) // n_known * len(layers)
    return {
        **description,
        "layer": layers[0] if len(layers) == 1 else list(layers),
        "width": own * (2 if n_context else 1),
        "context": own if n_context else 0,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return what differs between two descriptions, in words.

    Parameters
    ----------
    one : mapping
        A description of embeddings.
    other : mapping
        Another one.

    Returns
    -------
    list of str
        Texts such as ``"layer is 16 and 32"``; none if they are equal. What follows from another
        difference is left out: the width from the layer, and fingerprints from the model.
    """
    names = {name for name in {*one, *other} if one.get(name) != other.get(name)}
    followed = {"width"} if names & {"layer", "context"} else set()
    if "layer" in names and one.get("context") and other.get("context"):
        followed |= {"context"}  # a number of columns
    prints = {name for name in names if name.startswith("fingerprint")}
    followed |= prints if "model" in names else prints - {"fingerprint"}

    def shown(value: Any, name: str) -> str:
        return value[:12] if name in prints and isinstance(value, str) else repr(value)

    return [
        f"{name} is {shown(one.get(name), name)} and {shown(other.get(name), name)}"
        for name in sorted(names - followed)
    ]
