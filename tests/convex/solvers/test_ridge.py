"""The direct solution against a conic solver, normal equations, and itself another way."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import LinAlgError

from cvxnn.convex import (
    L1,
    ConvexProgram,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    Result,
    Ridge,
    SquaredL2,
    Status,
    on_host,
    sample_patterns,
    solve,
    solve_with_cvxpy,
)
from cvxnn.convex.solvers.ridge import data as ridge_data
from cvxnn.convex.solvers.ridge import factors, ridge, ridge_flops
from cvxnn.convex.solvers.ridge import kernel as ridge_kernel
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.convex.solvers.ridge.ridge_path import RidgePath

N, D, P, C = 18, 3, 5, 2


def kernel(program: ConvexProgram) -> np.ndarray:
    return Kernel.stored(RidgeData.of(program)).matrix


def make(
    n: int = N,
    *,
    patterns: int = P,
    alpha: float = 0.03,
    weighted: bool = False,
    skip: float | None = None,
    dtype: type = np.float64,
) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, D)).astype(dtype)
    y = (np.maximum(X @ rng.standard_normal((D, C)), 0) - 0.3).astype(dtype)
    mask = X @ rng.standard_normal((D, patterns)) >= 0
    weight = None
    if weighted:
        weight = rng.exponential(size=n).astype(dtype)
        weight[0] = 0
    program = ConvexProgram(
        GatedOperator(X, mask),
        y,
        alpha,
        penalty=SquaredL2(),
        sample_weight=weight,
        formulation="gated",
    )
    return program if skip is None else replace(program, skip=skip)


def features(program: ConvexProgram) -> np.ndarray:
    """The features of all patterns side by side, (n, P d), row by row."""
    X, mask = np.asarray(program.operator.X), program.stacked().operator.mask
    return np.array([np.concatenate([m * x for m in row]) for x, row in zip(X, mask, strict=True)])


def normal_equations(program: ConvexProgram) -> tuple[np.ndarray, float]:
    """Weights and objective by the plainest way, in float64."""
    F = features(program).astype(np.float64)
    n, d, y = len(F), program.operator.X.shape[1], np.asarray(program.y, np.float64)
    weight = np.ones(n) if program.sample_weight is None else np.float64(program.sample_weight)
    share = weight / weight.sum()
    ridge = np.full(F.shape[1], float(program.alpha))
    if program.skip is not None:
        ridge[-d:] = program.skip
    z = np.linalg.solve(F.T @ (share[:, None] * F) + np.diag(ridge), F.T @ (share[:, None] * y))
    objective = (share[:, None] * (F @ z - y) ** 2).sum() / 2 + (ridge[:, None] * z**2).sum() / 2
    return z.T.reshape(y.shape[1], 1, -1, d), float(objective)


def check(program: ConvexProgram, result: Result, rel: float = 1e-9) -> None:
    """Certified, and the minimiser."""
    weights, objective = normal_equations(program)
    assert result.objective == pytest.approx(objective, rel=rel)
    evaluated = float(program.evaluate(result.weights).objective)
    assert evaluated == pytest.approx(objective, rel=max(rel, 1e-6 * (program.y.itemsize == 4)))
    found = program.stacked().operator.stack(result.weights, 1)
    np.testing.assert_allclose(found, weights, atol=30 * rel**0.5 * abs(weights).max())
    assert result.dual is not None
    assert float(program.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=1e-6)
    assert result.dual_bound <= objective * (1 + 1e-12) + 1e-6 * (program.y.itemsize == 4)


WAYS = {
    "rows": {"n": 12, "patterns": 9},
    "weights": {"n": 60, "patterns": 4},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("skip", [None, 0.2])
def test_both_matrices_give_the_minimiser(way: str, weighted: bool, skip: float | None) -> None:
    program = make(**WAYS[way], weighted=weighted, skip=skip)
    result = solve(program, Ridge(tol=1e-9))
    check(program, result)
    assert result.status is Status.CONVERGED
    assert result.n_iter == 1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("skip", [None, 0.2])
def test_agrees_with_a_conic_solver(weighted: bool, skip: float | None) -> None:
    program = make(weighted=weighted, skip=skip)
    oracle = solve_with_cvxpy(program)
    result = solve(program, Ridge(tol=1e-9))
    assert result.objective == pytest.approx(oracle.objective, rel=1e-6)
    assert oracle.dual_bound <= result.objective * (1 + 1e-7)


def store_kernel_after(monkeypatch: pytest.MonkeyPatch, n_products: float) -> None:
    monkeypatch.setattr(ridge, "products_before_kernel", lambda *_: n_products)


@pytest.mark.parametrize("n_products", [0, 9, np.inf])
@pytest.mark.parametrize("limits", [{}, {"max_kernel": 1}, {"rank": 5}], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("skip", [None, 0.2])
def test_conjugate_gradient_with_and_without_a_kernel(
    limits: Any,
    weighted: bool,
    skip: float | None,
    n_products: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store_kernel_after(monkeypatch, n_products)
    program = make(40, patterns=8, weighted=weighted, skip=skip, alpha=1e-3)
    result = solve(program, Ridge(tol=1e-9, max_dense=1, **limits))
    check(program, result, rel=1e-8)
    assert result.status is Status.CONVERGED
    assert 1 < result.n_iter <= 60
    assert result.n_iter == result.history["iteration"][-1]
    assert (np.diff(result.history["objective"]) <= 0).all()
    assert (np.diff(result.history["dual_bound"]) >= 0).all()


@pytest.mark.parametrize("alpha", [1e-4, 1e-5])
def test_a_kernel_is_factored_where_conjugate_gradient_is_slow(
    alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge, "_WORTH_ITERATING", 0.0)
    store_kernel_after(monkeypatch, 0)
    program = make(120, patterns=40, alpha=alpha)
    solver = Ridge(tol=1e-3, rank=4)
    monkeypatch.setattr(ridge, "_LEAST_PATIENCE", 1000)
    slow = solve(program, solver)
    assert slow.n_iter > 20
    monkeypatch.setattr(ridge, "_LEAST_PATIENCE", 10)
    monkeypatch.setattr(ridge, "_HALF_PRICE", 0.0)
    found = solve(program, solver)
    assert found.n_iter < min(slow.n_iter, 20)
    assert found.gap <= 1e-3 < slow.gap
    assert found.objective == pytest.approx(normal_equations(program)[1], rel=1e-3)


def test_a_kernel_that_cannot_be_factored_leaves_conjugate_gradient_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise LinAlgError

    monkeypatch.setattr(ridge, "_WORTH_ITERATING", 0.0)
    monkeypatch.setattr(ridge, "_LEAST_PATIENCE", 3)
    monkeypatch.setattr(ridge, "_HALF_PRICE", 0.0)
    monkeypatch.setattr("cvxnn.convex.solvers.ridge.ridge_state.shifted_inverse", fails)
    store_kernel_after(monkeypatch, 0)
    program = make(120, patterns=40, alpha=1e-3)
    assert solve(program, Ridge(tol=1e-3, rank=4)).gap <= 1e-3


@pytest.mark.parametrize("way", ["rows", "weights", "iterations", "products"])
def test_each_output_has_its_strength_beside_a_skip_connection(way: str) -> None:
    size = WAYS.get(way, {"n": 40, "patterns": 8})
    program = replace(make(**size, weighted=True, skip=0.2), alpha=np.array([1e-3, 0.3]))
    limits: Any = {} if way in WAYS else {"max_dense": 1}
    limits |= {"max_kernel": 1} if way == "products" else {}
    result = solve(program, Ridge(tol=1e-9, **limits))
    assert result.status is Status.CONVERGED
    alone = [
        normal_equations(replace(program, y=program.y[:, c : c + 1], alpha=float(alpha)))
        for c, alpha in enumerate(program.alpha)
    ]
    objective = sum(value for _, value in alone)
    assert result.objective == pytest.approx(objective, rel=1e-8)
    assert float(program.evaluate(result.weights).objective) == pytest.approx(objective, rel=1e-8)
    found = program.stacked().operator.stack(result.weights, 1)
    weights = np.concatenate([own for own, _ in alone])
    np.testing.assert_allclose(found, weights, atol=1e-3 * abs(weights).max())
    assert result.dual is not None
    assert float(program.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=1e-9)


def test_a_limit_of_iterations_with_a_strength_for_each_output() -> None:
    program = replace(make(40, patterns=8), alpha=np.array([1e-3, 0.3]))
    result = solve(program, Ridge(tol=1e-2, max_dense=1, max_iter=2))
    assert result.status is Status.MAX_ITER
    assert result.dual_bound <= result.objective


def test_a_known_kernel_serves_a_skip_connection_of_any_strength() -> None:
    program = make(12, patterns=9, skip=0.2, weighted=True)
    known = kernel(replace(program, skip=None))
    for alpha in (0.03, 0.3):
        check(
            replace(program, alpha=alpha), solve(replace(program, alpha=alpha), Ridge(kernel=known))
        )


@pytest.mark.parametrize("max_dense", [6000, 1])
@pytest.mark.parametrize("tol", [1e-9, 1e-3])
def test_a_known_kernel_in_float32_serves_coarse_tolerances(max_dense: int, tol: float) -> None:
    program = make(40, patterns=8, skip=0.2, weighted=True)
    coarse = kernel(replace(program, skip=None)).astype(np.float32)
    asked: list[object] = []
    store, own = ridge.Kernel.stored, ridge.Kernel

    class Counted(own):
        @classmethod
        def stored(cls, *args: Any) -> Any:
            asked.append(args)
            return store(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ridge, "Kernel", Counted)
        store_kernel_after(patch, 0)
        result = solve(program, Ridge(tol=tol, max_dense=max_dense, kernel=coarse))
    check(program, result, rel=2 * tol)
    if max_dense == 1:
        assert bool(asked) == (tol < 1e-4)


def test_fewer_iterations_with_a_better_preconditioner_and_a_warm_start() -> None:
    program = make(40, patterns=8, alpha=1e-3)
    options = {"tol": 1e-9, "max_dense": 1, "check_every": 1}
    few = solve(program, Ridge(rank=40, **options))
    many = solve(program, Ridge(rank=2, **options))
    assert few.n_iter < many.n_iter
    again = solve(program, Ridge(rank=2, **options), start=many)
    assert again.n_iter < many.n_iter / 2


def test_the_iteration_limit_is_kept_and_told() -> None:
    program = make(40, patterns=8, alpha=1e-6)
    result = solve(program, Ridge(tol=1e-12, max_dense=1, rank=1, max_iter=3))
    assert (result.status, result.n_iter) == (Status.MAX_ITER, 3)
    assert result.gap > 1e-12


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize(
    "limits", [{}, {"max_dense": 1}, {"max_dense": 1, "max_kernel": 1}], ids=str
)
@pytest.mark.parametrize("n", [12, 60])
def test_sparse_rows_give_what_dense_ones_give(kind: Any, limits: Any, n: int) -> None:
    program = make(n, patterns=9)
    X = program.operator.X.copy()
    X[np.abs(X) < 0.7] = 0
    dense = replace(program, operator=replace(program.operator, X=X))
    thin = replace(program, operator=replace(program.operator, X=kind(X)))
    expected = solve(dense, Ridge(tol=1e-10, **limits))
    result = solve(thin, Ridge(tol=1e-10, **limits))
    assert result.objective == pytest.approx(expected.objective, rel=1e-10)
    np.testing.assert_allclose(result.weights.blocks, expected.weights.blocks, atol=1e-5)


@pytest.mark.parametrize("limits", [{}, {"max_dense": 1}], ids=str)
def test_loose_tolerances_take_products_in_float32(limits: Any) -> None:
    program = make(30, patterns=20, alpha=1e-4)
    coarse, fine = (solve(program, Ridge(tol=tol, **limits)) for tol in (1e-4, 0.99e-4))
    _, objective = normal_equations(program)
    assert coarse.objective == pytest.approx(objective, rel=1.1e-4)
    assert fine.objective == pytest.approx(objective, rel=1e-4)
    # Their rounding tells them apart.
    assert coarse.objective != fine.objective


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
@pytest.mark.parametrize(
    "options",
    [
        {"solver": {"max_iter": 2}},
        {"solver": {"max_iter": 3, "max_kernel": 1}},
        {"time_limit": 0.0},
        {"callback": lambda row, weights: True},
    ],
    ids=["steps", "kernel", "time", "stopped"],
)
def test_what_is_reported_is_in_float64_wherever_it_stops(
    tol: float, options: dict[str, Any]
) -> None:
    program = make(200, patterns=20, alpha=1e-7)
    limits = {"max_dense": 1, "rank": 1, **options.get("solver", {})}
    more = {name: value for name, value in options.items() if name != "solver"}
    result = solve(program, Ridge(tol=tol, **limits), **more)
    assert result.status is not Status.CONVERGED
    at = program.evaluate(result.weights)
    assert result.objective == pytest.approx(float(at.objective), rel=1e-11)
    assert result.dual is not None
    assert result.dual_bound == pytest.approx(float(program.bound_of(result.dual)), rel=1e-9)
    assert result.history["objective"][-1] == result.objective
    assert result.history["stopping"][-1] == pytest.approx(result.gap)


def draw(seed: int) -> ConvexProgram:
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((60, 4)) * [1, 1, 1, 30], rng.standard_normal((60, 2))
    mask = X @ rng.standard_normal((4, 8)) >= 0
    alpha = 10.0 ** rng.uniform(-6, -1)
    ridge = SquaredL2()
    return ConvexProgram(GatedOperator(X, mask), y, alpha, penalty=ridge, formulation="gated")


@pytest.mark.parametrize("on_devices", [False, True])
def test_weights_and_proof_are_of_one_iterate(on_devices: bool) -> None:
    # Of these five, the best objective and the best bound come from two.
    for seed in (196, 202, 261, 343, 439):
        program, solver = draw(seed), Ridge(tol=0.2, max_dense=1, rank=1)
        result = solve(program, solver.across_devices() if on_devices else solver)
        assert result.dual is not None
        blocks = program.slope(result.dual.residual) / program.alpha
        size = abs(blocks).max()
        np.testing.assert_allclose(result.weights.blocks, blocks, rtol=1e-6, atol=1e-9 * size)
        assert result.gap <= 0.2
        assert float(program.evaluate(result.weights).objective) == pytest.approx(result.objective)


@pytest.mark.parametrize("tol", [1e-2, 1e-6])
def test_sampled_rows_on_which_no_gate_is_open(tol: float) -> None:
    sampled = np.random.RandomState(0).permutation(N)[:1]  # of the preconditioner
    program = make()
    program.operator.mask[sampled] = False
    check(program, solve(program, Ridge(tol=tol, max_dense=1, rank=1)), rel=2 * tol)


def test_data_in_float32_are_solved_in_float64() -> None:
    program = make(12, patterns=9, dtype=np.float32)
    result = solve(program, Ridge(tol=1e-9))
    check(program, result, rel=1e-7)
    assert result.weights.blocks.dtype == np.float64
    at = on_host(program, np.float64).evaluate(result.weights)
    assert result.objective == pytest.approx(float(at.objective), rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_a_strength_below_the_rounding_of_float32_is_solved_in_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []
    true = factors.cho_factor

    def factor(matrix: np.ndarray, **options: Any) -> Any:
        tried.append(matrix.dtype)
        if matrix.dtype == np.float32:
            raise LinAlgError
        return true(matrix, **options)

    monkeypatch.setattr(factors, "cho_factor", factor)
    program = make(12, patterns=9)
    result = solve(program, Ridge(tol=1e-2))
    assert tried == [np.float32, np.float64]
    check(program, result)


def test_a_matrix_that_no_precision_factors_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def factor(matrix: np.ndarray, **_: Any) -> Any:
        raise LinAlgError

    monkeypatch.setattr(factors, "cho_factor", factor)
    with pytest.raises(LinAlgError):
        solve(make(12, patterns=9), Ridge(tol=1e-2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("skip", [None, 1e-3])
@pytest.mark.parametrize("scale", [1e4, 1e8])
def test_a_strength_below_rounding_gives_a_proof_and_no_worse_than_nothing(
    way: str, skip: float | None, scale: float
) -> None:
    program = make(**WAYS[way], skip=skip)
    operator = replace(program.operator, X=np.asarray(program.operator.X) * scale)
    weak = replace(program, operator=operator, alpha=1e-9, y=np.asarray(program.y))
    result = solve(weak, Ridge())
    assert np.isfinite(result.gap)
    evaluated = float(weak.evaluate(result.weights).objective)
    assert evaluated == pytest.approx(result.objective, rel=1e-6)
    assert result.dual is not None
    assert float(weak.bound_of(result.dual)) == pytest.approx(result.dual_bound, rel=1e-4)
    zero = float(weak.evaluate(weak.zeros()).objective)
    assert result.dual_bound <= result.objective <= zero
    # Along a path, too.
    if skip is None:
        [point] = RidgePath(weak, Ridge()).points(np.array([1e-9]))
        assert point.objective <= zero


@pytest.mark.parametrize("tile", [5, 768])
def test_the_kernel_is_the_product_of_the_features(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge_kernel, "_TILE", tile)
    program = make(weighted=True)
    assert program.sample_weight is not None
    share = program.sample_weight / program.sample_weight.sum()
    A = np.sqrt(share)[:, None] * features(program)
    np.testing.assert_allclose(kernel(program), A @ A.T, atol=1e-14)
    data, rows = RidgeData.of(program), np.array([3, 0, 11, 4, 5, 6])
    np.testing.assert_allclose(Kernel.between(data, data.take(rows)), A @ A[rows].T, atol=1e-14)


@pytest.mark.parametrize("patterns", [1, 2, 9])  # fewer than features, and more
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_products_are_those_with_the_features(
    patterns: int, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge_data, "_CACHED_NUMBERS", 4 * D * C)  # several blocks of rows
    monkeypatch.setattr(ridge_data, "_ENOUGH_ROWS", 1)
    program = make(patterns=patterns)
    data = RidgeData.of(program)
    data = replace(data, X=kind(data.X))
    F, R = features(program), np.random.default_rng(1).standard_normal((N, C))
    blocks = (F.T @ R).T.reshape(C, patterns, D)
    np.testing.assert_allclose(data.adjoint(R), blocks, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(data.forward(blocks), F @ F.T @ R, rtol=1e-12, atol=1e-12)


def test_the_kernel_is_stored_where_products_with_the_data_cost_more() -> None:
    operator = make(60, patterns=9).operator
    assert ridge_flops.products_before_kernel(operator, 1) == np.inf
    X, mask = np.zeros((3000, 60)), np.zeros((3000, 1000), bool)
    few, many = (ridge_flops.products_before_kernel(GatedOperator(X, mask), C) for C in (1, 10))
    assert 1 < many < few < np.inf


def test_zero_targets_and_zero_data() -> None:
    program = make(12, patterns=9)
    for case in (
        replace(program, y=np.zeros_like(program.y)),
        replace(program, operator=replace(program.operator, X=np.zeros((12, D)))),
    ):
        result = solve(case, Ridge())
        assert not result.weights.blocks.any()
        assert result.status is Status.CONVERGED


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"formulation": "relu"}, TypeError, "Ridge needs the gated form"),
        ({"loss": HuberLoss(1.0)}, TypeError, "SquaredLoss"),
        ({"penalty": L1()}, TypeError, "SquaredL2"),
        ({"alpha": 0.0}, ValueError, "alpha=0.0; Ridge needs a positive one"),
    ],
)
def test_refuses_what_has_no_closed_form(change: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        solve(replace(make(), **change), Ridge())


def test_refuses_a_skip_connection_without_a_ridge_and_sizes_of_nothing() -> None:
    with pytest.raises(TypeError, match="a positive ridge on it"):
        solve(make(skip=0.0), Ridge())
    for name in ("max_dense", "max_kernel", "rank"):
        with pytest.raises(ValueError, match=f"{name}=0; expected at least 1"):
            solve(make(), Ridge(**{name: 0}))


def test_interior_point_agrees() -> None:
    program = make()
    other = solve(program, InteriorPoint(tol=1e-9))
    assert solve(program, Ridge()).objective == pytest.approx(other.objective, rel=1e-8)


def test_flops_follow_the_cheaper_matrix() -> None:
    few, many = make(12, patterns=9), make(60, patterns=4)
    result = solve(few, Ridge())
    for program, cost in (
        (few, 12**2 * (D + 9) + 12**3 / 3),  # half of the products of all pairs of rows
        (many, 60 * (4 * D) ** 2 + (4 * D) ** 3 / 3),
    ):
        n, weights = len(program.y), D * program.operator.n_patterns
        expected = cost + 4 * n * weights * C
        assert Ridge().flops(program, result) == pytest.approx(expected)


@pytest.mark.parametrize("stored", [False, True])
def test_flops_of_iterations_count_the_rows_that_were_sampled(
    stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_kernel_after(monkeypatch, 0 if stored else np.inf)
    program = make(60, patterns=9)
    cheap, dear = (Ridge(max_dense=1, rank=rank) for rank in (4, 10**6))
    result = solve(program, cheap)
    n, C_ = program.y.shape
    per_iteration = (2 * n * n if stored else 4 * n * D * 9) * C_ + 4 * n * 4 * C_
    more = result._replace(n_iter=result.n_iter + 1)
    gained = cheap.flops(program, more) - cheap.flops(program, result)
    assert gained == pytest.approx(per_iteration)
    # At most one row in eight is sampled, however many are asked for.
    assert dear.flops(program, result) == Ridge(max_dense=1, rank=8).flops(program, result)
    # And at most so many that their columns take little memory.
    monkeypatch.setattr(ridge, "_BASIS_NUMBERS", 5 * n)
    assert dear.flops(program, result) == Ridge(max_dense=1, rank=5).flops(program, result)


@pytest.mark.parametrize("tol", [1e-6, 1e-3])
@pytest.mark.parametrize("max_dense", [6000, 1])
def test_outputs_with_their_own_strengths_are_solved_as_alone(max_dense: int, tol: float) -> None:
    # By the matrix of the rows, of the weights or conjugate gradient, in either precision.
    rng = np.random.default_rng(0)
    for n in (30, 90):
        X, y = rng.standard_normal((n, 4)), rng.standard_normal((n, 3))
        operator = GatedOperator(X, sample_patterns(X, 12, random_state=0).mask)
        alphas = np.array([0.1, 1.0, 0.1])
        program = ConvexProgram(operator, y, alphas, penalty=SquaredL2(), formulation="gated")
        solver = Ridge(tol=tol, max_dense=max_dense)
        found = solve(program, solver)
        assert found.gap <= tol
        assert found.status is Status.CONVERGED
        for c, alpha in enumerate(alphas):
            alone = solve(replace(program, y=y[:, [c]], alpha=alpha), Ridge())
            np.testing.assert_allclose(
                found.weights.blocks[c], alone.weights.blocks[0], atol=10 * tol**0.5
            )
        assert float(program.bound_of(found.dual)) == pytest.approx(found.dual_bound, rel=1e-9)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("numbers", [1, 7 * P * D, 10**9])
def test_blocks_of_rows_change_nothing(kind: Any, numbers: int, monkeypatch: Any) -> None:
    program = make(weighted=True)
    X = np.asarray(program.operator.X)
    monkeypatch.setattr(ridge_data, "_BLOCK_NUMBERS", numbers)
    monkeypatch.setattr(ridge_data, "_ENOUGH_ROWS", 1)
    data = RidgeData.of(replace(program, operator=replace(program.operator, X=kind(X))))
    F = features(program) * np.sqrt(np.broadcast_to(program.share, (N, 1)))
    np.testing.assert_allclose(Kernel.stored(data).matrix, F @ F.T, atol=1e-14)
    U = np.random.default_rng(1).standard_normal((N, C))
    np.testing.assert_allclose(Kernel(data).product(U), F @ (F.T @ U), atol=1e-13)
    gram, right = data.gram()
    np.testing.assert_allclose(gram, F.T @ F, atol=1e-14)
    new = make(n=11)
    found = ridge_kernel.predict(data, U, kind(np.asarray(new.operator.X)), new.operator.mask)
    np.testing.assert_allclose(found, features(new) @ (F.T @ U), atol=1e-13)
    assert right.shape == (P * D, C)
