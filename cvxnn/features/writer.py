"""Writer of embeddings into a ``.npy`` file, block by block, beside their description."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvxnn._messages import warn
from cvxnn._progress import Progress
from cvxnn.features.description import Description, check_description
from cvxnn.features.store import (
    HEADER_BYTES,
    TYPES,
    StoredType,
    header_of,
    is_size,
    note_of,
    read_block_identities,
    read_features,
)
from cvxnn.files.json_files import write_json
from cvxnn.files.locks import check_room, locked
from cvxnn.files.writing import MALFORMED, Closing, append, move_into_place, write_text


class _BlockLine(NamedTuple):
    """Line of the log, for a block of rows that is finished.

    Attributes
    ----------
    n_rows : int
        Number of rows.
    pairs : str
        Identity of their pairs.
    checksum : int
        CRC-32 of the bytes of the rows.
    """

    n_rows: int
    pairs: str
    checksum: int


class FeatureWriter(Closing):
    """Writer of a ``.npy`` file that gets its name once it is complete.

    Until then the rows are in ``PATH.part``, and ``PATH.part.log`` records which blocks are
    finished: the next writer continues after the last undamaged block. At the end, the description
    of the features is written to ``PATH.json``. A second writer of the same file waits until the
    first has closed it.

    Parameters
    ----------
    path : path-like
        The file, by convention ``*.npy``; an existing file is replaced at the end.
    description : Description
        Description of the embeddings.
    dtype : StoredType, default="float32"
        How numbers are stored.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    description : Description
        Description of the embeddings.
    n_rows : int
        Number of rows that were passed over or appended so far.

    Raises
    ------
    OSError
        If the folder is read-only or the disk full; the message has the name of the file.
    ValueError
        If there is an unfinished file of other embeddings; finish it with its own settings, delete
        it, or choose another name.

    Warns
    -----
    UserWarning
        If another process is writing the file, which is waited for; or if the log of an unfinished
        file is damaged, so that all is computed again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        description: Description,
        dtype: StoredType = "float32",
    ) -> None:
        self.path = Path(path)
        self._dtype = dtype
        self.description = description
        self.n_rows = 0
        self._part = self.path.with_name(f"{self.path.name}.part")
        self._log = self.path.with_name(f"{self.path.name}.part.log")
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.path))
            self._blocks = self._restore()
            self._n_passed = 0
            # Without a buffer, nothing is left to write when the disk is full.
            mode = "r+b" if self._blocks else "w+b"
            self._file = stack.enter_context(open(self._part, mode, buffering=0))
            first = {**description, **self._stored}
            write_text(self._log, "".join(map(_line, [first, *self._blocks])))
            self._opened = stack.pop_all()

    def passes(self, pairs: str, earlier: Container[str] = ()) -> bool:
        """Pass over the next block if an earlier writer finished it.

        Parameters
        ----------
        pairs : str
            Identity of the pairs in the block.
        earlier : container of str, default=()
            Identities that earlier versions of cvxnn gave to the same pairs.

        Returns
        -------
        bool
            False if the block has to be computed and appended.

        Raises
        ------
        ValueError
            If the finished block has other pairs, or was computed by an earlier version.
        """
        if self._n_passed == len(self._blocks):
            return False
        block = self._blocks[self._n_passed]
        if block.pairs != pairs and block.pairs in earlier:
            raise ValueError(
                f"{self._part} was begun by an earlier version of cvxnn, from which this one does "
                "not continue; finish it with that version, or begin again: delete it (cvxnn "
                "extract --overwrite does), or choose another name"
            )
        if block.pairs != pairs:
            raise ValueError(
                f"{self._part} is unfinished and holds other pairs from row {self.n_rows} on; "
                "finish it with the pairs that it began with, or delete it, or choose another name"
            )
        self._n_passed += 1
        self.n_rows += block.n_rows
        return True

    def append(self, rows: np.ndarray, pairs: str) -> None:
        """Write a block, which is kept from then on.

        Parameters
        ----------
        rows : ndarray of shape (n, width)
            Embeddings; they are converted to the type that is stored.
        pairs : str
            Identity of the pairs in the block.

        Raises
        ------
        ValueError
            If a number is beyond the range of the type; choose bfloat16.
        """
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(rows, dtype=TYPES[self._dtype])
        if self._stored and not np.isfinite(stored).all():
            raise ValueError(
                f"{self.path}: embeddings are beyond the range of {self._dtype}; choose bfloat16, "
                "or float32"
            )
        content = stored.tobytes()
        self._write(self._end(), content)
        block = _BlockLine(len(rows), pairs, zlib.crc32(content))
        append(self._log, _line(block).encode())
        self._blocks.append(block)
        self._n_passed += 1
        self.n_rows += len(rows)

    def finish(self) -> None:
        """Give the file its name; finished blocks that were not passed over are dropped."""
        self._file.truncate(self._end())
        self._write(0, header_of(self.n_rows, self.description["width"], self._dtype))
        self._file.close()
        blocks = [[block.n_rows, block.checksum] for block in self._blocks[: self._n_passed]]
        note = {
            "embedding": self.description,
            **self._stored,
            "n_rows": self.n_rows,
            "blocks": blocks,
            "pairs": [block.pairs for block in self._blocks[: self._n_passed]],
        }
        write_json(note_of(self.path), note)
        move_into_place(self._part, self.path)
        self._log.unlink()

    def close(self) -> None:
        """Close the file; blocks that are finished stay for the next writer."""
        with self._opened:
            if not self._blocks:  # the next writer could not continue from it
                self._part.unlink(missing_ok=True)
                self._log.unlink(missing_ok=True)

    @property
    def _stored(self) -> dict[str, str]:
        """Entry of the note for the type of numbers; none for float32, the default."""
        return {} if self._dtype == "float32" else {"stored": self._dtype}

    @property
    def _row_bytes(self) -> int:
        return TYPES[self._dtype].itemsize * self.description["width"]

    def _end(self) -> int:
        return HEADER_BYTES + self._row_bytes * self.n_rows

    def _write(self, start: int, content: bytes) -> None:
        try:
            self._file.seek(start)
            rest = memoryview(content)
            while rest:  # a disk that fills up takes a part
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self._part)
            raise

    def _restore(self) -> list[_BlockLine]:
        """Return the blocks that an earlier writer finished, up to the first damaged one."""
        if not self._log.is_file() or not self._part.is_file():
            return []
        first, *lines = self._log.read_text("utf-8", errors="replace").split("\n")
        try:
            description = json.loads(first)
            stored = {"stored": description.pop("stored")} if "stored" in description else {}
            check_description(description)
        except MALFORMED as error:
            reason = f"{self._log} is damaged"
            if "earlier version" in str(error):
                reason = f"an earlier version of cvxnn began {self._part}"
            warn(f"{reason}, so the finished part of {self.path} is computed again")
            return []
        if (description, stored) != (self.description, self._stored):
            raise ValueError(
                f"{self._part} is unfinished and holds embeddings of another model or with other "
                "settings; finish it with the same ones, or delete it, or choose another name"
            )
        blocks = []
        with self._part.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(HEADER_BYTES)
            for line in lines:
                try:
                    block = _BlockLine(*json.loads(line))
                except MALFORMED:  # cut short by an interruption
                    break
                if not is_size(block.n_rows) or not isinstance(block.pairs, str):
                    break
                n_bytes = self._row_bytes * block.n_rows
                if file.tell() + n_bytes > size:
                    break
                if zlib.crc32(file.read(n_bytes)) != block.checksum:
                    break
                blocks.append(block)
        return blocks


