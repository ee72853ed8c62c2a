"""The linear model that a network is around each row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.explanation.hyperplanes import checked_rows, look
from cvxnn.network import TwoLayerNetwork, row_chunks
from cvxnn.numerics.threads import limit_threads


class LocalLinear(NamedTuple):
    """The affine piece of the network at each row.

    Attributes
    ----------
    weights : ndarray, shape (n_samples, n_outputs, n_features)
        Slopes: outputs per unit of each raw feature.
    intercept : ndarray, shape (n_samples, n_outputs)
        Outputs of the piece at zero.
    active : ndarray of bool, shape (n_samples, n_neurons)
        Which neurons are open; rows with equal patterns share one piece.
    radius : ndarray, shape (n_samples,)
        Euclidean distance, in raw feature units, to the nearest boundary: the piece holds for
        every point nearer than this. 0 on a boundary, infinite where there is none.
    """

    weights: NDArray[np.floating]
    intercept: NDArray[np.floating]
    active: NDArray[np.bool_]
    radius: NDArray[np.floating]


def local_linear(network: TwoLayerNetwork, X: ArrayLike) -> LocalLinear:
    """Return the affine piece of the network at each row.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated, with or without a linear part; ``network_`` of an estimator.
    X : array-like, shape (n_samples, n_features)
        Finite raw features.

    Returns
    -------
    LocalLinear
        ``weights @ x + intercept`` is ``network.forward`` at each row and within ``radius`` of it,
        up to rounding.

    Raises
    ------
    TypeError
        If `network` is an estimator or a pipeline; pass its ``network_``.
    ValueError
        If ``X`` has another width than the network, or holds NaN or infinity.

    Notes
    -----
    On a boundary the piece is the one that ``forward`` computes with: there a ReLU neuron counts
    as closed, a gate as open. The distance mixes the units of features: scale them alike before
    you compare radii, or read it as a guarantee only.

    Beside what is returned, memory is bounded: rows are taken in chunks.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.explanation import local_linear
    >>> from cvxnn.network import TwoLayerNetwork
    >>> one = np.ones(1)
    >>> network = TwoLayerNetwork(np.array([[3.0, 4.0]]), -5 * one, one[:, None], one)
    >>> piece = local_linear(network, [[2.0, 1.0], [0.0, 0.0]])
    >>> piece.weights[:, 0].tolist(), piece.intercept[:, 0].tolist()
    ([[3.0, 4.0], [0.0, 0.0]], [-4.0, 1.0])
    >>> piece.radius.tolist()
    [1.0, 1.0]
    """
    X = checked_rows(network, X)
    active, radius = look(network, X)
    shape = len(X), network.n_outputs, X.shape[1]
    weights = np.empty(shape, np.result_type(X, network.hidden_weights))
    intercept = np.empty(shape[:2], weights.dtype)
    for rows in row_chunks(len(X), max(network.n_neurons, 1)):
        with limit_threads(2.0 * (rows.stop - rows.start) * network.hidden_weights.size):
            for output, neurons in enumerate(network.blocks):
                share = active[rows, neurons] * network.output_weights[neurons]
                weights[rows, output] = share @ network.hidden_weights[neurons]
                intercept[rows, output] = share @ network.hidden_bias[neurons]
    if network.linear_weights is not None:
        weights += network.linear_weights.T
    intercept += network.output_bias
    return LocalLinear(weights, intercept, active, radius)
