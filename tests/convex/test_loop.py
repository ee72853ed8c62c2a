"""The loop that drives every solver: why it stops, what it records, what it compiles."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    GatedOperator,
    InteriorPoint,
    Measurement,
    ProximalGradient,
    Solver,
    SquaredL2,
    Start,
    Status,
    compiled_calls,
    compiled_steps,
    register_pytree,
    relative_gap,
    solve,
)
from cvxnn.numerics.jax_import import precision

# One setting for the whole file: what differs between tests compiles nothing.
SOLVER = Cronos(linear_solver="dual", certify="program", tol=1e-6, check_every=10)


def program(dtype: type = np.float64, alpha: float = 0.05, y_scale: float = 1.0) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((12, 3))
    y = y_scale * np.maximum(X @ rng.standard_normal((3, 1)), 0)
    mask = X @ rng.standard_normal((3, 4)) >= 0
    with precision(dtype):
        operator = GatedOperator(X.astype(dtype), mask)
        return ConvexProgram(operator, y.astype(dtype), alpha)


class Halving(NamedTuple):
    x: jax.Array
    step_size: jax.Array
    n_refreshes: jax.Array
    n_steps: jax.Array


@register_pytree
@dataclass(frozen=True)
class Halve(Solver[Any, Any]):
    """A solver of nothing: halves x, asks for a refresh at every measurement if told so."""

    on_host: ClassVar[bool] = False

    tol: float = 0.0
    max_iter: int = 25
    check_every: int = 10
    refreshing: bool = field(default=False, metadata={"static": True})

    def accept(self, problem: Any) -> "Halve":
        return self

    def init(self, problem: jax.Array, start: Start | None) -> Halving:
        zero = jnp.zeros((), jnp.int32)
        return Halving(
            problem if start is None else start.weights, jnp.asarray(jnp.nan), zero, zero
        )

    def refresh(self, problem: jax.Array, state: Halving) -> Halving:
        return state._replace(step_size=jnp.asarray(0.5), n_refreshes=state.n_refreshes + 1)

    def step(self, problem: jax.Array, state: Halving) -> Halving:
        return state._replace(x=state.x * state.step_size, n_steps=state.n_steps + 1)

    def measure(self, problem: jax.Array, state: Halving) -> tuple[Halving, Measurement]:
        details = {"refreshes": state.n_refreshes, "steps": state.n_steps}
        x = state.x[0]
        return state, Measurement(x, -x, x, jnp.asarray(self.refreshing), details)

    def weights(self, state: Halving) -> jax.Array:
        return state.x

    def dual_point(self, state: Halving) -> None:
        pass


# Why it stops ------------------------------------------------------------------------------


def test_runs_max_iter_iterations_exactly() -> None:
    result = solve(jnp.ones(1), Halve())
    assert result.status is Status.MAX_ITER
    assert result.n_iter == 25
    np.testing.assert_array_equal(result.history["iteration"], [10, 20, 25])
    np.testing.assert_array_equal(result.history["steps"], [10, 20, 25])
    np.testing.assert_allclose(result.weights, 0.5**25)


def test_converges_at_the_first_measurement_below_tol() -> None:
    result = solve(jnp.ones(1), Halve(tol=0.5**15, max_iter=100))
    assert result.status is Status.CONVERGED
    assert result.n_iter == 20
    assert result.history["stopping"][-1] <= 0.5**15 < result.history["stopping"][-2]


def test_refreshes_before_the_first_step_and_when_asked() -> None:
    never, always = solve(jnp.ones(1), Halve()), solve(jnp.ones(1), Halve(refreshing=True))
    np.testing.assert_array_equal(never.history["refreshes"], [1, 1, 1])
    np.testing.assert_array_equal(always.history["refreshes"], [1, 2, 3])


def test_stops_at_a_value_that_is_not_finite() -> None:
    result = solve(jnp.full(1, jnp.nan), Halve())
    assert result.status is Status.NON_FINITE
    assert result.n_iter == 10


def test_convergence_beats_the_time_limit() -> None:
    assert solve(jnp.ones(1), Halve(tol=1.0), time_limit=0.0).status is Status.CONVERGED


def test_time_limit_stops_at_the_next_measurement() -> None:
    result = solve(program(), replace(SOLVER, tol=0.0), time_limit=0.0)
    assert result.status is Status.TIME_LIMIT
    assert result.n_iter == SOLVER.check_every
    assert np.isfinite(result.weights.blocks).all()


def test_a_generous_time_limit_changes_nothing() -> None:
    result = solve(program(), SOLVER, time_limit=1e6)
    assert result.status is Status.CONVERGED


@pytest.mark.parametrize("status", Status)
def test_every_status_but_success_has_a_remedy(status: Status) -> None:
    assert bool(status.remedy) == (status is not Status.CONVERGED)


# What it returns when things go wrong ------------------------------------------------------


@pytest.mark.parametrize("y_scale", [1e19, 1e30])
def test_overflow_in_single_precision_returns_finite_weights(y_scale: float) -> None:
    result = solve(program(np.float32, y_scale=y_scale), SOLVER)
    assert result.status is Status.NON_FINITE
    assert np.isfinite(result.weights.blocks).all()


def test_the_best_weights_survive_a_later_failure() -> None:
    problem, solver = program(), replace(SOLVER, tol=0.0, max_iter=100)
    good = solve(problem, replace(solver, max_iter=30))

    with precision(np.float64):
        accepted = solver.accept(problem)
        state = accepted.refresh(problem, compiled_steps.compiled_init(problem, accepted, None))
        for _ in range(3):
            state, measured = compiled_steps.compiled_advance(
                problem, accepted, state, np.int32(10)
            )
            if measured.refresh:
                state = accepted.refresh(problem, state)
        state = state._replace(u=state.u * jnp.nan, dual_u=state.dual_u * jnp.nan)
        state, measured = compiled_steps.compiled_advance(problem, accepted, state, np.int32(10))
        assert not np.isfinite(measured.stopping)
        # The loop pads shapes, which moves the last digits.
        np.testing.assert_allclose(
            accepted.weights(state), good.weights.blocks, rtol=1e-9, atol=1e-12
        )
        assert float(measured.objective) == pytest.approx(good.objective, rel=1e-12)


# What it records ---------------------------------------------------------------------------


def test_history_columns_are_equally_long_and_monotone(dtype: type) -> None:
    # The best network never gets worse; with certify="program" the iterate is returned instead.
    solver = replace(SOLVER, certify="network", tol=-1e9, max_iter=205)
    result = solve(program(dtype), solver)
    history = result.history
    assert {"iteration", "time", "objective", "dual_bound", "stopping"} <= set(history)
    assert {len(column) for column in history.values()} == {21}
    assert history["iteration"][-1] == result.n_iter == 205
    assert (np.diff(history["iteration"]) > 0).all()
    assert (np.diff(history["time"]) > 0).all()
    assert (np.diff(history["objective"]) <= 0).all()
    assert (np.diff(history["dual_bound"]) >= 0).all()
    assert (np.diff(history["cg_iterations"]) >= 0).all()
    assert result.objective == history["objective"][-1]
    assert result.dual_bound == history["dual_bound"][-1]
    assert result.gap == relative_gap(result.objective, result.dual_bound, program().rounding())


def test_callback_gets_each_row_as_it_comes() -> None:
    rows: list[dict[str, float]] = []
    result = solve(
        program(),
        replace(SOLVER, tol=0.0, max_iter=50),
        callback=lambda row, weights: rows.append(row),
    )
    assert len(rows) == 5
    for name, column in result.history.items():
        assert [row[name] for row in rows] == list(column)
        assert all(type(row[name]) is float for row in rows)


def test_an_exception_in_the_callback_propagates() -> None:
    seen = []

    def callback(row: dict[str, float], weights: Callable[[], np.ndarray]) -> None:
        seen.append(row["iteration"])
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve(program(), replace(SOLVER, tol=0.0), callback=callback)
    assert seen == [10, 20]


def test_a_slow_callback_counts_as_time() -> None:
    result = solve(
        program(),
        replace(SOLVER, tol=0.0, max_iter=20),
        callback=lambda row, weights: time.sleep(0.05),
    )
    assert np.diff(result.history["time"])[0] >= 0.05


@pytest.mark.parametrize(
    ("objective", "bound", "gap"),
    [
        (2.0, 1.0, 0.5),
        (2.0, 3.0, -0.5),
        (0.0, 0.0, 0.0),
        (1.0, -np.inf, np.inf),
        (1.0, np.nan, np.inf),
        (np.inf, 0.0, np.inf),
        (np.nan, 0.0, np.inf),
    ],
)
def test_relative_gap(objective: float, bound: float, gap: float) -> None:
    assert relative_gap(objective, bound) == gap


def test_a_negative_gap_that_is_mere_rounding_is_zero() -> None:
    assert relative_gap(1.0, 1.0 + 1e-14) < 0
    assert relative_gap(1.0, 1.0 + 1e-14, rounding=1e-13) == 0
    assert relative_gap(1.0, 1.0 + 1e-12, rounding=1e-13) < 0
    # What is positive stays as it is.
    assert relative_gap(1.0, 1.0 - 2.0**-50, rounding=1e-13) == 2.0**-50
    problem = program()
    at_zero = float((np.asarray(problem.y) ** 2).mean()) / 2
    assert problem.rounding() == pytest.approx(100 * np.finfo(float).eps * at_zero)


def test_overflow_leaves_an_objective_and_a_bound_that_hold() -> None:
    result = solve(program(np.float32, y_scale=1e30), SOLVER)
    assert result.status is Status.NON_FINITE
    assert result.objective == np.inf
    assert result.dual_bound <= 0  # the loss is never negative, and nothing else is known
    assert result.gap == np.inf


@pytest.mark.slow
@pytest.mark.parametrize("solver", [InteriorPoint(), ProximalGradient(tol=1e-2)])
def test_the_gap_of_a_perfect_fit_is_the_one_that_stopped(solver: Any) -> None:
    # A linear part without a ridge fits these targets, and leaves an objective of rounding errors.
    X = np.random.default_rng(0).standard_normal((8, 3))
    operator = GatedOperator(X, np.ones((8, 2), bool))
    made = ConvexProgram(
        operator, X[:, :1] + X[:, 1:2], 1e-3, penalty=SquaredL2(), formulation="gated", skip=0.0
    )
    result = solve(made, solver)
    assert result.status is Status.CONVERGED
    assert result.objective < float(made.rounding())
    assert result.gap == pytest.approx(result.history["stopping"][-1], rel=1e-6)
    assert result.gap <= solver.tol


# Start -------------------------------------------------------------------------------------


def test_start_is_neither_changed_nor_consumed() -> None:
    problem = program()
    first = solve(problem, SOLVER)
    with precision(np.float64):
        start = jnp.asarray(first.weights.blocks)
        solve(problem, SOLVER, start=start)
        np.testing.assert_array_equal(start, first.weights.blocks)


@pytest.mark.parametrize("solver", [InteriorPoint(tol=1e-2), replace(SOLVER, certify="network")])
def test_an_incumbent_is_beaten_or_all_but_optimal(solver: Solver[Any, Any]) -> None:
    problem = program()
    best = solve(problem, InteriorPoint(tol=1e-8)).objective
    loose = replace(solver, tol=0.1)
    for incumbent in (solve(problem, loose).objective, best * (1 + 1e-3)):
        found = solve(problem, loose, incumbent=incumbent)
        assert found.status is Status.CONVERGED
        assert found.objective < incumbent or found.gap <= 1e-3
    # What cannot be beaten does not count as a failure.
    found = solve(problem, solver, incumbent=0.9 * best)
    assert found.status is Status.CONVERGED
    assert found.gap <= solver.tol
    few = replace(solver, tol=0.5, max_iter=30)
    assert solve(problem, few, incumbent=0.0).status is Status.CONVERGED
    with pytest.raises(ValueError, match="incumbent is nan"):
        solve(problem, solver, incumbent=np.nan)


def test_problem_survives_and_a_second_solve_is_the_same() -> None:
    problem = program()
    first, second = solve(problem, SOLVER), solve(problem, SOLVER)
    np.testing.assert_array_equal(first.weights.blocks, second.weights.blocks)
    assert first.n_iter == second.n_iter
    np.testing.assert_array_equal(first.history["stopping"], second.history["stopping"])


def test_calls_of_compiled_code_are_short_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An interrupt waits for one call, which takes the more steps the smaller the data."""
    problem, calls = program(), []
    whole, take = solve(problem, SOLVER), compiled_steps.compiled_take

    def counted(*arguments: Any) -> Any:
        calls.append(int(arguments[3]))
        return take(*arguments)

    monkeypatch.setattr(compiled_steps, "compiled_take", counted)
    n, d, P = 12, 3, 4
    monkeypatch.setattr(
        compiled_calls, "_CALL", 4 * 4 * (2 * n * d * P * 2)
    )  # four steps in two signs, with conjugate gradient
    found = solve(problem, SOLVER)
    # The first call takes one step, and later ones twice as many while they are short.
    assert calls[0] == 1
    assert max(calls) == 4
    assert sum(calls) < found.n_iter  # the last steps of ten come with the measurement
    np.testing.assert_array_equal(found.weights.blocks, whole.weights.blocks)
    np.testing.assert_array_equal(found.history["stopping"], whole.history["stopping"])


