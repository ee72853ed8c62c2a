"""Answers of a judge, kept in a file that survives a killed run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Order = Literal["ab", "ba"]


class Log:
    """Answers by question and order, and the file that they are appended to."""

    HEAD = b'{"format": "cvxnn-judge-log", "version": 1}\n'

    def __init__(self, path: Path | None) -> None:
        self.known: dict[tuple[str, Order], float] = {}
        self.path = path
        if path is None:
            return
        content = path.read_bytes() if path.exists() else b""
        if not content.startswith(self.HEAD):
            if not self.HEAD.startswith(content):  # else killed while it wrote the first line
                raise ValueError(
                    f"{path} is not a log of judgements; name a file that does not exist yet"
                )
            path.write_bytes(self.HEAD)
            return
        end = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:end].splitlines()[1:], start=2):
            try:
                row = json.loads(line)
                if not 0.0 <= row["first"] <= 1.0:
                    raise ValueError("'first' is no preference")
                self.known[row["key"], row["shown"]] = row["first"]
            except (ValueError, KeyError, TypeError) as error:
                if number == content.count(b"\n"):
                    end = content.rfind(b"\n", 0, end - 1) + 1
                    break
                raise ValueError(
                    f"{path}:{number}: the log is damaged ({error}); remove this line, and its "
                    "question is asked again"
                ) from error
        if end < len(content):
            os.truncate(path, end)

    def add(self, answers: Iterable[tuple[str, Order, float]]) -> None:
        """Remember answers, and write them."""
        lines = []
        for key, shown, first in answers:
            self.known[key, shown] = first
            lines.append(json.dumps({"key": key, "shown": shown, "first": first}) + "\n")
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write("".join(lines).encode())
