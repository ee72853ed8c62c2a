"""Cone decomposition: feasible, the same predictions, between two bounds, nearly the shortest."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    Decomposition,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    SquaredLoss,
    Status,
    Weights,
    cone_decomposition,
    sample_patterns,
    solve,
)

N, D, P = 20, 4, 6
LOSSES = {"squared": SquaredLoss(), "huber": HuberLoss(0.5), "logistic": LogisticLoss()}
TIGHT = InteriorPoint(tol=1e-8)


def make(
    loss: str = "squared", outputs: int = 1, seed: int = 0, dtype: type = np.float64
) -> tuple[ConvexProgram, np.ndarray]:
    """A gated program and its gates."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, D)).astype(dtype)
    y = np.maximum(X @ rng.standard_normal((D, 3)), 0) @ rng.standard_normal((3, outputs))
    y += 0.3 * rng.standard_normal((N, outputs))
    y = np.where(y > 0, 1.0, -1.0) if loss == "logistic" else y
    found = sample_patterns(X, P, random_state=seed)
    operator = GatedOperator(X, found.mask)
    program = ConvexProgram(operator, y.astype(dtype), 0.02, LOSSES[loss], formulation="gated")
    return program, found.gates


def some_weights(outputs: int = 1, seed: int = 0, dtype: type = np.float64) -> Weights:
    weights = np.random.default_rng(seed).standard_normal((outputs, 1, P, D))
    weights[:, :, 2] = 0
    return Weights(weights.astype(dtype))


def violation(program: ConvexProgram, weights: np.ndarray) -> float:
    """Largest step outside a cone, relative to the largest score."""
    scores = np.einsum("ki,cbji->kcbj", program.operator.X, weights)
    oriented = scores * (2.0 * program.operator.mask - 1)[:, None, None]
    return float(-oriented.min() / np.abs(scores).max())


def check(
    program: ConvexProgram, weights: Weights, found: Decomposition, rounding: float = 1e-13
) -> None:
    X, mask = program.operator.X, program.operator.mask
    assert violation(program, found.weights.blocks) <= rounding
    gated = np.einsum("ki,cji,kj->kc", X, weights.blocks[:, 0], mask)
    hidden = np.maximum(np.einsum("ki,cbji->kcbj", X, found.weights.blocks), 0).sum(axis=-1)
    network = hidden[..., 0] - hidden[..., 1]
    np.testing.assert_allclose(network, gated, atol=100 * rounding * np.abs(gated).max())
    # Patterns that are not used stay so.
    assert not found.weights.blocks[:, :, ~weights.blocks.any(axis=(0, 1, 3))].any()


@pytest.mark.parametrize("n_iter", [0, 1, 30, 300])
@pytest.mark.parametrize("outputs", [1, 2])
def test_feasible_with_the_same_predictions_after_any_number_of_iterations(
    n_iter: int, outputs: int
) -> None:
    program, gates = make(outputs=outputs)
    weights = some_weights(outputs)
    check(program, weights, cone_decomposition(program, weights, gates, n_iter=n_iter))


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_feasible_at_any_point(seed: int, scale: float) -> None:
    program, gates = make(seed=seed)
    weights = Weights(scale * some_weights(seed=seed).blocks)
    check(program, weights, cone_decomposition(program, weights, gates, n_iter=10))


