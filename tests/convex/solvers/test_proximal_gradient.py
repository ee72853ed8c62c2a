"""Proximal gradient on the gated form: every loss and penalty against CVXPY."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvxnn.convex import (
    L1,
    ConvexProgram,
    Cronos,
    FeatureGroupLasso,
    GatedOperator,
    HuberLoss,
    LogisticLoss,
    MultinomialLoss,
    NeuronGroupLasso,
    ProximalGradient,
    Result,
    SquaredL2,
    SquaredLoss,
    Start,
    Status,
    solve,
    solve_with_cvxpy,
)
from cvxnn.numerics.jax_import import precision

LOSSES = {
    "squared": SquaredLoss(),
    "huber": HuberLoss(0.5),
    "logistic": LogisticLoss(),
    "multinomial": MultinomialLoss(),
}
PENALTIES = {
    "neuron": NeuronGroupLasso(),
    "feature": FeatureGroupLasso(),
    "l1": L1(),
    "ridge": SquaredL2(),
}
# Each pair compiles for seconds: those outside a diagonal are slow together.
TABLE = [
    pytest.param(loss, penalty, marks=() if i == j else pytest.mark.slow)
    for i, loss in enumerate(LOSSES)
    for j, penalty in enumerate(PENALTIES)
]
N, D, P, C = 14, 3, 4, 2
TIGHT = ProximalGradient(tol=1e-6, max_iter=20_000)


def make(
    loss: str = "squared",
    penalty: str = "neuron",
    *,
    weighted: bool = False,
    skip: float | None = None,
    dtype: type = np.float64,
    alpha: float = 0.03,
    columns: tuple[float, ...] = (1.0, 1.0, 1.0),
) -> ConvexProgram:
    """A small problem; ``skip`` alone has unit weights, so that it compiles like both."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    y = np.maximum(X @ rng.standard_normal((D, C)), 0) + 0.3 * rng.standard_normal((N, C)) - 0.3
    mask = X @ rng.standard_normal((D, P)) >= 0
    X = X * columns
    if loss == "logistic":
        y = np.where(y >= 0, 1.0, -1.0)
    elif loss == "multinomial":
        y = np.eye(C)[y.argmax(axis=1)]
    weights = rng.exponential(size=N) if weighted else np.ones(N)
    weights[0] *= not weighted
    with precision(dtype):
        program = ConvexProgram(
            GatedOperator(X.astype(dtype), mask),
            y.astype(dtype),
            alpha,
            LOSSES[loss],
            PENALTIES[penalty],
            None if skip is None and not weighted else weights.astype(dtype),
            formulation="gated",
        )
        return program if skip is None else replace(program, skip=skip)


@functools.cache
def optimum(**options: Any) -> float:
    return solve_with_cvxpy(make(**options)).objective


def check(result: Result, program: ConvexProgram, best: float, tol: float = TIGHT.tol) -> None:
    assert result.status is Status.CONVERGED
    assert result.gap <= tol
    assert result.objective == pytest.approx(best, rel=1e-5)
    assert result.dual_bound <= best * (1 + 1e-8)
    with precision(np.float64):
        assert float(program.evaluate(result.weights).objective) == pytest.approx(result.objective)
        assert float(program.bound_of(result.dual)) == pytest.approx(result.dual_bound)


@pytest.mark.parametrize(("loss", "penalty"), TABLE)
def test_agrees_with_cvxpy_with_weights_and_a_skip_connection(loss: str, penalty: str) -> None:
    ridge = 0.0 if loss in ("squared", "huber") else 0.1
    for options in ({"skip": 0.1}, {"weighted": True, "skip": ridge}):
        program = make(loss, penalty, **options)
        check(solve(program, TIGHT), program, optimum(loss=loss, penalty=penalty, **options))


@pytest.mark.parametrize("loss", LOSSES)
def test_agrees_with_cvxpy(loss: str) -> None:
    program = make(loss)
    check(solve(program, TIGHT), program, optimum(loss=loss))


def test_agrees_with_cvxpy_with_weights_alone() -> None:
    program = make(weighted=True)
    check(solve(program, TIGHT), program, optimum(weighted=True))


def test_single_precision_reaches_its_own_accuracy() -> None:
    program = make(dtype=np.float32)
    result = solve(program, replace(TIGHT, tol=1e-4))
    assert result.status is Status.CONVERGED
    assert result.weights.blocks.dtype == result.dual.residual.dtype == np.float32
    assert result.objective == pytest.approx(optimum(), rel=1e-4)
    assert result.dual_bound <= optimum() * (1 + 1e-5)


def test_history_is_monotone_and_the_bound_never_exceeds_the_optimum() -> None:
    history = solve(make(), replace(TIGHT, tol=-1.0, check_every=1, max_iter=300)).history
    assert (np.diff(history["objective"]) <= 0).all()
    assert (np.diff(history["dual_bound"]) >= 0).all()
    assert (history["dual_bound"] <= optimum() * (1 + 1e-8)).all()
    assert (history["objective"] >= optimum() * (1 - 1e-8)).all()


