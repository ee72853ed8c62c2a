"""The classifier against hand-written oracles; most data have one shape, which compiles once."""

import itertools
import pickle

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils import check_random_state

from cvxnn import ConvexReLUClassifier
from cvxnn.convex import (
    ConvexProgram,
    Cronos,
    GatedOperator,
    InteriorPoint,
    add_bias,
    sample_patterns,
    solve_with_cvxpy,
)
from cvxnn.numerics.jax_import import precision

# Points on a line have so few patterns that the program holds them all. No network lies outside it
# then, and two routes to the optimum must agree.
ALL_PATTERNS = {
    "n_patterns": 64,
    "patterns": "gaussian",
    "strength": 0.05,
    "solver": InteriorPoint(tol=1e-8, certify="program"),
}


def make(**options):
    """A small ReLU network; the default network is looked at in test_fitting.py."""
    options = {"formulation": "relu", "n_patterns": 8, "strength": 2e-3, **options}
    return ConvexReLUClassifier(**{"random_state": 0, **options})


def xor(n=40, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, 3))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def rays(n=40, seed=1):
    """Three classes, by angle."""
    X = np.random.default_rng(seed).standard_normal((n, 3))
    return X, ((np.arctan2(X[:, 1], X[:, 0]) + np.pi) / (2 * np.pi) * 3).astype(int)


def line(n=20):
    x = np.random.default_rng(2).standard_normal((n, 1))
    return x, (np.abs(x[:, 0]) > 0.7).astype(int)


def standardised(X):
    """The documented units: mean 0, standard deviation 1 / sqrt(d)."""
    return (X - X.mean(axis=0)) / (X.std(axis=0) * np.sqrt(X.shape[1]))


@pytest.fixture(scope="module")
def fitted():
    X, y = xor()
    return make().fit(X, y), X, y


@pytest.fixture(scope="module")
def fitted_three():
    X, y = rays()
    return make(n_patterns=16).fit(X, y), X, y


def test_learns_what_no_line_separates(fitted):
    model, X, y = fitted
    assert model.score(X, y) >= 0.95
    assert LogisticRegression().fit(X, y).score(X, y) < 0.8
    assert model.network_.n_neurons <= 2 * model.n_patterns_ <= 16
    X_new, y_new = xor(2000, seed=7)
    assert model.score(X_new, y_new) > 0.8


def test_learns_three_classes(fitted_three):
    model, X, y = fitted_three
    assert model.score(X, y) >= 0.95
    assert model.decision_function(X).shape == (len(X), 3)


def test_probabilities_of_two_classes(fitted):
    model, X, y = fitted
    proba = model.predict_proba(X)
    assert model.decision_function(X).shape == (len(X),)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    assert np.all((proba >= 0) & (proba <= 1))
    np.testing.assert_array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])
    np.testing.assert_array_equal(model.predict(X) == 1, model.decision_function(X) > 0)
    assert log_loss(y, proba) < 0.5 * np.log(2)


def test_probabilities_of_three_classes(fitted_three):
    model, X, y = fitted_three
    proba, scores = model.predict_proba(X), model.decision_function(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.classes_[proba.argmax(axis=1)])
    # The softmax link, written out.
    assert model.bend_ == 0
    for row in range(5):
        weights = [np.exp(model.temperature_ * score) for score in scores[row]]
        np.testing.assert_allclose(proba[row], np.array(weights) / sum(weights))
    assert log_loss(y, proba) < 0.5 * np.log(3)


@pytest.mark.parametrize("temperature", [1.0, 1e3])
@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_logarithms_of_probabilities(fitted, fitted_three, n_classes, loss, temperature):
    model, X, _ = fitted if n_classes == 2 else fitted_three
    model = clone(model).set_params(loss=loss)
    network = (fitted if n_classes == 2 else fitted_three)[0].network_
    model.network_, model.classes_ = network, np.arange(n_classes)
    model.temperature_, model.n_features_in_, model.bend_ = temperature, X.shape[1], 0.0
    model.probability_range_ = np.array([0.0, 1.0])
    found = model.predict_log_proba(X)
    assert (found <= 0).all()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found), model.predict_proba(X), rtol=1e-10, atol=1e-300)
    # Extended precision, in which these do not round to 0 or 1.
    scores = (temperature * model.decision_function(X)).astype(np.longdouble)
    if n_classes == 2:
        expected = np.column_stack([-np.log1p(np.exp(scores)), -np.log1p(np.exp(-scores))])
    else:
        if loss == "logistic":
            scores = -np.log1p(np.exp(-scores))
        expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-12, atol=1e-16)


