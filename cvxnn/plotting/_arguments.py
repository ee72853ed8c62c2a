"""Arguments that displays share: axes, choices, labels, and a network with its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from cvxnn.network import TwoLayerNetwork


def axes_or_new(ax: Axes | None) -> Axes:
    """Return these axes, or those of a new figure."""
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError if the value of an argument is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}; expected {' or '.join(map(repr, choices))}.")


def network_and_input(estimator: Any, X: ArrayLike) -> tuple[TwoLayerNetwork, NDArray[np.floating]]:
    """Return the network of a fitted estimator, and rows in the form that it takes."""
    check_is_fitted(estimator)
    if not isinstance(getattr(estimator, "network_", None), TwoLayerNetwork):
        raise TypeError(
            f"{type(estimator).__name__} has no network_; expected a fitted estimator of cvxnn. Of "
            "a pipeline, pass pipeline[-1] with pipeline[:-1].transform(X)."
        )
    rows = validate_data(estimator, X, dtype=[np.float64, np.float32], reset=False)
    return estimator.network_, rows


def check_labels(y: ArrayLike, n_samples: int) -> NDArray[Any]:
    """Return labels as an array; raise ValueError unless there is one for each row."""
    labels = np.asarray(y)
    if labels.shape != (n_samples,):
        raise ValueError(f"y has shape {labels.shape}; expected ({n_samples},), one for each row.")
    return labels
