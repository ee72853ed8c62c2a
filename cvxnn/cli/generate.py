"""Write replies of a language model under the guidance of a head, shown as they are decided.

Prompts come from --prompt, which may be repeated; from the file --prompts (rows with "prompt", or
.txt with one prompt a line); or from the lines of standard input. --plain adds the
greedy reply of the model, --best-of N the best of N sampled replies. With --output, replies are
kept as JSON lines for "report --examples", and a second call continues after the last one. A table
compares the ways of writing by reward, length, log-probability and repetition; with --plain, a
warning says where the reward rises and the text becomes worse.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.caution import add_caution, caution_settings, head_of
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, required
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.cli.option_groups import BATCH, GUIDANCE, MODEL, add_memory_plan
from cvxnn.cli.option_types import natural, positive
from cvxnn.cli.plan import plan_only, show_plan
from cvxnn.cli.prompts import lines_of, read_prompts
from cvxnn.cli.reply_file import begun_file, begun_replies, grow_replies, show_replies
from cvxnn.files.digests import digest_of_file
from cvxnn.files.json_files import as_json, write_json
from cvxnn.files.locks import check_file
from cvxnn.files.writing import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvxnn.cli.inputs import Head
    from cvxnn.llm.embeddings import Embedder
    from cvxnn.preference.triplets import Prompt

HELP = "write guided replies, streamed to the terminal"
EXAMPLE = '  cvxnn generate head.safetensors --prompt "What is 2 + 2?" --plain --weight 2'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
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
    add_replies(parser)
    for group in (MODEL, BATCH, GUIDANCE):
        group.add_to(parser)
    add_caution(parser)
    add_memory_plan(parser)


def add_replies(parser: argparse.ArgumentParser, best_of: int = 0) -> None:
    """Add the options that say which replies to write.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of a command.
    best_of : int, default=0
        Default of ``--best-of``, at least 0.
    """
    sampled = option_from("cvxnn.comparison.side_by_side", "best_of")
    parser.add_argument("--best-of", **{**sampled, "type": natural, "default": best_of})
    parser.add_argument("--guided", **option_from("cvxnn.comparison.side_by_side", "guided"))


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, head="HEAD")
    if options.plan_only:
        known = _prompts(options) if options.prompt or options.prompts else []
        return plan_only(options, console, ["guide"], prompts=known)
    prompts = _prompts(options)

    def embedder(head: Head) -> Embedder:
        show_plan(options, console, ["guide"])
        return embedder_of(options, console, head)

    output = None if options.output is None else Path(options.output)
    if output is not None:
        console.made += check_file(output)
    head = head_of(options, options.head)
    own = {"head": digest_of_file(options.head), **caution_settings(options)}
    done, rows = write_replies(options, console, head, own, prompts, output, embedder)
    if output is not None:
        console.show(f"{'wrote' if done else 'nothing to do:'} {output}")
    status = "done" if done else "nothing to do"
    return {"status": status, "output": options.output, "replies": rows}


def write_replies(
    options: argparse.Namespace,
    console: Console,
    head: Head,
    head_settings: dict[str, Any],
    prompts: Sequence[Prompt],
    output: Path | None,
    embedder: Callable[[Head], Embedder],
) -> tuple[bool, list[dict[str, Any]]]:
    """Write replies to prompts, those that an earlier call has not written yet.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments: those of this command.
    console : Console
        Where to write.
    head : object with ``reward`` and ``embedding``
        Head that guides and scores replies.
    head_settings : dict
        What identifies it, such as the digest of its file.
    prompts : sequence of (str or list of Message)
        What to answer.
    output : Path or None
        File of JSON lines, which grows prompt by prompt; None keeps nothing. The replies to a
        prompt that are written so far are beside it. A second process with the same file waits
        until the first ends.
    embedder : callable
        Function from the head to its embedder; called if there is something to write.

    Returns
    -------
    done : bool
        Whether there was something to write.
    rows : list of dict
        For each prompt, ``prompt`` and ``replies``.

    Raises
    ------
    OtherSettingsError
        If the file holds replies of other settings; the message names each difference.
    """
    settings = {
        **head_settings,
        "prompts": json.loads(as_json(prompts)),
        "plain": options.plain,
        "best_of": options.best_of,
        "guided": options.guided,
        "guidance": GUIDANCE.values(options),
        "seed": options.seed,
    }

    def begin() -> Callable[[Prompt], dict[str, Any]]:
        begun = None if output is None else begun_file(output)
        return functools.partial(_reply, options, console, head, embedder(head), begun)

    done, rows = grow_replies(
        output, settings, prompts, begin, console, overwrite=options.overwrite
    )
    show_replies(rows, console)
    return done, rows


def _prompts(options: argparse.Namespace) -> list[Prompt]:
    if options.prompts is not None and options.prompt:
        raise UsageError("give --prompt or --prompts, not both")
    if options.prompts is not None:
        return read_prompts(options.prompts, options.limit)
    prompts: list[Prompt] = list(options.prompt or ())
    if blank := [text for text in options.prompt or () if not text.strip()]:
        raise UsageError(f"--prompt is {blank[0]!r}; expected some text")
    if not prompts and not sys.stdin.isatty():
        # Python would end lines at a lone carriage return as well.
        raw = getattr(sys.stdin, "buffer", None)
        text = sys.stdin.read() if raw is None else decode(raw.read(), "standard input")
        prompts = lines_of(text)
    if not prompts:
        raise UsageError("no prompt: give --prompt, --prompts, or lines on standard input")
    return prompts


def _reply(
    options: argparse.Namespace,
    console: Console,
    head: Head,
    embedder: Embedder,
    begun: Path | None,
    prompt: Prompt,
) -> dict[str, Any]:
    """Return one prompt with its replies, each shown and kept as soon as it is written."""
    from cvxnn.comparison.replies import side_by_side
    from cvxnn.llm.decoding.guidance import Guidance

    pieces: list[str] = []

    def stream(piece: str) -> None:
        if not pieces:
            console.show(f"{'guided':<10}", end="")
        pieces.append(piece)
        console.show(_printable(piece), end="")

    question = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    console.show(f"prompt    {_printable(question)}")
    replies = begun_replies(begun, prompt)

    def show(name: str, reply: dict[str, Any], *, streamed: bool) -> None:
        start = "" if streamed else f"{name:<9} {_printable(reply['text'])}"
        reward = reply["reward"]
        said = f"reward {'none' if reward is None else f'{reward:.3g}'}"
        if reply["ending"] == "length":
            said += f"; cut at {counted(options.max_new_tokens, 'token')}"
        console.show(f"{start}  [{said}]")

    for name, known in replies.items():
        show(name, known, streamed=False)
    for reply in side_by_side(
        head,
        embedder,
        prompt,
        Guidance(**GUIDANCE.values(options), seed=options.seed),
        plain=options.plain and "plain" not in replies,
        best_of=0 if f"best of {options.best_of}" in replies else options.best_of,
        guided=options.guided and "guided" not in replies,
        stream=stream,
    ):
        fields = reply._asdict()
        name = fields.pop("name")
        replies[name] = fields
        if begun is not None:
            write_json(begun, {"prompt": prompt, "replies": replies})
        show(name, fields, streamed=name == "guided")
    console.show()
    return {"prompt": prompt, "replies": replies}


def _printable(text: str) -> str:
    """Return a text without the control codes that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)
