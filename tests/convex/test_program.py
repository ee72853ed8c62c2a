"""The convex program: its two objectives by hand, its lower bound against CVXPY's optimum."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from cvxnn.convex import (
    L1,
    ConvexProgram,
    Cronos,
    DualPoint,
    FeatureGroupLasso,
    Formulation,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    Loss,
    MultinomialLoss,
    NeuronGroupLasso,
    ProximalGradient,
    Result,
    Ridge,
    SquaredL2,
    SquaredLoss,
    Weights,
    on_host,
    register_pytree,
    solve,
    solve_with_cvxpy,
)
from cvxnn.convex._duality import orthogonal_to_columns
from cvxnn.numerics.jax_import import precision

N, D, P, C = 8, 3, 4, 2
ALPHA = 0.05
KINDS = ["plain", "zero rows", "duplicate columns", "constant column", "zero targets"]
LOSSES = {"squared": SquaredLoss(), "logistic": LogisticLoss()}

bound = jax.jit(ConvexProgram.dual_bound)


@register_pytree
@dataclass(frozen=True)
class ElasticNet:
    """``|u|_1 / 4 + 3 |u|^2 / 8``."""

    def value(self, U: Any) -> Any:
        return abs(U).sum() / 4 + 3 / 8 * (U**2).sum()

    def prox(self, U: Any, step: Any) -> Any:
        return L1().prox(U, step / 4) / (1 + 3 / 4 * step)

    def conjugate(self, U: Any) -> Any:
        return 2 / 3 * (abs(L1().prox(U, 1 / 4)) ** 2).sum(axis=(1, 2, 3))


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with precision(np.float64):
        yield


def make(
    kind: str = "plain",
    loss: Loss = LOSSES["squared"],
    *,
    x_scale: float = 1.0,
    y_scale: float = 1.0,
    alpha: float = ALPHA,
    dtype: type = np.float64,
) -> ConvexProgram:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    y = np.maximum(X @ rng.standard_normal((D, C)), 0) - 0.3
    if kind == "zero rows":
        X[[0, 4]] = 0
    elif kind == "duplicate columns":
        X[:, 2] = X[:, 0]
    elif kind == "constant column":
        X[:, 2] = 1
    elif kind == "zero targets":
        y[:] = 0
    if isinstance(loss, LogisticLoss):
        y = np.where(y >= 0, 1.0, -1.0)
    mask = X @ rng.standard_normal((D, P)) >= 0
    operator = GatedOperator((x_scale * X).astype(dtype), mask)
    return ConvexProgram(operator, (y_scale * y).astype(dtype), alpha, loss)


@functools.cache
def optimum(kind: str, loss: str) -> float:
    return solve_with_cvxpy(make(kind, LOSSES[loss])).objective


@functools.cache
def best_residual(kind: str) -> np.ndarray:
    """Residual at the optimum of the squared loss: bounds near it are tight."""
    program = make(kind)
    return np.asarray(program.evaluate(solve_with_cvxpy(program).weights).residual)


scales = st.sampled_from([0.0, 1e-200, 1e-100, 1e-8, 1e-2, 1.0, 1e2, 1e8, 1e100])
units = st.sampled_from([1e-6, 1e-3, 1.0, 1e3, 1e6])


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    residual_scale=scales,
    multiplier_scale=scales,
    near=st.booleans(),
)
def test_bound_never_exceeds_the_optimum(
    loss: str, kind: str, seed: int, residual_scale: float, multiplier_scale: float, near: bool
) -> None:
    rng = np.random.default_rng(seed)
    program = make(kind, LOSSES[loss])
    residual = residual_scale * rng.standard_normal((N, C))
    if near:
        residual = residual + best_residual(kind)
    multipliers = multiplier_scale * rng.exponential(size=(N, C, 2, P))
    cone_term = program.operator.constraints_adjoint(multipliers)
    value = float(bound(program, residual, cone_term))
    assert value <= optimum(kind, loss) + 1e-8


@pytest.mark.parametrize("kind", ["plain", "zero rows", "duplicate columns", "constant column"])
def test_an_adversary_approaches_the_optimum_and_never_passes_it(kind: str) -> None:
    program = make(kind)
    size = N * C

    @jax.jit
    @jax.value_and_grad
    def loss(point: jax.Array) -> jax.Array:
        multipliers = point[size:].reshape(N, C, 2, P)
        cone_term = program.operator.constraints_adjoint(multipliers)
        return -program.dual_bound(point[:size].reshape(N, C), cone_term)

    best = optimum(kind, "squared")

    def adversary(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(jnp.asarray(point))
        assert -float(value) <= best + 1e-8
        return float(value), np.asarray(slope)

    start = np.concatenate([best_residual(kind).ravel(), np.full(2 * P * size, 1e-3)])
    bounds = [(None, None)] * size + [(0, None)] * (2 * P * size)
    for _ in range(3):  # the norm is not smooth: L-BFGS forgets its curvature and goes on
        found = minimize(adversary, start, jac=True, bounds=bounds, method="L-BFGS-B")
        start = found.x
    assert -found.fun >= 0.9 * best


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    x_scale=units,
    y_scale=units,
    noise=st.floats(0, 1),
)
def test_bound_holds_in_any_units(
    kind: str, seed: int, x_scale: float, y_scale: float, noise: float
) -> None:
    # With alpha in the same units the optimum is y_scale^2 times that of the plain problem.
    rng = np.random.default_rng(seed)
    program = make(kind, x_scale=x_scale, y_scale=y_scale, alpha=ALPHA * x_scale * y_scale)
    residual = y_scale * (best_residual(kind) + noise * rng.standard_normal((N, C)))
    multipliers = noise * y_scale / N * rng.exponential(size=(N, C, 2, P))
    cone_term = program.operator.constraints_adjoint(multipliers)
    value = float(bound(program, residual, cone_term))
    # The best scale of the residual is never worse than 0, whose bound is 0.
    assert 0 <= value <= (optimum(kind, "squared") + 1e-8) * y_scale**2


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10**6), noise=st.floats(0, 1))
def test_bound_holds_in_single_precision(kind: str, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    with precision(np.float32):
        program = make(kind, dtype=np.float32)
        residual = best_residual(kind) + noise * rng.standard_normal((N, C))
        multipliers = noise / N * rng.exponential(size=(N, C, 2, P))
        cone_term = program.operator.constraints_adjoint(multipliers.astype(np.float32))
        value = float(bound(program, residual.astype(np.float32), cone_term))
    assert value <= optimum(kind, "squared") * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("residual_scale", [1e160, 1e200, 1e300])
def test_bound_of_an_overflowing_residual_is_a_bound(residual_scale: float) -> None:
    residual = residual_scale * np.random.default_rng(0).standard_normal((N, C))
    value = float(bound(make(), residual, 0.0))
    assert value <= optimum("plain", "squared") + 1e-8


def test_bound_is_tight_without_cones() -> None:
    # All rows open and X positive: for one output of positive slope the cones never bind.
    X = np.array([[1.0], [2.0], [3.0]])
    y = np.array([[1.0], [2.0], [2.5]])
    alpha = 0.1
    program = ConvexProgram(GatedOperator(X, np.ones((3, 1), bool)), y, alpha)
    slope = (X.T @ y / 3 - alpha).item() / (X.T @ X / 3).item()
    expected = ((X * slope - y) ** 2).sum() / 6 + alpha * slope
    value = float(program.dual_bound(y - X * slope))
    assert value == pytest.approx(expected, rel=1e-12)


def test_alpha_zero_gives_the_trivial_bound() -> None:
    assert float(make(alpha=0.0).dual_bound(np.ones((N, C)))) == 0


@pytest.mark.parametrize("loss", [SquaredLoss(), HuberLoss(), LogisticLoss()], ids=repr)
@pytest.mark.parametrize("penalty", [NeuronGroupLasso(), SquaredL2(), ElasticNet()], ids=repr)
def test_rounding_decides_no_bound_at_alpha_zero(penalty: Any, loss: Loss) -> None:
    # Of equal rows the slope cancels: to rounding, or by chance to nothing.
    X, y = np.ones((N, D)), np.tile([[1.0], [-1.0]], (N // 2, C))
    operator = GatedOperator(X, np.ones((N, P), bool))
    program = ConvexProgram(operator, y, 0.0, loss, penalty, formulation="gated")
    for residual in (y / 2, y / 2 + 1e-15 * abs(y)):
        assert float(program.dual_bound(residual)) == 0
        assert float(bound(program, residual)) == 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_optimal_from_alpha_max_on(kind: str, loss: str) -> None:
    program = make(kind, LOSSES[loss])
    alpha_max = float(program.alpha_max())
    at_max = make(kind, LOSSES[loss], alpha=alpha_max * (1 + 1e-12))
    at_zero = at_max.evaluate(at_max.zeros())
    value = float(at_max.dual_bound(at_zero.residual))
    assert value == pytest.approx(float(at_zero.objective), rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_evaluate_by_hand(loss: str) -> None:
    program = make(loss=LOSSES[loss])
    rng = np.random.default_rng(1)
    U = rng.standard_normal((C, 2, P, D))
    X, mask, y = (
        np.asarray(part) for part in (program.operator.X, program.operator.mask, program.y)
    )
    scores = np.einsum("kj,cbij->kcbi", X, U)
    gated = (mask[:, None, None] * scores).sum(-1)
    hidden = np.maximum(scores, 0).sum(-1)
    oriented = (2.0 * mask - 1)[:, None, None] * scores
    penalty = ALPHA * np.sqrt((U**2).sum(-1)).sum()

    def mean_loss(f: np.ndarray) -> float:
        if loss == "squared":
            return ((f - y) ** 2).sum() / 2 / N
        return np.log1p(np.exp(-y * f)).sum() / N

    program_prediction = gated[..., 0] - gated[..., 1]
    at = program.evaluate(U)
    assert float(at.objective) == pytest.approx(mean_loss(program_prediction) + penalty)
    network_objective = mean_loss(hidden[..., 0] - hidden[..., 1]) + penalty
    assert float(at.network_objective) == pytest.approx(network_objective)
    violation = np.sqrt((np.minimum(oriented, 0) ** 2).sum() / (scores**2).sum())
    assert float(at.violation) == pytest.approx(violation)
    slope = (
        program_prediction - y if loss == "squared" else -y / (1 + np.exp(y * program_prediction))
    )
    np.testing.assert_allclose(at.residual, -slope)


@given(seed=st.integers(0, 10**6))
def test_both_objectives_agree_on_the_cones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gates = rng.standard_normal((P, D))
    X = rng.standard_normal((N, D))
    U = rng.exponential(size=(C, 2, P, 1)) * gates
    program = make()
    operator = GatedOperator(X, X @ gates.T >= 0)
    at = jax.jit(ConvexProgram.evaluate)(ConvexProgram(operator, program.y, ALPHA), U)
    assert float(at.violation) < 1e-12
    assert float(at.objective) == pytest.approx(float(at.network_objective), rel=1e-12)


def test_zero_weights_violate_nothing() -> None:
    program = make()
    assert program.zeros().blocks.shape == program.stacked_shape == (C, 2, P, D)
    assert program.zeros().linear is None
    at = program.evaluate(program.zeros())
    assert float(at.violation) == 0
    assert float(at.objective) == float(at.network_objective)


def test_dtype_follows_the_data(dtype: type) -> None:
    def everything(program: ConvexProgram) -> tuple:
        at = program.evaluate(program.zeros())
        return *at, program.dual_bound(at.residual), program.alpha_max()

    with precision(dtype):
        for parts in (everything(make(dtype=dtype)), jax.jit(everything)(make(dtype=dtype))):
            assert {part.dtype for part in parts} == {np.dtype(dtype)}


# Every loss, penalty and form ---------------------------------------------------------------

TABLE_LOSSES = {
    "squared": SquaredLoss(),
    "huber": HuberLoss(0.4),
    "logistic": LogisticLoss(),
    "multinomial": MultinomialLoss(),
}
PENALTIES = {
    "neuron": NeuronGroupLasso(),
    "feature": FeatureGroupLasso(),
    "l1": L1(),
    "ridge": SquaredL2(),
}
FORMULATIONS: tuple[Formulation, ...] = ("relu", "gated")
VARIANTS = ["plain", "weights", "skip", "weights and skip", "duplicate columns"]

over_losses = pytest.mark.parametrize("loss", TABLE_LOSSES)
over_penalties = pytest.mark.parametrize("penalty", PENALTIES)
over_formulations = pytest.mark.parametrize("formulation", FORMULATIONS)


@functools.cache
def entry(
    loss: str, penalty: str = "neuron", formulation: Formulation = "relu", variant: str = "plain"
) -> ConvexProgram:
    """A small program of NumPy arrays; a linear part is unpenalised where that is allowed."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    if variant == "duplicate columns":
        X[:, 2] = X[:, 0]
    y = np.maximum(X @ rng.standard_normal((D, C)), 0) - 0.3 + 0.2 * rng.standard_normal((N, C))
    if loss == "logistic":
        y = np.where(y >= 0, 1.0, -1.0)
    elif loss == "multinomial":
        y = np.eye(C)[y.argmax(axis=1)]
    mask = X @ rng.standard_normal((D, P)) >= 0
    weights = rng.exponential(size=N)
    weights[1] = 0
    program = ConvexProgram(
        GatedOperator(X, mask),
        y,
        ALPHA,
        TABLE_LOSSES[loss],
        PENALTIES[penalty],
        weights if "weights" in variant else None,
        formulation,
    )
    if variant == "skip":
        return replace(program, skip=0.1)
    if variant in ("weights and skip", "duplicate columns"):
        return replace(program, skip=0.0 if loss in ("squared", "huber") else 0.1)
    return program


