"""The recovered two-layer ReLU network: plain NumPy, nothing to compile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Rows of hidden activations held at a time: 2**22 numbers, 16 or 32 MiB.
_CHUNK_NUMBERS = 2**22


@dataclass(frozen=True)
class TwoLayerNetwork:
    r"""A network :math:`f(x) = \Theta_2^T (\Theta_1 x + b_1)_+ + b_2`.

    Attributes
    ----------
    hidden_weights : ndarray, shape (n_neurons, n_features)
        First layer.
    hidden_bias : ndarray, shape (n_neurons,)
    output_weights : ndarray, shape (n_neurons, n_outputs)
        Second layer.
    output_bias : ndarray, shape (n_outputs,)

    Notes
    -----
    A network may have no neurons; it then predicts its output bias.
    """

    hidden_weights: NDArray[np.floating]
    hidden_bias: NDArray[np.floating]
    output_weights: NDArray[np.floating]
    output_bias: NDArray[np.floating]

    @property
    def n_neurons(self) -> int:
        """Number of hidden neurons."""
        return len(self.hidden_bias)

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return len(self.output_bias)

    def hidden(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Hidden activations, shape (n_samples, n_neurons)."""
        H = X @ self.hidden_weights.T
        H += self.hidden_bias
        return np.maximum(H, 0, out=H)

    def forward(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Outputs, shape (n_samples, n_outputs); memory of the activations is bounded."""
        out = np.empty((len(X), self.n_outputs), np.result_type(X, self.hidden_weights))
        for rows in _chunks(len(X), max(self.n_neurons, 1)):
            out[rows] = self.hidden(X[rows]) @ self.output_weights
        out += self.output_bias
        return out


def recover(
    weights: NDArray[np.floating], *, bias: bool = True, tol: float = 0.0
) -> TwoLayerNetwork:
    r"""Turn weights of the convex program into a network.

    A positive block becomes the neuron :math:`(v / \sqrt{\|v\|}, \sqrt{\|v\|})`, a negative one
    :math:`(w / \sqrt{\|w\|}, -\sqrt{\|w\|})`, so that weight decay
    :math:`\tfrac12(\|\Theta_1\|^2 + \|\Theta_2\|^2)` equals the sum of block norms (Pilanci &
    Ergen, 2020, Theorem 1).

    Parameters
    ----------
    weights : ndarray, shape (n_outputs, 2, n_patterns, n_features)
        From the feasible iterate, never from one that only solves a linear system.
    bias : bool, default=True
        Whether the last feature is a column of ones, whose weights become ``hidden_bias``.
    tol : float, default=0
        Blocks whose norm is at most ``tol`` times the largest are dropped.

    Returns
    -------
    TwoLayerNetwork
        Output bias zero.
    """
    norms = np.linalg.norm(weights, axis=-1)
    active = norms > tol * norms.max(initial=0)
    output_of, sign_of, _ = np.nonzero(active)
    root = np.sqrt(norms[active])
    hidden = weights[active] / root[:, None]
    output = np.zeros((len(root), weights.shape[0]), weights.dtype)
    output[np.arange(len(root)), output_of] = np.where(sign_of == 0, root, -root)
    if bias:
        hidden, offset = hidden[:, :-1], hidden[:, -1]
    else:
        offset = np.zeros(len(hidden), hidden.dtype)
    return TwoLayerNetwork(
        np.ascontiguousarray(hidden),
        np.ascontiguousarray(offset),
        output,
        np.zeros(weights.shape[0], weights.dtype),
    )


def fold_scaling(
    network: TwoLayerNetwork,
    x_mean: NDArray[np.floating],
    x_scale: NDArray[np.floating],
    y_mean: NDArray[np.floating],
    y_scale: NDArray[np.floating],
) -> TwoLayerNetwork:
    """Rewrite a network of ``(x - x_mean) / x_scale`` as one of ``x``, outputs in units of y."""
    hidden = network.hidden_weights / x_scale
    return TwoLayerNetwork(
        hidden,
        network.hidden_bias - hidden @ x_mean,
        network.output_weights * y_scale,
        network.output_bias * y_scale + y_mean,
    )


def _chunks(n_rows: int, width: int) -> Iterator[slice]:
    step = max(_CHUNK_NUMBERS // width, 1)
    for first in range(0, n_rows, step):
        yield slice(first, min(first + step, n_rows))
