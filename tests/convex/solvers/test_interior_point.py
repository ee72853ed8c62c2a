"""The interior-point method against CVXPY, its certificate, and input that degenerates."""

import warnings
from dataclasses import dataclass, replace

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from cvxnn.convex import (
    L1,
    ConvexProgram,
    FeatureGroupLasso,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    Loss,
    MultinomialLoss,
    NeuronGroupLasso,
    SquaredL2,
    SquaredLoss,
    Status,
    on_host,
    register_pytree,
    solve,
    solve_with_cvxpy,
)
from cvxnn.convex.solvers.interior_point import newton_system
from cvxnn.convex.solvers.interior_point.interior_point import cost
from cvxnn.convex.solvers.interior_point.newton_system import Blocks, Data, NewtonSystem

cp = pytest.importorskip("cvxpy")

PRECISE = InteriorPoint(tol=1e-8, certify="program")


@register_pytree
@dataclass(frozen=True)
class Coupled(MultinomialLoss):
    """A loss that is another function as far as a solver knows."""


def make(
    n: int = 30,
    d: int = 4,
    P: int = 6,
    *,
    alpha: float = 0.02,
    loss: Loss | None = None,
    seed: int = 0,
    n_outputs: int = 1,
    **options: object,
) -> ConvexProgram:
    """Gaussian data, a teacher of three neurons, random gates."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    f = np.maximum(X @ rng.standard_normal((d, 3)), 0) @ rng.standard_normal((3, n_outputs))
    y = f - f.mean() + 0.1 * rng.standard_normal(f.shape)
    if isinstance(loss, MultinomialLoss):
        y = np.eye(n_outputs)[y.argmax(axis=1)]
    loss = SquaredLoss() if loss is None else loss
    if isinstance(loss, LogisticLoss):
        y = np.where(y > 0, 1.0, -1.0)
    mask = X @ rng.standard_normal((d, P)) >= 0
    return ConvexProgram(GatedOperator(X, mask), y, alpha, loss, **options)


def optimum(program: ConvexProgram) -> float:
    """The program's optimum by CVXPY, written from the formulas of ``cvxnn.convex.program``."""
    X, mask = program.operator.X, program.stacked().operator.mask.astype(float)
    P, share = mask.shape[1], np.broadcast_to(program.share, (len(X), 1))[:, 0]
    total = 0.0
    for c in range(program.y.shape[1]):
        y = program.y[:, c]
        blocks = [cp.Variable((X.shape[1], P)) for _ in range(program.n_signs)]
        difference = blocks[0] - blocks[1] if len(blocks) == 2 else blocks[0]
        f = cp.sum(cp.multiply(mask, X @ difference), axis=1)
        if isinstance(program.loss, SquaredLoss):
            losses = cp.square(f - y) / 2
        elif isinstance(program.loss, HuberLoss):
            losses = cp.huber(f - y, program.loss.delta) / 2
        else:
            losses = cp.logistic(-cp.multiply(y, f))
        objective = share @ losses
        last = P - (program.skip is not None)
        cones = []
        for U in blocks:
            if isinstance(program.penalty, NeuronGroupLasso):
                objective += program.alpha * cp.sum(cp.norm(U[:, :last], axis=0))
            else:
                objective += program.alpha / 2 * cp.sum_squares(U[:, :last])
            if program.skip is not None:
                objective += program.skip * len(blocks) / 2 * cp.sum_squares(U[:, -1])
            if program.formulation == "relu":
                cones.append(cp.multiply(2 * mask[:, :last] - 1, X @ U[:, :last]) >= 0)
        precise = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-9)
        with warnings.catch_warnings():
            # It is asked for more than it can always give; its default, 1e-8, is enough here.
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")
            total += cp.Problem(cp.Minimize(objective), cones).solve(solver="CLARABEL", **precise)
    return total


def check(program: ConvexProgram, tol: float = 1e-7) -> None:
    """The solver reaches the gap, its report is true, and CVXPY finds the same optimum."""
    result = solve(program, PRECISE)
    assert result.gap <= tol
    at = program.evaluate(result.weights)
    np.testing.assert_allclose(result.objective, at.objective, rtol=1e-12)
    assert at.violation <= tol
    np.testing.assert_allclose(program.bound_of(result.dual), result.dual_bound, rtol=1e-12)
    expected = optimum(program)
    np.testing.assert_allclose(result.objective, expected, rtol=1e-6)
    assert result.dual_bound <= expected + 1e-8 * abs(expected)


