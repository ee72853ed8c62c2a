"""Bad or odd input: a clear error or a documented behaviour, and the estimator stays whole."""

import re
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError

from cvxnn import (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    LinearPreferenceHead,
    SoftmaxPolicy,
)
from cvxnn.convex import Cronos, InteriorPoint, ProximalGradient, Ridge
from cvxnn.estimators import _monitor, _parameters
from cvxnn.numerics.phases import watched_by
from cvxnn.training import SideConstraint

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")

MODELS = [ConvexReLUClassifier, ConvexReLURegressor, COALAPreferenceHead]
HEAD = COALAPreferenceHead


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def model(request):
    return request.param


def make(model, **options):
    return model(**{"n_patterns": 8, "strength": 0.01, "random_state": 0, **options})


def data(n=40):
    X = np.random.default_rng(0).standard_normal((n, 3))
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def values(model, X):
    return model.predict(X) if hasattr(model, "_y_ndim") else model.decision_function(X)


# Values of the data ----------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "message"), [(np.nan, "contains NaN"), (np.inf, "infinity")])
def test_values_that_are_not_finite(model, value, message):
    X, y = data()
    X[3, 1] = value
    with pytest.raises(ValueError, match=message):
        make(model).fit(X, y)


def test_targets_that_are_not_finite(model):
    X, y = data()
    y = y.astype(float)
    y[2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        make(model).fit(X, y)


def test_sparse_targets(model):
    X, y = data()
    with pytest.raises(TypeError, match="passed for y, but dense data is required"):
        make(model).fit(X, sparse.csr_array(y[:, None]))


@pytest.mark.parametrize("formulation", ["gated", "relu"])
def test_pairs_of_equal_embeddings(formulation):
    X, _ = data()
    with pytest.warns(UserWarning, match="have the embeddings of the others: see that the texts"):
        head = make(HEAD, strength="auto", formulation=formulation).fit_pairs(X, X.copy())
    assert np.ptp(head.decision_function(X)) == 0


def test_wrong_dimensions(model):
    X, y = data()
    with pytest.raises(ValueError, match="Expected 2D array, got 1D"):
        make(model).fit(X[:, 0], y)
    with pytest.raises(ValueError, match="dim 3"):
        make(model).fit(X[None], y)


def test_inconsistent_lengths(model):
    X, y = data()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make(model).fit(X, y[:-1])


def test_empty_data(model):
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        make(model).fit(np.empty((0, 3)), np.empty(0))
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        make(model).fit(np.empty((5, 0)), np.arange(5) % 2)


def test_other_width_at_prediction(model):
    X, y = data()
    fitted = make(model).fit(X, y)
    with pytest.raises(ValueError, match=r"X has 2 features, but .* is expecting 3"):
        fitted.predict(X[:, :2])
    X[0, 0] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        fitted.predict(X)


def test_prediction_before_fit(model):
    methods = ["predict", "transform", "explain", "contributions", "neuron_report"]
    if model is not ConvexReLURegressor:
        methods += ["decision_function", "predict_proba", "predict_log_proba"]
    for method in methods:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(make(model), method)(data()[0])
    for attribute in ("feature_importances_", "get_feature_names_out"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(make(model), attribute)()


@pytest.mark.parametrize("model", [ConvexReLUClassifier, HEAD])
def test_one_class(model):
    X, y = data()
    with pytest.raises(ValueError, match="at least 2 classes; the data holds only one class: 1"):
        make(model).fit(X, np.ones(len(X), int))
    with pytest.raises(ValueError, match="only one class"):
        make(model).fit(X, y, sample_weight=(y == 1).astype(float))
    with pytest.raises(ValueError, match="Unknown label type"):
        make(model).fit(X, X[:, 0])


def test_three_labels_of_preference():
    X, y = data()
    y[0] = 2
    with pytest.raises(ValueError, match=r"Only binary.*3 labels; expected 2, preferred or not"):
        make(HEAD).fit(X, y)


# Weights and pairs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.r_[-1, np.ones(39)], "non-negative"),
        (np.r_[np.nan, np.ones(39)], "must be finite"),
        (np.r_[np.inf, np.ones(39)], "must be finite"),
        (np.zeros(40), "not zero everywhere"),
        (np.full(40, 1e307), r"sample_weight: the weights .* float64, with a sum of inf; only"),
        (np.ones(39), r"shape \(39,\); expected \(40,\)"),
        (np.ones((40, 1)), r"shape \(40, 1\); expected \(40,\)"),
        (np.ones(40) + 1j, r"holds complex128, \(1\+1j\) for instance; expected real numbers"),
        (np.array(["a"] * 40), "holds <U1, 'a' for instance; expected real numbers"),
        (np.array([{}] * 40), "holds object, {} for instance; expected real numbers"),
        (np.ma.masked_equal(np.arange(40), 3), "sample_weight is a masked array, 1 of its 40"),
    ],
    ids=[
        *["negative", "nan", "inf", "zero", "huge", "short", "column"],
        *["complex", "text", "object", "masked"],
    ],
)
def test_bad_weights(model, weight, message):
    X, y = data()
    with pytest.raises(ValueError, match=message):
        make(model).fit(X, y, sample_weight=weight)
    if model is HEAD:
        with pytest.raises(ValueError, match=message):
            make(model).fit_pairs(X, -X, sample_weight=weight)


