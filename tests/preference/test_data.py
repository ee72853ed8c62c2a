from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.preference.data import (
    Conversation,
    PreferenceTriplet,
    alternating_population,
    read_conversations,
    read_preferences,
    split_by_group,
    write_preferences,
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write_rows(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PLAIN = {"prompt": "What is 2 + 2?", "chosen": "Four.", "rejected": "Five."}


# Reading


def test_plain_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", PLAIN, {**PLAIN, "rejected": "Six.", "extra": 1})
    first, second = read_preferences(path)
    assert (first.prompt, first.chosen, first.rejected) == ("What is 2 + 2?", "Four.", "Five.")
    assert second.rejected == "Six."
    assert first.group == second.group  # the same prompt


@pytest.mark.parametrize("as_list", [True, False])
def test_conversational_rows(tmp_path: Path, as_list: bool) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, user("Hi?")]
    replies = ([assistant("Hello.")], [assistant("No.")]) if as_list else ("Hello.", "No.")
    row = {"prompt": prompt, "chosen": replies[0], "rejected": replies[1]}
    [triplet] = read_preferences(write_rows(tmp_path / "a.jsonl", row))
    assert triplet == PreferenceTriplet(prompt, "Hello.", "No.")


def test_prompt_repeated_in_the_transcripts_is_removed(tmp_path: Path) -> None:
    row = {
        "prompt": "Hi?",
        "chosen": [user("Hi?"), assistant("Hello.")],
        "rejected": [user("Hi?"), assistant("No.")],
    }
    [triplet] = read_preferences(write_rows(tmp_path / "a.jsonl", row))
    assert (triplet.prompt, triplet.chosen, triplet.rejected) == ("Hi?", "Hello.", "No.")


def test_implicit_prompt_is_the_common_beginning(tmp_path: Path) -> None:
    head = [user("One?"), assistant("1."), user("Two?")]
    row = {"chosen": [*head, assistant("2.")], "rejected": [*head, assistant("3.")]}
    [triplet] = read_preferences(write_rows(tmp_path / "a.jsonl", row))
    assert triplet == PreferenceTriplet(head, "2.", "3.")


def test_group_fields_in_order_of_preference(tmp_path: Path) -> None:
    rows = (
        {**PLAIN, "conversation_id": "c", "group": "g", "id": "i"},
        {**PLAIN, "group": "g", "id": "i"},
        {**PLAIN, "conversation_id": None, "id": 7},
    )
    path = write_rows(tmp_path / "a.jsonl", *rows)
    assert [triplet.group for triplet in read_preferences(path)] == ["c", "g", "7"]


def test_limit_stops_before_later_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(PLAIN) + "\n\nnot json\n")
    assert len(read_preferences(path, limit=1)) == 1
    with pytest.raises(ValueError, match="limit is 0"):
        read_preferences(path, limit=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", "chos', "not valid JSON"),
        ("[1, 2]", "expected a JSON object, got a list"),
        ({"prompt": "a", "chosen": "b"}, "missing field 'rejected'"),
        ({"chosen": "b", "rejected": "c"}, "missing field 'prompt'"),
        ({**PLAIN, "prompt": 3}, "'prompt' is a number; expected a list of messages"),
        ({**PLAIN, "prompt": []}, "'prompt' is an empty list"),
        ({**PLAIN, "prompt": " "}, "'prompt' is empty"),
        ({**PLAIN, "prompt": [assistant("x")]}, "ends in an assistant message"),
        ({**PLAIN, "chosen": 4.5}, "'chosen' is a number; expected a string"),
        ({**PLAIN, "chosen": {"text": "x"}}, "'chosen' is an object"),
        ({**PLAIN, "rejected": "  \n"}, "'rejected' is empty"),
        ({**PLAIN, "rejected": None}, "'rejected' is null"),
        ({**PLAIN, "rejected": [assistant("")]}, r"'rejected\[0\].content' is empty"),
        ({**PLAIN, "chosen": [user("x")]}, "expected exactly one assistant message"),
        ({**PLAIN, "chosen": [{"role": "bot", "content": "x"}]}, "has the role 'bot'"),
        ({**PLAIN, "chosen": [{"content": "x"}]}, "is not a message with 'role' and 'content'"),
        ({**PLAIN, "id": [1]}, "'id' is a list; expected a non-empty string or integer"),
        ({**PLAIN, "chosen": "\ud800"}, "not valid Unicode"),
        ({"chosen": [assistant("x")], "rejected": [assistant("y")]}, "no common beginning"),
        ({"chosen": [user("a"), assistant("x")], "rejected": [user("a")]}, r"the roles \[\]"),
    ],
)
def test_malformed_row_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(f"{json.dumps(PLAIN)}\n{text}\n")
    with pytest.raises(ValueError, match=rf"rows\.jsonl:2: .*{message}"):
        read_preferences(path)


@pytest.mark.parametrize(
    "equal",
    [
        {**PLAIN, "rejected": PLAIN["chosen"]},
        {k: [user("a"), assistant("x")] for k in ("chosen", "rejected")},
    ],
)
def test_rows_with_equal_replies_are_left_out(tmp_path: Path, equal: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(equal)}\n{json.dumps(PLAIN)}\n")
    with pytest.warns(UserWarning, match=r"rows\.jsonl: left out 1 of 2 rows"):
        (triplet,) = read_preferences(path)
    assert triplet.chosen == PLAIN["chosen"]
    path.write_text(f"{json.dumps(equal)}\n")
    with pytest.raises(ValueError, match="equal in every row"):
        read_preferences(path)


