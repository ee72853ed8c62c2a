"""Probabilities of few rows: honest by the rule of succession, and those of a loss by any name."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn import ConvexReLUClassifier, ConvexReLUClassifierCV, load, load_network, save
from cvxnn.convex import HuberLoss, InteriorPoint, LogisticLoss
from cvxnn.estimators._calibration import limit_log_odds
from cvxnn.estimators._fit_plan import HeldOut, Plan
from cvxnn.numerics.scores import bent, probabilities, winner


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("far", [1.0, 1e6])
def test_two_rows_give_three_quarters(far, loss):
    X = np.array([[0.0, 1.0, far], [1.0, 0.0, -far]])
    model = ConvexReLUClassifier(loss=loss, n_patterns=16, random_state=0)
    with pytest.warns(UserWarning, match="was fitted to 2 rows, which cannot tell how sure"):
        model.fit(X, [0, 1])
    np.testing.assert_allclose(model.predict_proba(X), [[3 / 4, 1 / 4], [1 / 4, 3 / 4]], atol=0.01)


@pytest.mark.parametrize("n", [5, 9, 10])
def test_a_warning_where_rows_are_too_few_to_calibrate(n):
    X, y = np.random.default_rng(0).standard_normal((n, 3)), np.arange(n) % 2
    model = ConvexReLUClassifier(n_patterns=16, random_state=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
        model.fit(X[:2], y[:2], sample_weight=[n - 1, 1])  # repeated rows are units of data
    found = sum(f"fitted to {n} rows" in str(item.message) for item in caught)
    assert found == 2 * (n < 10)


def limited(counts, one_against_rest=True, groups=None, size=30.0):
    """Limit scores that are certain of classes of so many rows, in units of targets -1 and 1."""
    codes = np.repeat(np.arange(len(counts)), counts)
    truth = 2.0 * (codes[:, None] == np.arange(len(counts))) - 1
    truth = truth[:, 1:] if len(counts) == 2 else truth
    seen = HeldOut(size * truth, truth, np.ones(len(codes)))
    factor = limit_log_odds(seen, groups, one_against_rest=one_against_rest)
    scores = factor * seen.predictions
    scores = scores[:, 0] if len(counts) == 2 else scores
    proba = probabilities(scores, one_against_rest=one_against_rest)
    return factor, proba[np.arange(len(codes)), codes]


@pytest.mark.parametrize("one_against_rest", [True, False])
@pytest.mark.parametrize("counts", [(1, 1), (2, 3), (1, 4), (9, 40), (1, 1, 1), (2, 30, 1)])
def test_log_odds_of_few_rows_are_those_of_succession(counts, one_against_rest):
    factor, own = limited(counts, one_against_rest)
    n = sum(counts)
    assert 0 < factor < 1
    np.testing.assert_allclose(own, (n + 1) / (n + 2), rtol=1e-3)
    # What is less certain than that stays.
    assert limited(counts, one_against_rest, size=0.1)[0] == 1


@pytest.mark.parametrize("counts", [(10, 10), (10, 900), (10, 40, 10)])
def test_log_odds_of_many_rows_stay(counts):
    assert limited(counts)[0] == 1
    # Rows of one group are one unit; what differs between groups is what was not seen often.
    codes = np.repeat(np.arange(len(counts)), counts)
    assert limited(counts, groups=codes)[0] < 1
    assert limited(counts, groups=np.arange(len(codes)))[0] == 1


@pytest.mark.parametrize("n_classes", [2, 3])
def test_relu_networks_are_not_certain_of_noise(n_classes):
    """Ten rows a class are not few, and a norm holds the neurons that it keeps little back."""
    losses = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((10 * n_classes + 60, 5))
        y, seen = np.arange(len(X)) % n_classes, 10 * n_classes
        model = ConvexReLUClassifier(
            loss="logistic",
            formulation="relu",
            n_patterns=16,
            patterns="gaussian",
            solver=InteriorPoint(),
            random_state=0,
        )
        proba = model.fit(X[:seen], y[:seen]).predict_proba(X[seen:])
        losses.append(-np.log(proba[np.arange(60), y[seen:]]).mean())
        assert model.temperature_ < 0.9
    assert np.mean(losses) < 1.3 * np.log(n_classes)


def test_relu_networks_stay_certain_of_what_is_plain():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2))
    y = (X[:, 0] > 0).astype(int)
    model = ConvexReLUClassifier(
        loss="logistic",
        formulation="relu",
        n_patterns=8,
        patterns="gaussian",
        solver=InteriorPoint(),
        random_state=0,
    ).fit(X, y)
    assert model.temperature_ > 0.6


def test_losses_of_the_package_give_the_probabilities_of_their_names(tmp_path):
    X = np.random.default_rng(0).standard_normal((36, 2))
    y = np.argmax(np.column_stack([X, np.zeros(36)]), axis=1)
    options = {"strength": 0.03, "n_patterns": 8, "random_state": 0, "solver": InteriorPoint()}
    named, given = (
        ConvexReLUClassifier(loss=loss, **options).fit(X, y)
        for loss in ("logistic", LogisticLoss())
    )
    np.testing.assert_array_equal(given.predict_proba(X), named.predict_proba(X))
    save(given, tmp_path / "model.cvxnn")
    loaded = load(tmp_path / "model.cvxnn")
    assert loaded.loss == "logistic"
    np.testing.assert_array_equal(loaded.predict_proba(X), named.predict_proba(X))
    served = load_network(tmp_path / "model.cvxnn")
    np.testing.assert_allclose(served.predict_proba(X), named.predict_proba(X), rtol=1e-12)


def test_a_tiny_gap_of_rows_that_left_their_cones_says_no_more_than_a_negative_one(monkeypatch):
    """Which of the two a network has that beats all of its patterns depends on the proof alone."""
    known = []
    without = Plan.without_themselves
    monkeypatch.setattr(
        Plan, "without_themselves", lambda *given: known.append(given) or without(*given)
    )
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 4))
    y = np.argmax(X[:, :3] ** 2 + rng.standard_normal((90, 3)) / 4, axis=1)
    ConvexReLUClassifier(formulation="relu", random_state=0).fit(X, y)
    plan, fit = known[0]
    result = fit.training.result
    assert fit.training.program.evaluate(result.weights).violation > 0.01

    def unseen(gap):
        found = fit.training._replace(result=result._replace(gap=gap))
        return without(plan, fit._replace(training=found)).predictions

    np.testing.assert_array_equal(unseen(1e-6), unseen(-1e-6))


LOSSES = ["squared", "logistic", "multinomial", HuberLoss()]


@st.composite
def few_rows(draw):
    """Rows of two or three classes, at most one of which is not rare."""
    n_classes = draw(st.sampled_from([2, 3]))
    counts = [draw(st.integers(2, 9)) for _ in range(n_classes - 1)]
    counts.append(draw(st.sampled_from([3, 40])))
    y = np.repeat(np.arange(n_classes), counts)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.standard_normal((len(y), 3)) + y[:, None], y


@pytest.mark.parametrize("formulation", ["gated", "relu"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
@settings(max_examples=8)
@given(data=few_rows(), dtype=st.sampled_from([np.float32, np.float64]))
def test_no_row_is_surer_than_those_of_few_rows(loss, formulation, data, dtype):
    X, y = data
    X = X.astype(dtype)
    model = ConvexReLUClassifier(
        loss=loss,
        formulation=formulation,
        patterns="gaussian",
        n_patterns=8,
        max_iter=20,  # whatever network there is
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, y)
    own = model.predict_proba(X)
    np.testing.assert_allclose(model.probability_range_, [own.min(), own.max()], rtol=1e-5)
    towards = np.concatenate([X, -X, np.roll(X, 1, axis=1)])
    for distance in (2.0, 1e2, 1e4):
        far = (distance * towards).astype(dtype)
        found, labels = model.predict_proba(far), model.predict(far)
        slack = 1e-5 if dtype == np.float32 else 1e-9
        assert found.max() <= own.max() + slack
        assert found.min() >= own.min() * (1 - slack)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        logs, close = model.predict_log_proba(far), 1e-2 if dtype == np.float32 else 1e-7
        np.testing.assert_allclose(np.exp(logs), found, rtol=close)
        # The order of the classes stays: none overtakes that of the largest score.
        assert (found[np.arange(len(far)), labels] >= found.max(axis=1) - 1e-7).all()
    # What the class of rows is does not depend on how sure the model is.
    codes = winner(model.decision_function(far))
    np.testing.assert_array_equal(labels, model.classes_[codes])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial"])
def test_whatever_gives_probabilities_keeps_their_range(loss, n_classes, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(18) % n_classes
    X = rng.standard_normal((len(y), 3)) + y[:, None]
    options = {"loss": loss, "n_patterns": 8, "random_state": 0}
    model = ConvexReLUClassifier(**options).fit(X, y)
    far = 1e3 * X
    expected = model.predict_proba(far)
    assert expected.max() == pytest.approx(model.predict_proba(X).max())
    save(model, tmp_path / "model.cvxnn")
    np.testing.assert_array_equal(load(tmp_path / "model.cvxnn").predict_proba(far), expected)
    served = load_network(tmp_path / "model.cvxnn")
    np.testing.assert_allclose(served.predict_proba(far), expected, rtol=1e-10)
    chosen = ConvexReLUClassifierCV(ConvexReLUClassifier(**options), strengths=[1e-3], cv=2)
    chosen.fit(X, y)
    single = ConvexReLUClassifier(1e-3, **options).fit(X, y)
    np.testing.assert_array_equal(chosen.predict_proba(far), single.predict_proba(far))


@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_of_many_rows_have_no_range(n_classes, loss):
    rng = np.random.default_rng(0)
    y = np.arange(10 * n_classes) % n_classes
    X = rng.standard_normal((len(y), 3)) + y[:, None]
    model = ConvexReLUClassifier(loss=loss, n_patterns=8, random_state=0)
    model.fit(X, y)
    np.testing.assert_array_equal(model.probability_range_, [0, 1])
    far = np.concatenate([X, 1e3 * X])
    scores = bent(model.decision_function(far), model.bend_) * model.temperature_
    against = loss == "logistic"
    expected = probabilities(scores, one_against_rest=against)
    np.testing.assert_array_equal(model.predict_proba(far), expected)
    # One row less of a class: its probabilities are those of nine units.
    model.fit(X[1:], y[1:])
    assert 0 < model.probability_range_[0] < model.probability_range_[1] < 1
    model.fit(X, y, groups=np.arange(len(y)) // 6)  # five groups
    assert model.probability_range_[0] > 0


def test_rows_that_are_added_widen_the_range():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    X = rng.standard_normal((400, 3)) + 6 * y[:, None] - 3
    X[18:] *= 3  # other rows, of which the model is surer
    model = ConvexReLUClassifier(n_patterns=8, random_state=0).partial_fit(X[:18], y[:18])
    first = model.probability_range_
    model.partial_fit(X[18:], y[18:])
    found = model.predict_proba(X[18:])
    assert found.max() > first[1]
    np.testing.assert_allclose(model.probability_range_[1], max(first[1], found.max()))
    held = model.probability_range_
    model.forget(X[18:30], y[18:30])
    np.testing.assert_array_equal(model.probability_range_, held)
