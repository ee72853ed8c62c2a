"""Fitted networks in other frameworks: as an ONNX graph, a torch module, a JAX function.

A network is two matrix products, so the copies are exact but for rounding. Where a row lies within
rounding of a gate, a gated network may open that gate in one library and not in another; ReLU
networks are continuous and know no such rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from cvxnn import __version__
from cvxnn._extras import require
from cvxnn.estimators._prediction import ClassifierPrediction, RegressorPrediction
from cvxnn.estimators.classifier import ConvexReLUClassifier
from cvxnn.estimators.coala import COALAPreferenceHead
from cvxnn.estimators.coala_cv import COALAPreferenceHeadCV
from cvxnn.estimators.regressor import ConvexReLURegressor
from cvxnn.network import TwoLayerNetwork

# The oldest that has all we need: any runtime since 2022 reads it.
_OPSET = 17
_TRAINED = ("hidden_weights", "hidden_bias", "output_weights", "output_bias", "linear_weights")
_FIXED = ("gate_weights", "gate_bias", "gate_index")


def to_onnx(estimator: Any) -> Any:
    """Give the graph of a fitted estimator, from raw features to what it predicts.

    The result is an ``onnx.ModelProto``, and not bytes, so that it can be looked at, checked, put
    into a larger graph, or written with external data; ``onnx.save(model, "model.onnx")`` writes
    it, ``model.SerializeToString()`` gives the bytes that a runtime takes.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor or COALAPreferenceHead
        Fitted.

    Returns
    -------
    onnx.ModelProto
        Input ``X``, shape (batch, n_features), of the dtype of the network: float32 if it was
        fitted to float32, else float64. Outputs, named as by sklearn-onnx where that has a name:

        - classifier: ``label``, shape (batch,), string or int64 (False is 0 then, 2.0 is 2), and
          ``probabilities``, shape (batch, n_classes), in the order of ``classes_``;
        - regressor: ``variable``, shape (batch, n_outputs), also where ``y`` had one dimension;
        - preference head: ``logit`` and ``reward``, shape (batch,). Far above 0 the logit ranks
          responses more finely than the reward, which rounds to 0.

    Raises
    ------
    TypeError
        For another class; of a pipeline, export the last step.
    ValueError
        For labels that are neither strings nor whole numbers; encode them before ``fit``.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ImportError
        Without the package onnx; install it with ``pip install "cvxnn[export]"``.
    """
    network = _network(estimator)
    graph = _Graph(require("onnx", extra="export"), network.hidden_weights.dtype)
    scores = _scores(graph, network)
    if isinstance(estimator, ClassifierPrediction):
        _classify(graph, scores, estimator)
    elif isinstance(estimator, RegressorPrediction):
        graph.output("variable", scores, network.n_outputs)
    else:
        logit = graph("Squeeze", scores, np.array([1]))
        graph.output("logit", logit)
        beta = graph.number(estimator.beta)
        graph.output("reward", graph("Mul", beta, graph.log_sigmoid(logit)))
    return graph.model(type(estimator).__name__, network.hidden_weights.shape[1])


def to_torch(estimator: Any) -> Any:
    """Give the network of a fitted estimator as a torch module.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor or COALAPreferenceHead
        Fitted.

    Returns
    -------
    torch.nn.Module
        ``module(X)`` gives the network's outputs, shape (..., n_outputs), for a tensor of raw
        features, shape (..., n_features), of the dtype of the network: the scores of
        ``decision_function``, or the predictions of the regressor, always with that last axis.
        Weights and biases are parameters, named as in ``TwoLayerNetwork`` and copied: training
        them leaves the estimator as it is. Gates are buffers. On the CPU; move it with ``to``.

    Raises
    ------
    TypeError
        For another class; of a pipeline, export the last step.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ImportError
        Without the package torch; install it with ``pip install "cvxnn[llm]"``.
    """
    return _torch_network()(_network(estimator))


def to_jax(estimator: Any) -> tuple[Callable[[dict[str, Any], Any], Any], dict[str, Any]]:
    """Give the network of a fitted estimator as a pure function for JAX.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor or COALAPreferenceHead
        Fitted.

    Returns
    -------
    function : callable
        ``function(parameters, X)`` gives the network's outputs, shape (..., n_outputs), for raw
        features, shape (..., n_features): the scores of ``decision_function``, or the predictions
        of the regressor, always with that last axis. It may be jitted, mapped and differentiated
        in both arguments. Gates are constants of it. Products are of full precision on every
        device.
    parameters : dict of ndarray
        Weights and biases, named as in ``TwoLayerNetwork``; copies. JAX computes with float64 only
        where ``jax_enable_x64`` is set, and with float32 elsewhere.

    Raises
    ------
    TypeError
        For another class; of a pipeline, export the last step.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    """
    network = _network(estimator)
    parameters = _copies(network, _TRAINED)
    gates = _copies(network, _FIXED)

    def function(parameters: dict[str, Any], X: Any) -> Any:
        def times(A: Any, B: Any) -> Any:
            return jnp.matmul(A, B, precision="highest")

        hidden = times(X, parameters["hidden_weights"].T) + parameters["hidden_bias"]
        if gates:
            is_open = times(X, gates["gate_weights"].T) + gates["gate_bias"] >= 0
            hidden = jnp.where(is_open[..., gates["gate_index"]], hidden, 0)
        else:
            hidden = jax.nn.relu(hidden)
        out = times(hidden, parameters["output_weights"]) + parameters["output_bias"]
        if "linear_weights" in parameters:
            out += times(X, parameters["linear_weights"])
        return out

    return function, parameters


def _network(estimator: Any) -> TwoLayerNetwork:
    classes = (ConvexReLUClassifier, ConvexReLURegressor, COALAPreferenceHead)
    exported = (
        ClassifierPrediction,
        RegressorPrediction,
        COALAPreferenceHead,
        COALAPreferenceHeadCV,
    )
    if not isinstance(estimator, exported):
        raise TypeError(
            f"cannot export a {type(estimator).__name__}; expected a fitted "
            f"{', '.join(cls.__name__ for cls in classes[:-1])} or {classes[-1].__name__} (of a "
            "pipeline, its last step)."
        )
    check_is_fitted(estimator)
    return estimator.network_


def _copies(network: TwoLayerNetwork, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    arrays = {name: getattr(network, name) for name in names}
    return {name: array.copy() for name, array in arrays.items() if array is not None}


# ONNX ---------------------------------------------------------------------------------------------


class _Graph:
    """An ONNX graph under way: calling it adds a node and gives the name of its output."""

    def __init__(self, onnx: Any, dtype: np.dtype) -> None:
        self.onnx = onnx
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.outputs: list[Any] = []

    def __call__(self, operator: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, names, [output], **attributes))
        return output

    def constant(self, value: NDArray[Any], name: str | None = None) -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> NDArray[Any]:
        return np.array(value, self.dtype)

    def output(self, name: str, source: str, *width: int, dtype: Any = None) -> None:
        """Make a value an output, of shape (batch, *width)."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [source], [name]))
        self.outputs.append(self._value(name, self.dtype if dtype is None else dtype, *width))

    def log_sigmoid(self, x: str) -> str:
        # min(x, 0) - log(1 + exp(-|x|)): no exponential overflows.
        one = self.number(1)
        small = self("Log", self("Add", one, self("Exp", self("Neg", self("Abs", x)))))
        return self("Sub", self("Min", x, self.number(0)), small)

    def model(self, name: str, n_features: int) -> Any:
        make = self.onnx.helper
        inputs = [self._value("X", self.dtype, n_features)]
        graph = make.make_graph(self.nodes, name, inputs, self.outputs, self.constants)
        opset = make.make_opsetid("", _OPSET)
        return make.make_model(
            graph,
            opset_imports=[opset],
            # Runtimes refuse a newer one than theirs, which is what onnx writes by default.
            ir_version=make.find_min_ir_version_for([opset]),
            producer_name="cvxnn",
            producer_version=__version__,
        )

    def _value(self, name: str, dtype: Any, *width: int) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.onnx.helper.make_tensor_value_info(name, kind, ["batch", *width])


