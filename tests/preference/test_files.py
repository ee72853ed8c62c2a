"""Files of preferences and conversations, and data sets of the Hub."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.preference import (
    Conversation,
    PreferenceTriplet,
    as_messages,
    read_conversations,
    read_hub,
    read_preferences,
    write_preferences,
)
from cvxnn.preference.files import FORMATS, ReadFormat, WriteFormat


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
marks = ("\n\nHuman:", "\n\nAssistant:")
stripped = texts.map(str.strip).filter(lambda text: not any(mark in text for mark in marks))
system = st.lists(texts.map(lambda text: {"role": "system", "content": text}), max_size=1)


def messages(contents: Any) -> Any:
    turns = st.lists(contents, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2 == 1)
    return turns.map(lambda t: [(user, assistant)[i % 2](text) for i, text in enumerate(t)])


def triplets(prompts: Any, contents: Any) -> Any:
    rows = st.builds(PreferenceTriplet, prompts, contents, contents, st.just("") | texts)
    return st.lists(rows.filter(lambda t: t.chosen != t.rejected), min_size=1, max_size=4)


CASES = {
    "standard": triplets(texts, texts),
    "conversational": triplets(texts | st.builds(list.__add__, system, messages(texts)), texts),
    "hh-rlhf": triplets(stripped | messages(stripped), stripped),
}


@pytest.mark.slow
@pytest.mark.parametrize("format", CASES)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, format: Any, name: str, data: st.DataObject
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    rows = data.draw(CASES[format])
    path = tmp_path_factory.mktemp("data") / name
    write_preferences(path, rows, format)
    if format != "standard":
        rows = [replace(row, prompt=as_messages(row.prompt)) for row in rows]
    assert read_preferences(path) == rows
    assert read_preferences(path, format) == rows
    assert [entry.name for entry in path.parent.iterdir()] == [name]


def test_the_layout_is_that_of_trl_and_of_hh_rlhf(tmp_path: Path) -> None:
    path, triplet = tmp_path / "a.jsonl", PreferenceTriplet("Hi", "Hello.", "No.", "g")

    def written(format: Any) -> Any:
        write_preferences(path, [triplet], format)
        return json.loads(path.read_text())

    plain = {"prompt": "Hi", "chosen": "Hello.", "rejected": "No.", "group": "g"}
    assert written("standard") == plain
    assert written("conversational") == {
        "prompt": [user("Hi")],
        "chosen": [assistant("Hello.")],
        "rejected": [assistant("No.")],
        "group": "g",
    }
    assert written("hh-rlhf") == {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.",
        "rejected": "\n\nHuman: Hi\n\nAssistant: No.",
        "group": "g",
    }


@pytest.mark.parametrize(
    ("triplet", "format", "message"),
    [
        (("a", "b", "b"), "standard", "with equal replies; leave it out"),
        (("a", "", "b"), "standard", "with an empty reply"),
        (("", "a", "b"), "conversational", "'prompt.0..content' is empty"),
        (("a", "\ud800", "b"), "standard", "not valid Unicode"),
        (("a", "x", "y", "\ud800"), "standard", "'group' of the triplet is not valid Unicode"),
        (([user("a")], "x", "y"), "standard", "'standard' holds text only; write format='conv"),
        (([assistant("a")], "x", "y"), "conversational", "ends in an assistant message"),
        (
            ([{"role": "system", "content": "a"}], "x", "y"),
            "hh-rlhf",
            "cannot hold a system message",
        ),
        (("a", " x", "y"), "hh-rlhf", "would be read back differently"),
        (("a", "x\n\nHuman: b", "y"), "hh-rlhf", "transcripts that differ before"),
        (("a\n\nAssistant: b\n\nHuman: c", "x", "y"), "hh-rlhf", "would be read back differently"),
        (("a", "b", "c"), "ultrafeedback", r"format is 'ultrafeedback'; expected one of \['hh-"),
        (("a", "b", "c"), "auto", "format is 'auto'"),
    ],
)
def test_refused_triplet_leaves_the_old_file(
    tmp_path: Path, triplet: Any, format: Any, message: str
) -> None:
    path, good = tmp_path / "a.jsonl", PreferenceTriplet("a", "b", "c")
    write_preferences(path, [good])
    with pytest.raises(ValueError, match=message):
        write_preferences(path, [good, PreferenceTriplet(*triplet)], format)
    assert read_preferences(path) == [good]
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no triplets to write"):
        write_preferences(tmp_path / "a.jsonl", [])
    assert not list(tmp_path.iterdir())


# Conversations


def test_conversations(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    turns = [user("Hi?"), assistant("Hello.")]
    path.write_text(
        json.dumps([{"id": "x", "subject": "Art", "messages": turns}, {"messages": turns}])
    )
    named, unnamed = read_conversations(path)
    assert named == Conversation(tuple(turns), "x", "Art")
    assert unnamed.subject is None
    assert unnamed.id == Conversation(tuple(turns)).id != ""
    assert read_conversations(path, limit=1) == [named]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x"}, "missing field 'messages'"),
        ({"messages": "Hi"}, "'messages' is a string; expected a list"),
        ({"messages": [user("a")], "subject": 1.5}, "'subject' is a number"),
    ],
)
def test_malformed_conversation_is_named(tmp_path: Path, row: Any, message: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=rf"c\.jsonl:1: .*{message}"):
        read_conversations(path)


@pytest.mark.parametrize("row", [{"messages": [user("a"), assistant("")]}, {"messages": []}])
def test_one_row_does_not_stop_a_file_of_conversations(tmp_path: Path, row: Any) -> None:
    path = tmp_path / "c.jsonl"
    good = {"messages": [user("a")]}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    with pytest.warns(UserWarning, match=r"left out 1 of 2 rows that hold no .*: 1 with an empty"):
        assert read_conversations(path) == [Conversation((user("a"),))]


# The Hub

ROWS = [{"prompt": "a", "chosen": f"{i}", "rejected": "c"} for i in range(5)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace ``datasets`` by a module that records the calls and returns rows."""
    calls: list[dict[str, Any]] = []

    def load_dataset(name: str, **options: Any) -> Any:
        calls.append({"name": name, **options})
        return iter(ROWS)

    module = ModuleType("datasets")
    monkeypatch.setattr(module, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_hub_rows_go_through_the_same_parser(hub: list[dict[str, Any]]) -> None:
    read = read_hub("owner/name", "test", revision="v1")
    assert read == [PreferenceTriplet("a", f"{i}", "c") for i in range(5)]
    assert [t.chosen for t in read_hub("owner/name", limit=2)] == ["0", "1"]
    assert hub == [
        {"name": "owner/name", "split": "test", "streaming": False, "revision": "v1"},
        {"name": "owner/name", "split": "train", "streaming": True},
    ]
    with pytest.raises(
        ValueError, match=r"owner/name\[train\]: row 1: missing field 'instruction'"
    ):
        read_hub("owner/name", format="alpaca-eval")
    with pytest.raises(ValueError, match="limit is -1"):
        read_hub("owner/name", limit=-1)


def test_hub_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"cvxnn\[data\]"):
        read_hub("owner/name")


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 2])
def test_a_true_data_set(tmp_path: Path, limit: int | None) -> None:
    """The library itself reads a file instead of the Hub."""
    pytest.importorskip("datasets")
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    read = read_hub("json", limit=limit, data_files=str(path), cache_dir=str(tmp_path / "cache"))
    assert read == read_preferences(path, limit=limit)


