"""Arguments that displays share: axes, choices, labels, and a network with its input."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from cvxnn.network import TwoLayerNetwork


class NamesConstructors(type):
    """Class of displays: where a constructor does not exist, the error names those that do."""

    def __getattr__(cls, name: str) -> Any:
        """Raise the AttributeError."""
        message = f"{cls.__name__} has no {name!r}"
        if name.startswith("from_"):
            made = [
                f"{cls.__name__}.{each}({next(iter(signature(getattr(cls, each)).parameters))})"
                for each in dir(cls)
                if each.startswith("from_")
            ]
            own = ", ".join(list(signature(cls).parameters)[:1])
            message += f"; use {' or '.join([*made, f'{cls.__name__}({own}).plot()'])}"
        raise AttributeError(message, name=name, obj=cls)


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