@pytest.mark.filterwarnings("ignore:.*no better than chance")
@pytest.mark.parametrize(("dtype", "least"), [(np.float32, 1e-37), (np.float64, 1e-300)])
def test_weights_that_are_lost_in_rounding_are_zero(model, dtype, least):
    X, y = data(24)
    X, odd = X.astype(dtype), np.arange(24) % 2
    fitted = [
        make(model, strength="auto").fit(X, y, sample_weight=np.where(odd, 1.0, weight))
        for weight in (least, 0.0)
    ]
    np.testing.assert_array_equal(*(values(each, X) for each in fitted))
    spread = np.geomspace(least, 1.0, 24)
    assert np.isfinite(
        values(make(model, strength="auto").fit(X, y, sample_weight=spread), X)
    ).all()


@pytest.mark.parametrize(("size", "total"), [(1e38, "inf"), (1e39, "inf"), (1e-46, "0.0")])
def test_weights_beyond_single_precision(model, size, total):
    X, y = data()
    with pytest.raises(ValueError, match=rf"float32, with a sum of {total}; .*divide them by the"):
        make(model).fit(X.astype(np.float32), y, sample_weight=np.full(40, size))


def test_products_of_weights_out_of_range():
    X, y = data()
    classifier = make(ConvexReLUClassifier, class_weight={0: 1e300, 1: 1})
    with pytest.raises(ValueError, match="sample_weight times class_weight: the weights of"):
        classifier.fit(X, y, sample_weight=np.full(40, 1e10))
    ids = np.arange(40) // 20
    for size in (1e200, 1e-200):
        with pytest.raises(ValueError, match="sample_weight of pairs, the product"):
            make(HEAD).fit(X, y, pair_id=ids, sample_weight=np.full(40, size))
    with pytest.raises(ValueError, match="sample_weight: the weights of"):
        make(HEAD).fit_pairs(X, -X, sample_weight=np.full(40, 4e306))


def test_unequal_pair_counts():
    X, y = data()
    with pytest.raises(ValueError, match=r"chosen has shape \(40, 3\) and rejected \(39, 3\)"):
        make(HEAD).fit_pairs(X, X[:-1])
    with pytest.raises(ValueError, match="one row of each"):
        make(HEAD).fit_pairs(X, X[:, :2])
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        make(HEAD).fit_pairs(np.empty((0, 3)), np.empty((0, 3)))
    X_nan = np.where(X[2, 1] == X, np.nan, X)
    for pair in ((X_nan, X), (X, X_nan)):
        with pytest.raises(ValueError, match="contains NaN"):
            make(HEAD).fit_pairs(*pair)
    head = make(HEAD).fit(X, y)
    with pytest.raises(ValueError, match="chosen has 40 rows and rejected 39"):
        head.reward_margin(X, X[:-1])


def test_bad_pair_id():
    X, y = data()
    with pytest.raises(ValueError, match=r"pair_id has shape \(39,\); expected \(40,\)"):
        make(HEAD).fit(X, y, pair_id=np.zeros(39))
    with pytest.raises(ValueError, match=r"no pair can be formed.*leave pair_id out"):
        make(HEAD).fit(X, y, pair_id=np.arange(40))
    with pytest.raises(ValueError, match=r"pair_id has shape \(40, 2\); expected \(40,\)"):
        make(HEAD).fit(X, y, pair_id=np.zeros((40, 2)))
    pairs = np.arange(40) // 4
    columns = (make(HEAD).fit(X, y, pair_id=ids).reward(X) for ids in (pairs, pairs[:, None]))
    np.testing.assert_array_equal(*columns)


