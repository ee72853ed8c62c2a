"""From data to a certified network, at the edges too."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvxnn import patterns, reference, training
from cvxnn.operators import GatedOperator
from cvxnn.problem import ConvexProgram
from cvxnn.solvers import Cronos, Status
from cvxnn.solvers._loop import precision
from cvxnn.training import Training

N, D, P = 30, 4, 12
DUAL = Cronos(linear_solver="dual")


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
        operator = GatedOperator(jnp.asarray(X), jnp.asarray(mask))
        return ConvexProgram(operator, jnp.asarray(y), alpha)


def network_objective(found: Training, X: np.ndarray, y: np.ndarray, alpha: float) -> float:
    """Objective of the returned network, in NumPy."""
    U = found.result.weights.astype(float)
    hidden = np.maximum(np.einsum("kj,cbij->kcbi", X.astype(float), U), 0).sum(-1)
    error = hidden[..., 0] - hidden[..., 1] - y
    return (error**2).sum() / (2 * len(X)) + alpha * np.linalg.norm(U, axis=-1).sum()


def check(found: Training, X: np.ndarray, y: np.ndarray, alpha: float) -> None:
    """What each training holds, converged or not."""
    result = found.result
    assert np.isfinite(result.weights).all()
    assert result.weights.shape == (y.shape[1], 2, len(found.patterns), X.shape[1])
    assert result.objective <= found.local_objective
    rtol, atol = (1e-9, 1e-12) if X.dtype == np.float64 else (1e-4, 1e-10)
    expected = network_objective(found, X, y, alpha)
    assert result.objective == pytest.approx(expected, rel=rtol, abs=atol)


@pytest.mark.parametrize("source", ["local", "gaussian", "data"])
@pytest.mark.parametrize("alpha", [1e-3, 1e-2, 0.1])
def test_each_source_trains_a_network_with_the_objective_reported(
    source: Any, alpha: float
) -> None:
    X, y = data()
    found = training.train(X, y, alpha, P, source=source, solver=DUAL, random_state=0)
    check(found, X, y, alpha)
    assert found.result.objective < 0.8 * (y**2).mean() / 2
    assert (found.local_objective == np.inf) == (source != "local")


@pytest.mark.parametrize(
    "kind", ["plain", "duplicate columns", "constant columns", "one direction", "zeros"]
)
@pytest.mark.parametrize("alpha", [0.0, 1e-2, 1e3])
def test_local_patterns_are_never_worse_than_their_network(
    kind: str, alpha: float, dtype: type
) -> None:
    X, y = data(kind, dtype)
    check(training.train(X, y, alpha, P, solver=DUAL, random_state=0), X, y, alpha)


@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_the_local_network_even_where_the_solver_stops_early(seed: int) -> None:
    X, y = data()
    solver = Cronos(linear_solver="dual", max_iter=1)
    found = training.train(X, y, 1e-3, P, solver=solver, random_state=seed)
    check(found, X, y, 1e-3)
    # One iteration cannot do it, so the local network itself comes back.
    assert found.result.objective == found.local_objective
    gap = (found.local_objective - found.result.dual_bound) / found.local_objective
    assert found.result.gap == pytest.approx(gap)


def test_the_program_over_local_patterns_bounds_the_network() -> None:
    X, y = data()
    found = training.train(X, y, 1e-2, P, solver=DUAL, random_state=0)
    exact = reference.solve(program(X, found.patterns.mask, y, 1e-2))
    assert found.result.status is Status.CONVERGED
    assert found.result.dual_bound <= exact.objective + 1e-8
    assert found.result.objective <= exact.objective * (1 + 1e-3)
    assert exact.objective <= found.local_objective + 1e-8


@pytest.mark.parametrize("factor", [0.9, 0.99, 1.01, 2.0, 100.0])
def test_near_and_above_alpha_max(factor: float) -> None:
    X, y = data()
    everywhere = patterns.sample(X, 12, random_state=1).mask
    with precision(np.float64):
        alpha_max = float(program(X, everywhere, y, 1.0).alpha_max())
    alpha = factor * alpha_max
    found = training.train(X, y, alpha, P, solver=DUAL, random_state=0)
    check(found, X, y, alpha)
    assert found.result.status is Status.CONVERGED
    if factor >= 2:
        assert not found.result.weights.any()
        assert found.result.objective == pytest.approx((y**2).sum() / (2 * N))


@pytest.mark.parametrize(("n", "d"), [(1, 3), (8, 1), (1, 1)])
@pytest.mark.parametrize("source", ["local", "data"])
def test_one_row_or_one_column(n: int, d: int, source: Any) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, 1))
    found = training.train(X, y, 1e-2, 4, source=source, solver=DUAL, random_state=0)
    check(found, X, y, 1e-2)
    assert found.result.status is Status.CONVERGED


def test_two_outputs() -> None:
    X, y = data()
    Y = np.concatenate([y, -2 * y], axis=1)
    found = training.train(X, Y, 1e-2, P, solver=DUAL, random_state=0)
    assert np.isfinite(found.local_objective)
    check(found, X, Y, 1e-2)


@pytest.mark.parametrize("linear_solver", ["dual", "mean_field", "nystrom"])
def test_cutting_off_the_padding_keeps_the_objective(linear_solver: Any) -> None:
    # Without a penalty nothing but its gates keeps the weights of a closed pattern at zero.
    X, y = data("one direction")
    solver = Cronos(linear_solver=linear_solver, max_iter=100, rank=8)
    for alpha in (0.0, 1e-2):
        found = training.train(X, y, alpha, P, source="gaussian", solver=solver, random_state=0)
        assert len(found.patterns) < P
        check(found, X, y, alpha)


def test_a_seed_determines_the_outcome() -> None:
    X, y = data()
    first, second = (
        training.train(X, y, 1e-2, P, solver=DUAL, random_state=7).result for _ in range(2)
    )
    np.testing.assert_array_equal(first.weights, second.weights)
    other = training.train(X, y, 1e-2, P, solver=DUAL, random_state=8).result
    assert other.objective != first.objective


def test_inputs_are_not_changed() -> None:
    X, y = data()
    before = X.copy(), y.copy()
    training.train(X, y, 1e-2, P, solver=DUAL, random_state=0)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])


def test_callback_reaches_the_solver() -> None:
    X, y = data()
    rows: list[dict[str, float]] = []
    found = training.train(X, y, 1e-2, P, solver=DUAL, random_state=0, callback=rows.append)
    assert len(rows) == len(found.result.history["iteration"]) > 0


def test_refuses_an_unknown_source() -> None:
    X, y = data()
    with pytest.raises(ValueError, match="'local', 'gaussian' or 'data'"):
        training.train(X, y, 1e-2, P, source="uniform")  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["local", "gaussian", "data"])
def test_refuses_fewer_than_one_pattern(source: Any) -> None:
    X, y = data()
    with pytest.raises(ValueError, match="expected at least 1"):
        training.train(X, y, 1e-2, 0, source=source, random_state=0)


@pytest.fixture
def compilations() -> Iterator[Callable[[], int]]:
    """Count what XLA compiles while the test runs."""
    count = 0

    def listen(event: str, duration: float, **_: Any) -> None:
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: count
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("source", ["local", "gaussian"])
def test_other_strengths_seeds_and_numbers_of_patterns_compile_nothing(
    source: Any, compilations: Callable[[], int]
) -> None:
    X, y = data()
    training.train(X, y, 1e-2, P, source=source, solver=DUAL, random_state=0)
    before = compilations()
    few, _ = data("one direction")
    sizes = set()
    for matrix, alpha, seed in ((X, 1e-3, 1), (X, 0.2, 2), (few, 1e-2, 3)):
        found = training.train(matrix, y, alpha, P, source=source, solver=DUAL, random_state=seed)
        sizes.add(len(found.patterns))
    assert len(sizes) > 1
    assert compilations() == before
