"""Networks from data: both functions against their programs, scores, and a kernel that is known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cvxnn.convex import ConvexProgram, GatedOperator, InteriorPoint, Ridge, SquaredL2, solve
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.pattern_sampling import sample_patterns
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.network import TwoLayerNetwork
from cvxnn.training import fit_direct, fit_iterative, measure_strength, train


def data(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.standard_normal((n, 3)), np.ones(n)])
    return X, (np.abs(X[:, :1]) - X[:, 1:2] + 0.3 * rng.standard_normal((n, 1)))


def program(X: np.ndarray, y: np.ndarray, mask: np.ndarray, alpha: float) -> ConvexProgram:
    operator = GatedOperator(X, mask)
    return ConvexProgram(operator, y, alpha, SquaredLoss(), SquaredL2(), None, "gated")


def test_the_direct_fit_is_the_solution_of_its_program() -> None:
    X, y = data()
    patterns = sample_patterns(X, 16, random_state=0)
    fit = fit_direct(X, y, 1e-3, 16, patterns=patterns, bias=True, tol=1e-6)
    exact = solve(program(X, y, patterns.mask, 1e-3), Ridge())
    predicted = fit.network.forward(X[:, :-1])
    error = ((predicted - y) ** 2).sum() / (2 * len(X))
    penalty = 5e-4 * (exact.weights.blocks**2).sum()
    assert fit.training.result.objective == pytest.approx(exact.objective, rel=1e-6)
    assert error + penalty == pytest.approx(exact.objective, rel=1e-6)
    assert fit.training.result.gap <= 1e-6
    assert fit.scores is None
    assert fit.alpha == 1e-3


def test_conjunctions_of_gates_are_neurons_like_others() -> None:
    X, y = data()
    gates = np.random.default_rng(0).standard_normal((12, 2, 4))
    patterns = ActivationPatterns.from_gates(X, gates)
    fit = fit_direct(X, y, 1e-3, 12, patterns=patterns, bias=True, tol=1e-6)
    # Plain least squares with a column for each neuron and feature.
    mask = (X @ gates[:, 0].T >= 0) & (X @ gates[:, 1].T >= 0)
    features = (mask[:, :, None] * X[:, None]).reshape(len(X), -1)
    gram = features.T @ features / len(X) + 1e-3 * np.eye(features.shape[1])
    expected = features @ np.linalg.solve(gram, features.T @ y / len(X))
    np.testing.assert_allclose(fit.network.forward(X[:, :-1]), expected, rtol=1e-6, atol=1e-6)


def test_of_several_strengths_the_best_score_wins() -> None:
    X, y = data()
    scores = iter([1.0, 3.0, 3.0, 2.0])
    factors = [1.0, 0.1, 1e-2, 1e-3]
    fit = fit_direct(
        X, y, 1.0, 16, random_state=0, score=lambda network: next(scores), factors=factors
    )
    assert fit.alpha == 0.1
    assert fit.scores is not None
    assert fit.scores.tolist() == [1.0, 3.0, 3.0, 2.0]
    # All solutions are counted.
    assert fit.training.flops > 3 * fit_direct(X, y, 0.1, 16, random_state=0).training.flops


def test_a_known_kernel_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data()
    patterns = sample_patterns(X, 16, random_state=0)
    calls: list[int] = []
    computed = Kernel.between

    def count(data: RidgeData, *arguments: Any) -> np.ndarray:
        calls.append(1)
        return computed(data, *arguments)

    monkeypatch.setattr(Kernel, "between", staticmethod(count))
    rng = np.random.RandomState(0)
    strength = measure_strength(program(X, y, patterns.mask, 0.0), "auto", rng)
    assert strength.kernel is not None
    options: dict[str, Any] = {"patterns": patterns, "tol": 1e-6}
    known = fit_direct(X, y, strength.alpha, 16, kernel=strength.kernel, **options)
    assert len(calls) == 1
    fresh = fit_direct(X, y, strength.alpha, 16, **options)
    np.testing.assert_allclose(known.network.forward(X), fresh.network.forward(X), atol=1e-9)
    assert known.training.flops < fresh.training.flops
    calls.clear()
    factors = {"score": lambda network: 0.0, "factors": [1.0, 0.1, 1e-2]}
    several = fit_direct(X, y, strength.alpha, 16, **factors, **options)
    assert len(calls) == 1
    assert several.training.flops < 3 * fresh.training.flops
    # Of a sample of the rows, the kernel is not that of the program.
    many = np.tile(X, (20, 1)) + np.random.default_rng(0).standard_normal((800, 4))
    mask = sample_patterns(many, 8, random_state=0).mask
    assert measure_strength(program(many, np.tile(y, (20, 1)), mask, 0.0), 0.1, rng).kernel is None


@pytest.mark.parametrize("strength", ["auto", 0.1])
def test_strengths_are_fractions_of_the_unit(strength: Any) -> None:
    X, y = data()
    mask = sample_patterns(X, 16, random_state=0).mask
    rng = np.random.RandomState(0)
    found = measure_strength(program(X, y, mask, 0.0), strength, rng)
    if strength == "auto":
        assert 0 < found.alpha < found.alpha_max
    else:
        assert found.alpha == pytest.approx(0.1 * found.alpha_max)


def test_the_iterative_fit_is_the_network_of_training() -> None:
    X, y = data()
    options: dict[str, Any] = {"patterns": "gaussian", "solver": InteriorPoint(tol=1e-6)}
    fit = fit_iterative(X, y, 0.02, 8, bias=True, random_state=0, **options)
    training = train(X, y, 0.02, 8, random_state=0, **options)
    assert fit.training.result.objective == training.result.objective
    error = ((fit.network.forward(X[:, :-1]) - y) ** 2).sum() / (2 * len(X))
    norms = np.linalg.norm(training.result.weights.blocks, axis=-1).sum()
    assert error + 0.02 * norms == pytest.approx(training.result.objective, rel=1e-4)


def test_scores_choose_the_network_and_end_the_iterations() -> None:
    X, y = data()
    seen: list[TwoLayerNetwork] = []

    def score(network: TwoLayerNetwork) -> float:
        seen.append(network)
        return -float(len(seen))

    options: dict[str, Any] = {"patterns": "gaussian", "random_state": 0, "patience": 2}
    fit = fit_iterative(X, y, 1e-3, 8, solver=InteriorPoint(tol=1e-9), score=score, **options)
    assert fit.scores is not None
    assert fit.scores.tolist() == [-1.0, -2.0, -3.0]
    assert fit.network is seen[0]
    assert fit.training.result.status.value == "stopped"


@pytest.mark.parametrize("fit", [fit_direct, fit_iterative])
def test_callbacks_are_given_networks(fit: Callable[..., Any]) -> None:
    X, y = data()
    last: list[TwoLayerNetwork] = []
    found = fit(
        X,
        y,
        0.01,
        8,
        patterns="gaussian",
        random_state=0,
        callback=lambda row, network: last.append(network()),
    )
    np.testing.assert_allclose(last[-1].forward(X), found.network.forward(X), atol=1e-10)


def test_a_value_that_is_not_finite_ends_the_choice() -> None:
    X, y = data()
    y = 1e200 * y  # whose square overflows
    fit = fit_direct(X, y, 1.0, 8, random_state=0, score=lambda network: 1.0, factors=[1.0, 0.1])
    assert not np.isfinite(fit.training.result.objective)
    assert fit.alpha == 1.0


def test_ridge_without_a_kernel_has_its_own() -> None:
    assert replace(Ridge(), tol=0.1).kernel is None
