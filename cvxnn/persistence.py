"""Saving and loading fitted estimators: one safetensors file, no pickle, no code.

Arrays are tensors of the file; everything else is JSON in its header. Loading reads numbers and
strings only, and refuses what it does not know.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from cvxnn.network import TwoLayerNetwork
from cvxnn.solvers.cronos import Cronos
from cvxnn.solvers.interior_point import InteriorPoint
from cvxnn.solvers.proximal_gradient import ProximalGradient

FORMAT_VERSION = 1
_HEADER = "cvxnn"
_CLASSES = {
    "ConvexReLUClassifier": "cvxnn.estimators.classifier",
    "ConvexReLURegressor": "cvxnn.estimators.regressor",
    "COALAPreferenceHead": "cvxnn.estimators.preference",
}
# What a prediction needs besides.
_NEEDED = {
    "ConvexReLUClassifier": {"network_", "n_features_in_", "classes_", "temperature_"},
    "ConvexReLURegressor": {"network_", "n_features_in_", "_y_ndim"},
    "COALAPreferenceHead": {"network_", "n_features_in_", "classes_"},
}
_NETWORK_PARTS = ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
_OPTIONAL_PARTS = ("gate_weights", "gate_bias", "skip_weights")
_SOLVERS = {solver.__name__: solver for solver in (Cronos, InteriorPoint, ProximalGradient)}


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, ConvexReLURegressor or COALAPreferenceHead
        Fitted.
    path : path-like
        File to write, by convention ``*.safetensors``. It is written under a temporary name in
        the same folder and renamed, so that an interrupted save leaves the old file whole.

    Raises
    ------
    TypeError
        For another class, or a parameter that JSON cannot hold (pass an integer as
        ``random_state``).
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    """
    from sklearn.utils.validation import check_is_fitted

    name = type(estimator).__name__
    if name not in _CLASSES or type(estimator).__module__ != _CLASSES[name]:
        raise TypeError(f"cannot save a {name}; expected one of {sorted(_CLASSES)}.")
    check_is_fitted(estimator)
    tensors: dict[str, NDArray[Any]] = {}
    attributes: dict[str, Any] = {}
    for key, value in vars(estimator).items():
        if key not in estimator.get_params(deep=False):
            attributes[key] = _pack(key, value, tensors)
    parameters = {key: _pack_parameter(key, v) for key, v in estimator.get_params(False).items()}
    header = {
        "format_version": FORMAT_VERSION,
        "class": name,
        "parameters": parameters,
        "attributes": attributes,
    }
    path = Path(path)
    content = to_bytes(tensors, metadata={_HEADER: json.dumps(header, allow_nan=True)})
    # Neither tempfile nor safetensors gives a new file the usual permissions.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> Any:
    """Read an estimator that :func:`save` wrote; its predictions are bit-identical.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    ConvexReLUClassifier, ConvexReLURegressor or COALAPreferenceHead

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not of this format, of an unknown version or class, or holds
        something unexpected. Nothing is executed before that is known.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one written by cvxnn.save.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{path}: not a readable safetensors file ({error}); it may be truncated. "
            "Save the estimator again."
        ) from error
    try:
        header = json.loads(metadata[_HEADER])
        version, name = header["format_version"], header["class"]
        parameters, attributes = header["parameters"], header["attributes"]
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path}: has no valid {_HEADER!r} header; expected a file written by cvxnn.save."
        ) from error
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {version!r}; this cvxnn reads version {FORMAT_VERSION}. "
            "Use the cvxnn that wrote the file, or save the estimator again."
        )
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"{path}: unknown class {name!r}; expected one of {sorted(_CLASSES)}.")
    try:
        cls = getattr(importlib.import_module(_CLASSES[name]), name)
        estimator = cls(**{key: _unpack_parameter(value) for key, value in parameters.items()})
        fitted = {key: _unpack(value, tensors) for key, value in attributes.items()}
        _check_fitted(estimator, fitted)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: the contents do not fit a {name} ({error}); the file was changed or damaged."
        ) from error
    vars(estimator).update(fitted)
    return estimator


def _pack(key: str, value: Any, tensors: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, TwoLayerNetwork):
        for part in (*_NETWORK_PARTS, *_OPTIONAL_PARTS):
            if getattr(value, part) is not None:
                tensors[f"{key}.{part}"] = np.ascontiguousarray(getattr(value, part))
        return {"network": key}
    if isinstance(value, dict):
        return {"dict": {k: _pack(f"{key}.{k}", v, tensors) for k, v in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        tensors[key] = np.ascontiguousarray(value)
        return {"array": key}
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "O" and not all(isinstance(v, str) for v in value):
            raise TypeError(f"{key} holds Python objects; only numbers and strings can be saved.")
        return {"strings": value.tolist(), "dtype": value.dtype.kind}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(f"{key} is a {type(value).__name__}, which cannot be saved.")


def _unpack(packed: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Any:
    ((kind, value),) = [(k, v) for k, v in packed.items() if k != "dtype"]
    if kind == "network":
        needed = [tensors[f"{value}.{part}"] for part in _NETWORK_PARTS]
        return TwoLayerNetwork(*needed, *(tensors.get(f"{value}.{p}") for p in _OPTIONAL_PARTS))
    if kind == "dict":
        return {k: _unpack(v, tensors) for k, v in value.items()}
    if kind == "array":
        return tensors[value]
    if kind == "strings":
        return np.array(value, dtype=object if packed["dtype"] == "O" else str)
    if kind == "value":
        return value
    raise ValueError(f"unknown entry {kind!r}")


def _pack_parameter(key: str, value: Any) -> Any:
    if type(value) in _SOLVERS.values():
        options = {k: _pack_parameter(k, v) for k, v in vars(value).items()}
        return {type(value).__name__: options}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"parameter {key}={value!r} cannot be saved; use a number, a string or None "
        "(for random_state, an integer)."
    )


def _unpack_parameter(value: Any) -> Any:
    if isinstance(value, dict):
        ((name, options),) = value.items()
        return _SOLVERS[name](**options)
    return value


def _check_fitted(estimator: Any, fitted: dict[str, Any]) -> None:
    """All a prediction needs, in shapes that fit, and no name that would shadow a method."""
    for name in fitted:
        if not name.isidentifier() or hasattr(type(estimator), name):
            raise ValueError(f"unexpected attribute {name!r}")
    missing = _NEEDED[type(estimator).__name__] - fitted.keys()
    if missing:
        raise ValueError(f"{sorted(missing)} missing")
    width, n_outputs = fitted["n_features_in_"], fitted["network_"].n_outputs
    if "classes_" in fitted and len(fitted["classes_"]) != max(n_outputs, 2):
        raise ValueError(f"{len(fitted['classes_'])} classes for {n_outputs} outputs")
    if not 0 < fitted.get("temperature_", 1.0) < np.inf:
        raise ValueError(f"temperature_ is {fitted['temperature_']}")
    if fitted.get("_y_ndim", 2) != 2 and (fitted["_y_ndim"], n_outputs) != (1, 1):
        raise ValueError(f"targets of {fitted['_y_ndim']} dimensions for {n_outputs} outputs")
    if len(fitted.get("feature_names_in_", range(width))) != width:
        raise ValueError(f"feature_names_in_ does not name {width} features")
    networks = [value for value in fitted.values() if isinstance(value, TwoLayerNetwork)]
    for network in networks:
        _check_network(network, width)


def _check_network(network: TwoLayerNetwork, width: int) -> None:
    m, c = network.output_weights.shape
    shapes = {
        "hidden_weights": (m, width),
        "hidden_bias": (m,),
        "output_weights": (m, c),
        "output_bias": (c,),
        "gate_weights": (m, width),
        "gate_bias": (m,),
        "skip_weights": (width, c),
    }
    for part, shape in shapes.items():
        array = getattr(network, part)
        if array is None and part in _OPTIONAL_PARTS:
            continue
        if array.dtype.name not in ("float32", "float64"):
            raise ValueError("the network has weights that are not floating-point numbers")
        if array.shape != shape:
            raise ValueError("the shapes of the network do not fit together")
        if not np.isfinite(array).all():
            raise ValueError("the network has weights that are not finite")
    if (network.gate_weights is None) != (network.gate_bias is None):
        raise ValueError("the network has half its gates")
