"""Embedded preference pairs: a folder that says whose they are and what an embedding depends on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cvxnn._files import check_settings, read_json, write_json
from cvxnn.features.store import read_features
from cvxnn.llm.costs import Cost, CostMeter
from cvxnn.preference.data import PreferenceTriplet, as_messages, split_by_group
from cvxnn.preference.formats import read_preferences, write_preferences

if TYPE_CHECKING:
    from cvxnn.llm.embeddings import Embedder

_ROWS, _PAIRS, _NOTE = "features.npy", "pairs.jsonl.gz", "features.json"


@dataclass(frozen=True)
class PairFeatures:
    """Embeddings of the replies of preference pairs.

    Parameters
    ----------
    chosen, rejected : ndarray, shape (n_pairs, width)
        Row ``k`` of both belongs to pair ``k``; read from disk, they are views of one file.
    pairs : sequence of PreferenceTriplet
        The texts.
    embedding : dict
        All that an embedding depends on; ``Embedder.description``.
    costs : Cost
        Of the extraction, interrupted parts included.
    """

    chosen: NDArray[np.floating]
    rejected: NDArray[np.floating]
    pairs: Sequence[PreferenceTriplet]
    embedding: dict[str, Any]
    costs: Cost

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def groups(self) -> list[str]:
        """Group of each pair."""
        return [pair.group for pair in self.pairs]

    @property
    def identity(self) -> str:
        """Hash of texts and of what the embeddings depend on."""
        return hashlib.sha256(
            f"{digest_of_pairs(self.pairs)}{sorted(self.embedding.items())}".encode()
        ).hexdigest()[:16]

    def take(self, index: Sequence[int]) -> PairFeatures:
        """Some of the pairs; the costs stay those of all."""
        rows = list(index)
        pairs = [self.pairs[i] for i in rows]
        return PairFeatures(
            self.chosen[rows], self.rejected[rows], pairs, self.embedding, self.costs
        )

    def split(self, test_size: float, seed: int) -> tuple[PairFeatures, PairFeatures]:
        """Training and held-out part, as `cvxnn.preference.data.split_by_group` makes them."""
        train, test = split_by_group(self.pairs, test_size, seed)
        place = {id(pair): i for i, pair in enumerate(self.pairs)}
        return (
            self.take([place[id(pair)] for pair in train]),
            self.take([place[id(pair)] for pair in test]),
        )


def extract_pairs(
    embedder: Embedder, pairs: Sequence[PreferenceTriplet], folder: str | os.PathLike[str]
) -> PairFeatures:
    """Embed pairs into a folder, block by block; a second call goes on after an interruption.

    Parameters
    ----------
    embedder : Embedder
    pairs : sequence of PreferenceTriplet
        At least one.
    folder : path-like
        Created if need be. It gets ``features.npy`` (two rows a pair, the chosen reply first),
        ``features.npy.json`` (what an embedding depends on), ``pairs.jsonl.gz`` and, at the end,
        ``features.json``.

    Returns
    -------
    PairFeatures
        Mapped from the disk, not in memory.

    Raises
    ------
    OtherSettingsError
        If the folder holds, whole or in part, features of other pairs or settings.
    """
    folder = Path(folder)
    settings = extraction_settings(embedder, pairs)
    if (folder / _NOTE).exists():
        check_settings(folder, read_json(folder / _NOTE).get("settings", {}), settings)
        if (folder / _ROWS).exists():
            return read_pair_features(folder)
    folder.mkdir(parents=True, exist_ok=True)
    note = read_json(folder / _NOTE) if (folder / _NOTE).exists() else {"settings": settings}
    write_json(folder / _NOTE, note)
    write_preferences(folder / _PAIRS, pairs, format="conversational")
    meter = CostMeter.from_dict(note.get("costs", {}))
    try:
        with meter.phase("embed"):
            embedder.embed_to_file(
                folder / _ROWS,
                [pair.prompt for pair in pairs for _ in range(2)],
                [reply for pair in pairs for reply in (pair.chosen, pair.rejected)],
            )
    finally:
        # The cost of what was interrupted counts as well.
        write_json(folder / _NOTE, {**note, "costs": meter.to_dict()})
    return read_pair_features(folder)


def extraction_settings(embedder: Embedder, pairs: Sequence[PreferenceTriplet]) -> dict[str, Any]:
    """All that the folder of `extract_pairs` depends on."""
    return {"pairs": digest_of_pairs(pairs), "embedding": dict(embedder.description)}


def read_pair_features(folder: str | os.PathLike[str]) -> PairFeatures:
    """Read what `extract_pairs` wrote; the embeddings stay on disk until they are used.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or its extraction was not finished.
    ValueError
        If its files do not fit together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of features: {folder}; cvxnn extract makes one")
    note = read_json(folder / _NOTE)
    if not (folder / _ROWS).is_file():
        raise FileNotFoundError(
            f"{folder}: the extraction was not finished; run cvxnn extract again to go on"
        )
    rows, embedding = read_features(folder / _ROWS)
    pairs = read_preferences(folder / _PAIRS, format="conversational")
    if len(rows) != 2 * len(pairs):
        raise ValueError(
            f"{folder}: {len(pairs)} pairs, but features of shape {rows.shape}; expected two rows "
            "a pair. Extract them anew"
        )
    costs = CostMeter.from_dict(note.get("costs", {})).total
    return PairFeatures(rows[0::2], rows[1::2], pairs, dict(embedding), costs)


def digest_of_pairs(pairs: Sequence[PreferenceTriplet]) -> str:
    """Hash of all texts and groups, in order."""
    content = hashlib.sha256()
    for pair in pairs:
        texts = [as_messages(pair.prompt), pair.chosen, pair.rejected, pair.group]
        content.update(repr(texts).encode())
    return content.hexdigest()[:16]


def is_extracted(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds finished features."""
    return (Path(folder) / _NOTE).is_file() and (Path(folder) / _ROWS).is_file()


def discard_features(folder: str | os.PathLike[str]) -> None:
    """Delete the files of `extract_pairs` in a folder, whole or unfinished, and no others."""
    for name in (_NOTE, _ROWS, _PAIRS, f"{_ROWS}.json", f"{_ROWS}.part", f"{_ROWS}.part.log"):
        (Path(folder) / name).unlink(missing_ok=True)
