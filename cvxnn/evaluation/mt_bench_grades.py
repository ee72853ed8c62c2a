"""Grades of MT-Bench: a judge behind an endpoint, FastChat's files of grades, and their means."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from cvxnn.evaluation.chat_client import ChatClient
from cvxnn.evaluation.judge_log import JudgeLog
from cvxnn.evaluation.mt_bench import MTBenchAnswer, MTBenchQuestion
from cvxnn.evaluation.protocols import MT_BENCH
from cvxnn.files.digests import digest
from cvxnn.preference.row_checks import check_integer, check_text, optional_number, required_fields
from cvxnn.preference.row_files import read_rows
from cvxnn.preference.triplets import Message

_GRADE = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")


@dataclass(frozen=True)
class MTBenchGrade:
    """Grade of the answer to one turn.

    Parameters
    ----------
    question_id : int
        Number of the question.
    model_id : str
        Name of the model that answered.
    turn : int
        1 for the first message of the user, 2 for the second.
    grade : float
        From 1 to 10; NaN if the judge gave none.
    """

    question_id: int
    model_id: str
    turn: int
    grade: float


class EndpointGrader(ChatClient):
    """Language model behind the interface of OpenAI that grades single answers from 1 to 10.

    Parameters
    ----------
    url : str
        Address of the interface, such as ``"http://localhost:8000/v1"``.
    model : str
        Name of the model, as the server knows it.
    template : str, optional
        Text of a question, with ``{conversation}`` and ``{reference}``; by default ``MT_BENCH`` of
        `cvxnn.evaluation.protocols`. The answer has to hold ``[[grade]]``; the last one counts.
    max_tokens : int, default=1024
        Largest number of tokens of an answer.
    token_budget : int, optional
        Number of tokens after which no further question is asked.
    n_requests : int, default=4
        Number of questions that are asked at a time.
    n_tries : int, default=8
        How often a request is sent before the work is given up.
    timeout : float, default=120.0
        Seconds to wait for an answer.
    """

    _task = "grade answers"
    places = ("{conversation}", "{reference}")
    default_template = MT_BENCH

    def grade(self, turns: Sequence[str], replies: Sequence[str], reference: str = "") -> float:
        """Return the grade of the last reply.

        Parameters
        ----------
        turns, replies : sequence of str, length n
            Messages of the user, and the replies to them.
        reference : str, default=""
            Correct answer to the last message, if one is known.

        Returns
        -------
        float
            From 1 to 10; NaN if the answer has no grade in this range.
        """
        talk = [
            f"[User]\n{asked}\n\n[Assistant]\n{said}"
            for asked, said in zip(turns, replies, strict=True)
        ]
        known = f"A correct answer to it is:\n{reference}" if reference else ""
        said = self.ask({"{conversation}": "\n\n".join(talk), "{reference}": known})
        found = _GRADE.findall(said)
        grade = float(found[-1]) if found else math.nan
        return grade if 1 <= grade <= 10 else math.nan


def answer_mt_bench(
    questions: Iterable[MTBenchQuestion],
    reply: Callable[[list[Message]], str],
    model_id: str,
) -> list[MTBenchAnswer]:
    """Answer all turns of each question; later ones follow the replies to earlier ones.

    Parameters
    ----------
    questions : iterable of MTBenchQuestion
        Questions with their turns.
    reply : callable
        ``reply(messages)`` returns the reply to the last message of the user: a language model,
        guided or not.
    model_id : str
        Name of the model.

    Returns
    -------
    list of MTBenchAnswer
        Answers with one sample each; `write_mt_bench_answers` writes them.
    """
    answers = []
    for question in questions:
        messages: list[Message] = []
        replies: list[str] = []
        for turn in question.turns:
            messages.append({"role": "user", "content": turn})
            replies.append(reply([*messages]))
            messages.append({"role": "assistant", "content": replies[-1]})
        answers.append(MTBenchAnswer(question.question_id, model_id, (tuple(replies),)))
    return answers


def grade_mt_bench(
    grader: EndpointGrader,
    questions: Iterable[MTBenchQuestion],
    answers: Iterable[MTBenchAnswer],
    *,
    log: str | os.PathLike[str] | None = None,
) -> list[MTBenchGrade]:
    """Grade each turn of the first sample of each answer.

    Parameters
    ----------
    grader : EndpointGrader
        The judge.
    questions : iterable of MTBenchQuestion
        Questions, among them those that are answered.
    answers : iterable of MTBenchAnswer
        Answers, of one model or of several.
    log : path-like, optional
        File to which each grade is appended; a later call asks for what is missing only. An answer
        of the judge without a grade is not kept.

    Returns
    -------
    list of MTBenchGrade
        Grades by answer and turn.

    Raises
    ------
    ValueError
        If an answer belongs to no question or has another number of turns, or as `ChatClient.ask`.
    OSError
        If the server does not answer.
    """
    known = {question.question_id: question for question in questions}
    tasks = []
    for answer in answers:
        question, replies = known.get(answer.question_id), answer.choices[0]
        if question is None or len(question.turns) != len(replies):
            raise ValueError(
                f"the answer of {answer.model_id} to question {answer.question_id} has "
                f"{len(replies)} turns; expected a question with as many: is it the right file?"
            )
        for turn in range(1, len(replies) + 1):
            tasks.append((answer, question, turn))

    def keyed(answer: MTBenchAnswer, question: MTBenchQuestion, turn: int) -> str:
        judge = [grader.url, grader.model, grader.template]
        return digest([judge, question.turns[:turn], answer.choices[0][:turn], question.reference])

    with JudgeLog(None if log is None else Path(log)) as kept:

        def grade(task: tuple[MTBenchAnswer, MTBenchQuestion, int]) -> MTBenchGrade:
            answer, question, turn = task
            key = keyed(*task)
            tenth = kept.known.get((key, "ab"))
            if tenth is None:
                reference = question.reference[turn - 1] if question.reference[turn - 1 :] else ""
                replies = answer.choices[0][:turn]
                tenth = grader.grade(question.turns[:turn], replies, reference) / 10
                if not math.isnan(tenth):
                    with grader.counting:
                        kept.add([(key, "ab", tenth)])
            return MTBenchGrade(answer.question_id, answer.model_id, turn, 10 * tenth)

        grader.resume()
        with ThreadPoolExecutor(grader.n_requests) as pool:
            try:
                return list(pool.map(grade, tasks))
            except BaseException:
                grader.stop()
                raise


def read_mt_bench_grades(path: str | os.PathLike[str]) -> list[MTBenchGrade]:
    """Read grades that FastChat's judge gave, ``model_judgment/<judge>_single.jsonl``.

    Parameters
    ----------
    path : path-like
        The file. Its score -1, for an answer of the judge without a grade, becomes NaN.

    Returns
    -------
    list of MTBenchGrade
        Grades in the order of the file.

    Raises
    ------
    FileNotFoundError, ValueError
        As for `read_preferences`.
    """
    grades = []
    for where, row in read_rows(path):
        number, model, turn, score = required_fields(
            row, ("question_id", "model", "turn", "score"), where
        )
        check_text(model, where, "model")
        value = optional_number(score, where, "score")
        if value is None or value == -1:
            value = math.nan
        elif not 0 <= value <= 10:
            raise ValueError(f"{where}: 'score' is {score!r}; expected 1 to 10, or -1 for none")
        number = check_integer(number, where, "question_id")
        grades.append(MTBenchGrade(number, model, check_integer(turn, where, "turn"), value))
    return grades


def mt_bench_scores(
    grades: Iterable[MTBenchGrade], questions: Iterable[MTBenchQuestion] = ()
) -> dict[str, dict[str, float]]:
    """Return the MT-Bench scores of each model: means over all graded turns, and by turn.

    Parameters
    ----------
    grades : iterable of MTBenchGrade
        Grades; those that are NaN are left out.
    questions : iterable of MTBenchQuestion, default=()
        Questions, for means by category.

    Returns
    -------
    dict of str to dict
        By model: ``score``, ``turn 1``, ``turn 2``, the categories by name, and ``ungraded``, the
        number of turns without a grade.
    """
    category = {question.question_id: question.category for question in questions}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    missing: dict[str, int] = defaultdict(int)
    for each in grades:
        if math.isnan(each.grade):
            missing[each.model_id] += 1
            continue
        names = ["score", f"turn {each.turn}"]
        names += [category[each.question_id]] if each.question_id in category else []
        for name in names:
            found[each.model_id][name].append(each.grade)
    models = dict.fromkeys([*found, *missing])
    return {
        model: {
            **{name: fmean(values) for name, values in found[model].items()},
            "ungraded": float(missing[model]),
        }
        for model in models
    }
