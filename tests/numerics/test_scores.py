"""Bent scores: their limits, and chances that they give back."""

import numpy as np
import pytest

from cvxnn.numerics.scores import bent, probabilities


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_columns", [None, 1, 3])
def test_bent_scores_are_the_formula(n_columns: int | None, dtype: type) -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(-2, 2, 30 if n_columns is None else (30, n_columns)).astype(dtype)

    def formula(s: np.ndarray) -> np.ndarray:
        return 2 * np.log(2) / 8 * np.log(np.log1p(np.exp(8 * (1 + s.astype(float)))))

    expected = formula(scores)
    if n_columns != 3:
        expected = (expected - formula(-scores)) / 2
    found = bent(scores, 8.0)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=5e-6, atol=1e-6)
    assert bent(scores, 0.0) is scores
    order = np.argsort(scores, axis=-1)
    np.testing.assert_array_equal(np.argsort(found, axis=-1), order)


def test_a_small_bend_is_none_and_a_large_one_gives_back_chances() -> None:
    chances = np.array([[0.9, 0.09, 0.01], [0.3, 0.3, 0.4]])
    scores = 2 * chances - 1
    straight, nearly = scores, bent(scores, 1e-4)
    np.testing.assert_allclose(np.diff(nearly), np.diff(straight), atol=1e-3)
    bend = 1e4
    logits = bent(scores, bend) * bend / (2 * np.log(2))
    np.testing.assert_allclose(probabilities(logits), chances, atol=2e-3)
    second = scores[:, 0] * -1  # the chance of the other of two classes
    logits = bent(second, bend) * bend / np.log(2)
    np.testing.assert_allclose(probabilities(logits)[:, 0], chances[:, 0], atol=2e-3)
    far = bent(np.array([[-1e3, 1.0], [1.0, 5.0]]), 64.0)
    assert np.isfinite(far).all()
