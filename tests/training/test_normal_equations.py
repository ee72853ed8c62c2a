"""Normal equations to which rows are added and from which they go, beside refits of all rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn import training
from cvxnn.convex import (
    ConvexProgram,
    HuberLoss,
    LogisticLoss,
    NeuronGroupLasso,
    SquaredL2,
    SquaredLoss,
    paired,
)

D, P = 3, 4
GATES = np.random.RandomState(0).randn(D, P)


def program(X, y, weight, alpha=1.0, loss=None, pairs=None, penalty=None):
    operator = paired(X, X @ GATES >= 0, pairs)
    loss, penalty = loss or SquaredLoss(), penalty or SquaredL2()
    return ConvexProgram(operator, y, alpha, loss, penalty, weight, "gated")


def features(X, pairs=None):
    F = ((X @ GATES >= 0)[:, :, None] * X[:, None, :]).reshape(len(X), -1)
    return F if pairs is None else F[pairs[:, 0]] - F[pairs[:, 1]]


def optimum(F, y, weight, ridge, loss):
    """Minimise by Newton's method with halved steps, in plain NumPy."""
    z = np.zeros(F.shape[1])

    def value(z):
        return weight @ np.asarray(loss.value(F @ z, y)) + ridge / 2 * z @ z

    for _ in range(100):
        slope = F.T @ (weight * np.asarray(loss.gradient(F @ z, y))) + ridge * z
        curvature = weight * np.asarray(loss.hessian(F @ z, y))
        step = np.linalg.solve((F.T * curvature) @ F + ridge * np.eye(len(z)), slope)
        while value(z - step) > value(z) + 1e-14:
            step /= 2
        z = z - step
    return z, value(z)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_outputs=st.integers(1, 2),
    in_pairs=st.booleans(),
    exponent=st.floats(-3, 1),
)
def test_rows_that_come_and_go_leave_the_fit_to_those_that_stay(
    seed, n_outputs, in_pairs, exponent
):
    rng = np.random.RandomState(seed)
    n, ridge = 24, 10.0**exponent
    X = rng.randn(n, D)
    pairs = rng.permutation(n).reshape(-1, 2) if in_pairs else None
    m = n if pairs is None else len(pairs)
    y, weight = rng.randn(m, n_outputs), rng.rand(m) + 0.1
    parts = np.split(rng.permutation(m), [m // 3, 2 * m // 3])

    def part(rows):
        own = None if pairs is None else pairs[rows]
        X_own = X[rows] if pairs is None else X
        total = weight[rows].sum()
        return program(X_own, y[rows], weight[rows], ridge / total, pairs=own), total

    factors = training.KeptFactors()
    start = np.zeros((n_outputs, P, D))
    sums = training.NormalEquations.of(*part(parts[0]), start)
    found = factors.solve(sums)
    for rows, remove in ((parts[1], False), (parts[2], False), (parts[0], True)):
        sums = sums.changed(*part(rows), remove=remove)
        found = factors.solve(sums, found.blocks)
    stay = np.concatenate(parts[1:])
    F = features(X, pairs)[stay]
    for output in range(n_outputs):
        exact, _ = optimum(F, y[stay, output], weight[stay], ridge, SquaredLoss())
        off = np.linalg.norm(found.blocks[output].ravel() - exact)
        assert off < 1e-9
        assert found.distance[output] < 1e-9
    seen = F @ found.blocks.reshape(n_outputs, -1).T
    losses = weight[stay] @ (seen - y[stay]) ** 2 / 2 + ridge / 2 * (found.blocks**2).sum((1, 2))
    np.testing.assert_allclose(found.objective, losses.sum() / weight[stay].sum(), atol=1e-9)
    np.testing.assert_allclose(found.bound, found.objective, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    exponent=st.floats(0, 3),
    k=st.integers(1, 8),
    in_pairs=st.booleans(),
)
def test_the_step_of_the_logistic_loss_is_as_near_as_it_says(seed, exponent, k, in_pairs):
    """Rows, pairs and groups of them go; Newton's method on those that stay is the oracle."""
    rng = np.random.RandomState(seed)
    n, ridge, loss = 40, 10.0**exponent, LogisticLoss()
    X, weight = rng.randn(2 * n if in_pairs else n, D), rng.rand(n) + 0.5
    pairs = rng.permutation(2 * n).reshape(-1, 2) if in_pairs else None
    first = X if pairs is None else X[pairs[:, 0]]
    y = np.sign(rng.randn(n, 1) + first[:, :1])
    F = features(X, pairs)

    def part(rows, alpha=1.0):
        own = None if pairs is None else pairs[rows]
        return program(X[rows] if pairs is None else X, y[rows], weight[rows], alpha, loss, own)

    every, gone, left = slice(None), slice(None, k), slice(k, None)
    whole = part(every, ridge / weight.sum())
    sums = training.NormalEquations.of(whole, weight.sum(), np.zeros((1, P, D)))
    centre = training.KeptFactors().solve(sums)
    z, value = optimum(F, y[:, 0], weight, ridge, loss)
    np.testing.assert_allclose(centre.blocks.ravel(), z, atol=1e-6)
    np.testing.assert_allclose(centre.objective, value / weight.sum(), atol=1e-9)
    changed = sums.changed(part(gone), weight[gone].sum(), remove=True)
    found = training.KeptFactors().solve(changed)
    z, value = optimum(F[left], y[left, 0], weight[left], ridge, loss)
    off = np.linalg.norm(found.blocks.ravel() - z)
    assert off <= found.distance[0] + 1e-7
    assert found.bound <= value / weight[left].sum() + 1e-9
    z = found.blocks.ravel()
    losses = weight[left] @ loss.value(F[left] @ z, y[left, 0]) + ridge / 2 * z @ z
    assert losses / weight[left].sum() <= found.objective + 1e-9
    assert found.distance[0] < np.inf or exponent < 2.7 or k > 4


def test_a_factor_that_is_too_old_is_replaced():
    rng = np.random.RandomState(0)
    X, y = rng.randn(60, D), rng.randn(60, 1)
    factors = training.KeptFactors()
    few = program(1e-3 * X[:2], y[:2], None, 1e-8)
    sums = training.NormalEquations.of(few, 2.0, np.zeros((1, P, D)))
    found = factors.solve(sums)
    sums = sums.changed(program(X, y, None), 60.0)
    found = factors.solve(sums, found.blocks)
    F = np.concatenate([1e-3 * features(X[:2]), features(X)])
    exact, _ = optimum(F, np.r_[y[:2], y][:, 0], np.ones(62), 2e-8, SquaredLoss())
    np.testing.assert_allclose(F @ found.blocks.ravel(), F @ exact, atol=1e-8)


def test_other_programs_are_refused():
    rng = np.random.RandomState(0)
    X, y = rng.randn(6, D), rng.randn(6, 1)
    start = np.zeros((1, P, D))
    with pytest.raises(TypeError, match="not with HuberLoss"):
        training.NormalEquations.of(program(X, y, None, loss=HuberLoss()), 6.0, start)
    other = program(X, y, None, penalty=NeuronGroupLasso())
    with pytest.raises(TypeError, match="penalty='l2'"):
        training.NormalEquations.of(other, 6.0, start)
