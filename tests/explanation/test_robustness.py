"""Radii of decisions: no row within them decides otherwise, and a linear network is exact."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.explanation import decision_radius, ranking_radius
from cvxnn.network import TwoLayerNetwork

D = 3


def random_network(rng, kind, n_outputs=1):
    n = 6 * n_outputs
    gates = {}
    if kind != "relu":
        shape = (6, 2, D) if kind == "conjunctions" else (6, D)
        gates = {
            "gate_weights": rng.randn(*shape),
            "gate_bias": rng.randn(*shape[:-1]),
            "gate_index": np.tile(np.arange(6), n_outputs),
        }
    return TwoLayerNetwork(
        rng.randn(n, D),
        rng.randn(n),
        rng.randn(n),
        rng.randn(n_outputs),
        linear_weights=rng.randn(D, n_outputs),
        output_index=np.repeat(np.arange(n_outputs), 6),
        **gates,
    )


def moves(rng, radius, n=400):
    step = rng.randn(n, len(radius), D)
    step /= np.linalg.norm(step, axis=-1, keepdims=True)
    # Most of them go nearly all the way.
    return step * (rng.rand(n, 1, 1) ** 0.1) * radius[:, None] * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["relu", "gated", "conjunctions"]))
def test_no_ranking_changes_within_its_radius(seed, kind):
    rng = np.random.RandomState(seed)
    network = random_network(rng, kind)
    first, second = rng.randn(2, 4, D)
    radius = ranking_radius(network, first, second)
    before = network.forward(first) > network.forward(second)
    one, two = (x + moves(rng, radius) for x in (first, second))
    after = network.forward(one.reshape(-1, D)) > network.forward(two.reshape(-1, D))
    np.testing.assert_array_equal(after.reshape(-1, *before.shape), [before] * len(one))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["relu", "gated", "conjunctions"]),
    n_outputs=st.sampled_from([1, 3]),
)
def test_no_decision_changes_within_its_radius(seed, kind, n_outputs):
    rng = np.random.RandomState(seed)
    network = random_network(rng, kind, n_outputs)
    X = rng.randn(4, D)
    radius = decision_radius(network, X)
    assert np.all(radius > 0)

    def decide(rows):
        scores = network.forward(rows)
        return scores.argmax(axis=1) if n_outputs > 1 else scores[:, 0] >= 0

    before, moved = decide(X), X + moves(rng, radius)
    after = decide(moved.reshape(-1, D)).reshape(-1, 4)
    np.testing.assert_array_equal(after, [before] * len(moved))


def test_the_radius_of_a_linear_network_is_exact():
    rng = np.random.RandomState(0)
    network = TwoLayerNetwork(
        np.zeros((0, D)),
        np.zeros(0),
        np.zeros(0),
        np.array([0.3, -0.1]),
        linear_weights=rng.randn(D, 2),
    )
    X = rng.randn(5, D)
    scores = network.forward(X)
    slope = np.linalg.norm(network.linear_weights[:, 0] - network.linear_weights[:, 1])
    exact = np.abs(scores[:, 0] - scores[:, 1]) / slope
    np.testing.assert_allclose(decision_radius(network, X), exact, rtol=1e-6)


def test_replies_that_are_equal_have_no_radius():
    network = random_network(np.random.RandomState(0), "gated")
    X = np.ones((2, D))
    np.testing.assert_allclose(ranking_radius(network, X, X), 0, atol=1e-6)
    with pytest.raises(ValueError, match="expected one output, and as many first rows"):
        ranking_radius(network, X, X[:1])


@pytest.mark.parametrize("size", [1e-12, 1e-3, 1e12])
def test_radii_are_as_exact_in_all_units(size):
    rng = np.random.RandomState(0)
    network, X = random_network(rng, "gated"), rng.randn(6, D)
    other = replace(
        network,
        hidden_weights=network.hidden_weights / size,
        gate_weights=network.gate_weights / size,
        linear_weights=network.linear_weights / size,
    )
    expected = decision_radius(network, X)
    assert (expected > 0).all()
    np.testing.assert_allclose(decision_radius(other, size * X), size * expected, rtol=1e-6)


def test_rows_beyond_the_range_are_refused():
    network = random_network(np.random.RandomState(0), "gated")
    for radius in (lambda X: decision_radius(network, X), lambda X: ranking_radius(network, X, X)):
        with pytest.raises(ValueError, match="too large for the network"):
            radius(np.full((1, D), 1e308))
