"""Pricing: found patterns pay, their gains are true, and at the optimum of all nobody gains."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cvxnn.convex import (
    L1,
    ActivationPatterns,
    ConvexProgram,
    DualPoint,
    FeatureGroupLasso,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    Loss,
    Penalty,
    Result,
    SquaredL2,
    SquaredLoss,
    add_bias,
    enumeration,
    sample_patterns,
    solve,
)
from cvxnn.training import pricing

N, D = 12, 2
LOSSES: dict[str, Loss] = {
    "squared": SquaredLoss(),
    "huber": HuberLoss(0.5),
    "logistic": LogisticLoss(),
}
TIGHT = InteriorPoint(tol=1e-8)


def make(
    loss: str = "squared",
    *,
    formulation: Any = "relu",
    outputs: int = 1,
    n_patterns: int = 3,
    alpha: float = 0.02,
    weighted: bool = False,
    dtype: type = np.float64,
) -> ConvexProgram:
    """A small problem with few of its patterns."""
    rng = np.random.default_rng(0)
    X = add_bias(rng.standard_normal((N, D)))
    y = np.abs(X[:, :1]) - X[:, 1:2] * np.arange(outputs) + 0.3 * rng.standard_normal((N, outputs))
    y = np.where(y >= 0.5, 1.0, -1.0) if loss == "logistic" else y
    mask = sample_patterns(X, n_patterns, random_state=1).mask
    return ConvexProgram(
        GatedOperator(X.astype(dtype), mask),
        y.astype(dtype),
        alpha,
        LOSSES[loss],
        sample_weight=rng.exponential(size=N).astype(dtype) if weighted else None,
        formulation=formulation,
    )


def over(program: ConvexProgram, mask: np.ndarray) -> ConvexProgram:
    return replace(program, operator=replace(program.operator, mask=mask))


def look(program: ConvexProgram, result: Result, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    assert result.dual is not None
    rng = np.random.RandomState(0)
    starts = pricing.directions(program, result.weights, result.dual, n, rng)
    return pricing.price(program, result.dual, starts)


def gain(program: ConvexProgram, residual: np.ndarray, gate: np.ndarray) -> float:
    """Gain of one gate over its price, row by row; the best output and sign."""
    n, C = program.y.shape
    weight = program.sample_weight
    share = np.full(n, 1 / n) if weight is None else weight / weight.sum()
    best = 0.0
    for c in range(C):
        total, slope = 0.0, np.zeros(len(gate))
        for k in range(n):
            score = sum(program.operator.X[k] * gate)
            if score >= 0:
                total += share[k] * residual[k, c] * score
                slope += share[k] * residual[k, c] * program.operator.X[k]
        value = abs(total) if program.formulation == "relu" else np.linalg.norm(slope)
        best = max(best, float(value))
    return best / float(program.alpha)


@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_priced_pattern_strictly_lowers_the_optimum(loss: str, formulation: Any) -> None:
    program = make(loss, formulation=formulation)
    before = solve(program, TIGHT)
    gates, gains = look(program, before)
    assert gains[0] > 1.05
    best = ActivationPatterns.from_gates(program.operator.X, gates[:1])
    mask = np.concatenate([program.operator.mask, best.mask], axis=1)
    after = solve(over(program, mask), TIGHT)
    assert after.objective < before.dual_bound * (1 - 1e-4)


@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_gains_are_those_of_a_loop(formulation: Any, outputs: int) -> None:
    program = make(formulation=formulation, outputs=outputs, weighted=True)
    result = solve(program, TIGHT)
    assert result.dual is not None
    gates, gains = look(program, result)
    assert len(gates) == len(gains) > 3
    np.testing.assert_allclose(np.linalg.norm(gates, axis=1), 1)
    assert (np.diff(gains) <= 0).all()
    assert gains[-1] > 1
    # Each start climbs for one output; another may gain even more there.
    expected = [gain(program, result.dual.residual, gate) for gate in gates]
    if outputs == 1:
        np.testing.assert_allclose(gains, expected, rtol=1e-10)
    else:
        assert (gains <= np.array(expected) * (1 + 1e-10)).all()
        assert gains[0] == pytest.approx(max(expected), rel=0.05)


def test_each_output_finds_what_it_lacks() -> None:
    # The first output has nothing to explain: patterns are found for the second.
    program = make(outputs=2)
    y = program.y.copy()
    y[:, 0] = 0
    program = replace(program, y=y)
    before = solve(program, TIGHT)
    gates, _ = look(program, before)
    found = ActivationPatterns.from_gates(program.operator.X, gates[:5]).mask
    after = solve(over(program, np.concatenate([program.operator.mask, found], axis=1)), TIGHT)
    assert after.objective < before.dual_bound * (1 - 1e-3)
    assert not after.weights.blocks[0].any()


@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_gate_gains_at_the_optimum_over_all_patterns(loss: str, formulation: Any) -> None:
    program = make(loss, formulation=formulation)
    everything = enumeration.enumerate_patterns(program.operator.X)
    program = over(program, everything.mask)
    result = solve(program, TIGHT)
    assert result.gap <= 1e-8
    assert result.dual is not None
    gates, gains = look(program, result, 300)
    assert len(gates) == len(gains) == 0
    # And by the loop, for the gates of all patterns and for random ones.
    gates = np.concatenate(
        [everything.gates, np.random.default_rng(1).standard_normal((100, D + 1))]
    )
    gates /= np.linalg.norm(gates, axis=1, keepdims=True)
    highest = max(gain(program, result.dual.residual, gate) for gate in gates)
    assert 0.5 < highest <= 1 + 1e-4


def test_the_ascent_finds_nearly_the_best_gate_of_all() -> None:
    program = make()
    result = solve(program, TIGHT)
    assert result.dual is not None
    _, gains = look(program, result, 100)
    hidden = np.maximum(program.operator.X @ sphere().T, 0)
    highest = np.abs(result.dual.residual[:, 0] @ hidden).max() / (N * 0.02)
    assert gains[0] == pytest.approx(highest, rel=1e-2)


def test_a_skip_connection_is_no_neuron() -> None:
    program = replace(make(), skip=0.1)
    result = solve(program, TIGHT)
    assert result.dual is not None
    assert result.weights.linear.any()
    starts = pricing.directions(program, result.weights, result.dual, 5, np.random.RandomState(0))
    n_active = (np.linalg.norm(result.weights.blocks, axis=-1) > 0).sum()
    assert len(starts) == 5 + n_active * (1 + len(pricing._PUSHES))
    gates, gains = pricing.price(program, result.dual, starts)
    assert gains[0] > 1.05
    mask = np.insert(program.operator.mask, 0, program.operator.X @ gates[0] >= 0, axis=1)
    assert solve(over(program, mask), TIGHT).objective < result.dual_bound * (1 - 1e-4)


def sphere() -> np.ndarray:
    """A fine grid of gates of norm 1, none orthogonal to rows of integers."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 120), np.linspace(0, 2 * np.pi, 240))
    theta, phi = theta + 0.00123, phi + 0.00321
    return np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1
    ).reshape(-1, 3)


