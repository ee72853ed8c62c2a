"""Embeddings of preference pairs: a folder with the texts and with what the embeddings depend on.

``cvxnn extract`` and `extract_pairs` write such a folder; it is read without torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvxnn.costs.meter import CostMeter
from cvxnn.costs.resources import Cost
from cvxnn.features.description import describe_layers, differences, layers_of
from cvxnn.features.pair_digests import digest_of_pairs, digests_of_blocks, extraction_settings
from cvxnn.features.shards import all_shards, delete_shards, n_shards_in, read_shards
from cvxnn.features.store import read_features
from cvxnn.files.digests import digest
from cvxnn.files.json_files import read_json
from cvxnn.files.locks import locked
from cvxnn.files.writing import MALFORMED
from cvxnn.numerics.stored_rows import StoredRows, is_stored
from cvxnn.preference.files import read_preferences
from cvxnn.preference.triplets import PreferenceTriplet, split_by_group

ROWS, PAIRS, NOTE = "features.npy", "pairs.jsonl.gz", "features.json"
"""Files of a folder: the embeddings, the texts, and the settings with the costs."""


# Bytes of embeddings of both replies, in float32, up to which a fit has them in memory, several
# times over.
_MOST_IN_MEMORY = 2**30


@dataclass(frozen=True)
class PairFeatures:
    """Embeddings of the replies of preference pairs.

    Parameters
    ----------
    chosen : ndarray or StoredRows, shape (n_pairs, width)
        Embeddings of the preferred replies. Those of `read_pair_features` stay on disk.
    rejected : ndarray or StoredRows, shape (n_pairs, width)
        Embeddings of the other replies; row ``k`` belongs to the same pair as row ``k`` of
        `chosen`.
    pairs : sequence of PreferenceTriplet
        The texts.
    embedding : dict
        Everything that an embedding depends on: ``Embedder.description``.
    costs : Cost
        Cost of the extraction, interrupted parts included.
    """

    chosen: Any
    rejected: Any
    pairs: Sequence[PreferenceTriplet]
    embedding: dict[str, Any]
    costs: Cost

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    @property
    def groups(self) -> list[str]:
        """Group of each pair."""
        return [pair.group for pair in self.pairs]

    @property
    def identity(self) -> str:
        """Digest of the texts and of what the embeddings depend on."""
        return digest(digest_of_pairs(self.pairs), self.embedding)

    def take(self, index: Sequence[int]) -> PairFeatures:
        """Return some of the pairs.

        Parameters
        ----------
        index : sequence of int
            Numbers of the pairs, from 0.

        Returns
        -------
        PairFeatures
            These pairs, in this order; the costs are those of the whole extraction. Embeddings are
            copied, unless they are `StoredRows`.
        """
        rows = np.array(index, np.intp)
        pairs = [self.pairs[i] for i in index]
        chosen, rejected = (
            part.take(rows) if is_stored(part) else part[rows]
            for part in (self.chosen, self.rejected)
        )
        return PairFeatures(chosen, rejected, pairs, self.embedding, self.costs)

    @property
    def layers(self) -> list[int]:
        """Layers whose embeddings stand side by side."""
        return layers_of(self.embedding)

    def take_layers(self, layers: Sequence[int]) -> PairFeatures:
        """Return the embeddings of some of the layers.

        Parameters
        ----------
        layers : sequence of int
            Numbers among `layers`, at least one, each once.

        Returns
        -------
        PairFeatures
            These layers side by side, in this order; the costs are those of the whole extraction.

        Raises
        ------
        ValueError
            If a layer is not among those of the features; extract it too.
        """
        known, wanted = self.layers, list(layers)
        if missing := [layer for layer in wanted if layer not in known]:
            raise ValueError(
                f"the features have no layer {', '.join(map(str, missing))}; choose among theirs, "
                f"{', '.join(map(str, known))}, or extract the layer too"
            )
        if not wanted or len(set(wanted)) < len(wanted):
            raise ValueError(f"layers are {wanted}; expected at least one, each once")
        if wanted == known:
            return self
        n_context, width = self.embedding["context"], self.embedding["width"]
        own = (width - n_context) // len(known)
        starts = [known.index(layer) * own for layer in wanted]
        # Behind the columns of all layers come those of their prompts.
        starts += [width - n_context + start for start in starts] if n_context else []
        embedding = describe_layers(self.embedding, wanted)

        def columns(rows: Any) -> Any:
            if len(starts) == 1:  # a view: nothing is read
                return rows[:, starts[0] : starts[0] + own]
            if is_stored(rows):
                return rows[:, np.concatenate([np.arange(start, start + own) for start in starts])]
            return np.concatenate([rows[:, start : start + own] for start in starts], axis=1)

        chosen, rejected = columns(self.chosen), columns(self.rejected)
        return PairFeatures(chosen, rejected, self.pairs, embedding, self.costs)

    def find(self, pairs: Sequence[PreferenceTriplet]) -> PairFeatures:
        """Return the features of given pairs.

        Parameters
        ----------
        pairs : sequence of PreferenceTriplet
            Pairs with the texts and groups of some of these.

        Returns
        -------
        PairFeatures
            The features in the order of `pairs`; the costs are those of the whole extraction.

        Raises
        ------
        ValueError
            If there are others among them; the message has their number. Extract these too.
        """
        place = {digest_of_pairs([pair]): i for i, pair in enumerate(self.pairs)}
        found = [place.get(digest_of_pairs([pair])) for pair in pairs]
        known = [i for i in found if i is not None]
        if len(known) < len(found):
            raise ValueError(
                f"{len(found) - len(known)} of {len(found)} pairs are not among the "
                f"{len(self)} of the features; extract the embeddings of these pairs too"
            )
        return self.take(known)

    def split(self, test_size: float, seed: int) -> tuple[PairFeatures, PairFeatures]:
        """Split into a training part and a held-out part, group by group.

        Parameters
        ----------
        test_size : float
            Fraction of the groups that are held out, in (0, 1).
        seed : int
            Seed of the random choice.

        Returns
        -------
        train, test : PairFeatures
            The same parts as those of ``cvxnn.preference.split_by_group``.
        """
        train, test = split_by_group(self.pairs, test_size, seed)
        place = {id(pair): i for i, pair in enumerate(self.pairs)}
        return (
            self.take([place[id(pair)] for pair in train]),
            self.take([place[id(pair)] for pair in test]),
        )


def read_pair_features(
    folder: str | os.PathLike[str],
    *,
    check: bool = True,
    stored: bool | None = None,
    progress: bool = False,
) -> PairFeatures:
    """Read the embeddings of preference pairs from a folder.

    Parameters
    ----------
    folder : path-like
        Folder that ``cvxnn extract`` or ``cvxnn.features.extract_pairs`` wrote, or that
        ``extract_shard`` filled: its shards need not be merged.
    check : bool, default=True
        Whether to compare the checksums of the embeddings; see `read_features`.
    stored : bool, optional
        Whether the embeddings are `StoredRows`, which a fit reads a block at a time. By default
        those are of which all would take more than 1 GiB in float32.
    progress : bool, default=False
        Whether to show on stderr how many rows are checked.

    Returns
    -------
    PairFeatures
        The embeddings are mapped from the disk: rows are loaded when they are used. Those of 16
        bits, and those of shards, are in memory, in float32, unless they are `StoredRows`.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or holds no features, or if its extraction was not finished,
        or that of a shard; run it again.
    NotADirectoryError
        If it is a file.
    ValueError
        If the files of the folder do not belong together, or one was changed or is damaged; the
        message names it. Extract the features again.
    """
    folder = Path(folder)
    if folder.is_file():
        raise NotADirectoryError(
            f"{folder} is a file; expected a folder of features, as cvxnn extract makes it of pairs"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of features: {folder}; cvxnn extract makes one")
    if not (folder / NOTE).is_file():
        raise FileNotFoundError(
            f"{folder} holds no features (it has no {NOTE}); cvxnn extract makes such a folder"
        )
    note = read_json(folder / NOTE)
    total = 0 if (folder / ROWS).is_file() else n_shards_in(folder / ROWS)
    if not total and not (folder / ROWS).is_file():
        raise FileNotFoundError(
            f"{folder}: the extraction was not finished; run cvxnn extract again to continue it"
        )
    pairs = read_preferences(folder / PAIRS, format="conversational")
    if total:
        parts, embedding = read_shards(
            folder / ROWS, total, digests_of_blocks(pairs), check=check, progress=progress
        )
    else:
        rows, embedding = read_features(folder / ROWS, check=check, progress=progress)
        parts = [rows]
    if (n_rows := sum(map(len, parts))) != 2 * len(pairs):
        raise ValueError(
            f"{folder}: {len(pairs)} pairs, but features of {n_rows} rows; expected two rows for "
            "each pair. Extract the features again"
        )
    if note.get("settings") != extraction_settings(embedding, pairs):
        raise ValueError(
            f"{folder}: {PAIRS} and {ROWS} are not those that {NOTE} describes; they are not of "
            "one run, or were changed. Extract the features again"
        )
    try:
        costs = CostMeter.from_dict(note.get("costs", {})).total
    except MALFORMED as error:
        raise ValueError(
            f"{folder / NOTE} does not hold costs of an extraction: {error}"
        ) from error
    # A shard begins with a chosen reply: its blocks are whole pairs.
    chosen, rejected = (_in_one([part[k::2] for part in parts], stored) for k in range(2))
    return PairFeatures(chosen, rejected, pairs, dict(embedding), costs)


def _in_one(parts: list[np.ndarray], stored: bool | None) -> Any:
    """Return rows of a file or of shards as one array, which may stay on the disk."""
    rows = StoredRows.stacked([StoredRows(part) for part in parts])
    if stored or (stored is None and 8 * rows.size > _MOST_IN_MEMORY):
        return rows
    return np.asarray(rows) if len(parts) > 1 or parts[0].dtype.itemsize == 2 else parts[0]


def join_pair_features(parts: Sequence[PairFeatures]) -> PairFeatures:
    """Return the features of several folders as one.

    Parameters
    ----------
    parts : sequence of PairFeatures
        Features that were extracted with the same model and settings, at least one.

    Returns
    -------
    PairFeatures
        All pairs, in this order; the costs are added. Embeddings of several parts are copied,
        unless one has `StoredRows`.

    Raises
    ------
    ValueError
        If the parts were embedded differently; the message names the settings that differ.
    """
    first = parts[0]
    for number, part in enumerate(parts[1:], start=2):
        if differ := differences(first.embedding, part.embedding):
            raise ValueError(
                f"folders 1 and {number} were embedded differently ({'; '.join(differ)}); extract "
                "all with the same model and settings"
            )
    if len(parts) == 1:
        return first

    def joined(rows: list[Any]) -> Any:
        if not any(map(is_stored, rows)):
            return np.concatenate(rows)
        return StoredRows.stacked([part if is_stored(part) else StoredRows(part) for part in rows])

    return PairFeatures(
        joined([part.chosen for part in parts]),
        joined([part.rejected for part in parts]),
        [pair for part in parts for pair in part.pairs],
        first.embedding,
        sum((part.costs for part in parts), Cost()),
    )


def is_extracted(folder: str | os.PathLike[str]) -> bool:
    """Return True if a folder holds finished features.

    Parameters
    ----------
    folder : path-like
        The folder; it need not exist.

    Returns
    -------
    bool
        True if `read_pair_features` finds all rows, in one file or in shards; False for a folder
        whose extraction is unfinished, or that holds something else.
    """
    path, described = Path(folder) / ROWS, (Path(folder) / NOTE).is_file()
    if not described or path.is_file():
        return described
    shards = all_shards(n_shards_in(path))
    return bool(shards) and all(shard.path(path).is_file() for shard in shards)


def discard_features(folder: str | os.PathLike[str]) -> None:
    """Delete the features in a folder, whole or unfinished, and no other files.

    Parameters
    ----------
    folder : path-like
        Folder that ``cvxnn extract`` or ``cvxnn.features.extract_pairs`` wrote. It is not deleted.
    """
    if not Path(folder).is_dir():
        return
    with locked(Path(folder) / NOTE):
        unfinished = [f"{ROWS}.part{ending}" for ending in ("", ".log", ".block")]
        for name in (NOTE, ROWS, PAIRS, f"{ROWS}.json", *unfinished):
            (Path(folder) / name).unlink(missing_ok=True)
        delete_shards(Path(folder) / ROWS)
