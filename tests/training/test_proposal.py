"""Local training, and its network as weights of the program."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.convex import (
    GatedOperator,
    HuberLoss,
    LogisticLoss,
    Loss,
    MultinomialLoss,
    SquaredLoss,
    compiled_calls,
)
from cvxnn.numerics.jax_import import precision
from cvxnn.training import proposal
from cvxnn.training.proposal import LocalNetwork

N, D, H = 30, 4, 10


def data(outputs: int = 1, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D))
    y = np.maximum(X @ rng.standard_normal((D, 3)), 0) @ rng.standard_normal((3, outputs))
    return X.astype(dtype), y.astype(dtype)


def predict(network: LocalNetwork, X: np.ndarray) -> np.ndarray:
    return np.maximum(X @ network.hidden.T, 0) @ network.output


def objective(network: LocalNetwork, X: np.ndarray, y: np.ndarray, alpha: float) -> float:
    decay = (network.hidden**2).sum() + (network.output**2).sum()
    return ((predict(network, X) - y) ** 2).sum() / (2 * len(X)) + alpha / 2 * decay


def program_predictions(X: np.ndarray, mask: np.ndarray, U: np.ndarray) -> tuple[np.ndarray, ...]:
    """Predictions of the gated model and of the ReLU network with the same weights."""
    with precision(X.dtype):
        operator = GatedOperator(X, mask)
        return tuple(np.asarray(f(U)) for f in (operator.forward, operator.network_forward))


# Training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 2])
def test_training_lowers_the_objective(outputs: int, dtype: type) -> None:
    X, y = data(outputs, dtype)
    alpha = 1e-3
    network = proposal.propose(X, y, alpha, H, random_state=0)
    assert network.hidden.shape == (H, D)
    assert network.output.shape == (H, outputs)
    assert network.hidden.dtype == network.output.dtype == dtype
    at_zero = (y**2).sum() / (2 * N)
    assert objective(network, X, y, alpha) < 0.3 * at_zero


def test_more_steps_approach_a_stationary_point() -> None:
    X, y = data()
    alpha = 0.02
    network = proposal.propose(X, y, alpha, H, n_steps=3000, random_state=0)
    error = predict(network, X) - y
    active = X @ network.hidden.T > 0
    slope_hidden = (active * (error @ network.output.T)).T @ X / N + alpha * network.hidden
    slope_output = np.maximum(X @ network.hidden.T, 0).T @ error / N + alpha * network.output
    assert np.abs(slope_hidden).max() < 1e-2
    assert np.abs(slope_output).max() < 1e-2


def test_a_seed_determines_the_network() -> None:
    X, y = data()
    first = proposal.propose(X, y, 0.01, H, random_state=3)
    second = proposal.propose(X, y, 0.01, H, random_state=np.random.RandomState(3))
    other = proposal.propose(X, y, 0.01, H, random_state=4)
    np.testing.assert_array_equal(first.hidden, second.hidden)
    np.testing.assert_array_equal(first.output, second.output)
    assert not np.array_equal(first.hidden, other.hidden)


@pytest.mark.parametrize("most", [1, 7, 12])
def test_calls_of_compiled_code_are_short_and_change_nothing(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt waits for one call, which takes the more steps the smaller the data."""
    X, y = data()
    options: dict[str, Any] = {"n_steps": 12, "random_state": 0}
    monkeypatch.setattr(proposal, "_HOST_SIZE", 0)
    whole = proposal.propose(X, y, 0.01, H, **options)
    calls, compiled = [], proposal._adam_compiled

    def counted(*arguments: Any) -> Any:
        calls.append((arguments[6], arguments[7]))
        return compiled(*arguments)

    monkeypatch.setattr(proposal, "_adam_compiled", counted)
    monkeypatch.setattr(compiled_calls, "_CALL", most * proposal.proposal_flops(X.shape, H, 1, 1))
    found = proposal.propose(X, y, 0.01, H, **options)
    assert [last - first for first, last in calls] == [most] * (12 // most) + [5] * (most == 7)
    np.testing.assert_array_equal(found.hidden, whole.hidden)
    np.testing.assert_array_equal(found.output, whole.output)


def test_no_steps_return_the_start() -> None:
    X, y = data()
    few = proposal.propose(X, y, 0.01, H, n_steps=0, random_state=0)
    other_targets = proposal.propose(X, -y, 0.01, H, n_steps=0, random_state=0)
    np.testing.assert_array_equal(few.hidden, other_targets.hidden)
    # Half of the neurons push up, half down.
    assert (np.sign(few.output[:, 0]) == np.where(np.arange(H) % 2, -1, 1)).all()


@pytest.mark.parametrize("alpha", [0.0, 1e3])
def test_extreme_strengths_stay_finite(alpha: float) -> None:
    X, y = data()
    network = proposal.propose(X, y, alpha, H, random_state=0)
    assert np.isfinite(network.hidden).all()
    assert np.isfinite(network.output).all()


LOSSES: dict[str, Loss] = {
    "squared": SquaredLoss(),
    "huber": HuberLoss(0.7),
    "logistic": LogisticLoss(),
    "multinomial": MultinomialLoss(),
}


def targets(loss: str, y: np.ndarray) -> np.ndarray:
    if loss == "logistic":
        return np.where(y > 0, 1.0, -1.0)
    return np.eye(y.shape[1])[y.argmax(axis=1)] if loss == "multinomial" else y


def weighted_objective(
    network: LocalNetwork, X: np.ndarray, y: np.ndarray, weight: np.ndarray, loss: str, alpha: float
) -> float:
    """Row by row, from the definition of each loss."""
    total = 0.0
    for row, target, share in zip(X, y, weight / weight.sum(), strict=True):
        f = np.array([max(w @ row, 0) for w in network.hidden]) @ network.output
        if loss == "multinomial":
            total += share * (np.log(np.exp(f).sum()) - f @ target)
            continue
        for value, goal in zip(f, target, strict=True):
            error = abs(value - goal)
            total += (
                share
                * {
                    "squared": error**2 / 2,
                    "huber": error**2 / 2 if error <= 0.7 else 0.7 * (error - 0.35),
                    "logistic": np.log1p(np.exp(-goal * value)),
                }[loss]
            )
    decay = (network.hidden**2).sum() + (network.output**2).sum()
    return float(total + alpha / 2 * decay)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_differences(loss: str) -> None:
    X, y = data(3)
    y, alpha = targets(loss, y), 0.05
    rng = np.random.default_rng(1)
    W, A = rng.standard_normal((4, D)), rng.standard_normal((4, 3))
    weight = rng.exponential(size=N)
    share = (weight / weight.sum())[:, None]
    slopes = proposal.gradients(X, y, share, alpha, LOSSES[loss], (W, A))
    step = 1e-6
    for layer, slope in enumerate(slopes):
        for index in np.ndindex(*slope.shape):
            ends = []
            for side in (step, -step):
                moved = [W.copy(), A.copy()]
                moved[layer][index] += side
                ends.append(weighted_objective(LocalNetwork(*moved), X, y, weight, loss, alpha))
            difference = (ends[0] - ends[1]) / (2 * step)
            assert slope[index] == pytest.approx(difference, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_host_and_compiled_versions_agree(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(2)
    y = targets(loss, y)
    options: dict[str, Any] = {"loss": LOSSES[loss], "n_steps": 40, "random_state": 0}
    weight = np.random.default_rng(1).exponential(size=N)
    host = proposal.propose(X, y, 0.01, H, sample_weight=weight, **options)
    compiled = []
    original = proposal._adam_compiled
    monkeypatch.setattr(
        proposal, "_adam_compiled", lambda *args: compiled.append(1) or original(*args)
    )
    monkeypatch.setattr(proposal, "_HOST_SIZE", 0.0)
    device = proposal.propose(X, y, 0.01, H, sample_weight=weight, **options)
    assert compiled == [1]
    assert isinstance(device.hidden, np.ndarray)
    assert device.hidden.dtype == host.hidden.dtype == np.float64
    for one, other in zip(device, host, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_training_lowers_every_loss(loss: str) -> None:
    X, y = data(3)
    y, alpha = targets(loss, y), 1e-3
    weight = np.random.default_rng(1).exponential(size=N)
    ends = [
        proposal.propose(
            X, y, alpha, H, loss=LOSSES[loss], sample_weight=weight, n_steps=n, random_state=0
        )
        for n in (0, 300)
    ]
    before, after = (weighted_objective(end, X, y, weight, loss, alpha) for end in ends)
    assert after < 0.5 * before


def test_sample_weight_equals_repetition() -> None:
    X, y = data()
    weight = np.arange(N) % 3
    options: dict[str, Any] = {"n_steps": 50, "random_state": 0}
    weighted = proposal.propose(X, y, 0.01, H, sample_weight=weight.astype(float), **options)
    repeated = proposal.propose(
        X.repeat(weight, axis=0), y.repeat(weight, axis=0), 0.01, H, **options
    )
    for one, other in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


def products(jaxpr: Any) -> int:
    """Operations of the matrix products in a traced function."""
    flops = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            out = equation.outvars[0].aval.shape
            flops += int(2 * np.prod(out) * np.prod([left[axis] for axis in summed]))
    return flops


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_flops_against_the_products_of_a_step(n_outputs: int) -> None:
    n, d, h = 10, 4, 3
    arrays = [np.ones(shape) for shape in ((n, d), (n, n_outputs), (n, 1), (h, d), (h, n_outputs))]

    def step(X: Any, y: Any, share: Any, W: Any, A: Any) -> Any:
        return proposal.gradients(X, y, share, 0.1, LOSSES["squared"], (W, A))

    traced = products(jax.make_jaxpr(step)(*arrays).jaxpr)
    assert proposal.proposal_flops((n, d), h, n_outputs, n_steps=7) == 7 * traced
    assert proposal.proposal_flops((n, d), h, n_outputs) == proposal.N_STEPS * traced


# The network as weights of the program -----------------------------------------------------


def check_same_network(network: LocalNetwork, X: np.ndarray) -> None:
    patterns, (U, linear) = proposal.to_program(X, network)
    assert linear is None
    assert U.shape == (network.output.shape[1], 2, len(patterns), X.shape[1])
    assert U.dtype == network.hidden.dtype
    expected = predict(network, X)
    tolerance = 1e-10 if X.dtype == np.float64 else 1e-4
    for actual in program_predictions(X, patterns.mask, U):
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
    signs = 2.0 * patterns.mask - 1
    oriented = np.einsum("ki,kj,cbij->kcbi", signs, X, U)
    assert oriented.min() >= -tolerance


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_trained_network_keeps_its_predictions(outputs: int, dtype: type) -> None:
    X, y = data(outputs, dtype)
    check_same_network(proposal.propose(X, y, 0.01, H, random_state=0), X)


@given(seed=st.integers(0, 10**6))
def test_any_network_keeps_its_predictions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = np.random.default_rng(0).standard_normal((6, 2))  # few patterns: many neurons share one
    network = LocalNetwork(rng.standard_normal((12, 2)), rng.standard_normal((12, 2)))
    patterns, (U, linear) = proposal.to_program(X, network)
    assert linear is None
    mask, weights = np.zeros((6, 12), bool), np.zeros((2, 2, 12, 2))
    mask[:, : len(patterns)], weights[:, :, : len(patterns)] = patterns.mask, U
    expected = predict(network, X)
    for actual in program_predictions(X, mask, weights):
        np.testing.assert_allclose(actual, expected, atol=1e-10)
    # Summing the neurons of one pattern never costs penalty.
    norms = np.linalg.norm(U, axis=-1).sum()
    separate = np.linalg.norm(network.hidden, axis=1) @ np.abs(network.output).sum(axis=1)
    assert norms <= separate * (1 + 1e-12)


def test_neurons_that_share_a_pattern_and_a_sign_are_summed() -> None:
    X = np.array([[1.0], [2.0]])
    network = LocalNetwork(np.array([[1.0], [3.0], [2.0]]), np.array([[2.0], [1.0], [-1.0]]))
    patterns, (U, linear) = proposal.to_program(X, network)
    assert linear is None
    assert len(patterns) == 1
    np.testing.assert_array_equal(U, [[[[5.0]], [[2.0]]]])


def test_neurons_closed_on_every_row_are_dropped() -> None:
    X = np.array([[1.0], [2.0]])
    network = LocalNetwork(np.array([[-1.0], [3.0]]), np.array([[5.0], [1.0]]))
    patterns, (U, linear) = proposal.to_program(X, network)
    assert linear is None
    np.testing.assert_array_equal(patterns.mask, [[True], [True]])
    np.testing.assert_array_equal(U, [[[[3.0]], [[0.0]]]])


def test_a_network_of_closed_neurons_has_no_patterns() -> None:
    X = np.array([[1.0], [2.0]])
    patterns, (U, _) = proposal.to_program(X, LocalNetwork(-np.ones((3, 1)), np.ones((3, 1))))
    assert len(patterns) == 0
    assert U.shape == (1, 2, 0, 1)


def test_single_precision_is_used_for_long_runs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data()
    options: dict[str, Any] = {"n_steps": 12, "random_state": 0}
    double = proposal.propose(X, y, 0.01, H, **options)
    monkeypatch.setattr(proposal, "_SINGLE_SIZE", 0.0)
    single = proposal.propose(X, y, 0.01, H, **options)
    # Squares of such data are beyond the range.
    huge = proposal.propose(1e25 * X, y, 0.01, H, **options)
    assert single.hidden.dtype == huge.hidden.dtype == np.float64
    np.testing.assert_array_equal(single.hidden, single.hidden.astype(np.float32))
    assert not np.array_equal(huge.hidden, huge.hidden.astype(np.float32))
    for one, other in zip(single, double, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_data_whose_squared_slopes_overflow_in_single_precision() -> None:
    X = np.array([[-6e9], [1.2e11], [-4e10], [-7e10], [-3.5e10]], np.float32)
    y = np.eye(3, dtype=np.float32)[[2, 1, 2, 1, 0]]
    network = proposal.propose(X, y, 0.01, H, random_state=0)
    assert network.hidden.dtype == np.float32
    found = proposal.propose(X.astype(float), y.astype(float), 0.01, H, random_state=0)
    np.testing.assert_allclose(network.hidden, found.hidden, rtol=1e-6)
    proposal.propose(1e90 * X.astype(float), y, 0.01, H)  # without a warning
