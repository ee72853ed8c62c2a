"""Train COALA, a linear head and fine-tuned models on the same pairs, and measure all the same way.

The folder gets the held-out accuracy (of the implied reward, where a model is fine-tuned), the
reward margins, FLOPs, peak memory and time of each method. A second call continues with the methods
that are missing. "report" makes a page of the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import model_of, pairs_of, required
from cvxnn.cli.option_building import option_from
from cvxnn.cli.option_groups import (
    DATA,
    DATA_HELP,
    EMBEDDING,
    FINE_TUNING,
    HEAD,
    MODEL,
    OBJECTIVE_GROUPS,
    add_held_out,
    add_memory_plan,
)
from cvxnn.cli.plan import show_plan

HELP = "compare COALA, a linear head, SFT, DPO, ORPO and SimPO on the same pairs"
EXAMPLE = "  cvxnn compare pairs.jsonl --methods coala,linear,dpo --output comparison --layer 16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of the command.
    """
    parser.add_argument("data", nargs="?", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "--output", default="comparison", metavar="FOLDER", help="Folder for the results"
    )
    parser.add_argument("--methods", **option_from("cvxnn.comparison.compare", "methods"))
    add_held_out(parser)
    for group in (DATA, MODEL, EMBEDDING, HEAD, FINE_TUNING):
        group.add_to(parser)
    objectives = parser.add_argument_group("objectives of fine-tuning")
    for group in OBJECTIVE_GROUPS.values():
        group.add_to(objectives)
    add_memory_plan(parser)


def comparison_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `cvxnn.comparison.compare` that the options stand for.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.

    Returns
    -------
    dict
        Keyword arguments.
    """
    own = {"coala": HEAD, **OBJECTIVE_GROUPS}
    return {
        "embedding": EMBEDDING.values(options),
        "fine_tuning": {"max_length": options.max_length, **FINE_TUNING.values(options)},
        "parameters": {
            method: own[method].values(options) for method in options.methods if method in own
        },
        "seed": options.seed,
        "overwrite": options.overwrite,
    }


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
    from cvxnn.comparison.experiment import compare
    from cvxnn.comparison.results import RESULT_FILE
    from cvxnn.preference.triplets import split_by_group

    pairs = pairs_of(options, options.data)
    if options.test is None:
        train, test = split_by_group(pairs, options.test_size, options.seed)
    else:
        train, test = pairs, pairs_of(options, options.test)
    console.progress(f"data      {len(train)} training pairs, {len(test)} held-out pairs")
    kinds = {
        "embed" if method in ("coala", "linear") else "fine_tune" for method in options.methods
    }
    show_plan(options, console, sorted(kinds))
    lm = model_of(options, console)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        console.progress(line)

    comparison = compare(
        lm,
        train,
        test,
        options.methods,
        folder=options.output,
        **comparison_settings(options),
        say=say,
        progress=console.bars,
    )
    worked = any(line.endswith("begins") for line in lines)
    console.show(str(comparison))
    console.show()
    for sentence in comparison.conclusions():
        console.show(sentence)
    file = Path(options.output) / RESULT_FILE
    console.show(f"{'wrote' if worked else 'nothing to do:'} {file}")
    status = "done" if worked else "nothing to do"
    return {"status": status, "output": str(file), **comparison.to_dict()}
