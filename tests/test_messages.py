"""Warnings name the line of the user."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from cvxnn._messages import counted, warn


def function_of(module: str, source: str, **names: Any) -> Callable[..., Any]:
    """Return the function ``f`` of a source text that stands for a module."""
    space = {"__name__": module, **names}
    exec(compile(source, f"<{module}>", "exec"), space)
    return space["f"]


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        (1, "training pair", "1 training pair"),
        (0, "reply", "0 replies"),
        (2000, "reply", "2,000 replies"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
        (3, "day", "3 days"),
        (1.0, "row", "1 row"),
        (1.5, "row", "1.5 rows"),
    ],
)
def test_counts(n: float, noun: str, text: str) -> None:
    assert counted(n, noun) == text


@pytest.fixture
def deep() -> Callable[[], None]:
    """Function of the package that warns three calls further in."""
    inner = function_of("cvxnn.a", "def f():\n    g('text', RuntimeWarning)", g=warn)
    between = function_of("sklearn.base", "def f():\n    return g()", g=inner)
    return function_of("cvxnn.b", "def f():\n    return [g() for _ in range(2)]", g=between)


def test_it_is_the_first_line_outside(deep: Callable[[], None]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(2):
            deep()
            line = inspect.currentframe().f_lineno - 1  # type: ignore[union-attr]
    assert [(w.filename, w.lineno, str(w.message)) for w in seen] == [(__file__, line, "text")]
    assert seen[0].category is RuntimeWarning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="text"):
            deep()


@pytest.mark.parametrize("worker", [True, False])
def test_without_a_user_it_is_what_called_the_package(
    deep: Callable[[], None], worker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cvxnn import _messages

    of = _messages._callers
    known = ("cvxnn.a", "cvxnn.b", "sklearn.base") if worker else ("cvxnn.a", "cvxnn.b")
    monkeypatch.setattr(
        _messages, "_callers", lambda: [f for f in of() if f.f_globals["__name__"] in known]
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        deep()
    assert {w.filename for w in seen} == {"<sklearn.base>" if worker else "<cvxnn.b>"}
