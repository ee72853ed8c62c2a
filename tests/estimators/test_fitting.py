"""What all fits have in common: rows and their weights, strengths, validation, warm starts."""

import tracemalloc
import warnings

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, ConvexReLURegressor, training
from cvxnn.convex import Cronos, InteriorPoint, ProximalGradient
from cvxnn.estimators import _parameters
from cvxnn.estimators._calibration import fit_link, fit_temperature
from cvxnn.estimators._fit_plan import HeldOut
from cvxnn.estimators._parameters import gated_patterns
from cvxnn.estimators._validation import split
from cvxnn.numerics.scores import bent, probabilities

# Both forms without compilation, since rows come in all numbers.
GATED = {"n_patterns": 32, "random_state": 0}
RELU = {
    "formulation": "relu",
    "patterns": "gaussian",
    "n_patterns": 8,
    "strength": 0.02,
    "random_state": 0,
}
FORMULATIONS = pytest.mark.parametrize("options", [GATED, RELU], ids=["gated", "relu"])
NETWORKS = [ConvexReLUClassifier, ConvexReLURegressor]
MODELS = pytest.mark.parametrize("model", NETWORKS, ids=lambda model: model.__name__)


def data(n=40, d=3, seed=0):
    X = np.random.default_rng(seed).standard_normal((n, d))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def noisy(n=60, seed=0):
    """Few rows, many columns, much noise: easy to overfit."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 8))
    return X, np.abs(X[:, 0]) + rng.standard_normal(n)


def outputs(fitted, X):
    """All that a fitted network says of rows, as one array."""
    if isinstance(fitted, ConvexReLURegressor):
        return fitted.predict(X).reshape(len(X), -1)
    return np.column_stack([fitted.decision_function(X), fitted.predict_proba(X)])


# Rows and weights ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*cannot tell how sure:UserWarning")
@MODELS
@FORMULATIONS
@settings(max_examples=8)
@given(counts=st.lists(st.integers(0, 3), min_size=20, max_size=20), seed=st.integers(0, 99))
def test_weight_is_repetition_whatever_the_order(model, options, counts, seed):
    X, y = data(20)
    counts[:2], y[:2] = [1, 1], [0, 1]  # both classes count
    counts = np.array(counts)
    weighted = model(**options).fit(X, y, sample_weight=counts)
    rows = np.random.default_rng(seed).permutation(np.arange(20).repeat(counts))
    repeated = model(**options).fit(X[rows], y[rows])
    assert weighted.objective_ == repeated.objective_
    assert weighted.alpha_ == repeated.alpha_
    np.testing.assert_array_equal(outputs(weighted, X), outputs(repeated, X))


@MODELS
@FORMULATIONS
def test_rows_of_zero_weight_are_absent(model, options):
    X, y = data()
    X_more, y_more = np.r_[X, np.full((5, 3), 1e3)], np.r_[y, np.ones(5, int)]
    zeroed = model(**options).fit(X_more, y_more, sample_weight=np.r_[np.ones(40), np.zeros(5)])
    np.testing.assert_array_equal(outputs(zeroed, X), outputs(model(**options).fit(X, y), X))


@MODELS
@FORMULATIONS
@pytest.mark.parametrize("factor", [8, 2.0**1000, 2.0**-1000])
def test_only_ratios_of_weights_count(model, options, factor):
    X, y = data()
    weight = np.random.default_rng(1).uniform(0.5, 2, 40)
    one, other = (model(**options).fit(X, y, sample_weight=w) for w in (weight, factor * weight))
    np.testing.assert_array_equal(outputs(one, X), outputs(other, X))
    assert np.abs(outputs(one, X) - outputs(model(**options).fit(X, y), X)).max() > 1e-3


@MODELS
@pytest.mark.parametrize(
    "options", [{}, GATED, RELU, {**RELU, "patterns": "local"}], ids=["default", "few", "relu", "x"]
)
def test_same_seed_same_bits(model, options):
    X, y = data()
    options = {**options, "random_state": 0}
    first, again = (outputs(model(**options).fit(X, y), X) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(first, outputs(model(**options).fit(X[order], y[order]), X))
    assert not np.array_equal(outputs(model(**{**options, "random_state": 1}).fit(X, y), X), first)


@MODELS
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"patterns": "gaussian"},
        {"patterns": "data"},
        pytest.param({"patterns": "adaptive", "penalty": "neuron"}, marks=pytest.mark.slow),
    ],
    ids=["gaussian", "data", "adaptive"],
)
def test_rounding_decides_nothing_on_rows_of_integers(model, options, fit_intercept):
    rng = np.random.default_rng(0)
    X, other = rng.integers(5, size=(2, 100, 3)).astype(float)
    if "penalty" in options:
        options = {**options, "n_patterns": 8, "solver": ProximalGradient(tol=1e-2)}
    fitted = model(
        **{"n_patterns": 64, "strength": 0.01, "random_state": 0, **options},
        fit_intercept=fit_intercept,
    ).fit(X, X[:, 0] > X[:, 1])
    for rows in (X, other[other.any(axis=1)]):
        scores = outputs(fitted, rows)
        noise = 1e-12 * rng.standard_normal(rows.shape)
        np.testing.assert_allclose(outputs(fitted, rows + noise), scores, atol=1e-9)
        alone = np.concatenate([outputs(fitted, row[None]) for row in rows])
        np.testing.assert_allclose(alone, scores, atol=1e-12)


@pytest.mark.slow
@settings(max_examples=15)
@given(
    model=st.sampled_from([*NETWORKS, COALAPreferenceHead]),
    patterns=st.sampled_from(["gaussian", "local", "adaptive", "all"]),
    formulation=st.sampled_from(["relu", "gated"]),
    strength=st.sampled_from([0.01, 1.0, 1.5, 1e6]),
    kind=st.sampled_from(["plain", "equal rows", "equal targets"]),
)
def test_constant_predictions_are_not_silent(model, patterns, formulation, strength, kind):
    X, y = data(12, 2)
    if kind == "equal rows":
        X = np.ones_like(X)
    elif kind == "equal targets" and model is ConvexReLURegressor:
        y = np.ones(12)
    options = {"patterns": patterns, "n_patterns": 200 if patterns == "all" else 8}
    if model is COALAPreferenceHead:
        options["formulation"] = "relu"  # the other form has a ridge, which no strength makes 0
    else:
        options |= {"formulation": formulation, "penalty": "neuron"}
    estimator = model(strength=strength, random_state=0, **options)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        estimator.fit(X, y)
    constant = np.ptp(estimator.network_.forward(X)) <= 1e-6 * np.ptp(y)
    if kind == "equal rows" or strength >= 1:
        assert constant
    messages = [str(w.message) for w in seen if "the same for all rows" in str(w.message)]
    assert len(messages) == (constant and np.ptp(y) > 0)
    remedy = "give features that vary" if kind == "equal rows" else "Decrease strength"
    assert all(remedy in message for message in messages)


@pytest.mark.slow
@MODELS
@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_all_patterns_bound_networks_of_any_patterns(model, formulation):
    X, y = data(15, 2)
    options = {"formulation": formulation, "penalty": "neuron", "random_state": 0, "tol": 1e-6}
    best = model(0.05, patterns="all", **options).fit(X, y)
    assert best.gap_ <= 1e-6
    assert 200 < best.n_patterns_ <= 211
    for source in ("gaussian", "local", "adaptive"):
        other = model(0.05, patterns=source, n_patterns=8, **options).fit(X, y)
        other.set_params(strength=best.alpha_ / other.alpha_max_).fit(X, y)
        assert other.alpha_ == pytest.approx(best.alpha_)
        assert other.objective_ >= best.dual_bound_
        if source == "adaptive":
            assert other.rounds_["gain"][-1] <= 1
            assert other.objective_ == pytest.approx(best.objective_, rel=1e-4)
            assert other.dual_bound_ <= best.objective_ * (1 + 1e-4)
    assert best.n_patterns_ > 3 * other.n_patterns_


@MODELS
def test_a_generator_moves_on(model):
    X, y = data()
    options = {**GATED, "random_state": np.random.RandomState(0)}
    first, second = (outputs(model(**options).fit(X, y), X) for _ in range(2))
    assert not np.array_equal(first, second)


# Classes ---------------------------------------------------------------------------------------


@FORMULATIONS
@pytest.mark.parametrize("class_weight", ["balanced", {0: 1, 1: 5}, {1: 0.25}, {0: 2.0, 2: 1e-3}])
def test_class_weight_is_a_weight_of_rows(options, class_weight):
    X, y = data()
    y[X[:, 2] > 0.8] = 2
    own = np.random.default_rng(0).uniform(0.5, 2, 40)
    given_ = ConvexReLUClassifier(class_weight=class_weight, **options).fit(X, y)
    factors = compute_sample_weight(class_weight, y) / 3  # whole numbers would be counts
    by_hand = ConvexReLUClassifier(**options).fit(X, y, sample_weight=factors)
    # Weights differ in their last digit, of which interior point's preconditioner in single
    # precision makes more.
    close = {"atol": 1e-8, "rtol": 1e-7 if options is GATED else 1e-5}
    np.testing.assert_allclose(outputs(given_, X), outputs(by_hand, X), **close)
    if class_weight != "balanced":  # which would balance the weights, not the rows
        given_ = clone(given_).fit(X, y, sample_weight=own)
        by_hand = ConvexReLUClassifier(**options).fit(X, y, sample_weight=own * factors)
        np.testing.assert_allclose(outputs(given_, X), outputs(by_hand, X), **close)


def test_balanced_classes_weigh_the_same():
    X, _ = data(200)
    y = (X[:, 0] + np.random.default_rng(1).standard_normal(200) > 1.5).astype(int)
    assert 0.05 < y.mean() < 0.3
    plain = ConvexReLUClassifier(**GATED).fit(X, y)
    balanced = ConvexReLUClassifier(class_weight="balanced", **GATED).fit(X, y)
    assert balanced.predict(X)[y == 1].mean() > plain.predict(X)[y == 1].mean() + 0.1


def test_a_class_of_no_weight_is_not_learnt():
    X, y = data()
    y[X[:, 2] > 0.5] = 2
    fitted = ConvexReLUClassifier(class_weight={2: 0}, **GATED).fit(X, y)
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert fitted.predict_proba(X).shape == (40, 3)
    with pytest.raises(ValueError, match="only one class: 1"):
        ConvexReLUClassifier(class_weight={0: 0, 2: 0}, **GATED).fit(X, y)


def test_classes_of_no_weight_at_all():
    X, y = data()
    with pytest.raises(ValueError, match="the data holds none of positive weight"):
        ConvexReLUClassifier(class_weight={0: 0, 1: 0}, **GATED).fit(X, y)


def test_rows_of_no_weight_do_not_disturb_the_balance():
    X, y = data()
    y[X[:, 2] > 0.5] = 2
    kept = y < 2
    balanced = ConvexReLUClassifier(class_weight="balanced", **GATED)
    given_ = clone(balanced).fit(X, y, sample_weight=kept)
    np.testing.assert_array_equal(
        given_.decision_function(X)[:, 1], -given_.decision_function(X)[:, 0]
    )
    expected = clone(balanced).fit(X[kept], y[kept])
    np.testing.assert_array_equal(given_.predict(X), expected.predict(X))


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
@pytest.mark.slow
def test_balanced_classes_in_any_order_and_repeated(seed):
    # Sums and products of weights are rounded, and rounding depends on order and number.
    rng = np.random.default_rng(seed)
    X, y = rng.integers(0, 3, (20, 2)).astype(float), rng.integers(0, 3, 20)
    y[:2] = [0, 1]
    balanced = ConvexReLUClassifier(class_weight="balanced", **GATED)
    order, weight = rng.permutation(20), rng.random(20)
    np.testing.assert_array_equal(
        clone(balanced).fit(X[order], y[order], weight[order]).decision_function(X),
        clone(balanced).fit(X, y, weight).decision_function(X),
    )
    counts = rng.integers(1, 5, 20)
    np.testing.assert_array_equal(
        clone(balanced).fit(X.repeat(counts, axis=0), y.repeat(counts)).decision_function(X),
        clone(balanced).fit(X, y, counts).decision_function(X),
    )


def test_class_weight_may_name_classes_that_the_data_lack():
    X, y = data()
    y = np.where(np.arange(40) < 30, y, 2)
    options = {"class_weight": {0: 1, 2: 5, 3: 7}, **GATED}
    # Later classes are missing in the first folds.
    folds = TimeSeriesSplit(3)
    scores = cross_val_score(ConvexReLUClassifier(**options), X, y, cv=folds, error_score="raise")
    assert np.isfinite(scores).all()
    part = ConvexReLUClassifier(**options).fit(X[:20], y[:20])
    plain = ConvexReLUClassifier(**GATED).fit(X[:20], y[:20])
    np.testing.assert_array_equal(outputs(part, X), outputs(plain, X))
    # Rows of no weight are absent, whatever the weight of their class.
    weight = (y != 2).astype(float)
    absent = ConvexReLUClassifier(**options).fit(X, y, sample_weight=weight)
    assert absent.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({"0": 1.0}, r"class_weight has the keys \['0'\], which are no labels of y"),
        ("even", "class_weight='even'; expected None, 'balanced' or a dict"),
        ({0: -1.0}, "class_weight holds -1.0; .* finite and non-negative"),
        ({0: np.inf}, "class_weight holds inf; .* finite and non-negative"),
        ({0: "2"}, "class_weight holds '2'"),
    ],
)
def test_bad_class_weight(class_weight, message):
    X, y = data()
    with pytest.raises(ValueError, match=message):
        ConvexReLUClassifier(class_weight=class_weight, **GATED).fit(X, y)


@FORMULATIONS
def test_labels_are_but_names(options):
    X, y = data()
    names = np.array(["no", "yes"])
    plain = ConvexReLUClassifier(**options).fit(X, y)
    named = ConvexReLUClassifier(**options).fit(X, names[y])
    assert named.classes_.tolist() == ["no", "yes"]
    np.testing.assert_array_equal(named.predict(X), names[plain.predict(X)])
    np.testing.assert_array_equal(outputs(named, X), outputs(plain, X))
    weighted = ConvexReLUClassifier(class_weight={"yes": 2.0}, **options).fit(X, names[y])
    # Whole numbers would be counts of rows.
    by_hand = ConvexReLUClassifier(**options).fit(X, y, sample_weight=(1.0 + y) / 3)
    np.testing.assert_allclose(outputs(weighted, X), outputs(by_hand, X), atol=1e-8)


# Defaults --------------------------------------------------------------------------------------


def test_the_default_learns():
    X, y = data(200)
    X_new, y_new = data(1000, seed=1)
    classifier = ConvexReLUClassifier(random_state=0).fit(X, y)
    assert classifier.score(X_new, y_new) > 0.85
    target, new = np.abs(X[:, 0]) - X[:, 1], np.abs(X_new[:, 0]) - X_new[:, 1]
    regressor = ConvexReLURegressor(random_state=0).fit(X, target)
    assert regressor.score(X_new, new) > 0.97
    for fitted in (classifier, regressor):
        assert fitted.status_ == "converged"
        assert fitted.n_iter_ == 1
        assert fitted.gap_ <= fitted.tol
        assert fitted.network_.gate_weights is not None


def test_the_default_with_several_outputs():
    X, _ = data(200)
    Y = np.column_stack([np.abs(X[:, 0]), 100 - 1000 * np.maximum(X[:, 1], 0)])
    fitted = ConvexReLURegressor(random_state=0).fit(X, Y)
    X_new, _ = data(500, seed=1)
    expected = np.column_stack([np.abs(X_new[:, 0]), 100 - 1000 * np.maximum(X_new[:, 1], 0)])
    assert fitted.predict(X_new).shape == (500, 2)
    error = ((fitted.predict(X_new) - expected) ** 2).mean(axis=0)
    assert np.all(error < 0.05 * expected.var(axis=0))


@MODELS
@pytest.mark.parametrize("penalty", ["l2", "neuron"])
def test_without_signal_the_strength_is_large(model, penalty):
    rng = np.random.default_rng(0)
    X, y = data(200)
    noise = rng.integers(2, size=200)
    options = {**GATED, "penalty": penalty}
    signal, nothing = model(**options).fit(X, y), model(**options).fit(X, noise)
    assert nothing.alpha_ > (20 if penalty == "l2" else 1.2) * signal.alpha_
    spread = outputs(nothing, X)[:, 0].std() / outputs(signal, X)[:, 0].std()
    assert spread < (0.5 if penalty == "l2" else 0.9)


@MODELS
@pytest.mark.parametrize("formulation", ["relu", "gated"])
def test_the_unit_of_the_strength_is_where_all_vanishes(model, formulation):
    X, y = data(100)
    options = {"formulation": formulation, "penalty": "neuron", "n_patterns": 64, "tol": 1e-4}
    with pytest.warns(UserWarning, match="the same for all rows, at a strength of 1 "):
        full = model(strength=1.0, random_state=0, **options).fit(X, y)
    assert full.alpha_ == full.alpha_max_
    assert outputs(full, X)[:, 0].std() < 0.05 * y.std()
    half = model(strength=0.3, random_state=0, **options).fit(X, y)
    assert half.alpha_ == pytest.approx(0.3 * half.alpha_max_)
    assert outputs(half, X)[:, 0].std() > 0.2 * y.std()


@pytest.mark.parametrize(
    ("n", "d", "expected"),
    [
        (100, 2, 256),
        (100, 5, 640),
        (6000, 50, 1024),
        (6001, 50, 512),
        (23_000, 50, 512),
        (23_001, 50, 512),
        (2**17, 40, 512),
        (2**17 + 1, 40, 511),
        (10**6, 1000, 67),
        (10**7, 2, 32),
    ],
)
def test_number_of_patterns_by_the_size_of_the_data(n, d, expected):
    assert gated_patterns(n, d) == expected


@given(n=st.integers(1, 10**6), d=st.integers(1, 10**6), n_outputs=st.integers(1, 1000))
def test_automatic_patterns_fit_into_memory(n, d, n_outputs):
    found = gated_patterns(n, d, n_outputs)
    assert 1 <= found <= 1024
    assert found * d * (1 + n_outputs) <= 2**25 or found == 1
    # Ordinary tables are not concerned.
    if d * (1 + n_outputs) <= 2**15:
        assert found == gated_patterns(n, d)


@pytest.mark.parametrize(("n", "d", "n_classes"), [(50, 3000, 2), (120, 2000, 12)])
def test_a_fit_holds_three_times_its_network(n, d, n_classes, monkeypatch):
    monkeypatch.setattr(_parameters, "MOST_NUMBERS", 2**19)
    X = sparse.random(n, d, density=0.01, format="csr", random_state=0)
    y = np.arange(n) % n_classes
    ConvexReLUClassifier(random_state=0).fit(X, y)  # what is imported and compiled once
    tracemalloc.start()
    model = ConvexReLUClassifier(random_state=0).fit(X, y)
    model.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    n_outputs = model.network_.n_outputs
    assert model.n_patterns_ <= 2**19 / ((d + 1) * (1 + n_outputs))
    few = 8 * (4 * n * (n + model.n_patterns_ + n_outputs)) + 2**20
    assert peak < 3.6 * 8 * 2**19 + few


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "d", "dtype", "n_kernels"),
    [(2000, 100, np.float32, 2), (8000, 50, np.float32, 0), (8000, 50, np.float64, 0)],
)
def test_memory_of_a_default_fit_is_what_the_guide_says(n, d, dtype, n_kernels):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype(dtype)
    y = np.abs(X[:, :10]).sum(axis=1) > np.abs(X[:, 10:20]).sum(axis=1)
    ConvexReLUClassifier(random_state=0).fit(X[:200], y[:200])
    tracemalloc.start()
    model = ConvexReLUClassifier(random_state=0).fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    P, rank, C = model.n_patterns_, min(n // 8, 1000), model.network_.n_outputs
    guide = _bytes_of_a_fit(X, P, rank, C)
    guide += n_kernels * 4 * n**2
    m = min(n, max(2048, min(n // 4, 4096)))
    choice = n * P + 3 * X.nbytes + 5 * m * (8 * d + 4 * P) + min(25 * m**2, 200 * 2**20) + 2**25
    guide = max(guide, choice)
    assert 0.5 * guide < peak <= guide


def _bytes_of_a_fit(X, P, rank, C):
    """The first formula of the guide, in "Cost and memory of the direct solution"."""
    n, d = X.shape
    return 5 * n * P + 8 * n * rank + 6 * X.nbytes + 32 * d * P * (1 + C) + 2**25


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 12])
def test_memory_of_many_features_is_what_the_guide_says(n_classes, dtype, monkeypatch):
    monkeypatch.setattr(_parameters, "MOST_NUMBERS", 2**22)
    n, d = 60, 4000
    X = np.random.default_rng(0).standard_normal((n, d)).astype(dtype)
    y = np.arange(n) % n_classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # labels that no feature follows
        ConvexReLUClassifier(random_state=0).fit(X[:, :5], y)  # what is imported once
        tracemalloc.start()
        model = ConvexReLUClassifier(random_state=0).fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    guide = _bytes_of_a_fit(X, model.n_patterns_, n // 8, model.network_.n_outputs)
    assert 0.4 * guide < peak <= guide


def test_automatic_number_of_patterns():
    X, y = data()
    assert ConvexReLURegressor(random_state=0).fit(X, y).n_patterns_ == 128 * (X.shape[1] + 1)
    relu = {"formulation": "relu", "patterns": "gaussian", "strength": 0.1, "random_state": 0}
    assert ConvexReLURegressor(**relu).fit(X, y).n_patterns_ == 64


# Data set apart --------------------------------------------------------------------------------

FIRST_ORDER = [
    {"formulation": "relu", "solver": Cronos(tol=1e-12, max_iter=3000, check_every=5)},
    {"penalty": "neuron", "solver": ProximalGradient(tol=1e-12, max_iter=3000, check_every=5)},
]


@pytest.mark.parametrize("options", FIRST_ORDER, ids=["relu", "gated"])
@pytest.mark.slow
def test_validation_data_end_a_fit_early_and_choose_its_network(options):
    (X, y), (X_val, y_val) = noisy(), noisy(200, seed=1)
    options = {**options, "patterns": "gaussian", "n_patterns": 32, "strength": 1e-6}
    fitted = ConvexReLURegressor(**options, n_iter_no_change=3, random_state=0)
    fitted.fit(X, y, X_val=X_val, y_val=y_val)
    scores = fitted.validation_scores_
    assert fitted.status_ == "stopped"
    assert fitted.n_iter_ < 1000
    assert len(scores) == len(fitted.history_["iteration"])
    assert scores.argmax() == len(scores) - 1 - 3
    error = np.mean((fitted.predict(X_val) - y_val) ** 2)
    assert scores.max() == pytest.approx(1 - error / y.var(), rel=1e-12)
    assert scores.max() > scores[-1]


@pytest.mark.parametrize("model", NETWORKS)
def test_validation_data_choose_the_strength_of_the_direct_solution(model):
    (X, y), (X_val, y_val) = noisy(), noisy(200, seed=1)
    if model is ConvexReLUClassifier:
        y, y_val = y > 0.8, y_val > 0.8
    plain = model(**GATED).fit(X, y)
    fitted = model(**GATED).fit(X, y, X_val=X_val, y_val=y_val)
    scores = fitted.validation_scores_
    assert plain.validation_scores_ is None
    assert scores.shape == (9,)
    factor = np.log10(fitted.alpha_ / plain.alpha_)
    assert factor == pytest.approx([0, 0.5, -0.5, 1, -1, 1.5, -1.5, 2, -2][scores.argmax()])
    found = fitted.predict(X_val)
    score = 1 - np.mean((found - y_val) ** 2) / y.var() if y.dtype != bool else None
    score = (found == y_val).mean() if score is None else score
    assert score == pytest.approx(scores.max(), rel=1e-9)
    assert fitted.score(X_val, y_val) >= plain.score(X_val, y_val)
    # Of a strength that is given, there is nothing to choose.
    fixed = model(strength=0.1, **GATED).fit(X, y, X_val=X_val, y_val=y_val)
    assert fixed.alpha_ == pytest.approx(0.1 * fixed.alpha_max_)
    assert fixed.validation_scores_.shape == (1,)


@MODELS
def test_rows_set_apart_are_not_fitted(model):
    X, y = data(60)
    options = {**GATED, "early_stopping": True, "validation_fraction": 0.25}
    fitted = model(**options).fit(X, y)
    assert len(fitted.validation_scores_) == 9
    again = model(**options).fit(X, y)
    np.testing.assert_array_equal(outputs(fitted, X), outputs(again, X))
    # With 15 of 60 rows set apart, scores of the classifier are multiples of 1 / 15.
    if model is ConvexReLUClassifier:
        np.testing.assert_allclose(15 * fitted.validation_scores_ % 1 % 1, 0, atol=1e-9)
    with pytest.raises(ValueError, match=r"cannot set 0.5 of 2 .*early_stopping=False|cannot set"):
        model(**{**options, "validation_fraction": 0.9999}).fit(X[:3], [0, 1, 1])


@pytest.mark.parametrize("kind", ["one row", "constant", "unequal outputs"])
@pytest.mark.parametrize("loss", ["squared", "huber"])
def test_any_validation_data_choose_by_their_error(kind, loss):
    X, y = noisy()
    y = np.column_stack([y, 100 * y + X[:, 1]])
    X_val, y_val = noisy(30, seed=1)
    y_val = np.column_stack([y_val, 100 * y_val + X_val[:, 1]])
    if kind == "one row":
        X_val, y_val = X_val[:1], y_val[:1]
    elif kind == "constant":
        y_val[:] = y_val[0]
    options = {**GATED, "loss": loss, "delta": 1.35, "patterns": "gaussian"}
    fitted = ConvexReLURegressor(**options).fit(X, y, X_val=X_val, y_val=y_val)
    error = np.abs((fitted.predict(X_val) - y_val) / y.std(axis=0))
    if loss == "huber":
        twice = np.where(error < 1.35, error**2, 1.35 * (2 * error - 1.35))
    else:
        twice = error**2
    scores = fitted.validation_scores_
    assert scores.max() == pytest.approx(1 - twice.mean(), rel=1e-9)
    assert np.isfinite(scores).all()
    assert len(scores) == (9 if loss == "squared" else len(fitted.history_["time"]))


@pytest.mark.filterwarnings("ignore:.*cannot tell how sure:UserWarning")
@pytest.mark.slow
@MODELS
@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    fraction=st.sampled_from([0.1, 0.3, 0.6]),
    seed=st.integers(0, 99),
)
def test_early_stopping_on_few_rows(model, sizes, fraction, seed):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    X = np.random.default_rng(seed).standard_normal((len(codes), 2)) + codes[:, None]
    early = model(
        n_patterns=4, random_state=seed, early_stopping=True, validation_fraction=fraction
    )
    n_apart = int(np.ceil(fraction * len(codes)))
    most = len(codes) - (len(sizes) if model is ConvexReLUClassifier else 1)
    if n_apart > most:
        with pytest.raises(ValueError, match=rf"cannot set {fraction} of .* pass X_val and y_val"):
            early.fit(X, codes)
        return
    early.fit(X, codes)
    assert np.isfinite(early.validation_scores_).all()
    assert np.isfinite(outputs(early, X)).all()


def test_each_class_keeps_a_row_to_fit():
    labels = np.repeat([0, 1, 2, 3], [1, 2, 30, 7])
    for seed in range(20):
        kept, apart = split(40, 0.5, labels, np.random.RandomState(seed))
        assert set(labels[kept]) == {0, 1, 2, 3}
        assert sorted([*kept, *apart]) == list(range(40))
        assert len(apart) == 20


def test_equal_scores_leave_the_strength_of_leave_one_out():
    X, y = data(60)
    plain = ConvexReLUClassifier(**GATED).fit(X, y)
    far = np.abs(plain.decision_function(X)).argmax()
    fitted = ConvexReLUClassifier(**GATED).fit(X, y, X_val=X[[far]], y_val=y[[far]])
    assert fitted.validation_scores_[0] == 1
    assert fitted.alpha_ == pytest.approx(plain.alpha_, rel=1e-12)


def test_bad_validation_data():
    X, y = data()
    for given_ in ({"X_val": X}, {"y_val": y}):
        with pytest.raises(ValueError, match="give both or neither"):
            ConvexReLURegressor(**GATED).fit(X, y, **given_)
    with pytest.raises(ValueError, match=r"y_val has labels \[2\] that the fit lacks"):
        ConvexReLUClassifier(**GATED).fit(X, y, X_val=X, y_val=np.full(40, 2))
    with pytest.raises(ValueError, match="y_val has 2 outputs; expected 1, as y"):
        ConvexReLURegressor(**GATED).fit(X, y, X_val=X, y_val=np.ones((40, 2)))
    with pytest.raises(ValueError, match="X has 2 features"):
        ConvexReLURegressor(**GATED).fit(X, y, X_val=X[:, :2], y_val=y)
    with pytest.raises(ValueError, match="NaN"):
        ConvexReLURegressor(**GATED).fit(X, y, X_val=X * np.nan, y_val=y)
    with pytest.raises(ValueError, match=r"validation_fraction=0; expected a number above 0"):
        ConvexReLURegressor(validation_fraction=0).fit(X, y)
    with pytest.raises(ValueError, match=r"n_iter_no_change=0; expected an integer at least 1"):
        ConvexReLURegressor(n_iter_no_change=0).fit(X, y)


def test_a_pipeline_transforms_the_validation_data():
    (X, y), (X_val, y_val) = noisy(), noisy(100, seed=1)
    X, X_val = 1e3 * X + 5, 1e3 * X_val + 5
    with sklearn.config_context(enable_metadata_routing=True):
        model = ConvexReLURegressor(**GATED, standardize=False)
        model.set_fit_request(X_val=True, y_val=True)
        steps = [("scale", StandardScaler()), ("model", model)]
        pipeline = Pipeline(steps, transform_input=["X_val"]).fit(X, y, X_val=X_val, y_val=y_val)
    scale = StandardScaler().fit(X)
    by_hand = ConvexReLURegressor(**GATED, standardize=False)
    by_hand.fit(scale.transform(X), y, X_val=scale.transform(X_val), y_val=y_val)
    fitted = pipeline.named_steps["model"]
    np.testing.assert_array_equal(fitted.validation_scores_, by_hand.validation_scores_)
    np.testing.assert_array_equal(pipeline.predict(X_val), by_hand.predict(scale.transform(X_val)))


def test_a_grid_search_routes_weights():
    X, y = data(60)
    weight = np.random.default_rng(0).integers(0, 3, 60)
    with sklearn.config_context(enable_metadata_routing=True):
        model = ConvexReLUClassifier(**GATED)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"strength": [1e-4, 1e-2, 10.0]}, cv=3)
        search.fit(X, y, sample_weight=weight)
    best = clone(search.best_estimator_).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(outputs(search.best_estimator_, X), outputs(best, X))
    assert search.best_params_["strength"] < 10


# Warm starts -----------------------------------------------------------------------------------

TIGHT = [
    {"formulation": "relu", "solver": Cronos(tol=1e-4, max_iter=20_000, check_every=5)},
    {"penalty": "neuron", "solver": ProximalGradient(tol=1e-4, max_iter=20_000, check_every=5)},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", TIGHT, ids=["relu", "gated"])
def test_a_warm_start_saves_iterations(options):
    X, y = noisy()
    options = {**options, "patterns": "gaussian", "n_patterns": 16, "random_state": 0}
    warm = ConvexReLURegressor(strength=0.1, warm_start=True, **options).fit(X, y)
    first = warm.n_iter_
    warm.fit(X, y)
    assert warm.n_iter_ <= max(5, 0.1 * first)
    warm.set_params(strength=0.099).fit(X, y)
    cold = ConvexReLURegressor(strength=0.099, **options).fit(X, y)
    assert warm.n_iter_ < 0.7 * cold.n_iter_
    assert warm.objective_ == pytest.approx(cold.objective_, rel=1e-3)
    assert warm.status_ == cold.status_ == "converged"


@pytest.mark.parametrize("options", [GATED, RELU], ids=["gated", "relu"])
def test_a_warm_start_on_data_of_another_shape_is_cold(options):
    X, y = noisy()
    warm = ConvexReLURegressor(warm_start=True, **options).fit(X, y)
    for rows, targets in ((X[:, :4], y), (X, np.column_stack([y, X[:, 1]]))):
        warm.fit(rows, targets)
        fresh = clone(warm).fit(rows, targets)
        assert warm.n_iter_ == fresh.n_iter_
        np.testing.assert_array_equal(warm.predict(rows), fresh.predict(rows))
        # Of other rows, the patterns and weights are still of use.
        more, fewer = warm.fit(rows[:50], targets[:50]), clone(warm).fit(rows[:50], targets[:50])
        assert more.objective_ == pytest.approx(fewer.objective_, rel=0.2)
        warm.fit(X, y)


@pytest.mark.parametrize("penalty", ["l2", "neuron"])
@pytest.mark.parametrize(
    "change",
    [
        {"n_patterns": 24},
        {"n_patterns": "auto"},
        {"patterns": "data"},
        {"standardize": False},
        {"fit_intercept": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_warm_start_keeps_no_patterns_that_are_not_asked_for(change, penalty):
    X, y = noisy()
    options = {"penalty": penalty, "n_patterns": 2, "random_state": 0, "solver": None}
    options["solver"] = InteriorPoint(tol=1e-2) if penalty == "neuron" else None
    warm = ConvexReLURegressor(warm_start=True, strength=0.1, **options).fit(X, y)
    if change == {"n_patterns": "auto"} and penalty == "neuron":
        change = {"n_patterns": 40}
    warm.set_params(**change).fit(X, y)
    cold = clone(warm).fit(X, y)
    assert warm.n_patterns_ == cold.n_patterns_
    np.testing.assert_array_equal(warm.predict(X), cold.predict(X))


def test_a_warm_start_from_few_rows_does_not_bind_many():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 2))
    y = np.sin(3 * X[:, 0]) + np.abs(X[:, 1])
    warm = ConvexReLURegressor(warm_start=True, random_state=0).fit(X[:6], y[:6])
    few = warm.n_patterns_
    cold = ConvexReLURegressor(random_state=0).fit(X, y)
    assert warm.fit(X, y).n_patterns_ == cold.n_patterns_ > few
    np.testing.assert_array_equal(warm.predict(X), cold.predict(X))


@pytest.mark.parametrize("penalty", ["l2", "neuron"])
@pytest.mark.parametrize("patterns", ["gaussian", "data", "local"])
def test_a_warm_start_leaves_the_unit_of_the_strength(penalty, patterns):
    X, y = noisy()
    options = {"penalty": penalty, "patterns": patterns, "n_patterns": 16, "random_state": 0}
    warm = ConvexReLURegressor(warm_start=True, tol=1e-3, **options).fit(X, y)
    alpha, unit = warm.alpha_, warm.alpha_max_
    gates = warm._warm[0]
    for _ in range(2):
        warm.fit(X, y)
        assert (warm.alpha_, warm.alpha_max_) == (alpha, unit)
        np.testing.assert_array_equal(warm._warm[0], gates)


@MODELS
def test_a_warm_start_of_the_direct_solution_changes_nothing(model):
    X, y = data()
    warm = model(warm_start=True, **GATED).fit(X, y)
    before = outputs(warm, X)
    np.testing.assert_allclose(outputs(warm.fit(X, y), X), before, atol=1e-9)
    assert not hasattr(model(**GATED).fit(X, y), "_warm")
    for rows in (X[:, :2], np.tile(X, 2)):
        assert np.isfinite(outputs(warm.fit(rows, y), rows)).all()


# Probabilities ---------------------------------------------------------------------------------


def overlapping(n, seed):
    """Two Gaussian classes of known posterior, and columns without use."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=n)
    X = rng.standard_normal((n, 6))
    X[:, 0] += 1.5 * y
    return X, y, 1 / (1 + np.exp(-(1.5 * X[:, 0] - 1.125)))


