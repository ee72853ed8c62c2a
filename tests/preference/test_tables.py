"""Tables, and folders of files."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.preference import PreferenceTriplet, read_preferences
from cvxnn.preference.row_files import read_rows, write_rows

cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)


@given(
    rows=st.lists(st.lists(cells, min_size=2, max_size=2).filter(any), min_size=1, max_size=5),
    name=st.sampled_from(["t.csv", "t.TSV", "t.csv.gz"]),
)
@settings(max_examples=50, deadline=None)
def test_tables_of_pythons_writer_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], name: str
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t" if "TSV" in name else ",", lineterminator="\n")
    writer.writerows([["a", "b b"], *rows])
    data = buffer.getvalue().encode()
    path = tmp_path_factory.mktemp("tables") / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = [row for _, row in read_rows(path)]
    assert found == [
        {field: cell or None for field, cell in zip(("a", "b b"), row, strict=True)} for row in rows
    ]


def test_an_empty_cell_does_not_stop_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("prompt,chosen,rejected,group\nWhy?,So.,No.,\nWhy?,,No.,g\n,So.,No.,g\n")
    with pytest.warns(UserWarning, match=r"left out 2 of 3 rows .*: 1 with an empty text \(first"):
        assert read_preferences(path) == [PreferenceTriplet("Why?", "So.", "No.")]


def test_long_cells_and_lines_of_errors(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'a,b\n"x\ny",{"z" * 200_000}\n1,2,3\n')
    with pytest.raises(ValueError, match=r"t\.csv:4: 3 cells, but the first line has 2 names"):
        list(read_rows(path))
    assert csv.field_size_limit() < 200_000
    path.write_text("a,a\n1,2\n")
    with pytest.raises(ValueError, match="expected a different one for each column"):
        list(read_rows(path))
    path.write_text('a,b\n"1,2\n')
    with pytest.raises(ValueError, match=r"t\.csv:2: not a valid table"):
        list(read_rows(path))
    with pytest.raises(ValueError, match="tables are read only"):
        write_rows(path, [{"a": 1}])


def test_fields_of_other_names(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("question\twinner\tloser\tchosen\nWhy?\tSo.\tNo.\tx\n")
    names = {"prompt": "question", "chosen": "winner", "rejected": "loser"}
    assert read_preferences(path, fields=names) == [PreferenceTriplet("Why?", "So.", "No.")]
    with pytest.raises(ValueError, match=r"t\.tsv:2: missing field 'loser2'"):
        read_preferences(path, fields={**names, "rejected": "loser2"})


def test_folders_hold_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_rows(tmp_path / "b.jsonl", [{"n": 2}])
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "notes.txt").write_text("not data")
    assert [row["n"] for _, row in read_rows(tmp_path)] == ["1", 2]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no file that ends in \.jsonl"):
        list(read_rows(tmp_path / "empty"))
