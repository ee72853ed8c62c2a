"""Log of a judge's answers, with which an interrupted run is resumed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from cvxnn.files.locks import locked
from cvxnn.files.writing import MALFORMED, Closing, append

Order = Literal["ab", "ba"]


class JudgeLog(Closing):
    """Answers by question and order, and the file to which they are appended; a context manager.

    A second log of the same file, in another process, waits until the block of the first ends.

    Parameters
    ----------
    path : Path or None
        The file, which is created if it does not exist; None keeps the answers in memory only.

    Attributes
    ----------
    known : dict of (str, "ab" or "ba") to float
        Preference for the reply shown first, by the key of the question and the order.

    Raises
    ------
    ValueError
        If the file is not a log of judgements, or if one of its lines is damaged.
    """

    HEAD = b'{"format": "cvxnn-judge-log", "version": 1}\n'

    def __init__(self, path: Path | None) -> None:
        self.known: dict[tuple[str, Order], float] = {}
        self.path = path
        self._lock = contextlib.ExitStack()
        if path is not None:
            with self._lock:
                self._lock.enter_context(locked(path))
                self._read(path)
                self._lock = self._lock.pop_all()

    def close(self) -> None:
        """Let other processes write; the log cannot be used afterwards."""
        self._lock.close()

    def _read(self, path: Path) -> None:
        content = path.read_bytes() if path.exists() else b""
        if not content.startswith(self.HEAD):
            if not self.HEAD.startswith(content):  # else the first line was not completed
                raise ValueError(
                    f"{path} is not a log of judgements; choose a file that does not exist yet"
                )
            path.unlink(missing_ok=True)
            append(path, self.HEAD)
            return
        end = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:end].split(b"\n")[1:-1], start=2):
            try:
                row = json.loads(line)
                if not 0.0 <= row["first"] <= 1.0:
                    raise ValueError("'first' is not a number from 0 to 1")
                self.known[row["key"], row["shown"]] = row["first"]
            except MALFORMED as error:
                if number == content.count(b"\n"):
                    end = content.rfind(b"\n", 0, end - 1) + 1
                    break
                raise ValueError(
                    f"{path}:{number}: the log is damaged ({error}); remove this line, so that "
                    "its question is asked again"
                ) from error
        if end < len(content):
            os.truncate(path, end)

    def add(self, answers: Iterable[tuple[str, Order, float]]) -> None:
        """Store answers and append them to the file.

        Parameters
        ----------
        answers : iterable of (str, "ab" or "ba", float)
            Key of the question, order of presentation, and preference for the reply shown first.
        """
        answers = list(answers)
        if self.path is not None:
            lines = [json.dumps({"key": k, "shown": shown, "first": p}) for k, shown, p in answers]
            append(self.path, "".join(f"{line}\n" for line in lines).encode())
        self.known.update(((key, shown), first) for key, shown, first in answers)
