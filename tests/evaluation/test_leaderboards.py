"""Files of leaderboards: what goes in comes out, and what is wrong is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.evaluation import (
    AlpacaEvalOutput,
    MTBenchAnswer,
    MTBenchQuestion,
    RewardBenchRow,
    read_alpaca_eval,
    read_alpaca_eval_annotations,
    read_mt_bench_answers,
    read_mt_bench_questions,
    read_reward_bench,
    reward_bench_accuracies,
    win_rate,
    write_alpaca_eval,
    write_mt_bench_answers,
    write_mt_bench_questions,
    write_reward_bench,
    write_reward_bench_scores,
)
from cvxnn.preference import read_preferences

replies = st.text(st.characters(codec="utf-8"), max_size=20)
texts = replies.filter(str.strip)

OUTPUTS = [
    AlpacaEvalOutput("Name a colour.", "Red.", "model", "koala"),
    AlpacaEvalOutput("Say nothing.", "", "model"),
]
QUESTION = MTBenchQuestion(81, "writing", ("Write a poem.", "Now shorter."))
ANSWER = MTBenchAnswer(81, "m-1", (("Roses.", ""),), tstamp=5.0)
PAIRS = [
    RewardBenchRow("p", "yes", "no", "easy", 7, "m1", "m2"),
    RewardBenchRow("q", "right", "wrong", "hard", 8),
    RewardBenchRow("r", "true", "false", "easy", 9),
]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_alpaca_eval_is_one_array_with_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "model_outputs.json"
    write_alpaca_eval(path, OUTPUTS)
    assert json.loads(path.read_text()) == [
        {
            "instruction": "Name a colour.",
            "output": "Red.",
            "generator": "model",
            "dataset": "koala",
        },
        {"instruction": "Say nothing.", "output": "", "generator": "model"},
    ]


@settings(max_examples=30)
@given(st.dictionaries(texts, st.tuples(replies, st.sampled_from(["", "koala"])), min_size=1))
def test_alpaca_eval_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: dict) -> None:
    path = tmp_path_factory.mktemp("alpaca") / "outputs.json"
    outputs = [AlpacaEvalOutput(i, output, "m", data) for i, (output, data) in rows.items()]
    write_alpaca_eval(path, outputs)
    assert read_alpaca_eval(path) == outputs


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([], "at least one of outputs"),
        ([OUTPUTS[0], AlpacaEvalOutput("Other", "x", "other")], r"\['model', 'other'\]"),
        ([OUTPUTS[0], OUTPUTS[0]], "'Name a colour.' is repeated"),
        ([OUTPUTS[0], AlpacaEvalOutput(" ", "x", "model")], "output 1: 'instruction' is empty"),
        ([AlpacaEvalOutput("a", None, "model")], "output 0: 'output' is null"),
    ],
)
def test_alpaca_eval_refuses(tmp_path: Path, outputs: list, message: str) -> None:
    path = tmp_path / "outputs.json"
    path.write_text("kept")
    with pytest.raises(ValueError, match=message):
        write_alpaca_eval(path, outputs)
    assert path.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [path]


def annotation(preference: float | None) -> dict:
    return {
        "instruction": "i",
        "output_1": "baseline's",
        "output_2": "model's",
        "generator_1": "base",
        "generator_2": "mine",
        "preference": preference,
    }


def test_annotations_count_for_the_second_output(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([annotation(p) for p in (2, 1.0, 1.75, 1.5, 0, None)]))
    judgements = read_alpaca_eval_annotations(path)
    assert [judgement.preference for judgement in judgements] == [1, 0, 0.75, 0.5, 0.5]
    first = judgements[0]
    assert (first.output_a, first.system_a, first.system_b) == ("model's", "mine", "base")
    assert win_rate([judgement.preference for judgement in judgements]).rate == 0.55


def test_annotations_refuse_other_scales(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([annotation(3)]))
    with pytest.raises(ValueError, match="'preference' is 3; expected 1"):
        read_alpaca_eval_annotations(path)
    path.write_text(json.dumps([annotation(None)]))
    with pytest.raises(ValueError, match="run the judge first"):
        read_alpaca_eval_annotations(path)


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
        ([MTBenchAnswer(1, "m-1", (("a", "b"), ("c",)))], "1 replies and the first choice 2"),
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


@settings(max_examples=30)
@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5))
def test_reward_bench_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("bench") / "rows.jsonl"
    pairs = [RewardBenchRow(*row, "subset", number) for number, row in enumerate(rows)]
    write_reward_bench(path, pairs)
    assert read_reward_bench(path) == pairs


def test_reward_bench_is_read_as_preferences_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_reward_bench(path, PAIRS)
    triplets = read_preferences(path)
    assert [(t.prompt, t.chosen, t.rejected) for t in triplets] == [
        (row.prompt, row.chosen, row.rejected) for row in PAIRS
    ]


def test_reward_bench_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id 7 is repeated"):
        write_reward_bench(tmp_path / "rows.jsonl", [PAIRS[0], PAIRS[0]])
    with pytest.raises(ValueError, match="row 0: 'rejected' is empty"):
        write_reward_bench(tmp_path / "rows.jsonl", [RewardBenchRow("p", "c", "", "s", 1)])
    assert list(tmp_path.iterdir()) == []


def test_reward_bench_accuracy_takes_a_tie_for_an_error() -> None:
    found = reward_bench_accuracies(PAIRS, [1.0, 2.0, 3.0], [0.0, 2.0, 4.0])
    assert found == {"easy": 0.5, "hard": 0.0}
    for wrong in ([1.0], [1.0, 2.0, np.nan]):
        with pytest.raises(ValueError, match="one finite number for each row"):
            reward_bench_accuracies(PAIRS, wrong, [0.0, 0.0, 0.0])


def test_reward_bench_scores_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_reward_bench_scores(path, PAIRS, [1, 2, 3], [0, 2, 4], model="head")
    columns = json.loads(path.read_text())
    assert columns["results"] == [1, 0, 0]
    assert columns["scores_rejected"] == [0, 2, 4]
    assert columns["subset"] == ["easy", "hard", "easy"]
    assert columns["text_chosen"][0] == "p\n\nyes"
    assert (columns["model"], columns["id"]) == ("head", [7, 8, 9])
