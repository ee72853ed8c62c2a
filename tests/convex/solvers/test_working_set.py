"""Working sets: the same optimum as all patterns at once, proved for all, from fewer."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cvxnn.convex import (
    L1,
    ConvexProgram,
    FeatureGroupLasso,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    Result,
    SquaredL2,
    SquaredLoss,
    Status,
    sample_patterns,
    solve,
    solve_on_working_sets,
)

N, D, P = 30, 3, 60
LOSSES = {"squared": SquaredLoss(), "huber": HuberLoss(0.5), "logistic": LogisticLoss()}
TIGHT = InteriorPoint(tol=1e-8)


def make(
    formulation: Any = "gated",
    loss: str = "squared",
    *,
    outputs: int = 1,
    n_patterns: int = P,
    part: float = 0.2,
    dtype: type = np.float64,
) -> ConvexProgram:
    """Targets of few neurons, at a part of the strength that removes all weights."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    y = np.maximum(X @ rng.standard_normal((D, 2)), 0) @ rng.standard_normal((2, outputs))
    y += 0.1 * rng.standard_normal((N, outputs))
    y = np.where(y > np.median(y), 1.0, -1.0) if loss == "logistic" else y
    found = sample_patterns(X, n_patterns, random_state=0)
    program = ConvexProgram(
        GatedOperator(X.astype(dtype), found.mask),
        y.astype(dtype),
        1.0,
        LOSSES[loss],
        formulation=formulation,
    )
    return replace(program, alpha=part * float(program.alpha_max()))


@functools.cache
def optimum(*args: Any, **options: Any) -> Result:
    return solve(make(*args, **options), TIGHT)


def check(result: Result, program: ConvexProgram, tol: float) -> None:
    """The certificate holds for all patterns, not only for those that were solved."""
    assert result.status is Status.CONVERGED
    assert result.weights.blocks.shape == program.stacked_shape
    assert result.dual is not None
    assert result.dual.residual.shape == program.y.shape
    bound = float(program.bound_of(result.dual))
    objective = float(program.evaluate(result.weights).network_objective)
    assert objective == pytest.approx(result.objective, rel=1e-9)
    assert bound == pytest.approx(result.dual_bound, rel=1e-9)
    assert result.gap <= tol
    assert result.n_iter == len(result.history["iteration"])
    assert (np.diff(result.history["dual_bound"]) >= 0).all()


@pytest.mark.parametrize("formulation", ["gated", "relu"])
@pytest.mark.parametrize("loss", LOSSES)
def test_agrees_with_all_patterns_at_once(formulation: Any, loss: str) -> None:
    program = make(formulation, loss)
    best = optimum(formulation, loss)
    assert best.gap <= 1e-7
    result = solve_on_working_sets(program, tol=1e-5, n_first=4)
    check(result, program, 1e-5)
    assert result.objective == pytest.approx(best.objective, rel=1.1e-5)
    assert result.dual_bound <= best.objective * (1 + 1e-7)


def test_several_outputs() -> None:
    program = make(outputs=3)
    result = solve_on_working_sets(program, tol=1e-5, n_first=4)
    check(result, program, 1e-5)
    assert result.objective == pytest.approx(optimum(outputs=3).objective, rel=1.1e-5)


def test_fewer_patterns_than_all_are_solved() -> None:
    program = make()
    result = solve_on_working_sets(program, tol=1e-5, n_first=4)
    n_active = (np.abs(result.weights.blocks).max(axis=(0, 1, 3)) > 0).sum()
    working = result.history["n_working"]
    assert (np.diff(working) > 0).all()
    assert working[0] == 4
    assert 0 < n_active <= working[-1] < P / 2
    # The proof rests on the patterns that were never solved, too: their slopes are within alpha.
    assert result.dual is not None
    slopes = [
        np.linalg.norm((program.operator.X * result.dual.residual).T @ gate) / N
        for gate in program.operator.mask.T.astype(float)
    ]
    assert max(slopes) == pytest.approx(float(program.alpha), rel=1e-2)


