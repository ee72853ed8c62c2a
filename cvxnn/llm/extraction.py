"""Extraction of the embeddings of preference pairs into a folder, which can be interrupted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from cvxnn.costs.meter import CostMeter
from cvxnn.features.pairs import (
    NOTE,
    PAIRS,
    ROWS,
    PairFeatures,
    extraction_settings,
    read_pair_features,
)
from cvxnn.files.json_files import check_settings, read_json, write_json
from cvxnn.files.locks import check_room, locked
from cvxnn.llm.embeddings import Embedder
from cvxnn.preference.files import write_preferences
from cvxnn.preference.triplets import PreferenceTriplet

_BLOCK = 1024  # pairs that are compared at a time


def extract_pairs(
    embedder: Embedder, pairs: Sequence[PreferenceTriplet], folder: str | os.PathLike[str]
) -> PairFeatures:
    """Embed preference pairs into a folder, block by block.

    A second call with the same arguments continues after an interruption. One that runs at the same
    time, in another process, waits and then returns the result of the first.

    Parameters
    ----------
    embedder : Embedder
        Embeds the replies.
    pairs : sequence of PreferenceTriplet
        The pairs, at least one.
    folder : path-like
        Created if it does not exist. It gets ``features.npy`` (two rows for each pair, the chosen
        reply first), ``features.npy.json`` (what an embedding depends on), ``pairs.jsonl.gz`` and,
        at the end, ``features.json``.

    Returns
    -------
    PairFeatures
        The embeddings are mapped from the disk, not in memory.

    Raises
    ------
    OtherSettingsError
        If the folder holds, whole or in part, features of other pairs or settings; choose another
        folder, or delete them with ``cvxnn.features.discard_features``.
    OSError
        If the folder cannot be written, or has no room for the embeddings.

    Warns
    -----
    UserWarning
        If pairs have the same embedding for both replies; their number and the first are named.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / NOTE):
        return _extract(embedder, pairs, folder)


def _extract(embedder: Embedder, pairs: Sequence[PreferenceTriplet], folder: Path) -> PairFeatures:
    settings = extraction_settings(embedder.description, pairs)
    if (folder / NOTE).exists():
        check_settings(folder, read_json(folder / NOTE).get("settings", {}), settings)
        if (folder / ROWS).exists():
            return read_pair_features(folder)
    note = read_json(folder / NOTE) if (folder / NOTE).exists() else {"settings": settings}
    write_json(folder / NOTE, note)
    write_preferences(folder / PAIRS, pairs, format="conversational")
    # What an interrupted call has written is counted twice: a little more than enough.
    check_room(folder, 2 * len(pairs) * embedder.description["width"] * 4)
    meter = CostMeter.from_dict(note.get("costs", {}))
    try:
        with meter.phase("embed"):
            embedder.embed_to_file(
                folder / ROWS,
                [pair.prompt for pair in pairs for _ in range(2)],
                [reply for pair in pairs for reply in (pair.chosen, pair.rejected)],
                common_cut=True,
            )
    finally:
        # The cost of an interrupted part counts as well.
        write_json(folder / NOTE, {**note, "costs": meter.to_dict()})
    features = read_pair_features(folder)
    equal = _equal_pairs(features)
    if equal:
        warnings.warn(
            f"{len(equal)} of {len(pairs)} pairs have the same embedding for both replies (the "
            f"first is number {equal[0]}): they differ only beyond max_length="
            f"{embedder.max_length} tokens, or in what the tokenizer ignores. Increase max_length, "
            "or leave them out",
            stacklevel=3,
        )
    return features


def _equal_pairs(features: PairFeatures) -> list[int]:
    found: list[int] = []
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        equal = (features.chosen[block] == features.rejected[block]).all(axis=1)
        found += (start + equal.nonzero()[0]).tolist()
    return found
