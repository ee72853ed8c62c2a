"""Embeddings in a ``.npy`` file, and the note beside it: their layout and their reader.

Each block of rows has a checksum, CRC-32, which changes with every change of up to 32 neighbouring
bits and misses one in 2**32 of the others.
"""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from cvxnn._progress import Progress
from cvxnn.features.description import Description, check_description
from cvxnn.files.json_files import read_json
from cvxnn.files.writing import MALFORMED
from cvxnn.numerics.stored_rows import StoredRows as StoredRows

StoredType = Literal["float32", "float16", "bfloat16"]
"""How numbers are stored; those of 16 bits are read as float32."""

TYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
HEADER_BYTES = 128  # bytes of a .npy header; numpy leaves room in it for the number of rows to grow


def read_features(
    path: str | os.PathLike[str], *, check: bool = True, progress: bool = False
) -> tuple[np.ndarray, Description]:
    """Open the features that ``Embedder.embed_to_file`` wrote.

    Parameters
    ----------
    path : path-like
        The file; its description is in ``PATH.json``.
    check : bool, default=True
        Whether to compare the checksums of all rows. This reads the file once, block by block.
    progress : bool, default=False
        Whether to show on stderr how many rows are checked.

    Returns
    -------
    features : ndarray of shape (n, width)
        A read-only memory map, in the type that is stored: rows are loaded when they are used.
    description : Description
        Their description, for ``COALAPreferenceHead(embedding=...)``.

    Raises
    ------
    FileNotFoundError
        If the file or its description does not exist.
    IsADirectoryError
        If it is a folder, such as one of pairs; see ``read_pair_features``.
    ValueError
        If the two do not belong together, or one was changed or is damaged; the message says which
        rows. Embed again.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder; read_pair_features of cvxnn.features reads those of cvxnn extract"
        )
    note = read_json(note_of(path))
    try:
        description: Description = note["embedding"]
        check_description(description)
        n_rows, blocks = note["n_rows"], [(int(n), int(checksum)) for n, checksum in note["blocks"]]
        sizes = [n for n, _ in blocks]
        dtype = note.get("stored", "float32")
        if dtype not in TYPES:
            raise ValueError(f"its numbers are {dtype!r}")
        if not all(map(is_size, [n_rows, *sizes])) or sum(sizes) != n_rows:
            raise ValueError("its numbers of rows do not agree")
    except MALFORMED as error:
        raise ValueError(f"{note_of(path)} does not describe features: {error}") from error
    width = description["width"]
    row_bytes = TYPES[dtype].itemsize * width
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = header_of(n_rows, width, dtype)
        if file.read(HEADER_BYTES) != header or size != HEADER_BYTES + row_bytes * n_rows:
            raise ValueError(
                f"{path} does not hold the {n_rows} rows of {width} numbers that {note_of(path)} "
                "describes; it was cut short or changed, or they are not of one run: embed again"
            )
        first = 0
        with Progress("checking", n_rows, "rows", show=progress) as line:
            for n, checksum in blocks if check else ():
                if zlib.crc32(file.read(row_bytes * n)) != checksum:
                    raise ValueError(
                        f"{path} is damaged, or was changed after it was written: the checksum of "
                        f"its rows {first} to {first + n - 1} does not agree; embed again"
                    )
                first += n
                line.update(n)
    shape = (n_rows, width)
    return np.memmap(path, TYPES[dtype], mode="r", offset=HEADER_BYTES, shape=shape), description


def read_block_identities(path: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """Return the blocks of which a file was written.

    Parameters
    ----------
    path : path-like
        File that a `FeatureWriter` finished.

    Returns
    -------
    list of (int, str)
        Number of rows of each block, and the identity of its pairs.

    Raises
    ------
    ValueError
        If an earlier version wrote the file; embed again.
    """
    note = read_json(note_of(Path(path)))
    try:
        pairs = zip(note["blocks"], note["pairs"], strict=True)
        return [(int(n), str(identity)) for (n, _), identity in pairs]
    except MALFORMED as error:
        raise ValueError(f"{path} does not say which pairs its blocks are of: {error}") from error


def header_of(n_rows: int, width: int, dtype: str) -> bytes:
    """Return the header of a ``.npy`` file; NumPy knows bfloat16 as two bytes of any meaning."""
    header = io.BytesIO()
    descr = "|V2" if dtype == "bfloat16" else TYPES[dtype].str
    about = {"descr": descr, "fortran_order": False, "shape": (n_rows, width)}
    np.lib.format.write_array_header_1_0(header, about)
    assert header.tell() == HEADER_BYTES
    return header.getvalue()


def is_size(value: object) -> bool:
    """Return whether a value of a note can be a number of rows."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def note_of(path: Path) -> Path:
    """Return the note that describes a file of features."""
    return path.with_name(f"{path.name}.json")