@functools.cache
def best_of(loss: str, penalty: str, formulation: Formulation, variant: str) -> Result:
    return solve_with_cvxpy(entry(loss, penalty, formulation, variant))


def draw_weights(program: ConvexProgram, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(program.stacked_shape)


@over_formulations
@over_penalties
@over_losses
def test_the_bound_of_cvxpys_dual_point_is_close_to_the_optimum(
    loss: str, penalty: str, formulation: Formulation
) -> None:
    for variant in VARIANTS:
        best = best_of(loss, penalty, formulation, variant)
        bound = float(entry(loss, penalty, formulation, variant).bound_of(best.dual))
        assert best.objective * (1 - 1e-4) <= bound <= best.objective + 1e-8, variant


@over_formulations
@over_penalties
@over_losses
@given(
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 10**6),
    residual_scale=scales,
    multiplier_scale=scales,
    near=st.booleans(),
    shrink=st.floats(0, 1.5),
)
@settings(max_examples=40)
def test_no_dual_point_gives_a_bound_above_the_optimum(
    loss: str,
    penalty: str,
    formulation: Formulation,
    variant: str,
    seed: int,
    residual_scale: float,
    multiplier_scale: float,
    near: bool,
    shrink: float,
) -> None:
    rng = np.random.default_rng(seed)
    program, best = (
        entry(loss, penalty, formulation, variant),
        best_of(loss, penalty, formulation, variant),
    )
    # Minus gradients lie in the domain of the conjugate, as noise does not.
    residual = residual_scale * rng.standard_normal((N, C))
    if near:
        noise = residual_scale * draw_weights(program, seed)
        at = program.stacked().operator.stack(best.weights, program.n_signs) + noise
        with np.errstate(all="ignore"):
            residual = shrink * program.evaluate(at).residual
    multipliers = None
    if formulation == "relu":
        multipliers = multiplier_scale * rng.exponential(
            size=(N, C, 2, program.operator.n_patterns)
        )
        if near:
            multipliers += shrink * best.dual.multipliers
    with np.errstate(all="ignore"):
        bound = float(program.bound_of(DualPoint(residual, multipliers)))
    assert not bound > best.objective + 1e-8