@pytest.mark.parametrize("penalty", [NeuronGroupLasso(), SquaredL2()], ids=["lasso", "ridge"])
@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("loss", [SquaredLoss(), HuberLoss(0.3), LogisticLoss()], ids=repr)
def test_agrees_with_cvxpy(loss: Loss, formulation: str, penalty: object) -> None:
    check(make(loss=loss, formulation=formulation, penalty=penalty))


@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("loss", [SquaredLoss(), HuberLoss(0.3), LogisticLoss()], ids=repr)
def test_agrees_with_cvxpy_with_weights_and_skip(loss: Loss, formulation: str) -> None:
    weight = np.random.default_rng(1).uniform(0, 3, 30)
    weight[:3] = 0
    program = make(loss=loss, formulation=formulation, sample_weight=weight)
    check(program)
    check(replace(program, skip=0.1))
    if not isinstance(loss, LogisticLoss):
        check(replace(program, skip=0.0))


@pytest.mark.parametrize("penalty", [NeuronGroupLasso(), SquaredL2()], ids=["lasso", "ridge"])
@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_classes_that_the_loss_couples(formulation: str, penalty: object) -> None:
    weight = np.random.default_rng(1).uniform(0, 3, 30)
    weight[:3] = 0
    options = {"loss": MultinomialLoss(), "formulation": formulation, "penalty": penalty}
    program = make(n_outputs=3, **options)
    weighted = replace(program, sample_weight=weight, skip=0.1)
    cases = [program, weighted]
    if isinstance(penalty, SquaredL2):
        cases.append(replace(program, alpha=np.array([0.01, 0.02, 0.05])))
    for case in cases:
        result, expected = solve(case, PRECISE), solve_with_cvxpy(case)
        assert result.gap <= 1e-7
        assert case.evaluate(result.weights).violation <= 1e-7
        np.testing.assert_allclose(result.objective, expected.objective, rtol=1e-6)
        assert result.dual_bound <= expected.objective * (1 + 1e-8)
        np.testing.assert_allclose(case.bound_of(result.dual), result.dual_bound, rtol=1e-12)


def test_two_classes_are_one_logistic_output() -> None:
    """Opposite neurons for both classes cost twice as much as one for their difference."""
    alone = make(loss=LogisticLoss(), penalty=SquaredL2(), formulation="gated")
    both = np.hstack([alone.y > 0, alone.y < 0]).astype(float)
    pair = replace(alone, y=both, loss=MultinomialLoss(), alpha=2 * alone.alpha)
    np.testing.assert_allclose(
        solve(pair, PRECISE).objective, solve(alone, PRECISE).objective, rtol=1e-7
    )


@pytest.mark.parametrize("seed", range(3))
def test_many_classes_start_near_given_weights(seed: int) -> None:
    program = make(120, 5, 8, n_outputs=6, seed=seed, loss=MultinomialLoss())
    coarse = solve(program, InteriorPoint(tol=0.1, certify="program"))
    fine = solve(program, PRECISE, start=coarse.weights)
    np.testing.assert_allclose(fine.objective, solve(program, PRECISE).objective, rtol=1e-7)


def test_skip_under_the_ridge_penalty() -> None:
    check(replace(make(penalty=SquaredL2(), formulation="gated"), skip=0.05))
    check(replace(make(penalty=SquaredL2()), skip=0.0))


def test_outputs_are_separate_programs() -> None:
    program = make(n_outputs=3)
    check(program)
    result = solve(program, PRECISE)
    alone = [solve(replace(program, y=program.y[:, [c]]), PRECISE) for c in range(3)]
    np.testing.assert_allclose(
        result.objective, sum(single.objective for single in alone), rtol=1e-7
    )


@pytest.mark.slow
@hypothesis.given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 25),
    d=st.integers(1, 6),
    P=st.integers(1, 6),
    log_alpha=st.floats(-5, 0),
    gated=st.booleans(),
)
@hypothesis.settings(max_examples=40)
def test_gap_closes_on_any_small_program(
    seed: int, n: int, d: int, P: int, log_alpha: float, gated: bool
) -> None:
    program = make(
        n, d, P, alpha=10**log_alpha, seed=seed, formulation="gated" if gated else "relu"
    )
    result = solve(program, InteriorPoint(tol=1e-6))
    assert result.status is Status.CONVERGED
    bound = float(program.bound_of(result.dual))
    assert result.objective >= bound - 1e-3 * abs(bound) or not gated
    np.testing.assert_allclose(bound, result.dual_bound, rtol=1e-10, atol=1e-15)


