"""Files of AlpacaEval: round trips, verdicts, invalid rows."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.evaluation import (
    AlpacaEvalOutput,
    read_alpaca_eval,
    read_alpaca_eval_annotations,
    win_rate,
    write_alpaca_eval,
)

replies = st.text(st.characters(codec="utf-8"), max_size=20)


texts = replies.filter(str.strip)


OUTPUTS = [
    AlpacaEvalOutput("Name a colour.", "Red.", "model", "koala"),
    AlpacaEvalOutput("Say nothing.", "", "model"),
]


def annotation(preference: float | None) -> dict:
    return {
        "instruction": "i",
        "output_1": "baseline's",
        "output_2": "model's",
        "generator_1": "base",
        "generator_2": "mine",
        "preference": preference,
    }


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
