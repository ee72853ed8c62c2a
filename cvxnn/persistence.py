"""Saving and loading fitted estimators: one safetensors file, no pickle, no code.

Arrays are tensors of the file; everything else is JSON in its header. Loading reads only numbers
and strings. It refuses unknown contents, and contents that differ from what was written.
"""

from __future__ import annotations

import importlib
import os
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes

from cvxnn import convex  # names load when first used: a solver only where one was given
from cvxnn._messages import warn
from cvxnn._model_file import (
    FORMAT_VERSION,
    HEADER,
    NETWORK_PARTS,
    OPTIONAL_PARTS,
    check_classes,
    check_network,
    little_endian,
    plain,
    read_model,
    seal,
    taking_apart,
    unpack,
    unpack_plain,
)
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.features.description import check_description
from cvxnn.files.writing import replacing
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.scores import ANY_PROBABILITY

# The state of a warm start, factors of sums, and the course of a policy, are large, and predictions
# do not need them. Callbacks are code.
_NOT_SAVED = ("_warm", "_factors", "_skl_callbacks", "trajectory_")
# Parameters that may be objects of any class, and count in another fit only.
_OF_FITS = ("cv", "scoring", "loss", "penalty", "solver")
_CLASSES = {
    "ConvexReLUClassifier": "cvxnn.estimators.classifier",
    "ConvexReLUClassifierCV": "cvxnn.estimators.cv",
    "ConvexReLURegressor": "cvxnn.estimators.regressor",
    "ConvexReLURegressorCV": "cvxnn.estimators.cv",
    "COALAPreferenceHead": "cvxnn.estimators.coala",
    "COALAPreferenceHeadCV": "cvxnn.estimators.coala_cv",
    "LinearPreferenceHead": "cvxnn.estimators.linear_head",
    "PrivatePreferenceHead": "cvxnn.estimators.private_head",
    "SoftmaxPolicy": "cvxnn.estimators.policy",
}
# Attributes that predictions need.
_NEEDED = {
    "ConvexReLUClassifier": {"network_", "n_features_in_", "classes_", "temperature_", "bend_"},
    "ConvexReLURegressor": {"network_", "n_features_in_", "_y_ndim"},
    "COALAPreferenceHead": {"network_", "n_features_in_", "classes_"},
    "LinearPreferenceHead": {"network_", "n_features_in_", "classes_"},
    "PrivatePreferenceHead": {"network_", "n_features_in_", "classes_"},
}
_NEEDED |= {f"{name}CV": needed for name, needed in _NEEDED.items()}
_NEEDED["SoftmaxPolicy"] = {"coef_", "reference_", "n_features_in_"}
_NAMES_OF_LOSSES = {
    "SquaredLoss": "squared",
    "LogisticLoss": "logistic",
    "MultinomialLoss": "multinomial",
}
_SOLVERS = ("Cronos", "InteriorPoint", "ProximalGradient", "Ridge")