# Input that degenerates --------------------------------------------------------------------


def test_fewer_rows_than_features() -> None:
    check(make(8, 20, 5))


def test_duplicate_and_zero_rows_and_rank_deficient_features() -> None:
    program = make(24, 5, 6)
    X, mask, y = program.operator.X.copy(), program.operator.mask.copy(), program.y.copy()
    X[:, 4] = X[:, 0] - X[:, 1]
    X[5:8], mask[5:8], y[5:8] = X[4], mask[4], y[4]
    X[8] = 2 * X[4]
    mask[8] = mask[4]
    X[9:11] = 0
    check(replace(program, operator=GatedOperator(X, mask), y=y))


def test_rows_of_zeros_and_closed_patterns_get_nothing() -> None:
    program = make()
    X, mask = program.operator.X.copy(), program.operator.mask.copy()
    X[:4] = 0
    mask[4:, 2] = False  # open on rows of zeros only
    program = replace(program, operator=GatedOperator(X, mask))
    result = solve(program, PRECISE)
    assert result.gap <= 1e-7
    assert not result.weights.blocks[:, :, 2].any()
    assert not result.dual.multipliers[:4].any()
    assert not result.dual.multipliers[..., 2].any()
    # Padding changes nothing.
    small = GatedOperator(X[4:], np.delete(mask[4:], 2, axis=1))
    lost = float((program.y[:4] ** 2).sum()) / 2 / len(X)
    alone = solve(
        replace(program, operator=small, y=program.y[4:], alpha=program.alpha * 30 / 26), PRECISE
    )
    np.testing.assert_allclose(result.objective - lost, alone.objective * 26 / 30, rtol=1e-6)


@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_nothing_to_learn_from(formulation: str) -> None:
    program = make(formulation=formulation)
    for empty in (
        replace(program, y=np.zeros_like(program.y)),
        replace(program, operator=replace(program.operator, X=np.zeros((30, 4)))),
        replace(program, operator=replace(program.operator, mask=np.zeros((30, 6), bool))),
    ):
        result = solve(empty, InteriorPoint())
        assert result.status is Status.CONVERGED
        assert not result.weights.blocks.any()
        assert abs(result.gap) <= 1e-6


def test_an_optimum_of_zero_is_reached() -> None:
    program = replace(make(5, 6, 4), skip=0.0)  # the linear term fits every row for nothing
    assert solve(program, PRECISE).objective <= 1e-10


@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("factor", [1.0, 1.001, 1e3, 1e9])
def test_zero_from_alpha_max_on(factor: float, formulation: str) -> None:
    program = make(formulation=formulation)
    program = replace(program, alpha=float(program.alpha_max()) * factor)
    result = solve(program, InteriorPoint())
    assert not result.weights.blocks.any()
    assert abs(result.gap) <= 1e-12


