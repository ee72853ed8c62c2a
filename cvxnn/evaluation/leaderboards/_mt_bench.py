"""MT-Bench, in the files of FastChat: questions and answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cvxnn.evaluation.leaderboards._checks import PathLike, distinct, one, texts, whole
from cvxnn.preference.data import digest
from cvxnn.preference.rows import (
    Row,
    check_text,
    optional_number,
    read_rows,
    required,
    write_rows,
)


@dataclass(frozen=True)
class MTBenchQuestion:
    """A question of MT-Bench, as FastChat's ``question.jsonl`` has it.

    Parameters
    ----------
    question_id : int
    category : str
        FastChat looks for reference answers in "math", "reasoning" and "coding".
    turns : tuple of str
        What the user says, turn by turn; two in MT-Bench.
    reference : tuple of str, default=()
        Reference answers, if there are any.
    """

    question_id: int
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()


@dataclass(frozen=True)
class MTBenchAnswer:
    """A model's answer to a question of MT-Bench.

    Parameters
    ----------
    question_id : int
    model_id : str
    choices : tuple of tuple of str
        One entry a sample, each with one reply a turn; FastChat judges the first.
    answer_id : str, default=""
        By default a hash of the rest.
    tstamp : float, default=0.0
        Seconds since 1970; 0 stands for the time of writing.
    """

    question_id: int
    model_id: str
    choices: tuple[tuple[str, ...], ...]
    answer_id: str = ""
    tstamp: float = 0.0


def write_mt_bench_questions(path: PathLike, questions: Iterable[MTBenchQuestion]) -> None:
    """Write ``question.jsonl``.

    Raises
    ------
    ValueError
        If there are none, an id comes twice, or a turn is empty.
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
        _question(row, f"question {number}")
        rows.append(row)
    distinct([row["question_id"] for row in rows], "question_id")
    write_rows(path, rows)


def read_mt_bench_questions(path: PathLike) -> list[MTBenchQuestion]:
    """Read ``question.jsonl``."""
    return [_question(row, where) for where, row in read_rows(path)]


def write_mt_bench_answers(path: PathLike, answers: Iterable[MTBenchAnswer]) -> None:
    """Write one model's answers, sorted by question.

    Parameters
    ----------
    path : path-like
        ``.../model_answer/<model_id>.jsonl``: FastChat takes the model's name from the file's.
    answers : iterable of MTBenchAnswer

    Raises
    ------
    ValueError
        If there are none, a question comes twice, there are several models, or the file's name is
        another than the model's.
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
        _answer(row, f"answer {number}")
        rows.append(row)
    model = one([row["model_id"] for row in rows], "answers", "model_id")
    if Path(path).name != f"{model}.jsonl":
        raise ValueError(
            f"the file is named {Path(path).name!r}, the model {model!r}; FastChat reads the name "
            f"from the file, so write to '{model}.jsonl' (and use no '/' in a model_id)"
        )
    distinct([row["question_id"] for row in rows], "question_id")
    write_rows(path, sorted(rows, key=lambda row: int(row["question_id"])))


def read_mt_bench_answers(path: PathLike) -> list[MTBenchAnswer]:
    """Read one model's answers."""
    return [_answer(row, where) for where, row in read_rows(path)]


def _question(row: Row, where: str) -> MTBenchQuestion:
    number, category, turns = required(row, ("question_id", "category", "turns"), where)
    check_text(category, where, "category")
    reference = texts(row.get("reference") or [], where, "reference", blank=True)
    turns = texts(turns, where, "turns")
    if not turns:
        raise ValueError(f"{where}: 'turns' is empty; expected at least one turn")
    return MTBenchQuestion(whole(number, where, "question_id"), category, turns, reference)


def _answer(row: Row, where: str) -> MTBenchAnswer:
    fields = ("question_id", "answer_id", "model_id", "choices", "tstamp")
    number, name, model, choices, stamp = required(row, fields, where)
    check_text(name, where, "answer_id")
    check_text(model, where, "model_id")
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"{where}: 'choices' is {choices!r:.40}; expected a list of samples")
    samples = []
    for i, choice in enumerate(choices):
        field = f"choices[{i}]"
        if not isinstance(choice, dict) or "turns" not in choice:
            raise ValueError(f"{where}: {field!r} is {choice!r:.40}; expected 'index' and 'turns'")
        samples.append(texts(choice["turns"], where, f"{field}.turns", blank=True))
        if not samples[-1] or len(samples[-1]) != len(samples[0]):
            raise ValueError(
                f"{where}: '{field}.turns' has {len(samples[-1])} replies and the first choice "
                f"{len(samples[0])}; expected as many in each, and at least one"
            )
    time_stamp = optional_number(stamp, where, "tstamp") or 0.0
    return MTBenchAnswer(
        whole(number, where, "question_id"), model, tuple(samples), name, time_stamp
    )
