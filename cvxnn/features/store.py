"""Embeddings in a ``.npy`` file that is written block by block, beside their description."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from cvxnn._files import move_into_place, read_json, write_json, write_text
from cvxnn.features.description import Description, check_description

_HEADER = 128  # bytes of a .npy header; numpy leaves room in it for the number of rows to grow


class _Block(NamedTuple):
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


class FeatureWriter:
    """Writer of a ``.npy`` file that gets its name once it is complete.

    Until then the rows are in ``PATH.part``, and ``PATH.part.log`` records which blocks are
    finished: the next writer continues after the last undamaged block. At the end, the description
    of the features is written to ``PATH.json``.

    Parameters
    ----------
    path : path-like
        The file, by convention ``*.npy``; an existing file is replaced at the end.
    description : Description
        Description of the embeddings.

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
    FileNotFoundError
        If the folder of `path` does not exist; create it first.
    ValueError
        If there is an unfinished file of other embeddings; finish it with its own settings, delete
        it, or choose another name.
    """

    def __init__(self, path: str | os.PathLike[str], description: Description) -> None:
        self.path = Path(path)
        self.description = description
        self.n_rows = 0
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f"the folder of {self.path} does not exist; create it first")
        self._part = self.path.with_name(f"{self.path.name}.part")
        self._log = self.path.with_name(f"{self.path.name}.part.log")
        self._blocks = self._restore()
        self._n_passed = 0
        self._file = self._part.open("r+b" if self._blocks else "w+b")
        self._write_header()
        write_text(self._log, "".join(map(_line, [description, *self._blocks])))

    def passes(self, pairs: str) -> bool:
        """Pass over the next block if an earlier writer finished it.

        Parameters
        ----------
        pairs : str
            Identity of the pairs in the block.

        Returns
        -------
        bool
            False if the block has to be computed and appended.

        Raises
        ------
        ValueError
            If the finished block has other pairs.
        """
        if self._n_passed == len(self._blocks):
            return False
        block = self._blocks[self._n_passed]
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
            Embeddings; they are converted to float32.
        pairs : str
            Identity of the pairs in the block.
        """
        content = np.ascontiguousarray(rows, dtype="<f4").tobytes()
        self._file.seek(self._end())
        self._file.write(content)
        self._file.truncate()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._blocks.append(_Block(len(rows), pairs, zlib.crc32(content)))
        with self._log.open("a", encoding="utf-8") as log:
            log.write(_line(self._blocks[-1]))
        self._n_passed += 1
        self.n_rows += len(rows)

    def finish(self) -> None:
        """Give the file its name; finished blocks that were not passed over are dropped."""
        self._file.truncate(self._end())
        self._write_header()
        self._file.close()
        note = {"embedding": self.description, "n_rows": self.n_rows}
        write_json(_note_of(self.path), note)
        move_into_place(self._part, self.path)
        self._log.unlink()

    def __enter__(self) -> FeatureWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file; blocks that are finished stay for the next writer.

        Parameters
        ----------
        kind : type or None
            Type of an exception; None without one.
        error : BaseException or None
            The exception.
        traceback : types.TracebackType or None
            Its traceback.
        """
        self._file.close()
        if not self._blocks:  # the next writer could not continue from it
            self._part.unlink(missing_ok=True)
            self._log.unlink(missing_ok=True)

    def _end(self) -> int:
        return _HEADER + 4 * self.description["width"] * self.n_rows

    def _write_header(self) -> None:
        self._file.seek(0)
        shape = (self.n_rows, self.description["width"])
        about = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, about)
        assert self._file.tell() == _HEADER

    def _restore(self) -> list[_Block]:
        """Return the blocks that an earlier writer finished, up to the first damaged one."""
        if not self._log.is_file() or not self._part.is_file():
            return []
        first, *lines = self._log.read_text("utf-8", errors="replace").split("\n")
        if json.loads(first) != self.description:
            raise ValueError(
                f"{self._part} is unfinished and holds embeddings of another model or with other "
                "settings; finish it with the same ones, or delete it, or choose another name"
            )
        blocks = []
        with self._part.open("rb") as file:
            file.seek(_HEADER)
            for line in lines:
                try:
                    block = _Block(*json.loads(line))
                except (ValueError, TypeError):  # cut short when the program was interrupted
                    break
                content = file.read(4 * self.description["width"] * block.n_rows)
                if zlib.crc32(content) != block.checksum:
                    break
                blocks.append(block)
        return blocks


def read_features(path: str | os.PathLike[str]) -> tuple[np.ndarray, Description]:
    """Open the features that ``Embedder.embed_to_file`` wrote.

    Parameters
    ----------
    path : path-like
        The file; its description is in ``PATH.json``.

    Returns
    -------
    features : ndarray of shape (n, width), float32
        A read-only memory map: rows are loaded when they are used.
    description : Description
        Their description, for ``COALAPreferenceHead(embedding=...)``.

    Raises
    ------
    FileNotFoundError
        If the file or its description does not exist.
    ValueError
        If the two do not belong together; embed again.
    """
    path = Path(path)
    note = read_json(_note_of(path))
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    try:
        description: Description = note["embedding"]
        check_description(description)
        expected = (note["n_rows"], description["width"])
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{_note_of(path)} does not describe features: {error}") from error
    if features.shape != expected:
        raise ValueError(
            f"{path} has shape {features.shape}, but {_note_of(path)} says {expected}; they are "
            "not of one run: embed again"
        )
    return features, description


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _line(entry: object) -> str:
    return json.dumps(entry) + "\n"