@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("alpha", [1e-6, 1e-9])
def test_tiny_alpha(alpha: float, formulation: str) -> None:
    program = make(40, 3, 4, alpha=alpha, formulation=formulation)
    result = solve(program, PRECISE)
    assert result.gap <= 1e-6
    np.testing.assert_allclose(result.objective, optimum(program), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_solution_follows_the_scale_of_the_features(scale: float) -> None:
    program = make()
    scaled = replace(
        program,
        operator=replace(program.operator, X=program.operator.X * scale),
        alpha=program.alpha * scale,
    )
    result = solve(scaled, PRECISE)
    assert result.gap <= 1e-7
    np.testing.assert_allclose(result.objective, solve(program, PRECISE).objective, rtol=1e-7)


def test_features_of_very_different_scales() -> None:
    program = make()
    X = program.operator.X * np.array([1e-3, 1.0, 1e3, 1e6])
    program = replace(program, operator=replace(program.operator, X=X))
    assert solve(program, PRECISE).gap <= 1e-6


@pytest.mark.parametrize("loss", [SquaredLoss(), LogisticLoss()], ids=repr)
def test_cones_without_interior_do_not_break_the_run(loss: Loss) -> None:
    program = make(loss=loss)
    mask = np.random.default_rng(3).random((30, 6)) < 0.5  # no gate has such a pattern
    program = replace(program, operator=replace(program.operator, mask=mask))
    result = solve(program, InteriorPoint())
    best = float(program.evaluate(result.weights).network_objective)
    np.testing.assert_allclose(result.objective, best, rtol=1e-12)
    assert np.isfinite(result.dual_bound)
    assert result.dual_bound <= optimum(program) * (1 + 1e-6)


def test_values_that_overflow_are_reported() -> None:
    program = make()
    with np.errstate(all="ignore"):
        result = solve(replace(program, y=program.y * 1e200), InteriorPoint())
    assert result.status in (Status.NON_FINITE, Status.STALLED)


# What is reported ---------------------------------------------------------------------------


def test_float32_data_is_solved_in_double_precision() -> None:
    program = make()
    operator = replace(program.operator, X=program.operator.X.astype(np.float32))
    single = replace(program, operator=operator, y=program.y.astype(np.float32))
    result = solve(single, InteriorPoint())
    # So are its weights: rounded ones would have another objective.
    assert result.weights.blocks.dtype == np.float64
    at = on_host(single, np.float64).evaluate(result.weights)
    assert result.objective == pytest.approx(float(at.network_objective), rel=1e-12)
    assert result.gap <= 1e-6
    np.testing.assert_allclose(result.objective, optimum(program), rtol=1e-5)


def test_inactive_neurons_are_exactly_zero() -> None:
    program = make(60, 4, 20, alpha=0.05)
    result = solve(program, PRECISE)
    norms = np.linalg.norm(result.weights.blocks, axis=-1)
    assert 0 < np.count_nonzero(norms) < 20
    assert norms[norms > 0].min() > 1e-4 * norms.max()


def test_bounds_never_cross_and_history_is_complete() -> None:
    program = make()
    best = optimum(program)
    result = solve(program, PRECISE)
    history = result.history
    assert (history["dual_bound"] <= best * (1 + 1e-8)).all()
    assert (np.diff(history["dual_bound"]) >= 0).all()
    feasible = history["violation"] == 0
    assert feasible.any()
    assert (history["program_objective"][feasible] >= best * (1 - 1e-8)).all()
    assert result.n_iter < 30
    assert {"mu", "primal_residual", "dual_residual", "step_length", "cg_iterations"} <= set(
        history
    )
    assert (result.dual.multipliers >= 0).all()
    assert result.dual.multipliers.shape == (30, 1, 2, 6)


def test_starts_are_kept_unless_beaten() -> None:
    program = make()
    solved = solve(program, PRECISE)
    again = solve(program, InteriorPoint(max_iter=1), start=solved)
    np.testing.assert_array_equal(again.weights.blocks, solved.weights.blocks)
    bad = solve(program, InteriorPoint(), start=np.ones_like(solved.weights.blocks))
    np.testing.assert_allclose(bad.objective, solved.objective, rtol=1e-5)


@pytest.mark.parametrize("loss", [SquaredLoss(), HuberLoss(0.5), LogisticLoss()], ids=str)
def test_near_a_gated_solution_it_takes_fewer_iterations(loss: Loss) -> None:
    program = make(60, 4, 8, loss=loss, formulation="gated")
    near = solve(replace(program, alpha=0.021), PRECISE).weights
    cold, warm = (solve(program, PRECISE, start=start) for start in (None, near))
    assert warm.n_iter < cold.n_iter
    assert warm.status is cold.status is Status.CONVERGED
    np.testing.assert_allclose(warm.objective, cold.objective, rtol=1e-7)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_starts_of_any_size_and_outside_the_cones_lead_to_the_optimum(size: float) -> None:
    program = make(n_outputs=2)
    blocks = size * np.random.default_rng(1).standard_normal(program.stacked_shape)
    without = blocks.copy()
    without[:, :, 0] = 0
    for start in (blocks, without):
        result = solve(program, PRECISE, start=start)
        assert result.status is Status.CONVERGED
        np.testing.assert_allclose(result.objective, optimum(program), rtol=1e-6)


def test_network_beats_the_program_or_matches_it() -> None:
    program = make(60, 4, 5, alpha=1e-3)
    network, exact = solve(program, InteriorPoint()), solve(program, PRECISE)
    assert network.objective <= exact.objective * (1 + 1e-6)
    assert network.gap <= 1e-6


def test_stops_where_rounding_stops_it() -> None:
    result = solve(make(), InteriorPoint(tol=0.0, certify="program"))
    assert result.status is Status.STALLED
    assert result.gap <= 1e-8
    assert result.n_iter < 60


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": 0.0}, ValueError, "needs a positive one"),
        ({"alpha": float("nan")}, ValueError, "expected a finite number"),
        ({"penalty": L1()}, TypeError, "L1; use Cronos"),
        (
            {"penalty": FeatureGroupLasso(), "formulation": "gated"},
            TypeError,
            "use ProximalGradient",
        ),
        (
            {"loss": Coupled(), "y": np.eye(3)[np.arange(30) % 3]},
            TypeError,
            "but MultinomialLoss, got Coupled; use Cronos",
        ),
    ],
)
def test_refuses_with_the_remedy(change: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        solve(replace(make(), **change), InteriorPoint())


def test_refuses_bad_options() -> None:
    with pytest.raises(ValueError, match="max_dense=0"):
        solve(make(), InteriorPoint(max_dense=0))
    with pytest.raises(ValueError, match="certify='x'"):
        solve(make(), InteriorPoint(certify="x"))


# The Newton system --------------------------------------------------------------------------


def dense(data: Data, blocks: Blocks) -> np.ndarray:
    """The matrix, entry by entry from its definition."""
    S, P, d = blocks.identity.shape
    X, gates = data.X, data.gates
    F = np.hstack([(1, -1)[s] * gates[i][:, None] * X for s in range(S) for i in range(P)])
    matrix = F.T @ np.diag(blocks.curvature) @ F
    for j in range(S * P):
        s, i = divmod(j, P)
        block = np.diag(blocks.identity[s, i])
        if i < blocks.cone.shape[1]:
            block += X.T @ np.diag(blocks.cone[s, i]) @ X
        if i < blocks.vector.shape[1]:
            block -= np.outer(blocks.vector[s, i], blocks.vector[s, i])
        matrix[j * d : (j + 1) * d, j * d : (j + 1) * d] += block
    return matrix


@pytest.mark.parametrize("max_dense", [1, 7, 1000])
@pytest.mark.parametrize(("n", "P", "S"), [(9, 5, 2), (40, 3, 2), (12, 4, 1)])
@pytest.mark.parametrize("products", [0, 10**6])
def test_newton_system_by_hand(
    n: int, P: int, S: int, max_dense: int, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newton_system, "_KEPT_PRODUCTS", products)
    rng = np.random.default_rng(n + P + S)
    d = 10
    data = Data(rng.standard_normal((n, d)), rng.random((n, P)) < 0.5, S)
    blocks = Blocks(
        cone=rng.exponential(size=(S, P - 1, n)) ** 4,
        identity=rng.uniform(1, 2, (S, P, d)),
        vector=rng.uniform(-0.2, 0.2, (S, P - 1, d)),
        curvature=rng.uniform(0, 3, n),
    )
    alone = Blocks(*(part[None] for part in blocks))
    newton = NewtonSystem(data, alone, lambda f: blocks.curvature * f, max_dense)
    matrix, x = dense(data, blocks), rng.standard_normal((1, S, P, d))
    b = newton.matvec(x)
    np.testing.assert_allclose(b.ravel(), matrix @ x.ravel(), rtol=1e-10, atol=1e-10)
    found, n_iter = newton.solve(b, 1e-13, 1e-9)
    np.testing.assert_allclose(found, x, rtol=1e-7, atol=1e-7)
    assert min(newton.rank, n) <= max_dense
    if max_dense == 1000:
        assert n_iter <= 20
        column = newton.precondition(b)
        assert np.linalg.norm(column - x) <= np.linalg.norm(x)


def test_conjugate_gradient_takes_over_beyond_max_dense() -> None:
    program = make(60, 5, 8)
    result = solve(program, InteriorPoint(tol=1e-7, certify="program", max_dense=10))
    assert result.gap <= 1e-7
    full = solve(program, InteriorPoint(tol=1e-7, certify="program"))
    assert result.history["cg_iterations"][-1] > 1.5 * full.history["cg_iterations"][-1]
    assert (result.history["rank"] <= 10).all()


def test_cost_and_flops_grow_with_the_problem() -> None:
    small, large = make(30, 4, 6), make(60, 8, 12)
    assert 0 < cost(small) < cost(large)
    assert cost(replace(small, formulation="gated")) < cost(small)
    assert cost(make(n_outputs=2)) == 2 * cost(make())
    result = solve(small, InteriorPoint())
    flops = InteriorPoint().flops(small, result)
    assert 0.2 * result.n_iter * cost(small) < flops < 3 * result.n_iter * cost(small)
