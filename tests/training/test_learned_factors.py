"""Factors of features: their slopes against finite differences, and when they are taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from cvxnn import ConvexReLUClassifier, ConvexReLURegressor, convex, load, save
from cvxnn.training import feature_factors
from cvxnn.training.feature_blocks import both_open, gated_kernel
from cvxnn.training.learned_factors import _squared_slopes

KINDS = ("gaussian", "thresholds")


def program_of(X, y, weight=None):
    """Return a program without patterns, of rows that end with a one."""
    inputs = np.c_[X / np.sqrt(X.shape[1]), np.ones(len(X))]
    operator = convex.GatedOperator(inputs, np.zeros((len(X), 0), bool))
    targets = np.reshape(y - np.mean(y, axis=0), (len(X), -1))
    return convex.ConvexProgram(
        operator, targets, 0.0, convex.SquaredLoss(), convex.SquaredL2(), weight, "gated"
    )


def rows(seed, n=300, d=6):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, X[:, 0] + X[:, 1] ** 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 12), st.integers(1, 5), st.integers(1, 3))
def test_slopes_are_those_of_finite_differences(seed, n, d, n_outputs):
    rng = np.random.default_rng(seed)
    X, weights = rng.normal(size=(n, d)), rng.normal(size=(n, n_outputs))
    share = rng.dirichlet(np.ones(n))[:, None]
    rows = np.c_[X, np.ones(n)]

    def outputs(at):
        """Return what the network of infinitely many gates says of rows, by its kernel."""
        both = np.concatenate([at, rows])
        return gated_kernel(both @ both.T)[: len(at), len(at) :] @ weights

    step, expected = 1e-4, np.zeros(d)
    for feature in range(d):
        ahead, behind = rows.copy(), rows.copy()
        ahead[:, feature] += step
        behind[:, feature] -= step
        slope = (outputs(ahead) - outputs(behind)) / (2 * step)
        expected[feature] = np.sum(share * slope**2)
    gram = rows @ rows.T
    found = _squared_slopes(rows[:, :-1], gram, both_open(gram), weights, share)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.max())


@pytest.mark.parametrize("seed", range(3))
def test_features_that_decide_count_more(seed):
    X, y = rows(seed)
    factors = feature_factors(program_of(X, y), 256, KINDS, np.random.RandomState(0))
    assert factors[:2].min() > 2 * factors[2:].max()
    np.testing.assert_allclose(np.mean(factors**2), 1)


@pytest.mark.parametrize("seed", range(3))
def test_noise_and_symmetry_leave_them_equal(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 5))
    state = np.random.RandomState(0)
    assert feature_factors(program_of(X, rng.normal(size=200)), 256, KINDS, state) is None
    norm = np.linalg.norm(X, axis=1)
    assert feature_factors(program_of(X, norm), 256, KINDS, state) is None


@pytest.mark.parametrize("seed", range(2))
def test_the_generator_is_left_as_it_was(seed):
    state = np.random.RandomState(seed)
    before = state.get_state()[1].copy()
    feature_factors(program_of(*rows(seed)), 256, KINDS, state)
    np.testing.assert_array_equal(state.get_state()[1], before)


def test_too_little_data_are_not_asked():
    X, y = rows(0, n=127)
    assert feature_factors(program_of(X, y), 256, KINDS, np.random.RandomState(0)) is None
    X, y = rows(0)
    groups = np.arange(300) % 7
    state = np.random.RandomState(0)
    assert feature_factors(program_of(X, y), 256, KINDS, state, groups=groups) is None
    assert feature_factors(program_of(X[:, :1], y), 256, KINDS, state) is None
    assert feature_factors(program_of(X, np.ones(300)), 256, KINDS, state) is None


def test_groups_are_left_out_as_wholes():
    """A feature that says only which group a row is of predicts no other group."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(16), 40)
    X = rng.normal(size=(640, 4))
    X[:, 0] = rng.normal(size=16)[groups]
    y = rng.normal(size=16)[groups]
    program, state = program_of(X, y), np.random.RandomState(0)
    assert feature_factors(program, 256, KINDS, state) is not None
    assert feature_factors(program, 256, KINDS, state, groups=groups) is None


def test_many_outputs_and_features_take_fewer_rows_or_none():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3000))
    y = np.tile(X[:, :1], (1, 50))
    assert feature_factors(program_of(X, y), 256, KINDS, np.random.RandomState(0)) is None


@pytest.mark.parametrize("Estimator", [ConvexReLUClassifier, ConvexReLURegressor])
def test_estimators_predict_better_with_them(Estimator, tmp_path):
    X, y = rows(0, n=400)
    new, truth = rows(1, n=1000)
    if Estimator is ConvexReLUClassifier:
        y, truth = y > 1, truth > 1
    learned = Estimator(random_state=0).fit(X, y)
    equal = Estimator(random_state=0, feature_factors="equal").fit(X, y)
    np.testing.assert_array_equal(equal.feature_factors_, np.ones(6))
    assert learned.feature_factors_[:2].min() > 2 * learned.feature_factors_[2:].max()
    lost = [1 - model.score(new, truth) for model in (learned, equal)]
    assert lost[0] < 0.7 * lost[1]
    save(learned, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict(new), learned.predict(new))


