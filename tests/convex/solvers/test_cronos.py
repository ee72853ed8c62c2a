"""CRONOS against a naive ADMM, against CVXPY, and against the rate of Theorem 1."""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler

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
    Result,
    SquaredL2,
    SquaredLoss,
    Status,
    sample_patterns,
    solve,
    solve_with_cvxpy,
)
from cvxnn.convex.solvers.cronos.cronos import CronosState
from cvxnn.numerics.jax_import import precision

# Each compiles for seconds. Those that "auto" never takes are left out of quick runs.
OTHERS = ["block", "block_nystrom", "nystrom"]
LINEAR_SOLVERS = [
    "dual",
    "mean_field",
    *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS),
]

# Few shapes and options: each pair of them compiles for seconds.
TWO_OUTPUTS = (24, 4, 6, 2)  # n, d, P, outputs
WIDE = (6, 10, 5, 1)  # n < d
TALL = (40, 5, 8, 1)
ALPHA = 0.02
RANK = 8

# PCG goes far enough for the bound to be as tight as tol asks.
TIGHT = Cronos(
    certify="program",
    tol=1e-6,
    max_iter=20_000,
    check_every=100,
    rank=RANK,
    cg_tol=1e-6,
    cg_floor=1e-12,
)
SINGLE = replace(TIGHT, tol=1e-4, cg_tol=1e-4, cg_floor=1e-6)


def make(
    shape: tuple[int, int, int, int] = TWO_OUTPUTS,
    kind: str = "plain",
    *,
    dtype: type = np.float64,
    alpha: float = ALPHA,
) -> ConvexProgram:
    n, d, P, C = shape
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    Y = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ rng.standard_normal((3, C))
    Y += 0.1 * rng.standard_normal((n, C))
    if kind == "duplicate columns":
        X[:, -1] = X[:, 0]
    elif kind == "constant column":
        X[:, -1] = 1
    elif kind == "zero rows":
        X[::3] = 0
    elif kind == "rows of all sizes":
        X *= np.geomspace(1e-2, 10, n)[:, None]
    elif kind == "columns of all sizes":
        X *= np.geomspace(1e-2, 1e2, d)
    # Closed patterns as padding: one shape for all kinds.
    mask = sample_patterns(X, P, random_state=0).mask
    mask = np.pad(mask, ((0, 0), (0, P - mask.shape[1])))
    with precision(dtype):
        operator = GatedOperator(X.astype(dtype), mask)
        return ConvexProgram(operator, Y.astype(dtype), alpha)


@functools.cache
def optimum(shape: tuple[int, int, int, int] = TWO_OUTPUTS, kind: str = "plain") -> float:
    return solve_with_cvxpy(make(shape, kind)).objective


def check(result: Result, program: ConvexProgram, best: float, rtol: float) -> None:
    """What holds for each converged solve of the program."""
    assert result.status is Status.CONVERGED
    assert result.history["program_objective"][-1] == pytest.approx(best, rel=rtol)
    assert result.history["violation"][-1] <= rtol
    assert best * (1 - 10 * rtol) <= result.dual_bound <= best * (1 + 0.1 * rtol)
    check_weights(result, program)


def check_weights(result: Result, program: ConvexProgram, certify: str = "program") -> None:
    """The weights have the objective that is reported."""
    dtype = program.operator.X.dtype
    with precision(dtype):
        at = program.evaluate(result.weights)
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    value = at.objective if certify == "program" else at.network_objective
    assert float(value) == pytest.approx(result.objective, rel=rtol, abs=1e-30)


# Against CVXPY -----------------------------------------------------------------------------
# Whichever test of a linear solver comes first compiles it for seconds: all are slow together.


