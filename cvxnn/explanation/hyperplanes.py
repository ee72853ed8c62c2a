"""Hyperplanes at which neurons open, and the neurons that are open on rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.network import TwoLayerNetwork, row_chunks
from cvxnn.numerics.arrays import refuse_sparse
from cvxnn.numerics.real_rows import real_rows
from cvxnn.numerics.threads import limits_threads


class Boundaries(NamedTuple):
    """The hyperplanes ``weights @ x + bias = 0`` at which neurons open.

    Attributes
    ----------
    weights : ndarray, shape (n_boundaries, n_features)
        Normal vectors.
    bias : ndarray, shape (n_boundaries,)
        Offsets.
    of_neuron : ndarray of int, shape (n_neurons,)
        The boundary of each neuron; neurons that share a gate share a boundary. Of conjunctions,
        shape (n_neurons, n_vectors): a neuron is open on the right side of all its boundaries.
    """

    weights: NDArray[np.floating]
    bias: NDArray[np.floating]
    of_neuron: NDArray[np.intp]


def boundaries(network: TwoLayerNetwork) -> Boundaries:
    """Return the hyperplanes at which neurons open: their own, or those of the gates in use.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated network.

    Returns
    -------
    Boundaries
        One hyperplane for each neuron, or for each vector of the gates in use.

    Raises
    ------
    TypeError
        If `network` is an estimator or a pipeline; pass its ``network_``.
    """
    refuse_estimators(network)
    if network.gate_index is None:
        own = np.arange(network.n_neurons)
        return Boundaries(network.hidden_weights, network.hidden_bias, own)
    assert network.gate_weights is not None
    assert network.gate_bias is not None
    used, of_neuron = np.unique(network.gate_index, return_inverse=True)
    weights, bias = network.gate_weights[used], network.gate_bias[used]
    numbers = np.arange(bias.size).reshape(bias.shape)
    return Boundaries(weights.reshape(-1, weights.shape[-1]), bias.ravel(), numbers[of_neuron])


def open_neurons(network: TwoLayerNetwork, X: ArrayLike) -> NDArray[np.bool_]:
    """Return which neurons are open on which rows.

    A ReLU neuron is open where its input is positive, a gated one where its gate is not negative.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated network.
    X : array-like, shape (n_samples, n_features)
        Finite raw features.

    Returns
    -------
    ndarray of bool, shape (n_samples, n_neurons)
        True where a neuron is open.

    Raises
    ------
    TypeError
        If `network` is an estimator or a pipeline; pass its ``network_``.
    ValueError
        If ``X`` has another width than the network, or is not finite.
    """
    return look(network, checked_rows(network, X))[0]


def count_regions(active: NDArray[np.bool_]) -> int:
    """Count the distinct activation patterns among the rows of ``active``.

    Parameters
    ----------
    active : ndarray of bool, shape (n_samples, n_neurons)
        Which neurons are active on which rows.
    """
    if active.size == 0:
        return min(len(active), 1)
    return len(np.unique(np.packbits(active, axis=1), axis=0))


def refuse_estimators(network: TwoLayerNetwork) -> None:
    """Refuse an estimator or a pipeline, which is not the network inside it."""
    if not hasattr(network, "hidden_weights"):
        raise TypeError(
            f"network is a {type(network).__name__}; expected a network, such as network_ of a "
            "fitted estimator. Of a pipeline, take pipeline[-1].network_, with the rows that "
            "pipeline[:-1].transform(X) returns."
        )


def checked_rows(network: TwoLayerNetwork, X: ArrayLike) -> NDArray[np.floating]:
    """Check rows: finite, of the network's width; their precision stays."""
    refuse_estimators(network)
    refuse_sparse(X, "an explanation")
    return real_rows(X, network.hidden_weights.shape[1])


@limits_threads(lambda network, X: 2.0 * len(X) * network.hidden_weights.size)
def look(
    network: TwoLayerNetwork, X: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Return which neurons are open on which rows, and distances to the nearest boundary."""
    planes = boundaries(network)
    norms = np.linalg.norm(planes.weights, axis=1)
    real = norms > 0  # the others are open, or closed, everywhere
    active = np.empty((len(X), network.n_neurons), bool)
    radius = np.empty(len(X), np.result_type(X, network.hidden_weights))
    # The chunks of `forward`: products of other shapes may be rounded to the other side.
    for rows in row_chunks(len(X), max(network.n_neurons, 1)):
        scores = X[rows] @ planes.weights.T
        scores += planes.bias
        is_open = scores > 0 if network.gate_index is None else scores >= 0
        opened = is_open[:, planes.of_neuron]
        active[rows] = opened if opened.ndim == 2 else opened.all(axis=2)
        radius[rows] = (np.abs(scores[:, real]) / norms[real]).min(axis=1, initial=np.inf)
    return active, radius