LABELS = {
    "none": (["a", None] * 20, r"{} has no value in 20 of 40 places \(the first is row 1\)"),
    "nan": (np.r_[np.nan, np.arange(39)], "{} has no value in 1 of 40 places"),
    "na": (pd.array([1, None] * 20, dtype="Int64"), "{} has no value in 20 of 40 places"),
    "date": (pd.to_datetime(["2020", None] * 20, format="%Y"), "{} has no value in 20 of 40"),
    "mixed": (np.array(["a", 1] * 20, object), "{} holds labels of .* int and str; make all of"),
    "masked": (np.ma.masked_equal(np.arange(40), 3), "{} is a masked array, 1 of its 40"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_bad_labels_of_rows(kind):
    labels, message = LABELS[kind]
    X, y = data()
    groups, pair_id = message.format("groups"), message.format("pair_id")
    for model in (*MODELS, ConvexReLUClassifierCV, LinearPreferenceHead):
        made = model() if model in (ConvexReLUClassifierCV, LinearPreferenceHead) else make(model)
        with pytest.raises(ValueError, match=groups):
            made.fit(X, y, groups=labels)
    for model in (HEAD, LinearPreferenceHead):
        with pytest.raises(ValueError, match=pair_id):
            model().fit(X, y, pair_id=labels)
        with pytest.raises(ValueError, match=groups):
            model().fit_pairs(X, -X, groups=labels)
    with pytest.raises(ValueError, match=groups):
        SoftmaxPolicy().fit(X, y, labels, chosen=X, rejected=-X)


def test_masked_entries_are_missing(model):
    X, y = data()
    with pytest.raises(ValueError, match="X is a masked array, 1 of its 120 entries have no value"):
        make(model).fit(np.ma.masked_equal(X, X[3, 1]), y)
    with pytest.raises(ValueError, match="y is a masked array"):
        make(model).fit(X, np.ma.masked_array(y, mask=np.arange(40) == 3))
    fitted = make(model).fit(np.ma.masked_array(X, mask=np.zeros_like(X, bool)), y)
    with pytest.raises(ValueError, match="X is a masked array"):
        fitted.predict(np.ma.masked_equal(X, X[3, 1]))


def test_dates_are_no_targets_of_a_regression():
    X, _ = data()
    for dates in (pd.date_range("2020", periods=40), pd.timedelta_range("1D", periods=40)):
        with pytest.raises(ValueError, match=r"y holds (datetime|timedelta)64.*expected numbers"):
            make(ConvexReLURegressor).fit(X, dates)


# Parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strength", -1e-3),
        ("strength", np.nan),
        ("strength", np.inf),
        ("strength", "0.1"),
        ("strength", None),
        ("strength", True),
        ("n_patterns", 0),
        ("n_patterns", 1.5),
        ("n_patterns", True),
        ("tol", -1),
        ("max_iter", 0),
        ("max_iter", 10.0),
    ],
)
def test_bad_numbers(model, name, value):
    X, y = data()
    with pytest.raises(ValueError, match=rf"{name}=.*expected (a number|an integer) at least \d"):
        make(model, **{name: value}).fit(X, y)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("beta", 0, "beta=0; expected a number above 0"),
        ("beta", np.nan, "beta=nan"),
        ("gamma", -0.1, "gamma=-0.1; expected a number at least 0"),
        ("ridge", -1.0, "ridge=-1.0; expected a number at least 0"),
        ("loss", "hinge", r"loss='hinge'; expected one of \('p"),
    ],
)
def test_bad_options_of_the_head(name, value, message):
    X, y = data()
    with pytest.raises(ValueError, match=message):
        make(HEAD, **{name: value}).fit(X, y)
    with pytest.raises(ValueError, match=message):
        make(HEAD, **{name: value}).fit_pairs(X, -X)


def test_bad_patterns_and_solver(model):
    X, y = data()
    with pytest.raises(
        ValueError, match=r"patterns='random'; expected one of \('auto', 'local', 'ada"
    ):
        make(model, patterns="random").fit(X, y)
    for solver in ("cronos", Cronos):
        with pytest.raises(
            TypeError,
            match="expected None, or a Solver such as Cronos, InteriorPoint, ProximalGradient",
        ):
            make(model, solver=solver).fit(X, y)


