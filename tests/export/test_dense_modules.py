"""``Dense`` modules against their documented formula, and against sentence-transformers itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLURegressor,
    LinearPreferenceHead,
)
from cvxnn.export import to_dense_modules
from cvxnn.network import TwoLayerNetwork

WIDTH = 4
X = np.random.default_rng(1).standard_normal((30, WIDTH))
ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, 0),
    "torch.nn.modules.activation.LogSigmoid": lambda x: -np.logaddexp(0, -x),
}


def network(n_neurons=5, n_outputs=1, *, skip=False, seed=0):
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal
    parts = {
        "hidden_weights": draw((n_neurons, WIDTH)),
        "hidden_bias": draw(n_neurons),
        "output_weights": draw(n_neurons),
        "output_bias": draw(n_outputs),
    }
    if skip:
        parts["linear_weights"] = draw((WIDTH, n_outputs))
    if n_outputs > 1:
        parts["output_index"] = np.sort(np.arange(n_neurons) % n_outputs)
    return TwoLayerNetwork(**parts)


def with_network(estimator, net):
    """An estimator with this network; the fit itself is tested elsewhere."""
    estimator.network_, estimator.n_features_in_ = net, WIDTH
    estimator.classes_ = np.arange(max(net.n_outputs, 2))
    estimator._y_ndim = 2
    return estimator


def output(paths):
    """What the modules give, by the formula of their documentation."""
    rows = X.astype(np.float32)
    for path in paths:
        config = json.loads((path / "config.json").read_text("utf-8"))
        tensors = load_file(path / "model.safetensors")
        assert tensors["linear.weight"].shape == (config["out_features"], config["in_features"])
        assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
        rows = rows @ tensors["linear.weight"].T + tensors["linear.bias"]
        rows = ACTIVATIONS[config["activation_function"]](rows)
    return rows


HEADS = {
    "relu": with_network(COALAPreferenceHead(beta=0.3), network()),
    "relu-skip": with_network(COALAPreferenceHead(beta=0.3), network(skip=True)),
    "no-neurons": with_network(COALAPreferenceHead(beta=2.0), network(0)),
    "linear": with_network(LinearPreferenceHead(beta=0.5), network(0, skip=True)),
}


@pytest.mark.parametrize("kind", HEADS)
def test_modules_of_a_head_give_its_reward(kind, tmp_path):
    paths = to_dense_modules(HEADS[kind], tmp_path / "head")
    assert [path.name for path in paths] == [f"{k}_Dense" for k in range(len(paths))]
    np.testing.assert_allclose(output(paths)[:, 0], HEADS[kind].reward(X), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("skip", [False, True])
def test_modules_of_other_estimators_give_scores_and_predictions(skip, tmp_path):
    net = network(6, 3, skip=skip)
    for estimator in (ConvexReLUClassifier(), ConvexReLURegressor()):
        paths = to_dense_modules(with_network(estimator, net), tmp_path / "scorer")
        np.testing.assert_allclose(output(paths), net.forward(X), rtol=2e-5, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "scorer").iterdir()) == ["0_Dense", "1_Dense"]


def test_gates_are_refused_as_no_relu_network_jumps(tmp_path):
    head = COALAPreferenceHead(n_patterns=4, strength=0.1, random_state=0)
    head.fit_pairs(X[:15] + 1, X[15:] - 1)
    with pytest.raises(ValueError, match=r"jumps where a gate opens.*formulation='relu'.*to_torch"):
        to_dense_modules(head, tmp_path / "head")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", HEADS)
def test_sentence_transformers_reads_them(kind, tmp_path):
    package = pytest.importorskip("sentence_transformers")
    torch = pytest.importorskip("torch")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    paths = to_dense_modules(HEADS[kind], tmp_path / "head")
    loaded = [modules.Dense.load(str(path)) for path in paths]
    scorer = package.SentenceTransformer(modules=loaded, device="cpu")
    found = scorer.forward({"sentence_embedding": torch.tensor(X, dtype=torch.float32)})
    rewards = found["sentence_embedding"][:, 0].detach().numpy()
    np.testing.assert_allclose(rewards, HEADS[kind].reward(X), rtol=2e-5, atol=1e-6)
