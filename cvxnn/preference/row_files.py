"""Files of rows: JSON lines, JSON arrays and tables, gzipped or not, and Parquet.

All rows that cvxnn reads come through `read_rows`.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cvxnn._extras import require
from cvxnn.files.writing import decode, replacing
from cvxnn.preference.row_checks import Row, check_limit
from cvxnn.preference.text_checks import kind

_JSON = (".jsonl", ".ndjson", ".json", "")
_TABLES = {".csv": ",", ".tsv": "\t"}
_ENDINGS = (*_JSON[:3], *_TABLES, ".parquet")
_FEATURES = "features.npy"  # beside such a file, or its shards, lie no rows of a user's
_SPACE = re.compile(r"[ \t\n\r]*")


def read_rows(path: str | os.PathLike[str], limit: int | None = None) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file, each with its place: the file and the line.

    Parameters
    ----------
    path : path-like
        A name that ends in ``.parquet`` is read as Parquet (needs pyarrow, the extra "data"). One
        that ends in ``.jsonl``, ``.ndjson`` or ``.json``, in any of these with ``.gz``, or that has
        no ending is read as JSON in UTF-8: if it begins with ``[``, it is one array of objects;
        otherwise each line is an object. One that ends in ``.csv`` (commas) or ``.tsv`` (tabs), or
        in these with ``.gz``, is a table in UTF-8 with the names of the fields in its first line;
        an empty cell is null. Capital letters make no difference. Of a
        folder, all files with these endings are read, in the order of their names.
    limit : int, optional
        Number of rows to read, at least 1; by default all.

    Yields
    ------
    where : str
        Place of the row, for messages.
    row : dict
        Fields of the row by name.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ImportError
        If pyarrow is needed and missing; install the extra "data".
    ValueError
        If `limit` is below 1, if the folder is one of features, or if the file is of another kind,
        empty, damaged, not in UTF-8, or has a row that is not an object; the message names the file
        and the line.
    """
    check_limit(limit)
    path = Path(path)
    number = 0
    for where, row in _rows(path):
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, got {kind(row)}")
        yield where, row
        number += 1
        if number == limit:
            break
    if number == 0:
        raise ValueError(f"{path}: the file is empty; expected at least one row")