NETWORKS = [ConvexReLUClassifier, ConvexReLURegressor]


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("loss", "hinge", r"loss='hinge'; expected one of \('squared', "),
        ("loss", None, "loss=None; expected one of"),
        ("formulation", "convex", r"formulation='convex'; expected one of \('relu', 'gated'\)"),
        (
            "penalty",
            "lasso",
            r"penalty='lasso'; expected one of \('auto', 'neuron', 'feature', 'l1', 'l2'",
        ),
        ("skip", -0.1, "skip=-0.1; expected a number at least 0"),
        ("skip", np.nan, "skip=nan; expected a number"),
        ("skip", True, "skip=True; expected a number"),
        ("skip", "0", "skip='0'; expected a number"),
    ],
)
def test_bad_options_of_networks(model, name, value, message):
    X, y = data()
    with pytest.raises(ValueError, match=message):
        make(model, **{name: value}).fit(X, y)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("name", ["fit_intercept", "standardize", "early_stopping", "warm_start"])
@pytest.mark.parametrize("value", ["yes", None, 2, "False"])
def test_switches_are_true_or_false(model, name, value):
    X, y = data()
    message = rf"{name}={value!r}; expected one of \(True, False\)"
    with pytest.raises(ValueError, match=message):
        make(model, **{name: value}).fit(X, y)
    assert make(model, **{name: np.False_}).fit(X, y).score(X, y) > 0.5


@pytest.mark.parametrize("verbose", [-1, "yes", None, 0.5])
def test_bad_verbosity(verbose):
    X, y = data()
    models = [
        ConvexReLUClassifier(verbose=verbose),
        COALAPreferenceHead(verbose=verbose),
        ConvexReLUClassifierCV(verbose=verbose),
        COALAPreferenceHeadCV(verbose=verbose),
    ]
    for model in models:
        with pytest.raises(ValueError, match=rf"verbose={verbose!r}; expected an integer at least"):
            model.fit(X, y)


@pytest.mark.parametrize("delta", [0, -1.0, np.nan, np.inf, "1", True])
def test_bad_delta(delta):
    X, y = data()
    with pytest.raises(ValueError, match=r"delta=.*; expected a number above 0"):
        make(ConvexReLURegressor, delta=delta).fit(X, y)


def test_losses_of_one_estimator_are_not_those_of_the_other():
    X, y = data()
    with pytest.raises(ValueError, match=r"loss='huber'; expected one of .*'logistic'"):
        make(ConvexReLUClassifier, loss="huber").fit(X, y)
    with pytest.raises(ValueError, match=r"loss='logistic'; expected one of .*'huber'"):
        make(ConvexReLURegressor, loss="logistic").fit(X, y)


def test_all_patterns_need_data_that_have_few(model):
    X, y = data()
    # 40 rows with a bias: rank 4, 2 (1 + 39 + 741 + 9139).
    with pytest.raises(ValueError, match=r"so up to 19840 patterns, more than .*n_patterns"):
        make(model, patterns="all").fit(X, y)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("penalty", ["feature", "l1", "l2"])
def test_adaptive_patterns_need_neurons(model, penalty):
    X, y = data()
    with pytest.raises(ValueError, match=rf"'adaptive' needs penalty='neuron', got '{penalty}'"):
        make(model, patterns="adaptive", penalty=penalty).fit(X, y)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        (Cronos(), {}, "ReLU formulation; for the gated one use ProximalGradient or InteriorPoint"),
        (ProximalGradient(), {"formulation": "relu"}, "use Cronos or InteriorPoint|use Cronos"),
        (InteriorPoint(), {"penalty": "l1"}, "takes NeuronGroupLasso and SquaredL2"),
        (Ridge(), {"penalty": "neuron"}, "Ridge needs the gated form.*use InteriorPoint"),
    ],
    ids=["cronos", "gradient", "interior", "ridge"],
)
def test_solvers_that_cannot_do_it_name_those_that_can(model, solver, options, message):
    X, y = data()
    with pytest.raises(TypeError, match=message):
        make(model, solver=solver, **options).fit(X, y)


def test_a_skip_connection_of_logistic_loss_needs_a_ridge():
    X, y = data()
    with pytest.raises(ValueError, match="give it a small one"):
        make(ConvexReLUClassifier, loss="logistic", skip=0).fit(X, y)


