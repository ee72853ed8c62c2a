"""Grades of two turns by a server in this process, FastChat's grades, and their means."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cvxnn.evaluation import (
    EndpointGrader,
    MTBenchAnswer,
    MTBenchGrade,
    MTBenchQuestion,
    answer_mt_bench,
    grade_mt_bench,
    mt_bench_scores,
    read_mt_bench_grades,
    write_mt_bench_answers,
    write_mt_bench_questions,
)

from .chat_server import Server, completion

QUESTIONS = [
    MTBenchQuestion(1, "math", ("1 + 1?", "And 2 + 2?"), ("2", "4")),
    MTBenchQuestion(2, "writing", ("A poem.", "A shorter one.")),
]
TEMPLATE = "{reference}|{conversation}"


def test_answers_see_earlier_turns() -> None:
    seen: list[Any] = []

    def reply(messages: list[Any]) -> str:
        seen.append([(m["role"], m["content"]) for m in messages])
        return f"reply {len(seen)}"

    first, second = answer_mt_bench(QUESTIONS, reply, "m")
    assert first == MTBenchAnswer(1, "m", (("reply 1", "reply 2"),))
    assert seen[1] == [("user", "1 + 1?"), ("assistant", "reply 1"), ("user", "And 2 + 2?")]
    assert second.choices == (("reply 3", "reply 4"),)


def test_each_turn_is_graded_once(server: Server, tmp_path: Path) -> None:
    answers = [MTBenchAnswer(k, "m", (("a", "{reference}"),)) for k in (1, 2)]
    server.trouble = [(200, completion(text)) for text in ("[[7]]", "hm [[9.5]]", "none", "[[11]]")]
    grader = EndpointGrader(server.url, "judge", template=TEMPLATE, n_requests=1)
    log = tmp_path / "log.jsonl"
    grades = grade_mt_bench(grader, QUESTIONS, answers, log=log)
    assert [(g.question_id, g.turn) for g in grades] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert [g.grade for g in grades[:2]] == pytest.approx([7, 9.5])
    assert all(math.isnan(g.grade) for g in grades[2:])
    asked = [r["messages"][0]["content"] for r in server.requests]
    assert asked[1] == (
        "A correct answer to it is:\n4|[User]\n1 + 1?\n\n[Assistant]\na\n\n"
        "[User]\nAnd 2 + 2?\n\n[Assistant]\n{reference}"  # what stands in a reply is no placeholder
    )
    assert asked[2] == "|[User]\nA poem.\n\n[Assistant]\na"
    server.trouble = [(200, completion("[[1]]")), (200, completion("[[2]]"))]
    again = grade_mt_bench(grader, QUESTIONS, answers, log=log)
    assert [g.grade for g in again] == pytest.approx([7, 9.5, 1, 2])
    assert len(server.requests) == 6  # what has a grade is not asked again
    scores = mt_bench_scores(again, QUESTIONS)["m"]
    assert scores == pytest.approx(
        {"score": 4.875, "turn 1": 4, "turn 2": 5.75, "math": 8.25, "writing": 1.5, "ungraded": 0}
    )
    assert mt_bench_scores(grades)["m"]["ungraded"] == 2
    with pytest.raises(ValueError, match="is it the right file"):
        grade_mt_bench(grader, QUESTIONS[:1], answers)
    with pytest.raises(ValueError, match=r"lacks \{reference\}"):
        EndpointGrader(server.url, "judge", template="{conversation}")


def test_grades_of_fastchat(tmp_path: Path) -> None:
    row = {"question_id": 1, "model": "m", "judge": ["gpt-4", "single-v1"], "turn": 1, "score": 8}
    file = tmp_path / "gpt-4_single.jsonl"
    rows = [row, {**row, "turn": 2, "score": -1}]
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    first, second = read_mt_bench_grades(file)
    assert first == MTBenchGrade(1, "m", 1, 8.0)
    assert math.isnan(second.grade)
    file.write_text(json.dumps({**row, "score": 80}), encoding="utf-8")
    with pytest.raises(ValueError, match="'score' is 80"):
        read_mt_bench_grades(file)


def test_command(run: Any, server: Server, tmp_path: Path) -> None:
    questions, answers = tmp_path / "question.jsonl", tmp_path / "m.jsonl"
    write_mt_bench_questions(questions, QUESTIONS)
    write_mt_bench_answers(answers, [MTBenchAnswer(k, "m", (("a", "b"),)) for k in (1, 2)])
    ask = [answers, "--judge", server.url, "--judge-model", "j", "--protocol", "mt-bench"]
    ask += ["--output", tmp_path / "grades.json", "--n-requests", "1"]
    assert "needs --questions" in run(*ask, code=2)["error"]
    server.trouble = [(200, completion(f"[[{k}]]")) for k in (2, 4, 6, 8)]
    found = run(*ask, "--questions", questions)
    assert found["scores"]["m"]["score"] == pytest.approx(5)
    assert found["scores"]["m"]["turn 2"] == pytest.approx(6)
    assert run(*ask, "--questions", questions)["status"] == "nothing to do"
    assert len(server.requests) == 4
