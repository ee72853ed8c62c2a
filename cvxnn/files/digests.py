"""Digests: what identifies contents, the same on every machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any


def digest(*parts: Any, digits: int = 16) -> str:
    """Return the SHA-256 digest of bytes, arrays and JSON values.

    The digest is the same on every machine. It depends on the order of the parts and on where one
    part ends and the next begins; for a long sequence, pass a generator with ``*``.

    Parameters
    ----------
    *parts : bytes, numpy.ndarray, or what JSON can hold
        For an array of numbers, its type, shape and values count; for a dict, not the order of
        its keys. A path is a text like any other; :func:`digest_of_file` reads a file.
    digits : int, default=16
        Number of hexadecimal digits, at most 64. With 16 digits, a coincidence among a million
        objects has a probability of about 3e-8.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    total = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            total.update(len(piece).to_bytes(8, "little"))
            total.update(piece)
    return total.hexdigest()[:digits]


def digest_of_file(path: str | os.PathLike[str], digits: int = 16) -> str:
    """Return the SHA-256 digest of the contents of a file.

    Parameters
    ----------
    path : path-like
        File to read.
    digits : int, default=16
        Number of hexadecimal digits, at most 64.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:digits]


def _pieces(part: Any) -> Iterable[bytes | memoryview]:
    """Kind and contents of a part of a digest; no two different parts have the same."""
    if isinstance(part, bytes):
        return b"bytes", part
    if hasattr(part, "__array_interface__"):
        import numpy as np  # is loaded already; the command line's --help does without it

        array = np.asarray(part)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"cannot digest an array of {array.dtype}; expected numbers")
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        about = f"array {array.dtype.str} {array.shape}".encode()
        return about, array.reshape(-1).view(np.uint8).data
    text = json.dumps(part, sort_keys=True, separators=(",", ":"))
    return b"json", text.encode()