@over_penalties
@over_losses
def test_integer_weights_are_repetitions(loss: str, penalty: str) -> None:
    times = np.array([1, 3, 0, 2, 1, 1, 2, 5])
    plain = entry(loss, penalty, "gated")
    weighted = replace(plain, sample_weight=times.astype(float))
    operator = GatedOperator(
        plain.operator.X.repeat(times, 0), plain.operator.mask.repeat(times, 0)
    )
    repeated = replace(plain, operator=operator, y=plain.y.repeat(times, 0))
    U = draw_weights(plain, 0)
    one, other = weighted.evaluate(U), repeated.evaluate(U)
    assert one.objective == pytest.approx(other.objective, rel=1e-12)
    np.testing.assert_allclose(one.residual.repeat(times, 0), other.residual)
    assert weighted.dual_bound(one.residual) == pytest.approx(
        repeated.dual_bound(other.residual), rel=1e-12
    )
    assert weighted.alpha_max() == pytest.approx(repeated.alpha_max(), rel=1e-12)


@over_formulations
@over_losses
def test_a_zero_row_of_weight_zero_is_no_row(loss: str, formulation: Formulation) -> None:
    plain = entry(loss, formulation=formulation)
    keep = np.arange(N) != 2
    weighted = replace(
        plain,
        operator=replace(plain.operator, X=plain.operator.X * keep[:, None]),
        sample_weight=keep.astype(float),
    )
    operator = GatedOperator(plain.operator.X[keep], plain.operator.mask[keep])
    removed = replace(plain, operator=operator, y=plain.y[keep])
    U = draw_weights(plain, 0)
    one, other = weighted.evaluate(U), removed.evaluate(U)
    for name in ("objective", "network_objective", "violation"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12)
    assert weighted.dual_bound(one.residual) == pytest.approx(removed.dual_bound(other.residual))
    assert solve_with_cvxpy(weighted).objective == pytest.approx(
        solve_with_cvxpy(removed).objective, rel=1e-7
    )