def store_as(path: str | os.PathLike[str], dtype: StoredType, *, progress: bool = False) -> None:
    """Rewrite a finished file of features with numbers of another type, block by block.

    Parameters
    ----------
    path : path-like
        The file. It is replaced once all is written.
    dtype : StoredType
        How numbers are stored from then on. Rounding is not undone by a wider type.
    progress : bool, default=False
        Whether to show on stderr how many rows are checked and stored.

    Raises
    ------
    OSError
        If there is no room for both.
    ValueError
        If the file is damaged, or a number is beyond the range of the type.
    """
    path = Path(path)
    rows, description = read_features(path, progress=progress)
    check_room(path.parent, rows.size * TYPES[dtype].itemsize)
    with (
        FeatureWriter(path, description, dtype) as file,
        Progress("storing", len(rows), "rows", show=progress) as line,
    ):
        start = 0
        for n_rows, identity in read_block_identities(path):
            if not file.passes(identity):
                file.append(rows[start : start + n_rows], identity)
            start += n_rows
            line.update(n_rows)
        file.finish()


def unfinished_rows(path: str | os.PathLike[str]) -> int:
    """Return how many rows an interrupted writer has finished.

    Parameters
    ----------
    path : path-like
        File that was to be written.

    Returns
    -------
    int
        Their number; 0 if there is no unfinished file.
    """
    log = Path(f"{os.fspath(path)}.part.log")
    if not log.is_file():
        return 0
    n = 0
    for line in log.read_text("utf-8", errors="replace").split("\n")[1:]:
        with contextlib.suppress(*MALFORMED):  # the last line may be cut short
            n += int(_BlockLine(*json.loads(line)).n_rows)
    return n


def _line(entry: object) -> str:
    return json.dumps(entry) + "\n"
