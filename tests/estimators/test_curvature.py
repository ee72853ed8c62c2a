"""How exact and how sure the predictions of estimators are."""

import numpy as np
import pytest

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, ConvexReLURegressor

RNG = np.random.RandomState(0)
X = RNG.randn(60, 4)
NEW = RNG.randn(12, 4)


def test_deviations_are_posterior_standard_deviations():
    """The same Gaussian model, in the features of the network's program."""
    y = 10 * X[:, 0] + RNG.randn(60)
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y)
    curvature = model.curvature(X, y)
    program = model.certificate(X, y).program
    rows, mask = np.asarray(program.operator.X), np.asarray(program.operator.mask)
    F = (mask[:, :, None] * rows[:, None, :]).reshape(60, -1)
    ridge = 60 * float(np.ravel(program.alpha)[0])
    inverse = np.linalg.inv(F.T @ F + ridge * np.eye(F.shape[1]))
    exact = np.sort(np.sqrt(np.einsum("nm,mk,nk->n", F, inverse, F)))
    np.testing.assert_allclose(np.sort(curvature.deviation_on(X)), exact, rtol=1e-6)
    assert curvature.deviation_on(100 * NEW).min() > curvature.deviation_on(NEW).max()
    assert curvature.error_on(NEW).max() < 1e-5
    assert curvature.decided(NEW[:6], NEW[6:]).all()


def test_deviations_among_replies():
    head = COALAPreferenceHead(n_patterns=8, random_state=0).fit_pairs(X[:30] + 0.3, X[30:])
    data = np.concatenate([X[:30] + 0.3, X[30:]]), np.repeat([1, 0], 30)
    curvature = head.curvature(*data)
    between = curvature.deviation_between(NEW[:1], NEW[1:2])
    # Of two replies, each is half of their difference away from the mean.
    np.testing.assert_allclose(curvature.deviation_among(NEW[:2]), np.repeat(between, 2) / 2)
    assert curvature.deviation_between(NEW[:1], NEW[:1])[0] == 0
    assert curvature.n == 30
    with pytest.raises(ValueError, match="as many of each"):
        curvature.decided(NEW[:2], NEW[:1])


def test_other_fits_are_refused():
    y = np.digitize(X[:, 0], [-0.5, 0.5])
    model = ConvexReLUClassifier(n_patterns=8, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="3 outputs"):
        model.curvature(X, y)
    model = ConvexReLUClassifier(n_patterns=8, loss="logistic", random_state=0).fit(X, y > 0)
    with pytest.raises(TypeError, match="loss='squared'"):
        model.curvature(X, y > 0)