@pytest.mark.slow
@pytest.mark.parametrize("linear_solver", LINEAR_SOLVERS)
def test_agrees_with_cvxpy(linear_solver: Any, dtype: type) -> None:
    program = make(dtype=dtype)
    solver = TIGHT if dtype == np.float64 else SINGLE
    result = solve(program, replace(solver, linear_solver=linear_solver))
    check(result, program, optimum(), rtol=1e-4 if dtype == np.float64 else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("linear_solver", ["dual", "mean_field", "nystrom"])
def test_agrees_with_cvxpy_where_features_outnumber_rows(linear_solver: Any) -> None:
    program = make(WIDE)
    result = solve(program, replace(TIGHT, linear_solver=linear_solver))
    check(result, program, optimum(WIDE), rtol=1e-4)


@pytest.mark.slow
def test_agrees_with_cvxpy_where_rows_outnumber_features() -> None:
    program = make(TALL)
    result = solve(program, replace(TIGHT, linear_solver="dual"))
    check(result, program, optimum(TALL), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("linear_solver", LINEAR_SOLVERS)
@pytest.mark.parametrize(
    "kind",
    [
        "duplicate columns",
        "constant column",
        "zero rows",
        "rows of all sizes",
        "columns of all sizes",
    ],
)
def test_agrees_with_cvxpy_on_awkward_data(kind: str, linear_solver: Any) -> None:
    program = make(kind=kind)
    solver = replace(TIGHT, linear_solver=linear_solver, tol=2e-5)
    check(solve(program, solver), program, optimum(kind=kind), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("linear_solver", ["mean_field", "nystrom"])
def test_default_pcg_tolerances_do_not_hold_the_certificate_back(linear_solver: Any) -> None:
    program = make()
    solver = Cronos(certify="program", tol=1e-6, check_every=100, max_iter=20_000, rank=RANK)
    exact = solve(program, replace(solver, linear_solver="dual"))
    inexact = solve(program, replace(solver, linear_solver=linear_solver))
    assert exact.status is inexact.status is Status.CONVERGED
    assert inexact.n_iter <= 3 * exact.n_iter


@pytest.mark.slow
def test_bound_never_exceeds_the_optimum_on_the_way(dtype: type) -> None:
    program = make(dtype=dtype)
    solver = replace(TIGHT, linear_solver="dual", check_every=1, max_iter=300, tol=-1.0)
    history = solve(program, solver).history
    slack = 1e-8 if dtype == np.float64 else 1e-5
    assert (history["dual_bound"] <= optimum() * (1 + slack)).all()
    assert history["dual_bound"][-1] > 0.9 * optimum()


def test_certified_networks_are_at_least_as_good_as_the_program() -> None:
    program = make()
    result = solve(program, Cronos(linear_solver="dual", check_every=5))
    assert result.status is Status.CONVERGED
    assert result.gap <= 1e-3
    assert result.objective <= optimum() * (1 + 1e-3)
    check_weights(result, program, "network")


# Every loss and penalty --------------------------------------------------------------------

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
    pytest.param(loss, penalty, marks=() if (i + 1) % 4 == j else pytest.mark.slow)
    for i, loss in enumerate(LOSSES)
    for j, penalty in enumerate(PENALTIES)
]
LOOSE = Cronos(certify="program", tol=1e-5, max_iter=20_000, check_every=50, linear_solver="dual")


def entry(
    loss: str,
    penalty: str = "neuron",
    *,
    weighted: bool = False,
    skip: float | None = None,
    alpha: float = 0.03,
) -> ConvexProgram:
    """A small problem with a leaf of weights always, so that all of a pair compiles once."""
    n, d, P, C = 14, 3, 4, 2
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    y = np.maximum(X @ rng.standard_normal((d, C)), 0) + 0.3 * rng.standard_normal((n, C)) - 0.3
    if loss == "logistic":
        y = np.where(y >= 0, 1.0, -1.0)
    elif loss == "multinomial":
        y = np.eye(C)[y.argmax(axis=1)]
    mask = X @ rng.standard_normal((d, P)) >= 0
    weights = rng.exponential(size=n) if weighted else np.ones(n)
    weights[0] *= not weighted
    with precision(np.float64):
        program = ConvexProgram(
            GatedOperator(X, mask),
            y,
            alpha,
            LOSSES[loss],
            PENALTIES[penalty],
            weights,
        )
        return program if skip is None else replace(program, skip=skip)


def agrees(program: ConvexProgram) -> Result:
    """Solve, and compare with CVXPY."""
    result, best = solve(program, LOOSE), solve_with_cvxpy(program).objective
    assert result.status is Status.CONVERGED
    assert result.history["program_objective"][-1] == pytest.approx(best, rel=1e-4)
    assert result.history["violation"][-1] <= LOOSE.tol
    assert best * (1 - 1e-4) <= result.dual_bound <= best * (1 + 1e-8)
    check_weights(result, program)
    with precision(np.float64):
        assert float(program.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=1e-6)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "penalty"), TABLE)
