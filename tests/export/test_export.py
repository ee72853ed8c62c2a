"""Export: every framework predicts what the estimator predicts, and has its slopes."""

import functools
import importlib
import io
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from cvxnn import (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
    export,
)
from cvxnn.convex import LogisticLoss, MultinomialLoss, SquaredLoss
from cvxnn.export import to_jax, to_onnx, to_torch
from cvxnn.network import TwoLayerNetwork

# Most of the time is that of compilation, for data of many shapes.
pytestmark = pytest.mark.usefixtures("quick_compilation")

WIDTH = 4
KINDS = ["relu", "gated", "relu-skip", "gated-skip", "gated-conjunction"]
SHAPES = [(5, 1), (5, 3), (0, 1), (0, 3)]  # neurons, outputs
SMALL = {"n_patterns": 8, "strength": 0.01, "random_state": 0}


def inputs(dtype=np.float64, n=50):
    return np.random.default_rng(1).standard_normal((n, WIDTH)).astype(dtype)


def network(kind="relu", shape=(5, 1), dtype=np.float64, seed=0):
    """A network of normal weights; the gated ones have three gates, or three pairs of vectors."""
    rng = np.random.default_rng(seed)
    m, c = shape
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    parts = {
        "hidden_weights": draw(m, WIDTH),
        "hidden_bias": draw(m),
        "output_weights": draw(m),
        "output_bias": draw(c),
    }
    if "gated" in kind:
        vectors = [2] if "conjunction" in kind else []
        gates = {"gate_weights": draw(3, *vectors, WIDTH), "gate_bias": draw(3, *vectors)}
        parts |= gates | {"gate_index": rng.integers(0, 3, m)}
    if "skip" in kind:
        parts["linear_weights"] = draw(WIDTH, c)
    if c > 1:
        parts["output_index"] = np.sort(np.arange(m) % c)
    net = TwoLayerNetwork(**parts)
    if m:  # each output is positive on half the inputs, so that every class is predicted
        net.output_bias[:] -= np.median(net.forward(inputs(dtype)), axis=0)
    return net


def classifier(net, classes=None, bend=0.0, within=(0.0, 1.0), **options):
    """A classifier with this network; the fit itself is tested elsewhere."""
    model = ConvexReLUClassifier(**options)
    model.network_, model.n_features_in_, model.temperature_ = net, WIDTH, 1.7
    model.bend_, model.probability_range_ = bend, np.array(within)
    model.classes_ = np.arange(max(net.n_outputs, 2)) * 3 if classes is None else np.array(classes)
    return model


def regressor(net):
    model = ConvexReLURegressor()
    model.network_, model.n_features_in_, model._y_ndim = net, WIDTH, 2
    return model


def head(net, beta=0.3):
    model = COALAPreferenceHead(beta=beta)
    model.network_, model.n_features_in_, model.classes_ = net, WIDTH, np.array([0, 1])
    return model