def calibration_error(y, proba, n_bins=10):
    order = np.array_split(np.argsort(proba), n_bins)
    return float(np.mean([abs(y[rows].mean() - proba[rows].mean()) for rows in order]))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"formulation": "relu", "patterns": "gaussian", "n_patterns": 32},
        {"penalty": "neuron", "n_patterns": 32, "strength": 1e-2, "solver": InteriorPoint()},
    ],
    ids=["default", "relu", "gated"],
)
def test_probabilities_are_frequencies(options):
    X, y, _ = overlapping(200, 0)
    X_new, y_new, posterior = overlapping(4000, 1)
    model = ConvexReLUClassifier(random_state=0, **options).fit(X, y)
    proba = model.predict_proba(X_new)[:, 1]
    error = calibration_error(y_new, proba)
    assert error < 0.12
    if not options:
        assert np.abs(proba - posterior).mean() < 0.1
    else:

        def fitted_to(X, y):
            scores = model.decision_function(X)[:, None]
            return fit_temperature(HeldOut(scores, 2.0 * y[:, None] - 1, np.ones(len(y))))

        # Far more rows than a fit has know the factor; the rows of the fit give one too large.
        rash, best = fitted_to(X, y), fitted_to(X_new, y_new)
        assert best / 1.4 < model.temperature_ < min(1.4 * best, rash)
        if "strength" in options:  # weaker than the automatic one
            assert rash > 1.2 * model.temperature_
            model.temperature_ = rash
            assert calibration_error(y_new, model.predict_proba(X_new)[:, 1]) > error + 0.02