def test_agrees_with_cvxpy_with_weights_and_a_skip_connection(loss: str, penalty: str) -> None:
    agrees(entry(loss, penalty, skip=0.1))
    ridge = 0.0 if loss in ("squared", "huber") else 0.1
    agrees(entry(loss, penalty, weighted=True, skip=ridge))


@pytest.mark.parametrize("loss", LOSSES)
def test_agrees_with_cvxpy_with_every_loss(loss: str) -> None:
    agrees(entry(loss))
    agrees(entry(loss, weighted=True))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_a_warm_start_from_a_result_takes_fewer_iterations(loss: str) -> None:
    program = entry(loss)
    first = solve(program, replace(LOOSE, check_every=5))
    near = entry(loss, alpha=0.97 * 0.03)
    cold = solve(near, replace(LOOSE, check_every=5))
    warm = solve(near, replace(LOOSE, check_every=5), start=first)
    assert cold.status is warm.status is Status.CONVERGED
    assert warm.n_iter < cold.n_iter
    best = solve_with_cvxpy(near).objective
    assert warm.history["program_objective"][-1] == pytest.approx(best, rel=1e-4)
    assert warm.dual_bound <= best * (1 + 1e-8)


def test_a_warm_start_keeps_the_bound_it_is_given() -> None:
    program = entry("squared")
    first = solve(program, LOOSE)
    again = solve(program, replace(LOOSE, max_iter=1, tol=-1.0), start=first)
    assert again.dual_bound >= first.dual_bound * (1 - 1e-12)


# Against a naive ADMM ----------------------------------------------------------------------


def naive_admm(program: ConvexProgram, solver: Cronos, n_steps: int) -> list[np.ndarray]:
    """Algorithm 2 with every matrix written out; returns u, v, s of the last iteration."""
    X, mask, Y = (
        np.asarray(part) for part in (program.operator.X, program.operator.mask, program.y)
    )
    (n, d), P, C = X.shape, mask.shape[1], Y.shape[1]
    F0 = np.concatenate([mask[:, i : i + 1] * X for i in range(P)], axis=1)
    F = np.concatenate([F0, -F0], axis=1)
    rows = X.copy()
    if solver.scale_rows:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows *= np.sqrt(min(n, d)) / np.linalg.norm(rows)
    signs = 2.0 * mask - 1
    E = [signs[:, i : i + 1] * rows for i in range(P)] * 2
    G = np.zeros((2 * P * n, 2 * P * d))
    for i, block in enumerate(E):
        G[i * n : (i + 1) * n, i * d : (i + 1) * d] = block
    rho, alpha, a = solver.rho, float(program.alpha), solver.relaxation
    system = F.T @ F / n + rho * np.eye(2 * P * d) + rho * G.T @ G
    out: list[list[np.ndarray]] = [[], [], []]
    for c in range(C):
        v, s, nu = np.zeros(2 * P * d), np.zeros(2 * P * n), np.zeros(2 * P * n)
        # The subgradient of the penalty at zero that is closest to stationarity.
        dual = (F.T @ Y[:, c] / n).reshape(2 * P, d)
        sizes = np.linalg.norm(dual, axis=1, keepdims=True)
        dual = (dual * np.minimum(1, alpha / np.maximum(sizes, 1e-300)) / rho).ravel()
        for _ in range(n_steps):
            rhs = F.T @ Y[:, c] / n + rho * (v - dual) + rho * G.T @ (s - nu)
            u = np.linalg.solve(system, rhs)
            u_hat, Gu_hat = a * u + (1 - a) * v, a * G @ u + (1 - a) * s
            blocks = (u_hat + dual).reshape(2 * P, d)
            sizes = np.maximum(np.linalg.norm(blocks, axis=1, keepdims=True), 1e-300)
            v = (blocks * np.maximum(1 - alpha / rho / sizes, 0)).ravel()
            s = np.maximum(Gu_hat + nu, 0)
            step = 1 if solver.dual_step is None else solver.dual_step / solver.rho
            dual, nu = dual + step * (u_hat - v), nu + step * (Gu_hat - s)
        for parts, part in zip(out, (u, v, s), strict=True):
            parts.append(part)
    u, v = (np.stack(parts).reshape(C, 2, P, d) for parts in out[:2])
    return [u, v, np.stack(out[2]).reshape(C, 2, P, n).transpose(3, 0, 1, 2)]


