"""Estimators and heads under side constraints on their predictions."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import cvxnn
from cvxnn import COALAPreferenceHead, ConvexReLURegressor
from cvxnn.training import SideConstraint

RNG = np.random.RandomState(0)
X = RNG.randn(40, 4)
Y = 100 + 10 * (X[:, 0] + 0.3 * RNG.randn(40))


@pytest.fixture(scope="module")
def model():
    return ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, Y)


def test_predictions_satisfy_the_constraints(model):
    groups = X[:, 1] > 0
    asked = [
        SideConstraint.uncorrelated(X, X[:, 0]),
        SideConstraint.equal_means(X, groups),
        SideConstraint(X[:1], np.ones(1), 95.0, equal=False),
    ]
    found = model.constrained(X, Y, asked)
    predictions = found.predict(X)
    assert abs(np.corrcoef(predictions, X[:, 0])[0, 1]) < 1e-6
    assert predictions[groups].mean() == pytest.approx(predictions[~groups].mean(), abs=1e-6)
    assert predictions[0] <= 95 + 1e-6
    assert found.prices_.shape == (3, 1)
    assert found.objective_ > model.objective_
    assert 0 <= found.gap_ < 1e-6
    np.testing.assert_array_equal(model.network_.forward(X)[:, 0], model.predict(X))
    assert np.corrcoef(model.predict(X), X[:, 0])[0, 1] > 0.5


def test_the_price_is_the_slope_of_the_objective(model):
    def objective(bound):
        return model.constrained(X, Y, [SideConstraint(X[:1], np.ones(1), bound)])

    low, high = objective(95.0), objective(95.1)
    scaled = (95.1 - 95.0) / Y.std()
    slope = (low.objective_ - high.objective_) / scaled
    assert slope == pytest.approx((low.prices_[0, 0] + high.prices_[0, 0]) / 2, rel=1e-6)


def test_a_constrained_fit_is_saved_and_has_no_certificate(model, tmp_path):
    found = model.constrained(X, Y, [SideConstraint.uncorrelated(X, X[:, 0])])
    cvxnn.save(found, tmp_path / "model")
    again = cvxnn.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X), found.predict(X))
    np.testing.assert_array_equal(again.prices_, found.prices_)
    for asked in (found, again):
        with pytest.raises(ValueError, match="this fit has side constraints"):
            asked.certificate(X, Y)


@pytest.mark.parametrize("paired", [True, False])
def test_rewards_that_do_not_follow_length(paired):
    rng = np.random.RandomState(1)
    length = rng.rand(60)
    rows = np.column_stack([length, rng.randn(60, 4)])
    chosen, rejected = rows[:30], rows[30:]
    swapped = chosen[:, 0] < rejected[:, 0]
    chosen, rejected = (
        np.where(swapped[:, None], b, a) for a, b in ((chosen, rejected), (rejected, chosen))
    )
    data, labels = np.concatenate([chosen, rejected]), np.repeat([1, 0], 30)
    head = COALAPreferenceHead(n_patterns=16, random_state=0)
    head = head.fit_pairs(chosen, rejected) if paired else head.fit(data, labels)
    longer = chosen[:, 0] - rejected[:, 0]
    asked = [SideConstraint.in_pairs(chosen, rejected, longer, equal=False)]
    found = head.constrained(data, labels, asked)

    def follows(model):
        logit = model.decision_function(data)
        return np.mean((logit[:30] - logit[30:]) * longer)

    assert follows(head) > 0.01
    assert abs(follows(found)) < 1e-9
    assert found.prices_[0, 0] > 0
    # An inequality that holds anyway leaves the head as it is, scale and all.
    free = head.constrained(data, labels, [SideConstraint(data, np.zeros(60), 1.0, equal=False)])
    np.testing.assert_allclose(free.reward(data), head.reward(data), rtol=1e-6)


def test_bad_constraints(model):
    with pytest.raises(ValueError, match="constraints is empty"):
        model.constrained(X, Y, [])
    with pytest.raises(TypeError, match="is a SideConstraint; expected a list"):
        model.constrained(X, Y, SideConstraint(X, np.ones(40)))
    with pytest.raises(TypeError, match="constraints hold a str"):
        model.constrained(X, Y, ["equal"])
    with pytest.raises(ValueError, match="bound='3'; expected a finite number"):
        model.constrained(X, Y, [SideConstraint(X, np.ones(40), "3")])
    with pytest.raises(ValueError, match=r"coefficients of shape \(2,\) for 40 rows"):
        model.constrained(X, Y, [SideConstraint(X, np.ones(2))])


def test_another_fit_forgets_the_prices():
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, Y)
    found = model.constrained(X, Y, [SideConstraint.uncorrelated(X, X[:, 0])])
    assert not hasattr(found.fit(X, Y), "prices_")


def test_predictions_rise_with_a_feature_where_they_are_asked_to():
    rng = np.random.RandomState(0)
    X = rng.randn(60, 3)
    y = X[:, 0] + X[:, 1] ** 2 + rng.randn(60)
    model = ConvexReLURegressor(random_state=0).fit(X, y)
    values = np.linspace(-2, 2, 9)
    rising = model.constrained(X, y, [SideConstraint.monotone(X, 1, values)])
    every = SideConstraint.monotone(X, 1, values).X
    steps = [np.diff(m.predict(every).reshape(60, 9), axis=1).min() for m in (model, rising)]
    assert steps[0] < -0.1
    assert steps[1] > -1e-4
    assert rising.objective_ > model.objective_
    assert abs(rising.gap_) < 1e-6
    assert rising.prices_.shape == (480, 1)


def test_constraints_on_sparse_rows_are_those_on_dense_ones():
    rng = np.random.RandomState(0)
    X = rng.randn(40, 4) * (rng.rand(40, 4) < 0.5)
    rows, y, values = sparse.csr_array(X), X[:, 0] + 0.1 * rng.randn(40), np.arange(40.0)
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(rows, y)
    fair = model.constrained(rows, y, [SideConstraint.uncorrelated(rows, values)])
    assert abs(np.corrcoef(fair.predict(rows), values)[0, 1]) < 1e-9
    other = model.constrained(rows, y, [SideConstraint.uncorrelated(X, values)])
    np.testing.assert_allclose(fair.predict(X), other.predict(X), atol=1e-9)


def test_a_data_frame_keeps_its_columns():
    rng = np.random.RandomState(0)
    X = pd.DataFrame(rng.randn(50, 3), columns=["a", "b", "c"])
    y = X["a"] + X["b"] ** 2 + rng.randn(50)
    model = ConvexReLURegressor(random_state=0).fit(X, y)
    by_name, by_number = (SideConstraint.monotone(X, k, [-1, 0, 1]) for k in ("b", 1))
    assert list(by_name.X.columns) == ["a", "b", "c"]
    one, other = (model.constrained(X, y, [c]) for c in (by_name, by_number))
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    turned = SideConstraint.monotone(X[["b", "a", "c"]], "b", [-1, 0, 1])
    with pytest.raises(ValueError, match="feature names"):
        model.constrained(X, y, [turned])
    for feature, values, said in (("d", [0, 1], "or its name"), ("a", [0, np.inf], "finite")):
        with pytest.raises(ValueError, match=said):
            SideConstraint.monotone(X, feature, values)
