"""Preference data of TRL, and properties of all formats."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.preference import PreferenceTriplet, as_messages, read_preferences


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant"]),
        st.sampled_from("ab"),
    ),
    min_size=1,
    max_size=4,
)
PLAIN = {"prompt": "What is 2 + 2?", "chosen": "Four.", "rejected": "Five."}


def test_plain_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", PLAIN, {**PLAIN, "rejected": "Six.", "extra": 1})
    first, second = read_preferences(path)
    assert (first.prompt, first.chosen, first.rejected) == ("What is 2 + 2?", "Four.", "Five.")
    assert second.rejected == "Six."
    assert first.group == second.group  # the same prompt


@pytest.mark.parametrize("as_list", [True, False])
def test_conversational_rows(tmp_path: Path, as_list: bool) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, user("Hi?")]
    replies = ([assistant("Hello.")], [assistant("No.")]) if as_list else ("Hello.", "No.")
    row = {"prompt": prompt, "chosen": replies[0], "rejected": replies[1]}
    [triplet] = read_preferences(write(tmp_path / "a.jsonl", row))
    assert triplet == PreferenceTriplet(prompt, "Hello.", "No.")


def test_prompt_repeated_in_the_transcripts_is_removed(tmp_path: Path) -> None:
    """UltraFeedback binarised has this form."""
    row = {
        "prompt": "Hi?",
        "prompt_id": "6f1c",
        "chosen": [user("Hi?"), assistant("Hello.")],
        "rejected": [user("Hi?"), assistant("No.")],
        "messages": [user("Hi?"), assistant("Hello.")],
        "score_chosen": 8.0,
        "score_rejected": 2.0,
    }
    [triplet] = read_preferences(write(tmp_path / "a.jsonl", row))
    assert (triplet.prompt, triplet.chosen, triplet.rejected) == ("Hi?", "Hello.", "No.")


def test_implicit_prompt_is_the_common_beginning(tmp_path: Path) -> None:
    head = [user("One?"), assistant("1."), user("Two?")]
    row = {"chosen": [*head, assistant("2.")], "rejected": [*head, assistant("3.")]}
    [triplet] = read_preferences(write(tmp_path / "a.jsonl", row))
    assert triplet == PreferenceTriplet(head, "2.", "3.")


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("The sky is blue.", "The sky is green.", ("The sky is", "blue.", "green.")),
        ("The sky is great.", "The sky is green.", ("The sky is", "great.", "green.")),
        ("Q: 2 + 2?\nA: 4", "Q: 2 + 2?\nA: 5", ("Q: 2 + 2?\nA:", "4", "5")),
        ("天空？蓝色", "天空？蓝绿", ("天空？", "蓝色", "蓝绿")),
    ],
)
def test_implicit_prompt_of_texts_is_the_common_beginning_in_whole_words(
    tmp_path: Path, chosen: str, rejected: str, expected: tuple[str, str, str]
) -> None:
    row = {"chosen": chosen, "rejected": rejected}
    [triplet] = read_preferences(write(tmp_path / "a.jsonl", row))
    assert (triplet.prompt, triplet.chosen, triplet.rejected) == expected


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {k: st.text("ab .", max_size=6) | MESSAGES for k in ("chosen", "rejected")},
            optional={"prompt": st.text("ab", min_size=1) | MESSAGES},
        ),
        max_size=4,
    )
)
def test_one_row_never_stops_a_file(rows: list[dict[str, Any]], tmp_path_factory: Any) -> None:
    """Whatever texts and messages say, other rows are read, and each row is read or counted."""
    path = write(tmp_path_factory.mktemp("rows") / "a.jsonl", *rows, PLAIN)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_preferences(path)
    counts = [re.search(r"left out (\d+) of (\d+) rows", str(w.message)) for w in caught]
    left_out = sum(int(count[1]) for count in counts if count)
    assert len(found) + left_out == len(rows) + 1
    assert found[-1].chosen == PLAIN["chosen"]
    for triplet in found:
        assert triplet.chosen.strip() != "" != triplet.rejected.strip()
        assert as_messages(triplet.prompt)[-1]["role"] != "assistant"


def test_variants_of_trl_may_be_mixed(tmp_path: Path) -> None:
    rows = (
        PLAIN,
        {"prompt": [user("Hi?")], "chosen": [assistant("x")], "rejected": [assistant("y")]},
        {k: [user("Hi?"), assistant(k)] for k in ("chosen", "rejected")},
    )
    path = write(tmp_path / "a.jsonl", *rows)
    read = read_preferences(path)
    assert [type(triplet.prompt) for triplet in read] == [str, list, list]
    assert read_preferences(path, "standard") == read_preferences(path, "conversational") == read


def test_group_fields_in_order_of_preference(tmp_path: Path) -> None:
    rows = (
        {**PLAIN, "conversation_id": "c", "group": "g", "id": "i"},
        {**PLAIN, "group": "g", "id": "i"},
        {**PLAIN, "conversation_id": None, "id": 7},
    )
    path = write(tmp_path / "a.jsonl", *rows)
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
        (
            {"question": "a", "chosen": "b", "rejected": "c"},
            "missing field 'prompt'; if 'question' is the prompt, pass fields=",
        ),
        ({**PLAIN, "prompt": 3}, "'prompt' is a number; expected a list of messages"),
        ({**PLAIN, "chosen": 4.5}, "'chosen' is a number; expected a string"),
        ({**PLAIN, "chosen": {"text": "x"}}, "'chosen' is an object"),
        ({**PLAIN, "chosen": [{"role": "bot", "content": "x"}]}, "has the role 'bot'"),
        ({**PLAIN, "chosen": [{"content": "x"}]}, "is not a message with 'role' and 'content'"),
        ({**PLAIN, "id": [1]}, "'id' is a list; expected a non-empty string or integer"),
        ({**PLAIN, "id": "\ud800"}, "'id' is not valid Unicode"),
        ({**PLAIN, "chosen": "\ud800"}, "'chosen' is not valid Unicode"),
        ({"question": "a", "answer": "b"}, r"the fields \['answer', 'question'\] belong to no"),
    ],
)
def test_malformed_row_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    path.write_text(f"{json.dumps(PLAIN)}\n{text}\n")
    with pytest.raises(ValueError, match=rf"rows\.jsonl:2: .*{message}"):
        read_preferences(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**PLAIN, "rejected": PLAIN["chosen"]}, "equal replies"),
        ({k: [user("a"), assistant("x")] for k in ("chosen", "rejected")}, "equal replies"),
        ({**PLAIN, "chosen": ""}, "an empty reply"),
        ({**PLAIN, "prompt": []}, "an empty text"),
        ({**PLAIN, "prompt": " "}, "an empty text"),
        ({**PLAIN, "prompt": [user(" ")]}, "an empty text"),
        ({**PLAIN, "chosen": None}, "an empty text"),
        ({**PLAIN, "chosen": []}, "an empty text"),
        ({**PLAIN, "rejected": [user(""), assistant("x")]}, "an empty text"),
        ({**PLAIN, "rejected": [{"role": "assistant", "content": None}]}, "an empty text"),
        ({**PLAIN, "rejected": [assistant(" \n")]}, "an empty reply"),
        ({**PLAIN, "prompt": [assistant("x")]}, "a prompt that ends in an assistant message"),
        ({**PLAIN, "chosen": [user("x")]}, "a reply that is not one assistant message"),
        (
            {**PLAIN, "rejected": [user("x"), assistant("y")]},
            "a reply that is not one assistant message",
        ),
        (
            {"chosen": [assistant("x")], "rejected": [assistant("y")]},
            "no common beginning that could be the prompt",
        ),
        ({"chosen": "b", "rejected": "c"}, "no common beginning that could be the prompt"),
        (
            {"chosen": [user("a"), assistant("x")], "rejected": "y"},
            "no common beginning that could be the prompt",
        ),
        ({"chosen": "The sky", "rejected": "The sky is blue"}, "an empty reply"),
        *(
            ({"chosen": one, "rejected": other}, "transcripts that differ before their last reply")
            for one, other in itertools.permutations(
                [
                    [user("a"), assistant("x")],
                    [user("a")],
                    [user("a"), assistant("y"), user("b"), assistant("z")],
                    [user("a"), assistant("w"), user("b"), assistant("z")],
                ],
                2,
            )
        ),
    ],
)
def test_rows_without_a_preference_are_left_out(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    path = write(tmp_path / "rows.jsonl", PLAIN, row, row)
    with pytest.warns(
        UserWarning, match=rf"left out 2 of 3 rows .*: 2 with {reason} \(first: .*:2"
    ):
        (triplet,) = read_preferences(path)
    assert triplet.chosen == PLAIN["chosen"]
    write(path, row)
    with pytest.raises(ValueError, match=rf"none of 1 rows states a preference: 1 with {reason}"):
        read_preferences(path)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", PLAIN)
    with pytest.raises(ValueError, match="format is 'csv'; expected 'auto' or one of"):
        read_preferences(path, "csv")  # type: ignore[arg-type]