@functools.partial(jax.jit, static_argnums=2)
def iterate(program: ConvexProgram, solver: Cronos, n_steps: int) -> CronosState:
    state = solver.refresh(program, solver.init(program, None))
    return jax.lax.fori_loop(0, n_steps, lambda _, state: solver.step(program, state), state)


@pytest.mark.parametrize(
    ("linear_solver", "relaxation", "scale_rows"),
    [
        ("dual", 1.6, True),
        ("mean_field", 1.6, True),
        ("dual", 1.0, False),
        *(pytest.param(name, 1.6, True, marks=pytest.mark.slow) for name in OTHERS),
        pytest.param("nystrom", 1.0, False, marks=pytest.mark.slow),
    ],
)
def test_iterates_are_those_of_algorithm_2(
    linear_solver: Any, relaxation: float, scale_rows: bool
) -> None:
    program = make()
    solver = Cronos(
        linear_solver=linear_solver,
        relaxation=relaxation,
        scale_rows=scale_rows,
        rank=RANK,
        rho=0.1,
        cg_tol=1e-12,
        cg_floor=1e-12,
        cg_max_iter=500,
    )
    with precision(np.float64):
        state = iterate(program, solver, 7)
    for actual, expected in zip(
        (state.u, state.v, state.s), naive_admm(program, solver, 7), strict=True
    ):
        np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 1.0, pytest.param(1.5, marks=pytest.mark.slow)])
def test_the_printed_dual_step_is_a_multiple_of_the_residuals(ratio: float) -> None:
    program = make()
    options = {
        "linear_solver": "dual",
        "relaxation": 1.0,
        "scale_rows": False,
        "balance": False,
        "check_every": 100,
    }
    solver = Cronos(rho=0.1, dual_step=ratio * 0.1, **options)
    with precision(np.float64):
        state = iterate(program, solver, 7)
        plain = iterate(program, replace(solver, dual_step=None), 7)
    for actual, expected in zip(
        (state.u, state.v, state.s), naive_admm(program, solver, 7), strict=True
    ):
        np.testing.assert_allclose(np.asarray(actual), expected, atol=1e-8)
    # gamma alpha = rho is the step of ADMM, and only that is.
    same = np.allclose(np.asarray(state.v), np.asarray(plain.v), rtol=0, atol=1e-12)
    assert same == (ratio == 1.0)
    result = solve(program, replace(solver, tol=1e-4, max_iter=20_000))
    assert result.status is Status.CONVERGED
    assert result.objective <= optimum(TWO_OUTPUTS) * (1 + 2e-4)


def test_a_dual_step_needs_a_fixed_rho() -> None:
    with pytest.raises(ValueError, match=r"dual_step=0\.1 is for a fixed rho; set balance=False"):
        solve(make(), Cronos(dual_step=0.1))
    with pytest.raises(ValueError, match="dual_step=0; expected None or a number above 0"):
        solve(make(), Cronos(dual_step=0, balance=False))


def test_fixed_penalties_stay_and_balanced_ones_move() -> None:
    program = make()
    options = {"linear_solver": "dual", "max_iter": 50, "tol": -1.0, "check_every": 5}
    fixed = solve(program, Cronos(balance=False, rho=0.3, **options)).history
    moving = solve(program, Cronos(rho=0.3, **options)).history
    np.testing.assert_allclose([fixed["rho_weights"], fixed["rho_cones"]], 0.3)
    # Reported before each balancing, which follows the measurements 1, 2, 4, 8, ... only.
    changed = np.flatnonzero(np.diff(moving["rho_weights"])) + 1
    assert 1 in changed
    assert set(changed) <= {1, 2, 4, 8}