@pytest.mark.filterwarnings("ignore:.*cannot tell how sure:UserWarning")
@pytest.mark.slow
@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    d=st.integers(1, 6),
    seed=st.integers(0, 99),
    options=st.sampled_from(
        [{}, {"patterns": "data"}, {"skip": 0.1}, RELU, {"penalty": "neuron", "max_iter": 50}]
    ),
)
def test_few_rows_leave_doubt(sizes, d, seed, options):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    X = np.random.default_rng(seed).standard_normal((len(codes), d))
    options = {"n_patterns": 16, "solver": None, "random_state": 0, **options}
    if options.get("penalty") == "neuron":
        options["solver"] = InteriorPoint(tol=1e-2)
    model = ConvexReLUClassifier(**options).fit(X, codes)
    proba = model.predict_proba(X)
    # Of n rows, n + 1 of n + 2 are right by the rule of succession.
    most = (len(codes) + 1) / (len(codes) + 2)
    assert proba[np.arange(len(codes)), codes].mean() < most + 0.02
    assert proba.min() > 1e-3


def test_the_temperature_is_that_of_smoothed_targets():
    rng = np.random.default_rng(0)
    codes, weight = rng.integers(3, size=40), rng.integers(1, 4, 40).astype(float)
    scores, n = rng.standard_normal((40, 3)) + np.eye(3)[codes], weight.sum()
    smooth = np.where(np.eye(3)[codes] == 1, (n + 1) / (n + 2), 1 / (n + 2) / 2)

    def loss(factor):
        return log_loss(
            np.tile(np.arange(3), 40),
            softmax(factor * scores, axis=1).repeat(3, axis=0),
            sample_weight=(weight[:, None] * smooth).ravel(),
        )

    held_out = HeldOut(scores, np.eye(3)[codes], weight)
    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(held_out) == pytest.approx(best, rel=1e-5)
    merged = HeldOut(
        *(part.repeat(weight.astype(int), axis=0) for part in held_out[:2]), np.ones(int(n))
    )
    assert fit_temperature(merged) == pytest.approx(best, rel=1e-6)