def test_types_name_the_known_formats() -> None:
    assert {*get_args(ReadFormat)} == {"auto", *FORMATS}
    assert {*get_args(WriteFormat)} == {name for name, known in FORMATS.items() if known.write}


def test_an_empty_row_is_said_to_be_empty(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="2: the row is empty; expected fields"):
        read_preferences(file)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


TRANSCRIPT = "\n\nHuman: How is number {0}?\n\nAssistant: "
EXAMPLES: dict[str, Any] = {
    "hh-rlhf": lambda k: {n: TRANSCRIPT.format(k) + n for n in ("chosen", "rejected")},
    "hh-rlhf with prompts": lambda k: {
        "prompt": TRANSCRIPT.format(k).rstrip(),
        "chosen": "a",
        "rejected": "b",
    },
    "standard": lambda k: {"prompt": f"q {k}", "chosen": "a", "rejected": "b"},
    "implicit": lambda k: {"chosen": f"How is {k}? Good", "rejected": f"How is {k}? Bad"},
    "ultrafeedback": lambda k: {
        "instruction": f"q {k}",
        "completions": [
            {"response": "a", "overall_score": 3},
            {"response": "b", "overall_score": 1},
        ],
    },
    "alpaca-eval": lambda k: {
        "instruction": f"q {k}",
        "output_1": "a",
        "output_2": "b",
        "preference": 2,
    },
    "llama-factory": lambda k: {"instruction": f"q {k}", "chosen": "a", "rejected": "b"},
    "sharegpt": lambda k: {
        "conversations": [{"from": "human", "value": f"q {k}"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
    },
}


@settings(max_examples=20)
@given(data=st.data(), n=st.integers(3, 12))
@pytest.mark.parametrize("format", EXAMPLES)
def test_one_broken_text_stops_no_file(format: str, data: Any, n: int) -> None:
    rows = [EXAMPLES[format](k) for k in range(n)]
    broken = data.draw(st.integers(0, n - 1))
    field = data.draw(st.sampled_from(sorted(rows[broken])))
    texts = [None]
    if not isinstance(rows[broken][field], dict | list | int):
        texts += ["", "  ", "no marks"]
    text = rows[broken][field] = data.draw(st.sampled_from(texts))
    with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_preferences(lines(Path(folder) / "a.jsonl", *rows))
    assert len(found) in (n, n - 1)
    if text is None and "hh-rlhf" in format:
        assert len(found) == n - 1
    assert len(caught) == n - len(found)
    assert not caught or f"left out 1 of {n} rows" in str(caught[0].message)
    # The others are as they would be without it.
    if len(found) < n:
        del rows[broken]
        with TemporaryDirectory() as folder:
            assert read_preferences(lines(Path(folder) / "a.jsonl", *rows)) == found


@pytest.mark.parametrize(("n_odd", "n"), [(1, 1), (2, 17), (3, 20)])
def test_many_rows_of_another_format_stop_the_file(n_odd: int, n: int, tmp_path: Path) -> None:
    marked, plain = EXAMPLES["hh-rlhf"], EXAMPLES["standard"]
    path = lines(tmp_path / "a.jsonl", *map(marked, range(n)), *map(plain, range(n_odd)))
    with pytest.raises(ValueError, match=r"is of the format 'standard', but .*split the file"):
        read_preferences(path)
    path = lines(tmp_path / "b.jsonl", *map(plain, range(20)), marked(0))
    with pytest.raises(ValueError, match=":21: this row is of the format 'hh-rlhf'"):
        read_preferences(path)


def test_rows_without_marks_are_left_out_wherever_they_are(tmp_path: Path) -> None:
    marked, plain = EXAMPLES["hh-rlhf"], EXAMPLES["standard"]
    expected = read_preferences(lines(tmp_path / "a.jsonl", *map(marked, range(38))))
    for places in ((0, 1), (5, 30), (38, 39)):
        rows = [*map(marked, range(38))]
        for place in places:
            rows.insert(place, plain(0))
        path = lines(tmp_path / "b.jsonl", *rows)
        with pytest.warns(UserWarning, match="left out 2 of 40 rows .*: 2 with a prompt that"):
            assert read_preferences(path) == expected