def highest_slope(X: np.ndarray, residual: np.ndarray) -> float:
    """Return the largest slope of a neuron, by a grid of gates and finer ones where it is high."""

    def slopes(gates: np.ndarray) -> np.ndarray:
        return np.abs(residual.T @ np.maximum(X @ gates.T, 0)).max(axis=0) / N

    gates = sphere()
    values = slopes(gates)
    order = np.argsort(-values)[: (values > 0.97 * values.max()).sum()]
    _, first = np.unique(np.packbits(X @ gates[order].T >= 0, axis=0), axis=1, return_index=True)
    cube = np.stack(np.meshgrid(*[np.linspace(-1, 1, 15)] * (D + 1)), axis=-1).reshape(-1, D + 1)
    found = []
    for gate in gates[order[first]]:
        for width in (0.02, 0.004, 0.0008):
            near = gate + width * cube
            near /= np.linalg.norm(near, axis=1, keepdims=True)
            around = slopes(near)
            gate = near[around.argmax()]
        found.append(around.max())
    return max(found)


@settings(max_examples=15)
@example(seed=931198, gated=False, integers=False, n_outputs=1)  # the grid is off by 0.8 %
@given(
    seed=st.integers(0, 10**6),
    gated=st.booleans(),
    integers=st.booleans(),
    n_outputs=st.integers(1, 2),
)
def test_pricing_all_patterns_finds_what_a_grid_of_gates_finds(
    seed: int, gated: bool, integers: bool, n_outputs: int
) -> None:
    program = make(formulation="gated" if gated else "relu", outputs=n_outputs)
    rng = np.random.default_rng(seed)
    if integers:  # with repeated and parallel rows, and rows of zeros
        X = rng.integers(-1, 2, size=(N, D + 1)).astype(float)
        program = replace(program, operator=replace(program.operator, X=X))
    X = program.operator.X
    if not X.any():
        return
    dual = DualPoint(rng.standard_normal((N, n_outputs)), None)
    every = enumeration.enumerate_patterns(X)
    # The gain of each gate of the grid, and the largest of each pattern.
    mask = X @ sphere().T >= 0
    values = np.abs(dual.residual.T @ np.where(mask, X @ sphere().T, 0)).max(axis=0) / N
    if gated:  # as large in all of a cell, which may be small
        mask = every.mask
        values = np.array([gain(program, dual.residual, gate) for gate in every.gates])
        values *= float(program.alpha)
    most = values.max() if gated else highest_slope(X, dual.residual)
    for part in (0.5, 0.9, 2.0):  # many, some or no patterns pay
        alpha = part * values.max()
        priced = replace(program, alpha=alpha)
        found, highest = pricing.price_all(priced, dual, every, 1000)
        if part > 1:
            assert len(found) == 0
            assert 0 < highest <= 1
            continue
        assert highest == pytest.approx(most / alpha, rel=1e-3)
        largest: dict[bytes, float] = {}
        for column, value in zip(np.packbits(mask, axis=0).T, values, strict=True):
            key = column.tobytes()
            largest[key] = max(largest.get(key, 0.0), value / alpha)
        keys = {column.tobytes() for column in np.packbits(found.mask, axis=0).T}
        assert {key for key, value in largest.items() if value > 1 + 2e-4} <= keys
        few, again = pricing.price_all(priced, dual, every, 3)
        assert again == pytest.approx(highest)
        assert len(few) == min(3, len(found))


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), gated=st.booleans())
def test_more_steps_never_find_less(seed: int, gated: bool) -> None:
    program = make(formulation="gated" if gated else "relu", alpha=1e-3)
    rng = np.random.default_rng(seed)
    dual = DualPoint(rng.standard_normal((N, 1)), None)
    starts = rng.standard_normal((6, D + 1))
    highest = [
        pricing.price(program, dual, starts, n_steps=n)[1].max(initial=0) for n in (0, 3, 30)
    ]
    assert highest == sorted(highest)
    # The starts themselves count, in whatever length they come.
    own = max(gain(program, dual.residual, g / np.linalg.norm(g)) for g in starts)
    assert highest[0] == pytest.approx(own if own > 1 + 1e-4 else 0)


