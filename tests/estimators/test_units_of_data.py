"""The automatic choice where rows repeat, have weights, belong to groups, or are rare."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    LinearPreferenceHead,
)
from cvxnn.convex import InteriorPoint
from cvxnn.estimators import _rows
from cvxnn.estimators._responses import Responses
from cvxnn.estimators._rows import merge
from cvxnn.estimators._validation import split, split_groups
from cvxnn.numerics.stored_rows import StoredRows

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")


def grouped(n_groups: int = 30, size: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows close to the centre of their group, whose targets share a deviation."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(n_groups), size))
    X = rng.normal(size=(n_groups, 6))[groups] + 0.3 * rng.normal(size=(len(groups), 6))
    y = X[:, 0] + 1.5 * rng.normal(size=n_groups)[groups]
    return X, y + 0.3 * rng.normal(size=len(groups)), groups


@given(st.integers(0, 10**6), st.sampled_from([1, 40, 2**20]), st.booleans(), st.booleans())
def test_merged_rows_are_those_of_a_naive_loop(seed, block, weighted, stored):
    rng = np.random.RandomState(seed)
    n = rng.randint(1, 40)
    X = rng.choice([-1.0, -0.0, 0.0, 2.5], (n, 2)).astype(rng.choice([np.float32, np.float64]))
    y = rng.choice([-1.0, 1.0], (n, 1))
    weight = rng.randint(0, 3, n).astype(float) if weighted else np.ones(n)
    weight[rng.randint(n)] = 1.0
    with patch.object(_rows, "_BLOCK", block):
        rows = merge(StoredRows(X) if stored else X, y, weight)
    totals = {}
    for x, t, w in zip(X, y, weight, strict=True):
        totals[(*(x + 0.0), *t)] = totals.get((*(x + 0.0), *t), 0) + w
    found = [(*(x + 0.0), *t) for x, t in zip(rows.X, rows.y, strict=True)]
    assert dict(zip(found, rows.weight, strict=True)) == {k: w for k, w in totals.items() if w}
    assert len(found) == len(set(found))
    sizes = [np.array(key, ">f8").tobytes() for key in found]  # the order of widths is one
    assert sizes == sorted(sizes)
    kept = weight > 0
    assert np.array_equal(rows.X[rows.place[kept]], X[kept])
    assert (rows.place[~kept] == -1).all()


def test_probabilities_of_categories_are_their_frequencies():
    rng = np.random.default_rng(0)
    category = rng.integers(0, 5, 1000)
    y = rng.random(1000) < np.array([0.05, 0.2, 0.5, 0.7, 0.95])[category]
    model = ConvexReLUClassifier(random_state=0).fit(np.eye(5)[category], y)
    frequencies = [y[category == k].mean() for k in range(5)]
    np.testing.assert_allclose(model.predict_proba(np.eye(5))[:, 1], frequencies, atol=0.06)


def test_binary_features_are_used():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (1000, 3)).astype(float)
    y = rng.random(1000) < 1 / (1 + np.exp(-(X @ [1.5, -1.0, 0.5] - 0.3)))
    model = ConvexReLUClassifier(random_state=0).fit(X[:500], y[:500])
    rival = LogisticRegression().fit(X[:500], y[:500])
    assert model.score(X[500:], y[500:]) > rival.score(X[500:], y[500:]) - 0.02
    lost, least = (log_loss(y[500:], each.predict_proba(X[500:])) for each in (model, rival))
    assert lost < least + 0.02


def test_noisy_digits_of_seven_lamps():
    """Logistic regression is the right model; the strength of least squared error is too small."""
    rng = np.random.default_rng(0)
    codes = "1110111 0010010 1011101 1011011 0111010 1101011 1101111 1010010 1111111 1111011"
    lamps = np.array([list(map(int, code)) for code in codes.split()])
    y = rng.integers(0, 10, 3375)
    X = (lamps[y] ^ (rng.random((3375, 7)) < 0.1)).astype(float)
    model = ConvexReLUClassifier(random_state=0).fit(X[:375], y[:375])
    rival = LogisticRegression().fit(X[:375], y[:375])
    assert model.score(X[375:], y[375:]) > rival.score(X[375:], y[375:]) - 0.01


@pytest.mark.slow
def test_the_choice_for_a_rare_class_does_not_depend_on_the_seed():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 10))
    y = X[:, 0] + X[:, 1] + rng.normal(size=1500) > 4.0
    assert 4 < y.sum() < 40
    found = [ConvexReLUClassifier(random_state=seed).fit(X, y).strength_ for seed in range(3)]
    assert max(found) < 10 * min(found)


def test_units_are_repetitions_and_counts_but_not_class_weights():
    X, y = np.array([[1.0], [2.0], [1.0]]), np.array([[0.0], [1.0], [0.0]])
    rows = merge(X, y, np.array([1.0, 1.0, 2.0]))
    np.testing.assert_array_equal(np.sort(rows.units), [1, 3])
    for weight in ([1.0, 0.5, 2.0], [1e12, 1.0, 1.0]):  # no counts
        rows = merge(X, y, np.array(weight))
        np.testing.assert_array_equal(np.sort(rows.units), [1, 2])
    weighted = ConvexReLUClassifier(class_weight={0: 9, 1: 3})
    rows = weighted._merge(X, 2 * y - 1, np.ones(3), np.array([0, 1]))
    np.testing.assert_array_equal(np.sort(rows.units), [1, 2])
    np.testing.assert_array_equal(np.sort(rows.weight), [3, 18])
    rows = merge(X, y, np.ones(3), groups=np.array([0, 0, 1]))
    assert len(rows.X) == 3  # equal rows of two groups


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [ConvexReLUClassifier, ConvexReLURegressor])
def test_groups_are_left_out_as_wholes(estimator):
    X, y, groups = grouped()
    y = y > 0 if estimator is ConvexReLUClassifier else y
    rows = estimator(random_state=0).fit(X, y)
    whole = estimator(random_state=0).fit(X, y, groups=groups)
    assert whole.strength_ > 100 * rows.strength_  # deviations of groups are noise
    named = estimator(random_state=0).fit(X, y, groups=[f"patient {g}" for g in groups])
    assert named.strength_ == whole.strength_
    alone = estimator(random_state=0).fit(X, y, groups=np.arange(len(y)))
    assert alone.strength_ == pytest.approx(rows.strength_)


def test_groups_that_cannot_be_left_out_are_refused():
    X, y, groups = grouped()
    model = ConvexReLURegressor(random_state=0)
    with pytest.raises(ValueError, match="one group only, 7"):
        model.fit(X, y, groups=np.full(len(y), 7))
    with pytest.raises(ValueError, match=r"groups has shape \(3,\); expected \(360,\)"):
        model.fit(X, y, groups=groups[:3])


def test_groups_reach_the_estimator_through_pipelines_and_searches():
    X, y, groups = grouped()
    direct = ConvexReLURegressor(random_state=0).fit(
        StandardScaler().fit_transform(X), y, groups=groups
    )
    with sklearn.config_context(enable_metadata_routing=True):
        model = ConvexReLURegressor(random_state=0).set_fit_request(groups=True)
        pipeline = make_pipeline(StandardScaler(), model).fit(X, y, groups=groups)
        assert pipeline[-1].strength_ == direct.strength_
        scores = cross_val_score(model, X, y, cv=GroupKFold(3), params={"groups": groups})
    assert np.isfinite(scores).all()


def test_a_number_of_folds_splits_no_group():
    X, y, groups = grouped()
    y = y > 0
    held = ConvexReLUClassifier(n_patterns=16, random_state=0)
    strengths = [1e-1, 1e-5]
    rows = ConvexReLUClassifierCV(held, strengths=strengths, cv=3).fit(X, y)
    whole = ConvexReLUClassifierCV(held, strengths=strengths, cv=3).fit(X, y, groups=groups)
    # Rows of a group give each other away; whole groups do not.
    assert whole.cv_scores_[:, 1].mean() < rows.cv_scores_[:, 1].mean() - 0.05


# Validation ------------------------------------------------------------------------------------


def noisy(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of which nine in ten have targets of pure noise, and next to no weight."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 4))
    good = np.arange(n) % 10 == 0
    y = np.where(good, np.abs(X[:, 0]), 5 * rng.normal(size=n))
    return X, y, np.where(good, 1.0, 1e-6)


@pytest.mark.slow
def test_early_stopping_looks_at_rows_by_their_weight():
    X, y, weight = noisy(1200)
    unseen = np.random.default_rng(2).normal(size=(500, 4))
    model = ConvexReLURegressor(early_stopping=True, validation_fraction=0.3, random_state=0)
    model.fit(X, y, sample_weight=weight)
    assert model.score(unseen, np.abs(unseen[:, 0])) > 0.8


@pytest.mark.parametrize("estimator", [ConvexReLUClassifier, ConvexReLURegressor])
def test_weights_of_validation_rows_equal_their_repetition(estimator):
    X, y, _ = noisy(200)
    y = y > 0 if estimator is ConvexReLUClassifier else y
    times = np.random.default_rng(0).integers(0, 4, 80)
    model = estimator(n_patterns=32, random_state=0)
    given = model.fit(X[:120], y[:120], None, X[120:], y[120:], sample_weight_val=times)
    scores = given.validation_scores_
    repeated = np.repeat(X[120:], times, axis=0), np.repeat(y[120:], times)
    again = model.fit(X[:120], y[:120], None, *repeated)
    np.testing.assert_allclose(again.validation_scores_, scores, atol=1e-12)
    alike = model.fit(X[:120], y[:120], None, X[120:], y[120:])
    assert not np.allclose(alike.validation_scores_, scores)
    with pytest.raises(ValueError, match="sample_weight_val weights rows of X_val"):
        model.fit(X, y, sample_weight_val=times)
    with pytest.raises(ValueError, match=r"sample_weight_val has shape \(3,\)"):
        model.fit(X, y, None, X[120:], y[120:], sample_weight_val=times[:3])


def test_early_stopping_sets_whole_groups_apart():
    groups = np.random.default_rng(0).integers(0, 20, 300)
    labels = groups % 3
    rng = np.random.RandomState(0)
    kept, apart = split_groups(groups, 0.2, labels, rng)
    assert sorted([*kept, *apart]) == list(range(300))
    assert not set(groups[kept]) & set(groups[apart])
    assert set(labels[kept]) == {0, 1, 2}
    with pytest.raises(ValueError, match="no groups to set apart"):
        split_groups(np.array([0, 0, 1, 1]), 0.5, np.array([0, 0, 1, 1]), rng)
    X, y, groups = grouped()
    model = ConvexReLURegressor(early_stopping=True, random_state=0)
    assert np.isfinite(model.fit(X, y, groups=groups).validation_scores_).all()


# Preference heads ------------------------------------------------------------------------------


def conversations(n: int = 24, size: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of which one direction tells preferences, and many others tell conversations."""
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(n), size))
    topic = rng.normal(size=(n, 20))
    won = topic[groups] + 0.3 * rng.normal(size=(len(groups), 20))
    lost = -topic[groups] + 0.3 * rng.normal(size=(len(groups), 20))
    won[:, 0] += 0.5
    return won, lost, groups


