"""The certificate of a fit, computed again from the data and the program alone."""

import pickle
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError

import cvxnn
from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
)
from cvxnn.convex import Cronos, InteriorPoint, ProximalGradient
from cvxnn.estimators import _certified

pytestmark = pytest.mark.usefixtures("quick_compilation")
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 3)) * [1, 10, 0.1] + [0, 5, 0]
y = np.abs(X[:, 0]) + 0.3 * rng.standard_normal(60)
Z, labels = make_blobs(60, 3, centers=3, cluster_std=3, random_state=0)
SMALL: dict[str, Any] = {"n_patterns": 8, "random_state": 0}


def check(model: Any, *data: Any, rel: float = 1e-11, **more: Any) -> Any:
    """The numbers of the estimator are those of the program."""
    program, weights, dual = found = model.certificate(*data, **more)
    np.testing.assert_array_equal(program.alpha, model.alpha_)
    size = max(abs(model.objective_), 1e-3 * program.rounding() / np.finfo(float).eps)
    assert float(program.bound_of(dual)) == pytest.approx(model.dual_bound_, abs=rel * size)
    at = program.evaluate(weights)
    assert float(at.network_objective) == pytest.approx(model.objective_, abs=rel * size)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skip": 0.1, "fit_intercept": False},
        {"patterns": "data", "standardize": False},
        {"strength": 1e-6},
        {"tol": 0.05, "strength": 1e-4, "solver": cvxnn.convex.Ridge(max_dense=1, tol=0.05)},
        {"strength": 1e-9, "tol": 1e-5},
        {"solver": InteriorPoint()},
        {"skip": 0},
        {"penalty": "neuron", "solver": ProximalGradient(tol=1e-3)},
        {"formulation": "relu"},
        {"formulation": "relu", "patterns": "adaptive", "skip": 0.1},
        {"formulation": "relu", "solver": Cronos(), "strength": 0.05},
    ],
    ids=str,
)
def test_the_bound_of_a_fit_is_found_again(options: dict[str, Any]) -> None:
    weight = rng.integers(0, 3, 60)
    model = ConvexReLURegressor(**SMALL, **options).fit(X, y, weight)
    program, _, _ = check(model, X, y, weight)
    # In any order of the rows, and for repeated ones.
    order = rng.permutation(np.repeat(np.arange(60), weight))
    again = model.certificate(X[order], y[order])
    np.testing.assert_array_equal(again.program.operator.X, program.operator.X)
    check(model, X[order], y[order])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:.*predicts the same for all rows:UserWarning")
@pytest.mark.filterwarnings("ignore:.*cannot tell how sure:UserWarning")
@pytest.mark.parametrize("formulation", ["gated", "relu"])
@pytest.mark.parametrize("penalty", ["l2", "neuron", "l1", "feature"])
def test_of_fits_without_a_penalty_that_did_not_converge(penalty: Any, formulation: Any) -> None:
    # Of equal rows the slope cancels, and rounding would decide whether a bound is proven.
    same, targets = np.tile(X[:1], (5, 1)), np.random.default_rng(0).standard_normal((5, 3))
    options: dict[str, Any] = {"penalty": penalty, "formulation": formulation, "strength": 0}
    options |= {**SMALL, "patterns": "gaussian", "max_iter": 20, "tol": 1e-4}
    for loss in ("squared", "huber"):
        check(ConvexReLURegressor(loss=loss, **options).fit(same, targets), same, targets)
    for loss in ("logistic", "multinomial"):
        names = np.array([0, 1, 2, 0, 1])
        check(ConvexReLUClassifier(loss=loss, **options).fit(same, names), same, names)


@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial"])
def test_of_classifiers_with_weights_of_classes(loss: str) -> None:
    options = {"loss": loss, "class_weight": {0: 3.0}, "strength": 0.05, "penalty": "neuron"}
    model = ConvexReLUClassifier(**SMALL, **options).fit(Z, labels)
    check(model, Z, labels)
    names = np.array(["a", "b", "c"])[labels]
    own = ConvexReLUClassifier(**SMALL).fit(Z, names)
    check(own, Z, names)
    with pytest.raises(ValueError, match=r"labels \['d'\] that the fit lacks"):
        own.certificate(Z, np.full(60, "d"))


