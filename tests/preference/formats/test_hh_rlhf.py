"""Transcripts of hh-rlhf."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cvxnn.preference import read_preferences

HEAD = "\n\nHuman: Why is the\n\nsky blue?\n\nAssistant: Light scatters.\n\nHuman: And red?"
TURNS = [
    {"role": "user", "content": "Why is the\n\nsky blue?"},
    {"role": "assistant", "content": "Light scatters."},
    {"role": "user", "content": "And red?"},
]
WHOLE = {
    "chosen": f"{HEAD}\n\nAssistant: It passes.",
    "rejected": f"{HEAD}\n\nAssistant: Who knows?",
}
STRIPPED = {
    "prompt": f"{HEAD}\n\nAssistant:",
    "chosen": "It passes.",
    "rejected": " Who knows?\n",
    "subset": "helpful-base",
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("row", [WHOLE, STRIPPED, {**WHOLE, "prompt": STRIPPED["prompt"]}])
@pytest.mark.parametrize("format", ["auto", "hh-rlhf"])
def test_transcripts(tmp_path: Path, row: Any, format: Any) -> None:
    [triplet] = read_preferences(write(tmp_path / "a.jsonl", row), format)
    assert triplet.prompt == TURNS
    assert (triplet.chosen, triplet.rejected) == ("It passes.", "Who knows?")


def test_depths_of_one_conversation_are_one_group(tmp_path: Path) -> None:
    start = "\n\nHuman: Why is the\n\nsky blue?"
    short = {k: f"{start}\n\nAssistant: {k}" for k in ("chosen", "rejected")}
    other = {k: f"\n\nHuman: Hi\n\nAssistant: {k}" for k in ("chosen", "rejected")}
    path = write(tmp_path / "a.jsonl", WHOLE, STRIPPED, short, other, {**WHOLE, "group": "g"})
    groups = [triplet.group for triplet in read_preferences(path)]
    assert groups[0] == groups[1] == groups[2] != groups[3]
    assert groups[4] == "g"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**WHOLE, "rejected": f"{HEAD}\n\nAssistant:"}, "an empty reply"),
        ({**WHOLE, "rejected": WHOLE["chosen"] + " "}, "equal replies"),
        (
            {**WHOLE, "rejected": "\n\nHuman: Else?\n\nAssistant: No."},
            "that differ before their last reply",
        ),
        (
            {**WHOLE, "rejected": f"{WHOLE['rejected']}\n\nHuman: So?"},
            "that differ before their last reply",
        ),
        ({k: f"\n\nHuman:{v}" for k, v in WHOLE.items()}, "an empty turn"),
        ({**STRIPPED, "prompt": f"{HEAD}\n\nHuman:\n\nAssistant:"}, "an empty turn"),
        ({**STRIPPED, "chosen": ""}, "an empty reply"),
        ({**STRIPPED, "chosen": None}, "an empty text"),
        ({**WHOLE, "rejected": "No."}, "a text that is not a transcript"),
        ({**STRIPPED, "prompt": HEAD}, "a prompt that does not end in '.*Assistant:'"),
        ({**STRIPPED, "prompt": "Why?"}, "a prompt that does not end in '.*Assistant:'"),
    ],
)
def test_rows_without_a_preference_are_left_out(tmp_path: Path, row: Any, reason: str) -> None:
    path = write(tmp_path / "a.jsonl", WHOLE, row)
    with pytest.warns(UserWarning, match=rf"left out 1 of 2 rows .*{reason} \(first: .*:2"):
        assert len(read_preferences(path, "hh-rlhf")) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": WHOLE["chosen"]}, "missing field 'rejected'"),
        ({**WHOLE, "rejected": 3}, "'rejected' is a number"),
    ],
)
def test_malformed_row_is_named(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "rows.jsonl", WHOLE, row)
    with pytest.raises(ValueError, match=rf"rows\.jsonl:2: .*{message}"):
        read_preferences(path, "hh-rlhf")


def test_a_text_prompt_that_names_a_human_is_plain(tmp_path: Path) -> None:
    row = {"prompt": "\n\nHuman: who are they?", "chosen": "People.", "rejected": "Robots."}
    [triplet] = read_preferences(write(tmp_path / "a.jsonl", row))
    assert triplet.prompt == row["prompt"]