def test_equal_replies_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match=r"triplet 0: .* are equal"):
        write_preferences(path, [PreferenceTriplet("a", "b", "b")])
    assert not path.exists()


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(PLAIN).encode() + b'\n{"prompt": "\xff"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not valid JSON"):
        read_preferences(path)


def test_empty_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_preferences(path)
    path.write_text("\n\n")
    with pytest.raises(ValueError, match="the file is empty"):
        read_preferences(path)


@pytest.mark.parametrize("damage", ["cut", "plain"])
def test_damaged_gzip_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.jsonl.gz"
    data = gzip.compress(json.dumps(PLAIN).encode() * 50)
    path.write_bytes(data[:40] if damage == "cut" else b"plain text")
    with pytest.raises(ValueError, match=r"rows\.jsonl\.gz:1: the gzip data is damaged"):
        read_preferences(path)


# Writing

texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
prompts = st.one_of(texts, st.lists(texts, min_size=1, max_size=3).map(lambda t: [*map(user, t)]))
triplets_strategy = st.builds(PreferenceTriplet, prompts, texts, texts, texts).filter(
    lambda t: t.chosen != t.rejected
)


@given(triplets=st.lists(triplets_strategy, min_size=1, max_size=4), compress=st.booleans())
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, triplets: list[PreferenceTriplet], compress: bool
) -> None:
    path = tmp_path_factory.mktemp("data") / ("a.jsonl.gz" if compress else "a.jsonl")
    write_preferences(path, triplets)
    assert read_preferences(path) == triplets
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_refused_triplet_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = PreferenceTriplet("a", "b", "c")
    write_preferences(path, [good])
    with pytest.raises(ValueError, match="triplet 1: 'chosen' is empty"):
        write_preferences(path, [good, PreferenceTriplet("a", "", "c")])
    with pytest.raises(ValueError, match="no triplets to write"):
        write_preferences(path, [])
    assert read_preferences(path) == [good]
    assert len(list(tmp_path.iterdir())) == 1


# Conversations


def test_conversations(tmp_path: Path) -> None:
    messages = [user("Hi?"), assistant("Hello.")]
    rows = {"id": "x", "subject": "Art", "messages": messages}, {"messages": messages}
    path = write_rows(tmp_path / "c.jsonl", *rows)
    named, unnamed = read_conversations(path)
    assert named == Conversation(tuple(messages), "x", "Art")
    assert unnamed.subject is None
    assert unnamed.id == Conversation(tuple(messages)).id != ""


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x"}, "missing field 'messages'"),
        ({"messages": "Hi"}, "'messages' is a string; expected a list"),
        ({"messages": [user("a"), assistant("")]}, r"'messages\[1\].content' is empty"),
        ({"messages": [user("a")], "subject": 1.5}, "'subject' is a number"),
    ],
)
def test_malformed_conversation_is_named(tmp_path: Path, row: Any, message: str) -> None:
    path = write_rows(tmp_path / "c.jsonl", row)
    with pytest.raises(ValueError, match=rf"c\.jsonl:1: .*{message}"):
        read_conversations(path)


def test_alternating_population_on_two_periods_of_music() -> None:
    """The shape of the worked example in appendix E.3: one triplet from two replies."""
    system = {"role": "system", "content": "You are a patient tutor of music."}
    question = user("How does Baroque music differ from Romantic music?")
    answer = assistant("Baroque weaves strict counterpoint; Romantic music seeks expression.")
    later = assistant("Early orchestras were led from the violin; the conductor came later.")
    conversation = Conversation(
        (system, question, answer, user("And who led the orchestras?"), later), id="music"
    )
    [triplet] = alternating_population([conversation])
    assert triplet.prompt == [system, question]
    assert triplet.chosen == answer["content"]
    assert triplet.rejected == later["content"]
    assert triplet.group == "music"


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


# Splitting


@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=2).filter(lambda g: len(set(g)) > 1),
    test_size=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_split_keeps_groups_whole(groups: list[str], test_size: float, seed: int) -> None:
    rows = [PreferenceTriplet(f"{i}", "a", "b", group) for i, group in enumerate(groups)]
    train, test = split_by_group(rows, test_size, seed)
    assert sorted([*train, *test], key=lambda t: int(str(t.prompt))) == rows
    left, right = ({triplet.group for triplet in part} for part in (train, test))
    assert left
    assert right
    assert not left & right
    assert abs(len(right) - test_size * len(set(groups))) <= 1
    _, again = split_by_group(rows[::-1], test_size, seed)
    assert {triplet.group for triplet in again} == right


def test_split_depends_on_the_seed_and_checks_its_input() -> None:
    rows = [PreferenceTriplet("p", "a", "b", f"{i}") for i in range(40)]
    assert split_by_group(rows, random_state=0) == split_by_group(rows, random_state=0)
    assert split_by_group(rows, random_state=0) != split_by_group(rows, random_state=1)
    with pytest.raises(ValueError, match="cannot split 1 group"):
        split_by_group(rows[:1] * 3)
    for size in (0.0, 1.0, 5):
        with pytest.raises(ValueError, match="test_size"):
            split_by_group(rows, size)


def test_default_group_is_the_same_on_every_machine() -> None:
    assert PreferenceTriplet("What is 2 + 2?", "Four.", "x").group == "fb3eb78712d637f5"
    message = {"content": "Hi", "role": "user"}
    assert PreferenceTriplet([user("Hi")], "a", "b").group == (
        PreferenceTriplet([message], "c", "d").group
    )