@over_losses
def test_only_ratios_of_weights_matter(loss: str) -> None:
    program = entry(loss, variant="weights")
    scaled = replace(program, sample_weight=17 * program.sample_weight)
    U = draw_weights(program, 0)
    assert scaled.evaluate(U).objective == pytest.approx(program.evaluate(U).objective)
    equal = replace(program, sample_weight=np.full(N, 3.0))
    assert equal.evaluate(U).objective == pytest.approx(entry(loss).evaluate(U).objective)


@pytest.mark.parametrize("variant", ["plain", "weights", "skip", "weights and skip"])
@pytest.mark.parametrize("penalty", ["neuron", "feature", "l1"])
@over_losses
def test_the_gated_optimum_is_never_above_the_relu_optimum(
    loss: str, penalty: str, variant: str
) -> None:
    gated, relu = (
        best_of(loss, penalty, formulation, variant) for formulation in ("gated", "relu")
    )
    assert gated.objective <= relu.objective + 1e-8


@over_losses
def test_a_skip_connection_never_hurts(loss: str) -> None:
    for formulation in FORMULATIONS:
        with_one = best_of(loss, "neuron", formulation, "skip").objective
        assert with_one <= best_of(loss, "neuron", formulation, "plain").objective + 1e-8


def test_a_ridge_on_the_skip_connection_is_the_same_in_both_forms() -> None:
    z = np.random.default_rng(0).standard_normal((C, D))
    for formulation in FORMULATIONS:
        program = entry("squared", formulation=formulation, variant="skip")
        at = program.evaluate(program.zeros()._replace(linear=z))
        expected = ((program.operator.X @ z.T - program.y) ** 2).sum() / (2 * N)
        expected += 0.1 / 2 * (z**2).sum()
        assert at.objective == pytest.approx(expected)
        assert at.network_objective == pytest.approx(expected)
        assert at.violation == 0