# Compilation and precision -----------------------------------------------------------------


@pytest.mark.slow
def test_other_values_compile_nothing(compilations: Callable[[], int]) -> None:
    solve(program(), SOLVER)
    problem = program()
    before = compilations()
    size = compiled_steps.compiled_advance.n_programs
    changes = [
        {"tol": 1e-3},
        {"rho": 1.0},
        {"max_iter": 37},
        {"relaxation": 1.0},
        {"check_every": 7},
        {"cg_tol": 1e-3, "cg_max_iter": 5, "cg_floor": 1e-4},
    ]
    for options in changes:
        solve(problem, replace(SOLVER, **options))
    for alpha in (1e-3, 0.5, 0.0):
        solve(replace(problem, alpha=alpha), SOLVER)
    assert compilations() == before
    assert compiled_steps.compiled_advance.n_programs == size


def test_the_counter_sees_a_new_shape(compilations: Callable[[], int]) -> None:
    before = compilations()
    solve(jnp.ones(3), Halve())
    assert compilations() > before


@pytest.mark.parametrize("raised", [False, True])
def test_precision_is_scoped(dtype: type, raised: bool) -> None:
    before = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    try:
        with precision(dtype):
            assert jnp.asarray(np.ones(2, dtype)).dtype == dtype
            assert jax.config.jax_enable_x64 == (dtype == np.float64)
            assert jax.config.jax_default_matmul_precision == "highest"
            if raised:
                raise KeyError
    except KeyError:
        pass
    assert (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision) == before