def test_probabilities_are_humble_where_labels_are_noise():
    X, _ = xor()
    y = np.random.default_rng(3).integers(2, size=len(X))
    model = make(strength=0.1).fit(X, y)
    assert log_loss(y, model.predict_proba(X)) <= np.log(2)
    assert np.median(model.predict_proba(X).max(axis=1)) < 0.9


def test_classes_together_equal_one_against_the_rest():
    x, _ = line()
    y = (x[:, 0] > -0.5).astype(int) + (x[:, 0] > 0.5)
    together = make(**ALL_PATTERNS).fit(x, y)
    scores = together.decision_function(x)
    for label in range(3):
        alone = make(**ALL_PATTERNS).fit(x, y == label)
        alone.set_params(strength=together.alpha_ / alone.alpha_max_).fit(x, y == label)
        assert alone.alpha_ == pytest.approx(together.alpha_)
        np.testing.assert_allclose(scores[:, label], alone.decision_function(x), atol=2e-3)


def test_dtype_follows_the_data(dtype):
    X, y = xor()
    model = make().fit(X.astype(dtype), y)
    for part in ("hidden_weights", "hidden_bias", "output_weights", "output_bias"):
        assert getattr(model.network_, part).dtype == dtype
    assert model.decision_function(X.astype(dtype)).dtype == dtype
    assert model.predict_proba(X.astype(dtype)).dtype == dtype
    assert model.score(X.astype(dtype), y) >= 0.95


def test_single_precision_agrees_with_double(fitted):
    model, X, y = fitted
    single = make().fit(X.astype(np.float32), y)
    assert single.objective_ == pytest.approx(model.objective_, rel=5e-2)
    assert np.mean(single.predict(X.astype(np.float32)) == model.predict(X)) >= 0.95


def test_sample_weight_has_no_unit(fitted):
    model, X, y = fitted
    scaled = make().fit(X, y, sample_weight=np.full(len(X), 7.0))
    np.testing.assert_allclose(scaled.decision_function(X), model.decision_function(X), atol=1e-6)


def test_without_intercept_the_origin_scores_zero():
    X, y = xor()
    model = make(fit_intercept=False).fit(X, y)
    assert model.score(X, y) >= 0.9
    assert np.all(model.network_.hidden_bias == 0)
    assert model.decision_function(np.zeros((1, 3))) == 0
    # Without offsets the network is positively homogeneous.
    np.testing.assert_allclose(
        model.decision_function(3 * X), 3 * model.decision_function(X), rtol=1e-9, atol=1e-12
    )


def test_predictions_ignore_units_and_origin_of_the_features(fitted):
    model, X, y = fitted
    moved = make().fit(1000 * X + 5, y)
    np.testing.assert_allclose(
        moved.decision_function(1000 * X + 5), model.decision_function(X), atol=1e-5
    )


def test_without_standardize_units_matter():
    X, y = xor()
    with pytest.warns(UserWarning, match="predicts the same for all rows"):
        small = make(standardize=False, strength=0.01).fit(1e-3 * X, y)
    assert small.network_.n_neurons == 0  # such inputs ask for weights that strength forbids
    assert make(standardize=False, strength=0.01).fit(X, y).score(X, y) >= 0.95


@pytest.mark.parametrize("standardize", [True, False])
def test_objective_is_that_of_the_network(standardize):
    X, y = xor()
    model = make(standardize=standardize, strength=0.02).fit(X, y)
    mean = X.mean(axis=0) if standardize else np.zeros(3)
    scale = X.std(axis=0) * np.sqrt(3) if standardize else np.ones(3)
    signs = 2.0 * y - 1
    network = model.network_
    penalty, error = 0.0, 0.0
    for w, b, a in zip(
        network.hidden_weights, network.hidden_bias, network.output_weights, strict=True
    ):
        neuron = np.append(w * scale, b + w @ mean)
        penalty += np.linalg.norm(neuron) * abs(a) / signs.std()
    for row, sign in zip(X, signs, strict=True):
        score = network.output_bias[0]
        for w, b, a in zip(
            network.hidden_weights, network.hidden_bias, network.output_weights, strict=True
        ):
            score += a * max(w @ row + b, 0)
        error += ((score - sign) / signs.std()) ** 2
    assert model.objective_ == pytest.approx(
        error / (2 * len(X)) + model.alpha_ * penalty, rel=1e-5
    )
    assert model.gap_ == pytest.approx(1 - model.dual_bound_ / model.objective_)


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.02, 0.2])
def test_certificate_against_an_independent_solver(strength):
    X, y = xor()
    model = make(strength=strength, patterns="gaussian").fit(X, y)
    inputs = add_bias(standardised(X))
    found = sample_patterns(inputs, 8, random_state=check_random_state(0))
    assert model.n_patterns_ == len(found)
    targets = (y - y.mean()) / y.std()
    with precision(np.float64):
        program = ConvexProgram(
            GatedOperator(jnp.asarray(inputs), jnp.asarray(found.mask)),
            jnp.asarray(targets[:, None]),
            model.alpha_,
        )
    best = solve_with_cvxpy(program).objective
    assert model.dual_bound_ <= best * (1 + 1e-6)
    assert model.objective_ <= best * (1 + model.tol)
    solver = Cronos(tol=1e-5, max_iter=5000, certify="program")
    tight = make(strength=strength, patterns="gaussian", solver=solver).fit(X, y)
    assert tight.dual_bound_ == pytest.approx(best, rel=1e-4)