def test_doubt_falls_with_all_rows_not_only_those_looked_at():
    X = np.random.default_rng(0).standard_normal((3000, 2))
    y = (X[:, 0] > 0).astype(int)
    X[:, 0] += 4 * np.sign(X[:, 0])
    proba = ConvexReLUClassifier(n_patterns=32, random_state=0).fit(X, y).predict_proba(X)
    assert 1 - 2 / 3000 < proba[np.arange(3000), y].mean() < 1


def test_probabilities_take_no_further_fit(monkeypatch):
    X, y, _ = overlapping(60, 0)
    fits = []
    fit_iterative = training.fit_iterative
    monkeypatch.setattr(
        training, "fit_iterative", lambda *a, **k: fits.append(1) or fit_iterative(*a, **k)
    )
    ConvexReLUClassifier(**RELU).fit(X, y)
    assert len(fits) == 1


def test_the_head_shares_the_weights_of_rows():
    X, y = data()
    counts = np.random.default_rng(0).integers(1, 3, 40)
    options = {**RELU, "loss": "pointwise"}
    weighted = COALAPreferenceHead(**options).fit(X, y, sample_weight=counts)
    repeated = COALAPreferenceHead(**options).fit(X.repeat(counts, axis=0), y.repeat(counts))
    assert weighted.objective_ == repeated.objective_
    np.testing.assert_allclose(weighted.reward(X), repeated.reward(X), atol=1e-6)


