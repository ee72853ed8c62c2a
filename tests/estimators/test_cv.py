"""Cross-validated estimators: the scores of a naive loop, the choice, the refit, bad input."""

import pickle
from typing import Any

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, make_scorer, r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneOut,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import cvxnn
from cvxnn import (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
    LinearPreferenceHead,
)
from cvxnn.convex import Ridge
from cvxnn.estimators._folds import best_of
from cvxnn.estimators._responses import Responses

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")

STRENGTHS = [0.3, 1e-2, 1e-4]
FOLDS = KFold(3)
OWN = {"strengths", "n_strengths", "eps", "cv", "scoring", "ridges", "n_folds"}


def make(cls: type, strengths: Any = None, **options: Any) -> Any:
    """A cross-validated estimator; what is no option of its own goes to the one it holds."""
    single = {
        ConvexReLUClassifierCV: ConvexReLUClassifier,
        ConvexReLURegressorCV: ConvexReLURegressor,
        COALAPreferenceHeadCV: COALAPreferenceHead,
    }[cls]
    own = {name: value for name, value in options.items() if name in OWN}
    if strengths is not None:
        own["strengths"] = strengths
    held = {name: value for name, value in options.items() if name not in OWN}
    if cls is COALAPreferenceHeadCV:
        held = {"formulation": "relu", **held}
    return cls(single(**{"random_state": 0, **held}), **own)


