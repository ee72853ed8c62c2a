"""Estimators that take rows in and forget them, beside fits without these rows."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLURegressor,
    load,
    save,
)
from cvxnn.training import SideConstraint

RNG = np.random.RandomState(0)
X = RNG.randn(120, 4)
Y = np.abs(X[:, 0]) + X[:, 1] + 0.1 * RNG.randn(120)
NEW = RNG.randn(30, 4)


def first(model, n=60, y=Y, **options):
    return model.partial_fit(X[:n], y[:n], **options)


def test_the_first_call_is_a_fit():
    model = first(ConvexReLURegressor(n_patterns=16, random_state=0))
    fit = ConvexReLURegressor(n_patterns=16, random_state=0).fit(X[:60], Y[:60])
    np.testing.assert_allclose(model.predict(NEW), fit.predict(NEW), rtol=1e-10)
    np.testing.assert_allclose(model.alpha_, fit.alpha_)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_forgetting_undoes_adding(dtype):
    data = X.astype(dtype)
    model = ConvexReLURegressor(n_patterns=16, random_state=0).partial_fit(data[:60], Y[:60])
    before = model.predict(NEW.astype(dtype))
    model.partial_fit(data[60:], Y[60:])
    assert model.n_samples_seen_ == 120
    assert np.abs(model.predict(NEW.astype(dtype)) - before).max() > 0.01
    removal = model.forget(data[60:][::-1], Y[60:][::-1])
    assert (removal.n_rows, removal.n_left, model.n_samples_seen_) == (60, 60, 60)
    tolerance = 1e-9 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(model.predict(NEW.astype(dtype)), before, atol=tolerance)
    assert removal.error_on(NEW.astype(dtype)).max() < 1e-9
    again = pickle.loads(pickle.dumps(removal))
    np.testing.assert_array_equal(again.error_on(NEW), removal.error_on(NEW))


def test_forgetting_is_what_influence_says():
    """Two ways to the fit without rows: sums, and the kernel of all rows."""
    model = first(ConvexReLURegressor(n_patterns=16, random_state=0), 120)
    without = model.influence(X, Y).scores_on(NEW)[:, :, 0]
    for k in (0, 50):
        left = copy.deepcopy(model)
        left.forget(X[[k]], Y[[k]])
        np.testing.assert_allclose(left.predict(NEW), without[:, k], atol=1e-9)


def test_the_certificate_is_that_of_the_present_rows():
    model = first(ConvexReLURegressor(n_patterns=16, random_state=0)).partial_fit(X[60:], Y[60:])
    certificate = model.certificate(X, Y)
    bound = float(certificate.program.bound_of(certificate.dual))
    np.testing.assert_allclose([model.dual_bound_, model.objective_], bound, rtol=1e-9)
    with pytest.raises(ValueError, match="not those of the fit"):
        model.certificate(X[:60], Y[:60])


def test_weights_and_several_outputs():
    y = np.column_stack([Y, X[:, 0] ** 2])
    weight = np.r_[np.ones(60), np.full(60, 2.0)]
    weight[70] = 0
    model = first(ConvexReLURegressor(n_patterns=16, random_state=0), y=y)
    twice = copy.deepcopy(model)
    model.partial_fit(X[60:], y[60:], sample_weight=weight[60:])
    kept = np.delete(np.arange(60, 120), 10)
    for _ in range(2):
        twice.partial_fit(X[kept], y[kept])
    np.testing.assert_allclose(model.predict(NEW), twice.predict(NEW), atol=1e-9)
    assert (model.n_samples_seen_, twice.n_samples_seen_) == (119, 178)


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_classes_that_come_later(loss):
    y = np.digitize(X[:, 0], [-0.7, 0.7])
    order = np.argsort(y == 2, kind="stable")  # the third class comes last
    rows, labels = X[order], np.array(["a", "b", "c"])[y[order]]
    n = int((labels != "c").sum())
    model = ConvexReLUClassifier(n_patterns=8, loss=loss, random_state=0)
    model.partial_fit(rows[:n], labels[:n], classes=["a", "b", "c"])
    assert set(model.predict(NEW)) <= {"a", "b"}
    if loss == "logistic":  # so many rows are too far for Newton's step
        with pytest.warns(ConvergenceWarning, match="fit all rows again"):
            model.partial_fit(rows[n:], labels[n:])
        assert model.gap_ == np.inf
        return
    model.partial_fit(rows[n:], labels[n:])
    assert model.score(rows, labels) > 0.8
    with pytest.raises(ValueError, match=r"labels \['d'\]"):
        model.partial_fit(rows[:1], ["d"])
    with pytest.raises(ValueError, match="not those of the first call"):
        model.partial_fit(rows[:1], ["a"], classes=["a", "b"])


def test_the_logistic_loss_is_certified():
    y = (Y > 1).astype(int)
    model = ConvexReLUClassifier(n_patterns=8, loss="logistic", strength=0.3, random_state=0)
    model.partial_fit(X, y)
    assert model.gap_ < 1e-9
    removal = model.forget(X[:2], y[:2])
    certificate = model.certificate(X[2:], y[2:])
    bound = float(certificate.program.bound_of(certificate.dual))
    assert model.dual_bound_ <= bound <= model.objective_
    assert 0 < removal.error_on(NEW).max() < 0.1


@pytest.fixture(scope="module")
def head():
    return COALAPreferenceHead(n_patterns=8, random_state=0).partial_fit_pairs(X[:50], X[50:100])


def test_pairs(head):
    whole = copy.deepcopy(head)
    whole.partial_fit_pairs(NEW[:10], NEW[10:20])
    assert (whole.n_samples_seen_, whole.n_pairs_) == (60, 60)
    assert not np.allclose(whole.decision_function(NEW), head.decision_function(NEW))
    removal = whole.forget_pairs(NEW[:10], NEW[10:20])
    np.testing.assert_allclose(whole.decision_function(NEW), head.decision_function(NEW), atol=1e-9)
    assert removal.n_rows == 10
    both = np.concatenate([X[:50], X[50:100]]), np.repeat([1, 0], 50)
    assert whole.certificate(*both).program.y.shape == (50, 1)
    with pytest.raises(ValueError, match="use partial_fit_pairs"):
        head.partial_fit(X, np.arange(120) % 2)


def test_responses_without_pairs():
    y = (Y > 0.5).astype(int)
    model = COALAPreferenceHead(n_patterns=8, random_state=0)
    before = first(model, y=y, classes=[0, 1]).decision_function(NEW)
    model.partial_fit(X[60:], y[60:])
    model.forget(X[60:], y[60:])
    np.testing.assert_allclose(model.decision_function(NEW), before, atol=1e-9)
    with pytest.raises(ValueError, match="use partial_fit and forget"):
        model.forget_pairs(X[:1], X[1:2])


def test_a_saved_estimator_goes_on(tmp_path):
    model = first(ConvexReLURegressor(n_patterns=16, random_state=0))
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    for estimator in (model, loaded):
        estimator.partial_fit(X[60:], Y[60:])
        estimator.forget(X[:5], Y[:5])
    np.testing.assert_allclose(loaded.predict(NEW), model.predict(NEW), rtol=1e-10)


def test_what_cannot_be_is_refused_and_changes_nothing(head):
    model = first(ConvexReLURegressor(n_patterns=16, random_state=0))
    before = {name: copy.copy(value) for name, value in vars(model).items()}
    with pytest.raises(ValueError, match="1 of 2 rows to forget"):
        model.forget(X[59:61], Y[59:61])
    with pytest.raises(ValueError, match="1 of 2 rows to forget"):
        model.forget(X[[0, 0]], Y[[0, 0]])
    with pytest.raises(ValueError, match="no row would stay"):
        model.forget(X[:60], Y[:60])
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(X[60:], np.full(60, np.nan))
    with pytest.raises(ValueError, match="y has 2 outputs"):
        model.partial_fit(X[60:], np.column_stack([Y, Y])[60:])
    assert vars(model).keys() == before.keys()
    np.testing.assert_array_equal(model._sums["gram"], before["_sums"]["gram"])
    whole = clone(model).fit(X, Y)
    with pytest.raises(ValueError, match="keeps no sums"):
        whole.forget(X, Y)
    with pytest.raises(ValueError, match="set n_patterns to at most"):
        ConvexReLURegressor(n_patterns=10**5).partial_fit(X, Y)
    with pytest.raises(ValueError, match="early_stopping=False"):
        ConvexReLURegressor(early_stopping=True).partial_fit(X, Y)
    with pytest.raises(ValueError, match="give a dict"):
        ConvexReLUClassifier(class_weight="balanced").partial_fit(X, Y > 0)
    relu = ConvexReLURegressor(formulation="relu")
    assert not hasattr(relu, "partial_fit")
    with pytest.raises(AttributeError, match="forget"):
        _ = relu.forget


def test_another_fit_keeps_no_sums():
    model = first(ConvexReLURegressor(n_patterns=16, random_state=0))
    model.fit(X, Y)
    assert not hasattr(model, "_sums")
    assert not hasattr(model, "n_samples_seen_")
    with pytest.warns(UserWarning, match="with the rows of this call alone"):
        first(model)
    assert model.n_samples_seen_ == 60


def test_automatic_patterns_are_few_enough(monkeypatch):
    monkeypatch.setattr("cvxnn.estimators._base.MOST_WEIGHTS", 64)
    model = first(ConvexReLURegressor(random_state=0))
    assert model.n_patterns_ == 64 // 5
    assert model.fit(X, Y).n_patterns_ > 64 // 5


@pytest.mark.filterwarnings("ignore:.*predicts the same for all rows:UserWarning")
def test_a_head_without_neurons_has_no_scale():
    replies, kinds = X[:20], np.tile(np.arange(20) % 2, 2)
    empty = COALAPreferenceHead(n_patterns=4, random_state=0)
    with pytest.raises(ValueError, match=r"no neurons .* whose embeddings differ"):
        empty.partial_fit_pairs(replies, replies)
    assert not hasattr(empty, "network_")
    data = np.concatenate([replies, replies]), np.repeat([1, 0], 20)
    empty.fit_pairs(replies, replies)
    same = SideConstraint.in_pairs(replies, X[20:40], Y[:20])
    for ask in (
        lambda: empty.constrained(*data, [same]),
        lambda: empty.trade_off(*data, kinds).at({0: 1, 1: 1}),
        lambda: empty.cautious(*data),
    ):
        with pytest.raises(ValueError, match=r"no neurons .* whose embeddings differ"):
            ask()