# A failed fit ----------------------------------------------------------------------------------


def failures(model):
    X, y = data()
    wide = np.concatenate([X, X], axis=1)
    cases = [
        lambda m: m.fit(np.where(wide == wide[0, 0], np.nan, wide), y),
        lambda m: m.fit(wide, y[:-1]),
        lambda m: m.fit(wide, y, sample_weight=-np.ones(40)),
        lambda m: m.set_params(patterns="?").fit(wide, y),
        lambda m: m.set_params(patterns="local", strength=-1).fit(wide, y),
    ]
    if model is not ConvexReLURegressor:
        cases.append(lambda m: m.set_params(strength=0.01).fit(wide, np.zeros(40)))
    if model is HEAD:
        cases += [
            lambda m: m.fit(wide, y, pair_id=np.arange(40)),
            lambda m: m.fit_pairs(wide, X),
            lambda m: m.fit_pairs(wide, wide, sample_weight=np.zeros(40)),
        ]
    return cases


def test_a_failed_fit_changes_nothing(model):
    X, y = data()
    fitted = make(model).fit(X, y)
    before, attributes = values(fitted, X), set(vars(fitted))
    for failure in failures(model):
        with pytest.raises(ValueError, match=r"\w"):
            failure(fitted)
        np.testing.assert_array_equal(values(fitted, X), before)
        assert set(vars(fitted)) == attributes


def test_a_failed_first_fit_leaves_it_unfitted(model):
    X, y = data()
    fresh = make(model, patterns="?")
    with pytest.raises(ValueError, match="expected one of"):
        fresh.fit(X, y)
    assert not hasattr(fresh, "n_features_in_")
    with pytest.raises(NotFittedError):
        fresh.predict(X)


@pytest.mark.parametrize("in_measurement", [False, True])
def test_an_interrupted_fit_changes_nothing(model, in_measurement, monkeypatch):
    X, y = data()
    fitted = make(model).fit(X, y)
    before = values(fitted, X)

    @contextmanager
    def interrupt(verbose, name):
        def at_once(text, stays):
            if stays == in_measurement:
                raise KeyboardInterrupt

        with watched_by(at_once):
            yield

    monkeypatch.setattr(_monitor, "progress_line", interrupt)
    fitted.set_params(verbose=1)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(-X, 1 - y)
    np.testing.assert_array_equal(values(fitted, X), before)
    monkeypatch.undo()
    fitted.set_params(verbose=0)
    assert not np.array_equal(values(fitted.fit(-X, 1 - y), X), before)


# Odd data --------------------------------------------------------------------------------------


def odd(kind):
    X, y = data()
    if kind == "constant column":
        X[:, 2] = 1e6
    elif kind == "duplicate columns":
        X[:, 2] = X[:, 1]
    elif kind == "zero row":
        X[7] = 0
    elif kind == "duplicate rows":
        X[20:], y[20:] = X[:20], y[:20]
    return X, y


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("kind", ["constant column", "duplicate columns", "zero row"])
def test_degenerate_columns_and_rows(model, kind, standardize):
    X, y = odd(kind)
    if kind == "constant column" and not standardize:
        X[:, 2] = 1.0
    fitted = make(model, standardize=standardize, patterns="gaussian").fit(X, y)
    assert np.isfinite(values(fitted, X)).all()
    assert fitted.score(X, y) > (0.6 if model is ConvexReLURegressor else 0.85)
    rules = make(model, standardize=standardize, patterns="thresholds")
    plain = rules.fit(*data()).score(*data())
    assert np.isfinite(values(rules.fit(X, y), X)).all()
    assert rules.score(X, y) > plain - 0.1


@pytest.mark.parametrize("value", [0.1, 1e6, 1e12])
def test_a_column_that_is_constant_has_no_say(model, value):
    X, y = data()
    plain = make(model, patterns="gaussian").fit(X[:, :2], y)
    X[:, 2] = value
    fitted = make(model, patterns="gaussian").fit(X, y)
    other = np.column_stack([X[:, :2], -X[:, 2]])
    np.testing.assert_array_equal(values(fitted, other), values(fitted, X))
    assert np.isfinite(values(fitted, X)).all()
    assert fitted.score(X, y) >= plain.score(X[:, :2], y) - 0.1


