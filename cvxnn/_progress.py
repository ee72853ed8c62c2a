"""Progress of long work on stderr: how much is done, and how long the rest will take."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

from cvxnn.files.writing import Closing

_REWRITTEN, _PRINTED = 0.2, 30.0  # least seconds between two texts: on a terminal, and elsewhere


class _Line:
    """Line on a stream: rewritten on a terminal and in a notebook, followed by others elsewhere."""

    def __init__(self, stream: TextIO | None, rewrites: bool | None) -> None:
        self.stream = sys.stderr if stream is None else stream
        if rewrites is None:
            rewrites = self.stream.isatty() or "ipykernel" in sys.modules
        self.rewrites, self.width = rewrites, 0

    def write(self, text: str) -> None:
        if self.rewrites:
            print(f"\r{text:<{self.width}}", end="", file=self.stream, flush=True)
            self.width = len(text)
        else:
            print(text, file=self.stream, flush=True)

    def end(self, text: str) -> None:
        """End the line with a text, if it was begun."""
        if self.width and self.rewrites:
            self.write(text)
            print(file=self.stream, flush=True)


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
        self._show, self._line = show, _Line(stream, rewrites)
        self._done = self._skipped = done
        self._began = self._written = time.monotonic()

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
        pause = _REWRITTEN if self._line.rewrites else _PRINTED
        if self._show and time.monotonic() - self._written >= pause:
            self._write(note)

    def close(self) -> None:
        """End the line, if it was begun."""
        self._line.end(self._text(time.monotonic() - self._began, ""))

    def _write(self, note: str) -> None:
        self._written = time.monotonic()
        self._line.write(self._text(self._written - self._began, note))

    def _text(self, seconds: float, note: str) -> str:
        unit = _of_one(self._unit) if self._total == 1 else self._unit
        parts = [f"{self._label:<9} {self._done:,} {unit}"]
        if self._total:
            parts[0] = (
                f"{self._label:<9} {self._done:,} of {self._total:,} {unit} "
                f"({100 * self._done // self._total} %)"
            )
        parts.append(seconds_text(seconds))
        new = self._done - self._skipped
        if self._total and new > 0 and self._done < self._total:
            left = (self._total - self._done) * seconds / new
            parts[-1] += f", about {seconds_text(left)} left"
        return ", ".join([*parts, *([note] if note else [])])


def _of_one(unit: str) -> str:
    """Return the singular of a name such as ``"replies"`` or ``"tensors read"``."""
    noun, *rest = unit.split(" ")
    noun = f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")
    return " ".join([noun, *rest])


class Phases(Closing):
    """Line that says which of a few long phases runs, and how long the rest will take.

    What runs says nothing of itself, so a thread writes the line, every second on a terminal and
    every 30 seconds elsewhere. What is left is known once a phase has ended, and the line says so
    until then; a context manager.

    Parameters
    ----------
    label : str
        What is being done.
    phases : mapping of str to float
        Names of the phases in their order, and how long each takes in proportion to the others.
    show : bool, default=True
        Whether to write at all.
    stream : text file, optional
        Where to write; by default stderr.
    pause : float, optional
        Seconds between two lines; by default as above.
    """

    def __init__(
        self,
        label: str,
        phases: Mapping[str, float],
        *,
        show: bool = True,
        stream: TextIO | None = None,
        pause: float | None = None,
    ) -> None:
        self._label, self._phases, self._line = label, dict(phases), _Line(stream, None)
        self._pause = (1.0 if self._line.rewrites else _PRINTED) if pause is None else pause
        self._began = self._entered = time.monotonic()
        self._number, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        if show:
            self._thread.start()

    def enter(self, name: str) -> None:
        """Say that a phase begins, and that those before it have ended.

        Parameters
        ----------
        name : str
            Name of the phase.
        """
        self._number, self._entered = [*self._phases].index(name), time.monotonic()

    def close(self) -> None:
        """End the line."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._line.end(self.text())

    def text(self) -> str:
        """Return the line.

        Returns
        -------
        str
            The present phase, the time since the first began, and the time that is left, or from
            when on it will be known.
        """
        names, sizes, now = [*self._phases], [*self._phases.values()], time.monotonic()
        number = f" ({self._number + 1} of {len(names)})" if len(names) > 1 else ""
        text = f"{self._label:<9} {names[self._number]}{number}, {seconds_text(now - self._began)}"
        done, rest = sum(sizes[: self._number]), sum(sizes[self._number :])
        if not done and len(names) > 1:
            text += f", time left known from {names[1]} on"
        elif not done:
            text += ", time left not known: it ends where it has converged"
        else:
            left = (self._entered - self._began) * rest / done - (now - self._entered)
            text += f", about {seconds_text(max(left, 1.0))} left"
        return text

    def _follow(self) -> None:
        while not self._over.wait(self._pause):
            self._line.write(self.text())


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
