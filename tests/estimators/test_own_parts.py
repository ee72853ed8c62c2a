"""Losses, penalties and solvers of a user's own in the estimators, through public names alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs

import cvxnn
from cvxnn import ConvexReLUClassifier, ConvexReLUClassifierCV, ConvexReLURegressor
from cvxnn.convex import (
    L1,
    HuberLoss,
    Loss,
    MultinomialLoss,
    NeuronGroupLasso,
    ProximalGradient,
    SquaredL2,
    SquaredLoss,
    register_pytree,
)

rng = np.random.default_rng(0)
X = rng.standard_normal((40, 3))
y = np.abs(X[:, 0]) + 0.1 * rng.standard_normal(40)
pytestmark = pytest.mark.usefixtures("quick_compilation")
OPTIONS = {"n_patterns": 8, "random_state": 0, "tol": 1e-4}


@register_pytree
@dataclass(frozen=True)
class OwnSquaredLoss(Loss):
    """The squared loss, written by somebody else."""

    @property
    def curvature(self) -> float:
        return 1.0

    def value(self, prediction: Any, target: Any) -> Any:
        return (prediction - target) ** 2 / 2

    def gradient(self, prediction: Any, target: Any) -> Any:
        return prediction - target

    def hessian(self, prediction: Any, target: Any) -> Any:
        return 1 + 0 * prediction

    def conjugate(self, dual: Any, target: Any) -> Any:
        return dual**2 / 2 + dual * target


@register_pytree
@dataclass(frozen=True)
class OwnRidge:
    def value(self, U: Any) -> Any:
        return (U**2).sum() / 2

    def prox(self, U: Any, step: Any) -> Any:
        return U / (1 + step)

    def conjugate(self, U: Any) -> Any:
        return (U**2).sum(axis=(1, 2, 3)) / 2


@register_pytree
@dataclass(frozen=True)
class OwnSolver(ProximalGradient):
    """One that the package does not know."""


class Unregistered(ProximalGradient):
    """One that nothing can compile."""


@pytest.mark.slow
def test_a_loss_and_a_penalty_of_ones_own_give_the_fit_of_those_they_equal() -> None:
    known = ConvexReLURegressor(0.01, feature_factors="equal", **OPTIONS).fit(X, y)
    own = ConvexReLURegressor(
        0.01, loss=OwnSquaredLoss(), penalty=OwnRidge(), **{**OPTIONS, "tol": 1e-8}
    ).fit(X, y)
    # The unit of the strength and the scaled targets are the same.
    assert own.alpha_ == pytest.approx(known.alpha_, rel=1e-12)
    assert own.objective_ == pytest.approx(known.objective_, rel=1e-7)
    np.testing.assert_allclose(own.predict(X), known.predict(X), atol=1e-3)


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ({"loss": "huber", "delta": 0.5}, {"loss": HuberLoss(0.5)}),
        ({"penalty": "l1"}, {"penalty": L1()}),
        ({"penalty": "l2"}, {"penalty": SquaredL2(), "loss": SquaredLoss()}),
        ({"formulation": "relu"}, {"formulation": "relu", "penalty": NeuronGroupLasso()}),
    ],
)
def test_objects_of_the_package_equal_their_names(word: dict, part: dict) -> None:
    named, given = (ConvexReLURegressor(0.05, **OPTIONS, **each).fit(X, y) for each in (word, part))
    np.testing.assert_array_equal(named.predict(X), given.predict(X))
    assert clone(given).get_params()["penalty"] == part.get("penalty", "auto")


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.slow
def test_a_classifier_gives_a_loss_of_ones_own_targets_of_one(n_classes: int) -> None:
    Z, labels = make_blobs(60, 3, centers=n_classes, random_state=0)
    own = {"loss": OwnSquaredLoss(), "penalty": OwnRidge()}
    model = ConvexReLUClassifier(0.01, **own, **OPTIONS).fit(Z, labels)
    assert model.score(Z, labels) > 0.9
    assert model.gap_ <= 1e-4
    probabilities = model.predict_proba(Z)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.9
    if n_classes == 2:
        held = ConvexReLUClassifier(**own, **OPTIONS)
        search = ConvexReLUClassifierCV(held, strengths=[0.1, 0.01], cv=2).fit(Z, labels)
        assert search.score(Z, labels) > 0.9


@pytest.mark.slow
def test_a_coupled_loss_has_one_hot_targets_and_more_than_two_classes() -> None:
    Z, labels = make_blobs(60, 3, centers=3, random_state=0)
    named, given = (
        ConvexReLUClassifier(0.05, loss=loss, penalty="neuron", **OPTIONS).fit(Z, labels)
        for loss in ("multinomial", MultinomialLoss())
    )
    np.testing.assert_array_equal(named.predict_proba(Z), given.predict_proba(Z))
    with pytest.raises(ValueError, match="couples outputs, and two classes have one"):
        ConvexReLUClassifier(loss=MultinomialLoss()).fit(Z, labels == 0)


def test_a_solver_of_ones_own() -> None:
    options = {**OPTIONS, "penalty": "neuron", "strength": 0.05}
    own = ConvexReLURegressor(solver=OwnSolver(tol=1e-5), **options).fit(X, y)
    known = ConvexReLURegressor(solver=ProximalGradient(tol=1e-5), **options).fit(X, y)
    np.testing.assert_array_equal(own.predict(X), known.predict(X))
    with pytest.raises(TypeError, match="Unregistered is no pytree"):
        ConvexReLURegressor(solver=Unregistered(), **options).fit(X, y)


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ({"loss": SquaredLoss}, ValueError),
        ({"loss": object()}, ValueError),
        ({"penalty": L1}, ValueError),
        ({"penalty": SquaredLoss()}, ValueError),
        ({"solver": "ridge"}, TypeError),
        ({"solver": ProximalGradient}, TypeError),
    ],
)
def test_what_is_no_such_part_is_refused(part: dict, error: type) -> None:
    ((name, _),) = part.items()
    with pytest.raises(error, match=rf"{name}=.*of your own"):
        ConvexReLURegressor(**part).fit(X, y)


def test_files_leave_them_out(tmp_path: Any) -> None:
    model = ConvexReLURegressor(0.01, loss=OwnSquaredLoss(), penalty=OwnRidge(), **OPTIONS)
    model.fit(X, y)
    with pytest.warns(UserWarning, match=r"loss and penalty .*set_params\(.*loss=\.\.\."):
        cvxnn.save(model, tmp_path / "own.safetensors")
    loaded = cvxnn.load(tmp_path / "own.safetensors")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert (loaded.loss, loaded.penalty) == ("squared", "auto")
