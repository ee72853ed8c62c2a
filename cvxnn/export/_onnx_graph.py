"""ONNX graph of one estimator; needs the extra ``export``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxnn import __version__
from cvxnn._extras import require
from cvxnn.estimators.prediction import ClassifierPrediction, RegressorPrediction
from cvxnn.export._fitted import fitted_network
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.scores import ANY_PROBABILITY

onnx: Any = require("onnx", extra="export")

# The oldest version with all operators in use: every runtime since 2022 reads it.
OPSET = 17


def graph_of(estimator: Any) -> Any:
    """Return the ONNX graph of a fitted estimator of cvxnn; see :func:`cvxnn.export.to_onnx`."""
    network = fitted_network(estimator)
    graph = _Graph(network.hidden_weights.dtype)
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


class _Graph:
    """ONNX graph in progress; a call adds a node and returns the name of its output."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.outputs: list[Any] = []

    def __call__(self, operator: str, *inputs: str | NDArray[Any], **attributes: Any) -> str:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, names, [output], **attributes))
        return output

    def constant(self, value: NDArray[Any], name: str | None = None) -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> NDArray[Any]:
        return np.array(value, self.dtype)

    def output(self, name: str, source: str, *width: int, dtype: Any = None) -> None:
        """Make a value an output of shape (batch, *width)."""
        self.nodes.append(onnx.helper.make_node("Identity", [source], [name]))
        self.outputs.append(self._value(name, self.dtype if dtype is None else dtype, *width))

    def log_sigmoid(self, x: str) -> str:
        # min(x, 0) - log(1 + exp(-|x|)): no exponential overflows.
        one = self.number(1)
        small = self("Log", self("Add", one, self("Exp", self("Neg", self("Abs", x)))))
        return self("Sub", self("Min", x, self.number(0)), small)

    def bent(self, scores: str, bend: float) -> str:
        """Return what ``cvxnn.numerics.scores.bent`` makes of scores of classes."""
        x = self("Mul", self("Add", scores, self.number(1)), self.number(bend))
        # log(1 + exp(x)) = x - log_sigmoid(x), which is exp(x) (1 - exp(x) / 2 + ...) far below 0.
        low = self.number(-5)
        near = self("Max", x, low)
        logarithm = self("Log", self("Sub", near, self.log_sigmoid(near)))
        tiny = self("Exp", self("Min", x, low))
        square = self("Mul", self("Mul", tiny, tiny), self.number(5 / 24))
        series = self("Add", self("Sub", x, self("Mul", tiny, self.number(0.5))), square)
        far = self("Less", x, low)
        return self("Mul", self("Where", far, series, logarithm), self.number(2 * np.log(2) / bend))

    def limited(self, found: str, n_classes: int, within: NDArray[Any]) -> str:
        """Return what ``cvxnn.numerics.scores.probabilities`` makes of those beyond a range."""
        even, tiny = self.number(1 / n_classes), self.number(np.finfo(self.dtype).tiny)
        least, largest = map(self.number, within)
        low = self("ReduceMin", found, axes=[1], keepdims=1)
        high = self("ReduceMax", found, axes=[1], keepdims=1)
        lift = self("Div", self("Sub", least, low), self("Max", self("Sub", even, low), tiny))
        press = self("Div", self("Sub", high, largest), self("Max", self("Sub", high, even), tiny))
        share = self("Clip", self("Max", lift, press), self.number(0), self.number(1))
        own = self("Mul", self("Sub", self.number(1), share), found)
        return self("Add", own, self("Mul", share, even))

    def model(self, name: str, n_features: int) -> Any:
        inputs = [self._value("X", self.dtype, n_features)]
        graph = onnx.helper.make_graph(self.nodes, name, inputs, self.outputs, self.constants)
        opset = onnx.helper.make_opsetid("", OPSET)
        return onnx.helper.make_model(
            graph,
            opset_imports=[opset],
            # Runtimes refuse a version newer than theirs, which onnx writes by default.
            ir_version=onnx.helper.find_min_ir_version_for([opset]),
            producer_name="cvxnn",
            producer_version=__version__,
        )

    def _value(self, name: str, dtype: Any, *width: int) -> Any:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return onnx.helper.make_tensor_value_info(name, kind, ["batch", *width])


