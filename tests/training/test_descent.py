"""Local descent between programs, against plain loops and finite differences."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.optimize import check_grad

from cvxnn.convex import (
    ActivationPatterns,
    ConvexProgram,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    MultinomialLoss,
    SquaredLoss,
    Weights,
    add_bias,
    solve,
)
from cvxnn.training import train
from cvxnn.training.descent import (
    DescendedNetwork,
    descend,
    descend_in_place,
    value_and_slope,
)
from cvxnn.training.pattern_transfer import program_over

ALPHA = 1e-2
LOSSES = [SquaredLoss(), HuberLoss(0.5), LogisticLoss(), MultinomialLoss()]


def program(loss: Any, dtype: type = np.float64, n: int = 60) -> ConvexProgram:
    """A program without patterns; two outputs, rows of different weights."""
    rng = np.random.default_rng(5)
    X = add_bias(rng.standard_normal((n, 4))).astype(dtype)
    y = np.stack([np.abs(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)
    if type(loss) in (LogisticLoss, MultinomialLoss):
        y = np.where(y > np.median(y, axis=0), 1.0, -1.0).astype(dtype)
    if type(loss) is MultinomialLoss:
        y = np.eye(2, dtype=dtype)[(y[:, 0] > 0).astype(int)]
    weights: Any = rng.uniform(0.5, 2, n).astype(dtype)
    operator = GatedOperator(X, np.zeros((n, 0), bool))
    return ConvexProgram(operator, y, ALPHA, loss, sample_weight=weights)


def part(which: int, base: ConvexProgram, signs: Any, flat: Any) -> Any:
    return value_and_slope(flat, base, signs)[which]


@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_slope(loss: Any) -> None:
    base = program(loss)
    rng = np.random.default_rng(1)
    roots = rng.standard_normal((5, 5))
    signs = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 0]], float)
    value, _ = value_and_slope(roots.ravel(), base, signs)
    prediction = np.zeros_like(base.y)
    for root, sign in zip(roots, signs, strict=True):
        u = np.linalg.norm(root) * root
        prediction += np.maximum(base.operator.X @ u, 0)[:, None] * sign
    assert base.sample_weight is not None
    share = base.sample_weight / base.sample_weight.sum()
    expected = (share[:, None] * loss.value(prediction, base.y)).sum()
    expected += ALPHA * sum(np.linalg.norm(np.linalg.norm(root) * root) for root in roots)
    assert value == pytest.approx(expected, rel=1e-12)
    error = check_grad(partial(part, 0, base, signs), partial(part, 1, base, signs), roots.ravel())
    assert error < 1e-5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_neurons_descend_over_patterns_of_their_own(loss: Any, dtype: type) -> None:
    base = program(loss, dtype)
    better = ActivationPatterns.from_gates(base.operator.X, np.eye(5, dtype=dtype)[:3])
    nothing = program_over(base, better).zeros()
    one = descend(base, nothing, better, 3, 1, np.random.RandomState(0))
    assert one.n_rounds == 1
    more = descend(base, one.weights, better, 3, 3, np.random.RandomState(0))
    for found in (one, more):
        over = program_over(base, found.patterns)
        at = over.evaluate(found.weights)
        assert float(at.network_objective) == pytest.approx(found.objective, rel=1e-4)
        # Neurons lie in the cones of their own patterns, up to rounding.
        assert at.violation < 10 * np.finfo(dtype).eps
        assert found.weights.blocks.dtype == found.patterns.gates.dtype == dtype
        assert found.flops > 0
    start = float(program_over(base, better).evaluate(nothing).network_objective)
    assert more.objective < one.objective < start
    assert len(more.patterns) <= len(one.patterns) + 9


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_neurons_descend_in_their_blocks(loss: Any, dtype: type) -> None:
    base = program(loss, dtype)
    found = ActivationPatterns.from_gates(base.operator.X, np.eye(5, dtype=dtype)[:3])
    over = program_over(base, found)
    blocks = np.random.default_rng(3).standard_normal((2, 2, len(found), 5)).astype(dtype)
    blocks[:, 1, 0] = 0
    moved, flops = descend_in_place(base, Weights(blocks))
    assert moved.blocks.dtype == dtype
    assert not moved.blocks[:, 1, 0].any()  # no neuron, no descent
    before, after = (
        float(over.evaluate(weights).network_objective) for weights in (Weights(blocks), moved)
    )
    assert after < before
    # A second descent has next to nothing left to win.
    again, _ = descend_in_place(base, moved)
    assert after - float(over.evaluate(again).network_objective) < 0.01 * (before - after)
    assert flops > 0


def test_nothing_to_descend() -> None:
    base = program(SquaredLoss())
    nothing = Weights(np.zeros((2, 2, 3, 5)))
    assert descend_in_place(base, nothing) == (nothing, 0.0)


def test_networks_of_several_outputs_beat_their_patterns() -> None:
    rng = np.random.default_rng(4)
    X = add_bias(rng.standard_normal((80, 4)))
    y = np.maximum(X @ rng.standard_normal((5, 6)), 0) @ rng.standard_normal((6, 3))
    found = train(X, y / y.std(), 2e-3, 8, random_state=0, tol=1e-3)
    assert found.result.dual is not None
    bound = float(found.program.bound_of(found.result.dual))
    assert found.result.dual_bound == pytest.approx(bound, rel=1e-9)
    # No program over the patterns does better by more than the tolerance, as another solver says.
    optimum = solve(found.program, InteriorPoint(certify="program")).objective
    assert bound <= optimum * (1 + 1e-6)
    assert found.result.objective <= optimum * (1 + 1e-3)
    assert found.result.objective <= found.proposal_objective * (1 + 1e-9)


def test_rounds_share_programs() -> None:
    rng = np.random.default_rng(2)
    X = add_bias(rng.standard_normal((300, 8)))
    y = np.maximum(X @ rng.standard_normal((9, 4)), 0) @ np.array([1.0, -1, 1, -1])
    y = (y / y.std() + 0.1 * rng.standard_normal(300))[:, None]
    found = train(X, y, 5e-4, 12, n_rounds=8, random_state=0)
    # The first program, and one after each four rounds.
    assert len(found.rounds["objective"]) == 3
    assert found.rounds["objective"][-1] < 0.99 * found.rounds["objective"][0]
    assert found.result.gap < 1e-5
    assert found.result.dual is not None
    bound = float(found.program.bound_of(found.result.dual))
    assert bound <= found.result.objective <= bound * (1 + 1e-5)
    weights: Weights = found.result.weights
    assert float(found.program.evaluate(weights).violation) < 1e-6


def test_a_descent_that_leaves_all_patterns_behind_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The program goes on with the patterns that it has."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((20, 3))
    y = np.maximum(X[:, :1], 0) + 0.1 * rng.standard_normal((20, 1))
    settings: dict[str, Any] = {"n_patterns": 2, "n_rounds": 2, "random_state": 0}
    expected = train(X, y, 0.01, **settings).result
    tried = []

    def leave(base: Any, weights: Any, *_: Any) -> Any:
        tried.append(base)
        nothing = ActivationPatterns(np.zeros((20, 0), bool), np.zeros((0, 3)))
        blocks = np.zeros((*weights.blocks.shape[:2], 0, 3))
        return DescendedNetwork(nothing, Weights(blocks), 0.0, 1, 0.0)

    monkeypatch.setattr(importlib.import_module("cvxnn.training.training"), "descend", leave)
    found = train(X, y, 0.01, **settings)
    assert tried
    assert len(found.patterns)
    assert found.result.objective <= 1.1 * expected.objective
