"""The regressor: functions it must learn, units, weights, certificate."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.linear_model import HuberRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import cvxnn
from cvxnn import ConvexReLURegressor, ConvexReLURegressorCV
from cvxnn.convex import InteriorPoint
from cvxnn.training import spread_of, weighted_median

# All patterns of points on a line: two routes to the optimum must agree.
ALL_PATTERNS = {
    "n_patterns": 64,
    "patterns": "gaussian",
    "strength": 0.05,
    "solver": InteriorPoint(tol=1e-9, certify="program"),
}


def make(**options):
    """A small ReLU network; the default network is looked at in test_fitting.py."""
    options = {"formulation": "relu", "n_patterns": 8, "strength": 2e-3, **options}
    return ConvexReLURegressor(**{"random_state": 0, **options})


def bumps(n=40, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, 3))
    return X, np.abs(X[:, 0]) - np.maximum(X[:, 1] + X[:, 2], 0)


def line(n=20):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((n, 1))
    return x, np.abs(x[:, 0]) + 0.1 * rng.standard_normal(n)


@pytest.fixture(scope="module")
def fitted():
    X, y = bumps()
    return make().fit(X, y), X, y


def test_learns_the_absolute_value():
    x = np.linspace(-1, 1, 40)[:, None]
    model = make(strength=1e-4).fit(x, np.abs(x[:, 0]))
    between = np.linspace(-0.97, 0.97, 33)[:, None]
    np.testing.assert_allclose(model.predict(between), np.abs(between[:, 0]), atol=0.05)


def test_learns_a_sum_of_neurons(fitted):
    model, X, y = fitted
    assert model.score(X, y) > 0.98
    X_new, y_new = bumps(500, seed=1)
    assert model.score(X_new, y_new) > 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(lbfgs|Stochastic):sklearn.exceptions.ConvergenceWarning")
def test_is_not_far_below_a_multilayer_perceptron():
    X, y = make_friedman1(400, noise=0.5, random_state=0)
    train, test = slice(None, 200), slice(200, None)
    ours = make(n_patterns=32).fit(X[train], y[train]).score(X[test], y[test])
    centre, scale = X[train].mean(axis=0), X[train].std(axis=0)
    other = MLPRegressor(
        hidden_layer_sizes=64, solver="lbfgs", alpha=0.1, max_iter=1000, random_state=0
    )
    other.fit((X[train] - centre) / scale, y[train])
    theirs = other.score((X[test] - centre) / scale, y[test])
    assert ours > theirs - 0.02
    assert ours > 0.93


@pytest.mark.slow
def test_several_outputs():
    X, y = bumps()
    Y = np.column_stack([y, 100 - 1000 * np.maximum(X[:, 2], 0)])
    model = make(n_patterns=16).fit(X, Y)
    assert model.predict(X).shape == Y.shape
    for column in range(2):  # each in its own units
        error = np.mean((model.predict(X)[:, column] - Y[:, column]) ** 2)
        assert error < 0.02 * Y[:, column].var()


def test_outputs_together_equal_outputs_alone():
    x, y = line()
    Y = np.column_stack([y, 30 * np.maximum(x[:, 0], 0)])
    together = make(**ALL_PATTERNS).fit(x, Y)
    for column in range(2):
        alone = make(**ALL_PATTERNS).fit(x, Y[:, column])
        alone.set_params(strength=together.alpha_ / alone.alpha_max_).fit(x, Y[:, column])
        expected = alone.predict(x)
        np.testing.assert_allclose(together.predict(x)[:, column], expected, rtol=2e-3, atol=2e-3)


def test_predictions_have_the_dimensions_of_y(fitted):
    model, X, y = fitted
    column = make().fit(X, y[:, None])
    assert model.predict(X).shape == (len(X),)
    assert column.predict(X).shape == (len(X), 1)
    np.testing.assert_array_equal(column.predict(X)[:, 0], model.predict(X))


def test_targets_may_have_any_unit(fitted):
    model, X, y = fitted
    moved = make().fit(X, 1e6 * y - 3e6)
    np.testing.assert_allclose((moved.predict(X) + 3e6) / 1e6, model.predict(X), atol=1e-4)
    assert moved.objective_ == pytest.approx(model.objective_, rel=1e-4)


def test_integer_targets():
    X, y = bumps()
    whole = np.round(y).astype(int)
    model = make().fit(X, whole)
    np.testing.assert_array_equal(model.predict(X), make().fit(X, whole.astype(float)).predict(X))
    assert model.predict(X).dtype == np.float64


def test_constant_targets_are_met_exactly():
    X, _ = bumps()
    model = make().fit(X, np.full(len(X), 3.7))
    np.testing.assert_allclose(model.predict(X), 3.7, rtol=1e-12)
    assert model.network_.n_neurons == 0


def test_dtype_follows_the_data(dtype):
    X, y = bumps()
    model = make().fit(X.astype(dtype), y)
    assert model.network_.hidden_weights.dtype == dtype
    assert model.network_.output_bias.dtype == dtype
    assert model.predict(X.astype(dtype)).dtype == dtype
    assert model.score(X.astype(dtype), y) > 0.98


def test_sample_weight_moves_the_fit():
    X, _ = bumps()
    X[20:] = X[:20]  # each input twice, with two targets
    y = np.r_[np.zeros(20), np.ones(20)]
    weight = np.r_[np.ones(20), np.full(20, 3.0)]
    with pytest.warns(UserWarning, match="the features say little about the targets"):
        model = make().fit(X, y, weight)
    np.testing.assert_allclose(model.predict(X), 0.75, atol=1e-6)


def test_weighted_objective_is_that_of_the_network():
    X, y = bumps()
    weight = np.random.default_rng(2).uniform(0.1, 3, len(X))
    model = make(strength=0.05).fit(X, y, sample_weight=weight)
    share = weight / weight.sum()
    mean = share @ X
    scale = np.sqrt(share @ (X - mean) ** 2) * np.sqrt(3)
    spread = np.sqrt(share @ (y - share @ y) ** 2)
    network = model.network_
    neurons = np.column_stack(
        [network.hidden_weights * scale, network.hidden_bias + network.hidden_weights @ mean]
    )
    penalty = np.linalg.norm(neurons, axis=1) @ np.abs(network.output_weights) / spread
    error = share @ ((model.predict(X) - y) / spread) ** 2
    assert model.objective_ == pytest.approx(error / 2 + model.alpha_ * penalty, rel=1e-5)


def test_without_intercept_the_origin_gives_zero():
    X, y = bumps()
    model = make(fit_intercept=False).fit(X, y)
    assert model.predict(np.zeros((1, 3))) == 0
    assert model.score(X, y) > 0.98


# Losses, formulations, penalties ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("formulation", ["relu", "gated"])
@pytest.mark.parametrize("loss", ["squared", "huber"])
@pytest.mark.parametrize(
    ("patterns", "skip"),
    [
        *itertools.product(["local"], [None, 0.0, 0.1]),
        ("adaptive", None),
        *(pytest.param("adaptive", skip, marks=pytest.mark.slow) for skip in [0.0, 0.1]),
    ],
)
def test_every_combination_learns(formulation, loss, patterns, skip):
    X, y = bumps()
    options = {"formulation": formulation, "loss": loss, "patterns": patterns, "skip": skip}
    model = make(penalty="neuron", **options).fit(X, y)
    assert model.score(X, y) > 0.95
    assert model.status_ == "converged"
    assert model.gap_ <= model.tol
    assert (model.network_.gate_weights is not None) == (formulation == "gated")
    assert (model.network_.linear_weights is not None) == (skip is not None)
    assert np.all(np.diff(model.rounds_["objective"]) <= 0)
    assert len(model.rounds_["gap"]) == 1 or patterns == "adaptive"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("formulation", "penalty"),
    [("relu", "feature"), ("relu", "l1"), ("gated", "feature"), ("gated", "l1")],
)
def test_sparse_penalties_learn(formulation, penalty):
    X, y = bumps()
    model = make(formulation=formulation, penalty=penalty).fit(X, y)
    assert model.score(X, y) > 0.9
    assert model.gap_ <= model.tol


@pytest.mark.slow
def test_features_without_use_vanish():
    X, _ = bumps(80)
    y = np.abs(X[:, 0])
    options = {"formulation": "gated", "strength": 0.4, "n_patterns": 16}
    with pytest.warns(UserWarning, match="removed 2 of 3 features, at which gates"):
        grouped = make(penalty="feature", **options).fit(X, y)
    used = np.abs(grouped.network_.hidden_weights).max(axis=0)
    assert used[0] > 0
    np.testing.assert_array_equal(used[1:], 0)
    assert grouped.score(X, y) > 0.5


@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_the_ridge_penalty_spreads_over_all_neurons(formulation):
    X, y = bumps()
    ridge = make(penalty="l2", formulation=formulation, n_patterns=16).fit(X, y)
    neurons = make(penalty="neuron", strength=0.05, formulation=formulation, n_patterns=16).fit(
        X, y
    )
    assert ridge.score(X, y) > 0.9
    assert ridge.network_.n_neurons > neurons.network_.n_neurons


def test_huber_resists_outliers():
    X, y = bumps(60)
    spoilt = y.copy()
    spoilt[::10] += 30
    options = {"strength": 0.01, "n_patterns": 16}
    clean = ~np.isin(np.arange(60), np.arange(0, 60, 10))

    def error(model):
        return np.median(np.abs(model.fit(X, spoilt).predict(X) - y)[clean])

    squared, huber = error(make(**options)), error(make(loss="huber", delta=0.05, **options))
    assert huber < 0.5 * squared


@pytest.mark.parametrize("outliers", [False, True])
def test_huber_looks_at_the_features_that_tell(outliers):
    X, y = make_friedman1(600, noise=1.0, random_state=0)
    seen = y[:300].copy()
    if outliers:
        seen[::20] += 100
    model = ConvexReLURegressor(loss="huber", n_patterns=256, random_state=0)
    alike = clone(model).set_params(feature_factors="equal", patterns="gaussian")
    scores = [m.fit(X[:300], seen).score(X[300:], y[300:]) for m in (model, alike)]
    assert scores[0] > scores[1] + 0.02
    factors = model.feature_factors_
    assert factors[:5].mean() > 2 * factors[5:].mean()
    proof = model.certificate(X[:300], seen)
    assert proof.program.bound_of(proof.dual) == pytest.approx(model.dual_bound_, rel=1e-12)


def test_huber_with_a_large_delta_is_least_squares():
    X, y = bumps()
    options = {"patterns": "gaussian", "tol": 1e-8}
    squared = make(**options).fit(X, y)
    huber = make(loss="huber", delta=100, **options).fit(X, y)
    assert huber.objective_ == pytest.approx(squared.objective_, rel=1e-6)
    near = make(loss="huber", delta=0.1, **options).fit(X, y)
    assert near.objective_ < 0.9 * squared.objective_


def test_delta_is_in_units_of_the_targets():
    X, y = bumps()
    options = {"loss": "huber", "delta": 0.3, "tol": 1e-6}
    model, moved = make(**options).fit(X, y), make(**options).fit(X, 1e4 * y + 7)
    np.testing.assert_allclose((moved.predict(X) - 7) / 1e4, model.predict(X), atol=1e-4)


def test_huber_objective_is_that_of_the_network():
    X, y = bumps()
    delta = 0.3
    model = make(loss="huber", delta=delta, strength=0.05).fit(X, y)
    network, scale = model.network_, X.std(axis=0) * np.sqrt(3)
    neurons = np.column_stack(
        [
            network.hidden_weights * scale,
            network.hidden_bias + network.hidden_weights @ X.mean(axis=0),
        ]
    )
    penalty = np.linalg.norm(neurons, axis=1) @ np.abs(network.output_weights) / y.std()
    error = 0.0
    for e in np.abs(model.predict(X) - y) / y.std():
        error += e**2 / 2 if e <= delta else delta * (e - delta / 2)
    assert model.objective_ == pytest.approx(error / len(X) + model.alpha_ * penalty, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*has no neurons:UserWarning")  # a line needs none
def test_a_skip_connection_extrapolates_lines():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (40, 3))
    y = X @ [1.0, -2.0, 0.5] + 3 + 1e-2 * rng.standard_normal(40)
    model = make(skip=0.0, strength=0.3).fit(X, y)
    far = 100 * rng.uniform(-1, 1, (10, 3))
    np.testing.assert_allclose(model.predict(far), far @ [1.0, -2.0, 0.5] + 3, atol=2)
    assert model.network_.n_neurons == 0


@pytest.mark.slow
def test_adaptive_patterns_are_no_worse_than_local_ones():
    X, y = bumps()
    for seed in range(3):
        local, adaptive = (
            make(patterns=source, n_patterns=4, random_state=seed).fit(X, y)
            for source in ("local", "adaptive")
        )
        assert adaptive.objective_ <= local.objective_
        assert len(adaptive.rounds_["objective"]) > 1


@pytest.mark.parametrize("outlier", [2e3, 2e6])
@pytest.mark.parametrize("source", ["diabetes", "friedman"])
def test_huber_withstands_outliers_as_the_linear_one_of_scikit_learn(source, outlier):
    if source == "diabetes":
        X, y = load_diabetes(return_X_y=True)
    else:
        X, y = make_friedman1(400, noise=1, random_state=0)
    seen = np.random.default_rng(0).permutation(len(y))[:300]
    unseen = np.setdiff1d(np.arange(len(y)), seen)
    wild = y.copy()
    wild[seen[:15]] += outlier * y.std() / 77  # 77 on diabetes
    linear = make_pipeline(StandardScaler(), HuberRegressor(max_iter=1000))
    model = ConvexReLURegressor(loss="huber", n_patterns=64, random_state=0)
    scores = [m.fit(X[seen], wild[seen]).score(X[unseen], y[unseen]) for m in (model, linear)]
    assert scores[0] > scores[1] - 0.02
    assert scores[0] > 0.3


def test_automatic_delta_moves_with_the_units_of_the_targets():
    X, y = bumps()
    model = make(loss="huber", tol=1e-6)
    first = model.fit(X, y).predict(X)
    np.testing.assert_allclose((model.fit(X, 1e4 * y + 7).predict(X) - 7) / 1e4, first, atol=1e-4)


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 4)), min_size=1, max_size=12),
    st.floats(1e-3, 1e3),
)
def test_weighted_median_is_that_of_repeated_values(pairs, unit):
    values, times = np.array(pairs, float).T
    repeated = np.repeat(values, times.astype(int))
    assert weighted_median(values, unit * times) == np.median(repeated)
    spread = np.median(np.abs(repeated))
    if spread > 0:
        assert spread_of(values, unit * times) == pytest.approx(1.4826 * spread)


def test_residuals_that_are_rounding_beside_the_largest_are_not_the_noise():
    assert spread_of(np.array([1e-80, -1e-80, 2.0, 0.0]), np.ones(4)) == 1.0
    assert spread_of(np.array([1e-9, -1e-9, 2.0, 0.0]), np.ones(4)) == pytest.approx(1.4826e-9)


def test_each_target_is_fitted_as_alone(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (150, 3))
    clean = np.sin(3 * X[:, 0]) + np.abs(X[:, 1])
    Y = np.column_stack([clean, rng.standard_normal((150, 4))])
    # Patterns are those of all targets together.
    options = {"patterns": "gaussian", "n_patterns": 64, "random_state": 0}
    model = ConvexReLURegressor(**options).fit(X, Y)
    np.testing.assert_array_equal(model.feature_factors_, 1)  # those of one are not of another
    for c in range(5):
        alone = ConvexReLURegressor(feature_factors="equal", **options).fit(X, Y[:, c])
        assert model.strength_[c] == alone.strength_
        np.testing.assert_allclose(model.predict(X)[:, c], alone.predict(X), atol=1e-6)
    np.testing.assert_allclose(model.alpha_, model.strength_ * model.alpha_max_)
    program, weights, dual = model.certificate(X, Y)
    assert float(program.bound_of(dual)) == pytest.approx(model.dual_bound_, rel=1e-9)
    assert float(program.evaluate(weights).objective) == pytest.approx(model.objective_, rel=1e-9)
    cvxnn.save(model, tmp_path / "model.safetensors")
    loaded = cvxnn.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.strength_, model.strength_)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    # Validation data choose a factor that all have in common.
    early = model.set_params(early_stopping=True).fit(X, Y)
    assert early.strength_.shape == (5,)
    # One number is the strength of all, and so is the choice of cross-validation.
    given = ConvexReLURegressor(0.01, n_patterns=64, random_state=0).fit(X, Y)
    assert given.strength_ == pytest.approx(0.01)
    chosen = ConvexReLURegressorCV(given, n_strengths=3, cv=2).fit(X, Y)
    assert np.shape(chosen.strength_) == ()


def test_targets_with_a_skip_connection_are_fitted_as_they_are_alone():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (60, 3))
    Y = np.column_stack([np.abs(X[:, 0]), X[:, 0] + rng.standard_normal(60)])
    options = {"skip": 0.01, "n_patterns": 8, "patterns": "gaussian", "random_state": 0}
    options["feature_factors"] = "equal"
    both = ConvexReLURegressor(**options).fit(X, Y)
    for c in range(2):
        alone = ConvexReLURegressor(**options).fit(X, Y[:, c])
        assert both.strength_[c] == pytest.approx(alone.strength_)
        np.testing.assert_allclose(both.predict(X)[:, c], alone.predict(X), atol=1e-8)


@pytest.mark.parametrize(
    "options", [{"skip": 0.1}, {"loss": "huber"}, {"penalty": "neuron"}, {"patterns": "local"}]
)
def test_several_targets_of_other_programs(options):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (60, 3))
    Y = np.column_stack([np.abs(X[:, 0]), rng.standard_normal(60)])
    model = ConvexReLURegressor(n_patterns=8, random_state=0, **options).fit(X, Y)
    own = "penalty" not in options
    assert np.shape(model.strength_) == ((2,) if own else ())
    program, _, dual = model.certificate(X, Y)
    assert float(program.bound_of(dual)) == pytest.approx(model.dual_bound_, rel=1e-6)