def test_the_working_set_grows_until_the_proof_is_done() -> None:
    program = make(part=0.02)
    rows: list[dict[str, float]] = []
    result = solve_on_working_sets(
        program, tol=1e-5, n_first=1, callback=lambda row, weights: rows.append(row)
    )
    check(result, program, 1e-5)
    assert len(rows) == result.n_iter > 2
    for name, column in result.history.items():
        assert [row[name] for row in rows] == list(column)
    assert rows[0]["stopping"] > 1e-2
    # No more than doubles in a round.
    working = result.history["n_working"]
    assert (working[1:] <= 2 * working[:-1]).all()


@pytest.mark.parametrize("formulation", ["gated", "relu"])
def test_a_start_spares_work(formulation: Any) -> None:
    near = solve(make(formulation, part=0.22), TIGHT)
    program = make(formulation)
    cold = solve_on_working_sets(program, tol=1e-5, n_first=4)
    warm = solve_on_working_sets(program, tol=1e-5, n_first=4, start=near)
    check(warm, program, 1e-5)
    assert warm.objective == pytest.approx(cold.objective, rel=2e-5)
    assert warm.history["n_working"][0] > 4
    assert warm.n_iter < cold.n_iter


def test_a_start_is_not_changed() -> None:
    near = solve(make("relu", part=0.3), TIGHT)
    assert near.dual is not None
    before = near.weights.blocks.copy(), near.dual.residual.copy(), near.dual.multipliers.copy()
    solve_on_working_sets(make("relu"), n_first=4, start=near)
    after = near.weights.blocks, near.dual.residual, near.dual.multipliers
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_solution_as_start_takes_one_round() -> None:
    program = make()
    result = solve_on_working_sets(program, tol=1e-5, start=optimum())
    check(result, program, 1e-5)
    assert result.n_iter == 1


def test_above_alpha_max_all_weights_are_zero() -> None:
    program = make(part=1.2)
    result = solve_on_working_sets(program)
    check(result, program, 1e-4)
    assert not result.weights.blocks.any()
    assert result.objective == pytest.approx((program.y**2).sum() / (2 * N))


def test_fewer_patterns_than_the_first_set() -> None:
    program = make(n_patterns=5)
    result = solve_on_working_sets(program, tol=1e-5)
    check(result, program, 1e-5)
    assert result.history["n_working"].tolist() == [5]


def test_single_precision() -> None:
    program = make(dtype=np.float32)
    result = solve_on_working_sets(program, tol=1e-4, n_first=4)
    assert result.weights.blocks.dtype == np.float32
    assert result.status is Status.CONVERGED
    assert result.objective == pytest.approx(optimum().objective, rel=1e-3)


def test_a_solver_too_coarse_for_the_tolerance_says_so() -> None:
    program = make()
    solver = InteriorPoint(tol=1e-2)
    result = solve_on_working_sets(program, tol=1e-9, solver=solver, n_first=P)
    assert result.status is Status.STALLED
    assert 1e-9 < result.gap <= 1e-2
    result = solve_on_working_sets(program, tol=1e-9, solver=replace(solver, max_iter=1))
    assert result.status is not Status.CONVERGED
    assert result.gap > 1e-9
    assert result.dual is not None
    assert float(program.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=1e-9)


@pytest.mark.parametrize("penalty", [L1(), FeatureGroupLasso(), SquaredL2()])
def test_refuses_other_penalties(penalty: Any) -> None:
    with pytest.raises(TypeError, match=r"need NeuronGroupLasso.*use solve"):
        solve_on_working_sets(replace(make(), penalty=penalty))


def test_refuses_a_skip_connection() -> None:
    with pytest.raises(TypeError, match="no linear part"):
        solve_on_working_sets(replace(make(), skip=0.1))