def table(n: int = 60, d: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    return X, np.abs(X[:, 0]) - X[:, 1] + 0.3 * rng.standard_normal(n)


def classes_of(y: np.ndarray, n_classes: int = 2) -> np.ndarray:
    names = np.array(["few", "many", "some"])
    return names[np.digitize(y, np.quantile(y, np.linspace(0, 1, n_classes + 1)[1:-1]))]


def naive(single: type, X: Any, y: Any, weight: Any = None, **options: Any) -> np.ndarray:
    """Scores of single fits, one for each fold and strength."""
    scores = []
    for seen, unseen in FOLDS.split(X):
        given = {} if weight is None else {"sample_weight": weight[seen]}
        held = {} if weight is None else {"sample_weight": weight[unseen]}
        models = [single(strength, random_state=0, **options) for strength in STRENGTHS]
        scores.append(
            [m.fit(X[seen], y[seen], **given).score(X[unseen], y[unseen], **held) for m in models]
        )
    return np.array(scores)


@pytest.mark.slow
@parametrize_with_checks(
    [
        make(ConvexReLUClassifierCV, cv=3, n_strengths=4),
        make(ConvexReLURegressorCV, cv=3, n_strengths=4),
    ]
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


# One check has a single row of one class; with two folds scikit-learn's own splitter warns.
@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.filterwarnings("ignore:.*predicts the same for all rows:UserWarning")
@pytest.mark.slow
@parametrize_with_checks(
    [
        make(
            COALAPreferenceHeadCV,
            strengths=[0.1],
            ridges=[0.01],
            n_folds=2,
            n_patterns=4,
            patterns="gaussian",
            tol=0.1,
            random_state=0,
        )
    ]
)
def test_checks_of_the_preference_head(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit_intercept": False, "standardize": False},
        {"loss": "huber", "penalty": "neuron", "n_patterns": 8},
        pytest.param(
            {"formulation": "relu", "patterns": "gaussian", "n_patterns": 6}, marks=pytest.mark.slow
        ),
        {"patterns": "data", "skip": 0.1, "n_patterns": 8},
    ],
    ids=["default", "raw", "huber", "relu", "skip"],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_those_of_a_loop_of_single_fits(options: Any, weighted: bool) -> None:
    X, y = table()
    weight = np.random.default_rng(1).exponential(size=len(y)) if weighted else None
    # Both are within the gap of the optimum, not at one point.
    options = {"tol": 1e-6, "max_iter": 5000, **options}
    model = make(ConvexReLURegressorCV, STRENGTHS, cv=FOLDS, **options)
    model.fit(X, y, sample_weight=weight)
    expected = naive(ConvexReLURegressor, X, y, weight, **options)
    np.testing.assert_allclose(model.cv_scores_, expected, atol=5e-3)
    np.testing.assert_array_equal(model.strengths_, STRENGTHS)
    assert model.best_score_ == model.cv_scores_.mean(axis=0).max()
    assert model.best_strength_ == STRENGTHS[model.cv_scores_.mean(axis=0).argmax()]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_scores_of_a_classifier(n_classes: int) -> None:
    X, y = table(90)
    labels = classes_of(y, n_classes)
    options: Any = {"tol": 1e-6, "class_weight": "balanced"}
    model = make(ConvexReLUClassifierCV, STRENGTHS, cv=FOLDS, **options).fit(X, labels)
    expected = naive(ConvexReLUClassifier, X, labels, **options)
    np.testing.assert_allclose(model.cv_scores_, expected, atol=1e-12)


@pytest.mark.parametrize(
    "class_weight", ["balanced", {"few": 5.0, "some": 0.1}, {"few": 0.2, "none": 9.0}]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_of_the_estimator_are_those_of_its_folds(
    class_weight: Any, weighted: bool
) -> None:
    X, y = table()
    labels = classes_of(y, 3)
    # The last fold is not stratified, and its training rows lack a class.
    order = np.argsort(labels == "some", kind="stable")
    X, labels = X[order], labels[order]
    weight = np.random.default_rng(1).exponential(size=len(y)) if weighted else None
    options = {"class_weight": class_weight, "n_patterns": 32, "tol": 1e-6}
    model = make(ConvexReLUClassifierCV, STRENGTHS, cv=FOLDS, **options)
    model.fit(X, labels, sample_weight=weight)
    expected = naive(ConvexReLUClassifier, X, labels, weight, **options)
    np.testing.assert_allclose(model.cv_scores_, expected, atol=1e-12)
    single = ConvexReLUClassifier(model.best_strength_, random_state=0, **options)
    single.fit(X, labels, sample_weight=weight)
    np.testing.assert_array_equal(model.predict_proba(X), single.predict_proba(X))
    plain = ConvexReLUClassifier(model.best_strength_, random_state=0, n_patterns=32)
    plain.fit(X, labels, sample_weight=weight)
    difference = np.abs(plain.decision_function(X) - model.decision_function(X)).max()
    if class_weight == "balanced" and not weighted:  # as the rows are already
        assert difference == 0
    else:
        assert difference > 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_last_fit_is_a_single_fit_at_the_fraction_chosen(dtype: type) -> None:
    X, y = table()
    X = X.astype(dtype)
    model = make(ConvexReLURegressorCV, n_strengths=5).fit(X, y)
    single = ConvexReLURegressor(model.best_strength_, random_state=0).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), single.predict(X))
    assert model.predict(X).dtype == dtype
    assert model.alpha_ == single.alpha_ == pytest.approx(model.best_strength_ * model.alpha_max_)
    missing = {name for name in vars(single) if name.endswith("_")} - vars(model).keys()
    assert not missing
    assert "strength" not in vars(model)


def test_the_default_grid_depends_on_the_penalty() -> None:
    X, y = table(30)
    ridge = make(ConvexReLURegressorCV, cv=2).fit(X, y)
    np.testing.assert_allclose(ridge.strengths_, np.geomspace(1, 1e-6, 20))
    norm = make(
        ConvexReLURegressorCV, cv=2, n_strengths=3, penalty="neuron", n_patterns=4, random_state=0
    ).fit(X, y)
    np.testing.assert_allclose(norm.strengths_, np.geomspace(1, 1e-3, 3))
    given = make(ConvexReLURegressorCV, cv=2, n_strengths=3, eps=0.1).fit(X, y)
    np.testing.assert_allclose(given.strengths_, np.geomspace(1, 0.1, 3))


def test_strengths_are_sorted_and_ties_go_to_the_stronger() -> None:
    X, _ = table()
    labels = np.where(X[:, 0] > 0, 1, 0)
    X[:, 0] += np.where(labels, 20, -20)
    model = make(ConvexReLUClassifierCV, [1e-4, 1e-2, 1e-3, 1e-3], cv=3).fit(X, labels)
    np.testing.assert_array_equal(model.strengths_, [1e-2, 1e-3, 1e-4])
    assert (model.cv_scores_ == 1).all()
    assert model.best_strength_ == 1e-2


def test_no_signal_asks_for_a_strong_penalty_and_much_signal_for_a_weak_one() -> None:
    X, _ = table(200)
    noise = np.random.default_rng(5).standard_normal(200)
    weak = make(ConvexReLURegressorCV).fit(X, np.abs(X[:, 0]) - X[:, 1])
    strong = make(ConvexReLURegressorCV).fit(X, noise)
    assert weak.best_strength_ < 1e-3 < strong.best_strength_
    assert weak.best_score_ > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n_folds", [2, 3])
def test_a_default_grid_of_a_norm_ends_where_no_strength_can_win(n_folds: int) -> None:
    X, y = table()
    y = y + np.random.default_rng(5).standard_normal(len(X))
    options = {"cv": KFold(n_folds), "penalty": "neuron", "n_patterns": 16}
    short = make(ConvexReLURegressorCV, **options).fit(X, y)
    whole = make(ConvexReLURegressorCV, np.geomspace(1, 1e-3, 20), **options).fit(X, y)
    n = len(short.strengths_)
    assert short.cv_scores_.shape == (n_folds, n)
    np.testing.assert_array_equal(short.strengths_, whole.strengths_[:n])
    np.testing.assert_array_equal(short.cv_scores_, whole.cv_scores_[:, :n])
    assert short.best_strength_ == whole.best_strength_
    ends = [j for j in range(1, 21) if n_folds > 2 and worse_in_turn(whole.cv_scores_[:, :j])]
    assert n == min([*ends, 20])
    assert (n < 20) == (n_folds > 2)


def worse_in_turn(scores: np.ndarray) -> bool:
    """Return whether each of the last three scores is worse than the best by a standard error."""
    means = [column.mean() for column in scores.T]
    best = scores[:, means.index(max(means))]
    found = []
    for j in range(max(scores.shape[1] - 3, 0), scores.shape[1]):
        lost = [b - s for b, s in zip(best, scores[:, j], strict=True)]
        found.append(np.mean(lost) > np.std(lost, ddof=1) / np.sqrt(len(lost)))
    return len(found) == 3 and all(found)


def test_strengths_change_only_little_from_local_patterns() -> None:
    X, y = table(48)
    model = make(
        ConvexReLURegressorCV,
        [0.3, 0.03],
        cv=FOLDS,
        formulation="relu",
        n_patterns=8,
        random_state=0,
    ).fit(X, y)
    assert model.best_strength_ == 0.03
    assert model.best_score_ > 0.5


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc", "balanced_accuracy"])
def test_scorers_by_name(scoring: str) -> None:
    X, y = table(90)
    labels = classes_of(y)
    model = make(ConvexReLUClassifierCV, STRENGTHS, cv=3, scoring=scoring).fit(X, labels)
    weights = model.cv_scores_
    assert np.isfinite(weights).all()
    assert model.cv_scores_.mean(axis=0)[1] > model.cv_scores_.mean(axis=0)[0] - 0.5


def test_probabilities_have_the_temperature_of_all_folds() -> None:
    X, y = table(90)
    labels = classes_of(y)
    calibrated = make(
        ConvexReLUClassifierCV, STRENGTHS, cv=FOLDS, scoring="neg_log_loss", random_state=0
    )
    scores = calibrated.fit(X, labels).cv_scores_.mean(axis=0)
    bare = []
    for strength in STRENGTHS:
        losses = []
        for seen, unseen in FOLDS.split(X):
            single = ConvexReLUClassifier(strength, random_state=0).fit(X[seen], labels[seen])
            losses.append(-log_loss(labels[unseen], single.predict_proba(X[unseen])))
        bare.append(np.mean(losses))
    # Single fits find their temperature from fewer rows, by leaving one out.
    np.testing.assert_allclose(scores, bare, atol=0.05)
    assert (scores > -np.log(2)).all()


@pytest.mark.parametrize("grouped", [False, True])
def test_log_odds_of_few_rows_are_scored_as_single_fits_give_them(grouped: bool) -> None:
    X, _ = table(30)
    labels = np.repeat([0, 1], [24, 6])
    X = X + labels[:, None]
    # Three rows of a group are one unit; rows without weight are none.
    groups = np.arange(30) // (3 if grouped else 1)
    weight = np.where(np.arange(30) % 6 == 0, 0.0, 1.0)
    options: Any = {"loss": "logistic", "n_patterns": 8, "tol": 1e-6, "random_state": 0}
    folds = list(StratifiedGroupKFold(2).split(X, labels, groups))
    given = {"sample_weight": weight, "groups": groups if grouped else None}
    kept: list[np.ndarray] = []

    def recorded(model: Any, X: Any, y: Any) -> float:
        kept.append(model.predict_proba(X))
        return 0.0

    make(ConvexReLUClassifierCV, STRENGTHS, cv=folds, scoring=recorded, **options).fit(
        X, labels, **given
    )
    factors = []
    for strength in STRENGTHS:
        for seen, unseen in folds:
            own = {key: None if each is None else each[seen] for key, each in given.items()}
            single = ConvexReLUClassifier(strength, **options)
            single.fit(X[seen], labels[seen], **own)
            factors.append(single.temperature_)
            np.testing.assert_allclose(kept.pop(0), single.predict_proba(X[unseen]), atol=1e-6)
    assert min(factors) < 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("scoring", ["neg_log_loss", "neg_brier_score", "d2_log_loss_score"])
@pytest.mark.parametrize("n_classes", [2, 4])
@settings(max_examples=5)
@given(n_rare=st.integers(1, 4), seed=st.integers(0, 99), weighted=st.booleans())
def test_held_out_rows_may_lack_a_class(
    scoring: str, n_classes: int, n_rare: int, seed: int, weighted: bool
) -> None:
    X, y = table(40, seed=seed)
    labels = np.digitize(y, [-0.5, 0.5]) if n_classes == 4 else np.zeros(40, int)
    labels[np.random.default_rng(seed).permutation(40)[: n_rare + 1]] = n_classes - 1
    weight = np.random.default_rng(1).exponential(size=40) if weighted else None
    kept = {}

    def recorded(model: Any, X: Any, y: Any) -> float:
        kept[len(kept)] = model.predict_proba(X), y
        return 0.0

    options = {"n_patterns": 8, "cv": 5}
    model = make(ConvexReLUClassifierCV, [0.1, 1e-3], scoring=scoring, **options)
    scores = model.fit(X, labels, sample_weight=weight).cv_scores_
    if scoring == "neg_log_loss" and not weighted:
        make(ConvexReLUClassifierCV, [0.1, 1e-3], scoring=recorded, **options).fit(X, labels)
        codes = model.classes_.searchsorted
        by_hand = [np.log(p[np.arange(len(y)), codes(y)]).mean() for p, y in kept.values()]
        np.testing.assert_allclose(scores.T.ravel(), by_hand, rtol=1e-9)
    assert np.isfinite(scores).all()


@pytest.mark.filterwarnings("ignore:The least populated class", "ignore:Only one class is present")
def test_folds_without_a_score_do_not_count() -> None:
    X, y = table(60)
    labels = np.digitize(y, [-0.3])
    labels[:2] = 2
    options = {"strengths": STRENGTHS, "scoring": "roc_auc_ovr", "cv": 5}
    model = make(ConvexReLUClassifierCV, **options).fit(X, labels)
    defined = ~np.isnan(model.cv_scores_).all(axis=1)
    assert defined.sum() == 2
    mean = model.cv_scores_[defined].mean(axis=0)
    assert (model.best_score_, model.best_strength_) == (mean.max(), STRENGTHS[mean.argmax()])


@pytest.mark.parametrize("by_name", [False, True])
def test_a_scorer_without_weights_gets_none(by_name: bool) -> None:
    X, y = table()
    weight = np.random.default_rng(1).exponential(size=len(y))

    def worst(y: np.ndarray, found: np.ndarray) -> float:
        return -float(np.abs(y - found).max())

    def scorer(model: Any, X: np.ndarray, y: np.ndarray) -> float:
        return worst(y, model.predict(X))

    scoring = make_scorer(worst) if by_name else scorer
    model = make(ConvexReLURegressorCV, STRENGTHS, cv=FOLDS, scoring=scoring)
    model.fit(X, y, sample_weight=weight)
    for (seen, unseen), score in zip(FOLDS.split(X), model.cv_scores_[:, 0], strict=True):
        single = ConvexReLURegressor(STRENGTHS[0], random_state=0)
        single.fit(X[seen], y[seen], sample_weight=weight[seen])
        np.testing.assert_allclose(score, worst(y[unseen], single.predict(X[unseen])), rtol=0.05)


def test_a_scorer_of_ones_own() -> None:
    X, y = table()
    seen_rows = []

    def scorer(model: Any, X: np.ndarray, y: np.ndarray) -> float:
        seen_rows.append(len(X))
        return -float(np.abs(model.predict(X) - y).max())

    model = make(ConvexReLURegressorCV, STRENGTHS, cv=3, scoring=scorer).fit(X, y)
    assert seen_rows == [20] * 9
    name = make_scorer(lambda y, f: np.abs(y - f).max(), greater_is_better=False)
    other = make(ConvexReLURegressorCV, STRENGTHS, cv=3, scoring=name).fit(X, y)
    np.testing.assert_array_equal(model.cv_scores_, other.cv_scores_)


def test_folds_may_be_given_in_many_ways() -> None:
    X, y = table()
    groups = np.arange(60) % 3
    by_groups = make(ConvexReLURegressorCV, STRENGTHS, cv=GroupKFold(3))
    by_groups.fit(X, y, groups=groups)
    pairs = [(np.flatnonzero(groups != k), np.flatnonzero(groups == k)) for k in (0, 1, 2)]
    given = make(ConvexReLURegressorCV, STRENGTHS, cv=pairs).fit(X, y)
    order = [
        int(np.isclose(given.cv_scores_, row).all(axis=1).argmax()) for row in by_groups.cv_scores_
    ]
    assert sorted(order) == [0, 1, 2]
    labels = classes_of(y)
    number = make(ConvexReLUClassifierCV, STRENGTHS, cv=3).fit(X, labels)
    same = make(ConvexReLUClassifierCV, STRENGTHS, cv=StratifiedKFold(3)).fit(X, labels)
    np.testing.assert_array_equal(number.cv_scores_, same.cv_scores_)


def test_sparse_rows_give_what_dense_ones_give() -> None:
    X, y = table()
    X[np.abs(X) < 0.5] = 0
    # Sparse rows have no thresholds.
    options = {"patterns": "gaussian", "standardize": False, "tol": 1e-6, "random_state": 0}
    dense, thin = (
        make(ConvexReLURegressorCV, STRENGTHS, cv=3, **options).fit(A, y)
        for A in (X, sparse.csr_array(X))
    )
    np.testing.assert_allclose(thin.cv_scores_, dense.cv_scores_, atol=1e-4)
    np.testing.assert_allclose(thin.predict(sparse.csr_array(X)), dense.predict(X), atol=1e-6)


def test_several_outputs_and_a_solver_of_ones_own() -> None:
    X, y = table()
    Y = np.column_stack([y, X[:, 2]])
    model = make(
        ConvexReLURegressorCV, STRENGTHS, cv=3, solver=Ridge(tol=1e-8), random_state=0
    ).fit(X, Y)
    alone = make(ConvexReLURegressorCV, STRENGTHS, cv=3).fit(X, Y)
    np.testing.assert_allclose(model.cv_scores_, alone.cv_scores_, atol=0.01)
    assert model.predict(X).shape == Y.shape


def test_lives_in_pipelines_searches_and_files(tmp_path: Any) -> None:
    X, y = table()
    model = make(ConvexReLURegressorCV, n_strengths=4, cv=3)
    piped = make_pipeline(StandardScaler(), clone(model)).fit(X, y)
    assert piped.score(X, y) > 0.5
    search = GridSearchCV(model, {"estimator__n_patterns": [4, 32]}, cv=2).fit(X, y)
    assert search.best_params_["estimator__n_patterns"] in (4, 32)
    model.fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    copy, parameters = clone(model).get_params(), model.get_params()
    assert copy.pop("estimator") is not parameters.pop("estimator")
    assert copy == parameters
    path = tmp_path / "model.safetensors"
    cvxnn.save(model, path)
    loaded = cvxnn.load(path)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.cv_scores_, model.cv_scores_)
    assert type(loaded.estimator) is ConvexReLURegressor
    assert loaded.estimator.get_params() == model.estimator.get_params()


