"""Files of rows: JSON lines, JSON arrays, gzip, Parquet."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.preference.row_files import read_rows, write_rows

json_rows = st.lists(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=3),
        st.none() | st.integers() | st.text(st.characters(codec="utf-8")) | st.lists(st.booleans()),
        max_size=3,
    ),
    min_size=1,
    max_size=4,
)


def places(path: Path, limit: int | None = None) -> list[str]:
    return [where.removeprefix(str(path)) for where, _ in read_rows(path, limit)]


def rows(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path, limit)]


names = ["a.jsonl", "a.json", "a.jsonl.gz", "a.ndjson", "A.JSONL", "A.NDJSON.GZ", "a"]


@pytest.mark.slow
@given(given=json_rows, name=st.sampled_from(names))
def test_json_lines_round_trip(
    tmp_path_factory: pytest.TempPathFactory, given: Any, name: str
) -> None:
    path = tmp_path_factory.mktemp("rows") / name
    write_rows(path, given)
    assert rows(path) == given
    assert [entry.name for entry in path.parent.iterdir()] == [name]


@pytest.mark.slow
@given(
    given=json_rows,
    indent=st.sampled_from([None, 0, 2]),
    before=st.sampled_from(["", "\n \n", "\ufeff"]),
    compress=st.booleans(),
)
def test_arrays_have_the_rows_of_json_lines(
    tmp_path_factory: pytest.TempPathFactory, given: Any, indent: Any, before: str, compress: bool
) -> None:
    path = tmp_path_factory.mktemp("rows") / ("a.json.gz" if compress else "a.json")
    data = (before + json.dumps(given, indent=indent, ensure_ascii=False) + "\n").encode()
    path.write_bytes(gzip.compress(data) if compress else data)
    assert rows(path) == given
    assert rows(path, limit=1) == given[:1]


def test_places_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert places(path) == [":1", ":3"]
    path.write_text('\n[{"a": 1}, {"a":\n2},\n\n{"a": 3}]\n')
    assert places(path) == [":2 (item 1)", ":2 (item 2)", ":5 (item 3)"]
    assert places(path, limit=2) == [":2 (item 1)", ":2 (item 2)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a": ]', r"json:2 \(item 2\): not valid JSON \(Expecting value\)"),
        ('[{"a": 1},\n{"a": 2}', r"json:2 \(item 2\): not valid JSON \(expected ',' or ']'"),
        ('[{"a": 1},\n]', r"json:2 \(item 2\): not valid JSON"),
        ('[{"a": 1}]\n{"a": 2}', r"json: not valid JSON \(text after the end of the array\)"),
        ('[{"a": 1}]]', r"text after the end of the array"),
        ('[{"a": 1},\n\n3]', r"json:3 \(item 2\): expected a JSON object, got a number"),
        ('{"a": 1}\n[1]', r"json:2: expected a JSON object, got a list"),
        ('{"a":\n1}', r"json:1: not valid JSON"),
        ("[]", "the file is empty"),
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": ' * 100_000, "json:1: not valid JSON"),
    ],
)
def test_damaged_json_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        rows(path)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(ValueError, match=r"json:2: the byte 0xff is not text in UTF-8; save"):
        rows(path)
    path.write_bytes(b'[{"a": 1},\n{"a": "\xff"}]\n')
    with pytest.raises(ValueError, match=r"json:2: the byte 0xff is not text in UTF-8; save"):
        rows(path)


@pytest.mark.parametrize("name", ["a.xls", "a.txt", "a.jsonl.bz2", "a.parquet.gz", "a.json.bak"])
def test_other_kinds_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('{"a": 1}\n')
    for call in (rows, lambda path: write_rows(path, [{"a": 2}])):
        with pytest.raises(ValueError, match=rf"{name}: cannot tell .*; expected \.jsonl"):
            call(path)
    assert path.read_text() == '{"a": 1}\n'


def test_missing_file_and_odd_limit(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        with pytest.raises(FileNotFoundError, match=f"no such file: .*{name}"):
            rows(tmp_path / name)
    with pytest.raises(ValueError, match="limit is 0"):
        rows(tmp_path / "a.jsonl", limit=0)


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
def test_damaged_gzip_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.jsonl.gz"
    data = bytearray(gzip.compress(b'{"a": 1}\n' * 50))
    if damage == "flipped":
        data[-6] ^= 255  # the checksum
    path.write_bytes({"cut": data[:20], "flipped": data, "plain": b"plain text"}[damage])
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz:\d+: the gzip data is damaged"):
        rows(path)


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    given = [{"a": "x", "b": [{"c": "y"}]}, {"a": None, "b": []}]
    write_rows(path, given)
    assert rows(path) == given
    assert places(path) == [": row 1", ": row 2"]
    assert rows(path, limit=1) == given[:1]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["head", "cut", "middle"])
def test_damaged_parquet_is_named(tmp_path: Path, damage: str) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    write_rows(path, [{"a": "some text " * 20 + str(i)} for i in range(50)])
    data = bytearray(path.read_bytes())
    if damage == "middle":
        data[4:60] = bytes(56)
    path.write_bytes({"head": b"{}", "cut": data[: len(data) // 2], "middle": data}[damage])
    with pytest.raises(ValueError, match=r"a\.parquet: the Parquet data after row 0 is damaged"):
        rows(path)


def test_parquet_needs_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"cvxnn\[data\]"):
        rows(tmp_path / "a.parquet")
    with pytest.raises(ImportError, match=r"cvxnn\[data\]"):
        write_rows(tmp_path / "a.parquet", [{"a": 1}])
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    write_rows(path, [{"a": 1}])

    def fail(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space left"):
        write_rows(path, [{"a": 2}])
    monkeypatch.undo()
    assert rows(path) == [{"a": 1}]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["features.npy", "features.npy.2-of-8"])
def test_a_folder_of_features_has_no_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    (tmp_path / "features.json").write_text('{\n"settings": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"folder of features, as .* expected a file of rows"):
        rows(tmp_path)
