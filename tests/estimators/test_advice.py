"""One warning with its remedy for fits that are constant, empty, or at the end of a range."""

import warnings
from typing import Any

import numpy as np
import pytest

from cvxnn import (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
    LinearPreferenceHead,
    PrivatePreferenceHead,
    SoftmaxPolicy,
)
from cvxnn.convex import FeatureGroupLasso, InteriorPoint
from cvxnn.estimators._advice import end_of_grid

pytestmark = pytest.mark.usefixtures("quick_compilation")

# All without compilation: the closed form, interior point and proximal steps of few patterns.
RELU = {"formulation": "relu", "patterns": "gaussian", "solver": InteriorPoint(tol=1e-2)}
FORMS: dict[str, dict[str, Any]] = {
    "gated": {},
    "gated skip": {"skip": 0.1},
    "gated neuron": {"penalty": "neuron", "solver": InteriorPoint(tol=1e-2)},
    "relu": RELU,
    "relu skip": {**RELU, "skip": 0.1},
}
N = 40
ROWS = np.random.default_rng(0).standard_normal((N, 3))
LABELS = (ROWS[:, 0] > 0).astype(int)
NOISE = np.random.default_rng(1).permutation(np.arange(N) % 2)
PAIRS = np.random.default_rng(2).standard_normal((2, N // 2, 3))


def make(cls: type, **options: Any) -> Any:
    return cls(**{"n_patterns": 8, "random_state": 0, **options})


def told(fit: Any, *data: Any, **more: Any) -> list[str]:
    """Messages of a fit."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        fit(*data, **more)
    assert all(warning.filename == __file__ for warning in seen)
    return [str(warning.message) for warning in seen]


def validated(early: bool) -> dict[str, Any]:
    return {"X_val": ROWS[:12], "y_val": LABELS[:12]} if early else {}


def one(messages: list[str], *parts: str) -> None:
    assert len(messages) == 1, messages
    for part in parts:
        assert part in messages[0]


single = pytest.mark.parametrize("model", [ConvexReLUClassifier, ConvexReLURegressor])


@single
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("early", [False, True])
def test_features_of_one_value(model: type, form: str, early: bool) -> None:
    estimator = make(model, **FORMS[form])
    messages = told(estimator.fit, np.ones((N, 3)), LABELS, **validated(early))
    one(messages, "the same for all", "give features that vary")


@single
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("early", [False, True])
def test_a_good_fit_says_nothing(model: type, form: str, early: bool) -> None:
    estimator = make(model, **FORMS[form], strength=0.01)
    assert not told(estimator.fit, ROWS, LABELS, **validated(early))


@single
@pytest.mark.parametrize("form", ["gated neuron", "relu"])
@pytest.mark.parametrize("early", [False, True])
def test_neurons_that_are_not_worth_their_penalty(model: type, form: str, early: bool) -> None:
    estimator = make(model, **FORMS[form], strength=2.0)
    messages = told(estimator.fit, ROWS, LABELS, **validated(early))
    one(messages, "the same for all", "Decrease strength")
    if not early:
        estimator.set_params(skip=0.1)
        one(told(estimator.fit, ROWS, LABELS), "has no neurons", "Decrease strength")


@pytest.mark.slow
@single
@pytest.mark.parametrize("penalty", ["feature", FeatureGroupLasso()])
def test_removed_features_at_which_gates_look(model: type, penalty: Any) -> None:
    # The target follows one feature: the penalty takes the slopes of the two others off.
    estimator = make(model, penalty=penalty, strength=0.5)
    one(told(estimator.fit, ROWS, LABELS), "removed 2 of 3 features", "Set formulation='relu'")
    output = getattr(estimator, "decision_function", estimator.predict)
    assert estimator.feature_importances_[1:].tolist() == [0, 0]
    assert np.ptp(output(np.column_stack([np.zeros(N), ROWS[:, 1:]]))) > 0
    # With the remedy, they move nothing.
    estimator.set_params(formulation="relu", patterns="gaussian")
    assert not told(estimator.fit, ROWS, LABELS)
    assert estimator.feature_importances_[1:].tolist() == [0, 0]
    assert np.ptp(output(np.column_stack([np.zeros(N), ROWS[:, 1:]]))) == 0
    # Nor is anything said where no feature was removed, or none that varies.
    estimator.set_params(formulation="gated", strength=1e-3)
    assert not told(estimator.fit, np.column_stack([ROWS, np.ones(N)]), LABELS)


@single
def test_a_ridge_without_signal(model: type) -> None:
    message = told(make(model).fit, ROWS, NOISE)
    one(message, "is the strongest that is tried", "Look for others", "groups=")
    assert not told(make(model, strength=0.1).fit, ROWS, NOISE)


def test_targets_without_signal_are_named() -> None:
    Y = np.column_stack([ROWS[:, 0], NOISE, ROWS[:, 1]])
    one(told(make(ConvexReLURegressor).fit, ROWS, Y), "strength of outputs [1]", "strongest")
    options = {**FORMS["gated neuron"], "strength": 0.7}
    one(told(make(ConvexReLURegressor, **options).fit, ROWS, Y), "in outputs [1]")
    far = np.where(ROWS[:, 0] > 0, "right", "left").astype(object)
    far[:2] = "rare"
    message = told(make(ConvexReLUClassifier, **options).fit, ROWS, far.astype(str))
    one(message, "of ['rare']", "Decrease strength")


def test_a_ridge_that_is_too_strong_at_its_weakest() -> None:
    X = ROWS * [1e3, 1, 1]
    model = make(ConvexReLURegressor, n_patterns=64, standardize=False)
    one(told(model.fit, X, ROWS[:, 1]), "is the weakest that is tried", "Keep standardize=True")
    x = np.linspace(-1, 1, 200)[:, None]
    model = make(ConvexReLURegressor, n_patterns=256)
    one(told(model.fit, x, np.sin(40 * x[:, 0])), "is the weakest that is tried", "Set strength=")


@pytest.mark.parametrize(
    ("searched", "held"),
    [
        (ConvexReLUClassifierCV, ConvexReLUClassifier),
        (ConvexReLURegressorCV, ConvexReLURegressor),
    ],
)
def test_the_end_of_a_grid(searched: Any, held: type) -> None:
    estimator, solver = make(held), InteriorPoint(tol=1e-2)
    scoring = "neg_log_loss" if held is ConvexReLUClassifier else None
    short = searched(estimator, strengths=[1.0, 0.3], cv=4, scoring=scoring)
    one(told(short.fit, ROWS, LABELS), "0.3 is the weakest", "smaller eps")
    long = searched(estimator, strengths=[1.0, 1e-1, 1e-2, 1e-3, 1e-6], cv=4)
    assert not told(long.fit, ROWS, LABELS)
    short = searched(estimator, strengths=[0.3, 1e-6], cv=4, scoring=scoring)
    one(told(short.fit, ROWS, NOISE), "0.3 is the strongest", "Give stronger ones")
    whole = searched(estimator, strengths=[1.0, 0.1, 1e-6], cv=4, scoring=scoring)
    one(told(whole.fit, ROWS, NOISE), "1 is the strongest", "look for features")
    norm = searched(make(held, penalty="neuron", solver=solver), strengths=[1.0], cv=4)
    with pytest.warns(UserWarning, match=f"{searched.__name__} found no weaker strength better"):
        norm.fit(ROWS, LABELS)


def test_which_ends_count() -> None:
    rising = np.array([[0.0, 0.5, 1.0], [0.1, 0.6, 0.9], [0.0, 0.4, 0.9]])
    assert end_of_grid(rising, 2) == 1
    assert end_of_grid(rising[:, ::-1], 0) == -1
    assert end_of_grid(rising[:, [0, 2, 1]], 1) == 0  # inside
    assert end_of_grid(rising[:1], 2) == 0  # of one fold nothing is known
    flat = rising.copy()
    flat[:, 2] = flat[:, 1] + 0.01  # a hundredth of the range
    assert end_of_grid(flat, 2) == 0
    unsure = rising.copy()
    unsure[0, 2] = -1.0
    assert end_of_grid(unsure, 2) == 0
    missing = np.vstack([rising, np.full((1, 3), np.nan)])
    assert end_of_grid(missing, 2) == 1


@pytest.mark.parametrize("how", ["pairs", "responses"])
def test_heads(how: str) -> None:
    chosen, rejected = PAIRS[0] + 2, PAIRS[1]
    X, y = np.concatenate([chosen, rejected]), np.repeat([1, 0], len(chosen))

    def fit(head: Any, *, equal: bool = False) -> list[str]:
        if how == "pairs":
            return told(head.fit_pairs, chosen, chosen if equal else rejected)
        return told(head.fit, np.concatenate([chosen, chosen]) if equal else X, y)

    heads = [
        make(COALAPreferenceHead),
        make(COALAPreferenceHead, strength=0.05, **RELU),
        LinearPreferenceHead(),
    ]
    for head in (*heads[:2], LinearPreferenceHead(0.1)):
        assert not fit(head)
    for head in (heads[0], heads[2]):
        assert len(fit(head, equal=True)) == 1
    one(fit(make(COALAPreferenceHead, strength=2.0, **RELU)), "Decrease strength")
    one(fit(make(COALAPreferenceHead, strength=0.05, ridge=1e12, **RELU)), "decrease ridge")
    one(fit(LinearPreferenceHead(1e-12)), "the same reward", "Raise C")
    private = PrivatePreferenceHead(noise_state=0)
    assert not fit(private)
    one(fit(private, equal=True), "nothing but noise", "embeddings differ")


@pytest.mark.slow
def test_the_ends_of_two_grids() -> None:
    held = make(COALAPreferenceHead, **RELU)
    searched = COALAPreferenceHeadCV(held, strengths=[0.9, 0.5, 0.05], ridges=[1e3], n_folds=3)
    (message,) = told(searched.fit_pairs, PAIRS[0] * 3, PAIRS[1])
    assert "0.05 of strengths is the weakest" in message
    assert "Give smaller strengths" in message


def test_heads_of_labels_without_meaning() -> None:
    messages = told(make(COALAPreferenceHead, strength=1e-4).fit, ROWS, NOISE)
    one(messages, "judges responses that were left out of the fit no better than chance", "groups=")


def test_a_policy_held_back() -> None:
    given = {"X": ROWS, "y": np.arange(N) % 4 == 0, "groups": np.arange(N) // 4}
    given |= {"chosen": PAIRS[0], "rejected": PAIRS[1]}
    one(told(SoftmaxPolicy(ridge=1e9).fit, **given), "same probability", "Decrease ridge")
    one(told(SoftmaxPolicy(radius=1e-9).fit, **given), "same probability", "raise radius")