@over_formulations
@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name != "ridge"])
def test_prox_of_the_regularizer_is_no_worse_than_other_points(
    penalty: str, formulation: Formulation
) -> None:
    program = entry("squared", penalty, formulation, "skip").stacked()
    U, step = draw_weights(program, 0), 0.7

    def objective(Z: np.ndarray) -> float:
        return float(((Z - U) ** 2).sum() / 2 + step * program.regularizer.value(Z))

    best = program.regularizer.prox(U, step)
    for seed in range(20):
        for size in (1e-3, 1e-1):
            assert objective(best) <= objective(best + size * draw_weights(program, seed)) + 1e-12


@over_losses
@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name != "ridge"])
def test_alpha_max_is_the_least_at_which_zero_is_optimal(loss: str, penalty: str) -> None:
    program = entry(loss, penalty, "gated", "weights")
    largest = float(program.alpha_max())
    zero = program.evaluate(program.zeros())
    at_max = replace(program, alpha=largest * (1 + 1e-12))
    assert float(at_max.dual_bound(zero.residual)) == pytest.approx(zero.objective, rel=1e-10)
    below = solve_with_cvxpy(replace(program, alpha=0.95 * largest))
    assert below.objective < zero.objective * (1 - 1e-5)


@over_losses
def test_a_bound_in_single_precision_is_found_again_in_numpy(loss: str) -> None:
    program = on_host(entry(loss, "neuron", "gated"), np.float32)
    result = solve(program, ProximalGradient(tol=1e-3))
    assert np.isfinite(result.dual_bound)
    found = float(program.bound_of(result.dual))
    assert found == pytest.approx(result.dual_bound, abs=1e-4 * abs(result.objective))