@pytest.mark.parametrize(
    "missing",
    [
        lambda y: np.array(y, object),
        lambda y: pd.Series(y),
        lambda y: pd.Series(y, dtype="string"),
        lambda y: pd.Categorical(y),
    ],
    ids=["object", "series", "string", "categorical"],
)
def test_missing_labels_are_named(model, missing):
    y = missing(["no", "yes", None] * 4)
    with pytest.raises(
        ValueError, match=r"y has no value in 4 of 12 places \(the first is row 2\)"
    ):
        make(model).fit(np.arange(36.0).reshape(12, 3), y)


def test_all_columns_constant(model):
    y = np.arange(40) % 4 == 0
    with pytest.warns(UserWarning, match="predicts the same for all rows") as seen:
        fitted = make(model).fit(np.full((40, 3), 5.0), y.astype(int))
    assert [warning.filename for warning in seen] == [__file__]
    out = values(fitted, np.full((40, 3), 5.0))
    assert np.isfinite(out).all()
    assert len(np.unique(out)) == 1
    if model is ConvexReLURegressor:
        np.testing.assert_allclose(out, 0.25, atol=1e-5)


@pytest.mark.parametrize("source", ["local", "gaussian", "data"])
def test_more_patterns_than_exist(source):
    x = np.linspace(-1, 1, 40)[:, None]
    options = {"formulation": "relu", "n_patterns": 500, "patterns": source, "strength": 1e-3}
    fitted = make(ConvexReLURegressor, **options).fit(x, np.abs(x[:, 0]))
    assert 1 <= fitted.n_patterns_ <= 80
    # Differences of rows have no offset: "data" knows the two gates through the mean only.
    assert fitted.score(x, np.abs(x[:, 0])) > (0.85 if source == "data" else 0.95)
    assert np.all(np.isfinite(fitted.network_.hidden_weights))


@pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning")  # of two
@pytest.mark.filterwarnings("ignore:.*cannot tell how sure:UserWarning")
def test_two_rows(model):
    X = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, -2.0]])
    fitted = make(model).fit(X, [1, 0])
    out = values(fitted, X)
    assert np.isfinite(out).all()
    assert out[0] > out[1]


@pytest.mark.parametrize("model", [ConvexReLURegressor, ConvexReLUClassifier])
def test_text_among_the_numbers_has_a_remedy(model):
    X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    text = X.astype(object)
    text[3, 1] = "large"
    fitted = make(model).fit(X, y)
    for ask in (lambda: make(model).fit(text, y), lambda: fitted.predict(text)):
        with pytest.raises(ValueError, match=r"'large'.* Expected numbers in X: encode"):
            ask()
    with pytest.raises(ValueError, match="numbers in y: for labels use ConvexReLUClassifier"):
        make(ConvexReLURegressor).fit(X, np.where(y, "yes", "no"))


def test_one_row_of_regression():
    fitted = make(ConvexReLURegressor).fit([[1.0, 2.0, 3.0]], [4.0])
    np.testing.assert_allclose(fitted.predict([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), 4.0)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float32, 1e30), (np.float64, 1e200), (np.float32, 1e-30)]
)
def test_huge_and_tiny_features(model, dtype, scale):
    X, y = data()
    X = (X * scale).astype(dtype)
    fitted = make(model).fit(X, y)
    assert np.isfinite(values(fitted, X)).all()
    reference = make(model).fit(data()[0].astype(dtype), y)
    assert fitted.score(X, y) >= reference.score(data()[0].astype(dtype), y) - 0.05


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_huge_and_tiny_targets(scale):
    X, y = data()
    fitted = make(ConvexReLURegressor).fit(X, y * scale)
    np.testing.assert_allclose(
        fitted.predict(X) / scale, make(ConvexReLURegressor).fit(X, y).predict(X), atol=1e-6
    )


def test_values_beyond_the_dtype(model):
    X, y = data()
    most = np.finfo(np.float32).max
    huge = np.full(X.shape, most)
    huge[0] = -most
    with pytest.raises(
        ValueError, match="too large for float32; rescale them, set standardize=True or pass X as"
    ):
        make(model).fit(huge, y)
    if model is ConvexReLURegressor:
        with pytest.raises(ValueError, match="too large for float32"):
            make(model).fit(X.astype(np.float32), 1e200 * y)


def test_huge_features_without_standardize_say_so(model):
    X, y = data()
    huge = (1e30 * X).astype(np.float32)
    with pytest.raises(ValueError, match=r"too large for float32.* standardize=True"):
        make(model, standardize=False).fit(huge, y)


