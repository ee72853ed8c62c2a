"""Files of rows: JSON lines, JSON arrays, both gzipped or not, and Parquet."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cvxnn._extras import require
from cvxnn._files import replacing
from cvxnn.preference.row_checks import Row, check_limit
from cvxnn.preference.text_checks import kind

_SPACE = re.compile(r"[ \t\n\r]*")


def read_rows(path: str | os.PathLike[str], limit: int | None = None) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file, each with its place: the file and the line.

    Parameters
    ----------
    path : path-like
        A name that ends in ``.parquet`` is read as Parquet (needs pyarrow, the extra "data"), every
        other name as JSON, which is decompressed if the name ends in ``.gz``. JSON that begins with
        ``[`` is one array of objects; otherwise each line is an object.
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
        If `limit` is below 1, or if the file is empty, damaged, or has a row that is not an object;
        the message names the file and the line.
    """
    check_limit(limit)
    path = Path(path)
    number = 0
    for where, row in _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path):
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
        every other name as JSON lines, which are compressed if the name ends in ``.gz``.
    rows : sequence of dict
        Fields of each row by name.

    Raises
    ------
    ImportError
        If pyarrow is needed and missing; install the extra "data".
    """
    path = Path(path)
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            table = require("pyarrow", extra="data").Table.from_pylist(rows)
            require("pyarrow.parquet", extra="data").write_table(table, temporary)
        else:
            data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
            temporary.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


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
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{where}: not valid JSON ({error}); expected one complete object per line, or one "
                "array of objects"
            ) from error
        yield where, row


def _array_items(path: Path, data: bytes, line: int) -> Iterator[tuple[str, Any]]:
    """Yield the items of a JSON array whose first line has the number ``line``."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise ValueError(f"{path}:{line}: not valid JSON ({error})") from error
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


def _blank_end(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines as bytes, so that a decoding error can be attributed to one line."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
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
