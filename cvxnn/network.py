"""The recovered two-layer network, in plain NumPy: nothing is compiled."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cvxnn.numerics.gates import open_where
from cvxnn.numerics.stored_rows import is_stored, read_ahead
from cvxnn.numerics.threads import limits_threads

if TYPE_CHECKING:  # it imports JAX, and a network needs NumPy only
    from cvxnn.convex.operators import Weights

# Rows of hidden activations held at a time: 2**22 numbers, 16 or 32 MiB.
_CHUNK_NUMBERS = 2**22
# Rows from which a network adds up its gates' linear models before it applies them to features.
_FEW_ROWS = 64


@dataclass(frozen=True)
class TwoLayerNetwork:
    r"""A network :math:`f_c(x) = \sum_{j \to c} \theta_j h_j(x) + (\Theta_3^T x)_c + b_c`.

    The hidden activations are :math:`h(x) = (\Theta_1 x + b_1)_+`, or, with gates ``g``, linear
    where the gate is open: :math:`h_j(x) = 1(g_i^T x + c_i \ge 0)\,(\Theta_1 x + b_1)_j`, with
    :math:`i` the gate of neuron :math:`j`. A gate may be a conjunction: the neuron is then on where
    all its gate vectors say so. As convex programs leave it, a neuron feeds one output
    :math:`c`: its weights to the others are zero, and no numbers are kept for them.

    Attributes
    ----------
    hidden_weights : ndarray, shape (n_neurons, n_features)
        First layer.
    hidden_bias : ndarray, shape (n_neurons,)
        Biases :math:`b_1` of the first layer.
    output_weights : ndarray, shape (n_neurons,)
        Weight :math:`\theta_j` of each neuron in the output that it feeds.
    output_bias : ndarray, shape (n_outputs,)
        Biases of the outputs.
    gate_weights : ndarray, shape (n_gates, n_features), optional
        Gates of a gated network; None for a ReLU network. Of conjunctions, shape
        (n_gates, n_vectors, n_features).
    gate_bias : ndarray, shape (n_gates,), optional
        Offsets :math:`c` of the gates; of conjunctions, shape (n_gates, n_vectors).
    linear_weights : ndarray, shape (n_features, n_outputs), optional
        The linear part; None without one.
    gate_index : ndarray of int, shape (n_neurons,), optional
        Number of the gate of each neuron of a gated network.
    output_index : ndarray of int, shape (n_neurons,), optional
        Number of the output that each neuron feeds, never falling; None where all feed the
        first, as with one output.

    Notes
    -----
    A network may have no neurons; it then predicts its output bias and what the linear part
    adds.
    """

    hidden_weights: NDArray[np.floating]
    hidden_bias: NDArray[np.floating]
    output_weights: NDArray[np.floating]
    output_bias: NDArray[np.floating]
    gate_weights: NDArray[np.floating] | None = None
    gate_bias: NDArray[np.floating] | None = None
    linear_weights: NDArray[np.floating] | None = None
    gate_index: NDArray[np.integer] | None = None
    output_index: NDArray[np.integer] | None = None

    @property
    def n_neurons(self) -> int:
        """Number of hidden neurons."""
        return len(self.hidden_bias)

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return len(self.output_bias)

    @property
    def blocks(self) -> list[slice]:
        """The neurons of each output, which are neighbours."""
        index = np.zeros(self.n_neurons) if self.output_index is None else self.output_index
        ends = np.searchsorted(index, np.arange(self.n_outputs + 1)).tolist()
        return [slice(*pair) for pair in itertools.pairwise(ends)]

    @limits_threads(lambda self, X: 2.0 * X.shape[0] * self.hidden_weights.size)
    def hidden(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the hidden activations of rows, shape (n_samples, n_neurons).

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_features)
            Rows, in the units that the network takes.
        """
        H = np.empty((X.shape[0], self.n_neurons), np.result_type(X.dtype, self.hidden_weights))
        gates = None if self.gate_index is None else self.open_gates(X)
        for neurons in self.blocks:
            H[:, neurons] = self._activations(X, neurons, gates)
        return H

    def _activations(
        self, X: NDArray[np.floating], neurons: slice, gates: NDArray[np.bool_] | None
    ) -> NDArray[np.floating]:
        """Return the activations of some neurons, given the gates that are open on the rows."""
        H = X @ self.hidden_weights[neurons].T
        H += self.hidden_bias[neurons]
        if gates is None or self.gate_index is None:
            return np.maximum(H, 0, out=H)
        index = self.gate_index[neurons]
        # All gates in turn, as ridge leaves them for each output, need no copy.
        all_gates = np.array_equal(index, np.arange(gates.shape[1]))
        H *= gates if all_gates else gates[:, index]
        return H

    def open_gates(self, X: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which gates are open on which rows, shape (n_samples, n_gates).

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_features)
            Rows, in the units that the network takes.
        """
        assert self.gate_weights is not None
        return open_where(X, self.gate_weights, self.gate_bias)

    @limits_threads(lambda self, X: 2.0 * X.shape[0] * self.hidden_weights.size)
    def forward(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the outputs for rows, shape (n_samples, n_outputs), in bounded memory.

        Parameters
        ----------
        X : ndarray, shape (n_samples, n_features)
            Rows, in the units that the network takes.
        """
        n, blocks = X.shape[0], self.blocks
        out = np.empty((n, self.n_outputs), np.result_type(X.dtype, self.hidden_weights))
        n_gates = 0 if self.gate_bias is None else len(self.gate_bias)
        # Flops are the same; what is left of a row and output has a number a feature, not a gate.
        by_gates = n >= _FEW_ROWS and X.shape[1] < n_gates and isinstance(X, np.ndarray)
        linear_models = self._of_gates() if by_gates else None
        widest = max(n_gates, *(neurons.stop - neurons.start for neurons in blocks), 1)
        if is_stored(X):
            widest = max(widest, X.shape[1])
        if linear_models is not None:
            widest = max(n_gates, linear_models.shape[1])
        for rows, part in read_ahead(X, row_chunks(n, widest)):
            gates = None if self.gate_index is None else self.open_gates(part)
            if linear_models is not None and gates is not None:
                own = gates.astype(out.dtype) @ linear_models
                own = own.reshape(len(part), self.n_outputs, -1)
                out[rows] = np.matmul(own[..., :-1], part[:, :, None])[..., 0] + own[..., -1]
                continue
            for output, neurons in enumerate(blocks):
                active = self._activations(part, neurons, gates)
                out[rows, output] = active @ self.output_weights[neurons]
        if self.linear_weights is not None:
            out += X @ self.linear_weights
        out += self.output_bias
        return out

    def _of_gates(self) -> NDArray[np.floating]:
        """Return what each gate adds to the linear model of a row, a row each.

        Its columns are the weights of the features and the bias of each output in turn.
        """
        assert self.gate_index is not None
        assert self.gate_bias is not None
        d = self.hidden_weights.shape[1]
        models = np.zeros((len(self.gate_bias), self.n_outputs, d + 1), self.hidden_weights.dtype)
        own = np.column_stack([self.hidden_weights, self.hidden_bias])
        own *= self.output_weights[:, None]
        for output, neurons in enumerate(self.blocks):
            np.add.at(models[:, output], self.gate_index[neurons], own[neurons])
        return models.reshape(len(models), -1)


