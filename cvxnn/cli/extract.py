"""Embed the replies of preference pairs into a folder, block by block.

The folder records its pairs, model and settings; "fit" and "score" read it. A second call continues
after an interruption, or says that nothing is to do. --workers 4 shares the work among processes of
this machine; --shard 2/8 does an eighth of it, and "merge" joins what machines did in one folder.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn.cli.console import Console
from cvxnn.cli.extraction_workers import run_workers
from cvxnn.cli.inputs import model_of, pairs_of, required
from cvxnn.cli.option_building import UsageError, positive
from cvxnn.cli.option_groups import DATA, DATA_HELP, EMBEDDING, MODEL, add_memory_plan
from cvxnn.cli.plan import plan_only, show_plan
from cvxnn.files.digests import digest
from cvxnn.files.json_files import read_json, write_json
from cvxnn.files.locks import check_folder, locked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvxnn.features.extraction import PairEmbedder
    from cvxnn.features.pairs import PairFeatures
    from cvxnn.features.shards import Shard
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
    sharing = parser.add_argument_group("several processes").add_mutually_exclusive_group()
    sharing.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="Embed in so many processes of this machine, each on its GPU where there are several",
    )
    sharing.add_argument(
        "--shard", type=_shard, metavar="I/N", help="Embed only this part, such as 2/8; then merge"
    )
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
        return describe_result(console, folder, found, "nothing to do")

    from cvxnn.features.extraction import extract_pairs, merge_pairs
    from cvxnn.features.pairs import NOTE, ROWS, discard_features, is_extracted
    from cvxnn.features.shards import n_blocks_of

    n_rows = 2 * len(pairs)
    n_workers = min(options.workers or 1, n_blocks_of(n_rows))
    if options.shard is not None:
        return _extract_shard(options, console, pairs)
    if options.overwrite:
        discard_features(folder)
    before = is_extracted(folder)
    if n_workers > 1 and not before:
        console.progress(f"workers   {n_workers}")
        console.kept = lambda: "what the workers finished is kept; the same command continues"
        run_workers(work, options, console, folder / ROWS, n_rows, n_workers)
        features = merge_pairs(folder)
    else:
        embedder = _embedder(options, console)
        console.kept = lambda: _kept(folder / ROWS, embedder, n_rows)
        features = extract_pairs(embedder, pairs, folder)
    if request is not None:  # the next call need not load the model
        with locked(folder / NOTE):
            write_json(folder / NOTE, {**read_json(folder / NOTE), "request": request})
    return describe_result(console, folder, features, "nothing to do" if before else "done")


def work(options: argparse.Namespace, console: Console) -> None:
    """Embed the shard that the options name, as a worker does.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments, with a shard.
    console : Console
        Where to write.
    """
    _extract_shard(options, console, pairs_of(options, console, options.data))


def _extract_shard(
    options: argparse.Namespace, console: Console, pairs: Sequence[PreferenceTriplet]
) -> dict[str, Any]:
    from cvxnn.features.extraction import extract_shard
    from cvxnn.features.pairs import ROWS

    if options.overwrite:
        raise UsageError("--overwrite would delete what other workers do; run it without --shard")
    shard, folder = options.shard, Path(options.output)
    rows = shard.rows(2 * len(pairs))
    embedder = _embedder(options, console)
    console.kept = lambda: _kept(shard.path(folder / ROWS), embedder, len(rows))
    extract_shard(embedder, pairs, folder, shard)
    console.show(f"{folder}: shard {shard}, {len(rows)} of {2 * len(pairs)} embeddings (done)")
    return {"status": "done", "output": str(folder), "shard": str(shard), "rows": len(rows)}


def _embedder(options: argparse.Namespace, console: Console) -> PairEmbedder:
    """Return what computes the embeddings."""
    from cvxnn.llm.embeddings import Embedder

    lm = model_of(options, console)
    return Embedder(lm, **EMBEDDING.values(options), progress=not console.quiet)


def _kept(path: Path, embedder: PairEmbedder, n_rows: int) -> str:
    """Say what an interruption has left of a file."""
    from cvxnn.llm.block_journal import kept_rows

    rows = kept_rows(path, embedder.description["width"])
    if not rows:
        return "nothing was kept; the same command begins again"
    return f"{rows} of {n_rows} embeddings are kept; the same command continues"


def _shard(text: str) -> Shard:
    from cvxnn.features.shards import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


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


def describe_result(
    console: Console, folder: Path, features: PairFeatures, status: str
) -> dict[str, Any]:
    """Say what a folder of features holds.

    Parameters
    ----------
    console : Console
        Where to write.
    folder : pathlib.Path
        The folder.
    features : PairFeatures
        Its features.
    status : str
        What the command did.

    Returns
    -------
    dict
        The same, for ``--json``.
    """
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
