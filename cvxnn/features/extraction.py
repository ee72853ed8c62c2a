"""Extraction of the embeddings of preference pairs into a folder, which can be interrupted.

One call fills the folder, or several, each for a shard (``cvxnn/features/shards.py``), which
`merge_pairs` joins. What computes the embeddings is any object that has what `PairEmbedder` has.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from cvxnn._messages import warn
from cvxnn.costs.meter import CostMeter
from cvxnn.features.description import ENDPOINT, Description
from cvxnn.features.pair_digests import digests_of_blocks, extraction_settings, texts_of_rows
from cvxnn.features.pairs import NOTE, PAIRS, ROWS, PairFeatures, read_pair_features
from cvxnn.features.shards import Shard, all_shards, delete_shards, merge_shards, n_shards_in
from cvxnn.features.writer import unfinished_rows
from cvxnn.files.json_files import (
    OtherSettingsError,
    check_settings,
    damage_named,
    read_json,
    write_json,
)
from cvxnn.files.locks import check_room, locked
from cvxnn.preference.files import read_preferences, write_preferences
from cvxnn.preference.triplets import PreferenceTriplet, Prompt

_BLOCK = 1024  # pairs that are compared at a time


class PairEmbedder(Protocol):
    """What computes embeddings: ``cvxnn.llm.Embedder``, `EndpointEmbedder`, or another one."""

    @property
    def description(self) -> Description:
        """Everything that the embeddings depend on, beside the texts."""

    def embed_to_file(
        self,
        path: str | os.PathLike[str],
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        common_cut: bool = False,
        rows: range | None = None,
    ) -> int:
        """Embed replies into a file, as ``cvxnn.llm.Embedder.embed_to_file`` does.

        Parameters
        ----------
        path : path-like
            The file, written by a `FeatureWriter`.
        prompts : sequence of (str or list of Message)
            What is replied to.
        responses : sequence of str
            The replies, as many as there are prompts.
        common_cut : bool, default=False
            Whether a prompt that is too long is cut at one place for all replies to it.
        rows : range, optional
            Which of the replies are embedded, by default all.

        Returns
        -------
        int
            Number of rows of the file.
        """


def extract_pairs(
    embedder: PairEmbedder, pairs: Sequence[PreferenceTriplet], folder: str | os.PathLike[str]
) -> PairFeatures:
    """Embed preference pairs into a folder, block by block.

    A second call with the same arguments continues after an interruption. One that runs at the same
    time, in another process, waits and then returns the result of the first. Where `extract_shard`
    has begun, the shards that are missing are embedded, and all are merged.

    Parameters
    ----------
    embedder : PairEmbedder
        Embeds the replies: an ``Embedder`` of ``cvxnn.llm``, for example.
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
    if total := n_shards_in(folder / ROWS):
        for shard in all_shards(total):
            extract_shard(embedder, pairs, folder, shard)
        return merge_pairs(folder)
    with locked(folder / NOTE):
        new = not (folder / NOTE).exists()
        if new:
            _check_room(embedder, folder, 2 * len(pairs))
        try:
            note = _begin(folder, extraction_settings(embedder.description, pairs), pairs)
            if (folder / ROWS).exists():
                with damage_named():
                    return read_pair_features(folder)
            meter = CostMeter.from_dict(note.get("costs", {}))
            try:
                with meter.phase("embed"):
                    _embed(embedder, pairs, folder / ROWS)
            finally:
                # The cost of an interrupted part counts as well.
                write_json(folder / NOTE, {**note, "costs": meter.to_dict()})
        except OSError:  # a full disk, say
            if new and not unfinished_rows(folder / ROWS) and not (folder / ROWS).exists():
                for name in (NOTE, PAIRS):  # without embeddings, they say nothing
                    (folder / name).unlink(missing_ok=True)
            raise
        return _finished(folder)


def extract_shard(
    embedder: PairEmbedder,
    pairs: Sequence[PreferenceTriplet],
    folder: str | os.PathLike[str],
    shard: Shard,
) -> int:
    """Embed one shard of preference pairs into a folder, while other processes embed the others.

    A second call with the same arguments continues after an interruption. One that runs at the same
    time, in another process, waits, and finds the shard done. At the end, `merge_pairs` joins the
    shards of the folder.

    Parameters
    ----------
    embedder : PairEmbedder
        Embeds the replies, with the same settings for all shards.
    pairs : sequence of PreferenceTriplet
        All pairs, those of the other shards included.
    folder : path-like
        Common to all processes, and created if it does not exist.
    shard : Shard
        The shard, such as ``Shard(2, 8)``.

    Returns
    -------
    int
        Number of embeddings of the shard.

    Raises
    ------
    OtherSettingsError
        If the folder holds features of other pairs or settings, or shards of another number.
    OSError
        If the folder cannot be written, or has no room for the embeddings.
    ValueError
        If there are more shards than blocks of embeddings; ask for fewer.
    """
    folder = Path(folder)
    rows = shard.rows(2 * len(pairs))
    settings = extraction_settings(embedder.description, pairs)
    with locked(folder / NOTE, brief=True):
        _begin(folder, settings, pairs)
        total = n_shards_in(folder / ROWS)
    if total not in (0, shard.total):
        raise OtherSettingsError(
            f"{folder} is being filled in {total} shards, and shard {shard} was requested; go on "
            f"with {total}, or begin again"
        )
    path = shard.path(folder / ROWS)
    meter = CostMeter()
    with locked(path.with_name(f"{path.name}.json")):  # who waits here finds the shard done
        if path.exists() or (folder / ROWS).exists():
            return len(rows)
        try:
            with meter.phase("embed"):
                _embed(embedder, pairs, path, rows)
        finally:
            with locked(folder / NOTE, brief=True):
                note = read_json(folder / NOTE)
                costs = CostMeter.from_dict(note.get("costs", {})).merge(meter)
                write_json(folder / NOTE, {**note, "costs": costs.to_dict()})
    return len(rows)