@pytest.mark.parametrize("patterns", ["auto", "gaussian", "thresholds"])
def test_the_certificate_is_of_the_rows_with_factors(patterns):
    X, y = rows(0)
    model = ConvexReLURegressor(patterns=patterns, random_state=0).fit(X, y)
    assert np.ptp(model.feature_factors_) > 0
    certificate = model.certificate(X, y)
    bound = certificate.program.bound_of(certificate.dual)
    np.testing.assert_allclose(float(bound), model.dual_bound_, rtol=1e-9)
    objective = float(certificate.program.evaluate(certificate.weights).network_objective)
    np.testing.assert_allclose(objective, model.objective_, rtol=1e-9)


def test_rows_in_any_order_and_weights_as_repetitions_give_one_network():
    X, y = rows(0)
    count = np.random.default_rng(0).integers(1, 4, size=300)
    first = ConvexReLURegressor(random_state=0).fit(X, y, sample_weight=count)
    order = np.random.default_rng(1).permutation(count.sum())
    many = np.repeat(np.arange(300), count)[order]
    second = ConvexReLURegressor(random_state=0).fit(X[many], y[many])
    np.testing.assert_array_equal(first.feature_factors_, second.feature_factors_)
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


def test_importances_are_slopes_of_standardised_features():
    X, y = rows(0)
    X = X * np.array([1, 10, 0.1, 1, 1, 1])
    model = ConvexReLURegressor(random_state=0).fit(X, y)
    layers = model.network_
    size = np.square(layers.output_weights) @ np.square(layers.hidden_weights)
    expected = X.std(axis=0) * np.sqrt(size.sum(axis=0) if size.ndim > 1 else size)
    np.testing.assert_allclose(model.feature_importances_, expected / expected.sum(), rtol=1e-6)
    assert model.feature_importances_[:2].min() > model.feature_importances_[2:].max()


@pytest.mark.parametrize("scale", [1 + 1e-12, 1e12, 1 / 1024])
def test_units_and_rounding_change_nothing(scale):
    """Rows that are looked at are drawn in an order that neither of them moves."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(400, 12))
        y = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) + 0.1 * rng.normal(size=400)
        first, second = (
            ConvexReLURegressor(random_state=0).fit(part, y) for part in (X, scale * X)
        )
        assert np.ptp(first.feature_factors_) > 0
        np.testing.assert_allclose(second.feature_factors_, first.feature_factors_, rtol=1e-4)
        np.testing.assert_allclose(second.predict(scale * X), first.predict(X), atol=0.02)


def test_constant_features_stay_without_weight():
    X, y = rows(0)
    X = np.c_[X, np.full(300, 7.0)]
    model = ConvexReLURegressor(random_state=0).fit(X, y)
    moved = X + np.r_[np.zeros(6), 100.0]
    np.testing.assert_allclose(model.predict(moved), model.predict(X))


@pytest.mark.parametrize(
    "settings",
    [
        {"standardize": False},
        {"formulation": "relu"},
        {"fit_intercept": False},
        {"patterns": "local"},
        {"patterns": "data"},
    ],
)
def test_elsewhere_features_stay_equal(settings):
    X, y = rows(0, n=200)
    model = ConvexReLURegressor(random_state=0, **settings).fit(X, y)
    np.testing.assert_array_equal(model.feature_factors_, np.ones(6))


def test_a_warm_start_keeps_them():
    X, y = rows(0)
    model = ConvexReLURegressor(random_state=0, warm_start=True).fit(X, y)
    known = model.feature_factors_
    model.fit(X[:250], y[:250])
    np.testing.assert_array_equal(model.feature_factors_, known)
    model.fit(*rows(1, n=1000))
    assert np.any(model.feature_factors_ != known)


def test_a_wrong_word_is_refused():
    model = clone(ConvexReLURegressor(feature_factors="learned"))
    with pytest.raises(ValueError, match="feature_factors='learned'; expected one of"):
        model.fit(*rows(0))


def test_numbers_in_the_place_of_a_word_are_refused():
    with pytest.raises(ValueError, match=r"feature_factors=array.*expected one of"):
        ConvexReLURegressor(feature_factors=np.ones(6)).fit(*rows(0))


def test_thresholds_are_drawn_in_proportion_to_chances():
    X = np.c_[np.random.default_rng(0).normal(size=(500, 3)), np.ones(500)]
    found = convex.sample_patterns(
        X, 400, patterns="thresholds", n_constant=1, feature_chances=[3, 1, 0], random_state=0
    )
    drawn = (found.gates[:, :, :3] != 0).sum(axis=(0, 1))
    assert drawn[2] == 0
    assert 2.3 < drawn[0] / drawn[1] < 3.9


@pytest.mark.parametrize("chances", [[1, 1], [1, -1, 1], [0, 0, 0], [1, np.nan, 1]])
def test_bad_chances_are_refused(chances):
    X = np.c_[np.random.default_rng(0).normal(size=(50, 3)), np.ones(50)]
    with pytest.raises(ValueError, match=r"feature_chances=.*expected 3 finite numbers"):
        convex.sample_patterns(X, 4, patterns="thresholds", n_constant=1, feature_chances=chances)
