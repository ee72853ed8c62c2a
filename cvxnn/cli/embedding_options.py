"""Options that say how embeddings are made, against models, features and heads."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cvxnn.cli.option_building import UsageError


def check_layers_of_model(options: Namespace) -> None:
    """Refuse layers that the model does not have, before it is loaded.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments, with ``model`` and ``layer``. Of a model on the Hub, nothing is known yet.

    Raises
    ------
    UsageError
        If there is no such layer, or one is named twice.
    FileNotFoundError
        If there is no such model.
    """
    from cvxnn.llm.model_files import ModelFiles

    n_blocks = ModelFiles.find(options.model).n_layers()
    if n_blocks is None or isinstance(options.layer, str):
        return
    layers = _several(options.layer)
    for layer in layers:
        if not -n_blocks - 1 <= layer <= n_blocks:
            raise UsageError(
                f"--layer {layer}: the model has {n_blocks} blocks; expected 0, its token "
                f"embeddings, to {n_blocks}, the last block, or -1 to {-n_blocks - 1} from the end"
            )
    if len({layer % (n_blocks + 1) for layer in layers}) < len(layers):
        raise UsageError(f"--layer {_text(layers)} names a layer twice; name each once")


def check_layers_of_features(layers: Any, known: Sequence[int], source: str, flag: str) -> None:
    """Refuse layers that a folder of features does not have.

    Parameters
    ----------
    layers : int, sequence of int or str
        As typed; a word names no layer.
    known : sequence of int
        Layers of the folder.
    source : str
        Name of the folder, for the message.
    flag : str
        Option that names the layers.

    Raises
    ------
    UsageError
        If one is not there, or is named twice.
    """
    if isinstance(layers, str):
        return
    wanted = _several(layers)
    if missing := [layer for layer in wanted if layer not in known]:
        more = sorted({*known, *(layer for layer in missing if layer >= 0)})
        again = (
            f", or run cvxnn extract with --layer {_text(more)}" if more != sorted(known) else ""
        )
        have = f"the layers {_text(known)}" if len(known) > 1 else f"layer {known[0]} only"
        raise UsageError(f"{flag} {_text(wanted)}: {source} has {have}; choose among these{again}")
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"{flag} {_text(wanted)} names a layer twice; name each once")


def check_same_embedding(
    found: Mapping[str, Any], expected: Mapping[str, Any], source: str, other: str
) -> None:
    """Refuse features that were embedded in another way than is expected.

    Parameters
    ----------
    found : Description
        Description of the features; of layers that are not expected, nothing is compared.
    expected : Description
        Description of what they are to be.
    source : str
        Name of the features, for the message.
    other : str
        Name of what expects them.

    Raises
    ------
    ValueError
        If they differ; the message has each difference, and the options that remove them.
    """
    from cvxnn.features.description import describe_layers, differences, layers_of

    layers = layers_of(expected)
    if set(layers) <= set(layers_of(found)):
        found = describe_layers(found, layers)
    if not (texts := differences(found, expected)):
        return
    flags = {
        "model": f"--model {expected['model']}",
        "dtype": f"--dtype {expected['dtype']}",
        "layer": f"--layer {_text(layers)}",
        "pooling": f"--pooling {expected['pooling']}",
        "max_length": f"--max-length {expected['max_length']}",
        "context": "--context" if expected["context"] else "--no-context",
    }
    needed = [
        flag for name, flag in flags.items() if any(t.startswith(f"{name} is") for t in texts)
    ]
    remedy = " ".join(["cvxnn extract", *needed]) if needed else "cvxnn extract and the same model"
    raise ValueError(
        f"{source} and {other} do not fit: {'; '.join(texts)}; embed the pairs again, by {remedy}"
    )


def _several(layers: Any) -> list[int]:
    return [layers] if isinstance(layers, int) else list(layers)


def _text(layers: Iterable[int]) -> str:
    return ",".join(map(str, layers))