def test_metadata_are_routed() -> None:
    X, y = table()
    weight, groups = np.random.default_rng(0).exponential(size=60), np.arange(60) // 10
    with sklearn.config_context(enable_metadata_routing=True):
        model = make(ConvexReLURegressorCV, STRENGTHS, cv=GroupKFold(3))
        model.set_fit_request(sample_weight=True, groups=True)
        piped = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model).fit(
            X, y, sample_weight=weight, groups=groups
        )
    alone = clone(model).fit(StandardScaler().fit_transform(X), y, weight, groups=groups)
    np.testing.assert_array_equal(piped[-1].cv_scores_, alone.cv_scores_)


def test_a_gap_that_is_not_reached_is_told() -> None:
    X, y = table()
    few = Ridge(tol=1e-8, max_iter=1, max_dense=10, rank=5)
    model = make(ConvexReLURegressorCV, [1e-6], cv=2, solver=few, random_state=0)
    with (
        pytest.warns(ConvergenceWarning, match="stopped after 1 iterations"),
        pytest.warns(ConvergenceWarning, match=r"2 of 2 solutions .* gap above 1e-08"),
    ):
        model.fit(X, y)


@pytest.mark.parametrize(
    "strengths", [[], [0.0], [-0.1], [1.5], [np.nan], ["a"], 0.1, [[0.1]], [True]]
)
def test_refuses_strengths_that_are_no_fractions(strengths: Any) -> None:
    with pytest.raises(ValueError, match=r"strengths=.*above 0 and at most 1"):
        make(ConvexReLURegressorCV, strengths).fit(*table())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_strengths": 0}, r"n_strengths=0; expected an integer"),
        ({"eps": 0.0}, r"eps=0.0; expected a number above 0"),
        ({"eps": 1.0}, r"eps=1.0; expected a number below 1"),
        ({"cv": 1}, r"at least one train/test split"),
        ({"cv": 100}, r"greater than the number of samples"),
        ({"cv": "many"}, r"Expected .?cv.? as an integer"),
        ({"scoring": "no such score"}, r"scor"),
        ({"scoring": lambda *_: "good"}, r"expected one number"),
        ({"scoring": lambda *_: np.nan}, r"no finite score"),
        ({"scoring": lambda m, X, y: m.predict(X + 1).sum()}, r"other rows"),
        ({"cv": [(np.arange(30), np.arange(0))]}, r"fold 0 .* no held-out row"),
    ],
)
def test_bad_options_are_named(options: Any, message: str) -> None:
    model = make(ConvexReLURegressorCV, **{"strengths": None, "n_strengths": 2, **options})
    before = dict(vars(model))
    with pytest.raises(ValueError, match=message):
        model.fit(*table(30))
    assert vars(model) == before


