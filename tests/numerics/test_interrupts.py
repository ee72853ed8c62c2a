"""Interrupts: held while compiled code runs, never lost in hooks whose errors Python ignores."""

import gc
import importlib
import signal
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from cvxnn import (
    ConvexReLUClassifier,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
    LinearPreferenceHead,
)
from cvxnn.cli.main import COMMANDS, INTERRUPTED, main
from cvxnn.convex import ConvexProgram, GatedOperator, InteriorPoint, sample_patterns, solve
from cvxnn.numerics.interrupts import interrupt_held, no_interrupt_lost
from cvxnn.numerics.jax_import import prepare_for_jax
from cvxnn.training import train


@pytest.fixture(autouse=True)
def usual_handler():
    """A process in the background of a shell ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_raised_at_the_end_of_the_scope():
    done = []

    def call():
        with interrupt_held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("the call")
        done.append("what follows")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert done == ["the call"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_within_the_scope_comes_first():
    def call():
        with interrupt_held():
            signal.raise_signal(signal.SIGINT)
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        call()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_is_left_alone():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append("own"))
    try:
        with interrupt_held():
            signal.raise_signal(signal.SIGINT)
            seen.append("the call")
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["own", "the call"]


def test_threads_have_no_handlers():
    ran = []

    def work():
        with interrupt_held():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran


class Finaliser:
    """Object that is interrupted when it is freed."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)


def freed(_):
    signal.raise_signal(signal.SIGINT)
    time.sleep(0)


def in_a_finaliser():
    Finaliser()


def in_a_weak_reference():
    referent = {1, 2}
    kept = weakref.ref(referent, freed)
    del referent
    assert kept() is None


def in_the_garbage_collector():
    calls = []

    def hook(phase, _):
        calls.append(phase)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(hook)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(hook)
    assert calls == ["start", "stop"]


PLACES = [in_a_finaliser, in_a_weak_reference, in_the_garbage_collector]


@pytest.fixture
def others(monkeypatch):
    """Errors that Python ignores, as the hook before the scope gets them."""
    found = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: found.append(ignored.exc_type))
    return found


@pytest.mark.parametrize("interrupt", PLACES)
def test_python_loses_an_interrupt_and_the_scope_does_not(others, interrupt):
    interrupt()
    assert others == [KeyboardInterrupt]
    before = sys.unraisablehook

    def work():
        with no_interrupt_lost():
            interrupt()
            time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert others == [KeyboardInterrupt]
    assert sys.unraisablehook is before


def test_other_errors_are_shown_as_before(others):
    class Fails:
        def __del__(self):
            raise FloatingPointError

    with no_interrupt_lost():
        Fails()
    assert others == [FloatingPointError]


def test_an_interrupt_may_be_lost_again_and_again(others):
    """Until it is raised where it counts."""
    left = [1, 2, 3]

    class Loses:
        def __del__(self):
            try:
                time.sleep(10)
            finally:
                left.pop()

    def work():
        with no_interrupt_lost():
            in_a_finaliser()
            while left:
                Loses()
            time.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert left == []
    assert others == []


def test_threads_leave_the_hook_alone(others):
    seen = []

    def work():
        with no_interrupt_lost():
            seen.append(sys.unraisablehook)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [sys.unraisablehook]


X = np.random.default_rng(0).normal(size=(20, 2))


class Interrupting:
    """Rows that are long in coming, and a loss of an interrupt in the meantime."""

    def __array__(self, *_, **__):
        self.stop()
        return X

    def stop(self, *_):
        in_a_finaliser()
        time.sleep(10)


def by_solve(stop):
    operator = GatedOperator(X, sample_patterns(X, 4, random_state=0).mask)
    solve(ConvexProgram(operator, np.abs(X[:, :1]), 1e-3), InteriorPoint(), callback=stop)


def by_train(stop):
    train(X, np.abs(X[:, :1]), 1e-3, 4, callback=stop, random_state=0)


@pytest.mark.parametrize("run", [by_solve, by_train])
def test_solvers_lose_no_interrupt(others, run):
    with pytest.raises(KeyboardInterrupt):
        run(Interrupting().stop)
    assert others == []


@pytest.mark.parametrize(
    "fit",
    [
        lambda rows: ConvexReLURegressor().fit(rows, X[:, 0]),
        lambda rows: ConvexReLURegressorCV().fit(rows, X[:, 0]),
        lambda rows: ConvexReLUClassifier().fit(rows, X[:, 0] > 0),
        lambda rows: LinearPreferenceHead().fit(rows, X[:, 0] > 0),
    ],
)
def test_estimators_lose_no_interrupt(others, fit):
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting())
    assert others == []


def test_the_import_of_jax_loses_no_interrupt(others, monkeypatch, tmp_path):
    (tmp_path / "jax.py").write_text(f"from {__name__} import *; Interrupting().stop()")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.delitem(sys.modules, "jax")
    prepare_for_jax()
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("jax")
    assert others == []


def test_commands_lose_no_interrupt(others, monkeypatch, capsys):
    monkeypatch.setattr(COMMANDS["report"], "run", Interrupting().stop)
    assert main(["report", "x"]) == INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
    assert others == []
