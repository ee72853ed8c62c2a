"""Memory that a command will need, shown before it starts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cvxnn.cli.console import Console

_USES = {"embed": "embeddings", "guide": "guided replies", "fine_tune": "fine-tuning"}
_SETTINGS = {
    "embed": ("max_length", "batch_tokens"),
    "guide": ("max_length", "batch_tokens", "n_candidates"),
    "fine_tune": ("max_length", "lora_r", "gradient_checkpointing"),
}


def show_plan(options: argparse.Namespace, console: Console, uses: Sequence[str]) -> None:
    """Show on stderr what each use of the model takes, if the user asked for it.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments, with ``memory_plan``.
    console : Console
        Where to write.
    uses : sequence of {"embed", "guide", "fine_tune"}
        What the command does with the model.
    """
    if options.memory_plan is not None:
        console.progress(plan_text(options, uses))


def plan_text(options: argparse.Namespace, uses: Sequence[Any]) -> str:
    """Return the memory plans of several uses of a model, one below the other.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments: ``model``, ``memory_plan`` (size of the GPU in GiB), and settings such as
        ``dtype``, ``max_length`` or ``n_candidates``. A setting that is missing has the default of
        `cvxnn.llm.memory.memory_plan`.
    uses : sequence of {"embed", "guide", "fine_tune"}
        What the model is used for. ``"fine_tune"`` needs ``micro_batch`` and ``max_length``.

    Returns
    -------
    str
        Several lines.
    """
    from cvxnn.llm.loading import load_configuration
    from cvxnn.llm.memory import memory_plan

    settings, source = vars(options), load_configuration(options.model)
    dtype = settings.get("dtype", "auto")
    lines = []
    for use in uses:
        chosen = {name: settings[name] for name in _SETTINGS[use] if name in settings}
        if use == "fine_tune":
            # The two replies of a pair, each with its prompt.
            chosen["batch_tokens"] = 2 * settings["micro_batch"] * settings["max_length"]
        plan = memory_plan(source, method=use, dtype=None if dtype == "auto" else dtype, **chosen)
        lines.append(f"memory of {_USES[use]}")
        lines += [f"  {line}" for line in plan.report(options.memory_plan).splitlines()]
    return "\n".join(lines)
