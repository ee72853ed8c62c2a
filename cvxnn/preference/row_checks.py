"""Checks of rows and of their fields; each error names the row's place and the field."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from cvxnn.preference.text_checks import check_is_text, kind
from cvxnn.preference.triplets import ROLES, Message

Row = dict[str, Any]
"""One object of a file: its fields by name."""


class EmptyTextError(ValueError):
    """Text of a row that is blank or null, or a conversation without messages."""


def check_limit(limit: int | None) -> None:
    """Raise ValueError if a number of rows is given that is not positive."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected a positive number of rows, or None for all")


def required_fields(row: Row, fields: Iterable[str], where: str) -> list[Any]:
    """Return the values of fields that a row must have."""
    for field in fields:
        if field not in row:
            raise ValueError(f"{where}: missing field {field!r}; the row has {sorted(row)}")
    return [row[field] for field in fields]


def messages_or_text(value: Any, where: str, field: str) -> list[Message]:
    """Return messages, of which the last may be blank; a text becomes an assistant message."""
    if isinstance(value, list):
        return parse_messages(value, where, field, blank_end=True)
    check_text(value, where, field, blank=True)
    return [{"role": "assistant", "content": value}]


def parse_messages(value: Any, where: str, field: str, *, blank_end: bool = False) -> list[Message]:
    """Return checked messages, each with its role and its content only."""
    if not isinstance(value, list):
        raise ValueError(f"{where}: {field!r} is {kind(value)}; expected a list of messages")
    if not value:
        raise EmptyTextError(f"{where}: {field!r} is an empty list; expected at least one message")
    messages = []
    for i, message in enumerate(value):
        name = f"{field}[{i}]"
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ValueError(f"{where}: {name!r} is not a message with 'role' and 'content'")
        if message["role"] not in ROLES:
            raise ValueError(
                f"{where}: {name!r} has the role {message['role']!r}; expected {ROLES}"
            )
        blank = blank_end and i == len(value) - 1
        check_text(message["content"], where, f"{name}.content", blank=blank)
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def check_text(value: Any, where: str, field: str, *, blank: bool = False) -> None:
    """Raise ValueError unless a value is text, which may be blank only if ``blank`` is true."""
    if value is None or (isinstance(value, str) and not blank and not value.strip()):
        found = "null" if value is None else "empty"
        raise EmptyTextError(f"{where}: {field!r} is {found}; expected some text")
    check_is_text(value, f"{where}: {field!r}", blank=blank)


def optional_name(row: Row, fields: Iterable[str], where: str) -> str | None:
    """Return the first of the fields that is present, as text, or None."""
    for field in fields:
        value = row.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise ValueError(
                f"{where}: {field!r} is {kind(value)}; expected a non-empty string or integer"
            )
        if isinstance(value, str):
            check_text(value, where, field, blank=True)
        return str(value)
    return None


def optional_number(value: Any, where: str, field: str) -> float | None:
    """Return a number, or None for null and for NaN, with which tables represent null."""
    if value is None:
        return None
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.inf
    if abs(number) > sys.float_info.max:
        raise ValueError(f"{where}: {field!r} is {kind(value)}; expected a finite number")
    return None if math.isnan(number) else float(number)


def check_texts(value: Any, where: str, field: str, *, blank: bool = False) -> tuple[str, ...]:
    """Return a list of texts as a tuple, or raise ValueError."""
    if not isinstance(value, list):
        raise ValueError(f"{where}: {field!r} is {value!r:.40}; expected a list of strings")
    for i, text in enumerate(value):
        check_text(text, where, f"{field}[{i}]", blank=blank)
    return tuple(value)


def check_integer(value: Any, where: str, field: str) -> int:
    """Return an integer, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: {field!r} is {value!r:.40}; expected an integer")
    return value


def check_one_name(names: Sequence[str], what: str, field: str) -> str:
    """Return the name that all rows share, or raise ValueError."""
    different = sorted(set(names))
    if len(different) != 1:
        raise ValueError(
            f"{field} is {different} in {len(names)} {what}; expected at least one of {what}, all "
            "of one model: write one file for each model"
        )
    return different[0]


def check_distinct(values: Sequence[Any], field: str) -> None:
    """Raise ValueError if there are no values, or if a value is repeated."""
    if not values:
        raise ValueError("there is nothing to write; expected at least one row")
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{field} {value!r:.60} is repeated; expected each value once")
        seen.add(value)
