"""Files of MT-Bench: round trips, the layout of FastChat, invalid rows."""

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from cvxnn.evaluation import (
    MTBenchAnswer,
    MTBenchQuestion,
    read_mt_bench_answers,
    read_mt_bench_questions,
    write_mt_bench_answers,
    write_mt_bench_questions,
)

replies = st.text(st.characters(codec="utf-8"), max_size=20)


QUESTION = MTBenchQuestion(81, "writing", ("Write a poem.", "Now shorter."))


ANSWER = MTBenchAnswer(81, "m-1", (("Roses.", ""),), tstamp=5.0)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_mt_bench_questions_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "question.jsonl"
    questions = [QUESTION, MTBenchQuestion(82, "math", ("1 + 1?",), ("2",))]
    write_mt_bench_questions(path, questions)
    assert read_mt_bench_questions(path) == questions
    assert rows_of(path)[0] == {
        "question_id": 81,
        "category": "writing",
        "turns": ["Write a poem.", "Now shorter."],
    }


def test_mt_bench_answers_as_fastchat_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "m-1.jsonl"
    other = MTBenchAnswer(80, "m-1", (("a", "b"), ("c", "d")))
    write_mt_bench_answers(path, [ANSWER, other])
    first, second = rows_of(path)
    assert (first["question_id"], second["question_id"]) == (80, 81)
    assert first["choices"] == [
        {"index": 0, "turns": ["a", "b"]},
        {"index": 1, "turns": ["c", "d"]},
    ]
    assert set(second) == {"question_id", "answer_id", "model_id", "choices", "tstamp"}
    assert first["tstamp"] > 1e9
    assert second["tstamp"] == 5.0
    back = read_mt_bench_answers(path)
    assert [answer.choices for answer in back] == [other.choices, ANSWER.choices]
    assert back[1].answer_id == second["answer_id"] != first["answer_id"]
    write_mt_bench_answers(path, back)  # what was read is written unchanged
    assert read_mt_bench_answers(path) == back


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "at least one of answers"),
        ([ANSWER, ANSWER], "question_id 81 is repeated"),
        ([MTBenchAnswer(1, "other", (("a",),))], "FastChat reads the name"),
        ([MTBenchAnswer(1, "m-1", ())], "'choices' is"),
        ([MTBenchAnswer(1, "m-1", (("a", "b"), ("c",)))], "1 reply and the first choice 2"),
        ([MTBenchAnswer("1", "m-1", (("a",),))], "'question_id' is '1'; expected an integer"),
        ([MTBenchAnswer(1, "m-1", ((3,),))], r"'choices\[0\].turns\[0\]' is a number"),
    ],
)
def test_mt_bench_answers_refuse(tmp_path: Path, answers: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_mt_bench_answers(tmp_path / "m-1.jsonl", answers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([], "nothing to write"),
        ([QUESTION, QUESTION], "question_id 81 is repeated"),
        ([MTBenchQuestion(1, "math", ())], "'turns' is empty"),
        ([MTBenchQuestion(1, "math", ("a", " "))], r"question 0: 'turns\[1\]' is empty"),
        ([MTBenchQuestion(1, "", ("a",))], "'category' is empty"),
    ],
)
def test_mt_bench_questions_refuse(tmp_path: Path, questions: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_mt_bench_questions(tmp_path / "question.jsonl", questions)


def test_damaged_files_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "m-1.jsonl"
    write_mt_bench_answers(path, [ANSWER])
    row = rows_of(path)[0]
    del row["model_id"]
    path.write_text(path.read_text() + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"m-1\.jsonl:2: missing field 'model_id'"):
        read_mt_bench_answers(path)
