"""Journal of the embeddings of a block that is being computed."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cvxnn.features.writer import unfinished_rows
from cvxnn.files.writing import Closing, append

_SECONDS = 10.0  # that a killed process may lose, beside the batch that it was computing
_KEY, _CHECKSUM = 32, 4  # bytes


class BlockJournal(Closing):
    """File of the embeddings of an unfinished block, which grows every ten seconds.

    An interrupted process leaves all that it computed, a killed one at most ten seconds less. The
    file is deleted when the journal is empty at the end.

    Parameters
    ----------
    path : path-like
        The file. What an earlier process left in it is read; a damaged end is cut off.
    width : int
        Length of an embedding.
    """

    def __init__(self, path: str | os.PathLike[str], width: int) -> None:
        self._path = Path(path)
        self._known: dict[bytes, np.ndarray] = {}
        self._pending: list[bytes] = []
        self._written = time.monotonic()
        if self._path.exists():
            self._read(_KEY + 4 * width + _CHECKSUM)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return the embeddings of those keys that are present.

        Parameters
        ----------
        keys : iterable of bytes
            Keys to look up.

        Returns
        -------
        dict of bytes to ndarray of shape (width,), float32
            The embeddings that were found, by key.
        """
        return {key: self._known[key] for key in keys if key in self._known}

    def put(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Store embeddings.

        Parameters
        ----------
        vectors : mapping of bytes to ndarray of shape (width,)
            The embeddings by key, of 32 bytes.
        """
        for key, vector in vectors.items():
            content = key + np.asarray(vector, "<f4").tobytes()
            self._pending.append(content + zlib.crc32(content).to_bytes(_CHECKSUM, "little"))
        if time.monotonic() - self._written >= _SECONDS:
            self._write()

    def clear(self) -> None:
        """Forget all embeddings: their block is finished."""
        self._known, self._pending = {}, []
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write what is not written yet."""
        self._write()

    def __len__(self) -> int:
        """Return the number of embeddings that an earlier process left."""
        return len(self._known)

    def _write(self) -> None:
        if self._pending:
            append(self._path, b"".join(self._pending))
        self._pending, self._written = [], time.monotonic()

    def _read(self, size: int) -> None:
        content = self._path.read_bytes()
        end = 0
        while end + size <= len(content):
            record = content[end : end + size]
            if zlib.crc32(record[:-_CHECKSUM]).to_bytes(_CHECKSUM, "little") != record[-_CHECKSUM:]:
                break
            vector = np.frombuffer(record[_KEY:-_CHECKSUM], "<f4").astype(np.float32)
            self._known[record[:_KEY]] = vector
            end += size
        if end == 0:
            self._path.unlink()
        elif end < len(content):
            os.truncate(self._path, end)


def kept_rows(path: str | os.PathLike[str], width: int) -> int:
    """Return how many embeddings an interrupted extraction has left.

    Parameters
    ----------
    path : path-like
        File that was to be written.
    width : int
        Length of an embedding.

    Returns
    -------
    int
        Rows of finished blocks, and distinct embeddings of the unfinished one.
    """
    block = Path(f"{os.fspath(path)}.part.block")
    n_block = block.stat().st_size // (_KEY + 4 * width + _CHECKSUM) if block.exists() else 0
    return unfinished_rows(path) + n_block