def test_the_ridge_penalty_of_the_relu_form_is_no_direct_solution():
    X, y, _ = overlapping(60, 0)
    options = {**RELU, "penalty": "l2", "strength": 1e-4}
    ConvexReLUClassifier(**options).fit(X, y)
    early = ConvexReLUClassifier(**options).fit(X, y, X_val=X, y_val=y)
    assert len(early.validation_scores_) == len(early.history_["time"])


@pytest.mark.parametrize("seen_gains", [True, False])
def test_the_link_is_bent_where_chances_are_small(seen_gains):
    # Scores are the chances themselves, as least squares estimates them: one class in a hundred.
    rng = np.random.default_rng(0)
    chances = rng.choice([0.001, 0.05, 0.5], size=4000, p=[0.8, 0.18, 0.02])
    labels = rng.random(4000) < chances
    held_out = HeldOut(
        2 * chances[:, None] - 1, np.where(labels, 1.0, -1.0)[:, None], np.ones(4000)
    )
    seen = held_out
    if not seen_gains:  # the network has learnt them all
        seen = held_out._replace(predictions=held_out.targets)
    temperature, bend = fit_link(held_out, seen)
    if not seen_gains:
        assert bend == 0
        return
    found = probabilities(temperature * bent(held_out.predictions, bend)[:, 0])[:, 1]
    straight = probabilities(fit_temperature(held_out) * held_out.predictions[:, 0])[:, 1]
    assert log_loss(labels, found) < log_loss(labels, chances) + 1e-3
    assert log_loss(labels, found) < 0.92 * log_loss(labels, straight)