def _scores(graph: _Graph, network: TwoLayerNetwork) -> str:
    """Outputs of the network, shape (batch, n_outputs)."""

    def part(name: str) -> str:
        return graph.constant(getattr(network, name), name)

    if network.n_neurons:
        hidden = graph("Gemm", "X", part("hidden_weights"), part("hidden_bias"), transB=1)
        if network.gate_index is None:
            hidden = graph("Relu", hidden)
        else:
            gates = graph("Gemm", "X", part("gate_weights"), part("gate_bias"), transB=1)
            is_open = graph("GreaterOrEqual", gates, graph.number(0))
            is_open = graph("Gather", is_open, part("gate_index"), axis=1)
            hidden = graph("Where", is_open, hidden, graph.number(0))
        scores = graph("Gemm", hidden, part("output_weights"), part("output_bias"))
    else:
        # Runtimes differ on matrices without columns.
        n_rows = graph("Shape", "X", start=0, end=1)
        shape = graph("Concat", n_rows, np.array([network.n_outputs]), axis=0)
        scores = graph("Expand", part("output_bias"), shape)
    if network.linear_weights is not None:
        scores = graph("Add", scores, graph("MatMul", "X", part("linear_weights")))
    return scores


def _classify(graph: _Graph, scores: str, classifier: ConvexReLUClassifier) -> None:
    classes = _onnx_labels(classifier.classes_)
    scaled = graph("Mul", scores, graph.number(classifier.temperature_))
    if classifier.network_.n_outputs == 1:
        is_second = graph("Greater", graph("Squeeze", scores, np.array([1])), graph.number(0))
        code = graph("Cast", is_second, to=graph.onnx.TensorProto.INT64)
        second = graph("Sigmoid", scaled)
        first = graph("Sub", graph.number(1), second)
        probabilities = graph("Concat", first, second, axis=1)
    else:
        code = graph("ArgMax", scores, axis=1, keepdims=0)
        link = graph.log_sigmoid(scaled) if classifier.loss == "logistic" else scaled
        probabilities = graph("Softmax", link, axis=1)
    graph.output("label", graph("Gather", classes, code), dtype=classes.dtype)
    graph.output("probabilities", probabilities, len(classes))


