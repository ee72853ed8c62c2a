"""Calls of compiled code: an interrupt comes when they have ended."""

import signal
import threading

import pytest

from cvxnn.convex.compiled_calls import interrupt_held


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
