"""The scikit-learn API: its own checks, pipelines, cross-validation, searches."""

import jax
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.solvers import Cronos, InteriorPoint, ProximalGradient, Ridge

SMALL = {"n_patterns": 8, "max_iter": 200, "tol": 0.1, "random_state": 0}


@pytest.fixture
def quick_compilation():
    """Nearly every check has data of another shape, and most of its time is compilation."""
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@parametrize_with_checks(
    [
        ConvexReLUClassifier(random_state=0),
        ConvexReLURegressor(random_state=0),
        ConvexReLUClassifier(formulation="relu", **SMALL),
        # Without the local search, which compiles another program for each shape.
        ConvexReLURegressor(formulation="relu", patterns="gaussian", **SMALL),
        COALAPreferenceHead(patterns="gaussian", **SMALL),
        ConvexReLUClassifier(penalty="neuron", **SMALL),
        ConvexReLURegressor(patterns="data", penalty="neuron", skip=0.1, **SMALL),
        ConvexReLURegressor(solver=ProximalGradient(tol=0.1), patterns="gaussian", **SMALL),
        ConvexReLURegressor(
            formulation="relu", patterns="gaussian", solver=InteriorPoint(tol=0.1), **SMALL
        ),
        ConvexReLURegressor(formulation="relu", patterns="gaussian", solver=Cronos(), **SMALL),
        ConvexReLUClassifier(solver=Ridge(), **SMALL),
        # Three classes that a network separates have a far optimum unless alpha is large.
        ConvexReLUClassifier(loss="logistic", patterns="gaussian", alpha=0.2, **SMALL),
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
    ("model", "floor"),
    [
        (ConvexReLUClassifier(n_patterns=8, alpha=0.01, random_state=0), 0.8),
        (ConvexReLURegressor(n_patterns=8, alpha=0.01, random_state=0), 0.8),
        (COALAPreferenceHead(n_patterns=8, alpha=0.01, random_state=0), 0.8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_cross_validated_pipeline(model, floor):
    X, y = halves()
    if not isinstance(model, ConvexReLURegressor):
        y = y > 0.8
    scores = cross_val_score(make_pipeline(StandardScaler(), model), X, y, cv=KFold(3))
    assert scores.shape == (3,)
    assert scores.mean() > floor


@pytest.mark.slow
def test_grid_search_finds_a_sensible_alpha():
    X, y = halves()
    search = GridSearchCV(
        ConvexReLURegressor(n_patterns=8, random_state=0),
        {"alpha": [1e-3, 1e-2, 10.0]},
        cv=KFold(3),
    ).fit(X, y)
    assert search.best_params_["alpha"] < 1
    assert search.best_score_ > 0.8
    assert np.all(search.cv_results_["mean_test_score"][2] < 0.2)
    assert search.best_estimator_.alpha == search.best_params_["alpha"]


def test_fit_leaves_parameters_alone():
    X, y = halves(32)
    for model in (ConvexReLUClassifier(**SMALL), COALAPreferenceHead(**SMALL)):
        before = dict(model.get_params())
        assert model.fit(X, y > 0.8) is model
        assert model.get_params() == before