def _scores(graph: _Graph, network: TwoLayerNetwork) -> str:
    """Add the network, and return the name of its outputs, shape (batch, n_outputs)."""

    def whole(name: str) -> str:
        return graph.constant(getattr(network, name), name)

    is_open = None
    if network.gate_index is not None and network.n_neurons:
        assert network.gate_weights is not None
        assert network.gate_bias is not None
        width = network.gate_weights.shape[-1]
        vectors = graph.constant(network.gate_weights.reshape(-1, width), "gate_weights")
        offsets = graph.constant(network.gate_bias.ravel(), "gate_bias")
        gates = graph("Gemm", "X", vectors, offsets, transB=1)
        if network.gate_bias.ndim == 2:  # a conjunction is open where its least product is
            apart = graph("Reshape", gates, np.array([0, *network.gate_bias.shape]))
            gates = graph("ReduceMin", apart, axes=[2], keepdims=0)
        is_open = graph("GreaterOrEqual", gates, graph.number(0))
    outputs = [_output(graph, network, number, is_open) for number in range(network.n_outputs)]
    # Runtimes differ in how they treat matrices without columns.
    fed = graph("Concat", *outputs, axis=1) if len(outputs) > 1 else outputs[0]
    scores = graph("Add", fed, whole("output_bias"))
    if network.linear_weights is not None:
        scores = graph("Add", scores, graph("MatMul", "X", whole("linear_weights")))
    return scores


def _output(graph: _Graph, network: TwoLayerNetwork, number: int, is_open: str | None) -> str:
    """Add the neurons of one output, and return the name of their sum, shape (batch, 1)."""
    neurons = network.blocks[number]

    def part(name: str) -> str:
        """Name the output, too, where there are several."""
        array = getattr(network, name)[neurons]
        return graph.constant(array, f"{name}_{number}" if network.n_outputs > 1 else name)

    if neurons.start == neurons.stop:
        n_rows = graph("Shape", "X", start=0, end=1)
        shape = graph("Concat", n_rows, np.array([1]), axis=0)
        return graph("Expand", graph.number(0), shape)
    hidden = graph("Gemm", "X", part("hidden_weights"), part("hidden_bias"), transB=1)
    if is_open is None or network.gate_index is None:
        hidden = graph("Relu", hidden)
    else:
        own = graph("Gather", is_open, part("gate_index"), axis=1)
        hidden = graph("Where", own, hidden, graph.number(0))
    column = graph("Unsqueeze", part("output_weights"), np.array([1]))
    return graph("MatMul", hidden, column)


def _classify(graph: _Graph, scores: str, classifier: Any) -> None:
    """Add the label and the probabilities as outputs."""
    classes = _onnx_labels(classifier.classes_)
    bent = scores
    if classifier.bend_:
        bent = graph.bent(scores, classifier.bend_)
        if classifier.network_.n_outputs == 1:
            other = graph.bent(graph("Neg", scores), classifier.bend_)
            bent = graph("Mul", graph("Sub", bent, other), graph.number(0.5))
    scaled = graph("Mul", bent, graph.number(classifier.temperature_))
    if classifier.network_.n_outputs == 1:
        is_second = graph("Greater", graph("Squeeze", scores, np.array([1])), graph.number(0))
        code = graph("Cast", is_second, to=onnx.TensorProto.INT64)
        second = graph("Sigmoid", scaled)
        first = graph("Sub", graph.number(1), second)
        probabilities = graph("Concat", first, second, axis=1)
    else:
        code = graph("ArgMax", scores, axis=1, keepdims=0)
        link = graph.log_sigmoid(scaled) if classifier._one_against_rest() else scaled
        probabilities = graph("Softmax", link, axis=1)
    if tuple(classifier.probability_range_) != ANY_PROBABILITY:
        probabilities = graph.limited(probabilities, len(classes), classifier.probability_range_)
    graph.output("label", graph("Gather", classes, code), dtype=classes.dtype)
    graph.output("probabilities", probabilities, len(classes))


def _onnx_labels(classes: NDArray[Any]) -> NDArray[Any]:
    """Return labels of a type that ONNX runtimes have."""
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
