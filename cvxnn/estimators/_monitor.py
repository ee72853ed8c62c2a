"""Watching of a fit: progress line and scikit-learn's callbacks; undoing one that fails."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from shutil import get_terminal_size
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin

from cvxnn.estimators._fit_plan import Plan
from cvxnn.estimators._validation import Validation
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.interrupts import no_interrupt_lost
from cvxnn.numerics.phases import tell, watched_by

Floats = NDArray[np.floating]
# Returns the present network.
Snapshot = Callable[[], TwoLayerNetwork]
# Called after each measurement; the fit stops where it returns true.
Hook = Callable[[Snapshot], bool]
# Shows a text, and takes whether it is a result, which stays, or the name of a phase.
Draw = Callable[[str, bool], None]
_SECONDS = 30.0  # between two results that are printed one below the other


class Monitor(NamedTuple):
    """One callback of a fit, which informs all observers.

    Attributes
    ----------
    show : callable or None
        Takes the newest row of the history.
    hook : callable or None
        Takes a function that returns the present network; its truth stops the fit.
    raw : callable
        Turns a network in the units of the program into one of raw features.
    """

    show: Callable[[dict[str, float]], None] | None
    hook: Hook | None
    raw: Callable[[TwoLayerNetwork], TwoLayerNetwork]

    def __bool__(self) -> bool:
        """Return whether there is an observer."""
        return self.show is not None or self.hook is not None

    def __call__(self, row: dict[str, float], snapshot: Snapshot) -> bool:
        """Pass a measurement to all observers; return whether to stop."""
        if self.show is not None:
            self.show(row)
        return self.hook is not None and bool(self.hook(lambda: self.raw(snapshot())))


class Watched(CallbackSupportMixin):
    """An estimator that reports its fit to scikit-learn's callbacks."""

    verbose: int

    def _begin_fit(self, X: Any, y: Any, weight: Any) -> Callable[[], Any]:
        """Report the begin of a fit to callbacks; return the function that reports its end."""
        context = self._init_callback_context(max_subtasks=None)
        task = self._task(X, y, weight)
        context.call_on_fit_task_begin(**task)
        return lambda: context.call_on_fit_task_end(**task, reconstruction_attributes={})

    def _task(self, X: Any, y: Any, weight: Any) -> dict[str, Any]:
        """Return the arguments of scikit-learn's callbacks for a task."""
        metadata = {} if weight is None else {"sample_weight": weight}
        return {"estimator": self, "X": X, "y": y, "metadata": metadata}

    def _hook(self, X: Any, y: Any, weight: Any, known: dict[str, Any]) -> Hook | None:
        """Return what calls scikit-learn's callbacks after each measurement; None without any.

        They are given the attributes that predictions need: the present network, and ``known``.
        """
        context = self._callback_fit_ctx
        if not context._callbacks:
            return None
        task = self._task(X, y, weight)

        def hook(snapshot: Snapshot) -> bool:
            measurement = context.subcontext(task_name="measurement")
            measurement.call_on_fit_task_begin(**task)
            return measurement.call_on_fit_task_end(
                **task, reconstruction_attributes=lambda: {"network_": snapshot()} | known
            )

        return hook

    def _watched(
        self,
        plan: Plan,
        hook: Hook | None,
        validation: Validation | None = None,
        score: Callable[[Floats, Floats], Floats] | None = None,
    ) -> dict[str, Any]:
        """Return the arguments by which a fit is watched: scores, progress line and callbacks.

        ``score`` compares predictions with targets, row by row.
        """
        scored = None
        if validation is not None and score is not None:
            (seen, truth, weight), compare = validation, score

            def scored(network: TwoLayerNetwork) -> float:
                own = compare(plan.raw(network).forward(seen), truth)
                return float(np.average(own, weights=weight))

        show = (lambda row: tell(_describe(row), stays=True)) if self.verbose else None
        monitor = Monitor(show, hook, plan.raw)
        return {"score": scored, "callback": monitor if monitor else None}

    def _progress(self) -> AbstractContextManager[Any]:
        """Return the scope in which one line on standard error shows what the fit is at."""
        return progress_line(self.verbose, type(self).__name__)