def merge_pairs(folder: str | os.PathLike[str], *, progress: bool = False) -> PairFeatures:
    """Join the shards in a folder, and verify that they are whole, and of the pairs in the folder.

    Parameters
    ----------
    folder : path-like
        Folder that `extract_shard` filled. One that is merged already stays as it is.
    progress : bool, default=False
        Whether to show on stderr how many rows are checked and joined.

    Returns
    -------
    PairFeatures
        The embeddings, mapped from the disk. The seconds of their costs are those of all processes
        together.

    Raises
    ------
    FileNotFoundError
        If shards are missing, or the folder holds none; the message says what to run.
    ValueError
        If a shard is damaged, or of other pairs or settings; the message names it.
    """
    folder = Path(folder)
    if not (folder / NOTE).is_file():
        raise FileNotFoundError(f"{folder} holds no shards; cvxnn extract --shard makes them")
    with locked(folder / NOTE):
        if (folder / ROWS).exists():
            delete_shards(folder / ROWS)  # a merge was interrupted after its last step
            return read_pair_features(folder, progress=progress)
        total = n_shards_in(folder / ROWS)
        if not total:
            raise FileNotFoundError(
                f"{folder} holds no shards; run cvxnn extract again to finish the extraction"
            )
        pairs = read_preferences(folder / PAIRS, format="conversational")
        merge_shards(folder / ROWS, total, digests_of_blocks(pairs), progress=progress)
        return _finished(folder)


def _begin(
    folder: Path, settings: dict[str, Any], pairs: Sequence[PreferenceTriplet]
) -> dict[str, Any]:
    """Write what all workers share, unless one has; return the note of the folder."""
    if (folder / NOTE).exists():
        with damage_named():
            note = read_json(folder / NOTE)
        found = note.get("settings", {})
        if found.get("pairs") == settings["pairs"] and "context" not in found.get("embedding", {}):
            raise OtherSettingsError(
                f"{folder} was extracted by an earlier version of cvxnn, whose embeddings say less "
                "about how they were made; extract into another folder, or overwrite this one"
            )
        check_settings(folder, found, settings)
    else:
        note = {"settings": settings}
        write_json(folder / NOTE, note)
    if not (folder / PAIRS).exists():
        write_preferences(folder / PAIRS, pairs, format="conversational")
    return note


def _embed(
    embedder: PairEmbedder,
    pairs: Sequence[PreferenceTriplet],
    path: Path,
    rows: range | None = None,
) -> None:
    _check_room(embedder, path.parent, 2 * len(pairs) if rows is None else len(rows))
    embedder.embed_to_file(path, *texts_of_rows(pairs), common_cut=True, rows=rows)


def _check_room(embedder: PairEmbedder, folder: Path, n_rows: int) -> None:
    # What an interrupted call has written is counted twice: a little more than enough.
    check_room(folder, n_rows * embedder.description["width"] * 4)


def _finished(folder: Path) -> PairFeatures:
    """Open what was written, and warn of pairs that a head cannot tell apart."""
    features = read_pair_features(folder)
    equal = _equal_pairs(features)
    if equal:
        reason = (
            f"they differ only beyond max_length={features.embedding['max_length']} tokens, or in "
            "what the tokenizer ignores. Increase max_length"
        )
        if features.embedding["pooling"] == ENDPOINT:
            reason = "they differ only in what the server cuts or ignores. Shorten them"
        warn(
            f"{len(equal)} of {len(features)} pairs have the same embedding for both replies (the "
            f"first is number {equal[0]}): {reason}, or leave them out",
        )
    return features


def _equal_pairs(features: PairFeatures) -> list[int]:
    found: list[int] = []
    for start in range(0, len(features), _BLOCK):
        block = slice(start, start + _BLOCK)
        equal = (features.chosen[block] == features.rejected[block]).all(axis=1)
        found += (start + equal.nonzero()[0]).tolist()
    return found