def test_a_warm_start_from_a_result_needs_fewer_iterations() -> None:
    program = make()
    first = solve(program, TIGHT)
    near = replace(program, alpha=0.95 * program.alpha)
    cold = solve(near, TIGHT)
    warm = solve(near, TIGHT, start=first)
    check(warm, near, optimum(alpha=0.95 * 0.03))
    assert warm.n_iter < cold.n_iter
    again = solve(program, TIGHT, start=first)
    assert again.n_iter == TIGHT.check_every  # the first measurement
    assert again.gap <= first.gap


def test_a_start_of_weights_alone_is_taken() -> None:
    program = make()
    first = solve(program, TIGHT)
    again = solve(program, TIGHT, start=first.weights)
    assert again.objective <= first.objective
    assert again.n_iter < first.n_iter


def test_alpha_at_its_maximum_gives_zero_weights() -> None:
    program = make()
    with precision(np.float64):
        largest = float(program.alpha_max())
    at = solve(replace(program, alpha=1.01 * largest), TIGHT)
    below = solve(replace(program, alpha=0.95 * largest), TIGHT)
    assert at.status is below.status is Status.CONVERGED
    assert not at.weights.blocks.any()
    assert below.weights.blocks.any()


def test_without_restart_momentum_is_never_dropped() -> None:
    options = {"tol": 1e-9, "max_iter": 2000}
    plain = solve(make(), replace(TIGHT, restart=False, **options))
    restarted = solve(make(), replace(TIGHT, **options))
    assert plain.history["n_restarts"][-1] == 0 < restarted.history["n_restarts"][-1]
    assert restarted.n_iter <= plain.n_iter


# The step -----------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=2)
def smoothness_after(program: ConvexProgram, shrink: jax.Array, n_steps: int) -> tuple:
    """Steps from a curvature estimate that is off by a factor."""
    solver = ProximalGradient()
    state = solver.init(program, None)
    state = state._replace(smoothness=state.smoothness * shrink)

    def body(state: Any, _: None) -> tuple:
        state = solver.step(program, state)
        return state, (program.evaluate(state.z).objective, state.smoothness)

    return jax.lax.scan(body, state, None, n_steps)[1]


def test_a_curvature_that_is_far_too_small_is_mended() -> None:
    with precision(np.float64):
        objective, L = (
            np.asarray(column) for column in smoothness_after(make(), jnp.asarray(1e-6), 300)
        )
    assert np.isfinite(objective).all()
    assert objective[-1] == pytest.approx(optimum(), rel=1e-4)
    assert L[0] < L.max()


@pytest.mark.parametrize("columns", [(1e-2, 1.0, 1e2), (1e3, 1e3, 1e3), (1e-3, 1e-3, 1e-3)])
def test_badly_scaled_data_never_raise_the_objective(columns: tuple[float, ...]) -> None:
    program = make(columns=columns)
    zero = float(np.sum(np.asarray(program.y) ** 2)) / (2 * N)
    result = solve(program, replace(TIGHT, max_iter=4000))
    assert result.status is not Status.NON_FINITE
    assert result.objective <= zero * (1 + 1e-14)
    best = optimum(columns=columns)
    assert result.dual_bound <= best * (1 + 1e-8) <= result.objective * (1 + 1e-7)
    assert result.objective <= best + 0.1 * (zero - best)


# What it accepts and compiles ---------------------------------------------------------------


def test_refuses_the_relu_form_and_names_who_takes_it() -> None:
    with pytest.raises(TypeError, match=r'formulation="gated".*Cronos or InteriorPoint'):
        solve(replace(make(), formulation="relu"), TIGHT)


def test_refuses_other_problems_and_names_who_takes_them() -> None:
    with pytest.raises(TypeError, match="AcceleratedGradient"):
        solve(jnp.ones(3), TIGHT)


def test_what_it_refuses_elsewhere_it_takes() -> None:
    with pytest.raises(TypeError, match="ProximalGradient"):
        Cronos().accept(make())
    assert ProximalGradient().accept(make()) == ProximalGradient()


def test_other_values_compile_nothing(compilations: Callable[[], int]) -> None:
    program = make()
    first = solve(program, TIGHT)
    solve(program, TIGHT, start=first)
    before = compilations()
    for alpha in (1e-3, 0.5, 0.0):
        solve(replace(program, alpha=alpha), replace(TIGHT, max_iter=100))
    for options in ({"tol": 1e-2}, {"max_iter": 37}, {"check_every": 7}):
        solve(program, replace(TIGHT, **options))
        solve(program, replace(TIGHT, **options), start=first)
    assert compilations() == before


def test_flops_grow_with_iterations() -> None:
    program = make()
    short, long = (solve(program, replace(TIGHT, tol=-1.0, max_iter=k)) for k in (100, 300))
    assert 0 < TIGHT.flops(program, short) < TIGHT.flops(program, long)
    assert TIGHT.flops(program, long) >= 300 * 4 * N * D * P * C


def test_start_survives_the_donation_of_the_state() -> None:
    program = make()
    with precision(np.float64):
        start = Start(jnp.ones(program.stacked_shape))
        solve(program, replace(TIGHT, max_iter=20), start=start.weights)
        np.testing.assert_array_equal(start.weights, 1)