@pytest.mark.parametrize("paired", [True, False])
def test_folds_of_responses_split_no_group(paired):
    won, lost, groups = conversations()
    rows = Responses.of_pairs(won, lost, np.ones(len(won)), groups)
    rows = rows if paired else rows._replace(pairs=None, pair_weight=None)
    for seen, unseen in rows.folds(4):
        assert rows.groups is not None
        assert not set(rows.groups[seen]) & set(rows.groups[unseen])
        assert len(seen) + len(unseen) == len(rows.X)
    with pytest.raises(ValueError, match="n_folds=25"):
        rows.folds(25)


@pytest.mark.slow
@pytest.mark.parametrize("head", [COALAPreferenceHead, LinearPreferenceHead])
def test_heads_choose_by_groups(head):
    won, lost, groups = conversations()
    alone = head(random_state=0).fit_pairs(won, lost)
    whole = head(random_state=0).fit_pairs(won, lost, groups=groups)
    if head is COALAPreferenceHead:
        assert whole.strength_ > alone.strength_  # what tells conversations is noise
        X, y = np.concatenate([won, lost]), np.repeat([1, 0], len(won))
        found = whole.certificate(X, y, groups=np.tile(groups, 2))
        bound = float(found.program.bound_of(found.dual))
        assert bound == pytest.approx(whole.dual_bound_, rel=1e-9)
    else:
        assert whole.cv_scores_.mean(axis=0).max() < alone.cv_scores_.mean(axis=0).max()
    X, y = np.concatenate([won, lost]), np.repeat([1, 0], len(won))
    same = head(random_state=0).fit(
        X, y, np.tile(np.arange(len(won)), 2), groups=np.tile(groups, 2)
    )
    np.testing.assert_allclose(same.decision_function(X), whole.decision_function(X), atol=1e-6)
    with pytest.raises(ValueError, match="one group only"):
        whole.fit_pairs(won, lost, groups=np.zeros(len(won)))


