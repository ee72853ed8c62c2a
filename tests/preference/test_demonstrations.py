"""Demonstrations, and the candidates that are made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cvxnn.preference import Demonstration, candidate_replies, read_demonstrations


def test_layouts_of_rows(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [
        {"prompt": "a", "response": "b"},
        {"prompt": "a", "completion": "b"},
        {"prompt": turns[:1], "response": "b"},
        {"messages": turns},
    ]
    file = tmp_path / "sft.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text, chat = Demonstration("a", "b"), Demonstration(turns[:1], "b")
    assert read_demonstrations(file) == [text, text, chat, chat]
    assert len(read_demonstrations(file, 2)) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a"}, r":1: missing field 'response'"),
        ({"prompt": "a", "response": 3}, r":1: 'response' is a number"),
        ({"messages": "a"}, r":1: 'messages' is a string; expected a list of messages"),
    ],
)
def test_malformed_rows_are_named(tmp_path, row, said):
    file = tmp_path / "sft.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=said):
        read_demonstrations(file)


USER, NO_REPLY = {"role": "user", "content": "a"}, {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "response": " "}, "an empty text"),
        ({"prompt": "a", "response": None}, "an empty text"),
        ({"prompt": "", "response": "b"}, "an empty text"),
        ({"messages": []}, "an empty text"),
        ({"messages": [USER, NO_REPLY]}, "an empty text"),
        ({"messages": [USER]}, "messages that do not end in a reply of the assistant"),
        ({"messages": [NO_REPLY | {"content": "b"}, USER]}, "messages that do not end in a reply"),
    ],
)
def test_one_row_does_not_stop_a_file(tmp_path, row, reason):
    file = tmp_path / "sft.jsonl"
    good = {"prompt": "a", "response": "b"}
    file.write_text("".join(json.dumps(each) + "\n" for each in (good, row, row)))
    said = rf"left out 2 of 3 rows that hold no demonstration: 2 with {reason}.*first: .*:2"
    with pytest.warns(UserWarning, match=said) as found:
        assert read_demonstrations(file) == [Demonstration("a", "b")]
    assert found[0].filename == __file__
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"none of 1 rows holds a demonstration: 1 with {reason}"):
        read_demonstrations(file)


def test_candidates_are_replies_to_other_prompts():
    given = [Demonstration(f"p{k // 2}", f"r{k}") for k in range(12)]
    found = candidate_replies(given, 4, seed=3)
    assert len(found.prompts) == len(found.responses) == len(found.wanted) == 48
    for k, each in enumerate(given):
        rows = np.flatnonzero(found.groups == k)
        texts = [found.responses[row] for row in rows]
        assert {found.prompts[row] for row in rows} == {each.prompt}
        wanted = [found.responses[row] for row in rows if found.wanted[row]]
        assert wanted == [each.response]
        assert len(set(texts)) == 4
        twin = given[k ^ 1].response  # another good reply to the same prompt is no wrong one
        assert twin not in texts
    assert candidate_replies(given, 4, seed=3).responses == found.responses
    assert candidate_replies(given, 99).groups.size == 12 * 11


def test_without_a_choice_there_are_no_candidates():
    with pytest.raises(ValueError, match="demonstration 0 has no reply to be compared with"):
        candidate_replies([Demonstration("a", "b"), Demonstration("c", "b")])
    with pytest.raises(ValueError, match="n_candidates=1"):
        candidate_replies([Demonstration("a", "b")], 1)