def test_alpha_max_of_the_ridge_is_infinite() -> None:
    assert entry("squared", "ridge").alpha_max() == np.inf


def test_alpha_max_follows_from_a_conjugate_too() -> None:
    lasso = entry("squared", "l1", "gated", "weights")
    both = replace(lasso, penalty=ElasticNet())
    # The l1 part alone decides when all weights vanish.
    assert float(both.alpha_max()) == pytest.approx(4 * float(lasso.alpha_max()), rel=1e-9)
    assert replace(both, y=0 * both.y).alpha_max() == 0

    @register_pytree
    @dataclass(frozen=True)
    class Half(SquaredL2):
        """Never removes a weight."""

    assert replace(lasso, penalty=Half()).alpha_max() == np.inf


@over_formulations
@pytest.mark.parametrize("penalty", [name for name in PENALTIES if name != "ridge"])
def test_within_dual_ball_is_a_projection(penalty: str, formulation: Formulation) -> None:
    program = entry("squared", penalty, formulation)
    slope = draw_weights(program, 0)
    inside = program.regularizer.within_dual_ball(slope)
    assert (program.penalty.dual_norm(inside) <= ALPHA * (1 + 1e-12)).all()
    np.testing.assert_allclose(program.regularizer.within_dual_ball(inside), inside, atol=1e-15)
    small = slope * 0.9 * ALPHA / program.penalty.dual_norm(slope)[:, None, None, None]
    np.testing.assert_allclose(program.regularizer.within_dual_ball(small), small, atol=1e-15)


def test_within_dual_ball_leaves_the_ridge_alone() -> None:
    program = entry("squared", "ridge")
    slope = draw_weights(program, 0)
    np.testing.assert_array_equal(program.regularizer.within_dual_ball(slope), slope)


