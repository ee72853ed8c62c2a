"""What rows, pairs and groups do to the fit of an estimator."""

import numpy as np
import pytest
from scipy import sparse

from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
)
from cvxnn.training import SideConstraint

RNG = np.random.RandomState(0)
X = RNG.randn(40, 4)
CLASSES = (X[:, 0] * X[:, 1] > 0).astype(int)


def refitted(certificate, k, part=1.0):
    """Predictions of all rows by a program whose row k lost a part of its share, in closed form."""
    program = certificate.program
    mask, rows = np.asarray(program.operator.mask), np.asarray(program.operator.X)
    F = (mask[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    share = np.broadcast_to(program.share, (len(rows), 1)).copy()
    share[k] *= 1 - part
    z = np.linalg.solve(
        F.T @ (share * F) + float(np.ravel(program.alpha)[0]) * np.eye(F.shape[1]),
        F.T @ (share * program.y),
    )
    return F @ z


def test_regression_in_units_of_the_targets():
    y = 100 + 10 * X[:, 0] + np.random.RandomState(1).randn(40)
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y)
    influence = model.influence(X, y)
    np.testing.assert_array_equal(influence.rows, np.arange(40))
    np.testing.assert_allclose(influence.seen[:, 0], model.predict(X), rtol=1e-9)
    changes = influence.on(X)
    assert changes.shape == (40, 40, 1)
    own = np.diagonal(changes[..., 0])
    np.testing.assert_allclose(influence.unseen - influence.seen, own[:, None], rtol=1e-6)
    certificate = model.certificate(X, y)
    # Distinct rows come in an order of their own; their targets are those of the data.
    scaled = np.asarray(certificate.program.y)[:, 0]
    place = np.abs(scaled[None] * y.std() + y.mean() - y[:, None]).argmin(axis=1)
    for k in (0, 17):
        exact = refitted(certificate, place[k])[place, 0] * y.std() + y.mean()
        np.testing.assert_allclose(influence.seen[:, 0] + changes[:, k, 0], exact, rtol=1e-7)
    np.testing.assert_allclose(
        influence.doubt, np.abs(y - influence.unseen[:, 0]) / y.std(), rtol=1e-6
    )


def test_weights_and_repeated_rows():
    y = X[:, 0]
    weight = np.ones(40)
    weight[3], weight[4] = 2, 0
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y, weight)
    influence = model.influence(X, y, weight)
    np.testing.assert_array_equal(influence.rows, np.delete(np.arange(40), 4))
    twice = np.r_[np.arange(40), 3]
    one = np.ones(41)
    one[4] = 0
    repeated = model.influence(X[twice], y[twice], one)
    # Of two equal rows one goes, and the other stays.
    whole, half = influence.on(X)[:, 3], repeated.on(X)[:, 3]
    np.testing.assert_allclose(half, repeated.on(X)[:, -1])
    assert np.abs(half).sum() < np.abs(whole).sum()


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_turned_labels_are_doubted(loss):
    X = np.random.RandomState(1).randn(200, 2)
    y = np.where(X[:, 0] > 0, "yes", "no")
    turned = np.flatnonzero(np.abs(X[:, 0]) > 1)[:5]
    y[turned] = np.where(y[turned] == "yes", "no", "yes")
    model = ConvexReLUClassifier(
        formulation="gated",
        penalty="l2",
        loss=loss,
        n_patterns=8,
        feature_factors="equal",
        random_state=0,
    ).fit(X, y)
    influence = model.influence(X, y)
    assert set(turned) == set(np.argsort(-influence.doubt)[:5])
    assert influence.error.max() < 0.01 * np.abs(influence.unseen - influence.seen).max()
    own = np.diagonal(influence.error_on(X)[..., 0])
    np.testing.assert_allclose(own, influence.error[:, 0], rtol=1e-6)


def test_several_classes():
    y = np.digitize(X[:, 0], [-0.5, 0.5])
    model = ConvexReLUClassifier(n_patterns=8, random_state=0).fit(X, y)
    influence = model.influence(X, y)
    assert influence.unseen.shape == (40, 3)
    np.testing.assert_allclose(influence.seen, model.network_.forward(X), atol=1e-9)
    wrong = influence.unseen.argmax(axis=1) != y
    np.testing.assert_array_equal(influence.doubt > 0, wrong)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.RandomState(2)
    chosen, rejected = rng.randn(30, 6) + 0.4, rng.randn(30, 6)
    groups = np.repeat(np.arange(10), 3)
    head = COALAPreferenceHead(n_patterns=16, random_state=0)
    head.fit_pairs(chosen, rejected, groups=groups)
    data = np.concatenate([chosen, rejected]), np.repeat([1, 0], 30)
    return head, data, np.tile(groups, 2)


def test_pairs_of_a_head(pairs):
    head, data, groups = pairs
    influence = head.influence(*data, groups=groups)
    np.testing.assert_array_equal(influence.rows, np.arange(60).reshape(2, 30).T)
    scores = head.phase1_network_.forward(data[0])[:, 0]
    np.testing.assert_allclose(influence.seen[:, 0], scores[:30] - scores[30:], atol=1e-9)
    changes = influence.on(data[0])[..., 0]
    own = np.diagonal(changes[:30] - changes[30:])
    np.testing.assert_allclose((influence.unseen - influence.seen)[:, 0], own, atol=1e-9)
    np.testing.assert_allclose(influence.doubt, -influence.unseen[:, 0])


def test_groups_of_pairs(pairs):
    head, data, groups = pairs
    influence = head.influence(*data, groups=groups, leave_out="group")
    assert influence.n_units == 10
    np.testing.assert_array_equal(influence.unit, groups[:30])
    changes = influence.on(data[0])[..., 0]
    moved = changes[:30] - changes[30:]
    own = moved[np.arange(30), influence.unit]
    np.testing.assert_allclose((influence.unseen - influence.seen)[:, 0], own, atol=1e-9)


