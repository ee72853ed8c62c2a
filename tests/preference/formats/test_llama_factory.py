"""Preference data of LLaMA-Factory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cvxnn.preference import PreferenceTriplet, read_conversations, read_preferences

ALPACA = {"instruction": "Add", "chosen": "4", "rejected": "5", "id": "g"}
SHAREGPT = {
    "conversations": [{"from": "human", "value": "2 + 2?"}],
    "chosen": {"from": "gpt", "value": "4"},
    "rejected": {"from": "gpt", "value": "5"},
    "id": "g",
}


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def read(tmp_path: Path, *rows: object) -> list[PreferenceTriplet]:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return read_preferences(path)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        (ALPACA, "Add"),
        ({**ALPACA, "input": "2 and 2", "system": "", "history": None}, "Add\n2 and 2"),
        (
            {**ALPACA, "system": "Be brief.", "history": [["Hi", "Hello"]]},
            [
                say("system", "Be brief."),
                say("user", "Hi"),
                say("assistant", "Hello"),
                say("user", "Add"),
            ],
        ),
        (SHAREGPT, "2 + 2?"),
        (
            {**SHAREGPT, "system": "Be brief."},
            [say("system", "Be brief."), say("user", "2 + 2?")],
        ),
    ],
)
def test_layouts(tmp_path: Path, row: dict[str, Any], prompt: Any) -> None:
    assert read(tmp_path, row) == [PreferenceTriplet(prompt, "4", "5", "g")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": "4"}, "'chosen' is not a turn with 'from' and 'value'"),
        ({"conversations": {}}, "'conversations' is an object; expected a list of turns"),
        ({"conversations": []}, "an empty text"),
        ({"conversations": [{"from": "human", "value": ""}]}, "an empty text"),
        (
            {"conversations": [{"from": "tool", "value": "x"}]},
            r"'conversations\[0\]' is from 'tool'; expected one of \['human', 'user'",
        ),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "does not end in a message of the"),
        ({"chosen": {"from": "gpt", "value": " "}}, "an empty reply"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, {**SHAREGPT, **change})


def test_an_instruction_or_an_input_will_do(tmp_path: Path) -> None:
    [found] = read(tmp_path, {**ALPACA, "instruction": "", "input": "x", "history": None})
    assert found.prompt == "x"
    with pytest.raises(ValueError, match=r"none of 1 rows .*: 1 with an empty text"):
        read(tmp_path, {**ALPACA, "instruction": "", "input": " "})
    with pytest.raises(ValueError, match=r"none of 1 rows .*: 1 with an empty text"):
        read(tmp_path, {**ALPACA, "history": [["a", ""]]})


@pytest.mark.parametrize("history", ["x", [["a"]], [["a", 3]]])
def test_malformed_histories_are_named(tmp_path: Path, history: object) -> None:
    with pytest.raises(ValueError, match="'history"):
        read(tmp_path, {**ALPACA, "history": history})


def test_conversations_of_sharegpt(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"conversations": turns, "id": 7}))
    [found] = read_conversations(tmp_path / "talk.jsonl")
    assert found.messages == (say("user", "Hi"), say("assistant", "Hello"))
    assert found.id == "7"