def test_folds_of_single_rows_have_no_coefficient_of_determination() -> None:
    model = make(ConvexReLURegressorCV, STRENGTHS, cv=LeaveOneOut())
    with pytest.raises(ValueError, match="no finite score for any strength; use a cv with more"):
        model.fit(*table(6))


def test_classes_smaller_than_the_folds() -> None:
    X, _ = table(30)
    rare = np.where(np.arange(30) < 2, "rare", "common")
    with pytest.warns(UserWarning, match="least populated class"):
        make(ConvexReLUClassifierCV, [0.1], cv=3).fit(X, rare)
    with pytest.raises(ValueError, match="number of members in each class"):
        make(ConvexReLUClassifierCV, [0.1], cv=20).fit(X, np.arange(30) % 2)
    with pytest.raises(ValueError, match=r"training rows of fold 0 .* only one class, 'common'"):
        make(ConvexReLUClassifierCV, [0.1], cv=KFold(2)).fit(X, rare)


def pairs(n: int = 60, d: int = 6, shift: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)) + shift, rng.standard_normal((n, d)) - shift


SMALL: Any = {"n_patterns": 6, "patterns": "gaussian", "tol": 0.05, "random_state": 0}


@pytest.mark.parametrize(
    ("cls", "held"),
    [
        (ConvexReLUClassifierCV, ConvexReLUClassifier),
        (ConvexReLURegressorCV, ConvexReLURegressor),
    ],
)
def test_an_estimator_is_held_and_never_fitted(cls: Any, held: Any) -> None:
    X, y = table()
    y = (y > 0).astype(int)
    single = held(n_patterns=16, strength=0.5, random_state=0)
    before = dict(vars(single))
    model = cls(single, n_strengths=3, cv=2).fit(X, y)
    assert model.estimator is single
    assert vars(single) == before
    assert model.n_patterns_ == 16
    assert model.strength_ == pytest.approx(model.best_strength_)
    # Nothing has to be given.
    bare = cls(cv=2, n_strengths=2).fit(X, y)
    assert bare.estimator is None
    assert bare.score(X, y) > 0.5
    with pytest.raises(TypeError, match=rf"estimator=KFold.*; expected None or a {held.__name__}"):
        cls(FOLDS).fit(X, y)
    with pytest.raises(ValueError, match="tol=-1; expected a number at least 0"):
        cls(held(tol=-1)).fit(X, y)


