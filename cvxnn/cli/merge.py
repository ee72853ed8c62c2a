"""Join the shards of a folder of embeddings, and verify them.

This follows "extract --shard" of all shards. It compares checksums, texts and settings, says which
shards are missing, and needs neither a model nor PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvxnn.cli.console import Console
from cvxnn.cli.extract import describe_result
from cvxnn.cli.inputs import required

HELP = "join the shards that extract --shard made"
EXAMPLE = "  cvxnn merge features"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="Folder of cvxnn extract")
    parser.add_argument(
        "--store",
        choices=("float32", "float16", "bfloat16"),
        help="Rewrite the embeddings in this type of numbers; float16 and bfloat16 halve the disk",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, folder="FOLDER")
    from cvxnn.features.extraction import merge_pairs
    from cvxnn.features.pairs import ROWS, read_pair_features
    from cvxnn.features.store import read_features
    from cvxnn.features.writer import store_as

    folder = Path(options.folder)
    status = "nothing to do" if (folder / ROWS).is_file() else "done"
    console.kept = lambda: "all shards are kept; the same command continues"
    features = merge_pairs(folder, progress=not console.quiet)
    if options.store not in (None, str(read_features(folder / ROWS, check=False)[0].dtype)):
        store_as(folder / ROWS, options.store, progress=not console.quiet)
        features, status = read_pair_features(folder), "done"
    return describe_result(console, folder, features, status)