@pytest.mark.parametrize(
    ("loss", "penalty", "formulation"),
    [
        ("squared", "neuron", "relu"),
        ("huber", "feature", "gated"),
        ("logistic", "l1", "relu"),
        ("multinomial", "ridge", "gated"),
    ],
)
def test_numpy_and_jax_agree(loss: str, penalty: str, formulation: Formulation) -> None:
    program = entry(loss, penalty, formulation, "weights and skip")
    best = best_of(loss, penalty, formulation, "weights and skip")

    def everything(program: ConvexProgram, weights: Weights, dual: DualPoint) -> tuple:
        stacked = program.stacked()
        U = stacked.operator.stack(weights, program.n_signs)
        return program.evaluate(weights), program.bound_of(dual), stacked.regularizer.prox(U, 0.3)

    host = everything(program, best.weights, best.dual)
    device = jax.jit(everything)(*jax.tree.map(jnp.asarray, (program, best.weights, best.dual)))
    for left, right in zip(jax.tree.leaves(host), jax.tree.leaves(device), strict=True):
        assert isinstance(left, np.ndarray | np.generic)
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_on_host_gives_the_same_program_in_numpy() -> None:
    program = replace(make(dtype=np.float32), skip=0.1)
    host = on_host(program, np.float64)
    assert isinstance(host.operator.X, np.ndarray)
    assert host.operator.X.dtype == host.y.dtype == np.float64
    assert host.operator.mask.dtype == bool
    assert float(host.skip) == 0.1
    np.testing.assert_array_equal(host.y, program.y)
    assert on_host(program).y.dtype == np.float32


@pytest.mark.parametrize("ridge", [-1.0, np.nan, np.inf])
def test_a_ridge_below_zero_is_refused(ridge: float) -> None:
    program = replace(entry("squared"), skip=ridge)
    for solving in (lambda: solve_with_cvxpy(program), lambda: solve(program, Cronos())):
        with pytest.raises(ValueError, match="at least 0"):
            solving()


@pytest.mark.parametrize("loss", ["logistic", "multinomial"])
def test_a_linear_part_that_may_have_no_minimiser_is_refused(loss: str) -> None:
    program = replace(entry(loss), skip=0.0)
    for solving in (lambda: solve_with_cvxpy(program), lambda: solve(program, Cronos())):
        with pytest.raises(ValueError, match="such as skip=1e-4"):
            solving()


def test_stacking_is_undone_and_done_once() -> None:
    for formulation in FORMULATIONS:
        for skip in (None, 0.1):
            program = replace(entry("squared", formulation=formulation), skip=skip)
            stacked = program.stacked()
            assert stacked.stacked() is stacked
            assert stacked.stacked_shape == program.stacked_shape
            U = draw_weights(program, 0)
            weights = stacked.operator.unstack(U)
            assert jax.tree.map(np.shape, weights) == jax.tree.map(np.shape, program.zeros())
            again = stacked.operator.unstack(stacked.operator.stack(weights, program.n_signs))
            for left, right in zip(jax.tree.leaves(weights), jax.tree.leaves(again), strict=True):
                np.testing.assert_array_equal(left, right)