def close(one, other, dtype=np.float64):
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def run(estimator, X):
    """Outputs of the ONNX graph by name, as onnxruntime computes them."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = to_onnx(estimator)
    onnx.checker.check_model(model, full_check=True)
    # Warnings of the runtime go to standard error, past pytest; from level 3 on there are none.
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    engine = runtime.InferenceSession(model.SerializeToString(), options)
    (only,) = engine.get_inputs()
    assert (only.name, only.shape) == ("X", ["batch", WIDTH])
    names = [output.name for output in engine.get_outputs()]
    out = dict(zip(names, engine.run(None, {"X": X}), strict=True))
    for declared in engine.get_outputs():
        assert declared.shape == ["batch", *out[declared.name].shape[1:]]
    return out


def slope(net, x):
    """Derivative of each output at one point, neuron by neuron."""
    out = np.zeros((net.n_outputs, WIDTH))
    for j in range(net.n_neurons):
        if net.gate_index is None:
            level = net.hidden_weights[j] @ x + net.hidden_bias[j]
        else:
            gate = net.gate_index[j]
            level = np.min(net.gate_weights[gate] @ x + net.gate_bias[gate])
        if level > 0:
            fed = 0 if net.output_index is None else net.output_index[j]
            out[fed] += net.output_weights[j] * net.hidden_weights[j]
    return out if net.linear_weights is None else out + net.linear_weights.T


# ONNX -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_of_regressors(kind, shape, dtype):
    model, X = regressor(network(kind, shape, dtype)), inputs(dtype)
    out = run(model, X)
    assert list(out) == ["variable"]
    assert out["variable"].dtype == dtype
    close(out["variable"], model.predict(X), dtype)


@pytest.mark.parametrize("loss", ["squared", "logistic", "multinomial"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_of_classifiers(kind, shape, loss, dtype):
    model, X = classifier(network(kind, shape, dtype), loss=loss), inputs(dtype)
    out = run(model, X)
    assert list(out) == ["label", "probabilities"]
    assert out["label"].dtype == np.int64
    np.testing.assert_array_equal(out["label"], model.predict(X))
    assert out["probabilities"].dtype == dtype
    close(out["probabilities"], model.predict_proba(X), dtype)
    if shape[0]:
        assert len(set(out["label"])) == len(model.classes_)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("bend", [2.0, 64.0])
def test_onnx_of_classifiers_with_a_bent_link(bend, n_outputs, dtype):
    model = classifier(network(shape=(5, n_outputs), dtype=dtype), bend=bend)
    found = run(model, inputs(dtype))["probabilities"]
    np.testing.assert_allclose(found, model.predict_proba(inputs(dtype)), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("within", [(0.2, 0.7), (0.0, 0.6), (0.3, 1.0), (1 / 3, 1 / 3)])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_onnx_of_classifiers_with_a_range(n_outputs, loss, within, dtype):
    within = (0.5, 0.5) if n_outputs == 1 and within[0] == within[1] else within
    model = classifier(network(shape=(5, n_outputs), dtype=dtype), within=within, loss=loss)
    X = np.concatenate([inputs(dtype), 100 * inputs(dtype)])
    out = run(model, X)
    np.testing.assert_array_equal(out["label"], model.predict(X))
    close(out["probabilities"], model.predict_proba(X), dtype)
    slack = 1e-6 if dtype == np.float32 else 1e-12
    assert out["probabilities"].min() > within[0] - slack
    assert out["probabilities"].max() < within[1] + slack


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_of_preference_heads(kind, dtype):
    model, X = head(network(kind, dtype=dtype)), inputs(dtype)
    out = run(model, X)
    assert list(out) == ["logit", "reward"]
    assert out["logit"].shape == out["reward"].shape == (50,)
    close(out["logit"], model.decision_function(X), dtype)
    close(out["reward"], model.reward(X), dtype)


@pytest.mark.parametrize("classes", [["no", "ja, é"], [False, True], [-1.0, 2.0], [-3, 2**62]])
@pytest.mark.parametrize("kind", [object, None])
def test_onnx_of_labels(classes, kind):
    labels = np.array(classes, kind if isinstance(classes[0], str) else None)
    model, X = classifier(network(), labels), inputs()
    out = run(model, X)["label"]
    assert out.dtype == (object if isinstance(classes[0], str) else np.int64)
    assert out.tolist() == model.predict(X).tolist()
    assert len(set(out.tolist())) == 2


@pytest.mark.parametrize(
    "classes", [[0.5, 1.0], np.array([1, 2**63], np.uint64), np.array([1, "a"], object)]
)
def test_onnx_of_other_labels(classes):
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match=r"classes_ is \[.*Encode the labels before fit"):
        to_onnx(classifier(network(), classes))


@pytest.mark.parametrize("n", [0, 1, 200])
def test_onnx_of_any_number_of_rows(n):
    for shape in ((5, 3), (0, 3)):
        model = regressor(network("gated-skip", shape))
        X = inputs(n=n)
        close(run(model, X)["variable"], model.network_.forward(X))


def test_onnx_of_scores_of_every_size(dtype):
    # Where exponentials overflow, and where probabilities are all but 0.
    levels = np.array([-1e4, -200, -1, 0, 1, 200, 1e4], dtype)
    X = np.zeros((len(levels), WIDTH), dtype)
    X[:, 0] = levels
    skip = np.eye(WIDTH, 1, dtype=dtype)
    line = TwoLayerNetwork(
        *(np.zeros(s, dtype) for s in ((0, WIDTH), 0, 0, 1)), linear_weights=skip
    )
    out = run(head(line, beta=1.0), X)
    np.testing.assert_array_equal(out["logit"], levels)
    with np.errstate(under="ignore"):
        close(out["reward"], -np.logaddexp(0, -levels), dtype)
        for one in (classifier(line), classifier(line, loss="logistic")):
            out = run(one, X)
            close(out["probabilities"], one.predict_proba(X), dtype)
            np.testing.assert_array_equal(out["label"], one.predict(X))
        three = TwoLayerNetwork(
            *(np.zeros(s, dtype) for s in ((0, WIDTH), 0, 0, 3)),
            linear_weights=np.eye(WIDTH, 3, dtype=dtype),
        )
        for loss in ("logistic", "multinomial"):
            one = classifier(three, loss=loss)
            out = run(one, X)["probabilities"]
            close(out, one.predict_proba(X), dtype)
            close(out.sum(axis=1), 1, dtype)


def test_onnx_takes_the_first_of_equal_scores():
    flat = network(shape=(0, 3))
    flat.output_bias[:] = 1
    model = classifier(flat)
    assert run(model, inputs())["label"].tolist() == model.predict(inputs()).tolist() == [0] * 50
    even = network(shape=(0, 1))
    even.output_bias[:] = 0
    model = classifier(even)
    assert run(model, inputs())["label"].tolist() == model.predict(inputs()).tolist() == [0] * 50


def test_onnx_model_is_for_old_runtimes_and_names_its_weights():
    onnx = pytest.importorskip("onnx")
    model = to_onnx(regressor(network("gated-skip")))
    assert model.ir_version <= 8
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    assert model.producer_name == "cvxnn"
    held = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for name, array in vars(network("gated-skip")).items():
        if array is not None:
            np.testing.assert_array_equal(held[name], array, strict=True)
    several = network("gated-skip", (5, 3))
    model = to_onnx(regressor(several))
    held = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for number, neurons in enumerate(several.blocks):
        array = several.hidden_weights[neurons]
        np.testing.assert_array_equal(held[f"hidden_weights_{number}"], array, strict=True)


# torch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_torch(kind, shape, dtype):
    torch = pytest.importorskip("torch")
    model, X = regressor(network(kind, shape, dtype)), inputs(dtype)
    module = to_torch(model)
    out = module(torch.tensor(X))
    assert out.shape == (50, shape[1])
    close(out.detach().numpy(), model.predict(X), dtype)
    close(module(torch.tensor(X.reshape(5, 10, -1))).detach().numpy().reshape(50, -1), out.detach())
    close(module(torch.tensor(X[0])).detach().numpy(), out[0].detach(), dtype)


def test_torch_of_every_estimator():
    torch = pytest.importorskip("torch")
    X = inputs()
    for model in (classifier(network()), head(network())):
        close(to_torch(model)(torch.tensor(X))[:, 0].detach(), model.decision_function(X))
    model = classifier(network(shape=(5, 3)))
    close(to_torch(model)(torch.tensor(X)).detach(), model.decision_function(X))


@pytest.mark.parametrize("shape", [(5, 3), (0, 1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_torch_has_the_slope_of_the_linear_piece(kind, shape):
    torch = pytest.importorskip("torch")
    net = network(kind, shape)
    module = to_torch(regressor(net))
    for x in inputs(n=5):
        jacobian = torch.autograd.functional.jacobian(module, torch.tensor(x))
        close(jacobian, slope(net, x))


def test_torch_weights_are_parameters_and_gates_are_not():
    module = to_torch(regressor(network("gated-skip")))
    names = {name for name, _ in module.named_parameters()}
    parts = set(vars(network("gated-skip"))) - {"output_index"}
    assert names == {name for name in parts if not name.startswith("gate")}
    assert set(module.state_dict()) == parts
    assert set(to_torch(regressor(network())).state_dict()) == {
        name for name in names if name != "linear_weights"
    }


def test_torch_training_leaves_the_estimator_alone():
    torch = pytest.importorskip("torch")
    model, X = regressor(network("gated-skip")), inputs()
    before = model.predict(X)
    module = to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.tensor(X)).square().mean().backward()
    optimizer.step()
    assert not np.allclose(module(torch.tensor(X)).detach(), before)
    np.testing.assert_array_equal(model.predict(X), before)


def test_torch_draws_no_random_numbers():
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state()
    to_torch(regressor(network()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_torch_state_and_pickle(kind):
    torch = pytest.importorskip("torch")
    module, X = to_torch(regressor(network(kind))), torch.tensor(inputs())
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = to_torch(regressor(network(kind, seed=7)))
    assert not torch.equal(other(X), module(X))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(X), module(X))
    back = pickle.loads(pickle.dumps(module))
    assert type(back) is export.TorchNetwork
    assert torch.equal(back(X), module(X))


# JAX --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [*SHAPES[1:3], *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[::3])],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_jax(kind, shape, dtype):
    model, X = regressor(network(kind, shape, dtype)), inputs(dtype)
    function, parameters = to_jax(model)

    @jax.jit  # both in one program
    def whole_and_by_rows(p, X):
        return function(p, X), jax.vmap(function, (None, 0))(p, X)

    with jax.enable_x64(True):
        out, by_rows = whole_and_by_rows(parameters, X)
        assert out.dtype == dtype
        close(out, model.predict(X), dtype)
        close(by_rows, out, dtype)
        # Uncompiled too: operation by operation, each of which is compiled alone.
        close(function(parameters, X), out, dtype)


def test_jax_without_double_precision():
    model, X = regressor(network("gated-skip")), inputs()
    function, parameters = to_jax(model)
    out = jax.jit(function)(parameters, X)
    assert out.dtype == np.float32
    close(out, model.predict(X), np.float32)


def test_jax_of_every_estimator():
    X = inputs()
    with jax.enable_x64(True):
        for model in (classifier(network()), head(network())):
            function, parameters = to_jax(model)
            close(function(parameters, X)[:, 0], model.decision_function(X))


@pytest.mark.parametrize("shape", [(5, 3), (0, 1)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_jax_has_the_slope_of_the_linear_piece(kind, shape):
    net = network(kind, shape)
    function, parameters = to_jax(regressor(net))
    with jax.enable_x64(True):
        jacobian = jax.jit(jax.jacobian(function, argnums=1))
        for x in inputs(n=5):
            close(jacobian(parameters, x), slope(net, x))


@pytest.mark.parametrize("kind", KINDS)
def test_jax_and_torch_have_the_same_gradient_of_the_weights(kind):
    torch = pytest.importorskip("torch")
    model, X = regressor(network(kind, (5, 3))), inputs()
    module = to_torch(model)
    module(torch.tensor(X)).square().mean().backward()
    function, parameters = to_jax(model)
    assert set(parameters) == {name for name, _ in module.named_parameters()}
    with jax.enable_x64(True):
        squares = jax.jit(jax.value_and_grad(lambda p: (function(p, X) ** 2).mean()))
        gradient = squares(parameters)[1]
        for name, parameter in module.named_parameters():
            close(gradient[name], parameter.grad)
        # And it is the one of finite differences, in some direction.
        rng, step = np.random.default_rng(3), 1e-6
        ways = {name: rng.standard_normal(value.shape) for name, value in parameters.items()}
        moved = [
            float(squares({n: v + s * ways[n] for n, v in parameters.items()})[0])
            for s in (step, -step)
        ]
        expected = sum(float((gradient[n] * ways[n]).sum()) for n in ways)
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(expected, rel=1e-6)


def test_jax_parameters_are_copies():
    model, X = regressor(network("gated-skip")), inputs()
    before = model.predict(X)
    _, parameters = to_jax(model)
    for value in parameters.values():
        value += 1
    np.testing.assert_array_equal(model.predict(X), before)


# All --------------------------------------------------------------------------------------------


def test_a_gate_is_open_on_its_boundary():
    torch = pytest.importorskip("torch")
    one = np.ones((1, 1))
    gate = np.eye(1, WIDTH)
    net = TwoLayerNetwork(
        np.zeros((1, WIDTH)), one[0], one[0], np.zeros(1), gate, np.zeros(1), None, np.array([0])
    )
    model, X = regressor(net), np.zeros((3, WIDTH))
    X[:, 0] = -1, 0, 1
    expected = [[0], [1], [1]]
    assert model.predict(X).tolist() == expected
    assert run(model, X)["variable"].tolist() == expected
    assert to_torch(model)(torch.tensor(X)).tolist() == expected
    function, parameters = to_jax(model)
    assert function(parameters, X).tolist() == expected


@settings(max_examples=15)
@given(
    kind=st.sampled_from(KINDS),
    shape=st.tuples(st.integers(0, 9), st.integers(1, 4)),
    seed=st.integers(0, 2**32 - 1),
)
def test_all_agree(kind, shape, seed):
    torch = pytest.importorskip("torch")
    model, X = classifier(network(kind, shape, seed=seed)), inputs()
    scores = model.network_.forward(X)
    function, parameters = to_jax(model)
    with jax.enable_x64(True):
        close(jax.jit(function)(parameters, X), scores)
    close(to_torch(model)(torch.tensor(X)).detach(), scores)
    close(run(model, X)["probabilities"], model.predict_proba(X))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_onnx_of_a_loss_by_name_or_as_an_object(n_classes):
    X = inputs(np.float64)
    y = np.digitize(X[:, 0], [-0.5, 0.5][: n_classes - 1])
    options = SMALL | {"formulation": "gated", "penalty": "l2"}
    for name, loss in (
        ("logistic", LogisticLoss()),
        ("squared", SquaredLoss()),
        ("multinomial", MultinomialLoss()),
    )[:n_classes]:
        given = ConvexReLUClassifier(loss=loss, **options).fit(X, y)
        found = run(given, X)
        named = ConvexReLUClassifier(loss=name, **options).fit(X, y)
        close(found["probabilities"], named.predict_proba(X), np.float64)
        close(found["probabilities"], given.predict_proba(X), np.float64)
        assert found["label"].tolist() == named.predict(X).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"formulation": "relu"},
        {"formulation": "gated", "skip": 0.1},
        {"formulation": "relu", "strength": 10.0},
    ],
    ids=["relu", "gated", "no neurons"],
)
@pytest.mark.filterwarnings("ignore:.* predicts the same for all rows:UserWarning")
def test_fitted_estimators(options, dtype):
    torch = pytest.importorskip("torch")
    X = inputs(dtype)
    y = np.array(["less", "more"])[(X[:, 0] * X[:, 1] > 0).astype(int)]
    options = SMALL | options
    one = ConvexReLUClassifier(**options).fit(X, y)
    assert (one.network_.n_neurons == 0) == (options["strength"] == 10)
    out = run(one, X)
    assert out["label"].tolist() == one.predict(X).tolist()
    close(out["probabilities"], one.predict_proba(X), dtype)
    close(to_torch(one)(torch.tensor(X))[:, 0].detach(), one.decision_function(X), dtype)
    two = ConvexReLURegressor(**options).fit(X, X[:, :2])
    close(run(two, X)["variable"], two.predict(X), dtype)
    function, parameters = to_jax(two)
    with jax.enable_x64(True):
        close(function(parameters, X), two.predict(X), dtype)


def test_fitted_head(dtype):
    X = inputs(dtype, 40)
    model = COALAPreferenceHead(**SMALL).fit_pairs(X[:20] + 1, X[20:] - 1)
    out = run(model, X)
    close(out["logit"], model.decision_function(X), dtype)
    close(out["reward"], model.reward(X), dtype)


@functools.cache
def cross_validated(cv, single):
    X = inputs(n=60)
    options = {name: value for name, value in SMALL.items() if name != "strength"}
    if single is COALAPreferenceHead:
        model = cv(single(formulation="relu", **options), strengths=[0.1, 0.01])
        return model.fit_pairs(X[:30] + 1, X[30:] - 1)
    model = cv(single(**options), strengths=[0.1, 0.01], cv=2)
    return model.fit(X, X[:, 0] > 0 if single is ConvexReLUClassifier else X[:, 0])


@pytest.mark.parametrize("convert", [to_onnx, to_torch, to_jax])
@pytest.mark.parametrize(
    ("cv", "single"),
    [
        (ConvexReLUClassifierCV, ConvexReLUClassifier),
        (ConvexReLURegressorCV, ConvexReLURegressor),
        (COALAPreferenceHeadCV, COALAPreferenceHead),
    ],
)
def test_cross_validated_estimators_are_those_of_their_last_fit(convert, cv, single):
    model, X = cross_validated(cv, single), inputs(n=60)
    decides = hasattr(model, "decision_function")
    expected = (model.decision_function if decides else model.predict)(X)
    if convert is to_onnx:
        if single is ConvexReLUClassifier:
            close(run(model, X)["probabilities"], model.predict_proba(X))
        else:
            close(
                run(model, X)["logit" if "logit" in run(model, X) else "variable"].ravel(), expected
            )
    elif convert is to_torch:
        torch = pytest.importorskip("torch")
        close(to_torch(model)(torch.tensor(X)).detach().numpy()[:, 0], expected)
    else:
        with jax.enable_x64(True):
            function, parameters = to_jax(model)
            close(np.asarray(function(parameters, X))[:, 0], expected)


@pytest.mark.parametrize("convert", [to_onnx, to_torch, to_jax])
@pytest.mark.parametrize("cls", [ConvexReLUClassifier, ConvexReLURegressor, COALAPreferenceHead])
def test_unfitted(convert, cls):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        convert(cls())


@pytest.mark.parametrize("convert", [to_onnx, to_torch, to_jax])
@pytest.mark.parametrize(
    "thing",
    [
        make_pipeline(LogisticRegression()),
        LogisticRegression(),
        ConvexReLUClassifier,
        network(),
        None,
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_other_objects(convert, thing):
    with pytest.raises(
        TypeError,
        match=r"cannot export a \w+; expected .* CV class of one\. Of a pipeline",
    ):
        convert(thing)


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("onnx_model", "onnx", "export"), ("torch_module", "torch", "llm")],
)
def test_missing_package(module, package, extra, monkeypatch):
    for name in (module, "_onnx_graph"):
        monkeypatch.delitem(sys.modules, f"cvxnn.export.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"'{package}'.*pip install \"cvxnn\[{extra}\]\""):
        importlib.import_module(f"cvxnn.export.{module}")


def test_no_other_names():
    with pytest.raises(AttributeError, match=r"has no 'to_tensor'; did you mean cvxnn\.export"):
        export.to_tensor  # noqa: B018


def test_optional_packages_stay_out():
    optional = "{'onnx', 'onnxruntime', 'skl2onnx', 'torch'}"
    code = f"import sys, cvxnn.export; print(sorted({optional} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
