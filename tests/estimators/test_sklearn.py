"""The scikit-learn API: its own checks, pipelines, cross-validation, searches."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils.estimator_checks import parametrize_with_checks

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.convex import Cronos, InteriorPoint, ProximalGradient

SMALL = {"n_patterns": 8, "max_iter": 200, "tol": 0.1, "random_state": 0}


@pytest.fixture
def array_api(monkeypatch):
    """Without it, scikit-learn skips its check that NumPy works where other arrays are allowed."""
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


# Labels of some checks are random: that no network is worth its penalty then is said, and right.
@pytest.mark.filterwarnings("ignore:.*predicts the same for all rows:UserWarning")
@pytest.mark.filterwarnings("ignore:.*no better than chance:UserWarning")
@pytest.mark.filterwarnings("ignore:.*was fitted as a whole:UserWarning")
@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation", "array_api")
@parametrize_with_checks(
    [
        ConvexReLUClassifier(random_state=0),
        ConvexReLURegressor(random_state=0),
        ConvexReLUClassifier(formulation="relu", **SMALL),
        COALAPreferenceHead(patterns="gaussian", **SMALL),
        ConvexReLUClassifier(penalty="neuron", **SMALL),
        ConvexReLURegressor(patterns="data", penalty="neuron", skip=0.1, **SMALL),
        ConvexReLURegressor(solver=ProximalGradient(tol=0.1), patterns="gaussian", **SMALL),
        # Without the local search, which compiles another program for each shape.
        ConvexReLURegressor(
            formulation="relu", patterns="gaussian", solver=InteriorPoint(tol=0.1), **SMALL
        ),
        ConvexReLURegressor(formulation="relu", patterns="gaussian", solver=Cronos(), **SMALL),
        # Three classes that a network separates have a far optimum unless strength is large.
        ConvexReLUClassifier(loss="logistic", patterns="gaussian", strength=0.2, **SMALL),
    ]
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def halves(n=48, seed=0):
    """Data whose every training fold of three has 32 rows, so that all folds compile once."""
    X = np.random.default_rng(seed).standard_normal((n, 3))
    return X, np.abs(X[:, 0]) - X[:, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        ConvexReLUClassifier(random_state=0),
        ConvexReLURegressor(random_state=0),
        COALAPreferenceHead(n_patterns=8, strength=0.02, random_state=0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_cross_validated_pipeline(model):
    X, y = halves()
    if not isinstance(model, ConvexReLURegressor):
        y = y > 0.8
    scores = cross_val_score(make_pipeline(StandardScaler(), model), X, y, cv=KFold(3))
    assert scores.shape == (3,)
    assert scores.mean() > 0.75


def test_grid_search_finds_a_sensible_strength():
    X, y = halves()
    search = GridSearchCV(
        ConvexReLURegressor(random_state=0),
        {"strength": [1e-4, 1e-3, 10.0]},
        cv=KFold(3),
    ).fit(X, y)
    assert search.best_params_["strength"] < 1
    assert search.best_score_ > 0.8
    assert np.all(search.cv_results_["mean_test_score"][2] < 0.2)
    assert search.best_estimator_.strength == search.best_params_["strength"]


def test_fit_leaves_parameters_alone():
    X, y = halves(32)
    for model in (ConvexReLUClassifier(**SMALL), COALAPreferenceHead(**SMALL)):
        before = dict(model.get_params())
        assert model.fit(X, y > 0.8) is model
        assert model.get_params() == before


MODELS = [ConvexReLUClassifier, ConvexReLURegressor, COALAPreferenceHead]


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def fitted(request):
    X, y = halves(32)
    model = request.param(n_patterns=8, patterns="gaussian", random_state=0)
    return model.fit(X, y > 0.8), X


def test_hidden_activations_are_features(fitted):
    model, X = fitted
    hidden = model.transform(X)
    network = model.network_
    assert hidden.shape == (32, network.n_neurons)
    assert network.n_neurons > 0
    outputs = (hidden @ network.output_weights + network.output_bias)[:, None]
    np.testing.assert_allclose(outputs, network.forward(X), atol=1e-12)
    # A linear model on them is as good as the output layer.
    assert Ridge(1e-6).fit(hidden, outputs).score(hidden, outputs) > 0.999


def test_transform_speaks_of_data_frames(fitted):
    model, X = fitted
    name = type(model).__name__.lower()
    names = [f"{name}{k}" for k in range(model.network_.n_neurons)]
    assert model.get_feature_names_out().tolist() == names
    frame = model.set_output(transform="pandas").transform(X)
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == names
    polars = pytest.importorskip("polars")
    table = model.set_output(transform="polars").transform(X)
    assert isinstance(table, polars.DataFrame)
    np.testing.assert_array_equal(table.to_numpy(), frame.to_numpy())
    model.set_output(transform="default")
    np.testing.assert_array_equal(model.transform(X), frame.to_numpy())


def test_clones_know_parameters_only(fitted):
    model, _ = fitted
    copy = clone(model.set_params(strength=0.25))
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "network_")


def test_html_names_the_class_before_and_after_the_fit(fitted):
    model, _ = fitted
    for shown in (model, clone(model), make_pipeline(StandardScaler(), clone(model))):
        assert type(model).__name__ in estimator_html_repr(shown)
        assert "n_patterns" in estimator_html_repr(shown)
    assert "fitted" in estimator_html_repr(model).lower()
    # No link to scikit-learn's own documentation, where there is no such class.
    assert "scikit-learn.org/stable/modules/generated/cvxnn" not in estimator_html_repr(model)
