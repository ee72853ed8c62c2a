"""Fast reading of the header of a GGUF file: names, sizes, vocabulary, and no weights.

``gguf.GGUFReader`` makes several arrays of each token of the vocabulary, one by one, which takes
seconds; a plan and a configuration need nothing else. Here arrays are read at once. Transformers
asks for the same table of names once for each module of a model, which takes as long as all the
rest of a conversion; here it is made once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxnn._extras import require

if TYPE_CHECKING:
    import gguf

_STRING, _ARRAY = 8, 9  # types of values in GGUF
_TEXT = -1  # not one of them: transformers takes such a value as it is


# Length of a field, its parts, which of them are data, and their types.
_Field = tuple[int, list[np.ndarray | str], list[int], list[int]]


@contextlib.contextmanager
def fast_headers() -> Iterator[None]:
    """Let transformers read GGUF files by a faster reader and one table of names in this block.

    Without the package gguf nothing changes; transformers then says what is missing.
    """
    try:
        import gguf
    except ImportError:
        yield
        return
    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    slow = reader._get_field_parts
    reader._get_field_parts = lambda own, start, kind: _field(own, start, kind, slow)
    gguf.GGUFReader = _reader_of
    gguf.get_tensor_name_map = functools.cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names
        reader._get_field_parts = slow


def read_header(path: str | os.PathLike[str]) -> gguf.GGUFReader:
    """Read the header of a GGUF file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    gguf.GGUFReader
        Fields and tensors; `value` takes one out. It is kept until another file is read.

    Raises
    ------
    ImportError
        If the package gguf is missing; the message has the command that installs it.
    """
    require("gguf", extra="llm")
    with fast_headers():
        return _reader_of(path)


def value(reader: gguf.GGUFReader, name: str, default: Any = None) -> Any:
    """Return the value of a field.

    Parameters
    ----------
    reader : gguf.GGUFReader
        As of `read_header`.
    name : str
        Name of the field.
    default : object, optional
        What to return if there is no such field.

    Returns
    -------
    object
        A number, a text, or a list of them.
    """
    field = reader.fields.get(name)
    if field is None:
        return default
    if int(field.types[0]) != _ARRAY:
        return field.contents()
    parts = [field.parts[k] for k in field.data]
    return [part if isinstance(part, str) else part.tolist()[0] for part in parts]


def _reader_of(path: str | os.PathLike[str]) -> gguf.GGUFReader:
    """Return a reader of a file; of the same file, transformers asks for one several times."""
    about = os.stat(path)
    return _kept_reader(os.fspath(path), about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _kept_reader(path: str, size: int, changed: int) -> gguf.GGUFReader:
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(path)


def _field(
    reader: gguf.GGUFReader, start: int, raw_type: int, slow: Callable[..., _Field]
) -> _Field:
    """Read an array at once; of other values, and of other orders of bytes, call ``slow``."""
    from gguf import GGUFValueType

    content = np.asarray(reader.data).data
    if reader.byte_order != "I" or int(raw_type) != _ARRAY:
        return slow(reader, start, raw_type)
    kind, n = struct.unpack_from("=IQ", content, start)
    first = start + 12
    parts: list[np.ndarray | str] = [np.array([kind], np.uint32), np.array([n], np.uint64)]
    scalar = reader.gguf_scalar_to_np.get(GGUFValueType(kind))
    if scalar is not None:
        numbers = np.frombuffer(content, scalar, n, first)
        parts += list(numbers.reshape(-1, 1))
        types = [GGUFValueType.ARRAY, GGUFValueType(kind)][: 1 + (n > 0)]
        return 12 + numbers.nbytes, parts, list(range(2, 2 + n)), types
    if kind != _STRING:
        return slow(reader, start, raw_type)
    end = first
    for _ in range(n):
        (length,) = struct.unpack_from("=Q", content, end)
        end += 8 + length
        parts.append(str(content[end - length : end], "utf-8"))
    return end - start, parts, list(range(2, 2 + n)), [GGUFValueType.ARRAY, _TEXT]