def test_what_a_fitted_network_offers() -> None:
    X, y = table()
    model = make(ConvexReLUClassifierCV, n_strengths=3, cv=2).fit(X, classes_of(y))
    assert model.transform(X).shape == (60, model.network_.n_neurons)
    assert model.explain(X).weights.shape == (60, 1, 4)
    assert len(model.get_feature_names_out()) == model.network_.n_neurons
    assert str(model.neuron_report(X))
    head = make(COALAPreferenceHeadCV, [0.1], ridges=[0.1], n_folds=2, **SMALL)
    won, lost = pairs(20)
    head.fit_pairs(won, lost)
    assert head.transform(won).shape == (20, head.network_.n_neurons)
    assert (head.beta, head.embedding) == (1.0, None)
    head.set_params(estimator__beta=2.0)
    assert head.beta == 2


def test_callbacks_and_warm_starts_are_of_the_last_fit() -> None:
    X, y = table()
    monitor = ScoringMonitor(scoring="r2")
    model = make(ConvexReLURegressorCV, n_strengths=3, cv=2, warm_start=True)
    model.set_callbacks(monitor).fit(X, y)
    rows = monitor.get_logs().data
    assert [row["task_name"] for row in rows].count("fit") == 1
    assert rows[-1]["r2"] == pytest.approx(model.score(X, y))
    gates = model._warm[0]
    model.fit(X, y)
    np.testing.assert_array_equal(model._warm[0], gates)