@pytest.mark.parametrize(
    "model",
    [
        ConvexReLURegressor(formulation="relu"),
        ConvexReLURegressor(),
        ConvexReLUClassifier(penalty="neuron", patterns="local"),
        ConvexReLUClassifierCV(ConvexReLUClassifier(formulation="relu"), cv=2),
        COALAPreferenceHead(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_patterns_beyond_memory_are_refused(model, monkeypatch):
    monkeypatch.setattr(_parameters, "_memory", lambda: 2**30)
    X = np.random.default_rng(0).standard_normal((20, 3))
    y = X[:, 0] > 0
    single = getattr(model, "estimator", model)
    single.set_params(n_patterns=2**25)
    with pytest.raises(ValueError, match=r"33554432: .* GiB, and this machine has 1 GiB") as caught:
        model.fit(X, y)
    assert not hasattr(model, "network_")
    most = int(re.search(r"at most (\d+)", str(caught.value)).group(1))
    assert 2**18 < most < 2**25


def test_sides_of_pairs_in_the_place_of_labels_are_refused_in_words():
    sides = np.random.default_rng(0).normal(0, 1, (2, 12, 3))
    head = make(HEAD, n_patterns=4).fit_pairs(*sides)
    more = {"constrained": ([],), "trade_off": (np.arange(12),), "next_labels": (sides[0],)}
    asked = "certificate", "influence", "curvature", "cautious", "score", *more
    calls = [(getattr(head, name), (*sides, *more.get(name, ()))) for name in asked]
    for call, given in [*calls, (make(HEAD).fit, sides), (make(HEAD).partial_fit, sides)]:
        with pytest.raises(ValueError, match="like the two sides of pairs"):
            call(*given)


@pytest.mark.filterwarnings("ignore:.*Rounding stops progress")
def test_a_strength_below_rounding_is_named_where_a_matrix_of_rows_is_factored():
    """Not as a leading minor of LAPACK's; fits themselves warn of rounding."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 2)), rng.normal(size=40)
    settings = {"strength": 1e-300, "standardize": False, "n_patterns": 30}
    fitted, other = (make(ConvexReLURegressor, **settings) for _ in range(2))
    fitted.fit(X, y)
    constraint = SideConstraint.equal_means(X, np.arange(40) % 2)
    for ask in (
        lambda: fitted.influence(X, y),
        lambda: fitted.constrained(X, y, [constraint]),
        lambda: fitted.curvature(X, y),
        lambda: fitted.next_labels(X, y, X, 2),
        lambda: other.partial_fit(X, y),
    ):
        with pytest.raises(np.linalg.LinAlgError, match="larger strength, or with standardize"):
            ask()


@pytest.mark.parametrize("kind", ["array", "table", "sparse"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_numbers_are_named_by_column_and_row(kind, value):
    X, y = data()
    X = np.column_stack([X, X, X])
    X[5:8, 2], X[3, 7] = value, value
    names = [f"c{j}" for j in range(X.shape[1])]
    given = {"array": X, "table": pd.DataFrame(X, columns=names), "sparse": sparse.csr_array(X)}
    first, second = ("'c2'", "'c7'") if kind == "table" else ("2", "7")
    shown = f": 3 in column {first}, 1 in column {second}, the first in row 3. "
    for make_one in (ConvexReLURegressor, ConvexReLUClassifier, COALAPreferenceHead):
        if kind == "sparse" and make_one is COALAPreferenceHead:
            continue
        with pytest.raises(ValueError, match="Input X contains") as raised:
            make_one().fit(given[kind], y)
        told = str(raised.value)
        remedy = "Fill them in, for instance by X.clip"
        if make_one is COALAPreferenceHead:
            remedy = "Leave their rows out; if these are embeddings, make them again."
        elif np.isnan(value):
            remedy = (
                f"Fill them in, for instance by make_pipeline(SimpleImputer(), {make_one.__name__}"
            )
        assert shown + remedy in told
        assert "HistGradient" not in told
    X[:, :] = value
    with pytest.raises(ValueError, match=r"40 in column 0, .* 4, 160 in 4 more, the"):
        ConvexReLURegressor().fit(X, y)
    with pytest.raises(ValueError, match="could not convert string"):
        ConvexReLURegressor().fit(np.full((3, 2), "a"), y[:3])