@pytest.mark.slow
@given(
    seed=st.integers(0, 10**6),
    spread=st.floats(0, 40),
    dtype=st.sampled_from([np.float32, np.float64]),
    compiled=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_weights_of_any_ratio_prove_nothing_wrong(seed, spread, dtype, compiled):
    """An unpenalised linear part that fits all targets makes the optimum zero."""
    rng = np.random.default_rng(seed)
    X = np.linalg.qr(rng.standard_normal((4, 4)))[0].astype(dtype)
    y = rng.standard_normal((4, 2)).astype(dtype)
    weight = (10 ** rng.uniform(-spread / 2, spread / 2, 4)).astype(dtype)
    mask = X @ rng.standard_normal((4, 3)).astype(dtype) >= 0
    program = ConvexProgram(
        GatedOperator(X, mask), y, 0.1, sample_weight=weight, formulation="gated", skip=0.0
    )
    with precision(dtype):
        residual = rng.standard_normal((4, 2)).astype(dtype)
        given_ = jax.tree.map(jnp.asarray, program) if compiled else program
        found = float((bound if compiled else ConvexProgram.dual_bound)(given_, residual))
    assert found <= 1e3 * np.finfo(dtype).eps * (y**2).max()


def test_a_bound_beside_an_unpenalised_linear_part_sees_rows_of_little_weight():
    """Without a linear part for them, two rows of little weight have all of the objective."""
    rng = np.random.default_rng(0)
    X = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    weight = np.array([1.0, 1e-12, 1e-12, 1.0])
    y = np.array([[0.0], [1.0], [-1.0], [0.0]])
    program = ConvexProgram(
        GatedOperator(X, np.ones((4, 1), bool)),
        y,
        1e3,  # leaves nothing but the linear part
        sample_weight=weight,
        formulation="gated",
        skip=0.0,
    )
    root = np.sqrt(program.share)
    fit = X @ np.linalg.lstsq(root * X, root * y, rcond=None)[0]
    optimum = float((program.share * (y - fit) ** 2).sum() / 2)
    assert float(program.dual_bound(y - fit)) == pytest.approx(optimum, rel=1e-9)
    noisy = y - fit + 1e-3 * rng.standard_normal((4, 1))
    assert float(program.dual_bound(noisy)) <= optimum * (1 + 1e-9)


@pytest.mark.parametrize("skip", [None, 0.1])
@pytest.mark.parametrize("formulation", ["gated", "relu"])
def test_each_output_may_have_a_strength_of_its_own(formulation, skip) -> None:
    alphas = np.array([0.3, 1e-2])
    program = replace(make(), alpha=alphas, penalty=SquaredL2(), formulation=formulation, skip=skip)
    together = solve_with_cvxpy(program)
    alone = [
        solve_with_cvxpy(replace(program, y=program.y[:, [c]], alpha=alphas[c])) for c in range(C)
    ]
    assert together.objective == pytest.approx(sum(r.objective for r in alone), rel=1e-6)
    assert float(program.bound_of(together.dual)) == pytest.approx(together.objective, rel=1e-6)
    solvers: list[Any] = [InteriorPoint(tol=1e-8)]
    if formulation == "gated":
        solvers.append(ProximalGradient(tol=1e-7, max_iter=20_000))
        solvers.append(Ridge())
    for solver in solvers:
        found = solve(program, solver)
        assert found.gap < 1e-6
        assert found.objective == pytest.approx(together.objective, rel=1e-6)
        assert found.dual_bound <= together.objective * (1 + 1e-9)
        np.testing.assert_allclose(found.weights.blocks, together.weights.blocks, atol=1e-3)


def test_strengths_of_outputs_are_checked() -> None:
    program = replace(make(), penalty=SquaredL2())
    for alpha, message in (
        (np.ones(3), r"shape \(3,\); expected a number, or one for each of the 2"),
        (np.array([1.0, -2.0]), r"alpha\[1\]=-2.0"),
        (np.array([1.0, np.nan]), r"alpha\[1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(program, alpha=alpha).check()
    with pytest.raises(TypeError, match="divide the targets of an output by r"):
        replace(program, alpha=np.ones(2), penalty=L1()).check()


def test_units_of_an_output_are_its_strength_under_a_norm() -> None:
    # What the message above advises: half the targets, half the weights, at twice the strength.
    program, r = replace(make(), y=make().y[:, :1], formulation="gated"), 2.0
    strong = solve_with_cvxpy(replace(program, alpha=r * ALPHA))
    scaled = solve_with_cvxpy(replace(program, y=program.y / r))
    assert strong.objective == pytest.approx(r**2 * scaled.objective, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("namespace", [np, jnp])
def test_equal_columns_take_no_direction_from_a_free_linear_part(namespace: Any) -> None:
    # A row that weighs 1e9 times as much as the others; two columns are equal. What rounding left
    # of their difference passed for a direction, and the dual point lost most of its size.
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.uniform(100, 400, (5, 2)), np.ones(5)])
    X[-1, :2] *= -1e-6
    share = np.array([3e-9, 4e-6, 2e-8, 4e-10, 1.0])[:, None]
    residual = np.array([-7e3, 30, -7e3, -6e3, 1e-5])[:, None]
    root = np.sqrt(share)
    expected = residual - X @ np.linalg.lstsq(root * X, root * residual, rcond=None)[0]
    with precision(np.float64):
        arrays = map(namespace.asarray, (residual, X[:, [0, 1, 0, 2]], share))
        found = np.asarray(orthogonal_to_columns(*arrays))
    np.testing.assert_allclose(found[:4], expected[:4], rtol=1e-6)
    np.testing.assert_allclose((share * found).T @ X, 0, atol=1e-12)
