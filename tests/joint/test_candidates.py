"""Candidate sets: their softmax, and invalid sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.joint import CandidateSets
from cvxnn.network import TwoLayerNetwork


def draw(seed: int = 0, d: int = 3) -> CandidateSets:
    rng = np.random.default_rng(seed)
    return CandidateSets.stack([rng.standard_normal((size, d)) for size in (2, 5, 1, 3)])


@given(st.integers(0, 10**6), st.floats(0.1, 300))
def test_probabilities_are_the_softmax_of_each_set(seed: int, scale: float) -> None:
    sets = draw(seed)
    theta = scale * np.random.default_rng(seed + 1).standard_normal(3)
    found = sets.probabilities(theta)
    for low, high in zip(sets.offsets[:-1], sets.offsets[1:], strict=True):
        scores = sets.features[low:high] @ theta
        expected = np.exp(scores - scores.max())
        np.testing.assert_allclose(found[low:high], expected / expected.sum(), atol=1e-12)
    np.testing.assert_allclose(np.add.reduceat(found, sets.offsets[:-1]), 1)


def test_large_scores_do_not_overflow() -> None:
    found = draw().log_probabilities([1e6, -1e6, 1e6])
    assert np.isfinite(found).all()
    assert (found <= 0).all()


def test_hidden_features_of_a_network() -> None:
    sets = draw()
    rng = np.random.default_rng(1)
    network = TwoLayerNetwork(
        hidden_weights=rng.standard_normal((6, 3)),
        hidden_bias=np.zeros(6),
        output_weights=rng.standard_normal(6),
        output_bias=np.zeros(1),
    )
    deeper = sets.through(network)
    np.testing.assert_allclose(
        deeper.features, np.maximum(sets.features @ network.hidden_weights.T, 0)
    )
    np.testing.assert_array_equal(deeper.sizes, sets.sizes)


@pytest.mark.parametrize(
    ("features", "offsets", "message"),
    [
        (np.zeros((3, 2)), [0, 2], "expected integers from 0 to 3"),
        (np.zeros((3, 2)), [0.0, 3.0], "expected integers"),
        (np.zeros((3, 2)), [0], "expected integers"),
        (np.zeros((3, 2)), [0, 2, 2, 3], "prompt 1 has no candidate"),
        (np.zeros(3), [0, 3], "expected a matrix"),
        (np.zeros((0, 2)), [0, 0], "at least one row"),
        ([[0.0, 1.0], [0.0, np.nan], [0.0, np.inf]], [0, 3], "not finite in row 1"),
    ],
)
def test_bad_sets(features: object, offsets: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CandidateSets(features, offsets)


def test_bad_stacks() -> None:
    with pytest.raises(ValueError, match="sets is empty"):
        CandidateSets.stack([])
    with pytest.raises(ValueError, match=r"\[2, 3\] features"):
        CandidateSets.stack([np.zeros((2, 2)), np.zeros((2, 3))])
    with pytest.raises(ValueError, match=r"theta has shape \(2,\); expected \(3,\)"):
        draw().log_probabilities([1.0, 2.0])
