"""The line that says how much of long work is done."""

from __future__ import annotations

import io
import time

import pytest

from cvxnn import _progress
from cvxnn._progress import Phases, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time in seconds, as its only entry."""
    now = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_every_thirty_seconds(clock: list[float]) -> None:
    file = io.StringIO()
    with Progress("embedding", 1200, "replies", stream=file) as progress:
        progress.update(200, skipped=True)  # in no time: it does not count for the rest
        for _ in range(10):
            clock[0] += 10.0
            progress.update(100, note="loss 1")
    # 300 replies in 30 s, 700 left.
    assert file.getvalue().split("\n") == [
        "embedding 500 of 1,200 replies (41 %), 30 s, about 1 min 10 s left, loss 1",
        "embedding 800 of 1,200 replies (66 %), 1 min 00 s, about 40 s left, loss 1",
        "embedding 1,100 of 1,200 replies (91 %), 1 min 30 s, about 10 s left, loss 1",
        "",
    ]


@pytest.mark.parametrize(
    ("total", "unit", "said"),
    [
        (1, "replies", "1 of 1 reply (100 %)"),
        (1, "tensors read", "1 of 1 tensor read"),
        (2, "prompts", "1 of 2 prompts (50 %)"),
    ],
)
def test_one_is_in_the_singular(
    clock: list[float], total: int | None, unit: str, said: str
) -> None:
    file = io.StringIO()
    with Progress("work", total, unit, stream=file) as progress:
        clock[0] += 30.0
        progress.update()
    assert said in file.getvalue()


def test_a_terminal_gets_one_line(clock: list[float]) -> None:
    terminal = Terminal()
    with Progress("steps", None, "steps", stream=terminal) as progress:
        for _ in range(8):
            clock[0] += 0.25
            progress.update()
    texts = terminal.getvalue().split("\r")
    assert terminal.getvalue().endswith("\n")
    assert terminal.getvalue().count("\n") == 1
    assert texts[-1].startswith("steps     8 steps, 2 s")
    assert len(texts) == 10  # one after each 0.2 s, and the last
    assert len({len(text.rstrip("\n")) for text in texts[2:]}) <= 2  # longer ones are overwritten


def test_short_or_quiet_work_writes_nothing(clock: list[float]) -> None:
    file = io.StringIO()
    for show in (True, False):
        with Progress("embedding", 10, "replies", show=show, stream=file) as progress:
            clock[0] += 20.0 if show else 100.0
            progress.update(10)
    assert file.getvalue() == ""


def test_phases_say_which_runs_and_what_is_left(clock: list[float]) -> None:
    phases = Phases("fit", {"COALA": 3.0, "linear head": 1.0, "all pairs": 4.0}, show=False)
    clock[0] = 30.0
    said = "fit       COALA (1 of 3), 30 s, time left known from linear head on"
    assert phases.text() == said
    clock[0] = 60.0
    phases.enter("linear head")
    assert phases.text() == "fit       linear head (2 of 3), 1 min 00 s, about 1 min 40 s left"
    clock[0] = 70.0
    assert phases.text().endswith("1 min 10 s, about 1 min 30 s left")
    phases.enter("all pairs")
    assert phases.text().endswith("(3 of 3), 1 min 10 s, about 1 min 10 s left")
    text = Phases("fit", {"COALA": 1.0}, show=False).text()
    assert text == "fit       COALA, 0 s, time left not known: it ends where it has converged"


def test_phases_write_while_the_work_says_nothing() -> None:
    file = io.StringIO()
    with Phases("fit", {"COALA": 1.0}, stream=file, pause=0.001):
        while file.getvalue().count("\n") < 2:
            time.sleep(0.001)
    assert file.getvalue().startswith("fit       COALA, ")
    quiet = io.StringIO()
    with Phases("fit", {"COALA": 1.0}, stream=quiet):
        pass
    assert quiet.getvalue() == ""