@contextmanager
def all_or_nothing(estimator: BaseEstimator) -> Iterator[None]:
    """Give the estimator its attributes back if the block fails or is interrupted."""
    before = vars(estimator).copy()
    try:
        with no_interrupt_lost():
            yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


@contextmanager
def progress_line(
    verbose: int, name: str, *, joined: bool = False
) -> Iterator[Callable[[str], None] | None]:
    """Keep one line on standard error that shows the newest text, by rich where it is installed.

    Phases of the computation are shown as well, behind the newest text if ``joined``; what is left
    in the end is the text. Where no line can be redrawn, as in a file, each phase has a line of its
    own, and the newest text one every 30 seconds.
    """
    if not verbose:
        yield None
        return
    kept, shown = "", ""
    draws = _plain if find_spec("rich") is None else _rich
    with (draws if _redraws() else _printed)(name) as draw:

        def write(text: str, stays: bool = True) -> None:
            nonlocal kept, shown
            if stays:
                kept = text
            elif joined and kept:
                text = f"{kept}, {text}"
            if stays or text != shown:
                draw(text, stays)
            shown = text

        try:
            with watched_by(write):
                yield write
        finally:
            if kept and shown != kept:
                draw(kept, True)


def report_gain(name: str, proposed: float, found: float) -> None:
    """Write on standard error what the convex program gained over local training, if any."""
    if np.isfinite(proposed):
        gain = (proposed - found) / max(abs(proposed), np.finfo(np.float64).tiny)
        print(
            f"{name}: local {proposed:.4g}, convex program {found:.4g} ({gain:.1%} lower)",
            file=sys.stderr,
        )


def _describe(row: dict[str, float]) -> str:
    """Return what fits 80 columns behind the longest name; the history has the bound."""
    return (
        f"iteration {row['iteration']:.0f}, objective {row['objective']:.6g}, "
        f"gap {row['stopping']:.1e}, {row['time']:.1f} s"
    )


def _redraws() -> bool:
    """Return whether what is shown can take the place of what was: a terminal, or a notebook."""
    dumb = os.environ.get("TERM") == "dumb"
    return (sys.stderr.isatty() and not dumb) or "ipykernel" in sys.modules


@contextmanager
def _printed(name: str) -> Iterator[Draw]:
    due, waiting = -np.inf, ""

    def write(text: str, stays: bool) -> None:
        nonlocal due, waiting
        now = time.monotonic()
        waiting = text if stays and now < due else ""
        if not waiting:
            print(f"{name}: {text}", file=sys.stderr, flush=True)
        if stays and not waiting:
            due = now + _SECONDS

    try:
        yield write
    finally:
        if waiting:
            print(f"{name}: {waiting}", file=sys.stderr, flush=True)


@contextmanager
def _plain(name: str) -> Iterator[Draw]:
    def write(text: str, stays: bool) -> None:
        # A longer line would wrap, and a carriage return does not clear the line above.
        room = get_terminal_size().columns - 1
        line = f"{name}: {text}"[:room].ljust(room)
        print(f"\r{line}", end="", file=sys.stderr, flush=True)

    try:
        yield write
    finally:
        print(file=sys.stderr)


@contextmanager
def _rich(name: str) -> Iterator[Draw]:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    console = Console(stderr=True)
    last: list[str] = []
    with Status(f"{name}: starting", console=console) as status:

        def write(text: str, stays: bool) -> None:
            last[:] = [text]
            status.update(Text(f"{name}: {last[0]}", no_wrap=True, overflow="ellipsis"))

        yield write
    if last:
        console.print(f"{name}: {last[0]}", highlight=False, soft_wrap=True)