def save(estimator: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator to a file, with a checksum of the contents.

    The state of a warm start and callbacks are not saved: ``fit`` of the loaded estimator starts
    from the beginning. Of a CV class, ``cv`` and ``scoring`` are saved if they are a number or a
    name. A warning says that a splitter, folds, a scorer, or a loss, penalty or solver of your own
    was left out: the loaded estimator has the default there, which matters for another ``fit``
    only.

    Parameters
    ----------
    estimator : estimator of cvxnn
        Fitted ConvexReLUClassifier, ConvexReLURegressor, COALAPreferenceHead, CV class of one of
        these, LinearPreferenceHead, PrivatePreferenceHead, or SoftmaxPolicy.
    path : path-like
        File to write, by convention ``*.safetensors``. The folders above it are created. It is
        written under a temporary name and renamed, so that an interrupted save leaves the old file
        intact.

    Raises
    ------
    TypeError
        If the estimator is of another class, or has a parameter or attribute that is not a number,
        a string, an array of these or a dict of them (pass an integer as ``random_state``).
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted; call ``fit`` first.
    OSError
        If the file cannot be written; the message has the reason.
    """
    from sklearn.utils.validation import check_is_fitted

    name = type(estimator).__name__
    if name not in _CLASSES or type(estimator).__module__ != _CLASSES[name]:
        raise TypeError(
            f"cannot save a {name}; expected one of {sorted(_CLASSES)}. Of a pipeline, save its "
            "last step, pipeline[-1], or write the whole with skops.io.dump(pipeline, file). "
            "skops.io.load(file, trusted=types) reads it, with the types that skops does not know, "
            "types = skops.io.get_untrusted_types(file=file); look at them first: those of cvxnn "
            "begin with 'cvxnn.'."
        )
    check_is_fitted(estimator)
    tensors: dict[str, NDArray[Any]] = {}
    parameters = estimator.get_params(deep=False)
    kept = _without_objects(name, parameters)
    header = {
        "format_version": FORMAT_VERSION,
        "class": name,
        "parameters": {key: _pack_parameter(key, value) for key, value in kept.items()},
        "attributes": {
            key: _pack(key, value, tensors)
            for key, value in vars(estimator).items()
            if key not in parameters and not key.startswith(_NOT_SAVED)
        },
    }
    content = to_bytes(tensors, metadata={HEADER: seal(header, tensors)})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _without_objects(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters without objects that would need code, and warn of them.

    Losses of the package that have a name go by it.
    """
    if (loss := type(parameters.get("loss")).__name__) in _NAMES_OF_LOSSES and isinstance(
        parameters["loss"], getattr(convex, loss)
    ):
        parameters = {**parameters, "loss": _NAMES_OF_LOSSES[loss]}
    left_out = [
        key
        for key, value in parameters.items()
        if key in _OF_FITS and not isinstance(value, str | Integral | None) and not _known(value)
    ]
    if left_out:
        again = ", ".join(f"{key}=..." for key in left_out)
        warn(
            f"{' and '.join(left_out)} of {name} cannot be saved without code; predictions do not "
            f"need it. Before another fit of the loaded estimator, call set_params({again}).",
            UserWarning,
        )
    return {key: value for key, value in parameters.items() if key not in left_out}


def load(path: str | os.PathLike[str]) -> Any:
    """Read an estimator that :func:`save` wrote; its predictions are bit-identical.

    The checksum is compared before anything else is used. It is the SHA-256 digest of the header
    and of the names, types, shapes and values of all arrays. It reveals damage and accidental
    changes. It is not a signature: a person who changes a file can also compute its checksum. A
    file from an untrusted source may therefore hold any numbers, but it cannot hold code.

    Parameters
    ----------
    path : path-like
        File that :func:`save` wrote.

    Returns
    -------
    estimator of cvxnn
        Fitted estimator of the class that was saved.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is truncated, changed or damaged, is of another format, version or class, or
        has unexpected contents. Nothing in the file is used before this is checked.
    """
    header, tensors = read_model(path)
    with taking_apart(path):
        name, parameters, attributes = (header[k] for k in ("class", "parameters", "attributes"))
        estimator = _unfitted(name, parameters)
        fitted = {key: unpack(value, tensors) for key, value in attributes.items()}
        if "temperature_" in fitted:  # files of before have no range
            fitted.setdefault("probability_range_", np.array(ANY_PROBABILITY))
        _check_fitted(estimator, fitted)
    vars(estimator).update(fitted)
    return estimator


def _pack(key: str, value: Any, tensors: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, TwoLayerNetwork):
        for part in (*NETWORK_PARTS, *OPTIONAL_PARTS):
            if getattr(value, part) is not None:
                tensors[f"{key}.{part}"] = little_endian(getattr(value, part))
        return {"network": key}
    if isinstance(value, ActivationPatterns):
        tensors[f"{key}.mask"] = little_endian(value.mask)
        tensors[f"{key}.gates"] = little_endian(value.gates)
        return {"patterns": key}
    if isinstance(value, dict):
        return {
            "dict": [[plain(key, k), _pack(f"{key}.{k}", v, tensors)] for k, v in value.items()]
        }
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.itemsize <= 8:
        tensors[key] = little_endian(value)
        return {"array": key}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "OU" or not all(isinstance(v, str) for v in value.flat):
            raise TypeError(
                f"{key} is an array of {value.dtype}; only real numbers of at most 64 bits and "
                "strings can be saved."
            )
        return {"strings": value.tolist(), "dtype": value.dtype.kind}
    return {"value": plain(key, value)}


def _pack_parameter(key: str, value: Any) -> Any:
    name = type(value).__name__
    if name in _CLASSES and type(value).__module__ == _CLASSES[name]:
        held = _without_objects(name, value.get_params(deep=False))
        return {
            "estimator": {
                "class": name,
                "parameters": {k: _pack_parameter(f"{key}__{k}", v) for k, v in held.items()},
            }
        }
    if _known(value):
        options = {k: plain(k, v) for k, v in vars(value).items()}
        return {name: options}
    if isinstance(value, dict):
        # As keys of a JSON object, labels would all become strings.
        return {"pairs": [[plain(key, k), _pack_parameter(key, v)] for k, v in value.items()]}
    if isinstance(value, list | tuple | np.ndarray):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [plain(key, v) for v in value]}
    return plain(key, value)


