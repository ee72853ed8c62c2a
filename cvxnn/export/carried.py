"""Description of embeddings that an exported head carries, and what refuses others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cvxnn.features.description import Description, check_description, differences

ONNX_KEY = "cvxnn_embedding"
"""Name of the description among the metadata of an ONNX model."""


def embedding_of(exported: Any) -> Description | None:
    """Return the description of the embeddings that an exported head takes.

    With it, ``cvxnn.llm.Embedder.from_description`` makes the embedder for the head, and refuses
    another language model.

    Parameters
    ----------
    exported : onnx.ModelProto, onnxruntime.InferenceSession or TorchHead
        What ``to_onnx`` gave, perhaps opened by onnxruntime, or what ``to_torch`` gave.

    Returns
    -------
    Description or None
        ``head.embedding`` of the head; None if it had none, or is no head.

    Raises
    ------
    TypeError
        If the object is none of these; of a file, pass ``onnx.load(file)``.
    ValueError
        If what the model carries is not a description; export the head again.
    """
    if hasattr(exported, "get_modelmeta"):
        return read_description(exported.get_modelmeta().custom_metadata_map.get(ONNX_KEY, "null"))
    if hasattr(exported, "metadata_props"):
        held = {entry.key: entry.value for entry in exported.metadata_props}
        return read_description(held.get(ONNX_KEY, "null"))
    if hasattr(exported, "hidden_weights"):
        return getattr(exported, "embedding", None)
    raise TypeError(
        f"cannot find a description in a {type(exported).__name__}; expected an ONNX model, an "
        "onnxruntime.InferenceSession or a module of to_torch"
    )


def check_embedding(exported: Any, description: Mapping[str, Any]) -> None:
    """Refuse embeddings that an exported head was not fitted to.

    Parameters
    ----------
    exported : onnx.ModelProto, onnxruntime.InferenceSession or TorchHead
        As for `embedding_of`.
    description : Description
        ``Embedder.description`` of the embedder whose embeddings the head is to score.

    Raises
    ------
    ValueError
        If the embeddings are others, or the head does not say which it was fitted to; the message
        names what differs. The name of the model does not matter.
    TypeError
        As `embedding_of` does.
    """
    check_same(embedding_of(exported), description)


def check_same(own: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> None:
    """Refuse embeddings other than those that a head was fitted to.

    Parameters
    ----------
    own : Description or None
        Description of the embeddings of the head.
    other : Description or None
        Description of the embeddings at hand.

    Raises
    ------
    ValueError
        If one is None, or they differ in more than the name of the model.
    """
    if own is None or other is None:
        raise ValueError(
            f"the {'head' if own is None else 'other one'} does not say which embeddings it takes; "
            "export a head that was fitted with embedding=embedder.description"
        )
    differ = differences({**own, "model": other["model"]}, other)
    if differ:
        raise ValueError(
            f"the head was fitted to other embeddings ({'; '.join(differ)}, of the head first); "
            "make the embedder by Embedder.from_description(lm, embedding_of(...)), or export a "
            "head that was fitted to these"
        )


def read_description(text: str) -> Description | None:
    """Read a description from JSON.

    Parameters
    ----------
    text : str
        The description, or ``"null"``.

    Returns
    -------
    Description or None
        The description.

    Raises
    ------
    ValueError
        If the text is neither; export the head again.
    """
    found = json.loads(text)
    if found is not None:
        check_description(found)
    return found
