"""The CVXPY oracle against closed forms and against its own certificate."""

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from cvxnn.convex import (
    ConvexProgram,
    Formulation,
    GatedOperator,
    LogisticLoss,
    Result,
    SquaredL2,
    SquaredLoss,
    Status,
    on_host,
    register_pytree,
    solve_with_cvxpy,
)
from cvxnn.numerics.jax_import import precision


def make(
    X: np.ndarray, mask: np.ndarray, y: np.ndarray, alpha: float, loss: object = None
) -> ConvexProgram:
    with precision(X.dtype):
        operator = GatedOperator(X, mask)
        return ConvexProgram(operator, y, alpha, loss or SquaredLoss())


def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data, targets of two outputs, and four gates in columns."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape) for shape in ((12, 3), (12, 2), (3, 4)))


def small(loss: object = None, dtype: type = np.float64) -> ConvexProgram:
    X, Y, gates = draw()
    if isinstance(loss, LogisticLoss):
        Y = np.sign(Y)
    return make(X.astype(dtype), X @ gates >= 0, Y.astype(dtype), 0.03, loss)


def test_one_open_gate_on_positive_data_is_a_lasso() -> None:
    X = np.array([[1.0], [2.0], [3.0]])
    y = np.array([[1.0], [1.5], [3.5]])
    alpha = 0.2
    result = solve_with_cvxpy(make(X, np.ones((3, 1), bool), y, alpha))
    slope = ((X * y).mean() - alpha) / (X**2).mean()
    np.testing.assert_allclose(result.weights.blocks.ravel(), [slope, 0], atol=1e-6)
    expected = ((X * slope - y) ** 2).mean() / 2 + alpha * slope
    assert result.objective == pytest.approx(expected, rel=1e-7)


def test_one_open_gate_with_logistic_loss_is_a_line_search() -> None:
    X = np.array([[1.0], [2.0], [3.0], [4.0]])
    y = np.array([[1.0], [1.0], [-1.0], [1.0]])
    alpha = 0.1
    result = solve_with_cvxpy(make(X, np.ones((4, 1), bool), y, alpha, LogisticLoss()))
    best = minimize_scalar(lambda t: np.log1p(np.exp(-y * X * t)).mean() + alpha * abs(t))
    assert result.objective == pytest.approx(best.fun, rel=1e-6)


@pytest.mark.parametrize("loss", [SquaredLoss(), LogisticLoss()], ids=["squared", "logistic"])
def test_its_own_bound_closes_the_gap(loss: object) -> None:
    result = solve_with_cvxpy(small(loss))
    assert isinstance(result, Result)
    assert result.status is Status.CONVERGED
    assert -1e-7 <= result.gap < 1e-5
    assert result.dual_bound <= result.objective + 1e-8
    assert result.history["violation"][-1] < 1e-6


def test_no_feasible_point_is_better() -> None:
    program = small()
    result = solve_with_cvxpy(program)
    rng = np.random.default_rng(1)
    directions = draw()[2].T  # each gate lies in its own cone
    with precision(np.float64):
        for _ in range(20):
            step = rng.exponential(size=(2, 2, 4, 1)) * directions * 10.0 ** rng.integers(-4, 1)
            at = program.evaluate(result.weights.blocks + step)
            assert float(at.objective) >= result.objective - 1e-8


def test_outputs_are_separate_problems() -> None:
    program = small()
    both = solve_with_cvxpy(program)
    X, mask, Y = (
        np.asarray(part) for part in (program.operator.X, program.operator.mask, program.y)
    )
    single = [solve_with_cvxpy(make(X, mask, Y[:, c : c + 1], 0.03)) for c in range(2)]
    assert both.objective == pytest.approx(sum(one.objective for one in single), rel=1e-7)
    for c in range(2):
        np.testing.assert_allclose(both.weights.blocks[c], single[c].weights.blocks[0], atol=1e-4)


def test_single_precision_problems_are_solved_in_double() -> None:
    narrow, wide = solve_with_cvxpy(small(dtype=np.float32)), solve_with_cvxpy(small())
    assert narrow.weights.blocks.dtype == np.float64
    assert narrow.objective == pytest.approx(wide.objective, rel=1e-5)


def test_history_has_the_columns_every_result_has() -> None:
    history = solve_with_cvxpy(small()).history
    assert {"iteration", "time", "objective", "dual_bound", "stopping"} <= set(history)
    assert {len(column) for column in history.values()} == {1}


def own(part: type) -> Any:
    """An instance of a subclass, which might be another function."""
    return register_pytree(dataclass(frozen=True)(type("Own", (part,), {})))()


def test_refuses_other_losses() -> None:
    with pytest.raises(TypeError, match="SquaredLoss, HuberLoss, LogisticLoss and Multinomial"):
        solve_with_cvxpy(small(loss=own(SquaredLoss)))


def test_refuses_other_penalties() -> None:
    with pytest.raises(TypeError, match="NeuronGroupLasso, FeatureGroupLasso, L1 and SquaredL2"):
        solve_with_cvxpy(replace(small(), penalty=own(SquaredL2)))


def test_passes_options_on_and_says_when_they_stop_it_short() -> None:
    assert solve_with_cvxpy(small(), max_iter=4).status is Status.MAX_ITER
    assert solve_with_cvxpy(small(), solver="SCS", eps=1e-6).objective == pytest.approx(
        solve_with_cvxpy(small()).objective, rel=1e-3
    )


@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_its_dual_point_proves_its_bound(formulation: Formulation) -> None:
    program = replace(small(), formulation=formulation)
    result = solve_with_cvxpy(program)
    assert result.dual is not None
    assert (result.dual.multipliers is None) == (formulation == "gated")
    bound = on_host(program, np.float64).bound_of(result.dual)
    assert float(bound) == result.dual_bound == pytest.approx(result.objective, rel=1e-7)


def test_gated_ridge_regression_in_closed_form() -> None:
    program = replace(small(), formulation="gated", penalty=SquaredL2())
    X, mask, Y = (
        np.asarray(part) for part in (program.operator.X, program.operator.mask, program.y)
    )
    F = np.concatenate([mask[:, i : i + 1] * X for i in range(4)], axis=1)
    ridge = 12 * 0.03 * np.eye(12)
    expected = np.linalg.solve(F.T @ F + ridge, F.T @ Y).T.reshape(2, 1, 4, 3)
    np.testing.assert_allclose(solve_with_cvxpy(program).weights.blocks, expected, atol=1e-6)


def test_an_unpenalised_skip_connection_alone_is_weighted_least_squares() -> None:
    program = on_host(replace(small(), skip=0.0))
    weights = np.random.default_rng(2).exponential(size=12)
    program = replace(program, alpha=10.0, sample_weight=weights)  # shuts every pattern
    X, Y, root = program.operator.X, program.y, np.sqrt(weights)[:, None]
    expected = np.linalg.lstsq(root * X, root * Y, rcond=None)[0].T
    blocks, linear = solve_with_cvxpy(program).weights
    np.testing.assert_allclose(linear, expected, atol=1e-6)
    np.testing.assert_allclose(blocks, 0, atol=1e-7)


def test_names_the_extra_where_cvxpy_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"cvxnn\[test\]"):
        solve_with_cvxpy(small())