@pytest.mark.parametrize("estimator", [ConvexReLUClassifier, ConvexReLURegressor])
@pytest.mark.parametrize(
    "options",
    [{}, {"formulation": "relu", "patterns": "gaussian", "solver": InteriorPoint(tol=1e-2)}],
    ids=["gated", "relu"],
)
@pytest.mark.parametrize("validation", ["set apart", "given"])
def test_early_stopping_takes_counts_for_repetitions(estimator, options, validation):
    rng = np.random.default_rng(0)
    X, counts = rng.normal(size=(60, 3)), rng.integers(1, 4, 60)
    y = X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=60)
    y = (y > 0.5) if estimator is ConvexReLUClassifier else y
    model = estimator(early_stopping=True, n_patterns=8, random_state=0, **options)
    weighted, repeated = {}, {}
    if validation == "given":
        weighted = {"X_val": X[:12], "y_val": y[:12], "sample_weight_val": counts[:12]}
        repeated = {name: weighted[name].repeat(counts[:12], 0) for name in ("X_val", "y_val")}
    first = clone(model).fit(X, y, sample_weight=counts, **weighted)
    again = clone(model).fit(X.repeat(counts, 0), y.repeat(counts), **repeated)
    assert again.strength_ == first.strength_
    np.testing.assert_allclose(again.validation_scores_, first.validation_scores_, rtol=1e-12)
    np.testing.assert_array_equal(again.network_.forward(X), first.network_.forward(X))
    if estimator is ConvexReLUClassifier:
        assert again.temperature_ == first.temperature_