def test_no_network_beats_the_bound_over_all_patterns():
    x, y = line()
    everything = make(**ALL_PATTERNS).fit(x, y)
    assert everything.objective_ == pytest.approx(everything.dual_bound_, rel=1e-3)
    for seed in range(3):
        model = make(strength=0.05, n_patterns=64, random_state=seed).fit(x, y)
        assert model.objective_ >= everything.dual_bound_ * (1 - 1e-9)


def test_warning_names_the_remedy_and_the_caller():
    X, y = xor()
    with pytest.warns(ConvergenceWarning, match=r"max_iter.*gap of .*Increase max_iter") as seen:
        model = make(max_iter=1, tol=0).fit(X, y)
    assert seen[0].filename == __file__
    assert model.status_ == "max_iter"
    assert model.n_iter_ == 1
    assert np.isfinite(model.decision_function(X)).all()


def test_history_is_data(fitted):
    model, _, _ = fitted
    history = model.history_
    assert len({len(column) for column in history.values()}) == 1
    assert np.all(np.diff(history["objective"]) <= 0)
    assert np.all(np.diff(history["dual_bound"]) >= 0)
    assert history["iteration"][-1] == model.n_iter_
    assert history["dual_bound"][-1] == model.dual_bound_
    assert model.status_ == "converged"
    assert model.gap_ <= model.tol


def test_solver_replaces_tol_and_max_iter(fitted):
    _, X, y = fitted
    solver = Cronos(tol=0.5, max_iter=30)
    model = make(solver=solver, tol=1e-12, max_iter=1).fit(X, y)
    assert model.status_ == "converged"
    assert model.solver is solver


def test_clone_set_params_and_pickle(fitted):
    model, X, _ = fitted
    copy = clone(model).set_params(strength=0.5, solver=Cronos(tol=0.1))
    assert not hasattr(copy, "network_")
    assert (copy.strength, model.strength) == (0.5, 2e-3)
    back = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))


def test_names_of_data_frames():
    X, y = xor()
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = make().fit(frame, y)
    assert model.n_features_in_ == 3
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(model.predict(frame), make().fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["c", "b", "a"]])
    assert not hasattr(model.fit(X, y), "feature_names_in_")


@pytest.mark.parametrize("source", ["gaussian", "data"])
def test_other_pattern_sources(source):
    X, y = xor()
    model = make(patterns=source, n_patterns=16).fit(X, y)
    assert model.score(X, y) >= 0.9
    assert model.gap_ <= model.tol


def test_local_patterns_beat_random_ones():
    X, y = xor()
    local, random = (make(patterns=source).fit(X, y) for source in ("local", "gaussian"))
    assert local.objective_ < random.objective_
    # The bound is over the patterns of each: the better network lies below the other's bound.
    assert local.objective_ < random.dual_bound_


def test_large_strength_gives_the_majority():
    X, _ = xor()
    y = np.r_[np.zeros(15, int), np.ones(25, int)]
    with pytest.warns(UserWarning, match="predicts the same for all rows"):
        model = make(strength=10).fit(X, y)
    assert model.network_.n_neurons == 0
    assert np.all(model.predict(X) == 1)
    np.testing.assert_allclose(model.decision_function(X), (25 - 15) / 40, rtol=1e-12)
    assert model.status_ == "converged"


# Losses, formulations, penalties ---------------------------------------------------------------


