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
from cvxnn.features.description import Description, describe_layers, differences, layers_of
from cvxnn.features.shards import delete_shards
from cvxnn.features.store import read_features
from cvxnn.files.digests import digest
from cvxnn.files.json_files import read_json
from cvxnn.files.locks import locked
from cvxnn.files.writing import MALFORMED
from cvxnn.numerics.stored_rows import StoredRows, is_stored
from cvxnn.preference.files import read_preferences
from cvxnn.preference.triplets import PreferenceTriplet, as_messages, split_by_group

ROWS, PAIRS, NOTE = "features.npy", "pairs.jsonl.gz", "features.json"
"""Files of a folder: the embeddings, the texts, and the settings with the costs."""


# Bytes of embeddings, in float32, up to which a fit has them in memory, several times over.
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
    folder: str | os.PathLike[str], *, check: bool = True, stored: bool | None = None
) -> PairFeatures:
    """Read the embeddings of preference pairs from a folder.

    Parameters
    ----------
    folder : path-like
        Folder that ``cvxnn extract`` or ``cvxnn.features.extract_pairs`` wrote.
    check : bool, default=True
        Whether to compare the checksums of the embeddings; see `read_features`.
    stored : bool, optional
        Whether the embeddings are `StoredRows`, which a fit reads a block at a time. By default
        those are of which all would take more than 1 GiB in float32.

    Returns
    -------
    PairFeatures
        The embeddings are mapped from the disk: rows are loaded when they are used. Those of 16
        bits that are no `StoredRows` are in memory, in float32.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist or holds no features, or if its extraction was not finished;
        run it again.
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
    if not (folder / ROWS).is_file():
        raise FileNotFoundError(
            f"{folder}: the extraction was not finished; run cvxnn extract again to continue it"
        )
    rows, embedding = read_features(folder / ROWS, check=check)
    pairs = read_preferences(folder / PAIRS, format="conversational")
    if len(rows) != 2 * len(pairs):
        raise ValueError(
            f"{folder}: {len(pairs)} pairs, but features of shape {rows.shape}; expected two rows "
            "for each pair. Extract the features again"
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
    chosen: Any = rows[0::2]
    rejected: Any = rows[1::2]
    if stored or (stored is None and 4 * rows.size > _MOST_IN_MEMORY):
        chosen, rejected = StoredRows(chosen), StoredRows(rejected)
    elif rows.dtype.itemsize == 2:
        chosen, rejected = (np.asarray(StoredRows(part)) for part in (chosen, rejected))
    return PairFeatures(chosen, rejected, pairs, dict(embedding), costs)


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


def digest_of_pairs(pairs: Sequence[PreferenceTriplet]) -> str:
    """Return the digest of all texts and groups, in order.

    Parameters
    ----------
    pairs : sequence of PreferenceTriplet
        The pairs. A prompt that is a string counts as one message of the user.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    return digest(
        *([as_messages(pair.prompt), pair.chosen, pair.rejected, pair.group] for pair in pairs)
    )


def extraction_settings(
    embedding: Description, pairs: Sequence[PreferenceTriplet]
) -> dict[str, Any]:
    """Return everything that a folder of features depends on.

    Parameters
    ----------
    embedding : Description
        Description of the embeddings: ``Embedder.description``.
    pairs : sequence of PreferenceTriplet
        The pairs.

    Returns
    -------
    dict
        The digest of the pairs, and the description.
    """
    return {"pairs": digest_of_pairs(pairs), "embedding": dict(embedding)}


def is_extracted(folder: str | os.PathLike[str]) -> bool:
    """Return True if a folder holds finished features.

    Parameters
    ----------
    folder : path-like
        The folder; it need not exist.

    Returns
    -------
    bool
        False for a folder whose extraction is unfinished, or that holds something else.
    """
    return (Path(folder) / NOTE).is_file() and (Path(folder) / ROWS).is_file()


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
