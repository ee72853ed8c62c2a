"""The file of a saved estimator: arrays, and a JSON header with the checksum of all contents."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cvxnn import convex  # names load when first used: predictions need none
from cvxnn.files.digests import digest
from cvxnn.files.writing import MALFORMED
from cvxnn.network import TwoLayerNetwork

FORMAT_VERSION = 4
HEADER = "cvxnn"
NETWORK_PARTS = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
GATE_PARTS = ("gate_weights", "gate_bias", "gate_index")
OPTIONAL_PARTS = (*GATE_PARTS, "linear_weights", "output_index")
_WRITERS = "cvxnn.save, or of a preference head by cvxnn fit"
_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive, as numpy.savez, torch.save and skops write it",
    b"\x80": "a pickle, which cvxnn does not open",
    b"GGUF": "a language model in GGUF",
    b"\x93NUMPY": "an array of NumPy",
    b"PAR1": "a table in Parquet",
    b"\x1f\x8b": "a compressed file",
}
_TEXTS = {
    ".csv": "a table; read it by pandas.read_csv, and fit an estimator to its columns",
    ".tsv": "a table; read it by pandas.read_csv, and fit an estimator to its columns",
    ".jsonl": "a file of rows, such as pairs; cvxnn extract and cvxnn fit make a head of pairs",
    ".json": "a file of JSON, such as the note beside a head, whose name ends in .safetensors",
}


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a file, whose checksum is compared first.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is truncated, changed or damaged, or of another format or version.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a file written by {_WRITERS}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one written by {_WRITERS}.")
    if looks := _looks_like(path):
        raise ValueError(
            f"{path} is {looks}; expected a file written by {_WRITERS}. If it is one, it was "
            "changed or damaged: take another copy."
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); it was changed or damaged, or is "
            "truncated. Save the estimator again."
        ) from error
    if HEADER not in metadata:
        raise ValueError(
            f"{path}: no {HEADER!r} header: this is a safetensors file of something else, such as "
            "the weights of a language model, or it was changed or damaged; expected one written "
            f"by {_WRITERS}."
        )
    try:
        header = json.loads(metadata[HEADER])
        version, sealed = header["format_version"], seal(header, tensors)
    except MALFORMED as error:
        raise ValueError(
            f"{path}: has no valid {HEADER!r} header; expected a file written by cvxnn.save that "
            "was not changed or damaged."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {version!r}; this cvxnn reads version {FORMAT_VERSION}. "
            "Use the cvxnn that wrote the file, or save the estimator again. If this cvxnn wrote "
            "it, it was changed or damaged."
        )
    if metadata != {HEADER: sealed}:
        raise ValueError(
            f"{path}: the checksum does not match; the file was changed or damaged. Take another "
            "copy, or save the estimator again."
        )
    return header, tensors


def _looks_like(path: Path) -> str | None:
    """Say what a file is that no safetensors file can be; None if it may be one."""
    with path.open("rb") as file:
        start = file.read(1024)
    # A safetensors file begins with the length of its header in 8 bytes, and the header is JSON.
    if len(start) < 9 or start[8:9] == b"{":
        return None
    for beginning, name in _BEGINNINGS.items():
        if start.startswith(beginning):
            return name
    if not all(byte >= 32 or byte in b"\t\n\r" for byte in start):
        return None
    return _TEXTS.get(path.suffix.lower(), "a text")


@contextlib.contextmanager
def taking_apart(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name the file in errors of a block that takes its contents apart."""
    try:
        yield
    except MALFORMED as error:
        raise ValueError(
            f"{path}: the contents are not those of an estimator of this cvxnn ({error}); use the "
            "cvxnn that wrote the file."
        ) from error


