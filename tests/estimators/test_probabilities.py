"""Probabilities of few rows: honest by the rule of succession, and those of a loss by any name."""

import warnings

import numpy as np
import pytest

from cvxnn import ConvexReLUClassifier, load, load_network, save
from cvxnn.convex import InteriorPoint, LogisticLoss
from cvxnn.estimators._calibration import limit_log_odds
from cvxnn.estimators._fit_plan import HeldOut, Plan
from cvxnn.numerics.scores import probabilities


@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("far", [1.0, 1e6])
def test_two_rows_give_three_quarters(far, loss):
    X = np.array([[0.0, 1.0, far], [1.0, 0.0, -far]])
    model = ConvexReLUClassifier(loss=loss, n_patterns=16, random_state=0)
    # Rows unlike these two may have any probability.
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
