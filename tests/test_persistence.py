"""Saving and loading: the same bits back, or a clear error; never code, never half a file."""

import json
import os
import stat

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError

import cvxnn
from cvxnn import COALAPreferenceHead, ConvexReLUClassifier, ConvexReLURegressor
from cvxnn.solvers import Cronos, InteriorPoint, ProximalGradient

SMALL = {"n_patterns": 8, "alpha": 0.01, "random_state": 0}


def data(dtype=np.float64):
    X = np.random.default_rng(0).standard_normal((40, 3))
    return X.astype(dtype), (X[:, 0] * X[:, 1] > 0).astype(int)


def classifier(dtype=np.float64, **options):
    X, y = data(dtype)
    return ConvexReLUClassifier(**SMALL, **options).fit(X, np.array(["no", "ja, é"])[y])


def regressor(dtype=np.float64, **options):
    X, _ = data(dtype)
    return ConvexReLURegressor(**SMALL, **options).fit(X, np.abs(X[:, 0]))


def head(dtype=np.float64):
    X, y = data(dtype)
    return COALAPreferenceHead(**SMALL).fit(X, y, pair_id=np.arange(40) // 10)


METHODS = ("predict", "decision_function", "predict_proba", "reward")


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


def write(path, tensors, header):
    save_file(tensors, path, metadata={"cvxnn": json.dumps(header)})
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
    assert (back.network_.skip_weights is not None) == ("skip" in options)
    for name, part in vars(model.network_).items():
        if part is not None:
            np.testing.assert_array_equal(getattr(back.network_, name), part, strict=True)


@pytest.mark.parametrize(
    "solver",
    [
        Cronos(tol=0.05, rho=0.5, balance=False, linear_solver="dual", seed=3),
        InteriorPoint(tol=1e-3, max_iter=40, max_dense=500),
        ProximalGradient(tol=0.05, max_iter=500),
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
    model = ConvexReLUClassifier(**{**SMALL, "alpha": 10}).fit(X, y)
    assert model.network_.n_neurons == 0
    cvxnn.save(model, tmp_path / "a")
    assert_same(cvxnn.load(tmp_path / "a"), model, X)


def test_numpy_scalars_become_plain_numbers(tmp_path):
    X, y = data()
    options = {"alpha": np.float64(0.01), "n_patterns": np.int64(8), "random_state": np.int64(0)}
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
    with pytest.raises(TypeError, match="note_ is a object, which cannot be saved"):
        cvxnn.save(model, tmp_path / "a")
    model.note_ = np.array([1, object()], object)
    with pytest.raises(TypeError, match="note_ holds Python objects"):
        cvxnn.save(model, tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_missing_folder(model, tmp_path):
    with pytest.raises(OSError, match="missing"):
        cvxnn.save(model, tmp_path / "missing" / "a")
    assert os.listdir(tmp_path) == []


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


@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_truncated_file(saved, tmp_path, share):
    whole = saved.read_bytes()
    path = tmp_path / "a"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="may be truncated"):
        cvxnn.load(path)


@settings(max_examples=60)
@given(st.data())
def test_any_prefix_is_refused(saved, tmp_path_factory, data):
    whole = saved.read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.mktemp("prefix") / "a"
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match="may be truncated"):
        cvxnn.load(path)


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_bit_gives_an_error_or_a_whole_estimator(saved, tmp_path_factory, data):
    content = bytearray(saved.read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    position = data.draw(st.integers(0, end - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flip") / "a"
    path.write_bytes(content)
    try:
        back = cvxnn.load(path)
    except ValueError:
        return
    # A changed digit or label cannot be told from a right one; what loads must at least predict.
    assert type(back) is ConvexReLUClassifier
    assert np.isfinite(back.predict_proba(np.ones((2, 3)))).all()


def test_other_safetensors_file(tmp_path):
    save_file({"weight": np.ones(3)}, tmp_path / "a")
    with pytest.raises(ValueError, match="no valid 'cvxnn' header; expected a file written by"):
        cvxnn.load(tmp_path / "a")
    save_file({"weight": np.ones(3)}, tmp_path / "b", metadata={"cvxnn": "[1, 2"})
    with pytest.raises(ValueError, match="no valid 'cvxnn' header"):
        cvxnn.load(tmp_path / "b")
    save_file({"weight": np.ones(3)}, tmp_path / "c", metadata={"cvxnn": "[" * 100_000})
    with pytest.raises(ValueError, match="no valid 'cvxnn' header"):
        cvxnn.load(tmp_path / "c")


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_version(saved, tmp_path, version):
    tensors, header = parts(saved)
    header["format_version"] = version
    with pytest.raises(ValueError, match=r"format version .*; this cvxnn reads version 1"):
        cvxnn.load(write(tmp_path / "a", tensors, header))


@pytest.mark.parametrize("name", ["os.system", "system", "ConvexReLUBase", "__class__", 3, ["a"]])
def test_unknown_class_is_not_looked_up(saved, tmp_path, name, monkeypatch):
    def never(*args):
        raise AssertionError("something was imported")

    load = cvxnn.load  # itself imported when first asked for
    monkeypatch.setattr("importlib.import_module", never)
    tensors, header = parts(saved)
    header["class"] = name
    with pytest.raises(ValueError, match="unknown class"):
        load(write(tmp_path / "a", tensors, header))


@pytest.mark.parametrize(
    "name", ["predict", "fit", "__class__", "__dict__", "_decision", "score", "a b", "_numbers"]
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
    with pytest.raises(ValueError, match="the contents do not fit a ConvexReLUClassifier"):
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
    with pytest.raises(ValueError, match="the contents do not fit a ConvexReLUClassifier"):
        cvxnn.load(write(tmp_path / "a", tensors, header))


def test_deep_nesting(saved, tmp_path):
    tensors, header = parts(saved)
    deep = '{"dict": {"a": ' * 5000 + '{"value": 1}' + "}}" * 5000
    text = json.dumps(header).replace('"history_": ', f'"deep_": {deep}, "history_": ', 1)
    save_file(tensors, tmp_path / "a", metadata={"cvxnn": text})
    with pytest.raises(ValueError, match=r"no valid 'cvxnn' header|do not fit"):
        cvxnn.load(tmp_path / "a")


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t | {"network_.hidden_weights": t["network_.hidden_weights"] * np.nan},
        lambda t: t | {"network_.output_bias": np.array([np.inf])},
        lambda t: t | {"network_.hidden_weights": t["network_.hidden_weights"][:, :2].copy()},
        lambda t: t | {"network_.hidden_bias": t["network_.hidden_bias"][:-1]},
        lambda t: t | {"network_.output_weights": t["network_.output_weights"][:, 0].copy()},
        lambda t: t | {"network_.output_bias": np.zeros(2)},
        lambda t: t | {"network_.output_bias": np.zeros(1, int)},
        lambda t: {k: v for k, v in t.items() if k != "network_.hidden_bias"},
    ],
    ids=["nan", "inf", "width", "neurons", "ndim", "outputs", "integers", "absent"],
)
def test_wrong_tensors(saved, tmp_path, damage):
    tensors, header = parts(saved)
    with pytest.raises(ValueError, match="the contents do not fit a ConvexReLUClassifier"):
        cvxnn.load(write(tmp_path / "a", damage(tensors), header))


@pytest.mark.parametrize("part", ["gate_weights", "gate_bias"])
def test_half_gates(part, tmp_path):
    cvxnn.save(classifier(formulation="gated"), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    del tensors[f"network_.{part}"]
    with pytest.raises(ValueError, match="half its gates"):
        cvxnn.load(write(tmp_path / "b", tensors, header))


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t | {"network_.gate_weights": t["network_.gate_weights"][:, :2].copy()},
        lambda t: t | {"network_.gate_bias": t["network_.gate_bias"][:-1]},
        lambda t: t | {"network_.gate_bias": t["network_.gate_bias"] * np.nan},
        lambda t: t | {"network_.skip_weights": t["network_.skip_weights"][:2].copy()},
        lambda t: t | {"network_.skip_weights": t["network_.skip_weights"].astype(int)},
    ],
    ids=["width", "neurons", "nan", "skip width", "integers"],
)
def test_wrong_gates_and_skip_connection(damage, tmp_path):
    cvxnn.save(classifier(formulation="gated", skip=0.1), tmp_path / "a")
    tensors, header = parts(tmp_path / "a")
    with pytest.raises(ValueError, match="the contents do not fit a ConvexReLUClassifier"):
        cvxnn.load(write(tmp_path / "b", damage(tensors), header))


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