def test_rows_set_apart_have_the_proportions_of_classes():
    labels = np.repeat([0, 1, 2], [120, 60, 20])
    kept, apart = split(200, 0.1, labels, np.random.RandomState(0))
    np.testing.assert_array_equal(np.bincount(labels[apart]), [12, 6, 2])
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, apart])), np.arange(200))


@pytest.mark.slow
def test_wide_rows_against_plain_linear_algebra():
    n, d = 60, 50_000
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5)) @ rng.normal(size=(5, d)) + rng.normal(size=(n, d))
    y, counts = X[:, :100].sum(axis=1) + 10 * rng.normal(size=n), rng.integers(1, 4, n)
    model = ConvexReLURegressor(n_patterns=16, random_state=0)
    fitted = clone(model).fit(X, y, sample_weight=counts)
    program = fitted.certificate(X, y, sample_weight=counts).program
    inputs, mask = program.operator.X, np.asarray(program.operator.mask, float)
    kernel = (inputs @ inputs.T) * (mask @ mask.T)
    # The rows of the program are the distinct ones, in an order of their own.
    mean, spread = np.average(y, weights=counts), np.sqrt(np.cov(y, fweights=counts, ddof=0))
    order = np.abs(np.asarray(program.y) - (y - mean) / spread).argmin(axis=1)
    units, total = counts[order], counts.sum()
    target, roots = np.asarray(program.y)[:, 0], np.sqrt(counts[order] / counts.sum())

    def predict(weight, alpha):
        """Predictions of all rows by the ridge with these weights of the rows."""
        used = np.flatnonzero(weight)
        own = kernel[np.ix_(used, used)] + alpha * np.diag(total / weight[used])
        return kernel[:, used] @ np.linalg.solve(own, target[used])

    whole = kernel * roots[:, None] * roots
    grid = np.trace(whole) / n * np.logspace(-6, 2, 31)
    errors = []
    for alpha in grid:
        unseen = [predict(units - (np.arange(n) == k), alpha)[k] for k in range(n)]
        errors.append(units @ (target - unseen) ** 2)
    assert fitted.alpha_ == pytest.approx(grid[np.argmin(errors)], rel=1e-6)
    expected = mean + spread * predict(units, fitted.alpha_)
    np.testing.assert_allclose(fitted.predict(X)[order], expected, rtol=1e-4)
    again = clone(model).fit(X.repeat(counts, 0), y.repeat(counts))
    assert again.alpha_ == fitted.alpha_
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))


def test_a_group_without_weight_changes_nothing():
    rng = np.random.RandomState(0)
    X, y = rng.randint(0, 2, (24, 2)).astype(float), rng.randint(0, 2, (24, 1)).astype(float)
    groups, weight = np.arange(24) % 6, np.ones(24)
    weight[groups == 2] = 0
    with_it = merge(X, y, weight, groups)
    kept = weight > 0
    without = merge(X[kept], y[kept], weight[kept], np.unique(groups[kept], return_inverse=True)[1])
    for name in ("X", "y", "weight", "units", "groups"):
        np.testing.assert_array_equal(getattr(with_it, name), getattr(without, name))
    np.testing.assert_array_equal(with_it.place[kept], without.place)
    assert np.all(with_it.place[~kept] == -1)
