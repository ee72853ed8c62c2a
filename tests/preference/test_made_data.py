"""Dialogues and pairs that models made, with stand-ins for the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.datasets import load_tutoring
from cvxnn.preference import (
    DialogueFilter,
    alternating_population,
    make_dialogues,
    rank_sampled_replies,
    read_conversations,
    read_preferences,
)


class Talker:
    """Says a new sentence each time; some of them break a rule."""

    def __init__(self, faults: dict[int, str] | None = None) -> None:
        self.calls: list[tuple[list[Any], float, int]] = []
        self.faults = faults or {}

    def __call__(self, messages: list[Any], temperature: float, seed: int) -> str:
        self.calls.append((messages, temperature, seed))
        return self.faults.get(len(self.calls), f"This is sentence number {seed} of mine.")


def test_dialogues_alternate_and_each_side_knows_its_role(tmp_path: Path) -> None:
    talker, file = Talker(), tmp_path / "made.jsonl"
    counts = make_dialogues(talker, file, 12, seed=3)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert counts.kept == len(rows) == 12
    assert counts.faults == {}
    assert sum(counts.subjects.values()) == 12
    assert set(counts.messages) <= {4, 6, 8}
    assert len(counts.messages) > 1
    assert all(0.2 <= row["temperature"] <= 0.9 for row in rows)
    assert {call[1] for call in talker.calls} == {row["temperature"] for row in rows}
    first = rows[0]["messages"]
    assert [m["role"] for m in first] == ["user", "assistant"] * (len(first) // 2)
    student, tutor = talker.calls[0][0], talker.calls[1][0]
    assert "You are a student" in student[0]["content"]
    assert rows[0]["student"] in student[0]["content"]
    assert "You are a tutor" in tutor[0]["content"]
    assert tutor[1] == {"role": "user", "content": first[0]["content"]}
    third = talker.calls[2][0]  # the student again, whose own messages are the assistant's
    assert [m["role"] for m in third] == ["system", "assistant", "user"]
    conversations = read_conversations(file)
    triplets = alternating_population(conversations)
    assert len(triplets) == sum(n * (m // 2 - 1) for m, n in counts.messages.items())


def test_an_interrupted_call_continues_and_a_larger_one_adds(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    faults = {2: "Yes."}
    make_dialogues(Talker(faults), whole, 6)

    class Interrupted(Talker):
        def __call__(self, *arguments: Any) -> str:
            if len(self.calls) == 11:
                raise KeyboardInterrupt
            return super().__call__(*arguments)

    with pytest.raises(KeyboardInterrupt):
        make_dialogues(Interrupted(faults), part, 6)
    part.write_bytes(part.read_bytes() + b'{"number": 4, "se')  # killed while it wrote
    before = len(part.read_text("utf-8").splitlines())
    assert before > 1
    counts = make_dialogues(Talker(), part, 6)
    assert part.read_bytes() == whole.read_bytes()
    assert (counts.kept, counts.faults) == (5, {"short": 1})
    again = Talker()
    assert make_dialogues(again, part, 6) == counts
    assert not again.calls
    assert make_dialogues(again, part, 7).kept == 6
    with pytest.raises(ValueError, match=r"was made with \{'seed'"):
        make_dialogues(again, part, 7, seed=1)
    with pytest.raises(ValueError, match="expected at least one dialogue"):
        make_dialogues(again, part, 0)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("So it is, then.", None),
        ("Yes.", "short"),
        ("word " * 31, "long"),
        ("a b c a b c a b c a b c", "loop"),
        ("I said THIS before!", "echo"),
        ("So, you ask what a noble gas is and why it does not react with the others?", "echo"),
        ("A noble gas does not react, because its outer shell is full.", None),
        ("Sure.\nStudent: and then?", "role"),
        ("**Tutor:** here you are", "role"),
        ("Sorry, as an AI language model I cannot.", "role"),
        ("The tutor: a role in plays.", None),
    ],
)
def test_rules(text: str, fault: str | None) -> None:
    rules = DialogueFilter(most_words=30)
    asked = "What is a noble gas, and why it does not react with the others?"
    assert rules.fault(text, ["i said this  before.", asked]) == fault


@pytest.mark.parametrize("parrot", ["tutor", "student"])
def test_who_repeats_the_other_or_itself_is_thrown_away(tmp_path: Path, parrot: str) -> None:
    def write(messages: list[Any], temperature: float, seed: int) -> str:
        own = f"Here is a new thought, which has the number {seed} alone."
        role = "tutor" if "You are a tutor" in messages[0]["content"] else "student"
        spoken = [m["content"] for m in messages[1:] if "What would you" not in m["content"]]
        return f"Well, you say: {spoken[-1]}" if role == parrot and spoken else own

    lax = DialogueFilter(most_echo=1.0)
    assert make_dialogues(write, tmp_path / "all.jsonl", 4, rules=lax).faults == {}
    counts = make_dialogues(write, tmp_path / "made.jsonl", 4)
    assert (counts.kept, set(counts.faults)) == (0, {"echo"})


def test_dialogues_of_people_keep_the_rules() -> None:
    conversations = load_tutoring()
    rules = DialogueFilter(least_words=1)
    found = [
        rules.fault(message["content"], [m["content"] for m in conversation.messages[:k]])
        for conversation in conversations
        for k, message in enumerate(conversation.messages)
        if message["role"] == "assistant"
    ]
    assert found.count("echo") + found.count("loop") <= 0.05 * len(found)


def test_pairs_are_the_best_and_the_worst_of_five(tmp_path: Path) -> None:
    asked: list[tuple[str, int, int]] = []

    def sample(prompt: str, n: int, seed: int) -> list[str]:
        asked.append((prompt, n, seed))
        if prompt == "same":
            return ["one"] * n
        rng = np.random.default_rng(seed)
        return ["x" * int(k) for k in rng.permutation(9)[:n] + 1]

    def reward(prompt: str, replies: Any) -> list[float]:
        return [-float(len(reply)) for reply in replies]

    file = tmp_path / "pairs.jsonl"
    counts = rank_sampled_replies(["a", "same", "b", "a"], sample, reward, file)
    assert [(prompt, n) for prompt, n, _ in asked] == [("a", 5), ("same", 5), ("b", 5)]
    assert (counts.pairs, counts.without, counts.longer) == (2, 1, 0.0)
    pairs = read_preferences(file)
    for pair, (prompt, n, seed) in zip(pairs, [asked[0], asked[2]], strict=True):
        replies = sample(prompt, n, seed)
        assert (pair.prompt, pair.chosen) == (prompt, min(replies, key=len))
        assert pair.rejected == max(replies, key=len)
    assert counts.mean_margin == np.mean([len(p.rejected) - len(p.chosen) for p in pairs])
    done = len(asked)
    assert rank_sampled_replies(["b", "same"], sample, reward, file).pairs == 2
    assert len(asked) == done
    with pytest.raises(ValueError, match="was made with"):
        rank_sampled_replies(["b"], sample, reward, file, n=4)
    with pytest.raises(ValueError, match="expected at least 2 replies"):
        rank_sampled_replies(["b"], sample, reward, file, n=1)
    with pytest.raises(ValueError, match="expected one number for each"):
        rank_sampled_replies(["c"], sample, lambda *_: [1.0], file)
