"""Files of MT-Bench as FastChat reads them: questions and answers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cvxnn._messages import counted
from cvxnn.files.digests import digest
from cvxnn.preference.row_checks import (
    Row,
    check_distinct,
    check_integer,
    check_one_name,
    check_text,
    check_texts,
    optional_number,
    required_fields,
)
from cvxnn.preference.row_files import read_rows, write_rows


@dataclass(frozen=True)
class MTBenchQuestion:
    """Question of MT-Bench, a row of FastChat's ``question.jsonl``.

    Parameters
    ----------
    question_id : int
        Number of the question.
    category : str
        Category of the question. FastChat uses reference answers for "math", "reasoning" and
        "coding".
    turns : tuple of str
        Messages of the user in order, at least one; two in MT-Bench.
    reference : tuple of str, default=()
        Reference answers, one for each turn; empty if there are none.
    """

    question_id: int
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()


@dataclass(frozen=True)
class MTBenchAnswer:
    """Answer of a model to a question of MT-Bench.

    Parameters
    ----------
    question_id : int
        Number of the question.
    model_id : str
        Name of the model.
    choices : tuple of tuple of str
        Samples, each with one reply for each turn; FastChat judges the first sample. A reply may be
        empty.
    answer_id : str, default=""
        Name of the answer; by default a hash of question, model and choices.
    tstamp : float, default=0.0
        Time of the answer in seconds since 1970; 0 stands for the time of writing.
    """

    question_id: int
    model_id: str
    choices: tuple[tuple[str, ...], ...]
    answer_id: str = ""
    tstamp: float = 0.0


def write_mt_bench_questions(
    path: str | os.PathLike[str], questions: Iterable[MTBenchQuestion]
) -> None:
    """Write the questions to ``question.jsonl``.

    All questions are checked before the file is written.

    Parameters
    ----------
    path : path-like
        File to create or to replace; it appears under its name only when it is complete.
    questions : iterable of MTBenchQuestion
        Questions with different numbers, at least one.

    Raises
    ------
    ValueError
        If there are no questions, a number is repeated, or a turn is empty.
    """
    rows = []
    for number, question in enumerate(questions):
        row: Row = {
            "question_id": question.question_id,
            "category": question.category,
            "turns": list(question.turns),
        }
        if question.reference:
            row["reference"] = list(question.reference)
        _checked_question(row, f"question {number}")
        rows.append(row)
    check_distinct([row["question_id"] for row in rows], "question_id")
    write_rows(path, rows)


def read_mt_bench_questions(path: str | os.PathLike[str]) -> list[MTBenchQuestion]:
    """Read the questions of ``question.jsonl``.

    Parameters
    ----------
    path : path-like
        File that `write_mt_bench_questions` or FastChat wrote.

    Returns
    -------
    list of MTBenchQuestion
        Questions in the order of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_preferences`.
    """
    return [_checked_question(row, where) for where, row in read_rows(path)]


def write_mt_bench_answers(path: str | os.PathLike[str], answers: Iterable[MTBenchAnswer]) -> None:
    """Write the answers of one model, sorted by question.

    All answers are checked before the file is written.

    Parameters
    ----------
    path : path-like
        ``.../model_answer/<model_id>.jsonl``; FastChat takes the name of the model from the name of
        the file.
    answers : iterable of MTBenchAnswer
        Answers of one model to different questions, at least one.

    Raises
    ------
    ValueError
        If there are no answers, a question is repeated, there are answers of several models, or the
        file is not named after the model.
    """
    rows = []
    for number, answer in enumerate(answers):
        choices = [{"index": i, "turns": list(turns)} for i, turns in enumerate(answer.choices)]
        row: Row = {
            "question_id": answer.question_id,
            "answer_id": answer.answer_id
            or digest([answer.question_id, answer.model_id, answer.choices]),
            "model_id": answer.model_id,
            "choices": choices,
            "tstamp": answer.tstamp or time.time(),
        }
        _checked_answer(row, f"answer {number}")
        rows.append(row)
    model = check_one_name([row["model_id"] for row in rows], "answers", "model_id")
    if Path(path).name != f"{model}.jsonl":
        raise ValueError(
            f"the file is named {Path(path).name!r}, the model {model!r}; FastChat reads the name "
            f"from the file, so write to '{model}.jsonl' (a model_id must not contain '/')"
        )
    check_distinct([row["question_id"] for row in rows], "question_id")
    write_rows(path, sorted(rows, key=lambda row: int(row["question_id"])))


def read_mt_bench_answers(path: str | os.PathLike[str]) -> list[MTBenchAnswer]:
    """Read the answers of one model.

    Parameters
    ----------
    path : path-like
        File that `write_mt_bench_answers` or FastChat wrote.

    Returns
    -------
    list of MTBenchAnswer
        Answers in the order of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_preferences`.
    """
    return [_checked_answer(row, where) for where, row in read_rows(path)]


def _checked_question(row: Row, where: str) -> MTBenchQuestion:
    number, category, turns = required_fields(row, ("question_id", "category", "turns"), where)
    check_text(category, where, "category")
    reference = check_texts(row.get("reference") or [], where, "reference", blank=True)
    turns = check_texts(turns, where, "turns")
    if not turns:
        raise ValueError(f"{where}: 'turns' is empty; expected at least one turn")
    return MTBenchQuestion(check_integer(number, where, "question_id"), category, turns, reference)


def _checked_answer(row: Row, where: str) -> MTBenchAnswer:
    fields = ("question_id", "answer_id", "model_id", "choices", "tstamp")
    number, name, model, choices, stamp = required_fields(row, fields, where)
    check_text(name, where, "answer_id")
    check_text(model, where, "model_id")
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"{where}: 'choices' is {choices!r:.40}; expected a list of samples")
    samples = []
    for i, choice in enumerate(choices):
        field = f"choices[{i}]"
        if not isinstance(choice, dict) or "turns" not in choice:
            raise ValueError(f"{where}: {field!r} is {choice!r:.40}; expected 'index' and 'turns'")
        samples.append(check_texts(choice["turns"], where, f"{field}.turns", blank=True))
        if not samples[-1] or len(samples[-1]) != len(samples[0]):
            raise ValueError(
                f"{where}: '{field}.turns' has {counted(len(samples[-1]), 'reply')} and the first "
                f"choice {len(samples[0])}; expected equal numbers, of at least one"
            )
    time_stamp = optional_number(stamp, where, "tstamp") or 0.0
    return MTBenchAnswer(
        check_integer(number, where, "question_id"), model, tuple(samples), name, time_stamp
    )
