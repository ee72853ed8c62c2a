"""Write replies of a language model under the guidance of a head, shown as they are decided.

Prompts come from --prompt, which may be repeated; from the file --prompts (JSON lines with
"prompt", or one prompt a line of plain text); or from the lines of standard input. --plain adds the
greedy reply of the model, --best-of N the best of N sampled replies. With --output, replies are
kept as JSON lines for "report", and a second call continues after the last one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._files import as_json, digest_of_file, earlier_result, write_json, write_text
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, read_prompts, required
from cvxnn.cli.option_building import UsageError, natural, option_from, positive
from cvxnn.cli.option_groups import BATCH, GUIDANCE, MODEL, add_memory_plan
from cvxnn.cli.plan import show_plan

if TYPE_CHECKING:
    from cvxnn.cli.inputs import Head
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.preference.triplets import Prompt

HELP = "write guided replies, streamed to the terminal"
EXAMPLE = '  cvxnn generate head.safetensors --prompt "What is 2 + 2?" --plain --weight 2'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of the command.
    """
    parser.add_argument("head", nargs="?", metavar="HEAD", help="File of cvxnn fit")
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="A prompt; repeatable")
    parser.add_argument("--prompts", metavar="FILE", help="File of prompts")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="Use the first N prompts of the file only"
    )
    parser.add_argument("--output", metavar="FILE", help="File for the replies, as JSON lines")
    parser.add_argument(
        "--plain",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="Write the greedy reply of the model as well",
    )
    best_of = option_from("cvxnn.comparison.side_by_side", "best_of")
    parser.add_argument("--best-of", **{**best_of, "type": natural})
    for group in (MODEL, BATCH, GUIDANCE):
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
    required(options, head="HEAD")
    from cvxnn.persistence import load

    head = load(options.head)
    prompts = _prompts(options)
    settings = {
        "head": digest_of_file(options.head),
        "prompts": json.loads(as_json(prompts)),
        "plain": options.plain,
        "best_of": options.best_of,
        "guidance": GUIDANCE.values(options),
        "seed": options.seed,
    }
    rows: list[dict[str, Any]] = []
    note = None
    if options.output is not None:
        output = Path(options.output)
        note = output.with_name(f"{output.name}.json")
        if earlier_result(note, settings, overwrite=options.overwrite) is not None:
            rows = _read_rows(output)[: len(prompts)]
        else:
            write_json(note, {"settings": settings})
            output.unlink(missing_ok=True)
    n_before = len(rows)
    if n_before < len(prompts):
        show_plan(options, console, ["guide"])
        embedder = embedder_of(options, console, head)
        for prompt in prompts[n_before:]:
            rows.append(_reply(options, console, head, embedder, prompt))
            if options.output is not None:
                write_text(options.output, "".join(as_json(row) + "\n" for row in rows))
    status = "done" if n_before < len(prompts) else "nothing to do"
    if options.output is not None:
        console.show(f"{'wrote' if status == 'done' else 'nothing to do:'} {options.output}")
    return {"status": status, "output": options.output, "replies": rows}


def _prompts(options: argparse.Namespace) -> list[Prompt]:
    if options.prompts is not None and options.prompt:
        raise UsageError("give --prompt or --prompts, not both")
    if options.prompts is not None:
        return read_prompts(options.prompts, options.limit)
    prompts: list[Prompt] = list(options.prompt or ())
    if not prompts and not sys.stdin.isatty():
        prompts = [line.strip() for line in sys.stdin if line.strip()]
    if not prompts:
        raise UsageError("no prompt: give --prompt, --prompts, or lines on standard input")
    return prompts


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _reply(
    options: argparse.Namespace, console: Console, head: Head, embedder: Embedder, prompt: Prompt
) -> dict[str, Any]:
    """Return one prompt with its replies, each shown as soon as it is written."""
    from cvxnn.comparison.replies import side_by_side
    from cvxnn.llm.guidance.settings import Guidance

    pieces: list[str] = []

    def stream(piece: str) -> None:
        if not pieces:
            console.show(f"{'guided':<10}", end="")
        pieces.append(piece)
        console.show(_printable(piece), end="")

    question = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    console.show(f"prompt    {_printable(question)}")
    replies: dict[str, Any] = {}
    for name, text, reward in side_by_side(
        head,
        embedder,
        prompt,
        Guidance(**GUIDANCE.values(options), seed=options.seed),
        plain=options.plain,
        best_of=options.best_of,
        stream=stream,
    ):
        replies[name] = {"text": text, "reward": reward}
        start = "" if name == "guided" else f"{name:<9} {_printable(text)}"
        console.show(f"{start}  [reward {'none' if reward is None else f'{reward:.3g}'}]")
    console.show()
    return {"prompt": prompt, "replies": replies}


def _printable(text: str) -> str:
    """Return a text without the control codes that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