def _known(value: Any) -> bool:
    """Return whether a value is a solver whose options can be saved."""
    name = type(value).__name__
    return name in _SOLVERS and type(value) is getattr(convex, name)


def _unfitted(name: Any, parameters: dict[str, Any]) -> Any:
    """Return an estimator of a known class with packed parameters."""
    if not isinstance(name, str) or name not in _CLASSES:
        raise ValueError(f"unknown class {name!r}; expected one of {sorted(_CLASSES)}")
    arguments = {key: _unpack_parameter(value) for key, value in parameters.items()}
    return getattr(importlib.import_module(_CLASSES[name]), name)(**arguments)


def _unpack_parameter(value: Any) -> Any:
    if isinstance(value, dict):
        ((name, content),) = value.items()
        if name == "estimator":
            return _unfitted(content["class"], content["parameters"])
        if name in _SOLVERS:
            return getattr(convex, name)(
                **{key: plain(name, option) for key, option in content.items()}
            )
    return unpack_plain(value, _unpack_parameter)


def _check_fitted(estimator: Any, fitted: dict[str, Any]) -> None:
    """Check that attributes are complete and consistent, and that none hides another name."""
    for name in fitted:
        shadows = hasattr(type(estimator), name) or name.startswith(_NOT_SAVED)
        if not name.isidentifier() or shadows:
            raise ValueError(f"unexpected attribute {name!r}")
    missing = _NEEDED[type(estimator).__name__] - fitted.keys()
    if missing:
        raise ValueError(f"{sorted(missing)} missing")
    width = fitted["n_features_in_"]
    embedding = getattr(estimator, "embedding", None)
    if embedding is not None:
        check_description(embedding)
        if embedding["width"] != width:
            raise ValueError(
                f"X has {width} features, but those of embedding are {embedding['width']}"
            )
    if "coef_" in fitted:
        _check_policy(fitted, width)
        return
    n_outputs = fitted["network_"].n_outputs
    if "classes_" in fitted:
        check_classes(fitted["classes_"], n_outputs)
    if not 0 < fitted.get("temperature_", 1.0) < np.inf:
        raise ValueError(f"temperature_ is {fitted['temperature_']}")
    if not 0 <= fitted.get("bend_", 0.0) < np.inf:
        raise ValueError(f"bend_ is {fitted['bend_']}")
    least, largest = fitted.get("probability_range_", ANY_PROBABILITY)
    if not 0 <= least <= largest <= 1:
        raise ValueError(f"probability_range_ is {least} to {largest}")
    if fitted.get("_y_ndim", 2) != 2 and (fitted["_y_ndim"], n_outputs) != (1, 1):
        raise ValueError(f"targets of {fitted['_y_ndim']} dimensions for {n_outputs} outputs")
    if len(fitted.get("feature_names_in_", range(width))) != width:
        raise ValueError(f"feature_names_in_ does not name {width} features")
    if "_proof" in fitted:
        _check_proof(fitted["_proof"], width, n_outputs)
    if "_sums" in fitted:
        _check_sums(fitted["_sums"], fitted["_proof"])
    for value in fitted.values():
        if isinstance(value, TwoLayerNetwork):
            check_network(value, width)
        if isinstance(value, ActivationPatterns):
            _check_patterns(value, width)


