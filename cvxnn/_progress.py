"""Progress of long work on stderr: how much is done, and how long the rest will take."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from cvxnn.files.writing import Closing

_REWRITTEN, _PRINTED = 0.2, 30.0  # least seconds between two texts: on a terminal, and elsewhere


class Progress(Closing):
    """Line that says how much is done; a context manager.

    On a terminal and in a notebook, the line is rewritten. Elsewhere, such as in a file, there is a
    line every 30 seconds.

    Parameters
    ----------
    label : str
        What is being done.
    total : int or None
        Number of units of the whole work; None if it is not known.
    unit : str
        Name of several units, such as ``"replies"``.
    show : bool, default=True
        Whether to write at all.
    done : int, default=0
        Number of units that an earlier run finished.
    stream : text file, optional
        Where to write; by default stderr.
    rewrites : bool, optional
        Whether the line is rewritten; by default on a terminal and in a notebook.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        *,
        show: bool = True,
        done: int = 0,
        stream: TextIO | None = None,
        rewrites: bool | None = None,
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._show, self._stream = show, sys.stderr if stream is None else stream
        if rewrites is None:
            rewrites = self._stream.isatty() or "ipykernel" in sys.modules
        self._rewrites = rewrites
        self._done = self._skipped = done
        self._began = self._written = time.monotonic()
        self._width = 0

    def update(self, n: int = 1, note: str = "", *, skipped: bool = False) -> None:
        """Count finished units.

        Parameters
        ----------
        n : int, default=1
            Their number.
        note : str, default=""
            What to say beside them.
        skipped : bool, default=False
            Whether an earlier run finished them: they say nothing about the time of the others.
        """
        self._done += n
        self._skipped += n if skipped else 0
        pause = _REWRITTEN if self._rewrites else _PRINTED
        if self._show and time.monotonic() - self._written >= pause:
            self._write(note)

    def close(self) -> None:
        """End the line, if it was begun."""
        if self._width and self._rewrites:
            self._write("")
            print(file=self._stream, flush=True)

    def _write(self, note: str) -> None:
        self._written = time.monotonic()
        text = self._text(self._written - self._began, note)
        if self._rewrites:
            print(f"\r{text:<{self._width}}", end="", file=self._stream, flush=True)
            self._width = len(text)
        else:
            print(text, file=self._stream, flush=True)

    def _text(self, seconds: float, note: str) -> str:
        parts = [f"{self._label:<9} {self._done:,} {self._unit}"]
        if self._total:
            parts[0] = (
                f"{self._label:<9} {self._done:,} of {self._total:,} {self._unit} "
                f"({100 * self._done // self._total} %)"
            )
        parts.append(seconds_text(seconds))
        new = self._done - self._skipped
        if self._total and new > 0 and self._done < self._total:
            left = (self._total - self._done) * seconds / new
            parts[-1] += f", about {seconds_text(left)} left"
        return ", ".join([*parts, *([note] if note else [])])


def seconds_text(value: float | None) -> str:
    """Return the text of a duration, such as "0.42 s", "3 min 20 s" or "2 h 05 min".

    Parameters
    ----------
    value : float or None
        Duration in seconds; None stands for an unknown one.

    Returns
    -------
    str
        The text; a dash for None.
    """
    if value is None:
        return "–"
    if round(value) >= 3600:
        return f"{round(value / 60) // 60} h {round(value / 60) % 60:02d} min"
    if value >= 60:
        return f"{round(value) // 60} min {round(value) % 60:02d} s"
    return f"{value:.3g} s"