def _onnx_labels(classes: NDArray[Any]) -> NDArray[Any]:
    """Labels as ONNX runtimes know them."""
    if classes.dtype.kind in "OU" and all(isinstance(label, str) for label in classes):
        return classes.astype(object)
    if classes.dtype.kind in "fiub":
        with np.errstate(invalid="ignore"):
            whole = classes.astype(np.int64)
        if np.array_equal(whole, classes):
            return whole
    raise ValueError(
        f"classes_ is {classes.tolist()}; an ONNX graph holds labels that are strings or whole "
        "numbers of 64 bits. Encode the labels before fit, as with LabelEncoder."
    )


# torch --------------------------------------------------------------------------------------------


@cache
def _torch_network() -> Any:
    torch: Any = require("torch", extra="llm")
    module: Any = torch.nn.Module

    class TorchNetwork(module):
        """A ``TwoLayerNetwork`` of tensors."""

        def __init__(self, network: TwoLayerNetwork) -> None:
            super().__init__()
            for name in _TRAINED:
                array = getattr(network, name)
                value = None if array is None else torch.nn.Parameter(torch.tensor(array))
                self.register_parameter(name, value)
            for name in _FIXED:
                array = getattr(network, name)
                self.register_buffer(name, None if array is None else torch.tensor(array))

        def forward(self, X: Any) -> Any:
            hidden = X @ self.hidden_weights.T + self.hidden_bias
            if self.gate_index is None:
                hidden = torch.relu(hidden)
            else:
                is_open = X @ self.gate_weights.T + self.gate_bias >= 0
                hidden = torch.where(is_open[..., self.gate_index], hidden, 0)
            out = hidden @ self.output_weights + self.output_bias
            return out if self.linear_weights is None else out + X @ self.linear_weights

    # Under a name by which pickle finds it: see `__getattr__`.
    TorchNetwork.__qualname__ = "TorchNetwork"
    return TorchNetwork


def __getattr__(name: str) -> Any:
    """Give the torch class, which exists only once torch is imported."""
    if name == "TorchNetwork":
        return _torch_network()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
