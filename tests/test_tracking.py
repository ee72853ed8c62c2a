"""Logs of other tools: what a run of theirs is given, by a stand-in with their interface."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cvxnn import COALAPreferenceHead, ConvexReLURegressor
from cvxnn.convex import ConvexProgram, GatedOperator, Ridge, SquaredL2, solve
from cvxnn.tracking import RunLog, log_fit


class Tool:
    """What trackio and Weights & Biases have in common; it keeps what it gets."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.rows: list[dict[str, float]] = []
        self.finished = 0

    def init(self, project: str, config: dict[str, Any], **options: Any) -> Tool:
        self.given = {"project": project, "config": config, **options}
        return self

    def log(self, row: dict[str, float]) -> None:
        assert all(isinstance(value, float) and np.isfinite(value) for value in row.values())
        assert not {"time", "step", "timestamp"} & row.keys()  # trackio's own
        self.rows.append(row)

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(params=["trackio", "wandb"])
def tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tool:
    found = Tool()
    found.name = request.param  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, request.param, SimpleNamespace(init=found.init))
    return found


def test_a_solver_logs_each_measurement_and_goes_on(tool: Any) -> None:
    X = np.random.default_rng(0).normal(size=(40, 2))
    program = ConvexProgram(
        GatedOperator(X, X > 0), X[:, :1], 1e-3, penalty=SquaredL2(), formulation="gated"
    )
    solver = Ridge(tol=1e-3, max_dense=1)
    with RunLog("p", tracker=tool.name, name="r", config={"X": X.shape, "alpha": 1e-3}) as log:
        result = solve(program, solver, callback=log)
    assert tool.given["name"] == "r"
    assert tool.given["config"] == {"X": "(40, 2)", "alpha": 1e-3}
    assert result.gap <= 1e-3
    assert [row["iteration"] for row in tool.rows] == result.history["iteration"].tolist()
    assert tool.finished == 1


def test_a_fitted_estimator_sends_what_it_knows(tool: Any) -> None:
    rng = np.random.default_rng(0)
    won, lost = rng.normal(size=(60, 3)) + 1, rng.normal(size=(60, 3))
    head = COALAPreferenceHead(n_patterns=4, random_state=0).fit_pairs(won, lost)
    log_fit(head, "heads", tracker=tool.name)
    assert tool.given["config"]["n_patterns"] == 4
    of_first = [row for row in tool.rows if "objective" in row]
    of_second = [row for row in tool.rows if "phase2/rewards/accuracies" in row]
    assert len(of_first) == len(head.history_["time"])
    assert len(of_second) == len(head.phase2_history_["time"])
    assert tool.rows[-1]["fit/gap"] == head.gap_
    assert tool.rows[-1]["fit/dual_bound"] == head.dual_bound_


def test_the_run_ends_after_an_error_and_numbers_that_are_none_are_left_out(tool: Any) -> None:
    def fail(log: RunLog) -> None:
        assert log({"step": 2.0, "time": 0.5, "loss": 1.0, "gap": np.inf, "rate": np.nan}) is False
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), RunLog("p", tracker=tool.name) as log:
        fail(log)
    assert tool.rows == [{"at_step": 2.0, "seconds": 0.5, "loss": 1.0}]
    assert tool.finished == 1


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ImportError, match=r"cvxnn\[trackio\]"):
        RunLog("p")
    wrong: Any = "tensorboard"
    with pytest.raises(ValueError, match="tracker is 'tensorboard'; expected one of"):
        RunLog("p", tracker=wrong)
    with pytest.raises(TypeError, match="has no history_"):
        log_fit(ConvexReLURegressor(), "p")
