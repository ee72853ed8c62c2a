"""Saving and loading: the same bits back, or a clear error; never code, never half a file."""

import copy
import hashlib
import json
import os
import pickle
import stat
from dataclasses import replace

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as to_bytes
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline

import cvxnn
from cvxnn import (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
)
from cvxnn.convex import ActivationPatterns, Cronos, InteriorPoint, ProximalGradient, Ridge
from cvxnn.network import TwoLayerNetwork
from cvxnn.persistence import load

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = {"n_patterns": 8, "strength": 0.01, "random_state": 0}
RELU = {**SMALL, "formulation": "relu"}
RELU_CV = {name: value for name, value in RELU.items() if name != "strength"}


def data(dtype=np.float64):
    X = np.random.default_rng(0).standard_normal((40, 3))
    return X.astype(dtype), (X[:, 0] * X[:, 1] > 0).astype(int)


def classifier(dtype=np.float64, **options):
    X, y = data(dtype)
    return ConvexReLUClassifier(**RELU | options).fit(X, np.array(["no", "ja, é"])[y])


def regressor(dtype=np.float64, **options):
    X, _ = data(dtype)
    return ConvexReLURegressor(**RELU | options).fit(X, np.abs(X[:, 0]))


def head(dtype=np.float64):
    X, y = data(dtype)
    return COALAPreferenceHead(**SMALL).fit(X, y, pair_id=np.arange(40) // 10)


METHODS = ("predict", "decision_function", "predict_proba", "reward")
PARTS = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
GATES = ("gate_weights", "gate_bias", "gate_index")


def outputs(model, X):
    return [getattr(model, name)(X) for name in METHODS if hasattr(model, name)]


def assert_same(back, model, X):
    assert type(back) is type(model)
    assert vars(back).keys() == vars(model).keys()
    assert back.get_params() == model.get_params()
    for one, other in zip(outputs(back, X), outputs(model, X), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    for name, value in vars(model).items():
        if isinstance(value, dict):
            assert getattr(back, name).keys() == value.keys()
            for key, column in value.items():
                np.testing.assert_array_equal(getattr(back, name)[key], column)
        elif isinstance(value, float):
            assert getattr(back, name) == value


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    cvxnn.save(model, path)
    return path


def parts(path):
    """Tensors and header of a saved file."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["cvxnn"])
    return load_file(path), header


def write(path, tensors, header, checksum=None):
    """A file with these contents, whose checksum, made here from its description, is right."""

    def canonical(value):
        return json.dumps(value, sort_keys=True, separators=(",", ":"))

    header = {key: value for key, value in header.items() if key != "checksum"}
    pieces = [b"json", canonical(header).encode()]
    for name in sorted(tensors):
        array = tensors[name]
        about = f"array {array.dtype.str} {array.shape}".encode()
        pieces += [b"json", canonical(name).encode(), about, array.tobytes()]
    described = b"".join(len(piece).to_bytes(8, "little") + piece for piece in pieces)
    header["checksum"] = hashlib.sha256(described).hexdigest() if checksum is None else checksum
    save_file(tensors, path, metadata={"cvxnn": canonical(header)})
    return path


# There and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", [classifier, regressor, head])
def test_round_trip(fit, dtype, tmp_path):
    model = fit(dtype)
    cvxnn.save(model, tmp_path / "a.safetensors")
    back = cvxnn.load(tmp_path / "a.safetensors")
    assert_same(back, model, data(dtype)[0])
    assert back.network_.hidden_weights.dtype == dtype
    cvxnn.save(back, str(tmp_path / "b.safetensors"))
    tensors, header = parts(tmp_path / "b.safetensors")
    assert header == parts(tmp_path / "a.safetensors")[1]
    assert tensors.keys() == parts(tmp_path / "a.safetensors")[0].keys()
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b.safetensors"]


def test_round_trip_of_solver_options(tmp_path):
    solver = Cronos(tol=0.05, max_iter=300, check_every=20)
    model = classifier(solver=solver, verbose=0)
    cvxnn.save(model, tmp_path / "a")
    back = cvxnn.load(tmp_path / "a")
    assert back.solver == solver
    assert_same(back, model, data()[0])
    # It can go on from there.
    X, y = data()
    again = back.fit(X, y)
    assert again.score(X, y) > 0.9


@pytest.mark.parametrize(
    "options",
    [
        {"formulation": "gated"},
        {"skip": 0.1},
        {"formulation": "gated", "skip": 0.0, "fit_intercept": False},
        {"patterns": "adaptive"},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("fit", [classifier, regressor])
def test_round_trip_of_every_kind_of_network(fit, options, dtype, tmp_path):
    model = fit(dtype, **options)
    cvxnn.save(model, tmp_path / "a")
    back = cvxnn.load(tmp_path / "a")
    assert_same(back, model, data(dtype)[0])
    assert (back.network_.gate_weights is not None) == (options.get("formulation") == "gated")
    assert (back.network_.linear_weights is not None) == ("skip" in options)
    for name, part in vars(model.network_).items():
        if part is not None:
            np.testing.assert_array_equal(getattr(back.network_, name), part, strict=True)


@pytest.mark.parametrize(
    "solver",
    [
        Cronos(tol=0.05, rho=0.5, balance=False, linear_solver="dual", seed=3),
        InteriorPoint(tol=1e-3, max_iter=40, max_dense=500),
        ProximalGradient(tol=0.05, max_iter=500),
        Ridge(tol=0.1, rank=30),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_round_trip_of_every_solver(solver, model, tmp_path):
    # Parameters are saved as they are, whatever the model was fitted with.
    path = tmp_path / "a"
    before = model.solver
    try:
        cvxnn.save(model.set_params(solver=solver), path)
    finally:
        model.set_params(solver=before)
    back = cvxnn.load(path)
    assert type(back.solver) is type(solver)
    assert back.solver == solver
    np.testing.assert_array_equal(back.predict(data()[0]), model.predict(data()[0]))


def held_classifier():
    solver, weights = Cronos(tol=0.02), {"no": 1.0, "ja, é": 2.0}
    return ConvexReLUClassifier(**RELU_CV, solver=solver, class_weight=weights)


@pytest.mark.parametrize(
    ("cv", "held"),
    [
        (ConvexReLUClassifierCV, None),
        (ConvexReLUClassifierCV, held_classifier()),
        (ConvexReLURegressorCV, ConvexReLURegressor(**RELU_CV, solver=Cronos(tol=0.02))),
        pytest.param(
            COALAPreferenceHeadCV,
            COALAPreferenceHead(formulation="relu", **SMALL),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["default", "classifier", "regressor", "head"],
)
def test_round_trip_of_an_estimator_that_holds_another(cv, held, tmp_path):
    X, y = data()
    model = cv(held, strengths=[0.1, 0.01])
    if cv is COALAPreferenceHeadCV:
        model.fit(X, y, pair_id=np.arange(40) // 4)
    else:
        model.fit(X, np.array(["no", "ja, é"])[y] if cv is ConvexReLUClassifierCV else X[:, 0])
    cvxnn.save(model, tmp_path / "a")
    back = cvxnn.load(tmp_path / "a")
    assert type(back.estimator) is type(held)
    if held is not None:
        assert back.estimator.get_params() == held.get_params()
        assert not hasattr(back.estimator, "network_")
        back.estimator = held  # equal, but an estimator has no equality
    assert_same(back, model, X)
    cvxnn.save(back, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("labels", [[False, True], [-1.0, 2.0], [np.int8(3), np.int8(7)]])
def test_round_trip_of_labels(labels, tmp_path):
    X, y = data()
    model = ConvexReLUClassifier(**SMALL).fit(X, np.array(labels)[y])
    cvxnn.save(model, tmp_path / "a")
    assert_same(cvxnn.load(tmp_path / "a"), model, X)


def test_round_trip_of_object_labels_and_names(tmp_path):
    X, y = data()
    frame = pd.DataFrame(X, columns=["a", "b", "ç"])
    model = ConvexReLUClassifier(**SMALL).fit(frame, np.array(["x", "long one"], object)[y])
    cvxnn.save(model, tmp_path / "a")
    back = cvxnn.load(tmp_path / "a")
    assert back.feature_names_in_.tolist() == ["a", "b", "ç"]
    assert back.classes_.dtype == object
    np.testing.assert_array_equal(back.predict(frame), model.predict(frame))


@pytest.mark.slow
def test_round_trip_of_three_classes_and_several_outputs(tmp_path):
    X, _ = data()
    Y = np.column_stack([X[:, 0], np.abs(X[:, 1]), X[:, 2]])
    three = ConvexReLUClassifier(**SMALL).fit(X, Y.argmax(axis=1))
    several = ConvexReLURegressor(**SMALL).fit(X, Y)
    column = ConvexReLURegressor(**SMALL).fit(X, Y[:, :1])
    for model in (three, several, column):
        cvxnn.save(model, tmp_path / "a")
        assert_same(cvxnn.load(tmp_path / "a"), model, X)


def test_round_trip_without_neurons(tmp_path):
    X, y = data()
    model = ConvexReLUClassifier(**RELU | {"strength": 10})
    with pytest.warns(UserWarning, match="predicts the same for all rows"):
        model.fit(X, y)
    assert model.network_.n_neurons == 0
    cvxnn.save(model, tmp_path / "a")
    assert_same(cvxnn.load(tmp_path / "a"), model, X)


@pytest.mark.parametrize(
    "weights",
    [
        {"no": 1.0, "ja, é": 3},
        {0: 2.0, 1: 0.5},
        {True: 1.0, False: 2.0},
        {-1.5: 1, 2.0: 1e-300},
        {np.int64(0): np.float32(0.5), np.str_("a"): np.int8(3)},
        {1: 1.0, "1": 2.0},
        {},
    ],
    ids=repr,
)
def test_round_trip_of_class_weights(weights, tmp_path):
    model = classifier()
    # Parameters are saved as they are; any of them may hold the pairs.
    cvxnn.save(model.set_params(strength=weights), tmp_path / "a")
    back = cvxnn.load(tmp_path / "a").strength
    assert back == weights
    assert [type(key) for key in back] == [
        type(key.item() if isinstance(key, np.generic) else key) for key in weights
    ]
    assert list(back) == list(weights)


def test_round_trip_of_a_classifier_with_class_weights(tmp_path):
    X, y = data()
    for weights in ({0: 1.0, 1: 2.5}, "balanced"):
        model = ConvexReLUClassifier(**SMALL, class_weight=weights).fit(X, y)
        cvxnn.save(model, tmp_path / "a")
        back = cvxnn.load(tmp_path / "a")
        assert back.class_weight == weights
        assert_same(back, model, X)
        np.testing.assert_array_equal(back.fit(X, y).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("fit", [classifier, regressor])
def test_round_trip_of_a_warm_start(fit, tmp_path):
    X, _ = data()
    model = fit(warm_start=True)
    kept = {name for name in vars(model) if name.startswith("_warm")}
    assert kept
    cvxnn.save(model, tmp_path / "a")
    back = cvxnn.load(tmp_path / "a")
    assert vars(back).keys() == vars(model).keys() - kept
    for one, other in zip(outputs(back, X), outputs(model, X), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    # And it can be fitted, from scratch.
    assert vars(back.fit(X, model.predict(X))).keys() == vars(model).keys()


def test_warm_starts_are_left_out(tmp_path):
    model = classifier()
    cvxnn.save(model, tmp_path / "a")
    model._warm_state = object()
    model._warm_mask = np.ones((1000, 1000))
    cvxnn.save(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not any(name.startswith("_warm") for name in vars(cvxnn.load(tmp_path / "b")))
    tensors, header = parts(tmp_path / "b")
    header["attributes"]["_warm_state"] = {"value": 1}
    with pytest.raises(ValueError, match="unexpected attribute '_warm_state'"):
        cvxnn.load(write(tmp_path / "c", tensors, header))


EMBEDDING = {
    "model": "é",
    "fingerprint": "0a",
    "fingerprint_float16": "0b",
    "fingerprint_bfloat16": "0c",
    "dtype": "float32",
    "layer": 2,
    "pooling": "mean",
    "max_length": 100,
    "date": "2024-07-26",
    "context": 0,
    "width": 3,
}


def test_round_trip_of_the_description_of_embeddings(tmp_path):
    X, y = data()
    model = head().set_params(embedding=EMBEDDING).fit(X, y)
    cvxnn.save(model, tmp_path / "a")
    back = cvxnn.load(tmp_path / "a")
    assert_same(back, model, X)
    assert back.embedding == EMBEDDING


@pytest.mark.parametrize("change", [{"width": 4}, {"layer": "2"}, {"pooling": 1}, {"more": 1}])
def test_wrong_description_of_embeddings_is_refused(change, tmp_path):
    cvxnn.save(head().set_params(embedding=EMBEDDING), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    wrong = {**EMBEDDING, **change}
    header["parameters"]["embedding"] = {"pairs": [list(pair) for pair in wrong.items()]}
    with pytest.raises(ValueError, match="the contents are not those of an estimator"):
        cvxnn.load(write(tmp_path / "b", tensors, header))


def test_callbacks_are_left_out(tmp_path):
    model = classifier()
    cvxnn.save(model, tmp_path / "a")
    model._skl_callbacks = [object()]  # as scikit-learn's set_callbacks leaves them
    cvxnn.save(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def scorer(model, X, y):
    return -np.abs(model.predict(X) - y).max()


@pytest.mark.parametrize(
    "options",
    [
        {"cv": KFold(2)},
        {"cv": [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]},
        {"scoring": scorer},
        {"cv": KFold(2), "scoring": make_scorer(mean_absolute_error, greater_is_better=False)},
    ],
    ids=["splitter", "folds", "function", "both"],
)
def test_splitters_and_scorers_are_left_out(options, tmp_path):
    X = np.random.default_rng(0).standard_normal((60, 3))
    single = ConvexReLURegressor(n_patterns=8, random_state=0)
    model = ConvexReLURegressorCV(single, n_strengths=3, **options).fit(X, X[:, 0])
    path = tmp_path / "model.safetensors"
    names = " and ".join(options)
    with pytest.warns(UserWarning, match=rf"^{names} of ConvexReLURegressorCV cannot be saved"):
        cvxnn.save(model, path)
    back = cvxnn.load(path)
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    assert all(getattr(back, name) is None for name in options)
    # The remedy of the message.
    again = back.set_params(**options).fit(X, X[:, 0])
    np.testing.assert_array_equal(again.cv_scores_, model.cv_scores_)
    named = ConvexReLURegressorCV(single, n_strengths=2, cv=2, scoring="r2").fit(X, X[:, 0])
    cvxnn.save(named, path)
    assert (cvxnn.load(path).cv, cvxnn.load(path).scoring) == (2, "r2")


def test_round_trip_of_patterns(tmp_path):
    X, _ = data()
    model = classifier()
    model.patterns_ = ActivationPatterns(X @ np.ones((3, 2)) > 0, np.ones((2, 4)))
    cvxnn.save(model, tmp_path / "a")
    back = cvxnn.load(tmp_path / "a")
    assert type(back.patterns_) is ActivationPatterns
    np.testing.assert_array_equal(back.patterns_.mask, model.patterns_.mask, strict=True)
    np.testing.assert_array_equal(back.patterns_.gates, model.patterns_.gates, strict=True)
    for damage in (
        {"patterns_.mask": np.ones((5, 2))},
        {"patterns_.mask": np.ones(2, bool)},
        {"patterns_.gates": np.ones((3, 4))},
        {"patterns_.gates": np.ones((2, 5))},
        {"patterns_.gates": np.ones((2, 4), int)},
    ):
        tensors, header = parts(tmp_path / "a")
        with pytest.raises(
            ValueError, match=r"not a matrix of truth values|do not fit the pattern"
        ):
            cvxnn.load(write(tmp_path / "b", tensors | damage, header))


def with_conjunctions(dtype=np.float64):
    """A classifier whose gates are conjunctions of two vectors."""
    model, rng = classifier(dtype, formulation="gated"), np.random.default_rng(0)
    gates = model.network_.gate_weights.shape[0]
    vectors = rng.standard_normal((gates, 2, 3)).astype(dtype)
    offsets = rng.standard_normal((gates, 2)).astype(dtype)
    model.network_ = replace(model.network_, gate_weights=vectors, gate_bias=offsets)
    model.patterns_ = ActivationPatterns(np.ones((3, 2), bool), np.ones((2, 2, 4)))
    return model


def test_round_trip_of_conjunctions(dtype, tmp_path):
    model, (X, _) = with_conjunctions(dtype), data(dtype)
    cvxnn.save(model, tmp_path / "a")
    back = cvxnn.load(tmp_path / "a")
    assert_same(back, model, X)
    assert back.patterns_.gates.shape == (2, 2, 4)
    served = cvxnn.load_network(tmp_path / "a")
    np.testing.assert_allclose(served.predict_proba(X), model.predict_proba(X), rtol=1e-6)
    assert 0 < served.network.open_gates(X).mean() < 0.5


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: {"network_.gate_weights": t["network_.gate_weights"][:, :1].copy()},
        lambda t: {"network_.gate_weights": t["network_.gate_weights"][:, 0].copy()},
        lambda t: {"network_.gate_bias": t["network_.gate_bias"][:, 0].copy()},
        lambda t: {
            "network_.gate_weights": t["network_.gate_weights"][:, :0].copy(),
            "network_.gate_bias": t["network_.gate_bias"][:, :0].copy(),
        },
        lambda t: {"patterns_.gates": t["patterns_.gates"][:, None]},
    ],
)
def test_wrong_conjunctions(damage, tmp_path):
    cvxnn.save(with_conjunctions(), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    with pytest.raises(ValueError, match=r"shape|do not fit the patterns"):
        cvxnn.load(write(tmp_path / "b", tensors | damage(tensors), header))


def test_byte_order_and_memory_layout_do_not_matter(tmp_path):
    X, y = data()
    model = ConvexReLUClassifier(**RELU).fit(X, y.astype(">i4"))
    cvxnn.save(model, tmp_path / "a")
    np.testing.assert_array_equal(cvxnn.load(tmp_path / "a").predict(X), model.predict(X))
    network = model.network_
    model.network_ = TwoLayerNetwork(
        *(np.asarray(getattr(network, part), order="F") for part in PARTS)
    )
    cvxnn.save(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_scalars_become_plain_numbers(tmp_path):
    X, y = data()
    options = {"strength": np.float64(0.01), "n_patterns": np.int64(8), "random_state": np.int64(0)}
    model = ConvexReLUClassifier(**options).fit(X, y)
    cvxnn.save(model, tmp_path / "a")
    assert cvxnn.load(tmp_path / "a").get_params() == model.get_params()


def test_others_may_read_the_file(model, tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    cvxnn.save(model, tmp_path / "a")
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("usual", "a")]
    assert modes[0] == modes[1]


# What cannot be saved --------------------------------------------------------------------------


def test_unfitted(tmp_path):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        cvxnn.save(ConvexReLUClassifier(), tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_other_objects(tmp_path):
    class Mine(ConvexReLUClassifier):
        pass

    for thing in ({"a": 1}, Mine()):
        with pytest.raises(TypeError, match=r"cannot save a .*; expected one of \['COALA"):
            cvxnn.save(thing, tmp_path / "a")
    with pytest.raises(TypeError, match=r"pipeline\[-1\], or write the whole with skops"):
        cvxnn.save(make_pipeline(ConvexReLUClassifier()), tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_generator_as_random_state(tmp_path):
    X, y = data()
    model = ConvexReLUClassifier(**{**SMALL, "random_state": np.random.RandomState(0)}).fit(X, y)
    with pytest.raises(TypeError, match="for random_state, an integer"):
        cvxnn.save(model, tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_attribute_of_unknown_type(tmp_path):
    model = classifier()
    model.note_ = object()
    with pytest.raises(TypeError, match=r"note_ holds <object.*, a object, which cannot be saved"):
        cvxnn.save(model, tmp_path / "a")
    for array in (
        np.array([1, object()], object),
        np.array([[1], ["a"]], object),
        np.ones(2, np.complex128),
        np.ones(2, np.longdouble),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([b"bytes"]),
    ):
        model.note_ = array
        with pytest.raises(
            TypeError, match=r"note_ is an array of .*only real numbers of at most 64"
        ):
            cvxnn.save(model, tmp_path / "a")
    model.note_ = {("a", 1): 2}
    with pytest.raises(TypeError, match=r"note_ holds \('a', 1\), a tuple"):
        cvxnn.save(model, tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_folders_are_created(model, tmp_path):
    cvxnn.save(model, tmp_path / "new" / "folder" / "a")
    assert os.listdir(tmp_path / "new" / "folder") == ["a"]
    with pytest.raises(OSError, match=r"cannot write in .*a: it is a file, or lies in one"):
        cvxnn.save(model, tmp_path / "new" / "folder" / "a" / "b")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["os.replace", "pathlib.Path.write_bytes"])
def test_interrupted_save_keeps_the_old_file(model, tmp_path, monkeypatch, step, error):
    path = tmp_path / "a.safetensors"
    cvxnn.save(model, path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(step, fail)
    with pytest.raises(type(error)):
        cvxnn.save(regressor(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


# Damaged and hostile files ---------------------------------------------------------------------


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file; expected one written by cvxnn"):
        cvxnn.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bc.csv", b"radius,texture\n1.5,2\n", "is a table"),
        ("pairs.jsonl", b'{"prompt": "a", "chosen": "b"}\n', "is a file of rows"),
        ("head.json", b'{"measured": null, "a": 1}', "is a file of JSON"),
        ("notes", "Größe und mehr".encode("latin-1"), "is a text"),
        ("notes", b"a plain text", "is a text"),
        ("model.pkl", pickle.dumps([1.0] * 9), "is a pickle"),
        ("model.gguf", b"GGUF" + bytes(20), "is a language model in GGUF"),
        ("model.npz", b"PK\x03\x04" + bytes(20), "is a zip archive"),
        ("empty", b"", "not a readable safetensors file"),
        ("weights.safetensors", to_bytes({"a": np.ones(3)}), "of something else"),
    ],
)
def test_files_of_another_kind_are_named(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        cvxnn.load(tmp_path / name)
    with pytest.raises(IsADirectoryError, match=r"is a folder; expected a file written by cvxnn"):
        cvxnn.load(tmp_path)


@pytest.fixture(scope="module", params=["few contents", "all kinds of contents"])
def flippable(request, tmp_path_factory):
    """A small file: of a classifier, or of one with gates, a linear part, labels and names."""
    X, y = data()
    model = ConvexReLUClassifier(**RELU).fit(X[:12], np.array(["no", "ja, é"])[y[:12]])
    if request.param == "all kinds of contents":
        frame = pd.DataFrame(X, columns=["a", "b", "ç"])
        labels = np.array(["ja, é", 'n"\\o'], object)
        options = {"formulation": "gated", "skip": 0.1, "solver": InteriorPoint(tol=0.1)}
        model = ConvexReLUClassifier(**SMALL | options).fit(frame, labels[y])
        model.set_params(tol={"ja": 0.1, 3: 1e-7})
    path = tmp_path_factory.mktemp("flippable") / "model"
    cvxnn.save(model, path)
    return path.read_bytes()


def test_every_truncation_is_refused(flippable, tmp_path):
    path = tmp_path / "a"
    for length in {*range(0, len(flippable), 13), *range(9), len(flippable) - 1}:
        path.write_bytes(flippable[:length])
        with pytest.raises(ValueError, match="changed or damaged, or is truncated"):
            cvxnn.load(path)
    path.write_bytes(flippable + b"\0")
    with pytest.raises(ValueError, match="changed or damaged"):
        cvxnn.load(path)


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_found(flippable, tmp_path, bit):
    path = tmp_path / "a"
    content = bytearray(flippable)
    # A stride prime to 8, so that bytes of every place in a number have their turn.
    for position in range(bit, len(content), 29):
        content[position] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(ValueError, match="changed or damaged"):
            cvxnn.load(path)
        content[position] ^= 1 << bit
    path.write_bytes(content)
    cvxnn.load(path)


@settings(max_examples=100)
@given(st.data())
def test_other_bytes_anywhere_are_found(saved, tmp_path_factory, data):
    content = saved.read_bytes()
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    changed = content[:first] + data.draw(st.binary(max_size=20)) + content[last:]
    hypothesis.assume(changed != content)
    path = tmp_path_factory.mktemp("bytes") / "a"
    path.write_bytes(changed)
    with pytest.raises(ValueError, match="changed or damaged"):
        cvxnn.load(path)


@pytest.mark.parametrize(
    "respell",
    [
        lambda text: text.replace(":", ": ", 1),
        lambda text: text.replace("\\u00e9", "\\u00E9"),
        lambda text: text.replace("\\u00e9", "é"),
        lambda text: text.replace('"format_version":4', '"format_version":4.0'),
        lambda text: text.replace("{", '{"format_version":4,', 1),
    ],
)
def test_another_spelling_of_the_same_header_is_a_change(respell, saved, tmp_path):
    with safe_open(saved, framework="numpy") as file:
        text = file.metadata()["cvxnn"]
    changed = respell(text)
    assert changed != text
    assert json.loads(changed) == json.loads(text)
    save_file(load_file(saved), tmp_path / "a", metadata={"cvxnn": changed})
    with pytest.raises(
        ValueError, match="the checksum does not match; the file was changed or dam"
    ):
        cvxnn.load(tmp_path / "a")


@pytest.mark.parametrize("checksum", ["", "0" * 64, 3, None, "absent"])
def test_wrong_checksum(saved, tmp_path, checksum):
    tensors, header = parts(saved)
    header["checksum"] = checksum
    if checksum == "absent":
        del header["checksum"]
    save_file(tensors, tmp_path / "a", metadata={"cvxnn": json.dumps(header)})
    with pytest.raises(ValueError, match="the checksum does not match"):
        cvxnn.load(tmp_path / "a")


def test_more_metadata_is_a_change(saved, tmp_path):
    with safe_open(saved, framework="numpy") as file:
        metadata = file.metadata()
    save_file(load_file(saved), tmp_path / "a", metadata=metadata)
    cvxnn.load(tmp_path / "a")
    save_file(load_file(saved), tmp_path / "a", metadata=metadata | {"format": "pt"})
    with pytest.raises(ValueError, match="the checksum does not match"):
        cvxnn.load(tmp_path / "a")


def test_the_checksum_comes_before_the_contents(saved, tmp_path, monkeypatch):
    def never(*args):
        raise AssertionError("the contents were used")

    monkeypatch.setattr("cvxnn.persistence.unpack", never)
    monkeypatch.setattr("cvxnn.persistence._unpack_parameter", never)
    monkeypatch.setattr("importlib.import_module", never)
    tensors, header = parts(saved)
    tensors["network_.output_bias"] += 1
    save_file(tensors, tmp_path / "a", metadata={"cvxnn": json.dumps(header)})
    with pytest.raises(ValueError, match="the checksum does not match"):
        load(tmp_path / "a")


def test_the_checksum_is_the_one_described(saved, tmp_path):
    # `write` makes its own, from the description alone.
    tensors, header = parts(saved)
    write(tmp_path / "a", tensors, header)
    assert parts(tmp_path / "a")[1] == header
    np.testing.assert_array_equal(
        outputs(cvxnn.load(tmp_path / "a"), data()[0])[1], outputs(cvxnn.load(saved), data()[0])[1]
    )


def test_other_safetensors_file(tmp_path):
    save_file({"weight": np.ones(3)}, tmp_path / "a")
    with pytest.raises(ValueError, match="no 'cvxnn' header: this is a safetensors file of som"):
        cvxnn.load(tmp_path / "a")
    save_file({"weight": np.ones(3)}, tmp_path / "b", metadata={"cvxnn": "[1, 2"})
    with pytest.raises(ValueError, match="no valid 'cvxnn' header"):
        cvxnn.load(tmp_path / "b")
    save_file({"weight": np.ones(3)}, tmp_path / "c", metadata={"cvxnn": "[" * 100_000})
    with pytest.raises(ValueError, match="no valid 'cvxnn' header"):
        cvxnn.load(tmp_path / "c")


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, "4", None])
def test_unknown_version(saved, tmp_path, version):
    tensors, header = parts(saved)
    header["format_version"] = version
    with pytest.raises(ValueError, match=r"format version .*; this cvxnn reads version 4"):
        cvxnn.load(write(tmp_path / "a", tensors, header))


@pytest.mark.parametrize("name", ["os.system", "system", "ConvexReLUBase", "__class__", 3, ["a"]])
def test_unknown_class_is_not_looked_up(saved, tmp_path, name, monkeypatch):
    def never(*args):
        raise AssertionError("something was imported")

    monkeypatch.setattr("importlib.import_module", never)
    tensors, header = parts(saved)
    header["class"] = name
    with pytest.raises(ValueError, match="unknown class"):
        load(write(tmp_path / "a", tensors, header))
    tensors, header = parts(saved)
    header["parameters"]["solver"] = {"estimator": {"class": name, "parameters": {}}}
    with pytest.raises(ValueError, match="unknown class"):
        load(write(tmp_path / "b", tensors, header))


@pytest.mark.parametrize(
    "name", ["predict", "fit", "__class__", "__dict__", "_targets", "score", "a b", "_numbers"]
)
def test_attributes_that_would_shadow(saved, tmp_path, name):
    tensors, header = parts(saved)
    header["attributes"][name] = {"value": 1}
    with pytest.raises(ValueError, match="unexpected attribute"):
        cvxnn.load(write(tmp_path / "a", tensors, header))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network_", None),
        ("classes_", None),
        ("temperature_", None),
        ("n_features_in_", None),
        ("network_", {"value": 3}),
        ("network_", {"array": "nothing"}),
        ("network_", {"pickle": "gASV"}),
        ("network_", "text"),
        ("network_", {}),
        ("classes_", {"strings": ["a", "b", "c"], "dtype": "U"}),
        ("classes_", {"value": 2}),
        ("temperature_", {"value": float("nan")}),
        ("temperature_", {"value": "hot"}),
        ("bend_", None),
        ("bend_", {"value": -1.0}),
        ("probability_range_", {"value": 0.5}),
        ("probability_range_", {"strings": ["a", "b"], "dtype": "U"}),
        ("n_features_in_", {"value": 4}),
        ("n_features_in_", {"value": "3"}),
        ("feature_names_in_", {"strings": ["a"], "dtype": "O"}),
    ],
)
def test_wrong_attributes(saved, tmp_path, name, value):
    tensors, header = parts(saved)
    if value is None:
        del header["attributes"][name]
    else:
        header["attributes"][name] = value
    with pytest.raises(ValueError, match="the contents are not those of an estimator"):
        cvxnn.load(write(tmp_path / "a", tensors, header))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("parameters", {"no_such_parameter": 1}),
        ("parameters", {"solver": {"Cronos": {"no_such_option": 1}}}),
        ("parameters", {"solver": {"Popen": {"args": "true"}}}),
        ("parameters", [1, 2]),
        ("attributes", [1, 2]),
        ("attributes", {}),
    ],
)
def test_wrong_header_entries(saved, tmp_path, key, value):
    tensors, header = parts(saved)
    header[key] = value
    with pytest.raises(ValueError, match="the contents are not those of an estimator"):
        cvxnn.load(write(tmp_path / "a", tensors, header))


def test_deep_nesting(saved, tmp_path):
    tensors, header = parts(saved)
    deep = '{"dict": {"a": ' * 5000 + '{"value": 1}' + "}}" * 5000
    text = json.dumps(header).replace('"history_": ', f'"deep_": {deep}, "history_": ', 1)
    assert "deep_" in text
    save_file(tensors, tmp_path / "a", metadata={"cvxnn": text})
    with pytest.raises(ValueError, match="no valid 'cvxnn' header"):
        cvxnn.load(tmp_path / "a")


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t | {"network_.hidden_weights": t["network_.hidden_weights"] * np.nan},
        lambda t: t | {"network_.output_bias": np.array([np.inf])},
        lambda t: t | {"network_.hidden_weights": t["network_.hidden_weights"][:, :2].copy()},
        lambda t: t | {"network_.hidden_bias": t["network_.hidden_bias"][:-1]},
        lambda t: t | {"network_.output_weights": t["network_.output_weights"][:, None].copy()},
        lambda t: t | {"network_.output_bias": np.zeros(2)},
        lambda t: t | {"network_.output_bias": np.zeros(1, int)},
        lambda t: {k: v for k, v in t.items() if k != "network_.hidden_bias"},
    ],
    ids=["nan", "inf", "width", "neurons", "ndim", "outputs", "integers", "absent"],
)
def test_wrong_tensors(saved, tmp_path, damage):
    tensors, header = parts(saved)
    with pytest.raises(ValueError, match="the contents are not those of an estimator"):
        cvxnn.load(write(tmp_path / "a", damage(tensors), header))


@pytest.mark.parametrize("part", GATES)
def test_some_of_the_gates(part, tmp_path):
    cvxnn.save(classifier(formulation="gated"), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    assert {f"network_.{name}" for name in GATES} <= tensors.keys()
    del tensors[f"network_.{part}"]
    with pytest.raises(ValueError, match=r"of its gates, the network has only \["):
        cvxnn.load(write(tmp_path / "b", tensors, header))


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t | {"network_.gate_weights": t["network_.gate_weights"][..., :2].copy()},
        lambda t: t | {"network_.gate_bias": t["network_.gate_bias"][:-1]},
        lambda t: t | {"network_.gate_bias": t["network_.gate_bias"] * np.nan},
        lambda t: t | {"network_.gate_index": t["network_.gate_index"][:-1]},
        lambda t: t | {"network_.gate_index": t["network_.gate_index"] - 1},
        lambda t: t | {"network_.gate_index": t["network_.gate_index"] + 1},
        lambda t: t | {"network_.gate_index": t["network_.gate_index"].astype(float)},
        lambda t: t | {"network_.linear_weights": t["network_.linear_weights"][:2].copy()},
        lambda t: t | {"network_.linear_weights": t["network_.linear_weights"].astype(int)},
    ],
    ids=[
        "width",
        "gates",
        "nan",
        "neurons",
        "below",
        "above",
        "not integers",
        "skip width",
        "integers",
    ],
)
def test_wrong_gates_and_skip_connection(damage, tmp_path):
    cvxnn.save(classifier(formulation="gated", skip=0.1), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    with pytest.raises(ValueError, match="the contents are not those of an estimator"):
        cvxnn.load(write(tmp_path / "b", damage(tensors), header))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda index: index + 1, "neurons without output index"),
        (lambda index: index - 1, "neurons without output index"),
        (lambda index: index[::-1].copy(), "not in the order of their outputs"),
        (lambda index: index[1:], "do not fit together"),
        (lambda index: index.astype(float), "neurons without output index"),
        (lambda index: None, "outputs"),
    ],
    ids=["above", "below", "order", "neurons", "not integers", "absent"],
)
def test_wrong_outputs_of_neurons(damage, message, tmp_path):
    X, _ = data()
    cvxnn.save(ConvexReLURegressor(**SMALL).fit(X, X), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    index = damage(tensors.pop("network_.output_index"))
    if index is not None:
        tensors["network_.output_index"] = index
    with pytest.raises(ValueError, match=message):
        cvxnn.load(write(tmp_path / "b", tensors, header))


def test_wrong_dimensions_of_a_regressor(tmp_path):
    X, _ = data()
    cvxnn.save(ConvexReLURegressor(**SMALL).fit(X, X), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    header["attributes"]["_y_ndim"] = {"value": 1}
    with pytest.raises(ValueError, match="targets of 1 dimensions for 3 outputs"):
        cvxnn.load(write(tmp_path / "b", tensors, header))


def test_both_networks_of_a_head_are_checked(tmp_path):
    cvxnn.save(head(), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    tensors["phase1_network_.output_weights"][0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        cvxnn.load(write(tmp_path / "b", tensors, header))


# Other ways ------------------------------------------------------------------------------------

KINDS = [{}, {"formulation": "gated"}, {"skip": 0.1}, {"formulation": "gated", "skip": 0.1}]
MODELS = [
    *((fit, options) for fit in (classifier, regressor) for options in KINDS),
    (classifier, {"solver": InteriorPoint(tol=1e-3)}),
    (head, {}),
]


def through_skops(model):
    skops = pytest.importorskip("skops.io")
    content = skops.dumps(model)
    untrusted = skops.get_untrusted_types(data=content)
    # What the user guide tells to expect; anything else would be a reason for distrust.
    known = {
        f"{cls.__module__}.{cls.__name__}"
        for cls in (type(model), TwoLayerNetwork, type(model.solver))
        if cls is not type(None)
    }
    assert set(untrusted) == known
    assert all(name.startswith("cvxnn.") for name in untrusted)
    return skops.loads(content, trusted=untrusted)


@pytest.mark.parametrize(
    ("fit", "options"), MODELS, ids=lambda v: "-".join(v) if isinstance(v, dict) else v.__name__
)
@pytest.mark.parametrize(
    "way", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, through_skops]
)
def test_other_ways_give_the_same_bits(way, fit, options):
    model = fit(**options)
    back = way(model)
    assert_same(back, model, data()[0])
    for name in (*PARTS, *GATES, "linear_weights"):
        part = getattr(model.network_, name)
        if part is None:
            assert getattr(back.network_, name) is None
        else:
            np.testing.assert_array_equal(getattr(back.network_, name), part, strict=True)


def test_skops_refuses_what_is_not_trusted():
    skops = pytest.importorskip("skops.io")
    with pytest.raises(TypeError, match="Untrusted types found"):
        skops.loads(skops.dumps(classifier()), trusted=["cvxnn.network.TwoLayerNetwork"])
