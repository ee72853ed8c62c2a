"""Embed the replies of preference pairs into a folder, block by block.

The folder records its pairs, model and settings; "fit" and "score" read it. A second call continues
after an interruption, or says that nothing is to do. --workers 4 shares the work among processes of
this machine; --shard 2/8 does an eighth of it, and "merge" joins what machines did in one folder.
--engine http://localhost:8000/v1 asks a server in place of a model here.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.console import Console
from cvxnn.cli.embedding_options import check_layers_of_model
from cvxnn.cli.extraction_engines import add_engine, embedder_from, is_endpoint
from cvxnn.cli.extraction_workers import (
    ShardWorker,
    kept_of,
    n_shards_for,
    run_on_ray,
    run_processes,
)
from cvxnn.cli.inputs import pairs_of, request_of, required
from cvxnn.cli.option_building import UsageError
from cvxnn.cli.option_groups import DATA, DATA_HELP, EMBEDDING, MODEL, add_memory_plan
from cvxnn.cli.option_types import positive
from cvxnn.cli.plan import plan_only, show_plan
from cvxnn.files.json_files import damage_named, read_json, write_json
from cvxnn.files.locks import check_folder, locked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvxnn.features.pairs import PairFeatures
    from cvxnn.features.shards import Shard
    from cvxnn.preference.triplets import PreferenceTriplet

HELP = "embed preference pairs into a folder"
EXAMPLE = (
    "  cvxnn extract pairs.jsonl --output features --model ~/models/Llama-3.1-8B --layer 12,16,20"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
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
        "--shard", type=_shard, metavar="I/N", help="Embed only this part, such as 2/8"
    )
    parser.add_argument(
        "--ray",
        action="store_true",
        help="The workers are actors of Ray, on any machine that shares the folder (extra ray)",
    )
    add_engine(parser)
    add_memory_plan(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, data="DATA")
    if options.ray and options.workers is None:
        raise UsageError("--ray needs --workers, the number of actors")
    folder = Path(options.output)
    if not is_endpoint(options):
        check_layers_of_model(options)
    pairs = pairs_of(options, console, options.data)
    console.progress(f"data      {counted(len(pairs), 'pair')}")
    if is_endpoint(options) and (options.plan_only or options.memory_plan is not None):
        raise UsageError("a plan is of a model that runs here, not of a server")
    if options.plan_only:
        return plan_only(options, console, ["embed"], folder, pairs)
    show_plan(options, console, ["embed"])
    console.made += check_folder(folder)
    request = None  # what a server would answer is not known beforehand
    if not is_endpoint(options):
        request = request_of(options, EMBEDDING.values(options))
    show = not console.quiet
    found = None if options.overwrite else _finished(folder, request, pairs, show)
    if found is not None:
        return describe_result(console, folder, found, "nothing to do")

    from cvxnn.features.blocks import BLOCK
    from cvxnn.features.extraction import extract_pairs, merge_pairs
    from cvxnn.features.pairs import NOTE, ROWS, discard_features
    from cvxnn.features.shards import all_shards, n_blocks_of, n_shards_in

    if options.shard is not None:
        return _embed_shard(options, console)
    if options.overwrite:
        discard_features(folder)
    n_rows, before = 2 * len(pairs), (folder / ROWS).is_file()
    n_shards = n_shards_in(folder / ROWS) or n_shards_for(options, n_blocks_of(n_rows))
    if options.workers is not None and n_shards < options.workers and not before:
        blocks = "one block" if n_shards == 1 else f"{n_shards} blocks"
        console.progress(
            f"workers   {n_shards} of {options.workers}: the {n_rows:,} embeddings are {blocks} of "
            f"at most {BLOCK}, the least that a worker takes"
        )
    if options.workers is not None and n_shards > 1 and not before:
        console.kept = lambda: "what the workers finished is kept; the same command continues"
        if options.ray:
            run_on_ray(options, console, all_shards(n_shards))
        else:
            run_processes(options, console, folder / ROWS, n_rows, all_shards(n_shards))
        features = merge_pairs(folder, progress=show)
    else:
        embedder = embedder_from(options, console)
        console.kept = lambda: kept_of(folder / ROWS, embedder, n_rows)
        features = extract_pairs(embedder, pairs, folder)
    if request is not None:  # the next call need not load the model
        with locked(folder / NOTE):
            write_json(folder / NOTE, {**read_json(folder / NOTE), "request": request})
    return describe_result(console, folder, features, "nothing to do" if before else "done")


def _embed_shard(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    if options.overwrite:
        raise UsageError("--overwrite would delete what other workers do; run it without --shard")
    rows = ShardWorker(options, console).embed(options.shard)
    console.show(f"{options.output}: shard {options.shard}, {rows} embeddings (done)")
    shard = str(options.shard)
    return {"status": "done", "output": options.output, "shard": shard, "rows": rows}


def _shard(text: str) -> Shard:
    from cvxnn.features.shards import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _finished(
    folder: Path, request: str | None, pairs: Sequence[PreferenceTriplet], show: bool
) -> PairFeatures | None:
    """Return the features of a folder that an equal request has made, without a model."""
    from cvxnn.features.pair_digests import digest_of_pairs
    from cvxnn.features.pairs import NOTE, is_extracted, read_pair_features

    if request is None or not is_extracted(folder):
        return None
    with damage_named():
        note = read_json(folder / NOTE)
    settings = note.get("settings", {})
    if note.get("request") != request or settings.get("pairs") != digest_of_pairs(pairs):
        return None
    with damage_named():
        return read_pair_features(folder, progress=show)


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
    from cvxnn.features.pairs import ROWS
    from cvxnn.features.store import read_features

    pairs, width, layers = features.pairs, features.chosen.shape[1], features.layers
    stored = str(read_features(folder / ROWS, check=False)[0].dtype)
    of = f"{width} numbers in {stored}"
    of = of if len(layers) == 1 else f"{len(layers)} layers, {of}"
    console.show(f"{folder}: {counted(len(pairs), 'pair')}, two embeddings of {of} each ({status})")
    return {
        "status": status,
        "output": str(folder),
        "pairs": len(pairs),
        "width": width,
        "stored": stored,
        "embedding": features.embedding,
        "costs": asdict(features.costs),
    }
