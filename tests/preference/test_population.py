"""Alternating Population Strategy, and its summary."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.datasets import load_tutoring
from cvxnn.preference import Conversation, alternating_population, summarize_population


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_worked_example_of_two_periods_of_music() -> None:
    """As in the example of appendix E.3, two replies (i and i + 2) give one triplet."""
    system = {"role": "system", "content": "You are a patient tutor of music."}
    question = user("How does Baroque music differ from Romantic music?")
    answer = assistant("Baroque weaves strict counterpoint; Romantic music seeks expression.")
    later = assistant("Early orchestras were led from the violin; the conductor came later.")
    conversation = Conversation(
        (system, question, answer, user("And if a quiz asks me to list this?"), later), id="music"
    )
    [triplet] = alternating_population([conversation])
    assert triplet.prompt == [system, question]
    assert triplet.chosen == answer["content"]
    assert triplet.rejected == later["content"]
    assert triplet.group == "music"


@pytest.mark.parametrize("replies", [3, 4])
def test_three_to_four_turns_give_two_to_three_triplets(replies: int) -> None:
    """The number of triplets is that of appendix E.2 of the paper."""
    turns = [m for i in range(replies) for m in (user(f"q{i}"), assistant(f"a{i}"))]
    assert len(alternating_population([Conversation(tuple(turns))])) == replies - 1


def test_prompts_grow_along_a_conversation() -> None:
    turns = [user("q1"), assistant("a1"), user("q2"), assistant("a2"), user("q3"), assistant("a3")]
    first, second = alternating_population([Conversation(tuple(turns))])
    assert (first.prompt, first.chosen, first.rejected) == (turns[:1], "a1", "a2")
    assert (second.prompt, second.chosen, second.rejected) == (turns[:3], "a2", "a3")


def test_leading_assistant_and_joined_messages() -> None:
    messages = (
        assistant("Welcome."),
        user("Hm,"),
        user("why?"),
        assistant("Because."),
        assistant("Truly."),
        user("Sure?"),
        assistant("Yes."),
    )
    [triplet] = alternating_population([Conversation(messages)])
    assert triplet.prompt == [assistant("Welcome."), user("Hm,\nwhy?")]
    assert (triplet.chosen, triplet.rejected) == ("Because.\nTruly.", "Yes.")
    assert messages[1]["content"] == "Hm,"  # the input is left alone


def test_identical_replies_and_single_replies_give_nothing() -> None:
    same = (user("a"), assistant("Yes."), user("b"), assistant("Yes."))
    assert alternating_population([Conversation(same), Conversation(same[:2])]) == []


@given(lengths=st.lists(st.integers(0, 5), max_size=6))
def test_number_of_triplets(lengths: list[int]) -> None:
    conversations = [
        Conversation((user("q"), *(m for i in range(n) for m in (assistant(f"{i}"), user("q")))))
        for n in lengths
    ]
    assert len(alternating_population(conversations)) == sum(max(n - 1, 0) for n in lengths)


# Summary


def test_summary_by_hand() -> None:
    two = (user("q"), assistant("long"), user("r"), assistant("ok"))
    conversations = [
        Conversation((*two, user("s"), assistant("ok"), user("t"), assistant("z"))),
        Conversation((assistant("Welcome."), *two)),
        Conversation(two[:2]),
        Conversation(two[:1]),
    ]
    summary = summarize_population(iter(conversations))
    assert (summary.conversations, summary.used, summary.triplets) == (4, 2, 3)
    assert summary.triplets_each == {0: 2, 1: 1, 2: 1}
    assert summary.prompt_turns == {1: 1, 2: 1, 5: 1}
    assert summary.chosen_length == pytest.approx((4 + 2 + 4) / 3)
    assert summary.rejected_length == pytest.approx((2 + 1 + 2) / 3)
    assert summary.dropped == {
        "assistant messages that follow no user turn": 1,
        "replies identical to the next one": 1,
        "conversations with one reply": 1,
        "conversations without a reply": 1,
    }
    text = str(summary)
    assert "3 triplets from 2 of 4 conversations" in text
    assert "mean 0.8, 0 to 2 (0: 2, 1: 1, 2: 1)" in text
    assert "3 characters chosen, 2 rejected" in text
    assert "conversations with one reply: 1" in text


def test_summary_agrees_with_the_triplets() -> None:
    conversations = load_tutoring()
    summary, triplets = summarize_population(conversations), alternating_population(conversations)
    assert summary.triplets == len(triplets) == sum(summary.prompt_turns.values())
    assert summary.triplets == sum(n * count for n, count in summary.triplets_each.items())
    assert summary.used == len({triplet.group for triplet in triplets})
    assert summary.dropped == {}
    assert str(summary).endswith("nothing")


def test_summary_of_nothing() -> None:
    summary = summarize_population([])
    assert (summary.conversations, summary.triplets, summary.dropped) == (0, 0, {})
    assert math.isnan(summary.chosen_length)
    assert "0 triplets from 0 of 0 conversations" in str(summary)


def test_a_wide_distribution_is_not_spelled_out() -> None:
    turns = [m for i in range(12) for m in (user(f"q{i}"), assistant(f"a{i}"))]
    text = str(summarize_population([Conversation(tuple(turns))]))
    assert "mean 11.0, 1 to 21\n" in text