# Theorem 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("linear_solver", ["dual", pytest.param("block", marks=pytest.mark.slow)])
def test_ergodic_averages_converge_like_one_over_k(linear_solver: Any) -> None:
    program = make(TALL)
    solver = Cronos(
        linear_solver=linear_solver, balance=False, relaxation=1.0, scale_rows=False, rho=0.2
    )
    n_steps, first = 2000, 50

    @jax.jit
    def run(program: ConvexProgram) -> tuple[jax.Array, jax.Array]:
        op = program.operator

        def body(carry: tuple, k: jax.Array) -> tuple:
            state, sums = carry
            state = solver.step(program, state)
            sums = tuple(a + b for a, b in zip(sums, (state.u, state.v, state.s), strict=True))
            u, v, s = (total / k for total in sums)
            objective = program.loss.value(op.forward(u), program.y).mean()
            objective += program.alpha * program.penalty.value(v)
            residual = jnp.hypot(jnp.linalg.norm(u - v), jnp.linalg.norm(op.constraints(u) - s))
            return (state, sums), (objective, residual)

        state = solver.refresh(program, solver.init(program, None))
        sums = tuple(jnp.zeros_like(part) for part in (state.u, state.v, state.s))
        steps = jnp.arange(1.0, n_steps + 1)
        return jax.lax.scan(body, (state, sums), steps)[1]

    with precision(np.float64):
        objective, residual = (np.asarray(column) for column in run(program))
    k = np.arange(1, n_steps + 1)
    errors = {"objective": np.abs(objective - optimum(TALL)), "residual": residual}
    for name, error in errors.items():
        scaled = (k * error)[first - 1 :]
        assert scaled.max() <= 3 * scaled[:20].max(), name
        slope = np.polyfit(np.log(k[first:]), np.log(error[first:]), 1)[0]
        assert slope <= -0.9, (name, slope)


# Preconditioners ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "n_patterns"), [(load_breast_cancer, 40), (load_digits, 50)], ids=["cancer", "digits"]
)
def test_structured_preconditioners_need_a_third_of_nystroms_iterations(
    load: Any, n_patterns: int
) -> None:
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    X = X[:, X.std(axis=0) > 0]
    y = np.where(y % 2 == 1, 1.0, -1.0)[:, None]
    mask = sample_patterns(X, n_patterns, random_state=0).mask
    with precision(np.float64):
        operator = GatedOperator(X, mask)
        program = ConvexProgram(operator, y, 1e-2)
    # The method as published: unscaled rows, fixed rho = 0.01; every solve to 1e-6.
    published = Cronos(
        rho=0.01,
        balance=False,
        scale_rows=False,
        relaxation=1.0,
        cg_tol=1e-6,
        cg_max_iter=2000,
        rank=20,
        max_iter=2,
        check_every=2,
        tol=-1.0,
    )
    iterations = {
        name: solve(program, replace(published, linear_solver=name)).history["cg_iterations"][-1]
        for name in ("nystrom", "block", "mean_field")
    }
    assert iterations["nystrom"] < 2 * 2000
    assert 0 < iterations["block"] <= iterations["nystrom"] / 3
    assert 0 < iterations["mean_field"] <= iterations["nystrom"] / 3


# Edges -------------------------------------------------------------------------------------


def test_alpha_at_its_maximum_gives_zero_weights(dtype: type) -> None:
    program = make(dtype=dtype)
    with precision(dtype):
        alpha = float(program.alpha_max()) * 1.01
    result = solve(replace(program, alpha=alpha), replace(SINGLE, linear_solver="dual"))
    assert result.status is Status.CONVERGED
    assert not result.weights.blocks.any()
    assert result.objective == pytest.approx(float((np.asarray(program.y) ** 2).sum()) / 2 / 24)


@pytest.mark.slow
@pytest.mark.parametrize("tol", [1e-1, 1e-2])
def test_the_gap_that_stops_is_the_gap_that_is_reported(tol: float) -> None:
    for kind in ("plain", "duplicate columns"):
        problem = make(TALL, kind)
        for certify in ("network", "program"):
            result = solve(problem, replace(LOOSE, certify=certify, tol=tol, check_every=1))
            assert result.status is Status.CONVERGED
            assert result.gap <= tol
            check_weights(result, problem, certify)


