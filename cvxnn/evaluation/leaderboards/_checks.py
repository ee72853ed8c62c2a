"""Checks that the files of all leaderboards share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cvxnn.preference.rows import check_text

PathLike = str | os.PathLike[str]


def texts(value: Any, where: str, field: str, *, blank: bool = False) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list):
        raise ValueError(f"{where}: {field!r} is {value!r:.40}; expected a list of strings")
    for i, text in enumerate(value):
        check_text(text, where, f"{field}[{i}]", blank=blank)
    return tuple(value)


def whole(value: Any, where: str, field: str) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: {field!r} is {value!r:.40}; expected a whole number")
    return value


def one(names: Sequence[str], what: str, field: str) -> str:
    """The one name that all rows have."""
    different = sorted(set(names))
    if len(different) != 1:
        raise ValueError(
            f"{field} is {different} in {len(names)} {what}; expected at least one of {what}, all "
            "of one model: write a file for each"
        )
    return different[0]


def distinct(values: Sequence[Any], field: str) -> None:
    """Refuse no values, and one that comes twice."""
    if not values:
        raise ValueError("there is nothing to write; expected at least one row")
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{field} {value!r:.60} comes twice; expected each once")
        seen.add(value)
