"""From data to a certified network, at the edges too."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cvxnn.convex import (
    L1,
    ConvexProgram,
    Cronos,
    FeatureGroupLasso,
    GatedOperator,
    HuberLoss,
    InteriorPoint,
    LogisticLoss,
    Loss,
    MultinomialLoss,
    Penalty,
    SquaredL2,
    SquaredLoss,
    Status,
    add_bias,
    enumeration,
    sample_patterns,
    solve,
    solve_with_cvxpy,
)
from cvxnn.numerics.jax_import import precision
from cvxnn.training import proposal, refinement, training
from cvxnn.training.training import Training

N, D, P = 30, 4, 12
DUAL = Cronos(linear_solver="dual")
# Compiles nothing.
EXACT = InteriorPoint(tol=1e-7)


def data(kind: str = "plain", dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    y = np.maximum(X @ rng.standard_normal((D, 3)), 0) @ rng.standard_normal((3, 1))
    y += 0.1 * rng.standard_normal((N, 1))
    if kind == "duplicate columns":
        X[:, 1] = X[:, 0]
    elif kind == "constant columns":
        X[:, 2:] = 1
    elif kind == "one direction":
        X = X[:, :1] * np.array([[1.0, -2.0, 0.5, 3.0]])  # two patterns only
    elif kind == "zeros":
        X[:] = 0
    return X.astype(dtype), y.astype(dtype)


def program(X: np.ndarray, mask: np.ndarray, y: np.ndarray, alpha: float) -> ConvexProgram:
    with precision(X.dtype):
        operator = GatedOperator(X, mask)
        return ConvexProgram(operator, y, alpha)


def network_objective(found: Training, X: np.ndarray, y: np.ndarray, alpha: float) -> float:
    """Objective of the returned network, in NumPy."""
    U = found.result.weights.blocks.astype(float)
    hidden = np.maximum(np.einsum("kj,cbij->kcbi", X.astype(float), U), 0).sum(-1)
    error = hidden[..., 0] - hidden[..., 1] - y
    return (error**2).sum() / (2 * len(X)) + alpha * np.linalg.norm(U, axis=-1).sum()


def certificate(found: Training) -> float:
    """Gap recomputed from what is returned: the program and the dual point alone."""
    assert found.result.dual is not None
    bound = float(found.program.bound_of(found.result.dual))
    # The direct solution computes in float32 where that is good enough for its tolerance.
    assert bound == pytest.approx(found.result.dual_bound, rel=1e-6)
    objective = float(found.program.evaluate(found.result.weights).network_objective)
    assert objective == pytest.approx(found.result.objective, rel=1e-6)
    np.testing.assert_array_equal(found.program.operator.mask, found.patterns.mask)
    return (objective - bound) / abs(objective)


def check(found: Training, X: np.ndarray, y: np.ndarray, alpha: float) -> None:
    """What each training holds, converged or not."""
    result = found.result
    assert np.isfinite(result.weights.blocks).all()
    assert result.weights.blocks.shape == (y.shape[1], 2, len(found.patterns), X.shape[1])
    assert result.objective <= found.proposal_objective
    # In single precision and without a penalty, large weights cancel each other.
    rtol, atol = (1e-9, 1e-12) if X.dtype == np.float64 else (1e-4 if alpha else 1e-3, 1e-10)
    expected = network_objective(found, X, y, alpha)
    assert result.objective == pytest.approx(expected, rel=rtol, abs=atol)


@pytest.mark.parametrize("origin", ["local", "gaussian", "data"])
@pytest.mark.parametrize("alpha", [1e-3, 1e-2, 0.1])
def test_all_origins_train_a_network_with_the_objective_reported(origin: Any, alpha: float) -> None:
    X, y = data()
    found = training.train(X, y, alpha, P, patterns=origin, solver=EXACT, random_state=0)
    check(found, X, y, alpha)
    assert found.result.objective < 0.8 * (y**2).mean() / 2
    assert (found.proposal_objective == np.inf) == (origin != "local")


@pytest.mark.parametrize(
    "kind", ["plain", "duplicate columns", "constant columns", "one direction", "zeros"]
)
@pytest.mark.parametrize("alpha", [pytest.param(0.0, marks=pytest.mark.slow), 1e-2, 1e3])
def test_local_patterns_are_never_worse_than_their_network(
    kind: str, alpha: float, dtype: type
) -> None:
    X, y = data(kind, dtype)
    # Interior point needs a penalty.
    solver = EXACT if alpha else replace(DUAL, max_iter=200)
    check(training.train(X, y, alpha, P, solver=solver, random_state=0), X, y, alpha)


@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_the_local_network_even_where_the_solver_stops_early(seed: int) -> None:
    X, y = data()
    solver = Cronos(linear_solver="dual", max_iter=1)
    found = training.train(X, y, 1e-3, P, solver=solver, random_state=seed)
    check(found, X, y, 1e-3)
    # One iteration cannot do it, so the local network itself comes back.
    assert found.result.objective == pytest.approx(found.proposal_objective, rel=1e-12)
    gap = (found.proposal_objective - found.result.dual_bound) / found.proposal_objective
    assert found.result.gap == pytest.approx(gap)


@pytest.mark.parametrize("seed", range(3))
def test_a_network_that_rounds_of_few_steps_do_not_reach_keeps_its_own_patterns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((20, 3)), np.eye(3)[rng.integers(0, 3, 20)]
    found = training.train(X, y, 0.01, 4, n_rounds=2, tol=1e-3, max_iter=3, random_state=seed)
    assert len(found.rounds["objective"]) > 1
    assert found.result.objective == pytest.approx(found.proposal_objective, rel=1e-9)
    again = found.program.evaluate(found.result.weights).network_objective
    assert float(again) == pytest.approx(found.result.objective, rel=1e-6)
    assert found.program.operator.n_patterns == len(found.patterns) == 4
    exact = solve_with_cvxpy(program(X, found.patterns.mask, y, 0.01))
    assert found.result.dual_bound <= exact.objective + 1e-8


def test_the_program_over_local_patterns_bounds_the_network() -> None:
    X, y = data()
    found = training.train(X, y, 1e-2, P, tol=1e-3, random_state=0)
    exact = solve_with_cvxpy(program(X, found.patterns.mask, y, 1e-2))
    assert found.result.status is Status.CONVERGED
    assert found.result.dual_bound <= exact.objective + 1e-8
    assert found.result.objective <= exact.objective * (1 + 1e-3)
    assert exact.objective <= found.proposal_objective + 1e-8


@pytest.mark.parametrize("factor", [0.9, 0.99, 1.01, 2.0, 100.0])
def test_near_and_above_alpha_max(factor: float) -> None:
    X, y = data()
    everywhere = sample_patterns(X, 12, random_state=1).mask
    with precision(np.float64):
        alpha_max = float(program(X, everywhere, y, 1.0).alpha_max())
    alpha = factor * alpha_max
    found = training.train(X, y, alpha, P, solver=EXACT, random_state=0)
    check(found, X, y, alpha)
    assert found.result.status is Status.CONVERGED
    if factor >= 2:
        assert not found.result.weights.blocks.any()
        assert found.result.objective == pytest.approx((y**2).sum() / (2 * N))


@pytest.mark.parametrize("tol", [1e-2, 1e-6])
def test_no_point_takes_the_place_of_one_that_proves_more_than_it_does(tol: float) -> None:
    # In float32, what a ridge gains here is below rounding, and above the tolerance of 1e-6.
    X, y = data(dtype=np.float32)
    options: dict[str, Any] = {"loss": HuberLoss(1e-6), "penalty": SquaredL2(), "random_state": 0}
    options |= {"formulation": "gated", "patterns": "gaussian"}
    options["solver"] = InteriorPoint(tol=tol)
    result = training.train(X, y, 0.1, P, **options).result
    assert result.status is Status.CONVERGED
    assert result.gap <= tol
    assert result.weights.blocks.any() == (tol < 1e-3)


def test_a_proposal_within_the_tolerance_has_converged() -> None:
    X, y = data()
    close = training.train(X, y, 1e-2, P, solver=EXACT, random_state=0)
    solver = Cronos(linear_solver="dual", max_iter=1, tol=1.0)
    found = training.train(X, y, 1e-2, P, solver=solver, random_state=0)
    assert close.result.status is found.result.status is Status.CONVERGED
    assert found.result.gap <= 1


@pytest.mark.parametrize(("n", "d"), [(1, 3), (8, 1), (1, 1)])
@pytest.mark.parametrize("origin", ["local", "data"])
def test_one_row_or_one_column(n: int, d: int, origin: Any) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, 1))
    found = training.train(X, y, 1e-2, 4, patterns=origin, solver=EXACT, random_state=0)
    check(found, X, y, 1e-2)
    assert found.result.status is Status.CONVERGED


def test_two_outputs() -> None:
    X, y = data()
    Y = np.concatenate([y, -2 * y], axis=1)
    found = training.train(X, Y, 1e-2, P, solver=EXACT, random_state=0)
    assert np.isfinite(found.proposal_objective)
    check(found, X, Y, 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("linear_solver", ["dual", "mean_field", "nystrom"])
def test_cutting_off_the_padding_keeps_the_objective(linear_solver: Any) -> None:
    # Without a penalty nothing but its gates keeps the weights of a closed pattern at zero.
    X, y = data("one direction")
    solver = Cronos(linear_solver=linear_solver, max_iter=100, rank=8)
    for alpha in (0.0, 1e-2):
        found = training.train(X, y, alpha, P, patterns="gaussian", solver=solver, random_state=0)
        assert len(found.patterns) < P
        check(found, X, y, alpha)


def test_a_seed_determines_the_outcome() -> None:
    X, y = data()
    first, second = (
        training.train(X, y, 1e-2, P, n_rounds=1, random_state=7).result for _ in range(2)
    )
    np.testing.assert_array_equal(first.weights.blocks, second.weights.blocks)
    other = training.train(X, y, 1e-2, P, n_rounds=1, random_state=8).result
    assert other.objective != first.objective


def test_inputs_are_not_changed() -> None:
    X, y = data()
    before = X.copy(), y.copy()
    training.train(X, y, 1e-2, P, n_rounds=1, random_state=0)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_callback_reaches_the_solver() -> None:
    X, y = data()
    rows: list[dict[str, float]] = []
    found = training.train(
        X, y, 1e-2, P, solver=EXACT, random_state=0, callback=lambda row, weights: rows.append(row)
    )
    assert len(rows) == len(found.result.history["iteration"]) > 0


# Losses, forms and refinement ---------------------------------------------------------------

LOSSES: dict[str, Loss] = {
    "squared": SquaredLoss(),
    "huber": HuberLoss(0.5),
    "logistic": LogisticLoss(),
    "multinomial": MultinomialLoss(),
}
# The coupled loss compiles its solver again for each number of patterns.
TABLE = [
    pytest.param(loss, formulation, marks=pytest.mark.slow if loss == "multinomial" else ())
    for loss in LOSSES
    for formulation in ("relu", "gated")
]


def targets(loss: str) -> tuple[np.ndarray, np.ndarray]:
    X, y = data()
    if loss == "logistic":
        y = np.where(y > np.median(y), 1.0, -1.0)
    elif loss == "multinomial":
        y = np.eye(3)[np.digitize(y[:, 0], np.quantile(y, [1 / 3, 2 / 3]))]
    return X, y


def check_rounds(found: Training) -> None:
    rounds = found.rounds
    assert len({len(column) for column in rounds.values()}) == 1
    assert (np.diff(rounds["objective"]) <= 0).all()
    assert (np.diff(rounds["time"]) > 0).all()
    assert rounds["objective"][-1] == found.result.objective
    assert found.flops > 0


@pytest.mark.parametrize(("loss", "formulation"), TABLE)
@pytest.mark.parametrize("skip", [None, 0.1])
def test_rounds_lower_the_objective_under_every_loss_and_form(
    loss: str, formulation: Any, skip: float | None
) -> None:
    X, y = targets(loss)
    few = 1 if loss == "multinomial" else 2
    options: dict[str, Any] = {
        "loss": LOSSES[loss],
        "formulation": formulation,
        "skip": skip,
        "random_state": 0,
    }
    options |= {"patterns": "gaussian", "tol": 1e-2 if loss == "multinomial" else 1e-6}
    once = training.train(X, y, 5e-3, few, **options)
    found = training.train(X, y, 5e-3, few, n_rounds=4, **options)
    check_rounds(found)
    n_signs = 2 if formulation == "relu" else 1
    assert found.result.weights.blocks.shape == (
        y.shape[1],
        n_signs,
        len(found.patterns),
        D,
    )
    assert (found.result.weights.linear is None) == (skip is None)
    assert certificate(found) <= options["tol"] * (1 + 1e-9)
    # Two random patterns are not much; rounds find better ones.
    # Rounds solve the program itself, where one solve may end with a network outside its cones.
    assert found.rounds["objective"][0] >= once.result.objective * (1 - options["tol"])
    assert found.result.objective < 0.97 * once.result.dual_bound
    assert found.rounds["gain"][0] > 1


def test_rounds_end_where_no_pattern_gains() -> None:
    X, y = tiny()
    options: dict[str, Any] = {"patterns": "gaussian", "random_state": 0}
    found = training.train(X, y, TINY_ALPHA, 3, n_rounds=30, **options)
    check_rounds(found)
    assert 1 < len(found.rounds["gain"]) < 8
    assert found.rounds["gain"][0] > 1 >= found.rounds["gain"][-1]
    # With no rounds nothing is priced.
    plain = training.train(X, y, TINY_ALPHA, 3, **options)
    assert len(plain.rounds["gain"]) == 1
    assert np.isnan(plain.rounds["gain"][0])
    assert found.result.objective < 0.99 * plain.result.dual_bound


@pytest.mark.parametrize("n_rounds", [0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_refined_networks_are_never_worse_than_local_ones(n_rounds: int, seed: int) -> None:
    X, y = data()
    found = training.train(X, y, 1e-3, P, n_rounds=n_rounds, random_state=seed)
    check(found, X, y, 1e-3)
    check_rounds(found)
    assert found.result.objective < found.proposal_objective < np.inf
    assert certificate(found) <= 1e-2


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
@pytest.mark.parametrize("solver", [None, Cronos(linear_solver="dual", tol=1e-2)])
@pytest.mark.parametrize("tol", [1e-2, 0.5])
def test_the_program_decides_at_any_tolerance(loss: str, solver: Any, tol: float) -> None:
    X, y = targets(loss)
    solver = solver and replace(solver, tol=tol)
    options: dict[str, Any] = {"loss": LOSSES[loss], "solver": solver, "random_state": 0}
    found = training.train(X, y, 5e-3, P, tol=tol, **options)
    # An objective lower than that of the proposal is no proposal with another name.
    assert found.result.objective < found.proposal_objective * (1 - 1e-6)
    assert found.result.status is Status.CONVERGED
    network = proposal.propose(X, y, 5e-3, P, loss=LOSSES[loss], random_state=0)
    own, weights = proposal.to_program(X, network)
    own_program = replace(found.program, operator=GatedOperator(X, own.mask))
    value = float(own_program.evaluate(weights).network_objective)
    assert found.proposal_objective == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
def test_interior_point_takes_fewer_iterations_from_the_proposal(loss: str) -> None:
    X, y = targets(loss)
    n_iter = np.zeros((2, 4))
    for seed in range(4):
        options: dict[str, Any] = {"loss": LOSSES[loss], "solver": EXACT, "random_state": seed}
        found = training.train(X, y, 5e-3, P, **options)
        cold = solve(found.program, EXACT)
        assert found.result.objective == pytest.approx(cold.objective, rel=1e-5)
        n_iter[:, seed] = found.result.n_iter, cold.n_iter
    assert n_iter[0].sum() < 0.9 * n_iter[1].sum()


def test_runs_united_are_no_worse_than_the_best_of_them() -> None:
    X, y = data()
    rng = np.random.RandomState(0)
    options: dict[str, Any] = {"solver": EXACT}
    runs = [training.train(X, y, 1e-3, 5, random_state=rng, **options) for _ in range(3)]
    united = training.train(
        X, y, 1e-3, 5, n_runs=3, random_state=np.random.RandomState(0), **options
    )
    best = min(run.result.objective for run in runs)
    assert united.result.objective <= best * (1 + 1e-6)
    assert united.proposal_objective == pytest.approx(min(run.proposal_objective for run in runs))
    assert max(len(run.patterns) for run in runs) < len(united.patterns) <= 15
    check(united, X, y, 1e-3)
    # It mixes neurons of several runs.
    assert united.result.objective < 0.999 * best


@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("loss", ["squared", "huber", "logistic"])
def test_sample_weight_equals_repetition(loss: str, formulation: Any) -> None:
    X, y = targets(loss)
    weight = np.arange(N) % 3 + 1
    # Gaussian gates through the origin do not depend on the rows.
    options: dict[str, Any] = {
        "loss": LOSSES[loss],
        "formulation": formulation,
        "patterns": "gaussian",
    }
    options |= {"solver": EXACT, "random_state": 0}
    weighted = training.train(X, y, 0.02, P, sample_weight=weight.astype(float), **options)
    repeated = training.train(
        X.repeat(weight, axis=0), y.repeat(weight, axis=0), 0.02, P, **options
    )
    assert weighted.result.objective == pytest.approx(repeated.result.objective, rel=1e-6)
    plain = training.train(X, y, 0.02, P, **options)
    assert abs(plain.result.objective / weighted.result.objective - 1) > 1e-3


def test_sample_weight_reaches_the_local_search() -> None:
    X, y = data()
    weight = np.where(np.arange(N) < 15, 1.0, 0.0)
    weighted = training.train(X, y, 0.02, P, sample_weight=weight, random_state=0)
    half = training.train(X[:15], y[:15], 0.02, P, random_state=0)
    assert weighted.proposal_objective == pytest.approx(half.proposal_objective, rel=1e-3)


@pytest.mark.parametrize("penalty", [SquaredL2(), FeatureGroupLasso(), L1()])
def test_other_penalties_train_but_are_not_refined(penalty: Penalty) -> None:
    X, y = data()
    options: dict[str, Any] = {"penalty": penalty, "formulation": "gated", "random_state": 0}
    with pytest.raises(TypeError, match=rf"n_rounds=2 needs.*{type(penalty).__name__}.*n_rounds=0"):
        training.train(X, y, 1e-2, P, n_rounds=2, **options)
    if isinstance(penalty, SquaredL2):
        found = training.train(X, y, 1e-2, P, **options)
        own = (found.result.weights.blocks**2).sum() / 2
        hidden = np.einsum("ki,ji,kj->k", X, found.result.weights.blocks[0, 0], found.patterns.mask)
        error = ((hidden - y[:, 0]) ** 2).mean() / 2
        assert found.result.objective == pytest.approx(error + 1e-2 * own)
        assert certificate(found) <= 1e-2


def test_a_skip_connection_lowers_the_objective() -> None:
    X, y = data()
    y = y + X @ np.array([[1.0], [2.0], [-1.0], [3.0]])
    plain, skipping = (
        training.train(X, y, 0.02, P, skip=skip, random_state=0) for skip in (None, 0.0)
    )
    assert skipping.result.objective < 0.8 * plain.result.dual_bound
    assert certificate(skipping) <= 1e-2
    with pytest.raises(ValueError, match="without a ridge may have no minimiser"):
        training.train(X, np.sign(y), 0.02, P, loss=LogisticLoss(), skip=0.0)


# Global optimality --------------------------------------------------------------------------

TINY_ALPHA = 0.01


def tiny() -> tuple[np.ndarray, np.ndarray]:
    """Twelve rows of rank 3: 134 patterns, all of which can be listed."""
    rng = np.random.default_rng(5)
    X = add_bias(rng.standard_normal((12, 2)))
    y = np.sin(2 * X[:, :1]) * X[:, 1:2] + 0.1 * rng.standard_normal((12, 1))
    return X, y


def everything(loss: Loss | None = None) -> tuple[ConvexProgram, Any]:
    X, y = tiny()
    mask = enumeration.enumerate_patterns(X).mask
    program = ConvexProgram(GatedOperator(X, mask), y, TINY_ALPHA)
    return program, solve(program, EXACT)


def restarts(X: np.ndarray, y: np.ndarray, alpha: float, n: int, n_steps: int) -> np.ndarray:
    """Objectives of the non-convex network after Adam from ``n`` random starts at once."""
    rng = np.random.default_rng(0)
    m = 8
    theta = [rng.standard_normal((n, m, X.shape[1])), rng.standard_normal((n, m))]
    first = [np.zeros_like(part) for part in theta]
    second = [np.zeros_like(part) for part in theta]
    for step in range(1, n_steps + 1):
        W, a = theta
        hidden = np.maximum(W @ X.T, 0)  # (n, m, rows)
        error = (np.matmul(a[:, None], hidden)[:, 0] - y[:, 0]) / len(X)
        pulled = (hidden > 0) * (a[:, :, None] * error[:, None])
        slopes = [pulled @ X + alpha * W, np.matmul(hidden, error[..., None])[..., 0] + alpha * a]
        rate = 0.05 * (1 - (step - 1) / n_steps)
        for p, g, u, v in zip(theta, slopes, first, second, strict=True):
            u += 0.1 * (g - u)
            v += 0.01 * (g**2 - v)
            p -= rate * (u / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-9)
    W, a = theta
    error = np.matmul(a[:, None], np.maximum(W @ X.T, 0))[:, 0] - y[:, 0]
    decay = (W**2).sum(axis=(1, 2)) + (a**2).sum(axis=1)
    return (error**2).mean(axis=1) / 2 + alpha / 2 * decay


def test_all_patterns_give_a_certified_optimum() -> None:
    program, result = everything()
    assert program.operator.n_patterns == 133
    assert result.gap <= 1e-6
    bound = float(program.bound_of(result.dual))
    assert bound == pytest.approx(result.dual_bound)
    own = network_objective(
        Training(result, None, program, np.inf, {}, 0.0),  # type: ignore[arg-type]
        program.operator.X,
        np.asarray(program.y),
        TINY_ALPHA,
    )
    assert result.objective == pytest.approx(own)
    exact = solve_with_cvxpy(program)
    assert exact.objective == pytest.approx(result.objective, rel=1e-6)


@pytest.mark.slow
def test_thousands_of_local_networks_never_beat_the_bound() -> None:
    _, result = everything()
    found = restarts(*tiny(), TINY_ALPHA, n=2000, n_steps=600)
    assert found.min() >= result.dual_bound
    # It is a fair contest: the best come near, and many end elsewhere.
    assert found.min() < 1.001 * result.objective
    assert (found > 1.01 * result.objective).mean() > 0.1


@pytest.mark.parametrize("origin", ["local", "gaussian"])
@pytest.mark.parametrize("seed", range(3))
def test_rounds_reach_the_global_optimum(origin: Any, seed: int) -> None:
    _, best = everything()
    X, y = tiny()
    found = training.train(X, y, TINY_ALPHA, 20, patterns=origin, n_rounds=20, random_state=seed)
    assert best.dual_bound <= found.result.objective <= best.objective * (1 + 1e-3)
    # The bound over few patterns proves nothing about all of them.
    assert len(found.patterns) < 133


# Local ascents found nothing here while patterns still paid.
@pytest.mark.parametrize(("n", "d", "seed"), [(15, 2, 1), (20, 2, 7), (12, 3, 6)])
@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_no_gain_is_a_proof_where_all_patterns_can_be_priced(
    n: int, d: int, seed: int, formulation: Any
) -> None:
    rng = np.random.default_rng(seed)
    X = add_bias(rng.standard_normal((n, d)))
    y = np.abs(X[:, :1]) - X[:, 1:2] + 0.3 * rng.standard_normal((n, 1))
    options: dict[str, Any] = {"formulation": formulation, "random_state": seed}
    found = training.train(X, y, 1e-2, 16, n_rounds=20, **options)
    assert 0 < found.rounds["gain"][-1] <= 1
    assert (found.rounds["gain"][:-1] > 1).all()
    best = training.train(X, y, 1e-2, 500, patterns="all", solver=EXACT, **options)
    assert len(found.patterns) < len(best.patterns)
    for bound, objective in (
        (best.result.dual_bound, found.result.objective),
        (found.result.dual_bound, best.result.objective),
    ):
        assert bound <= objective * (1 + 1e-4)
        assert objective == pytest.approx(bound, rel=1e-3)


@pytest.mark.parametrize("part", [1.01, 2.0, 100.0])
@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_beyond_alpha_max_there_are_no_neurons(part: float, formulation: Any, dtype: type) -> None:
    rng = np.random.default_rng(0)
    X = add_bias(rng.standard_normal((60, 16))).astype(dtype)
    y = np.where(X[:, :1] > 0, 1, -1).astype(dtype)
    patterns = sample_patterns(X, 8, random_state=0)
    program = ConvexProgram(GatedOperator(X, patterns.mask), y, 0.0, formulation=formulation)
    alpha = part * float(replace(program, formulation="gated").alpha_max())
    found = training.train(X, y, alpha, 8, patterns=patterns, formulation=formulation)
    assert not found.result.weights.blocks.any()
    assert found.result.objective == pytest.approx(0.5)
    assert abs(found.result.gap) <= 1e-2


def test_a_search_that_finds_nothing_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = tiny()
    monkeypatch.setattr(refinement, "_MOST_PRICED", 10)
    found = training.train(X, y, TINY_ALPHA, 20, n_rounds=30, random_state=0)
    assert np.isnan(found.rounds["gain"][-1])
    assert (found.rounds["gain"][:-1] > 1).all()


def test_all_patterns_of_data_that_have_too_many() -> None:
    X, y = tiny()
    with pytest.raises(ValueError, match=r"so up to \d+ patterns, more than .*=9 \(n_patterns"):
        training.train(X, y, 1e-2, 9, patterns="all")


@pytest.mark.parametrize("patterns", ["all", "adaptive"])
def test_what_a_refusal_of_patterns_advises_works(patterns: Any) -> None:
    """Both name what ``train`` takes: ``"adaptive"`` is a word of the estimators only."""
    X, y = tiny()
    with pytest.raises(ValueError, match="patterns") as refused:
        training.train(X, y, 1e-2, 9, patterns=patterns)
    advice = str(refused.value).split("Raise it, or" if patterns == "all" else "to estimators,")[1]
    options = dict(re.findall(r"(patterns|n_rounds)='?(\w+)'?", advice))
    rounds = int(options.pop("n_rounds", 0))
    found = training.train(X, y, 1e-2, 9, n_rounds=rounds, random_state=0, **options)
    priced = np.isfinite(found.rounds["gain"]).all()
    assert priced == (patterns == "adaptive")


def test_rounds_reach_the_global_optimum_of_the_gated_form() -> None:
    program, _ = everything()
    best = solve(replace(program, formulation="gated"), EXACT)
    assert best.gap <= 1e-6
    X, y = tiny()
    found = training.train(X, y, TINY_ALPHA, 20, formulation="gated", n_rounds=20, random_state=0)
    assert best.dual_bound <= found.result.objective <= best.objective * (1 + 1e-2)


def test_refuses_an_unknown_patterns() -> None:
    X, y = data()
    with pytest.raises(
        ValueError,
        match=r"patterns='uniform'; expected 'local', 'gaussian', 'data', 'thresholds', 'all'",
    ):
        training.train(X, y, 1e-2, P, patterns="uniform")  # type: ignore[arg-type]


@pytest.mark.parametrize("origin", ["local", "gaussian", "data"])
def test_refuses_fewer_than_one_pattern(origin: Any) -> None:
    X, y = data()
    with pytest.raises(ValueError, match="expected at least 1"):
        training.train(X, y, 1e-2, 0, patterns=origin, random_state=0)


@pytest.mark.parametrize("origin", ["local", "gaussian"])
def test_other_strengths_seeds_and_numbers_of_patterns_compile_nothing(
    origin: Any, compilations: Callable[[], int]
) -> None:
    X, y = data()
    few, _ = data("one direction")
    # Numbers of patterns are rounded up to multiples of eight: one compilation for each.
    for matrix in (X, few):
        training.train(matrix, y, 1e-2, P, patterns=origin, solver=DUAL, random_state=0)
    before = compilations()
    sizes = set()
    for matrix, alpha, seed in ((X, 1e-3, 1), (X, 0.2, 2), (few, 1e-2, 3)):
        found = training.train(matrix, y, alpha, P, patterns=origin, solver=DUAL, random_state=seed)
        sizes.add(len(found.patterns))
    assert len(sizes) > 1
    assert compilations() == before