def seal(header: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> str:
    """Return the text of the header in its canonical form, with the checksum of all contents."""
    contents = {key: value for key, value in header.items() if key != "checksum"}
    parts = (part for name in sorted(tensors) for part in (name, tensors[name]))
    return _canonical({**contents, "checksum": digest(contents, *parts, digits=64)})


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous array in the byte order of the file."""
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def _read_network(key: str, tensors: dict[str, NDArray[Any]]) -> TwoLayerNetwork:
    """Return the network whose arrays have a name; it is not checked."""
    parts: dict[str, Any] = {part: tensors[f"{key}.{part}"] for part in NETWORK_PARTS}
    parts |= {part: tensors.get(f"{key}.{part}") for part in OPTIONAL_PARTS}
    return TwoLayerNetwork(**parts)


def unpack(packed: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Any:
    """Return the attribute that an entry of the header and the arrays stand for."""
    ((kind, value),) = [(k, v) for k, v in packed.items() if k != "dtype"]
    if kind == "network":
        return _read_network(value, tensors)
    if kind == "patterns":
        return convex.ActivationPatterns(tensors[f"{value}.mask"], tensors[f"{value}.gates"])
    if kind == "dict":
        return {k: unpack(v, tensors) for k, v in value}
    if kind == "array":
        return tensors[value]
    if kind == "strings":
        return np.array(value, dtype=object if packed["dtype"] == "O" else str)
    if kind == "value":
        return plain("an attribute", value)
    raise ValueError(f"unknown entry {kind!r}")


def unpack_plain(value: Any, entry: Callable[[Any], Any] | None = None) -> Any:
    """Return a parameter that is a number, a text, or a dict, list or tuple of them.

    ``entry`` reads the values of a dict, by default in the same way.
    """
    if not isinstance(value, dict):
        return plain("a parameter", value)
    ((name, content),) = value.items()
    if name == "pairs":
        return {plain(name, k): (entry or unpack_plain)(v) for k, v in content}
    return {"list": list, "tuple": tuple}[name](plain(name, v) for v in content)


def plain(key: str, value: Any) -> Any:
    """Return a value that JSON can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{key} holds {value!r}, a {type(value).__name__}, which cannot be saved; use a number, a "
        "string or None (for random_state, an integer)."
    )


def check_network(network: TwoLayerNetwork, width: int) -> None:
    """Raise a ValueError unless the arrays of a network fit together and are finite."""
    (m,), (c,) = network.output_weights.shape, network.output_bias.shape
    given = [part for part in GATE_PARTS if getattr(network, part) is not None]
    if given not in ([], list(GATE_PARTS)):
        raise ValueError(f"of its gates, the network has only {given}")
    gates = (0,) if network.gate_bias is None else network.gate_bias.shape
    if len(gates) not in (1, 2) or 0 in gates[1:]:
        raise ValueError(f"the offsets of the gates have shape {gates}")
    shapes = {
        "hidden_weights": (m, width),
        "hidden_bias": (m,),
        "output_weights": (m,),
        "output_bias": (c,),
        "gate_weights": (*gates, width),
        "gate_bias": gates,
        "gate_index": (m,),
        "output_index": (m,),
        "linear_weights": (width, c),
    }
    if (network.output_index is None) != (c == 1):
        raise ValueError(f"the network has {c} outputs and {network.output_index} as their index")
    if network.output_index is not None and np.any(np.diff(network.output_index) < 0):
        raise ValueError("the neurons of the network are not in the order of their outputs")
    for part, shape in shapes.items():
        array = getattr(network, part)
        if array is None and part in OPTIONAL_PARTS:
            continue
        if array.shape != shape:
            raise ValueError("the shapes of the network do not fit together")
        if part in ("gate_index", "output_index"):
            most = gates[0] if part == "gate_index" else c
            if array.dtype.kind not in "iu" or not np.all((array >= 0) & (array < most)):
                raise ValueError(f"the network has neurons without {part.replace('_', ' ')}")
            continue
        if array.dtype.name not in ("float32", "float64"):
            raise ValueError("the network has weights that are not floating-point numbers")
        if not np.isfinite(array).all():
            raise ValueError("the network has weights that are not finite")


def check_classes(classes: NDArray[Any], n_outputs: int) -> None:
    """Raise a ValueError unless a network has as many outputs as classes ask for."""
    if len(classes) != max(n_outputs, 2):
        raise ValueError(f"{len(classes)} classes for {n_outputs} outputs")
