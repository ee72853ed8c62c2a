"""Intervals and sets from fits without each row, beside plain loops over refits."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.explanation import conformal, label_set, prediction_interval, preference_set

RNG = np.random.RandomState(0)
X = RNG.randn(41, 3)
NEW = RNG.randn(5, 3)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.93])
def test_intervals_are_those_of_the_jackknife_plus(level):
    noise = np.random.RandomState(1).randn(41)
    y = np.column_stack([X[:, 0] + 0.3 * noise, 10 * X[:, 1]])
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y)
    influence = model.influence(X, y)
    found = prediction_interval(influence, NEW, level)
    without, at_row = influence.scores_on(NEW), influence.scores_on(X)
    for k in range(5):
        for output in range(2):
            ends = []
            for i in range(41):
                error = abs(y[i, output] - at_row[i, i, output])
                ends.append((without[k, i, output] - error, without[k, i, output] + error))
            low = sorted(low for low, _ in ends)[int(np.floor((1 - level) * 42 + 1e-9)) - 1]
            high = sorted(high for _, high in ends)[int(np.ceil(level * 42 - 1e-9)) - 1]
            np.testing.assert_allclose(found[k, output], [low, high], rtol=1e-9)


def test_too_few_rows_for_a_level():
    y = X[:, 0]
    influence = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, y).influence(X, y)
    ends = prediction_interval(influence, NEW, 0.99)
    np.testing.assert_array_equal(ends, np.broadcast_to([-np.inf, np.inf], (5, 1, 2)))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_label_sets(n_classes):
    noise = np.random.RandomState(1).randn(41)
    y = np.digitize(X[:, 0] + 0.5 * noise, [0, 0.8][: n_classes - 1])
    model = ConvexReLUClassifier(n_patterns=8, random_state=0).fit(X, y)
    influence = model.influence(X, y)
    found = label_set(influence, NEW, 0.7)
    assert found.shape == (5, n_classes)
    scores = influence.scores_on(NEW)
    if n_classes == 2:
        scores = np.concatenate([-scores, scores], axis=2) / 2
    for k in range(5):
        for label in range(n_classes):
            others = np.delete(scores[k], label, axis=1).max(axis=1)
            doubt = others - scores[k, :, label]
            assert found[k, label] == (np.sum(doubt > influence.doubt) < 0.7 * 42)


def test_preference_sets_abstain_where_replies_are_alike():
    rng = np.random.RandomState(1)
    chosen, rejected = rng.randn(60, 4) + 0.7, rng.randn(60, 4)
    head = COALAPreferenceHead(n_patterns=16, random_state=0).fit_pairs(chosen, rejected)
    data = np.concatenate([chosen, rejected]), np.repeat([1, 0], 60)
    influence = head.influence(*data)
    first = np.array([np.full(4, 3.0), np.full(4, 0.3)])
    second = np.array([np.full(4, -3.0), np.full(4, 0.3)])
    found = preference_set(influence, first, second, 0.95)
    np.testing.assert_array_equal(found, [[True, False], [True, True]])
    turned = preference_set(influence, second, first, 0.95)
    np.testing.assert_array_equal(turned, found[:, ::-1])


def test_bad_requests():
    groups = np.arange(41) % 7
    model = ConvexReLURegressor(n_patterns=8, random_state=0).fit(X, X[:, 0], groups=groups)
    influence = model.influence(X, X[:, 0], groups=groups)
    with pytest.raises(ValueError, match=r"level=1\.0; expected a number above 0 and below 1"):
        prediction_interval(influence, NEW, 1.0)
    with pytest.raises(TypeError, match=r"label_set is for classes, .* use prediction_interval"):
        label_set(influence, NEW)
    with pytest.raises(TypeError, match="influence is a ConvexReLURegressor"):
        prediction_interval(model, NEW)
    with pytest.raises(ValueError, match="level='a'"):
        prediction_interval(influence, NEW, "a")
    assert repr(influence) == "Influence(kind='numbers', rows=41, n_units=41)"
    of_groups = model.influence(X, X[:, 0], groups=groups, leave_out="group")
    with pytest.raises(ValueError, match="influence of single rows or pairs"):
        prediction_interval(of_groups, NEW)


def test_gates_that_saw_targets_are_warned_of():
    rng = np.random.RandomState(0)
    X = rng.randn(40, 2)
    y = np.abs(X[:, 0]) + 0.1 * rng.randn(40)
    options = {"formulation": "gated", "n_patterns": 4, "random_state": 0}
    model = ConvexReLURegressor(patterns="local", **options).fit(X, y)
    with pytest.warns(UserWarning, match="the level is not proved"):
        prediction_interval(model.influence(X, y), X[:2])
    drawn = ConvexReLURegressor(patterns="gaussian", **options).fit(X, y)
    assert not drawn.influence(X, y).gates_of_targets


def test_replies_of_pairs_have_to_be_as_many():
    head = COALAPreferenceHead(n_patterns=4, strength=0.1, random_state=0)
    head.fit_pairs(X[:20] + 1, X[20:40])
    influence = head.influence(np.concatenate([X[:20] + 1, X[20:40]]), np.repeat([1, 0], 20))
    for second in (X[:1], X[:3]):  # one row would be compared with all
        with pytest.raises(ValueError, match="expected one of each for every pair"):
            preference_set(influence, X[:20], second)


@pytest.mark.parametrize("rows", [np.asarray, pd.DataFrame, sparse.csr_array, np.ndarray.tolist])
def test_blocks_of_rows_give_what_all_at_once_give(rows, monkeypatch):
    pairs = np.concatenate([X[:20] + 1, X[20:40]])
    head = COALAPreferenceHead(n_patterns=4, strength=0.1, random_state=0)
    head.fit_pairs(pairs[:20], pairs[20:])
    regressor = ConvexReLURegressor(n_patterns=4, random_state=0).fit(X, X[:, 0])
    classifier = ConvexReLUClassifier(n_patterns=4, random_state=0).fit(X, X[:, 0] > 0)
    of_pairs = head.influence(pairs, np.repeat([1, 0], 20))
    of_rows = regressor.influence(X, X[:, 0]), classifier.influence(X, X[:, 0] > 0)

    def answers():
        new = rows(NEW)
        yield prediction_interval(of_rows[0], new)
        yield prediction_interval(of_rows[0], new, 0.99)
        yield label_set(of_rows[1], new, 0.5)
        if rows is not sparse.csr_array:
            yield preference_set(of_pairs, new, rows(NEW[::-1].copy()), 0.5)

    expected = list(answers())
    monkeypatch.setattr(conformal, "_MOST_NUMBERS", 3 * 41)
    for found, known in zip(answers(), expected, strict=True):
        np.testing.assert_allclose(found, known, atol=1e-12)
