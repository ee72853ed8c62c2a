"""What displays share: axes, and the network of an estimator with its input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from cvxnn._extras import require
from cvxnn.network import TwoLayerNetwork


def axes(ax: Any) -> Any:
    """Return these axes, or new ones in a figure of their own."""
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", extra="plot")
    return pyplot.subplots(layout="constrained")[1]


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}; expected {' or '.join(map(repr, choices))}.")


def network_and_input(estimator: Any, X: ArrayLike) -> tuple[TwoLayerNetwork, NDArray[np.floating]]:
    """The network of a fitted estimator, and rows as it takes them."""
    check_is_fitted(estimator)
    if not isinstance(getattr(estimator, "network_", None), TwoLayerNetwork):
        raise TypeError(
            f"{type(estimator).__name__} has no network_; expected a fitted estimator of cvxnn. Of "
            "a pipeline, pass pipeline[-1] with pipeline[:-1].transform(X)."
        )
    rows = validate_data(estimator, X, dtype=[np.float64, np.float32], reset=False)
    return estimator.network_, rows


def labels_of(y: ArrayLike, n_samples: int) -> NDArray[Any]:
    """Refuse all but one label or number for each row."""
    labels = np.asarray(y)
    if labels.shape != (n_samples,):
        raise ValueError(f"y has shape {labels.shape}; expected ({n_samples},), one for each row.")
    return labels
