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
        Parsed arguments.
    console : Console
        Where to write.
    uses : sequence of {"embed", "guide", "fine_tune"}
        What the command does with the model.
    """
    if options.memory_plan is not None:
        source = configuration(options.model)
        console.progress(plan_text(source, uses, vars(options), options.memory_plan))


def configuration(model: str | None) -> Any:
    """Read the configuration of a model, without its weights.

    Parameters
    ----------
    model : str or None
        As for `cvxnn.llm.load_model`.

    Returns
    -------
    transformers.PretrainedConfig
        The configuration.
    """
    from cvxnn._extras import require
    from cvxnn.llm.models import _locate, quiet

    transformers = require("transformers", extra="llm")
    source, gguf = _locate(model)
    options = {} if gguf is None else {"gguf_file": gguf.name}
    with quiet():
        return transformers.AutoConfig.from_pretrained(source, **options)


def plan_text(source: Any, uses: Sequence[Any], settings: dict[str, Any], gib: float) -> str:
    """Return the plans of several uses, one below the other.

    Parameters
    ----------
    source : LanguageModel or transformers.PretrainedConfig
        Model, or its configuration.
    uses : sequence of {"embed", "guide", "fine_tune"}
        What the model is used for.
    settings : dict
        ``dtype``, ``max_length``, ``batch_tokens``, ``micro_batch``, ...; what is missing has the
        default of `cvxnn.llm.costs.memory_plan`.
    gib : float
        Size of the GPU in GiB.

    Returns
    -------
    str
        Several lines.
    """
    from cvxnn.llm.memory import memory_plan

    lines = []
    for use in uses:
        chosen = {name: settings[name] for name in _SETTINGS[use] if name in settings}
        if use == "fine_tune":
            # The two replies of a pair, each with its prompt.
            chosen["batch_tokens"] = 2 * settings["micro_batch"] * settings["max_length"]
        dtype = settings.get("dtype", "auto")
        plan = memory_plan(source, method=use, dtype=None if dtype == "auto" else dtype, **chosen)
        lines.append(f"memory of {_USES[use]}")
        lines += [f"  {line}" for line in plan.report(gib).splitlines()]
    return "\n".join(lines)