@pytest.mark.slow
def test_preference_head_chooses_both_strengths() -> None:
    won, lost = pairs()
    head = make(COALAPreferenceHeadCV, strengths=[0.9, 0.1], ridges=[0.1, 0.01], n_folds=2, **SMALL)
    head.fit_pairs(won, lost)
    assert head.cv_scores_.shape == (2, 2, 2)
    mean = head.cv_scores_.mean(axis=0)
    assert head.best_score_ == mean.max() > 0.8
    i, j = np.argwhere(mean == mean.max())[0]
    assert (head.best_strength_, head.best_ridge_) == (head.strengths_[i], head.ridges_[j])
    single = COALAPreferenceHead(
        formulation="relu", strength=head.best_strength_, ridge=head.best_ridge_, **SMALL
    )
    single.fit_pairs(won, lost)
    np.testing.assert_array_equal(head.reward(won), single.reward(won))
    assert not {"strength", "ridge"} & vars(head).keys()


@pytest.mark.slow
def test_preference_scores_are_those_of_single_heads() -> None:
    won, lost = pairs()
    X, y = np.concatenate([won, lost]), np.repeat([1, 0], 60)
    ids = np.tile(np.arange(60), 2)
    head = make(
        COALAPreferenceHeadCV, strengths=[0.1], ridges=[0.1], n_folds=3, **{**SMALL, "tol": 1e-4}
    )
    head.fit(X, y, pair_id=ids)
    rows = Responses(
        X, y == 1, np.ones(120), np.column_stack([np.arange(60), np.arange(60) + 60]), np.ones(60)
    )
    for (seen, unseen), score in zip(rows.folds(3), head.cv_scores_, strict=True):
        assert not set(ids[seen]) & set(ids[unseen])
        single = COALAPreferenceHead(
            formulation="relu", strength=0.1, ridge=0.1, **{**SMALL, "tol": 1e-4}
        )
        single.fit(X[seen], y[seen], pair_id=ids[seen])
        held = np.unique(ids[unseen])
        accuracy = (single.reward_margin(won[held], lost[held]) > 0).mean()
        assert score[0, 0] == pytest.approx(accuracy, abs=0.051)