def test_result_has_the_precision_of_the_data(dtype: type) -> None:
    result = solve(program(dtype), replace(SOLVER, tol=1e-3))
    assert result.weights.blocks.dtype == dtype
    assert isinstance(result.weights.blocks, np.ndarray)
    assert type(result.objective) is float


# What it refuses ---------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["max_iter", "check_every"])
def test_refuses_options_with_which_it_would_never_end(option: str) -> None:
    with pytest.raises(ValueError, match=rf"Halve: {option}=0; expected at least 1"):
        solve(jnp.ones(1), replace(Halve(), **{option: 0}))


def test_refuses_a_tolerance_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="tol is nan"):
        solve(jnp.ones(1), Halve(tol=float("nan")))


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_refuses_strengths_out_of_range(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha=.*expected a finite number of at least 0"):
        solve(program(alpha=alpha), SOLVER)


def test_refuses_an_unknown_form() -> None:
    with pytest.raises(ValueError, match="formulation='gate'; expected one of"):
        solve(replace(program(), formulation="gate"), SOLVER)


@pytest.mark.parametrize(
    "option", [{"certify": "x"}, {"rho": -1.0}, {"relaxation": 2.0}, {"rank": 0}]
)
def test_cronos_names_the_option_that_is_out_of_range(option: dict[str, Any]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=rf"{name}={value!r}; expected"):
        solve(program(), replace(SOLVER, **option))


# Data at their limits ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1e-18])
@pytest.mark.parametrize("solver", [ProximalGradient(), InteriorPoint()])
def test_data_of_nothing_leave_the_zero_network_certified(scale: float, solver: Any) -> None:
    problem = program(np.float32)
    operator = replace(problem.operator, X=problem.operator.X * np.float32(scale))
    result = solve(replace(problem, operator=operator, formulation="gated"), solver)
    assert result.status is Status.CONVERGED
    np.testing.assert_array_equal(result.weights.blocks, 0)
    at_zero = float((np.asarray(problem.y) ** 2).mean()) / 2
    assert result.objective == pytest.approx(at_zero, rel=1e-5)


@pytest.mark.parametrize("solver", [Cronos(), InteriorPoint()])
def test_overflow_is_a_status_not_a_warning(solver: Any) -> None:
    problem = program()
    operator = replace(problem.operator, X=np.array(problem.operator.X) * 1e160)
    result = solve(replace(problem, operator=operator), solver)
    assert result.status in (Status.NON_FINITE, Status.STALLED)
    assert np.isfinite(result.weights.blocks).all()
    assert result.dual_bound <= result.objective
