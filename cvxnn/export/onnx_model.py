"""Export to ONNX, of estimators and of pipelines; needs the extra ``export``."""

from __future__ import annotations

import json
from os import PathLike
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from cvxnn._extras import require
from cvxnn.estimators.classifier import ConvexReLUClassifier
from cvxnn.estimators.cv import ConvexReLUClassifierCV, ConvexReLURegressorCV
from cvxnn.estimators.prediction import ClassifierPrediction
from cvxnn.estimators.regressor import ConvexReLURegressor
from cvxnn.export._fitted import HEADS, fitted_network
from cvxnn.export._onnx_graph import OPSET, graph_of
from cvxnn.export.carried import ONNX_KEY

onnx: Any = require("onnx", extra="export")

_CLASSES = (
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
    *HEADS,
)


def to_onnx(estimator: Any, X: Any = None) -> Any:
    """Return the ONNX graph of a fitted estimator, from raw features to its predictions.

    The graph is an ``onnx.ModelProto`` rather than bytes, so that it can be inspected, checked, put
    into a larger graph, or written with external data. ``onnx.save(model, "model.onnx")`` writes
    it, and ``model.SerializeToString()`` gives the bytes that a runtime takes.

    The other steps of a pipeline are converted by sklearn-onnx, which knows most transformers of
    scikit-learn.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor, a preference head or Pipeline
        Fitted estimator, the CV class of one, a pipeline that ends with one, or a search such as
        ``GridSearchCV``, of which the best estimator is taken. The model of a head carries the
        description of its embeddings: see `embedding_of`.
    X : array-like or DataFrame, shape (n_samples, n_features), optional
        For a pipeline: some of its rows, which show the types of the inputs. A table becomes one
        input for each column, of shape (batch, 1), with the column's name. By default there is one
        input of numbers.

    Returns
    -------
    onnx.ModelProto
        Input ``X``, shape (batch, n_features), of the dtype of the network: float32 if it was
        fitted to float32, otherwise float64. The outputs have the names that sklearn-onnx uses:

        - classifier: ``label``, shape (batch,), string or int64 (False becomes 0, and 2.0 becomes
          2), and ``probabilities``, shape (batch, n_classes), in the order of ``classes_``;
        - regressor: ``variable``, shape (batch, n_outputs), also where ``y`` had one dimension;
        - preference head: ``logit`` and ``reward``, shape (batch,). Far above 0 the logit still
          ranks responses where the reward is rounded to 0.

    Raises
    ------
    TypeError
        If the estimator, or the last step of the pipeline, is of another class; if ``X`` is given
        for one that is no pipeline, or names a file; or if sklearn-onnx does not know a step:
        export the steps after it as a pipeline of their own, ``pipeline[k:]``.
    ValueError
        If labels are neither strings nor whole numbers; encode them before ``fit``.
    ImportError
        For a pipeline without the package skl2onnx; ``pip install "cvxnn[export]"``.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted; call ``fit`` first.

    Notes
    -----
    onnxruntime computes some steps in float32 only (``SimpleImputer``, ``PolynomialFeatures`` and
    ``PowerTransformer`` are among them) and refuses their graph in float64. Fit the pipeline on
    float32 rows then.
    """
    if isinstance(X, str | PathLike):
        raise TypeError(
            f"X is {str(X)!r}; expected some rows. Write the file by "
            "onnx.save(to_onnx(estimator), path)."
        )
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    last = estimator
    if isinstance(estimator, Pipeline):
        last, model = estimator[-1], _of_pipeline(estimator, X)
    else:
        model = graph_of(estimator)
        if X is not None:
            raise TypeError(
                f"X shows the inputs of a pipeline, and a {type(estimator).__name__} has one input "
                "of numbers; leave X out."
            )
    if getattr(last, "embedding", None) is not None:
        model.metadata_props.add(key=ONNX_KEY, value=json.dumps(dict(last.embedding)))
    return model


