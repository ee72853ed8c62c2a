"""Train COALA, a linear head and fine-tuned models on the same pairs, and measure all the same way.

Held-out accuracy (of the implied reward, where a model is fine-tuned), reward margins, FLOPs, peak
memory and time of each method go to a folder, method by method: a second call goes on with those
that are missing. "report" makes a page of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvxnn.cli.console import Console
from cvxnn.cli.fit import head_options, head_parameters
from cvxnn.cli.inputs import model_of, pairs_of, required
from cvxnn.cli.options import (
    data_options,
    embedding_options,
    model_options,
    names_among,
    positive,
)
from cvxnn.cli.plan import memory_option, show_plan

HELP = "COALA, linear head, SFT, DPO, ORPO, SimPO on the same pairs"
EXAMPLE = "  cvxnn compare pairs.jsonl --methods coala,linear,dpo --output comparison --layer 16"

# As in cvxnn.comparison.METHODS, which is not imported for --help.
METHODS = ("coala", "linear", "sft", "dpo", "r_dpo", "orpo", "simpo", "rrhf")
_DEFAULT = ("coala", "linear", "sft", "dpo", "orpo", "simpo")
_COMMON = (
    *("epochs", "steps", "learning_rate", "lora_r", "lora_alpha", "micro_batch"),
    *("accumulation", "evaluate_every", "gradient_checkpointing"),
)
# Hyper-parameters of the objectives, with their defaults; to import them takes seconds.
_OWN = {
    "dpo": {"beta": 0.1},
    "orpo": {"weight": 0.1},
    "simpo": {"beta": 2.0, "gamma": 1.0},
    "rrhf": {"weight": 1.0},
    "r_dpo": {"beta": 0.1, "alpha": 0.05},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument(
        "data", nargs="?", metavar="DATA", help="file, Hub data set, or 'tutoring' (shipped)"
    )
    parser.add_argument("--output", default="comparison", metavar="FOLDER", help="(comparison)")
    parser.add_argument(
        "--methods",
        type=names_among(METHODS),
        default=_DEFAULT,
        metavar="A,B,...",
        help=f"among {', '.join(METHODS)} (all but r_dpo and rrhf)",
    )
    group = parser.add_argument_group("held-out pairs")
    group.add_argument("--test", metavar="DATA", help="held-out pairs")
    group.add_argument(
        "--test-size", type=float, default=0.25, metavar="X", help="else: part of the groups (0.25)"
    )
    data_options(parser)
    model_options(parser)
    embedding_options(parser)
    head_options(parser)
    fine_tuning_options(parser)
    memory_option(parser)


def fine_tuning_options(parser: argparse.ArgumentParser) -> None:
    """Fields of ``FineTuningConfig``; what is not given has its default."""
    group = parser.add_argument_group("fine-tuning")
    group.add_argument("--epochs", type=positive, metavar="N", help="passes over the pairs (1)")
    group.add_argument("--steps", type=positive, metavar="N", help="instead of epochs")
    group.add_argument("--learning-rate", type=float, metavar="X", help="of AdamW (0.0002)")
    group.add_argument("--lora-r", type=positive, metavar="N", help="rank of the adapters (16)")
    group.add_argument("--lora-alpha", type=float, metavar="X", help="scale of the adapters (32)")
    group.add_argument("--micro-batch", type=positive, metavar="N", help="pairs in one call (2)")
    group.add_argument("--accumulation", type=positive, metavar="N", help="calls a step (8)")
    group.add_argument("--evaluate-every", type=positive, metavar="N", help="steps (50)")
    group.add_argument(
        "--gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        help="compute activations twice rather than keep them (no)",
    )
    for method, parameters in _OWN.items():
        for name, value in parameters.items():
            group.add_argument(
                f"--{method.replace('_', '-')}-{name}",
                type=float,
                metavar="X",
                dest=f"{method}_{name}",
                help=f"({value:g})",
            )


def comparison_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of ``compare`` that the options stand for."""
    common = {name: getattr(options, name) for name in _COMMON}
    common = {name: value for name, value in common.items() if value is not None}
    own: dict[str, dict[str, Any]] = {
        method: {
            name: value
            for name in names
            if (value := getattr(options, f"{method}_{name}")) is not None
        }
        for method, names in _OWN.items()
    }
    own["coala"] = head_parameters(options)
    return {
        "embedding": {
            "pooling": options.pooling,
            "layer": options.layer,
            "max_length": options.max_length,
            "batch_tokens": options.batch_tokens,
        },
        "fine_tuning": {"max_length": options.max_length, **common},
        "parameters": {method: values for method, values in own.items() if values},
        "seed": options.seed,
        "overwrite": options.overwrite,
    }


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command."""
    required(options, data="DATA")
    from cvxnn.comparison import RESULT_FILE, compare
    from cvxnn.preference.data import split_by_group

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
