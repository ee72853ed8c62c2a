"""Solutions under side constraints, beside CVXPY on explicit features."""

import cvxpy as cp
import numpy as np
import pytest
from scipy import sparse

from cvxnn.convex import (
    Certificate,
    ConvexProgram,
    GatedOperator,
    LogisticLoss,
    SquaredL2,
    SquaredLoss,
    Weights,
)
from cvxnn.training import Functional, SideConstraint, constrain

N, D, P = 12, 3, 4
ALPHA = np.array([1e-2, 1e-1])


def features(X, mask):
    return (mask[:, :, None] * X[:, None, :]).reshape(len(X), -1)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.RandomState(0)
    X, gates = rng.randn(N, D), rng.randn(D, P)
    mask, y = X @ gates >= 0, rng.randn(N, 2)
    F = features(X, mask)
    z = [
        np.linalg.solve(F.T @ F / N + a * np.eye(D * P), F.T @ t / N)
        for a, t in zip(ALPHA, y.T, strict=True)
    ]
    program = ConvexProgram(
        GatedOperator(X, mask), y, ALPHA, SquaredLoss(), SquaredL2(), None, "gated"
    )
    weights = Weights(np.reshape(z, (2, 1, P, D)), None)
    rows = rng.randn(3, 6, D)
    functionals = [
        Functional(r, r @ gates >= 0, c, np.array(b), equal)
        for r, c, b, equal in zip(
            rows,
            rng.randn(3, 6),
            [[0.0, 0.1], [-1.0, -1.0], [5.0, 5.0]],
            [True, False, False],
            strict=True,
        )
    ]
    return Certificate(program, weights, None), functionals, F


def test_the_solution_is_that_of_cvxpy(problem):
    certificate, functionals, F = problem
    found = constrain(certificate, functionals)
    y = certificate.program.y
    total = 0.0
    for output in range(2):
        z = cp.Variable(D * P)
        asked = []
        for f in functionals:
            total_of_rows = (f.coefficients @ features(f.X, f.mask)) @ z
            bound = f.bounds[output]
            asked.append(total_of_rows == bound if f.equal else total_of_rows <= bound)
        objective = cp.sum_squares(F @ z - y[:, output]) / (2 * N)
        objective += ALPHA[output] / 2 * cp.sum_squares(z)
        reference = cp.Problem(cp.Minimize(objective), asked)
        reference.solve(solver=cp.CLARABEL)
        total += reference.value
        np.testing.assert_allclose(found.weights.blocks[output].ravel(), z.value, atol=1e-5)
        prices = [float(constraint.dual_value) for constraint in asked]
        np.testing.assert_allclose(found.prices[:, output], prices, atol=1e-5)
    assert found.objective == pytest.approx(total, rel=1e-6)
    assert found.dual_bound == pytest.approx(found.objective, rel=1e-9)
    assert found.dual_bound <= found.objective * (1 + 1e-12)


def test_a_bound_that_holds_has_no_price(problem):
    certificate, functionals, _ = problem
    found = constrain(certificate, [functionals[2]])
    np.testing.assert_array_equal(found.prices, 0)
    np.testing.assert_array_equal(found.weights.blocks, certificate.weights.blocks)


def test_bounds_hold_where_the_solution_was_not_exact(problem):
    certificate, functionals, _ = problem
    exact = constrain(certificate, functionals)
    blocks = certificate.weights.blocks + 1e-2
    found = constrain(certificate._replace(weights=Weights(blocks, None)), functionals)
    assert found.dual_bound <= exact.objective <= found.objective
    assert found.dual_bound < found.objective - 1e-6


def test_the_same_constraint_twice(problem):
    certificate, functionals, _ = problem
    once, twice = (constrain(certificate, functionals[:1] * k) for k in (1, 2))
    np.testing.assert_allclose(once.weights.blocks, twice.weights.blocks, atol=1e-6)
    np.testing.assert_allclose(once.prices[0], twice.prices.sum(axis=0), rtol=1e-5)


def test_a_constraint_its_opposite_and_one_that_is_their_sum(problem):
    certificate, functionals, _ = problem
    first, second = functionals[0], functionals[1]._replace(equal=True, bounds=np.zeros(2))
    opposite = first._replace(coefficients=-first.coefficients, bounds=-first.bounds)
    whole = first._replace(
        X=np.concatenate([first.X, second.X]),
        mask=np.concatenate([first.mask, second.mask]),
        coefficients=np.concatenate([first.coefficients, second.coefficients]),
        bounds=first.bounds + second.bounds,
    )
    plain = constrain(certificate, [first, second])
    for more in ([opposite], [whole], [opposite, whole]):
        found = constrain(certificate, [first, second, *more])
        np.testing.assert_allclose(found.weights.blocks, plain.weights.blocks, atol=1e-6)


def test_constraints_that_cannot_be_met(problem):
    certificate, functionals, _ = problem
    other = functionals[0]._replace(bounds=np.array([1.0, 1.0]))
    with pytest.raises(ValueError, match="cannot be met"):
        constrain(certificate, [functionals[0], other])
    closed = functionals[0]._replace(mask=np.zeros((6, P), bool), bounds=np.ones(2))
    with pytest.raises(ValueError, match="side constraint 0 cannot be met"):
        constrain(certificate, [closed])


