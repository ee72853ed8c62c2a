"""Answers of the methods of a comparison, for ``cvxnn evaluate --comparison``."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import model_of
from cvxnn.cli.option_building import UsageError, option_from
from cvxnn.cli.option_groups import GUIDANCE
from cvxnn.cli.option_types import positive
from cvxnn.cli.prompts import read_prompts
from cvxnn.cli.reply_file import grow_replies, show_replies
from cvxnn.files.digests import digest_of_file
from cvxnn.files.json_files import as_json

if TYPE_CHECKING:
    from cvxnn.comparison.writers import Writers
    from cvxnn.evaluation.mt_bench import MTBenchAnswer
    from cvxnn.preference.triplets import Prompt

ANSWERS_FILE = "answers.jsonl"
_MT_BENCH_FILE = "mt_bench_answers.jsonl"


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which models answer what.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of a command.
    """
    group = parser.add_argument_group("the models of a comparison")
    group.add_argument(
        "--comparison",
        metavar="FOLDER",
        help="Folder of cvxnn compare: its base model, each fine-tuned model, and guided decoding "
        f"by each head answer first; REPLIES is then the file to write (FOLDER/{ANSWERS_FILE})",
    )
    group.add_argument("--prompts", metavar="FILE", help="File of prompts to answer")
    group.add_argument(
        "--limit", type=positive, metavar="N", help="Use the first N prompts and questions only"
    )
    text = "Methods that answer; by default all of the comparison"
    methods = option_from("cvxnn.comparison.compare", "methods")
    group.add_argument("--methods", **{**methods, "default": None, "help": text})
    GUIDANCE.add_to(parser)


class ComparisonAnswers:
    """Answers of the methods of a comparison, which are written once.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments of ``cvxnn evaluate``.
    console : Console
        Where to write.
    """

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options, self.console = options, console
        self.folder = Path(options.comparison)

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        """Everything that answers depend on, but for what is asked."""
        from cvxnn.comparison.writers import files_of_methods

        options = self.options
        files = files_of_methods(self.folder, options.methods)
        weights = {
            name: digest_of_file(file / "adapter_model.safetensors" if file.is_dir() else file)
            for name, file in files.items()
        }
        return {
            "methods": list(files),
            "weights": weights,
            "guidance": GUIDANCE.values(options),
            "seed": options.seed,
        }

    @property
    def names(self) -> list[str]:
        """Names of the base model and of the methods."""
        return ["plain", *self._settings["methods"]]

    @functools.cached_property
    def _writers(self) -> Writers:
        from cvxnn.comparison.results import RESULT_FILE, Comparison
        from cvxnn.comparison.writers import load_writers
        from cvxnn.llm.decoding.guidance import Guidance

        options = self.options
        base = Comparison.read(self.folder / RESULT_FILE).model
        if options.dtype == "auto":
            options.dtype = base["dtype"]
        lm = model_of(options, self.console, base["name"] if "/" in base["name"] else None)
        return load_writers(
            self.folder,
            lm,
            Guidance(**GUIDANCE.values(options), seed=options.seed),
            options.methods,
            batch_tokens=options.batch_tokens,
        )

    def to_prompts(self, output: Path) -> None:
        """Let all methods answer the prompts, each of which is a row of the file.

        Parameters
        ----------
        output : Path
            File of JSON lines.

        Raises
        ------
        UsageError
            If there are no prompts.
        OtherSettingsError
            If the file holds replies of other settings.
        """
        options, console = self.options, self.console
        if options.prompts is None:
            raise UsageError("--comparison needs --prompts, the file of prompts to answer")
        prompts = read_prompts(options.prompts, options.limit)
        settings = {**self._settings, "prompts": json.loads(as_json(prompts))}

        def begin() -> Callable[[Prompt], dict[str, Any]]:
            writers = self._writers

            def answer(prompt: Prompt) -> dict[str, Any]:
                replies = {reply.name: reply._asdict() for reply in writers.answer(prompt)}
                for fields in replies.values():
                    del fields["name"]
                return {"prompt": prompt, "replies": replies}

            return answer

        _, rows = grow_replies(
            output, settings, prompts, begin, console, overwrite=options.overwrite
        )
        show_replies(rows, console)

    def to_mt_bench(self) -> list[MTBenchAnswer]:
        """Let all methods answer both turns of the questions of MT-Bench.

        Returns
        -------
        list of MTBenchAnswer
            One for each method and question.

        Raises
        ------
        OtherSettingsError
            If the folder holds answers of other settings.
        """
        from cvxnn.evaluation.mt_bench import (
            MTBenchAnswer,
            MTBenchQuestion,
            read_mt_bench_questions,
        )
        from cvxnn.evaluation.mt_bench_grades import answer_mt_bench
        from cvxnn.preference.triplets import as_messages

        options = self.options
        questions = read_mt_bench_questions(options.questions)[: options.limit]
        asked: list[Prompt] = [
            [{"role": "user", "content": turn} for turn in question.turns] for question in questions
        ]
        settings = {**self._settings, "prompts": json.loads(as_json(asked))}

        def begin() -> Callable[[Prompt], dict[str, Any]]:
            write = self._writers.write

            def answer(prompt: Prompt) -> dict[str, Any]:
                question = MTBenchQuestion(0, "", tuple(m["content"] for m in as_messages(prompt)))
                replies = {}
                for name in write:

                    def reply(messages: Any, name: str = name) -> str:
                        return write[name](messages)[0]

                    [found] = answer_mt_bench([question], reply, name)
                    replies[name] = list(found.choices[0])
                return {"prompt": prompt, "replies": replies}

            return answer

        _, rows = grow_replies(
            self.folder / _MT_BENCH_FILE,
            settings,
            asked,
            begin,
            self.console,
            overwrite=options.overwrite,
        )
        return [
            MTBenchAnswer(question.question_id, name, (tuple(turns),))
            for question, row in zip(questions, rows, strict=True)
            for name, turns in row["replies"].items()
        ]