def write_rows(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Write rows to a file, which appears under its name only when it is complete.

    Parameters
    ----------
    path : path-like
        A name that ends in ``.parquet`` is written as Parquet (needs pyarrow, the extra "data"),
        the other names of `read_rows` as JSON lines, compressed if the name ends in ``.gz``.
    rows : sequence of dict
        Fields of each row by name.

    Raises
    ------
    ImportError
        If pyarrow is needed and missing; install the extra "data".
    ValueError
        If the name has another ending; choose one of those above.
    """
    path = Path(path)
    is_json = _is_json(path)
    if _ending(path) in _TABLES:
        raise ValueError(f"{path}: tables are read only; expected .jsonl, .json or .parquet")
    with replacing(path) as temporary:
        if not is_json:
            table = require("pyarrow", extra="data").Table.from_pylist(rows)
            require("pyarrow.parquet", extra="data").write_table(table, temporary)
        else:
            data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
            temporary.write_bytes(gzip.compress(data, mtime=0) if _is_gzip(path) else data)


def rows_so_far(path: Path, key: str, settings: Mapping[str, Any]) -> dict[Any, Row]:
    """Return the rows of a file of JSON lines that grows, and remove a line that was cut short.

    Parameters
    ----------
    path : pathlib.Path
        The file, which need not exist; the caller holds ``locked``.
    key : str
        Field that tells rows apart.
    settings : mapping
        Fields that all rows have with these values.

    Returns
    -------
    dict
        Rows by key.

    Raises
    ------
    ValueError
        If a row has other settings; choose another file.
    """
    if not path.exists():
        return {}
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    rows = {row[key]: row for _, row in read_rows(path)} if end else {}
    for row in rows.values():
        other = {name: row.get(name) for name in settings}
        if other != settings:
            raise ValueError(f"{path} was made with {other}, not {settings}; choose another file")
    return rows


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.is_dir():
        if any(path.glob(f"{_FEATURES}*")):
            raise ValueError(
                f"{path} is a folder of features, as cvxnn extract writes; expected a file of "
                "rows, such as the pairs that it was made from (cvxnn fit, compare and score take "
                "the folder as it is)"
            )
        files = [file for file in sorted(path.iterdir()) if _ending(file) in _ENDINGS]
        if not files:
            raise ValueError(f"{path}: the folder has no file that ends in {_named()}")
        for file in files:
            yield from _rows(file)
    elif _is_json(path):
        yield from _json_rows(path)
    elif _ending(path) in _TABLES:
        yield from _table_rows(path)
    else:
        yield from _parquet_rows(path)


def _ending(path: Path) -> str:
    """Return the end of a name that tells what the file holds, without that of compression."""
    return Path(path.stem if _is_gzip(path) else path.name).suffix.lower()


def _named() -> str:
    return ".jsonl, .ndjson, .json, .csv, .tsv (each also with .gz) or .parquet"


def _is_json(path: Path) -> bool:
    """Return whether a file holds JSON, and not Parquet or a table. Refuse any other."""
    ending = _ending(path)
    if ending not in (*_JSON, *_ENDINGS) or (ending == ".parquet" and _is_gzip(path)):
        raise ValueError(
            f"{path}: cannot tell what the file holds from the end of its name; expected "
            f"{_named()}. Convert or rename it"
        )
    return ending in _JSON


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    lines = _lines(path)
    array = None
    for number, line in lines:
        if line.isspace():
            continue
        array = line.lstrip().startswith(b"[") if array is None else False
        if array:
            yield from _array_items(path, b"".join([line, *(more for _, more in lines)]), number)
            return
        where = f"{path}:{number}"
        text = decode(line, str(path), number)
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{where}: not valid JSON ({error}); expected one complete object per line, or one "
                "array of objects"
            ) from error
        yield where, row


def _array_items(path: Path, data: bytes, line: int) -> Iterator[tuple[str, Any]]:
    """Yield the items of a JSON array whose first line has the number ``line``."""
    text = decode(data, str(path), line)
    decoder = json.JSONDecoder()
    start = text.index("[") + 1
    item, counted, separator = 0, 0, ","
    while separator == ",":
        start = _blank_end(text, start)
        if item == 0 and text[start : start + 1] == "]":
            start += 1
            break
        line, counted = line + text.count("\n", counted, start), start
        where = f"{path}:{line} (item {item + 1})"
        try:
            value, start = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise ValueError(f"{where}: not valid JSON ({reason})") from error
        start = _blank_end(text, start)
        separator = text[start : start + 1]
        if separator not in (",", "]"):
            raise ValueError(f"{where}: not valid JSON (expected ',' or ']' after the item)")
        yield where, value
        item, start = item + 1, start + 1
    if text[start:].strip(" \t\n\r"):
        raise ValueError(f"{path}: not valid JSON (text after the end of the array)")


def _table_rows(path: Path) -> Iterator[tuple[str, Any]]:
    def lines() -> Iterator[str]:
        for number, line in _lines(path):
            yield decode(line, str(path), number)

    longest = csv.field_size_limit(sys.maxsize)  # replies may be longer than the default allows
    try:
        reader = csv.reader(lines(), delimiter=_TABLES[_ending(path)], strict=True)
        names, line = next(reader, []), 2
        if len(names) == 1 and ";" in names[0]:
            raise ValueError(
                f"{path}:1: one name, {names[0]!r:.80}; expected names with commas (.csv) or tabs "
                "(.tsv) between them, not semicolons: save the table with one of these"
            )
        if len(set(names)) < len(names) or "" in names:
            raise ValueError(
                f"{path}:1: the names of the fields are {names}; expected a different one for each "
                "column"
            )
        for cells in reader:
            where = f"{path}:{line}"
            line = reader.line_num + 1
            if cells and len(cells) != len(names):
                raise ValueError(
                    f"{where}: {len(cells)} cells, but the first line has {len(names)} names; "
                    "quote cells that contain the separator"
                )
            if cells:
                yield where, {name: c or None for name, c in zip(names, cells, strict=True)}
    except csv.Error as error:
        raise ValueError(f"{path}:{line}: not a valid table ({error})") from error
    finally:
        csv.field_size_limit(longest)


def _blank_end(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines as bytes, so that a decoding error can be attributed to one line."""
    number = 0
    try:
        with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such file: {path}") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}:{number + 1}: the gzip data is damaged or cut short ({error}); "
            "copy the file again"
        ) from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    arrow, parquet = (require(name, extra="data") for name in ("pyarrow", "pyarrow.parquet"))
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: the Parquet data after row {number} is damaged ({error}); copy the file again"
        ) from error