@pytest.mark.slow
def test_bad_requests(pairs):
    head, data, groups = pairs
    with pytest.raises(ValueError, match="leave_out='pair'; expected 'row' or 'group'"):
        head.influence(*data, groups=groups, leave_out="pair")
    with pytest.raises(ValueError, match="not those of the fit"):
        head.influence(data[0] ** 2, data[1], groups=groups)
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="leave_out='group' needs groups"):
        model.influence(X, X[:, 0], leave_out="group")
    relu = ConvexReLURegressor(formulation="relu", n_patterns=8, random_state=0).fit(X, X[:, 0])
    with pytest.raises(TypeError, match="formulation='gated' with penalty='l2'"):
        relu.influence(X, X[:, 0])
    smooth = ConvexReLUClassifier(
        formulation="gated", penalty="l2", loss="multinomial", n_patterns=8, random_state=0
    ).fit(X, np.digitize(X[:, 0], [-0.5, 0.5]))
    with pytest.raises(TypeError, match="couples the outputs"):
        smooth.influence(X, np.digitize(X[:, 0], [-0.5, 0.5]))


def test_of_a_cross_validated_estimator():
    y = X[:, 0]
    base = ConvexReLURegressor(n_patterns=8, random_state=0)
    model = ConvexReLURegressorCV(base, strengths=[0.1, 0.01], cv=2).fit(X, y)
    influence = model.influence(X, y)
    np.testing.assert_allclose(influence.seen[:, 0], model.predict(X), atol=1e-9)


@pytest.mark.parametrize("moved", ["shift of y", "scale of y", "shift of X", "scale of X"])
def test_data_in_other_units_are_refused(moved):
    """Scaled, they are those of the fit: only the units tell them apart."""
    y = X[:, 0] + 0.1 * RNG.randn(40)
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y)
    rows, targets = {
        "shift of y": (X, y + 1),
        "scale of y": (X, 2 * y),
        "shift of X": (X + 1, y),
        "scale of X": (X * [1, 2, 1, 1], y),
    }[moved]
    constraint = SideConstraint.uncorrelated(rows, X[:, 1])
    for ask in (model.influence, lambda *data: model.constrained(*data, [constraint])):
        with pytest.raises(ValueError, match="not those of the fit"):
            ask(rows, targets)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_the_own_data_are_in_the_own_units(size, dtype):
    rows = (size * X * [1, 100, 1e4, 1] + size * 1e3).astype(dtype)
    y = (1 + 1e-3 * X[:, 0]).astype(dtype)
    ConvexReLURegressor(n_patterns=8, random_state=0).fit(rows, y).influence(rows, y)
    ConvexReLUClassifier(n_patterns=8, random_state=0).fit(rows, CLASSES).influence(rows, CLASSES)


def test_sparse_and_dense_rows_are_asked_alike():
    rows = sparse.csr_array(X * (RNG.rand(40, 4) < 0.5))
    for given, other in ((rows, rows.toarray()), (rows.toarray(), rows)):
        model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(given, X[:, 0])
        influence = model.influence(given, X[:, 0])
        np.testing.assert_allclose(influence.on(other), influence.on(given), atol=1e-9)
        np.testing.assert_allclose(influence.error_on(other), influence.error_on(given), atol=1e-9)


def test_later_fits_leave_what_was_asked_as_it_was():
    rng = np.random.RandomState(0)
    X, y = rng.randn(60, 3), rng.randn(60)
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y)
    influence, curvature = model.influence(X, y), model.curvature(X, y)
    scores, deviations = influence.scores_on(X[:5]), curvature.deviation_on(X[:5])
    decided = curvature.decided(X[:5], X[5:10])
    model.fit(5 * X + 1, 10 * y)
    np.testing.assert_array_equal(influence.scores_on(X[:5]), scores)
    np.testing.assert_array_equal(curvature.deviation_on(X[:5]), deviations)
    np.testing.assert_array_equal(curvature.decided(X[:5], X[5:10]), decided)


def test_deviations_are_in_units_of_the_noise():
    rng = np.random.RandomState(0)
    X, y = rng.randn(60, 3), rng.randn(60)
    one, other = (
        ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, t).curvature(X, t)
        for t in (y, 100 * y)
    )
    np.testing.assert_allclose(one.deviation_on(X), other.deviation_on(X), rtol=1e-6)


def test_sparse_rows_are_asked_like_dense_ones():
    rng = np.random.RandomState(0)
    X, y = rng.randn(60, 3) * (rng.rand(60, 3) < 0.5), rng.randn(60)
    settings = {"n_patterns": 8, "random_state": 0, "fit_intercept": False, "standardize": False}
    model = ConvexReLURegressor(**settings).fit(X, y)
    rows = sparse.csr_array(X)
    np.testing.assert_array_equal(
        model.next_labels(X, y, rows, 3).order, model.next_labels(X, y, X, 3).order
    )
    curvature = model.curvature(X, y)
    np.testing.assert_allclose(curvature.deviation_on(rows), curvature.deviation_on(X))


def test_early_stopping_is_no_reason_to_refuse_the_data():
    rng = np.random.RandomState(4)
    X = rng.randn(60, 2)
    y = (X[:, 0] + rng.randn(60) > 0).astype(int)
    model = ConvexReLUClassifier(
        loss="logistic", patterns="data", n_patterns=4, early_stopping=True, random_state=4
    ).fit(X, y)
    assert np.isfinite(model.influence(X, y).doubt).all()