@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize(
    ("patterns", "skip"),
    [
        *itertools.product(["local"], [None, 0.1]),
        ("adaptive", None),
        *(pytest.param("adaptive", skip, marks=pytest.mark.slow) for skip in [0.1]),
    ],
)
def test_every_combination_learns(formulation, loss, patterns, skip):
    X, y = xor()
    options = {"formulation": formulation, "loss": loss, "patterns": patterns, "skip": skip}
    model = make(penalty="neuron", **options).fit(X, y)
    assert model.score(X, y) >= 0.95
    assert model.status_ == "converged"
    assert model.gap_ <= model.tol
    assert (model.network_.gate_weights is not None) == (formulation == "gated")
    assert (model.network_.linear_weights is not None) == (skip is not None)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-12)
    # Rows left out may say that log-odds of few rows are too large.
    assert 0 < model.temperature_ <= 1 if loss == "logistic" else model.temperature_ != 1
    assert np.all(np.diff(model.rounds_["objective"]) <= 0)


def test_logistic_scores_are_log_odds():
    X, y = xor()
    model = make(loss="logistic", strength=0.02).fit(X, y)
    proba, scores = model.predict_proba(X), model.decision_function(X)
    assert 0 < model.temperature_ <= 1  # less where rows left out say so
    for row in range(5):
        odds = proba[row, 1] / proba[row, 0]
        assert np.log(odds) == pytest.approx(model.temperature_ * scores[row], rel=1e-6)
    # The objective is the log-loss and the penalty, in the documented units.
    network, scale = model.network_, X.std(axis=0) * np.sqrt(3)
    neurons = np.column_stack(
        [
            network.hidden_weights * scale,
            network.hidden_bias + network.hidden_weights @ X.mean(axis=0),
        ]
    )
    penalty = np.linalg.norm(neurons, axis=1) @ np.abs(network.output_weights)
    expected = log_loss(y, 1 / (1 + np.exp(-scores))) + model.alpha_ * penalty
    assert model.objective_ == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_logistic_loss_of_each_class_against_the_rest(formulation):
    X, y = rays()
    model = make(loss="logistic", formulation=formulation, penalty="neuron", n_patterns=16).fit(
        X, y
    )
    proba, scores = model.predict_proba(X), model.decision_function(X)
    assert model.score(X, y) >= 0.95
    assert model.gap_ <= model.tol
    apart = 1 / (1 + np.exp(-model.temperature_ * scores))
    np.testing.assert_allclose(proba, apart / apart.sum(axis=1, keepdims=True), rtol=1e-10)
    apart = 1 / (1 + np.exp(-scores))
    total = sum(log_loss(y == c, apart[:, c]) for c in range(3))
    assert 0 < total < model.objective_


@pytest.mark.slow
@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_softmax_of_three_classes(formulation):
    X, y = rays()
    options = {"loss": "multinomial", "formulation": formulation, "penalty": "neuron"}
    model = make(strength=0.1, n_patterns=16, **options).fit(X, y)
    proba, scores = model.predict_proba(X), model.decision_function(X)
    assert model.score(X, y) >= 0.85
    assert scores.shape == (len(X), 3)
    assert model.temperature_ == 1
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
    for row in range(5):
        exponentials = [np.exp(score) for score in scores[row]]
        np.testing.assert_allclose(proba[row], np.array(exponentials) / sum(exponentials))
    assert model.gap_ <= model.tol
    assert log_loss(y, proba) < model.objective_


@pytest.mark.parametrize("penalty", ["neuron", "l2"])
def test_penalties_learn(penalty):
    X, y = xor()
    for formulation in ("relu", "gated"):
        model = make(penalty=penalty, formulation=formulation, n_patterns=16).fit(X, y)
        assert model.score(X, y) >= 0.9


def test_swapping_the_labels_swaps_the_log_odds():
    X, y = xor()
    options = {"loss": "logistic", "patterns": "gaussian", "tol": 1e-8, "strength": 0.01}
    one, other = make(**options).fit(X, y), make(**options).fit(X, 1 - y)
    np.testing.assert_allclose(one.decision_function(X), -other.decision_function(X), atol=1e-3)


def test_logistic_loss_takes_weights():
    X, y = xor()
    heavy = make(loss="logistic", strength=0.1).fit(X, y, sample_weight=np.where(y == 1, 10.0, 1.0))
    light = make(loss="logistic", strength=0.1).fit(X, y)
    assert heavy.predict_proba(X)[:, 1].mean() > light.predict_proba(X)[:, 1].mean() + 0.05


def test_adaptive_patterns_are_no_worse_than_local_ones():
    X, y = xor()
    local, adaptive = (
        make(patterns=source, loss="logistic", n_patterns=4).fit(X, y)
        for source in ("local", "adaptive")
    )
    assert adaptive.objective_ <= local.objective_
    assert len(adaptive.rounds_["objective"]) > 1
    assert np.isnan(local.rounds_["gain"]).all()