def recover(
    weights: Weights,
    *,
    bias: bool = True,
    tol: float = 0.0,
    gates: NDArray[np.floating] | None = None,
) -> TwoLayerNetwork:
    r"""Turn weights of the convex program into a network.

    A positive block becomes the neuron :math:`(v / \sqrt{\|v\|}, \sqrt{\|v\|})`, a negative one
    :math:`(w / \sqrt{\|w\|}, -\sqrt{\|w\|})`, so that weight decay
    :math:`\tfrac12(\|\Theta_1\|^2 + \|\Theta_2\|^2)` equals the sum of block norms (Pilanci &
    Ergen, 2020, Theorem 1).

    Parameters
    ----------
    weights : Weights
        Weights of a feasible iterate, never of one that only solves a linear system. Blocks of
        one sign belong to the gated formulation.
    bias : bool, default=True
        Whether the last feature is a column of ones, whose weights become biases.
    tol : float, default=0
        Blocks whose norm is at most ``tol`` times the largest are dropped.
    gates : ndarray, shape (n_patterns, n_features), optional
        Gate vectors of the patterns; needed in the gated formulation, and in no other. Of
        conjunctions, shape (n_patterns, n_vectors, n_features). They may see more features than
        the weights, which are then zero on those that come last.

    Returns
    -------
    TwoLayerNetwork
        The weight of the linear part on the column of ones becomes the output bias, which is zero
        otherwise.

    Raises
    ------
    ValueError
        If gates are given for the ReLU formulation, or missing for the gated one.
    """
    blocks = weights.blocks
    n_outputs, n_signs = blocks.shape[:2]
    if (gates is None) != (n_signs == 2):
        raise ValueError(
            f"weights have {n_signs} sign(s); expected gates for the gated formulation (one sign) "
            "and none for the ReLU formulation (two)."
        )
    linear = None if weights.linear is None else weights.linear.T
    # Squares of large weights overflow in float32; a power of two rounds nothing.
    unit = 2.0 ** max(int(np.frexp(np.abs(blocks).max(initial=0))[1]) - 1, 0)
    norms = np.linalg.norm(blocks / unit, axis=-1) * unit
    active = norms > tol * norms.max(initial=0)
    output_of, sign_of, pattern_of = np.nonzero(active)
    root = np.sqrt(norms[active])
    output = np.where(sign_of == 0, root, -root)

    def split(rows: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        offset = rows[..., -1] if bias else np.zeros(rows.shape[:-1], rows.dtype)
        inner = rows[..., :-1] if bias else rows
        return np.ascontiguousarray(inner), np.ascontiguousarray(offset)

    output_bias = np.zeros(n_outputs, blocks.dtype)
    if linear is not None and bias:
        linear, output_bias = np.ascontiguousarray(linear[:-1]), linear[-1].copy()
    network = TwoLayerNetwork(
        *split(blocks[active] / root[:, None]),
        output,
        output_bias,
        linear_weights=linear,
        output_index=output_of if n_outputs > 1 else None,
    )
    if gates is None:
        return network
    more = gates.shape[-1] - blocks.shape[-1]
    hidden = np.pad(network.hidden_weights, ((0, 0), (0, more)))
    used, index = np.unique(pattern_of, return_inverse=True)
    gate_weights, gate_bias = split(gates[used].astype(blocks.dtype))
    return replace(
        network,
        hidden_weights=hidden,
        gate_weights=gate_weights,
        gate_bias=gate_bias,
        gate_index=index,
    )


def fold_scaling(
    network: TwoLayerNetwork,
    x_mean: NDArray[np.floating],
    x_scale: NDArray[np.floating],
    y_mean: NDArray[np.floating],
    y_scale: NDArray[np.floating],
) -> TwoLayerNetwork:
    """Rewrite a network of ``(x - x_mean) / x_scale`` as one of ``x``, outputs in units of y.

    Parameters
    ----------
    network : TwoLayerNetwork
        Network of scaled rows.
    x_mean, x_scale : ndarray, shape (n_features,)
        Means and scales of the features.
    y_mean, y_scale : ndarray, shape (n_outputs,)
        Means and scales of the targets.
    """
    hidden = network.hidden_weights / x_scale
    own = slice(None) if network.output_index is None else network.output_index
    folded = replace(
        network,
        hidden_weights=hidden,
        hidden_bias=network.hidden_bias - hidden @ x_mean,
        output_weights=network.output_weights * y_scale[own],
        output_bias=network.output_bias * y_scale + y_mean,
    )
    if network.gate_weights is not None and network.gate_bias is not None:
        gates = network.gate_weights / x_scale
        bias = network.gate_bias - gates @ x_mean
        folded = replace(folded, gate_weights=gates, gate_bias=bias)
    if network.linear_weights is not None:
        skip = network.linear_weights / x_scale[:, None] * y_scale
        bias = folded.output_bias - x_mean @ skip
        folded = replace(folded, linear_weights=skip, output_bias=bias)
    return folded


def row_chunks(n_rows: int, width: int) -> Iterator[slice]:
    """Give slices of rows, whose hidden activations of a width fit into bounded memory.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    width : int
        Hidden activations of a row.
    """
    step = max(_CHUNK_NUMBERS // width, 1)
    for first in range(0, n_rows, step):
        yield slice(first, min(first + step, n_rows))