def test_of_early_stopping_groups_sparse_rows_and_single_precision() -> None:
    check(ConvexReLURegressor(**SMALL, early_stopping=True).fit(X, y), X, y)
    given = ConvexReLURegressor(**SMALL, early_stopping=True).fit(X, y, X_val=X[:9], y_val=y[:9])
    check(given, X, y)
    groups = np.arange(60) // 6
    check(ConvexReLURegressor(**SMALL).fit(X, y, groups=groups), X, y, groups=groups)
    rows = sparse.csr_array(np.where(X > 0.5, X, 0))
    check(ConvexReLURegressor(**SMALL).fit(rows, y), rows, y)
    single = X.astype(np.float32)
    # The proof is one in float64; weights that do not follow from it are rounded.
    check(ConvexReLURegressor(**SMALL).fit(single, y), single, y)
    model = ConvexReLURegressor(**SMALL, skip=0, strength=3).fit(single, y, 10 ** (9 * y))
    program, _, dual = check(model, single, y, 10 ** (9 * y), rel=1e-6)
    assert float(program.bound_of(dual)) == pytest.approx(model.dual_bound_, rel=1e-11)


def test_of_cross_validation_and_preference_heads() -> None:
    search = ConvexReLUClassifierCV(ConvexReLUClassifier(**SMALL), n_strengths=3, cv=2)
    check(search.fit(Z, labels), Z, labels)
    chosen, rejected = X[:30] + 1, X[30:]
    head = COALAPreferenceHead(**SMALL).fit_pairs(chosen, rejected)
    both, answers = np.concatenate([chosen, rejected]), np.repeat([1, 0], 30)
    check(head, both, answers)
    head = COALAPreferenceHead(**SMALL).fit(both, answers == 1, np.arange(60) % 30)
    check(head, both, answers == 1, pair_id=np.arange(60) % 30)


def test_it_survives_files_and_pickles(tmp_path: Any) -> None:
    for options in ({}, {"formulation": "relu"}):
        model = ConvexReLURegressor(**SMALL, **options).fit(X, y)
        cvxnn.save(model, tmp_path / "model.safetensors")
        for copy in (cvxnn.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))):
            before, after = model.certificate(X, y), copy.certificate(X, y)
            bounds = [float(c.program.bound_of(c.dual)) for c in (before, after)]
            assert bounds[0] == bounds[1]
            np.testing.assert_array_equal(before.weights.blocks, after.weights.blocks)


def test_other_data_are_refused() -> None:
    model = ConvexReLURegressor(**SMALL).fit(X, y)
    for data in ((X[:50], y[:50]), (X, 2 * y + X[:, 0]), (X + rng.standard_normal(X.shape), y)):
        with pytest.raises(ValueError, match="not those of the fit"):
            model.certificate(*data)
    with pytest.raises(NotFittedError):
        ConvexReLURegressor().certificate(X, y)


@pytest.mark.parametrize("case", ["classifier", "regressor", "cv", "pairs", "responses"])
def test_a_refusal_names_what_the_fit_had(case: str, tmp_path: Any) -> None:
    labels, ids = np.arange(60) < 30, np.arange(60) % 30
    more: dict[str, Any] = {}
    if case in ("classifier", "regressor"):
        kind = ConvexReLUClassifier if case == "classifier" else ConvexReLURegressor
        model: Any = kind(**SMALL)
    elif case == "cv":
        model = ConvexReLURegressorCV(ConvexReLURegressor(**SMALL), strengths=[0.01], cv=2)
    else:
        model = COALAPreferenceHead(**SMALL)
        more = {"pair_id": ids} if case == "pairs" else {}
    X = np.random.default_rng(1).standard_normal((60, 3)) + labels[:, None]
    X[20:30] = X[:10]  # equal rows, which groups keep apart
    X[50:] = X[40:50]
    data = (X, labels if case != "regressor" else labels + X[:, 0])
    groups, weight = np.repeat(np.arange(12), 5)[ids], np.where(ids < 15, 1.0, 2.5)
    for name, value in (("groups", groups), ("sample_weight", weight)):
        model.fit(*data, **more, **{name: value})
        cvxnn.save(model, tmp_path / "model.safetensors")
        for fitted in (model, cvxnn.load(tmp_path / "model.safetensors")):
            fitted.certificate(*data, **more, **{name: value})
            if name == "groups" and case == "pairs":  # which are all apart
                continue
            with pytest.raises(ValueError, match=f"The fit was given {name}: pass {name}=..., too"):
                fitted.certificate(*data, **more)
    model.fit(*data, **more)
    with pytest.raises(ValueError, match="The fit was given no sample_weight: leave it out"):
        model.certificate(*data, **more, sample_weight=weight)
    del model._given  # as in files of before
    with pytest.raises(ValueError, match="not those of the fit"):
        model.certificate(*data, **more, sample_weight=weight)


