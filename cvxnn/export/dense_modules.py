"""Export to ``Dense`` modules of sentence-transformers, which are files: no package is needed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cvxnn.export._fitted import HEADS, fitted_network
from cvxnn.files.writing import replacing_folder
from cvxnn.network import TwoLayerNetwork

_IDENTITY = "torch.nn.modules.linear.Identity"
_RELU = "torch.nn.modules.activation.ReLU"
_LOG_SIGMOID = "torch.nn.modules.activation.LogSigmoid"


class _Layer(NamedTuple):
    """Activation of ``weight @ x + bias``."""

    weight: NDArray[np.floating]
    bias: NDArray[np.floating]
    activation: str


def to_dense_modules(estimator: Any, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the network of a fitted estimator as ``Dense`` modules of sentence-transformers.

    With ``from sentence_transformers.models import Dense``, the model
    ``SentenceTransformer(modules=[*encoder, *(Dense.load(str(path)) for path in paths)])`` gives
    what the estimator makes of the vectors of the encoder, and its ``save`` writes all of it.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor or a preference head
        Fitted estimator with ``formulation="relu"``, a LinearPreferenceHead, or the CV class of
        one. It was fitted to vectors of the encoder.
    folder : path-like
        Folder to write; one that exists is replaced.

    Returns
    -------
    list of Path
        The folder of each module, in their order, each with ``config.json`` and
        ``model.safetensors``. Their output is the reward of a head, the scores of
        ``decision_function`` of a classifier (a column for two classes), or the predictions of a
        regressor. Weights are float32, as sentence-transformers computes.

    Raises
    ------
    TypeError
        If the estimator is of another class; of a pipeline, export the last step.
    ValueError
        If the network has gates: it jumps where a gate opens, and no ReLU network does. Fit with
        ``formulation="relu"``, or put the module of `to_torch` behind the encoder.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted; call ``fit`` first.
    """
    network = fitted_network(estimator)
    if network.gate_index is not None and network.n_neurons:
        raise ValueError(
            f"the {type(estimator).__name__} has a gated network, which jumps where a gate opens; "
            "Dense modules are continuous. Fit with formulation='relu', or put the module of "
            "cvxnn.export.to_torch behind the encoder, which is exact"
        )
    layers = _layers(network)
    if isinstance(estimator, HEADS):
        layers[-1] = layers[-1]._replace(activation=_LOG_SIGMOID)
        layers.append(_Layer(np.array([[estimator.beta]]), np.zeros(1), _IDENTITY))
    with replacing_folder(folder) as temporary:
        for number, layer in enumerate(layers):
            _write(layer, temporary / f"{number}_Dense")
    return [Path(folder) / f"{number}_Dense" for number in range(len(layers))]


def _layers(network: TwoLayerNetwork) -> list[_Layer]:
    n_outputs, skip = network.n_outputs, network.linear_weights
    n_features = network.hidden_weights.shape[1]
    if network.n_neurons == 0:
        weight = np.zeros((n_outputs, n_features)) if skip is None else skip.T
        return [_Layer(weight, network.output_bias, _IDENTITY)]
    first, bias = network.hidden_weights, network.hidden_bias
    last = np.zeros((n_outputs, network.n_neurons))
    for output, neurons in enumerate(network.blocks):
        last[output, neurons] = network.output_weights[neurons]
    if skip is not None:  # x = relu(x) - relu(-x)
        first = np.concatenate([first, skip.T, -skip.T])
        bias = np.concatenate([bias, np.zeros(2 * n_outputs)])
        last = np.concatenate([last, np.eye(n_outputs), -np.eye(n_outputs)], axis=1)
    return [_Layer(first, bias, _RELU), _Layer(last, network.output_bias, _IDENTITY)]


def _write(layer: _Layer, folder: Path) -> None:
    folder.mkdir()
    config = {
        "in_features": layer.weight.shape[1],
        "out_features": layer.weight.shape[0],
        "bias": True,
        "activation_function": layer.activation,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {"linear.weight": layer.weight, "linear.bias": layer.bias}
    singles = {name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}
    save_file(singles, folder / "model.safetensors", metadata={"format": "pt"})
