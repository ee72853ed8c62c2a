"""Make preference data with a language model: dialogues, or pairs of sampled replies.

"dialogues" lets the model play a student and a tutor, with subject, moods, temperature and length
drawn for each; what is too short or long, repeats itself or leaves its role is thrown away. "cvxnn
extract" takes the file. "pairs" samples replies to each prompt, and a reward head ranks them: the
best and the worst one are a pair. A second call continues with what is missing.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, model_of, required, reward_head
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.cli.option_groups import BATCH, MODEL
from cvxnn.cli.prompts import read_prompts
from cvxnn.files.locks import check_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cvxnn.preference.triplets import Message, Prompt

HELP = "make dialogues or ranked pairs with a language model"
EXAMPLE = "  cvxnn make dialogues --number 500 --output dialogues.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument(
        "kind", nargs="?", choices=("dialogues", "pairs"), metavar="dialogues|pairs", help="What"
    )
    parser.add_argument("--output", metavar="FILE", help="File of JSON lines, which grows")
    longest = option_from("cvxnn.llm.generate_candidates", "max_new_tokens")
    parser.add_argument("--max-new-tokens", **longest)
    dialogues = parser.add_argument_group("dialogues")
    number = option_from("cvxnn.preference.make_dialogues", "n")
    dialogues.add_argument("--number", **number)
    dialogues.add_argument(
        "--subjects", metavar="A,B,...", help="Subjects; by default eleven, as EduFeedback has"
    )
    pairs = parser.add_argument_group("pairs")
    pairs.add_argument("--prompts", metavar="FILE", help="Prompts, as for cvxnn generate")
    pairs.add_argument("--head", metavar="HEAD", help="File of cvxnn fit, the reward model")
    ranked = "cvxnn.preference.rank_sampled_replies"
    pairs.add_argument("--best-of", **option_from(ranked, "n"))
    pairs.add_argument("--least-margin", **option_from(ranked, "least_margin"))
    for group in (MODEL, BATCH):
        group.add_to(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, kind="dialogues|pairs", output="--output")
    console.kept = lambda: f"what was made is kept in {options.output}; the same command continues"
    console.made += check_file(options.output)
    made = _dialogues if options.kind == "dialogues" else _pairs
    if options.overwrite:
        from pathlib import Path

        for name in ("", ".faults.jsonl", ".none.jsonl"):
            Path(f"{options.output}{name}").unlink(missing_ok=True)
    counts = made(options, console)
    console.show(str(counts))
    console.show(f"wrote {options.output}")
    return {"status": "done", "output": options.output, **asdict(counts)}


def _dialogues(options: argparse.Namespace, console: Console) -> Any:
    from cvxnn.llm.decoding.plain_replies import generate_candidates
    from cvxnn.preference.made_dialogues import SUBJECTS, make_dialogues

    lm = model_of(options, console)

    def write(messages: list[Message], temperature: float, seed: int) -> str:
        [text] = generate_candidates(
            lm,
            messages,
            1,
            max_new_tokens=options.max_new_tokens,
            temperature=temperature,
            seed=seed,
        )
        return text

    subjects = SUBJECTS if options.subjects is None else options.subjects.split(",")
    return make_dialogues(
        write,
        options.output,
        options.number,
        subjects=subjects,
        seed=options.seed,
        say=console.progress,
    )


def _pairs(options: argparse.Namespace, console: Console) -> Any:
    if options.prompts is None or options.head is None:
        raise UsageError("cvxnn make pairs needs --prompts and --head")
    from cvxnn.llm.decoding.plain_replies import generate_candidates
    from cvxnn.preference.ranked_replies import rank_sampled_replies

    prompts, head = read_prompts(options.prompts), reward_head(options.head)
    embedder = embedder_of(options, console, head)
    embedder.progress = False

    def sample(prompt: Prompt, n: int, seed: int) -> list[str]:
        return generate_candidates(
            embedder.lm, prompt, n, max_new_tokens=options.max_new_tokens, seed=seed
        )

    def reward(prompt: Prompt, replies: Sequence[str]) -> Any:
        return head.reward(embedder.embed([prompt] * len(replies), list(replies)))

    return rank_sampled_replies(
        prompts,
        sample,
        reward,
        options.output,
        n=options.best_of,
        least_margin=options.least_margin,
        seed=options.seed,
        say=console.progress,
    )