def test_large_multipliers_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_certified, "_MOST_MULTIPLIERS", 100)
    model = ConvexReLURegressor(**SMALL, formulation="relu").fit(X, y)
    program, weights, dual = model.certificate(X, y)
    assert dual is None
    found = cvxnn.convex.solve(program, InteriorPoint(), start=weights)
    assert found.dual_bound >= model.dual_bound_ * (1 - 1e-9)


def test_the_data_are_not_kept() -> None:
    model = ConvexReLURegressor(**SMALL).fit(X, y)
    # Of the rows nothing but a residual each.
    sizes = {name: part.shape for name, part in model._proof.items()}
    assert sizes == {"gates": (model.n_patterns_, 4), "residual": (60, 1)}


@pytest.mark.parametrize(
    "change",
    [
        {"residual": np.zeros((60, 2))},
        {"residual": np.full((60, 1), np.nan)},
        {"residual": np.zeros((60, 1), int)},
        {"gates": np.zeros((8, 9))},
        {"blocks": np.zeros((1, 1, 2, 4))},
        {"unknown": np.zeros(3)},
        {"gates": 1.0},
    ],
    ids=str,
)
def test_a_file_with_a_broken_certificate_is_refused(change: dict, tmp_path: Any) -> None:
    model = ConvexReLURegressor(**SMALL).fit(X, y)
    model._proof = model._proof | change
    cvxnn.save(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="contents are not those of an estimator"):
        cvxnn.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("formulation", ["gated", "relu"])
def test_of_a_huber_loss_that_the_data_chose(formulation: Any, tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 3))
    y = np.abs(X[:, 0]) + 0.1 * rng.standard_normal(80)
    y[:4] += 50
    model = ConvexReLURegressor(
        loss="huber", formulation=formulation, n_patterns=16, random_state=0
    ).fit(X, y)
    cvxnn.save(model, tmp_path / "model.safetensors")
    for fitted in (model, cvxnn.load(tmp_path / "model.safetensors")):
        program, _, dual = fitted.certificate(X, y)
        assert float(program.loss.delta) == fitted.delta_ != 1.35
        assert float(program.bound_of(dual)) == pytest.approx(fitted.dual_bound_, rel=1e-9)


@pytest.mark.filterwarnings("ignore:ConvexReLU:UserWarning")
@pytest.mark.parametrize(
    ("options", "X", "y", "weight"),
    [
        ({"loss": "huber"}, [[-4.7e-13], [-2.5e4]], [0, 3], [3.69, 4.5e8]),
        (
            {"penalty": "neuron", "skip": 0, "patterns": "local"},
            [[-1.5078908, 3.7206535, -0.65194887], [-0.09251607, 0.0716199, -0.2906424]],
            [1, 0],
            None,
        ),
        (
            {"loss": "huber", "penalty": "neuron", "formulation": "relu", "strength": 1e-3},
            [[9e-9], [-1.19e9], [-6.8e-8]],
            [0.6, -0.9, -2.2],
            [2.6e-7, 229.0, 2.4e-4],
        ),
    ],
)
def test_of_objectives_that_are_next_to_nothing_in_single_precision(
    options: dict[str, Any], X: Any, y: Any, weight: Any
) -> None:
    """To the last bit: rounded to float32, weights and objectives would be others."""
    rows = np.array(X, np.float32)
    check(ConvexReLURegressor(**SMALL, **options).fit(rows, y, weight), rows, y, weight)


@pytest.mark.filterwarnings("ignore:ConvexReLU:UserWarning")
@pytest.mark.parametrize("formulation", ["gated", "relu"])
def test_rounding_of_large_targets_has_no_say_in_the_strength(formulation: Any) -> None:
    X = np.full((5, 3), 0.7)
    y = 64340 + rng.standard_normal(5)
    model = ConvexReLURegressor(
        **SMALL, formulation=formulation, penalty="neuron", strength=1e-9, standardize=False
    ).fit(X, y)
    assert model.alpha_max_ == 1  # no slope at all
    check(model, X, y)
