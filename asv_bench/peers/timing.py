"""Run one method in a process of its own, under a limit, and keep what it said before the limit."""

from __future__ import annotations

import math
import multiprocessing as mp
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from problems import Problem


class Sample(NamedTuple):
    """One look at a running method."""

    run: int
    """Which repetition: another random start, or the first and second solve in one process."""
    seconds: float
    """Since this run began; a method does not count its own measuring."""
    objective: float
    """In float64, of the network it would return now (see ``problems``)."""
    program: float = np.nan
    """The same with the gated predictions: the objective of the ReLU program."""
    violation: float = np.nan
    """How far the weights are from the cones, relative to their scores."""
    bound: float = -np.inf
    """Lower bound of the optimum over the given gates, where the method proves one."""


class Outcome(NamedTuple):
    """Everything a method said, and how it ended: ``done``, ``limit`` or ``failed: ...``."""

    samples: list[Sample]
    details: dict[str, float]
    status: str


class Report:
    """What a method is handed: call it with the fields of a ``Sample``."""

    def __init__(self, pipe: Connection, limit: float) -> None:
        self._pipe, self._limit = pipe, limit

    def begin(self) -> None:
        """Start the clock of the limit: imports are over."""
        ends = math.ceil(time.process_time() + self._limit)
        resource.setrlimit(resource.RLIMIT_CPU, (ends, resource.getrlimit(resource.RLIMIT_CPU)[1]))

    def __call__(self, run: int, seconds: float, objective: float, **more: float) -> None:
        more = {name: float(value) for name, value in more.items()}
        self._pipe.send(Sample(run, float(seconds), float(objective), **more))

    def detail(self, **numbers: float) -> None:
        """Further numbers worth keeping."""
        self._pipe.send({name: float(value) for name, value in numbers.items()})


Method = Callable[..., None]


def _child(
    method: Method, problem: Problem, options: dict[str, Any], pipe: Connection, limit: float
) -> None:
    try:
        method(problem, Report(pipe, limit), **options)
        pipe.send("done")
    except Exception as error:  # whatever a peer raises belongs into its row
        pipe.send(f"failed: {type(error).__name__}: {str(error)[:200]}")


def measure(method: Method, problem: Problem, limit: float, /, **options: Any) -> Outcome:
    """Run ``method(problem, report, **options)`` for at most ``limit`` CPU seconds."""
    context = mp.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_child, args=(method, problem, options, sender, limit), daemon=True
    )
    process.start()
    sender.close()
    samples: list[Sample] = []
    details: dict[str, float] = {}
    status = ""
    try:
        while not status:
            message = receiver.recv()
            if isinstance(message, Sample):
                samples.append(message)
            elif isinstance(message, dict):
                details.update(message)
            else:
                status = message
    except EOFError:  # the process died: at its limit, or out of memory
        process.join()
        status = f"failed: the process ended with exit code {process.exitcode}"
        if process.exitcode == -signal.SIGXCPU:
            status = "limit"
    finally:
        if status == "done":
            process.join(10)
        process.terminate()
        process.join()
        receiver.close()
    return Outcome(samples, details, status)
