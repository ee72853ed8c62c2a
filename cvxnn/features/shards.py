"""Shards: parts of one file of features, which processes or machines fill at the same time.

1. Shard ``i/N`` is the i-th of N runs of whole blocks of the rows that the file will have.
2. Until all are merged it is a file of its own, ``features.npy.i-of-N``, and nothing but that: the
   writer, its lock and its continuation are those of a whole file.
3. A block depends on its texts alone, and prompts are cut with the replies of all shards in view.
   So the merged file has the bytes that one process writes, whatever N is.
4. The note of the folder holds the digest of all pairs and the description of the embeddings. Each
   worker checks it, under its lock, before it writes.
5. Two workers never write one shard: the second waits for the first, and finds it done.
6. Nothing is handed out while workers run: who does what follows from i and N alone. So machines
   need a common folder, and no locks between them if they have different i.
7. A merge compares the checksum of each block, its texts with those of the folder, and the
   descriptions of all shards. It says which shards are missing, and deletes them when it is done.
8. Workers are processes of this machine (`--workers`), of any machine (`--shard i/N`) or actors of
   Ray. What computes the rows is another choice: this library, vLLM, or an HTTP endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from cvxnn._progress import Progress
from cvxnn.features import blocks
from cvxnn.features.description import Description
from cvxnn.features.store import read_block_identities, read_features
from cvxnn.features.writer import FeatureWriter
from cvxnn.files.locks import check_room

_ENDING = re.compile(r"\.(\d+)-of-(\d+)(?:\..*)?")


@dataclass(frozen=True)
class Shard:
    """Part of the rows of a file of features.

    Parameters
    ----------
    number : int
        Which part, from 1 to `total`.
    total : int
        Number of parts, at least 1.

    Raises
    ------
    ValueError
        If `number` is not one of 1 to `total`.
    """

    number: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.total:
            raise ValueError(f"shard {self} does not exist; expected 1/{self.total} and so on")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a shard from a text.

        Parameters
        ----------
        text : str
            Such as ``"2/8"``, the second of eight.

        Returns
        -------
        Shard
            The shard.

        Raises
        ------
        ValueError
            If it is not of that form.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None:
            raise ValueError(f"shard is {text!r}; expected i/N, such as 2/8")
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return f"{self.number}/{self.total}"

    def path(self, path: Path) -> Path:
        """Return the file of this shard.

        Parameters
        ----------
        path : pathlib.Path
            The file that all shards together will be.

        Returns
        -------
        pathlib.Path
            A name in the same folder.
        """
        return path.with_name(f"{path.name}.{self.number}-of-{self.total}")

    def rows(self, n_rows: int) -> range:
        """Return the rows of this shard.

        Parameters
        ----------
        n_rows : int
            Number of rows of all shards.

        Returns
        -------
        range
            Whole blocks, as many as the other shards have or one more or less.

        Raises
        ------
        ValueError
            If there are more shards than blocks; ask for fewer.
        """
        n_blocks = n_blocks_of(n_rows)
        if self.total > n_blocks:
            raise ValueError(
                f"{self.total} shards are too many for {n_rows} embeddings, which are written "
                f"{blocks.BLOCK} at a time; ask for at most {n_blocks}"
            )
        ends = [blocks.BLOCK * (n_blocks * k // self.total) for k in (self.number - 1, self.number)]
        return range(ends[0], min(ends[1], n_rows))


def all_shards(total: int) -> list[Shard]:
    """Return all shards, in the order of their rows.

    Parameters
    ----------
    total : int
        Their number, at least 1.

    Returns
    -------
    list of Shard
        The shards.
    """
    return [Shard(number, total) for number in range(1, total + 1)]


def n_blocks_of(n_rows: int) -> int:
    """Return the number of blocks of a file, which is the largest number of its shards.

    Parameters
    ----------
    n_rows : int
        Number of its rows.

    Returns
    -------
    int
        Their number.
    """
    return -(-n_rows // blocks.BLOCK)


def shard_files(path: Path) -> list[Path]:
    """Return the files of shards, finished or not, with all that belongs to them.

    Parameters
    ----------
    path : pathlib.Path
        The file that all shards together will be.

    Returns
    -------
    list of pathlib.Path
        Files that exist.
    """
    found = path.parent.glob(f"{path.name}.*-of-*")
    return sorted(file for file in found if _ENDING.fullmatch(file.name[len(path.name) :]))


def n_shards_in(path: Path) -> int:
    """Return how many shards make up an unfinished file.

    Parameters
    ----------
    path : pathlib.Path
        The file that all shards together will be.

    Returns
    -------
    int
        Their number, those not begun included; 0 if the file is not made of shards.

    Raises
    ------
    ValueError
        If there are files of several numbers of shards; delete all but those of one number.
    """
    endings = [_ENDING.fullmatch(file.name[len(path.name) :]) for file in shard_files(path)]
    totals = sorted({int(ending[2]) for ending in endings if ending is not None})
    if len(totals) > 1:
        raise ValueError(
            f"{path} has shards of {totals[0]} and of {totals[1]}; delete those of one number, or "
            "begin again (--overwrite)"
        )
    return totals[0] if totals else 0


def read_shards(
    path: Path,
    total: int,
    texts: Sequence[str],
    *,
    check: bool = True,
    progress: bool = False,
) -> tuple[list[np.ndarray], Description]:
    """Open finished shards, and verify that they are whole and belong together.

    Parameters
    ----------
    path : pathlib.Path
        The file that all shards together will be.
    total : int
        Number of shards.
    texts : sequence of str
        Digests of the texts of all blocks, by `digest_of_texts`.
    check : bool, default=True
        Whether to compare the checksums of all rows; see `read_features`.
    progress : bool, default=False
        Whether to show on stderr how many rows are checked.

    Returns
    -------
    rows : list of ndarray of shape (n_rows, width)
        Read-only memory maps, one for each shard.
    description : Description
        Their common description.

    Raises
    ------
    FileNotFoundError
        If shards are missing; the message has the first one. Finish it.
    ValueError
        If a shard is damaged, or is of other texts, another model or other settings; the message
        names it. Delete it, and extract it again.
    """
    shards = all_shards(total)
    missing = [shard for shard in shards if not shard.path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path}: {len(missing)} of {total} shards are not finished, the first of them is "
            f"{missing[0]}; run cvxnn extract with --shard {missing[0]}, or without --shard for all"
        )
    _, description = read_features(shards[0].path(path), check=False)
    parts, place = [], 0
    for shard in shards:
        file = shard.path(path)
        rows, found = read_features(file, check=check, progress=progress)
        if found != description:
            raise ValueError(
                f"{file} was embedded by another model or with other settings than "
                f"{shards[0].path(path)}; delete it, and run cvxnn extract --shard {shard}"
            )
        start = 0
        for n_rows, identity in read_block_identities(file):
            if place == len(texts) or not identity.startswith(texts[place]):
                raise ValueError(
                    f"{file} has embeddings of other texts from its row {start} on; delete it, "
                    f"and run cvxnn extract --shard {shard}"
                )
            place, start = place + 1, start + n_rows
        parts.append(rows)
    if place < len(texts):
        raise ValueError(
            f"{path}: the shards have {place} of {len(texts)} blocks; delete them, and extract "
            "again (--overwrite)"
        )
    return parts, description


def merge_shards(path: Path, total: int, texts: Sequence[str], *, progress: bool = False) -> None:
    """Join finished shards to one file, verify all that they hold, and delete them.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    total : int
        Number of shards.
    texts : sequence of str
        Digests of the texts of all blocks, by `digest_of_texts`.
    progress : bool, default=False
        Whether to show on stderr how many rows are checked and joined.

    Raises
    ------
    FileNotFoundError, ValueError
        As of `read_shards`.
    OSError
        If there is no room for the file beside the shards.
    """
    parts, description = read_shards(path, total, texts, progress=progress)
    check_room(path.parent, sum(rows.nbytes for rows in parts))
    with (
        FeatureWriter(path, description) as file,
        Progress("joining", sum(map(len, parts)), "rows", show=progress) as line,
    ):
        for shard, rows in zip(all_shards(total), parts, strict=True):
            start = 0
            for n_rows, identity in read_block_identities(shard.path(path)):
                if not file.passes(identity):
                    file.append(rows[start : start + n_rows], identity)
                start += n_rows
                line.update(n_rows)
        file.finish()
    delete_shards(path)


def delete_shards(path: Path) -> None:
    """Delete the files of all shards.

    Parameters
    ----------
    path : pathlib.Path
        The file that all shards together are, or would have been.
    """
    for file in shard_files(path):
        file.unlink(missing_ok=True)