def test_another_loss_is_refused(problem):
    certificate, functionals, _ = problem
    program = certificate.program
    other = ConvexProgram(
        program.operator, program.y, 1e-2, LogisticLoss(), SquaredL2(), None, "gated"
    )
    with pytest.raises(TypeError, match="LogisticLoss"):
        constrain(certificate._replace(program=other), functionals)


def test_what_constraints_ask_for():
    X, values = np.zeros((4, 1)), np.array([1.0, 2, 3, 6])
    predictions = np.array([0.0, 1, 0, 2])
    sum_of = SideConstraint.uncorrelated(X, values).coefficients @ predictions
    assert sum_of == pytest.approx(np.cov(values, predictions, ddof=0)[0, 1] / values.std())
    assert not SideConstraint.not_rising(X, values).equal
    means = SideConstraint.equal_means(X, ["a", "b", "b", "a"]).coefficients @ predictions
    assert means == pytest.approx(0.5 - 1)
    pairs = SideConstraint.in_pairs(X[:2], X[2:], values[:2] - values[2:])
    products = (values[:2] - values[2:]) * (predictions[:2] - predictions[2:])
    assert pairs.coefficients @ predictions == pytest.approx(products.mean() / np.sqrt(10))
    with pytest.raises(ValueError, match="are all 0"):
        SideConstraint.in_pairs(X[:2], X[2:], [0, 0])
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 rows"):
        SideConstraint.in_pairs(X[:2], X[2:], [0, 1, 2])
    with pytest.raises(ValueError, match="the same for all rows"):
        SideConstraint.uncorrelated(X, np.ones(4))
    with pytest.raises(ValueError, match="3 labels; expected two"):
        SideConstraint.equal_means(X, [1, 2, 3, 1])
    for labels in ([1, 2, np.nan, 1], ["a", "b", None, "a"], ["a", 1, "a", 1], None, [[1], [2]]):
        with pytest.raises(ValueError, match="groups has shape"):
            SideConstraint.equal_means(X, labels)
    with pytest.raises(ValueError, match="values are not numbers"):
        SideConstraint.uncorrelated(X, ["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="one row of each for every pair"):
        SideConstraint.in_pairs(X[:2], X[2:, :0], [0, 1])


def test_constraints_on_sparse_rows():
    X, values = sparse.csr_array(np.eye(4)), np.array([1.0, 2, 3, 6])
    dense = SideConstraint.uncorrelated(X.toarray(), values)
    np.testing.assert_array_equal(
        SideConstraint.uncorrelated(X, values).coefficients, dense.coefficients
    )
    pairs = SideConstraint.in_pairs(X[:2], X[2:], [1, 2])
    np.testing.assert_array_equal(pairs.X.toarray(), X.toarray())


@pytest.mark.parametrize("n_rows", [3, 40])  # all bounds at once, or the worst first
def test_many_bounds_are_those_of_cvxpy(problem, n_rows):
    certificate, _, F = problem
    rng = np.random.RandomState(1)
    gates = rng.randn(D, P)  # they need not be those of the fit
    constraint = SideConstraint.monotone(rng.randn(n_rows, D), 1, np.linspace(-1, 1, 6))
    mask = constraint.X @ gates >= 0
    m = 5 * n_rows
    bounds = np.zeros((m, 2))
    found = constrain(
        certificate, [Functional(constraint.X, mask, constraint.coefficients, bounds, False)]
    )
    assert found.prices.shape == (m, 2)
    sums = constraint.coefficients @ features(constraint.X, mask)
    assert (sums @ found.weights.blocks.reshape(2, -1).T).max() < 1e-5
    y = certificate.program.y
    total = 0.0
    for output in range(2):
        z = cp.Variable(D * P)
        objective = cp.sum_squares(F @ z - y[:, output]) / (2 * N)
        objective += ALPHA[output] / 2 * cp.sum_squares(z)
        total += cp.Problem(cp.Minimize(objective), [sums @ z <= 0]).solve(solver=cp.CLARABEL)
    assert found.objective == pytest.approx(total, rel=1e-5)
    assert found.dual_bound <= found.objective
    assert found.dual_bound == pytest.approx(total, rel=1e-5)
    assert (found.prices >= 0).all()


def test_monotone_bounds_compare_neighbouring_values():
    X = np.arange(6.0).reshape(2, 3)
    constraint = SideConstraint.monotone(X, 2, [0, 1, 5])
    predictions = constraint.X[:, 2] ** 2 + constraint.X[:, 0]
    np.testing.assert_allclose(constraint.coefficients @ predictions, [-1, -24, -1, -24])
    falling = SideConstraint.monotone(X, 2, [0, 1, 5], rising=False)
    np.testing.assert_allclose(falling.coefficients @ predictions, [1, 24, 1, 24])
    for feature, values, said in ((3, [0, 1], "number of a column"), (0, [1, 1], "that rise")):
        with pytest.raises(ValueError, match=said):
            SideConstraint.monotone(X, feature, values)
