"""Make a sheet on which people compare the replies of cvxnn generate, and count their answers.

The sheet has the replies in random order under letters, no names. The key that tells which is whose
lies beside the folder, not in it. With --answers, the answers that came back are counted.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import required
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.cli.report import read_examples
from cvxnn.files.locks import check_folder

if TYPE_CHECKING:
    from cvxnn.evaluation.study_sheet import StudyQuestion

HELP = "make a sheet on which people compare replies"
EXAMPLE = "  cvxnn study replies.jsonl --output study"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument(
        "replies", nargs="?", metavar="REPLIES", help="File of cvxnn generate --output"
    )
    parser.add_argument(
        "--output", default="study", metavar="FOLDER", help="Folder for the sheet of participants"
    )
    parser.add_argument("--title", **option_from("cvxnn.evaluation.make_study", "title"))
    parser.add_argument(
        "--answers", action="append", metavar="FILE", help="Count answers of participants"
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    folder = Path(options.output)
    if folder.name in ("", ".."):
        raise UsageError(f"--output is {folder}; give a name, beside which the key may lie")
    key = folder.with_name(f"{folder.name}.key.json")
    if options.answers:
        return _count(options.answers, key, console)
    required(options, replies="REPLIES")
    console.made += check_folder(folder)
    from cvxnn.evaluation.study_sheet import make_study, write_study

    questions, left_out = _questions(options.replies)
    study = make_study(questions, title=options.title, seed=options.seed)
    console.kept = lambda: "nothing was written; the same command begins again"
    write_study(study, folder, key)
    console.show(
        f"{counted(len(questions), 'question')}, {left_out} left out: replies empty or equal"
    )
    console.show(f"wrote {folder} for participants, and {key} to keep from them")
    return {
        "status": "done",
        "output": str(folder),
        "key": str(key),
        "questions": len(questions),
        "left_out": left_out,
    }


def _questions(path: str) -> tuple[list[StudyQuestion], int]:
    """Return the prompts whose replies differ, and the number of the others."""
    from cvxnn.evaluation.study_sheet import StudyQuestion

    examples = read_examples(path)
    found = []
    for example in examples:
        replies = {
            # Not the bare name: words such as "plain" may well be in a text.
            f"cvxnn {name}": reply["text"] if isinstance(reply, dict) else reply
            for name, reply in example["replies"].items()
        }
        if len({text.strip() for text in replies.values()} - {""}) == len(replies) > 1:
            found.append(StudyQuestion(example["prompt"], replies))
    if not found:
        raise ValueError(
            f"{path}: no prompt has two replies that differ; expected those of cvxnn generate with "
            "--plain or --best-of"
        )
    return found, len(examples) - len(found)


def _count(files: list[str], key: Path, console: Console) -> dict[str, Any]:
    from cvxnn.evaluation.study_answers import read_answers
    from cvxnn.evaluation.study_key import read_key
    from cvxnn.evaluation.study_scores import score_study

    found = score_study(read_key(key), [read_answers(file) for file in files])
    console.show(str(found))
    shares = {name: asdict(share) for name, share in found.shares["study"].items()}
    return {"status": "done", "shares": shares, "participants": len(found.participants)}