def _check_policy(fitted: dict[str, Any], width: int) -> None:
    """Check the weights of a softmax policy."""
    for name in ("coef_", "reference_"):
        weights = fitted[name]
        if not isinstance(weights, np.ndarray) or weights.shape != (width,):
            raise ValueError(f"{name} is not a vector of {width} numbers")
        if weights.dtype.kind != "f" or not np.isfinite(weights).all():
            raise ValueError(f"{name} is damaged")


def _check_proof(proof: Any, width: int, n_outputs: int) -> None:
    """Check the arrays of a certificate; what they prove is computed with the data."""
    if not isinstance(proof, dict) or not all(isinstance(v, np.ndarray) for v in proof.values()):
        raise ValueError("the certificate is not a table of arrays")
    if not proof:  # of a fit under side constraints
        return
    P, *n_vectors, columns = np.shape(proof["gates"])
    n = len(proof.get("residual", ()))
    signs = np.shape(proof.get("blocks", np.empty((1, 1))))[1]
    weighted = min(np.shape(proof.get("blocks", np.empty(columns)))[-1], columns)  # by a context
    shapes = {
        "gates": (P, *n_vectors[:1], columns),
        "blocks": (n_outputs, signs, P, weighted),
        "linear": (n_outputs, columns),
        "residual": (n, n_outputs),
        "multipliers": (n, n_outputs, 2, P),
    }
    if columns not in (width, width + 1) or not {"blocks", "residual"} & proof.keys():
        raise ValueError("the certificate does not fit the network")
    for name, part in proof.items():
        if part.shape != shapes[name] or part.dtype.kind != "f" or not np.isfinite(part).all():
            raise ValueError(f"{name} of the certificate is damaged")


def _check_sums(sums: Any, proof: Any) -> None:
    """Check the sums that a fit goes on from."""
    C, _, P, d = proof["blocks"].shape
    m = P * d
    shapes = {
        "right": (C, m),
        "constant": (C,),
        "ridge": (C,),
        "centre": (C, P, d),
        "blocks": (C, P, d),
    }
    matrices = np.shape(sums["gram"])
    if matrices not in ((1, m, m), (C, m, m)) or not np.isfinite(sums["gram"]).all():
        raise ValueError("the matrix of the sums is damaged")
    for name, shape in shapes.items():
        if np.shape(sums[name]) != shape or not np.isfinite(sums[name]).all():
            raise ValueError(f"{name} of the sums is damaged")
    if not 0 < sums["total"] < np.inf or not 0 <= sums["reach"] < np.inf:
        raise ValueError("the weights of the sums are damaged")
    if sums["keys"].dtype != np.uint64 or np.any(sums["keys"][1:] < sums["keys"][:-1]):
        raise ValueError("the keys of the sums are damaged")


def _check_patterns(patterns: ActivationPatterns, width: int) -> None:
    mask, gates = patterns.mask, patterns.gates
    if mask.dtype != bool or mask.ndim != 2:
        raise ValueError("the mask of the patterns is not a matrix of truth values")
    P, *n_vectors, columns = gates.shape
    good = len(patterns) == P and len(n_vectors) <= 1 and columns in (width, width + 1)
    if gates.dtype.kind != "f" or not good:
        raise ValueError("the gates do not fit the patterns")
