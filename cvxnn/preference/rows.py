"""Rows of JSON lines files, checked field by field: an error names file, line and field."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

Message = dict[str, str]
"""One turn of a conversation: ``{"role": ..., "content": ...}``."""

ROLES = ("system", "user", "assistant")

_T = TypeVar("_T")


def read_rows(
    path: str | os.PathLike[str], parse: Callable[[dict[str, Any], str], _T], limit: int | None
) -> list[_T]:
    """Parse the first ``limit`` lines; ``parse`` gets an object and its place, file and line."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected a positive number of rows, or None for all")
    rows: list[_T] = []
    for number, line in _lines(Path(path)):
        if line.isspace():
            continue
        where = f"{os.fspath(path)}:{number}"
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{where}: not valid JSON ({error}); expected one complete object a line"
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object, got {_kind(row)}")
        rows.append(parse(row, where))
        if len(rows) == limit:
            break
    if not rows:
        raise ValueError(f"{os.fspath(path)}: the file is empty; expected one JSON object a line")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield numbered raw lines: bytes, so that a decoding error belongs to one line."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such file: {path} (expected a JSON lines file)") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}:{number + 1}: the gzip data is damaged or cut short ({error}); "
            "copy the file again"
        ) from error


def messages_or_text(value: Any, where: str, field: str) -> list[Message]:
    """Messages, or a text as the one message of an assistant."""
    if isinstance(value, list):
        return parse_messages(value, where, field)
    check_text(value, where, field)
    return [{"role": "assistant", "content": value}]


def parse_messages(value: Any, where: str, field: str) -> list[Message]:
    """Checked messages, without further fields."""
    if not isinstance(value, list):
        raise ValueError(f"{where}: {field!r} is {_kind(value)}; expected a list of messages")
    if not value:
        raise ValueError(f"{where}: {field!r} is an empty list; expected at least one message")
    messages = []
    for i, message in enumerate(value):
        name = f"{field}[{i}]"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(f"{where}: {name!r} is not a message with 'role' and 'content'")
        if message["role"] not in ROLES:
            raise ValueError(
                f"{where}: {name!r} has the role {message['role']!r}; expected {ROLES}"
            )
        check_text(message["content"], where, f"{name}.content")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def check_text(value: Any, where: str, field: str) -> None:
    """Refuse what is no text, or a blank one."""
    if not isinstance(value, str):
        raise ValueError(f"{where}: {field!r} is {_kind(value)}; expected a string")
    if not value.strip():
        raise ValueError(f"{where}: {field!r} is empty; expected some text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: {field!r} is not valid Unicode ({error.reason})") from error


def optional_name(row: dict[str, Any], fields: Sequence[str], where: str) -> str | None:
    """First of the fields that is present, as text."""
    for field in fields:
        value = row.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ValueError(
                f"{where}: {field!r} is {_kind(value)}; expected a non-empty string or integer"
            )
        return str(value)
    return None


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(
        type(value), "a number" if isinstance(value, int | float) else type(value).__name__
    )
