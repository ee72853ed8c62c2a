"""The way from ``fit`` to the step of a solver: how many calls it is."""

import sys
from typing import Any

import numpy as np
import pytest

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier
from cvxnn.convex import InteriorPoint, Ridge

RNG = np.random.RandomState(0)
X = RNG.randn(40, 3)
Y = (X[:, 0] > 0).astype(int)


def calls_to_the_step(monkeypatch: pytest.MonkeyPatch, solver: Any, fit: Any) -> list[str]:
    """Return the names of the functions of the package that lead from a fit to the first step."""
    found: list[list[str]] = []
    step = solver.step

    def watched(*arguments: Any) -> Any:
        frame, names = sys._getframe(1), []
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith("cvxnn."):
                names.append(frame.f_code.co_name)
            frame = frame.f_back
        found.append([*names[::-1], "step"])
        return step(*arguments)

    monkeypatch.setattr(solver, "step", watched)
    fit()
    return found[0]


def test_the_direct_way_takes_four_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ConvexReLUClassifier(random_state=0)
    way = calls_to_the_step(monkeypatch, Ridge, lambda: model.fit(X, Y))
    assert way == ["fit", "fit_direct", "solve", "_advance_on_host", "step"]


def test_the_iterative_way_takes_five_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ConvexReLUClassifier(formulation="relu", random_state=0)
    way = calls_to_the_step(monkeypatch, InteriorPoint, lambda: model.fit(X, Y))
    assert way == ["fit", "fit_iterative", "train", "solve", "_advance_on_host", "step"]


def test_pairs_take_one_call_more(monkeypatch: pytest.MonkeyPatch) -> None:
    head = COALAPreferenceHead(random_state=0)
    way = calls_to_the_step(monkeypatch, Ridge, lambda: head.fit_pairs(X[:20] + 1, X[20:]))
    assert way == ["fit_pairs", "_fit", "fit_direct", "solve", "_advance_on_host", "step"]
