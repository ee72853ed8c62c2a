"""Embed the replies of preference pairs into a folder, block by block.

The folder records its pairs, model and settings; "fit" and "score" read it. A second call continues
after an interruption, or says that nothing is to do.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import model_of, pairs_of, required
from cvxnn.cli.option_groups import DATA, DATA_HELP, EMBEDDING, MODEL, add_memory_plan
from cvxnn.cli.plan import plan_only, show_plan
from cvxnn.files.digests import digest
from cvxnn.files.json_files import read_json, write_json
from cvxnn.files.locks import check_folder, locked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvxnn.features.pairs import PairFeatures
    from cvxnn.preference.triplets import PreferenceTriplet

HELP = "embed preference pairs into a folder"
EXAMPLE = "  cvxnn extract pairs.jsonl --output features --model ~/models/Llama-3.1-8B --layer 16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of the command.
    """
    parser.add_argument("data", nargs="?", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--output", default="features", metavar="FOLDER", help="Folder for the embeddings"
    )
    for group in (DATA, MODEL, EMBEDDING):
        group.add_to(parser)
    add_memory_plan(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write.

    Returns
    -------
    dict
        What the command did, for ``--json``.
    """
    required(options, data="DATA")
    folder = Path(options.output)
    pairs = pairs_of(options, console, options.data)
    console.progress(f"data      {len(pairs)} pairs")
    if options.plan_only:
        return plan_only(options, console, ["embed"], folder, pairs)
    show_plan(options, console, ["embed"])
    check_folder(folder)
    request = _request(options)
    if not options.overwrite and (found := _finished(folder, request, pairs)) is not None:
        return _result(console, folder, found, "nothing to do")
    lm = model_of(options, console)

    from cvxnn.features.pairs import NOTE, ROWS, discard_features, is_extracted
    from cvxnn.llm.block_journal import kept_rows
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.llm.extraction import extract_pairs

    embedder = Embedder(lm, **EMBEDDING.values(options), progress=not console.quiet)
    if options.overwrite:
        discard_features(folder)

    def kept() -> str:
        rows = kept_rows(folder / ROWS, embedder.description["width"])
        if not rows:
            return "nothing was kept; the same command begins again"
        return f"{rows} of {2 * len(pairs)} embeddings are kept; the same command continues"

    console.kept = kept
    before = is_extracted(folder)
    features = extract_pairs(embedder, pairs, folder)
    if request is not None:  # the next call need not load the model
        with locked(folder / NOTE):
            write_json(folder / NOTE, {**read_json(folder / NOTE), "request": request})
    return _result(console, folder, features, "nothing to do" if before else "done")


def _request(options: argparse.Namespace) -> str | None:
    """Return the digest of the model's files and of the settings; None for a model of the Hub."""
    from cvxnn.llm.loading import digest_of_source, running_type

    source = digest_of_source(options.model)
    if source is None:
        return None
    dtype, _ = running_type(options.dtype, options.device)
    settings = EMBEDDING.values(options)
    del settings["batch_tokens"]
    return digest(source, str(dtype), settings)


def _finished(
    folder: Path, request: str | None, pairs: Sequence[PreferenceTriplet]
) -> PairFeatures | None:
    """Return the features of a folder that an equal request has made, without a model."""
    from cvxnn.features.pairs import NOTE, digest_of_pairs, is_extracted, read_pair_features

    if request is None or not is_extracted(folder):
        return None
    note = read_json(folder / NOTE)
    settings = note.get("settings", {})
    if note.get("request") != request or settings.get("pairs") != digest_of_pairs(pairs):
        return None
    return read_pair_features(folder)


def _result(console: Console, folder: Path, features: PairFeatures, status: str) -> dict[str, Any]:
    pairs, width = features.pairs, features.chosen.shape[1]
    console.show(f"{folder}: {len(pairs)} pairs, two embeddings of {width} numbers each ({status})")
    return {
        "status": status,
        "output": str(folder),
        "pairs": len(pairs),
        "width": width,
        "embedding": features.embedding,
        "costs": asdict(features.costs),
    }
