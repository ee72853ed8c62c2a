"""Preference pairs by the name of their source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvxnn.datasets import load_tutoring, read_pairs
from cvxnn.preference import alternating_population, read_preferences


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def conversation(*turns: str) -> dict[str, object]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
    return {"conversation_id": "c", "messages": messages}


def test_the_shipped_conversations() -> None:
    expected = alternating_population(load_tutoring())
    assert read_pairs("tutoring") == expected
    said: list[str] = []
    assert read_pairs("tutoring", limit=3, say=said.append) == expected[:3]
    assert said == [
        f"{len(expected)} pairs from 171 conversations: each reply of the assistant is preferred "
        "to its next reply; the first 3 of them count"
    ]


def test_a_file_of_pairs(tmp_path: Path) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    file = write(tmp_path / "pairs.jsonl", row, {**row, "chosen": "d"})
    said: list[str] = []
    assert read_pairs(file, say=said.append) == read_preferences(file)
    assert not said
    assert read_pairs(file, format="standard", limit=1) == read_preferences(file)[:1]


def test_a_file_of_conversations(tmp_path: Path) -> None:
    file = write(tmp_path / "talk.jsonl", conversation("a", "b", "c", "d"))
    pairs = read_pairs(file)
    assert pairs == read_pairs(file, format="conversations")
    assert pairs


@pytest.mark.parametrize("source", ["none.jsonl", "none", "a/b/c"])
def test_missing_files(source: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"no such file: {source}; expected a file, OWNER"):
        read_pairs(source)


def test_the_first_message_stands(tmp_path: Path) -> None:
    file = write(tmp_path / "bad.jsonl", {"prompt": "a", "chosen": "b"})
    with pytest.raises(ValueError, match=r"bad\.jsonl:1"):
        read_pairs(file)
    file = write(tmp_path / "short.jsonl", conversation("a", "b"))
    with pytest.raises(ValueError, match="no conversation has two replies of the assistant"):
        read_pairs(file)


def test_conversations_are_not_read_from_the_hub() -> None:
    with pytest.raises(ValueError, match="but a/b is a data set on the Hub; expected a format"):
        read_pairs("a/b", format="conversations")
