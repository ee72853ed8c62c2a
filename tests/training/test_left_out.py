"""Solutions without rows, beside refits of explicit features in float64."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cvxnn import training
from cvxnn.convex import (
    Certificate,
    ConvexProgram,
    GatedOperator,
    LogisticLoss,
    MultinomialLoss,
    NeuronGroupLasso,
    SquaredL2,
    SquaredLoss,
    Weights,
)


def features(X, mask):
    return (mask[:, :, None] * X[:, None, :]).reshape(len(X), -1)


def minimiser(F, y, share, alpha, loss):
    """Return weights (n_weights, n_outputs) that minimise the sum over rows, and the penalty."""
    if isinstance(loss, SquaredLoss):
        return np.stack(
            [
                np.linalg.solve(
                    F.T @ (share[:, None] * F) + a * np.eye(F.shape[1]), F.T @ (share * t)
                )
                for a, t in zip(np.broadcast_to(alpha, y.shape[1]), y.T, strict=True)
            ],
            axis=1,
        )

    def of_output(target):
        z = np.zeros(F.shape[1])

        def value(z):
            return share @ loss.value(F @ z, target) + alpha / 2 * z @ z

        for _ in range(100):
            slope = F.T @ (share * loss.gradient(F @ z, target)) + alpha * z
            curvature = share * loss.hessian(F @ z, target)
            step = np.linalg.solve(F.T @ (curvature[:, None] * F) + alpha * np.eye(len(z)), slope)
            while value(z - step) > value(z) + 1e-14:
                step /= 2
            z = z - step
        return z

    return np.stack([of_output(t) for t in y.T], axis=1)


def solved(rng, n, loss, *, alpha=1e-2, n_outputs=1, weights=None):
    d, P = 3, 4
    X = rng.randn(n, d)
    mask = X @ rng.randn(d, P) >= 0
    y = np.sign(rng.randn(n, n_outputs))
    program = ConvexProgram(GatedOperator(X, mask), y, alpha, loss, SquaredL2(), weights, "gated")
    share = np.broadcast_to(program.share, (n, 1))[:, 0]
    F = features(X, mask)
    z = minimiser(F, y, share, alpha, loss)
    blocks = z.T.reshape(n_outputs, 1, P, d)
    return Certificate(program, Weights(blocks, None), None), F, share, z


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 12), n_outputs=st.integers(1, 2))
def test_squared_loss_is_exact(seed, n, n_outputs):
    rng = np.random.RandomState(seed)
    alpha = 10.0 ** rng.uniform(-4, 0, n_outputs)
    certificate, F, share, z = solved(
        rng, n, SquaredLoss(), alpha=alpha, n_outputs=n_outputs, weights=rng.rand(n) + 0.1
    )
    y = certificate.program.y
    part = rng.choice([0.25, 1.0], n)
    left = training.leave_out(certificate, training.Units(np.arange(n), part))
    new = rng.randn(5, 3)
    mask = rng.rand(5, 4) > 0.5
    changes = left.changes(new, mask)
    for k in range(n):
        without = minimiser(F, y, share * (1 - part[k] * (np.arange(n) == k)), alpha, SquaredLoss())
        np.testing.assert_allclose(left.predictions[k], F[k] @ without, atol=1e-7)
        np.testing.assert_allclose(changes[:, k], features(new, mask) @ (without - z), atol=1e-7)
    assert left.distance.max() < 1e-5  # what rounding may hide, at alpha = 1e-4
    whole = training.leave_out(certificate, training.Units(np.arange(n), np.ones(n)))
    each = training.leave_each_out(certificate.program)
    np.testing.assert_allclose(each, whole.predictions, atol=1e-7)


@pytest.mark.parametrize("loss", [SquaredLoss(), LogisticLoss()])
def test_groups_are_left_out_as_wholes(loss):
    certificate, F, share, z = solved(np.random.RandomState(1), 12, loss)
    groups = np.arange(12) % 5
    left = training.leave_out(certificate, training.Units(np.arange(12), np.ones(12), groups))
    X, mask = certificate.program.operator.X, certificate.program.operator.mask
    changes, bounds = left.changes(X, mask), left.bounds(X, mask)
    for group in range(5):
        without = minimiser(F, certificate.program.y, share * (groups != group), 1e-2, loss)
        off = np.abs(changes[:, group] - F @ (without - z))
        assert np.all(off <= bounds[:, group] + 1e-9)
        own = groups == group
        np.testing.assert_allclose(left.predictions[own] - F[own] @ z, changes[own, group])
    assert bounds.max() < 1e-2 * np.abs(changes).max()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), exponent=st.floats(-4, 0))
# Features of ten rows that have rank six: coefficients grow until nothing is left but rounding.
@example(seed=16208, exponent=-4.0)
@pytest.mark.slow
def test_bounds_hold_for_the_logistic_loss(seed, exponent):
    rng, n, alpha = np.random.RandomState(seed), 10, 10.0**exponent
    certificate, F, share, z = solved(rng, n, LogisticLoss(), alpha=alpha)
    left = training.leave_out(certificate, training.Units(np.arange(n), np.ones(n)))
    for k in range(n):
        stays = share * (np.arange(n) != k)
        without = minimiser(F, certificate.program.y, stays, alpha, LogisticLoss())
        step = F.T @ left.steps[0, :, k]
        off = np.linalg.norm(z[:, 0] + step - without[:, 0])
        assert off <= left.distance[k, 0] * (1 + 1e-6) + 1e-7


def test_what_has_no_such_form_is_refused():
    certificate, *_ = solved(np.random.RandomState(0), 6, SquaredLoss())
    program = certificate.program
    units = training.Units(np.arange(6), np.ones(6))
    other = certificate._replace(
        program=ConvexProgram(
            program.operator, program.y, 1e-2, SquaredLoss(), NeuronGroupLasso(), None, "gated"
        )
    )
    with pytest.raises(TypeError, match="formulation='gated' with penalty='l2'"):
        training.leave_out(other, units)
    two = np.repeat(program.y, 2, axis=1)
    coupled = ConvexProgram(
        program.operator, two, 1e-2, MultinomialLoss(), SquaredL2(), None, "gated"
    )
    with pytest.raises(TypeError, match="couples the outputs"):
        training.leave_out(certificate._replace(program=coupled), units)


def test_what_sums_over_rows_cannot_leave_out_is_refused(monkeypatch):
    certificate, *_ = solved(np.random.RandomState(0), 8, LogisticLoss())
    with pytest.raises(TypeError, match="SquaredLoss, not with LogisticLoss"):
        training.leave_each_out(certificate.program)
    certificate, *_ = solved(np.random.RandomState(0), 8, SquaredLoss())
    monkeypatch.setattr("cvxnn.training.left_out_by_sums._MOST_WEIGHTS", 11)
    with pytest.raises(ValueError, match="4 patterns of 3 features are 12 weights"):
        training.leave_each_out(certificate.program)
