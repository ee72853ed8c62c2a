"""Replies of a language model under the guidance of a head, written as they are decided.

Prompts come from --prompt (again and again), from --prompts (JSON lines with "prompt", or plain
text, one a line), or line by line from standard input. --plain writes the model's own greedy reply
beside each, --best-of N the best of N sampled ones. With --output, replies are kept as JSON lines
for "report", and a second call goes on after the last one.
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
from cvxnn.cli.options import UsageError, batch_option, model_options, natural, positive
from cvxnn.cli.plan import memory_option, show_plan

if TYPE_CHECKING:
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.preference.data import Prompt

HELP = "guided replies, streamed to the terminal"
EXAMPLE = '  cvxnn generate head.safetensors --prompt "What is 2 + 2?" --plain --weight 2'

_GUIDANCE = (
    *("mode", "n_candidates", "top_p", "top_k", "temperature", "segment", "weight"),
    *("likelihood", "tau", "max_new_tokens", "stop"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this command."""
    parser.add_argument("head", nargs="?", metavar="HEAD", help="file of cvxnn fit")
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="may be repeated")
    parser.add_argument("--prompts", metavar="FILE", help="prompts of a file")
    parser.add_argument("--limit", type=positive, metavar="N", help="prompts to take of the file")
    parser.add_argument("--output", metavar="FILE", help="replies as JSON lines")
    parser.add_argument(
        "--plain", action=argparse.BooleanOptionalAction, help="the greedy reply, to compare with"
    )
    parser.add_argument(
        "--best-of", type=natural, default=0, metavar="N", help="also the best of N whole replies"
    )
    model_options(parser)
    batch_option(parser)
    guidance_options(parser)
    memory_option(parser)


def guidance_options(parser: argparse.ArgumentParser) -> None:
    """Fields of ``Guidance``; what is not given has its default."""
    group = parser.add_argument_group("guidance")
    group.add_argument(
        "--mode", choices=("prefix", "token"), help="judge segments, or tokens (prefix)"
    )
    group.add_argument(
        "--weight", type=float, metavar="X", help="of the head; 0: the model alone (1)"
    )
    group.add_argument(
        "--likelihood", type=float, metavar="X", help="of the model's own opinion (1)"
    )
    group.add_argument("--n-candidates", type=positive, metavar="N", help="side by side (5)")
    group.add_argument("--segment", type=positive, metavar="N", help="tokens of a candidate (16)")
    group.add_argument(
        "--tau", type=float, metavar="X", help="draw candidates, not the best (none)"
    )
    group.add_argument("--temperature", type=float, metavar="X", help="of sampling (1)")
    group.add_argument(
        "--top-p", type=float, metavar="X", help="likeliest tokens, up to this share (0.9)"
    )
    group.add_argument("--top-k", type=natural, metavar="N", help="at most so many of them (50)")
    group.add_argument("--max-new-tokens", type=positive, metavar="N", help="of a reply (64)")
    group.add_argument("--stop", action="append", metavar="TEXT", help="ends a reply; repeatable")


def guidance_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Those settings of the guidance that were given."""
    given = {name: getattr(options, name) for name in _GUIDANCE}
    return {name: value for name, value in given.items() if value is not None}


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command."""
    required(options, head="HEAD")
    from cvxnn.persistence import load

    head = load(options.head)
    prompts = _prompts(options)
    settings = {
        "head": digest_of_file(options.head),
        "prompts": json.loads(as_json(prompts)),
        "plain": bool(options.plain),
        "best_of": options.best_of,
        "guidance": guidance_settings(options),
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
    options: argparse.Namespace, console: Console, head: Any, embedder: Embedder, prompt: Prompt
) -> dict[str, Any]:
    """One prompt with its replies, shown as they come."""
    from cvxnn.comparison.replies import side_by_side
    from cvxnn.llm.guidance import Guidance

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
        Guidance(**guidance_settings(options), seed=options.seed),
        plain=bool(options.plain),
        best_of=options.best_of,
        stream=stream,
    ):
        replies[name] = {"text": text, "reward": reward}
        start = "" if name == "guided" else f"{name:<9} {_printable(text)}"
        console.show(f"{start}  [reward {'none' if reward is None else f'{reward:.3g}'}]")
    console.show()
    return {"prompt": prompt, "replies": replies}


def _printable(text: str) -> str:
    """Text without codes that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