def test_feasible_in_single_precision() -> None:
    program, gates = make(dtype=np.float32)
    weights = some_weights(dtype=np.float32)
    found = cone_decomposition(program, weights, gates, n_iter=100)
    assert found.weights.blocks.dtype == np.float32
    check(program, weights, found, rounding=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outputs", [1, 2])
def test_the_relu_optimum_lies_between_the_bounds(loss: str, outputs: int) -> None:
    program, gates = make(loss, outputs)
    gated = solve(program, TIGHT)
    relu = solve(replace(program, formulation="relu"), TIGHT)
    assert relu.gap <= 1e-7
    found = cone_decomposition(program, gated.weights, gates, dual=gated.dual)
    assert found.lower <= relu.objective * (1 + 1e-7)
    assert relu.dual_bound <= found.upper * (1 + 1e-7)
    assert found.lower == pytest.approx(gated.objective, rel=1e-6)
    if loss == "squared":  # no wild overestimate: well below the network without neurons
        assert found.upper < 0.8 * (program.y**2).sum() / (2 * N)
    own = program.loss.value(_network(program, found.weights.blocks), program.y).sum() / N
    own += 0.02 * np.linalg.norm(found.weights.blocks, axis=-1).sum()
    assert found.upper == pytest.approx(own, rel=1e-10)


def _network(program: ConvexProgram, weights: np.ndarray) -> np.ndarray:
    hidden = np.maximum(np.einsum("ki,cbji->kcbj", program.operator.X, weights), 0).sum(axis=-1)
    return hidden[..., 0] - hidden[..., 1]


def test_the_bound_needs_no_dual_point() -> None:
    program, gates = make()
    gated = solve(program, TIGHT)
    given_dual = cone_decomposition(program, gated.weights, gates, dual=gated.dual, n_iter=0)
    found = cone_decomposition(program, gated.weights, gates, n_iter=0)
    assert found.lower == pytest.approx(given_dual.lower, rel=1e-4)
    # Far from the optimum it is still a bound.
    far = cone_decomposition(program, some_weights(), gates, n_iter=0)
    assert far.lower < gated.objective


@pytest.mark.parametrize("seed", range(3))
def test_close_to_the_decomposition_of_least_squares(seed: int) -> None:
    program, gates = make(seed=seed)
    weights = solve(program, TIGHT).weights
    found = cone_decomposition(program, weights, gates, n_iter=1000)
    mask, X = program.operator.mask, program.operator.X
    squares = shortest = 0.0
    for i in range(P):
        if not weights.blocks[0, 0, i].any():
            continue
        orientation = np.where(mask[:, i], 1.0, -1.0)[:, None]
        v, w = cp.Variable(D), cp.Variable(D)
        cones = [(orientation * X) @ v >= 0, (orientation * X) @ w >= 0]
        problem = cp.Problem(
            cp.Minimize(cp.sum_squares(v) + cp.sum_squares(w)),
            [*cones, v - w == weights.blocks[0, 0, i]],
        )
        problem.solve(solver="CLARABEL")
        shortest += problem.value
        squares += (found.weights.blocks[0, :, i] ** 2).sum()
    assert shortest > 0
    assert shortest * (1 - 1e-6) <= squares <= 1.1 * shortest


def test_iterations_shorten_it() -> None:
    program, gates = make()
    weights = solve(program, TIGHT).weights
    few, many = (cone_decomposition(program, weights, gates, n_iter=n) for n in (0, 1000))
    assert (many.weights.blocks**2).sum() < 0.9 * (few.weights.blocks**2).sum()


def test_weights_in_their_cones_are_left_alone() -> None:
    # z in the cone: v = z, w = 0 is the shortest decomposition.
    program, gates = make()
    weights = program.zeros()
    weights.blocks[0, 0, 3] = gates[3]
    found = cone_decomposition(program, weights, gates, n_iter=1000)
    np.testing.assert_allclose(found.weights.blocks[0, 0, 3], gates[3], atol=1e-6)
    np.testing.assert_allclose(found.weights.blocks[0, 1, 3], 0, atol=1e-6)


def test_zero_weights_and_zero_rows() -> None:
    program, gates = make()
    X = program.operator.X.copy()
    X[4] = 0
    mask = program.operator.mask.copy()
    mask[4] = True
    program = replace(program, operator=GatedOperator(X, mask))
    check(program, some_weights(), cone_decomposition(program, some_weights(), gates, n_iter=5))
    none = cone_decomposition(program, program.zeros(), gates, n_iter=5)
    assert not none.weights.blocks.any()
    assert none.upper == pytest.approx((program.y**2).mean() / 2)


def test_refuses_gates_on_the_boundary_of_a_used_cone() -> None:
    program, gates = make()
    X = program.operator.X.copy()
    X[0] = [1, 0, 0, 0]
    gates = gates.copy()
    gates[:, 0] = 1.0
    gates[1] = [0, 1, 1, 1]  # exactly orthogonal to the first row
    mask = X @ gates.T >= 0
    program = replace(program, operator=GatedOperator(X, mask))
    with pytest.raises(ValueError, match=r"boundary of its cone.*Move the gates off"):
        cone_decomposition(program, some_weights(), gates)
    # A pattern that is not used may have any gate.
    weights = some_weights()
    weights.blocks[:, :, 1] = 0
    check(program, weights, cone_decomposition(program, weights, gates, n_iter=5))


@pytest.mark.parametrize("change", ["relu", "skip"])
def test_refuses_what_is_no_gated_program(change: str) -> None:
    program, gates = make()
    if change == "relu":
        program = replace(program, formulation="relu")
    else:
        program = replace(program, skip=0.0)
    with pytest.raises(TypeError, match="gated formulation without a linear part"):
        cone_decomposition(program, program.zeros(), gates)


def test_refuses_conjunctions() -> None:
    program, gates = make()
    with pytest.raises(TypeError, match="conjunctions"):
        cone_decomposition(program, program.zeros(), np.stack([gates, gates], axis=1))


@pytest.mark.slow
def test_cronos_starts_from_it() -> None:
    program, gates = make()
    gated = solve(program, TIGHT)
    found = cone_decomposition(program, gated.weights, gates, dual=gated.dual)
    relu = replace(program, formulation="relu")
    solver = Cronos(tol=-1.0, max_iter=1, check_every=1, linear_solver="dual")
    cold = solve(relu, solver)
    warm = solve(relu, solver, start=found.weights)
    assert warm.status is Status.MAX_ITER
    # Never worse than its start, which one cold iteration does not reach.
    assert warm.objective <= found.upper * (1 + 1e-12) < cold.objective