def _of_pipeline(pipeline: Pipeline, X: Any) -> Any:
    """Convert a pipeline by sklearn-onnx, its last step by a converter of this package."""
    last = pipeline[-1]
    network = fitted_network(last)
    skl2onnx: Any = require("skl2onnx", extra="export")
    errors: Any = require("skl2onnx.common.exceptions", extra="export")
    _register(skl2onnx)
    # sklearn-onnx takes no steps that are words.
    pipeline = Pipeline([step for step in pipeline.steps if step[1] not in (None, "passthrough")])
    types = None
    if X is None:
        first = pipeline[0]
        if not hasattr(first, "n_features_in_"):
            raise TypeError(
                f"{type(first).__name__} does not say what its input is; give some rows: "
                "to_onnx(pipeline, X[:5])."
            )
        types = [("X", _tensor(network.hidden_weights.dtype, first.n_features_in_))]
    else:
        X = X[:1]
    try:
        return skl2onnx.to_onnx(pipeline, X, initial_types=types, target_opset=OPSET)
    except (errors.MissingConverter, errors.MissingShapeCalculator) as error:
        raise TypeError(
            f"sklearn-onnx cannot convert a step of the pipeline ({str(error).splitlines()[0]}). "
            "Export the steps after it, to_onnx(pipeline[k:]), and apply those before in your own "
            "code."
        ) from error


def _register(skl2onnx: Any) -> None:
    """Let sklearn-onnx convert the estimators of cvxnn."""
    for kind in _CLASSES:
        skl2onnx.update_registered_converter(
            kind, f"Cvxnn{kind.__name__}", _set_types, _convert, parser=_declare_outputs
        )


def _declare_outputs(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:
    """Declare the operator of an estimator, with the outputs of its own graph."""
    operator = scope.declare_local_operator(f"Cvxnn{type(model).__name__}", model)
    operator.inputs = inputs
    for value, kind in zip(graph_of(model).graph.output, _types(model), strict=True):
        operator.outputs.append(scope.declare_local_variable(value.name, kind))
    return operator.outputs


def _types(model: Any) -> list[Any]:
    """Return the types of the outputs of an estimator's graph."""
    network = fitted_network(model)
    dtype = network.hidden_weights.dtype
    if isinstance(model, ClassifierPrediction):
        strings = model.classes_.dtype.kind in "OU"
        return [_tensor(np.str_ if strings else np.int64), _tensor(dtype, len(model.classes_))]
    if isinstance(model, HEADS):
        return [_tensor(dtype), _tensor(dtype)]
    return [_tensor(dtype, network.n_outputs)]


def _set_types(operator: Any) -> None:
    """Set the types of an operator's outputs, as sklearn-onnx asks for."""
    for variable, kind in zip(operator.outputs, _types(operator.raw_operator), strict=True):
        variable.type = kind


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the nodes of an estimator's own graph to a larger one."""
    graph = graph_of(operator.raw_operator).graph
    dtype = fitted_network(operator.raw_operator).hidden_weights.dtype
    outer = dict(
        zip(
            (value.name for value in graph.output),
            (variable.full_name for variable in operator.outputs),
            strict=True,
        )
    )
    # What a transformer returns may have another precision.
    outer["X"] = scope.get_unique_variable_name("features")
    (given,) = operator.inputs
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    container.add_node("Cast", [given.full_name], [outer["X"]], to=kind)
    for tensor in graph.initializer:
        outer[tensor.name] = scope.get_unique_variable_name(tensor.name)
        tensor.name = outer[tensor.name]
        container.initializers.append(tensor)
    for node in graph.node:
        for name in node.output:
            outer.setdefault(name, scope.get_unique_variable_name(name))
        options = {part.name: onnx.helper.get_attribute_value(part) for part in node.attribute}
        container.add_node(
            node.op_type,
            [outer[name] for name in node.input],
            [outer[name] for name in node.output],
            name=scope.get_unique_operator_name(node.op_type),
            **options,
        )


def _tensor(dtype: Any, *width: int) -> Any:
    """Return sklearn-onnx's type of a batch of numbers or strings."""
    data_types: Any = require("skl2onnx.common.data_types", extra="export")
    kinds = {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
    }
    return kinds.get(np.dtype(dtype).name, data_types.StringTensorType)([None, *width])