@pytest.mark.slow
def test_preference_head_without_pairs() -> None:
    won, lost = pairs()
    X, y = np.concatenate([won, lost]), np.repeat([True, False], 60)
    head = make(COALAPreferenceHeadCV, strengths=[0.1], ridges=[0.1], n_folds=2, **SMALL).fit(X, y)
    assert head.best_score_ > 0.7
    again = pickle.loads(pickle.dumps(head))
    np.testing.assert_array_equal(again.predict_proba(X), head.predict_proba(X))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": [2.0]}, "strengths=.*at most 1"),
        ({"ridges": []}, "ridges=.*above 0"),
        ({"ridges": [0.0]}, "ridges=.*above 0"),
        ({"n_folds": 1}, "n_folds=1; expected an integer at least 2"),
    ],
)
def test_bad_options_of_the_preference_head(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(COALAPreferenceHeadCV, **options, **SMALL).fit_pairs(*pairs(20))


def test_more_folds_than_responses_of_a_label() -> None:
    won, lost = pairs(6)
    X, y = np.concatenate([won, lost[:2]]), np.repeat([1, 0], [6, 2])
    head = make(COALAPreferenceHeadCV, [0.1], ridges=[0.1], n_folds=3, **SMALL)
    assert head.fit(X, y).cv_scores_.shape[0] == 3
    with pytest.raises(ValueError, match="n_folds=3, but no label has more than 2 distinct resp"):
        head.fit(X[4:], y[4:])
    with pytest.raises(ValueError, match="n_folds=3, but there are only 2 prompts with a pair"):
        head.fit_pairs(won[:2], lost[:2])
    # The linear head makes fewer.
    assert LinearPreferenceHead(n_folds=3).fit(X, y).cv_scores_.shape[0] == 2


def test_sparse_rows_whatever_strength_the_estimator_has() -> None:
    X, y = table()
    rows = sparse.csr_array(np.where(X > 0, X, 0))
    assert make(ConvexReLURegressorCV, [0.1], cv=2, strength=0).fit(rows, y).gap_ <= 1e-2


@pytest.mark.parametrize("scoring", [None, "r2"])
@pytest.mark.parametrize("weighted", [False, True])
def test_rounding_of_constant_targets_chooses_no_strength(scoring: Any, weighted: bool) -> None:
    # The mean of several numbers 0.1 is another number, so that R2 was -1e31 in one fold.
    X, y = table(30)
    y = np.where(np.arange(30) < 20, 0.1, y)
    weight = np.random.default_rng(0).random(30) if weighted else None
    folds = [(np.arange(10, 30), np.arange(k, k + 10)) for k in (0, 10)]
    folds[1] = np.arange(20), np.arange(20, 30)
    model = make(ConvexReLURegressorCV, [0.1, 0.01], cv=folds, scoring=scoring, n_patterns=8)
    model.fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(model.cv_scores_[0], 0)  # as in scikit-learn, of constants
    truth, own = y[20:], None if weight is None else weight[20:]
    single = ConvexReLURegressor(strength=0.01, n_patterns=8, random_state=0)
    single.fit(X[:20], y[:20], sample_weight=None if weight is None else weight[:20])
    expected = r2_score(truth, single.predict(X[20:]), sample_weight=own)
    assert model.cv_scores_[1, 1] == pytest.approx(expected, rel=1e-2)


def test_folds_of_one_row_have_no_coefficient_of_determination() -> None:
    X, y = table(10)
    folds = [(np.delete(np.arange(10), k), [k]) for k in range(2)] + [(np.arange(5), range(5, 10))]
    model = make(ConvexReLURegressorCV, [0.1, 0.01], cv=folds, n_patterns=8).fit(X, y)
    np.testing.assert_array_equal(np.isnan(model.cv_scores_), [[True] * 2] * 2 + [[False] * 2])
    assert model.best_score_ == model.cv_scores_[2].max()


def test_scores_that_only_a_gap_tells_apart_are_equal() -> None:
    """Of equal ones, that of the first strength wins, the strongest."""
    scores = np.array([[-0.3, -0.3 + 3e-8, -0.4], [-0.2, -0.2 + 1e-8, -0.3]])
    assert best_of(scores)[0] == 0
    assert best_of(scores + np.array([0, 1e-3, 0]))[0] == 1