def test_alpha_zero_returns_a_finite_network_and_does_not_pretend_to_certify() -> None:
    program = make(alpha=0.0)
    result = solve(program, replace(TIGHT, linear_solver="dual", max_iter=500))
    assert result.status is Status.MAX_ITER
    assert result.dual_bound == 0
    assert np.isfinite(result.weights.blocks).all()
    assert result.objective < optimum()
    check_weights(result, program)


def test_a_warm_start_at_the_optimum_has_it_from_the_first_measurement() -> None:
    program = make()
    solver = replace(TIGHT, linear_solver="dual")
    first = solve(program, solver)
    warm = solve(program, solver, start=first.weights)
    assert warm.history["objective"][0] <= first.objective * (1 + 1e-12)
    assert warm.n_iter <= first.n_iter


@pytest.mark.parametrize(
    ("n", "d", "P"), [(1, 1, 1), (5, 1, 2), (1, 4, 3)], ids=["scalar", "d=1", "n=1"]
)
def test_smallest_problems(n: int, d: int, P: int) -> None:
    program = make((n, d, P, 1))
    result = solve(program, replace(TIGHT, linear_solver="dual", tol=1e-5))
    check(result, program, optimum((n, d, P, 1)), rtol=1e-4)


@pytest.mark.parametrize("linear_solver", LINEAR_SOLVERS)
def test_data_or_targets_of_zeros_are_solved_at_once(linear_solver: Any) -> None:
    program = make()
    solver = replace(TIGHT, linear_solver=linear_solver)
    with precision(np.float64):
        no_targets = replace(program, y=jnp.zeros_like(program.y))
        operator = replace(program.operator, X=jnp.zeros_like(program.operator.X))
        no_data = replace(program, operator=operator)
    for degenerate in (no_targets, no_data):
        result = solve(degenerate, solver)
        assert result.status is Status.CONVERGED
        assert not result.weights.blocks.any()


@pytest.mark.parametrize("linear_solver", ["dual", "mean_field"])
def test_single_precision_survives_columns_of_all_sizes(linear_solver: Any) -> None:
    program = make(kind="columns of all sizes", dtype=np.float32)
    result = solve(program, replace(SINGLE, linear_solver=linear_solver, tol=1e-3))
    assert result.status is Status.CONVERGED
    best = optimum(kind="columns of all sizes")
    assert result.history["program_objective"][-1] == pytest.approx(best, rel=1e-2)


# What it accepts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "expected"),
    [(20, 2, "dual"), (400, 40, "dual"), (1000, 2, "mean_field"), (5000, 40, "mean_field")],
)
def test_auto_is_exact_where_that_takes_fewer_flops(n: int, d: int, expected: str) -> None:
    with precision(np.float64):
        operator = GatedOperator(jnp.ones((n, d)), jnp.ones((n, 40), bool))
        program = ConvexProgram(operator, jnp.ones((n, 1)), 0.1)
    assert Cronos().accept(program).linear_solver == expected


def test_refuses_the_gated_form_and_names_who_takes_it() -> None:
    with pytest.raises(TypeError, match="ProximalGradient or InteriorPoint"):
        solve(replace(make(), formulation="gated"), Cronos())


def test_refuses_other_problems_and_names_who_takes_them() -> None:
    with pytest.raises(TypeError, match="AcceleratedGradient"):
        solve(jnp.ones(3), Cronos())


def test_refuses_unknown_linear_solvers_and_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'lu'.*'dual'.*'nystrom'"):
        solve(make(), Cronos(linear_solver="lu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("linear_solver", LINEAR_SOLVERS)
def test_flops_grow_with_iterations(linear_solver: Any) -> None:
    program = make()
    solver = replace(TIGHT, linear_solver=linear_solver, tol=-1.0)
    short, long = (solve(program, replace(solver, max_iter=k)) for k in (100, 300))
    assert 0 < solver.flops(program, short) < solver.flops(program, long)
    n, d, P, C = TWO_OUTPUTS
    # An iteration has at least one product with the data each way.
    assert solver.flops(program, long) > 300 * 4 * n * d * P * C
