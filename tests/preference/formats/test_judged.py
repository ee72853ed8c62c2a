"""UltraFeedback and AlpacaEval: pairs from scores and from annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cvxnn.preference import PreferenceTriplet, read_preferences


def write(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def completion(response: Any, overall: Any = None, fine: Any = None, **more: Any) -> dict[str, Any]:
    return {"response": response, "overall_score": overall, "fine-grained_score": fine, **more}


def ultrafeedback(*completions: Any) -> dict[str, Any]:
    return {
        "source": "evol_instruct",
        "instruction": "Name a prime.",
        "models": ["a", "b"],
        "completions": list(completions),
        "correct_answers": ["None"],
    }


def annotation(preference: Any, **fields: Any) -> dict[str, Any]:
    return {
        "instruction": "Name a prime.",
        "output_1": "Four.",
        "generator_1": "text_davinci_003",
        "dataset": "koala",
        "output_2": "Seven.",
        "generator_2": "gpt4",
        "annotator": "alpaca_eval_gpt4",
        "preference": preference,
        **fields,
    }


@pytest.mark.parametrize(
    ("completions", "chosen", "rejected"),
    [
        (
            [completion("Four.", 1), completion("Seven.", 9.5), completion("Hm.", 3)],
            "Seven.",
            "Four.",
        ),
        ([completion("Four.", 9, 1), completion("Seven.", 8, 5)], "Four.", "Seven."),
        ([completion("Four.", None, 1), completion("Seven.", None, 5)], "Seven.", "Four."),
        # One scale for all: where an overall score is missing, the other one has more.
        ([completion("Four.", 9, 1), completion("Seven.", None, 5)], "Seven.", "Four."),
        # The first of equals, and no empty reply.
        (
            [completion(" ", 9), completion("a", 5), completion("b", 5), completion("c", 2)],
            "a",
            "c",
        ),
    ],
)
def test_best_against_worst(tmp_path: Path, completions: Any, chosen: str, rejected: str) -> None:
    path = write(tmp_path / "a.json", ultrafeedback(*completions))
    for format in ("auto", "ultrafeedback"):
        [triplet] = read_preferences(path, format)  # type: ignore[arg-type]
        assert triplet == PreferenceTriplet("Name a prime.", chosen, rejected)


def test_a_score_may_be_absent(tmp_path: Path) -> None:
    fine = [{"response": text, "fine-grained_score": s} for text, s in (("a", 2.25), ("b", 4.0))]
    [triplet] = read_preferences(write(tmp_path / "a.json", ultrafeedback(*fine)))
    assert triplet.chosen == "b"


@pytest.mark.parametrize(
    ("completions", "reason"),
    [
        ([completion("a", 3), completion("b", 3)], "a tie"),
        ([completion("a", 3)], "fewer than two scored replies"),
        ([completion("a", 3), completion("", 5)], "fewer than two scored replies"),
        ([completion("a", 3), completion("b")], "fewer than two scored replies"),
        ([], "fewer than two scored replies"),
        ([completion("a", 3), completion("a", 4)], "equal replies"),
    ],
)
def test_completions_without_a_preference(tmp_path: Path, completions: Any, reason: str) -> None:
    good = ultrafeedback(completion("a", 3), completion("b", 4))
    path = write(tmp_path / "a.json", good, ultrafeedback(*completions))
    with pytest.warns(UserWarning, match=f"left out 1 of 2 rows .*: 1 with {reason}"):
        assert len(read_preferences(path)) == 1


@pytest.mark.parametrize(
    ("preference", "chosen"),
    [(1, "Four."), (2, "Seven."), (1.0, "Four."), (1.4999, "Four."), (1.98, "Seven.")],
)
def test_annotations(tmp_path: Path, preference: float, chosen: str) -> None:
    path = write(tmp_path / "annotations.json", annotation(preference))
    for format in ("auto", "alpaca-eval"):
        [triplet] = read_preferences(path, format)  # type: ignore[arg-type]
        assert triplet.prompt == "Name a prime."
        assert triplet.chosen == chosen
        assert {triplet.chosen, triplet.rejected} == {"Four.", "Seven."}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (annotation(1.5), "a tie"),
        (annotation(0), "a tie"),
        (annotation(None), "a tie"),
        (annotation(float("nan")), "a tie"),
        (annotation(2, output_1=""), "an empty reply"),
        (annotation(2, output_1="Seven."), "equal replies"),
        (annotation(1, output_2=None), "an empty text"),
        (annotation(1, instruction=""), "an empty text"),
    ],
)
def test_annotations_without_a_preference(tmp_path: Path, row: Any, reason: str) -> None:
    path = write(tmp_path / "a.json", annotation(1), row)
    with pytest.warns(UserWarning, match=f"left out 1 of 2 rows .*: 1 with {reason}"):
        assert len(read_preferences(path)) == 1


@pytest.mark.parametrize(
    ("good", "row", "message"),
    [
        (annotation(1), annotation(2.5), "'preference' is 2.5; expected 1"),
        (annotation(1), annotation("2"), "'preference' is a string; expected a finite number"),
        (annotation(1), annotation(True), "'preference' is a boolean"),
        (annotation(1), annotation(float("inf")), "expected a finite number"),
        (annotation(1), annotation(10**400), "expected a finite number"),
        (annotation(1), {"output_1": "a"}, "missing field 'instruction'"),
        (None, {"instruction": "a", "completions": 3}, "'completions' is a number"),
        (None, ultrafeedback("text"), r"'completions\[0\]' is a string; expected an object"),
        (
            None,
            ultrafeedback({"overall_score": 3}),
            r"'completions\[0\]': missing field 'response'",
        ),
        (None, ultrafeedback({"response": "a"}), r"'completions\[0\]': missing field 'overall_sc"),
        (None, ultrafeedback(completion(3, 1)), r"'completions\[0\].response' is a number"),
        (
            None,
            ultrafeedback(completion("a", "9")),
            r"'completions\[0\].overall_score' is a string",
        ),
    ],
)
def test_malformed_row_is_named(tmp_path: Path, good: Any, row: Any, message: str) -> None:
    good = good or ultrafeedback(completion("a", 3), completion("b", 4))
    path = write(tmp_path / "rows.json", good, row)
    with pytest.raises(ValueError, match=rf"rows\.json:\d+ \(item 2\): .*{message}"):
        read_preferences(path)


PLAIN = {"prompt": "a", "chosen": "b", "rejected": "c"}
HH = {k: f"\n\nHuman: a\n\nAssistant: {k}" for k in ("chosen", "rejected")}
SCORED = ultrafeedback(completion("a", 3), completion("b", 4))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((PLAIN, PLAIN, HH), r":3: .* 'hh-rlhf', but .*:1 is of 'standard'"),
        ((HH, annotation(1)), r":2: .* 'alpaca-eval', but .*:1 is of 'hh-rlhf'"),
        ((SCORED, PLAIN), r":2: .* 'standard', but .*:1 is of 'ultrafeedback'"),
    ],
)
def test_mixed_formats_are_named(tmp_path: Path, rows: tuple[Any, ...], message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=message):
        read_preferences(path)


def test_a_named_format_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", {**PLAIN, "prompt": "\n\nHuman: a\n\nAssistant:"})
    assert isinstance(read_preferences(path, "auto")[0].prompt, list)
    assert read_preferences(path, "standard")[0].prompt == "\n\nHuman: a\n\nAssistant:"
    with pytest.raises(ValueError, match="missing field 'instruction'"):
        read_preferences(path, "alpaca-eval")
