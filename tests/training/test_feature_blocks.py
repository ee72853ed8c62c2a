"""Factors of blocks: their kernel against many gates, the choice against a grid."""

import numpy as np
import pytest

from cvxnn.convex import ConvexProgram, GatedOperator, SquaredL2, SquaredLoss
from cvxnn.training import block_factors
from cvxnn.training.feature_blocks import both_open, gated_kernel
from cvxnn.training.row_sample import Sample


def test_the_kernel_is_the_mean_over_many_gates() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((5, 3)), np.zeros((1, 3))])
    is_open = X @ rng.standard_normal((3, 200_000)) >= 0
    shared = (is_open.astype(float) @ is_open.T) / is_open.shape[1]
    found = gated_kernel(X @ X.T)
    np.testing.assert_allclose(found, 2 * X @ X.T * shared, atol=0.03)
    np.testing.assert_array_equal(found[-1], 0)


@pytest.mark.parametrize("useful", [True, False])
def test_a_context_is_used_where_it_lowers_the_error(useful: bool) -> None:
    rng = np.random.default_rng(2)
    X = rng.standard_normal((60, 5))
    y = X[:, :1] * (np.sign(X[:, 3:4]) if useful else 1) + 0.1 * rng.standard_normal((60, 1))
    operator = GatedOperator(X, np.zeros((60, 0), bool))
    program = ConvexProgram(operator, y, 0.0, SquaredLoss(), SquaredL2(), None, "gated")
    for widths in ([3], [1, 2]):
        factors = block_factors(Sample(program, None, None, 1.0), widths, n_context=2)
        assert factors[-1] == useful
        assert np.array(widths) @ factors[:-1] ** 2 == pytest.approx(3)
    np.testing.assert_array_equal(both_open(np.zeros((2, 2))), 1)


@pytest.mark.parametrize("groups", [None, np.arange(40) // 2])
def test_factors_are_better_than_their_neighbours(groups: np.ndarray | None) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 6)) / np.sqrt(6)
    y = np.abs(X[:, :1]) + 0.1 * rng.standard_normal((40, 1))
    operator = GatedOperator(X, np.zeros((40, 0), bool))
    program = ConvexProgram(operator, y, 0.0, SquaredLoss(), SquaredL2(), None, "gated")
    factors = block_factors(Sample(program, None, groups, 1.0), [2, 4])
    assert factors @ (np.array([2, 4]) * factors) == pytest.approx(6)

    def error(factors: np.ndarray) -> float:
        Z = X * np.repeat(factors, [2, 4])
        kernel, errors = gated_kernel(Z @ Z.T), []
        parts = [np.array([k]) for k in range(40)] if groups is None else None
        parts = parts or [np.flatnonzero(groups == g) for g in np.unique(groups)]
        for alpha in np.trace(kernel) / 40 * np.logspace(-6, 2, 31):
            total = 0.0
            for out in parts:
                kept = np.setdiff1d(np.arange(40), out)
                K = kernel[np.ix_(kept, kept)] + alpha * np.eye(len(kept))
                u = np.linalg.solve(K, y[kept])
                total += ((y[out] - kernel[np.ix_(out, kept)] @ u) ** 2).sum()
            errors.append(total / 40)
        return min(errors)

    here = error(factors)
    for other in (factors * [2, 1], factors * [0.5, 1], np.ones(2)):
        assert here <= error(other) * (1 + 2e-3)
