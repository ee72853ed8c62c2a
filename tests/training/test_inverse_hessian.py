"""The inverse Hessian beside explicit features, and rankings that the gap decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn import training
from cvxnn.convex import (
    Certificate,
    ConvexProgram,
    DecidedRankings,
    LogisticLoss,
    NeuronGroupLasso,
    Ridge,
    SquaredL2,
    SquaredLoss,
    Status,
    Weights,
    paired,
    solve,
)

D, P = 3, 4
GATES = np.random.RandomState(0).randn(D, P)
PAIRS = np.array([[0, 1], [2, 3], [4, 0]])


def features(X, pairs=None):
    F = ((X @ GATES >= 0)[:, :, None] * X[:, None, :]).reshape(len(X), -1)
    return F if pairs is None else F[pairs[:, 0]] - F[pairs[:, 1]]


def program_of(X, y, alpha, pairs=None, loss=None, weight=None, penalty=None):
    operator = paired(X, X @ GATES >= 0, pairs)
    loss, penalty = loss or SquaredLoss(), penalty or SquaredL2()
    return ConvexProgram(operator, y, alpha, loss, penalty, weight, "gated")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    exponent=st.floats(-3, 0),
    in_pairs=st.booleans(),
    logistic=st.booleans(),
)
def test_products_with_the_inverse(seed, exponent, in_pairs, logistic):
    rng = np.random.RandomState(seed)
    alpha, X, new = 10.0**exponent, rng.randn(20, D), rng.randn(5, D)
    pairs = rng.permutation(20).reshape(-1, 2) if in_pairs else None
    F = features(X, pairs)
    y, weight = np.sign(rng.randn(len(F), 1)), rng.rand(len(F)) + 0.1
    loss = LogisticLoss() if logistic else SquaredLoss()
    z = rng.randn(F.shape[1])
    curvature = np.asarray(loss.hessian(F @ z, y[:, 0])) * weight / weight.sum()
    H = (F.T * curvature) @ F + alpha * np.eye(F.shape[1])
    program = program_of(X, y, alpha, pairs, loss, weight)
    weights = Weights(z.reshape(1, 1, P, D), None)
    inverse = training.InverseHessian.of(Certificate(program, weights, None))
    mask, G = new @ GATES >= 0, features(new)
    exact = G @ np.linalg.solve(H, G.T)
    np.testing.assert_allclose(inverse.covariance(new, mask), exact, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(inverse.variances(new, mask), np.diag(exact), rtol=1e-6)
    G = features(new, PAIRS)
    exact = np.einsum("nm,nm->n", G, np.linalg.solve(H, G.T).T)
    np.testing.assert_allclose(inverse.variances(new, mask, PAIRS), exact, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.floats(-3, 0))
def test_the_gap_bounds_predictions(seed, size):
    """Weights with a gap, made by moving the optimum, and the bounds that both norms give."""
    rng = np.random.RandomState(seed)
    alpha, X, new = 0.1, rng.randn(20, D), rng.randn(5, D)
    y = rng.randn(20, 1)
    program = program_of(X, y, alpha)
    F, G = features(X), features(new, PAIRS)
    z = np.linalg.solve(F.T @ F / 20 + alpha * np.eye(P * D), F.T @ y[:, 0] / 20)
    moved = z + 10.0**size * rng.randn(len(z))
    objective, optimum = (
        float(program.evaluate(Weights(v.reshape(1, 1, P, D), None)).objective) for v in (moved, z)
    )
    weights = Weights(moved.reshape(1, 1, P, D), None)
    row = {"objective": objective, "dual_bound": optimum}
    stop = DecidedRankings(program, paired(new, new @ GATES >= 0, PAIRS))
    stop(row, lambda: weights)
    off = np.abs(G @ (moved - z))
    assert np.all(off <= stop.errors + 1e-9)
    np.testing.assert_allclose(stop.margins, G @ moved, atol=1e-9)
    np.testing.assert_array_equal(stop.decided, np.abs(G @ moved) > stop.errors)
    assert np.all(np.sign(G @ moved)[stop.decided] == np.sign(G @ z)[stop.decided])
    inverse = training.InverseHessian.of(Certificate(program, weights, None))
    tight = np.sqrt(2 * (objective - optimum) * inverse.variances(new, new @ GATES >= 0, PAIRS))
    assert np.all(off <= tight + 1e-9)
    assert np.all(tight <= stop.errors + 1e-9)


def test_solving_stops_when_all_is_decided():
    rng = np.random.RandomState(0)
    X, new = rng.randn(200, D), rng.randn(40, D)
    program = program_of(X, np.abs(X[:, :1]), 1e-2)
    interest = paired(new, new @ GATES >= 0, np.arange(40).reshape(-1, 2))
    solver = Ridge(tol=1e-14, max_dense=1, rank=1)
    stop = DecidedRankings(program, interest, part=0.9)
    early, late = solve(program, solver, callback=stop), solve(program, solver)
    assert early.status is Status.STOPPED
    assert early.n_iter < late.n_iter
    exact = np.asarray(
        interest.compare(
            interest.gate(interest.scores(program.stack(late.weights))).sum(axis=(-1, -2))
        )
    ).ravel()
    assert np.all((np.sign(exact) == np.sign(stop.margins))[stop.decided])


def test_what_decides_nothing_is_refused():
    X = np.random.RandomState(0).randn(6, D)
    interest = paired(X, X @ GATES >= 0, PAIRS)
    with pytest.raises(TypeError, match="strongly convex"):
        DecidedRankings(program_of(X, X[:, :1], 0.1, penalty=NeuronGroupLasso()), interest)
    with pytest.raises(ValueError, match="2 outputs"):
        DecidedRankings(program_of(X, X[:, :2], 0.1), interest)
    with pytest.raises(ValueError, match="part=0"):
        DecidedRankings(program_of(X, X[:, :1], 0.1), interest, part=0)
