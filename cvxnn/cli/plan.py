"""Memory that a command will need, said before it starts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from cvxnn.cli.console import Console

_USES = {"embed": "embeddings", "guide": "guided replies", "fine_tune": "fine-tuning"}
_FINE_TUNING = ("lora_r", "gradient_checkpointing")


def memory_option(parser: argparse.ArgumentParser) -> None:
    """Option that asks for the plan."""
    parser.add_argument(
        "--memory-plan",
        nargs="?",
        type=float,
        const=24.0,
        metavar="GIB",
        help="say first what fits in a GPU of that size (24)",
    )


def show_plan(options: argparse.Namespace, console: Console, uses: Sequence[str]) -> None:
    """Say on stderr what each use of the model takes, if that was asked for."""
    if options.memory_plan is not None:
        source = configuration(options.model)
        console.progress(plan_text(source, uses, vars(options), options.memory_plan))


def configuration(model: str | None) -> Any:
    """Configuration of a model, without its weights."""
    from cvxnn._extras import require
    from cvxnn.llm.models import _locate, quiet

    transformers = require("transformers", extra="llm")
    source, gguf = _locate(model)
    options = {} if gguf is None else {"gguf_file": gguf.name}
    with quiet():
        return transformers.AutoConfig.from_pretrained(source, **options)


def plan_text(source: Any, uses: Sequence[Any], settings: dict[str, Any], gib: float) -> str:
    """Plans of several uses, one below the other.

    Parameters
    ----------
    source : LanguageModel or transformers configuration
    uses : sequence of {"embed", "guide", "fine_tune"}
    settings : dict
        ``dtype``, ``max_length``, ``batch_tokens``, ``micro_batch``, ...; what is None or missing
        has its default.
    gib : float
        Size of the GPU.
    """
    from cvxnn.llm.fine_tuning import FineTuningConfig
    from cvxnn.llm.memory import memory_plan

    given = {name: value for name, value in settings.items() if value is not None}
    lines = []
    for use in uses:
        chosen: dict[str, Any] = {n: given[n] for n in ("max_length", "batch_tokens") if n in given}
        if use == "guide" and "n_candidates" in given:
            chosen["n_candidates"] = given["n_candidates"]
        if use == "fine_tune":
            chosen |= {name: given[name] for name in _FINE_TUNING if name in given}
            micro_batch = given.get("micro_batch", FineTuningConfig().micro_batch)
            # The two replies of a pair, with their prompt.
            chosen["batch_tokens"] = 2 * micro_batch * given.get("max_length", 1024)
        dtype = given.get("dtype", "auto")
        plan = memory_plan(source, method=use, dtype=None if dtype == "auto" else dtype, **chosen)
        lines.append(f"memory of {_USES[use]}")
        lines += [f"  {line}" for line in plan.report(gib).splitlines()]
    return "\n".join(lines)