def test_blocks_of_starts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    program = make()
    dual = DualPoint(np.random.default_rng(0).standard_normal((N, 1)), None)
    starts = np.random.default_rng(1).standard_normal((11, D + 1))
    whole = pricing.price(program, dual, starts)
    monkeypatch.setattr(pricing, "_CHUNK_NUMBERS", 3 * N)
    for part, expected in zip(pricing.price(program, dual, starts), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-12)


def test_no_starts_find_nothing() -> None:
    program = make()
    dual = DualPoint(program.y, None)
    gates, gains = pricing.price(program, dual, np.zeros((0, D + 1)))
    assert gates.shape == (0, D + 1)
    assert gains.shape == (0,)


def test_single_precision_finds_as_much() -> None:
    single, double = (
        look(program, solve(program, TIGHT))[1] for program in (make(dtype=np.float32), make())
    )
    assert single[0] == pytest.approx(double[0], rel=1e-3)


@pytest.mark.parametrize("penalty", [L1(), FeatureGroupLasso(), SquaredL2()])
def test_refuses_other_penalties(penalty: Penalty) -> None:
    program = replace(make(), penalty=penalty)
    dual = DualPoint(program.y, None)
    with pytest.raises(TypeError, match=f"NeuronGroupLasso, not {type(penalty).__name__}"):
        pricing.price(program, dual, np.ones((1, D + 1)))
    every = enumeration.enumerate_patterns(program.operator.X)
    with pytest.raises(TypeError, match=f"NeuronGroupLasso, not {type(penalty).__name__}"):
        pricing.price_all(program, dual, every, 3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_beyond_single_precision_find_as_much(scale: float) -> None:
    program = make()
    result = solve(program, TIGHT)
    assert result.dual is not None
    starts = np.random.default_rng(0).standard_normal((20, D + 1))
    gates, gains = pricing.price(program, result.dual, starts)
    scaled = replace(program.operator, X=scale * program.operator.X)
    scaled_program = replace(program, operator=scaled, alpha=scale * program.alpha)
    again = pricing.price(scaled_program, result.dual, starts)
    np.testing.assert_allclose(again[0], gates, atol=1e-6)
    np.testing.assert_allclose(again[1], gains, rtol=1e-6)


def test_gates_that_are_far_apart_are_those_of_a_loop() -> None:
    gates = np.random.default_rng(0).standard_normal((60, 2))
    gates /= np.linalg.norm(gates, axis=1, keepdims=True)
    taken: list[int] = []
    for i in range(len(gates)):
        if all(sum(gates[i] * gates[j]) < pricing._ALIKE for j in taken):
            taken.append(i)
    assert 10 < len(taken) < 30
    assert pricing.far_apart(gates, 60).tolist() == taken
    assert pricing.far_apart(gates, 4).tolist() == taken[:4]
    assert len(pricing.far_apart(gates[:0], 4)) == 0
