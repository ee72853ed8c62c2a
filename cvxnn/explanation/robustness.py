r"""Radii within which a decision cannot change, proved from the neurons that may open or close.

A neuron whose boundary is further away than :math:`r` stays as it is for all rows within
:math:`r`, and those that stay open add up to one linear model, which moves by at most :math:`r`
times the norm of its slope. Each other neuron may do its worst. The sum bounds how far the output
falls; a decision whose margin is larger cannot change.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.explanation.hyperplanes import boundaries, checked_rows
from cvxnn.network import TwoLayerNetwork, row_chunks
from cvxnn.numerics.threads import limits_threads

# Halvings of the interval in which a radius lies: it is exact to a part of 2**-30. The interval is
# looked for up to a factor of 2**60 around the radius of the linear model.
_HALVINGS, _DOUBLINGS = 30, 60

Floats = NDArray[np.floating]


def ranking_radius(network: TwoLayerNetwork, first: ArrayLike, second: ArrayLike) -> Floats:
    """Return how far both replies of each pair may move before their order can change.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated, of one output; ``network_`` of a preference head.
    first, second : array-like, shape (n_pairs, n_features)
        Finite raw features, such as embeddings.

    Returns
    -------
    ndarray, shape (n_pairs,)
        Radii in raw units, Euclidean: no two rows that are each nearer than this to theirs have
        the other order. It is a lower bound on the distance at which the order does change.

    Raises
    ------
    TypeError
        If `network` is an estimator or a pipeline; pass its ``network_``.
    ValueError
        If the network has several outputs, or rows do not fit it or each other.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.explanation import ranking_radius
    >>> from cvxnn.network import TwoLayerNetwork
    >>> one = np.ones(1)
    >>> network = TwoLayerNetwork(np.array([[1.0]]), 0 * one, one, 0 * one)
    >>> ranking_radius(network, [[5.0]], [[3.0]]).round(6).tolist()
    [1.0]
    """
    rows, others = checked_rows(network, first), checked_rows(network, second)
    if network.n_outputs != 1 or len(rows) != len(others):
        raise ValueError(
            f"the network has {network.n_outputs} outputs, for {len(rows)} and {len(others)} rows; "
            "expected one output, and as many first rows as second ones."
        )
    margin = (_outputs(network, rows) - _outputs(network, others))[:, 0]
    ahead, behind = (np.where(margin[:, None] >= 0, *p) for p in ((rows, others), (others, rows)))
    up, down = _MarginRows.of(network, ahead, 1.0), _MarginRows.of(network, behind, -1.0)
    return _largest(np.abs(margin), [up, down])


def decision_radius(network: TwoLayerNetwork, X: ArrayLike) -> Floats:
    """Return how far each row may move before the class that a network decides for can change.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated; ``network_`` of a classifier. One output decides by its sign.
    X : array-like, shape (n_samples, n_features)
        Finite raw features.

    Returns
    -------
    ndarray, shape (n_samples,)
        Radii in raw units, Euclidean: a lower bound on the distance to another decision.

    Raises
    ------
    TypeError
        If `network` is an estimator or a pipeline; pass its ``network_``.
    ValueError
        If ``X`` has another width than the network, or is not finite.
    """
    rows = checked_rows(network, X)
    scores = _outputs(network, rows)
    if network.n_outputs == 1:
        sign = np.where(scores >= 0, 1.0, -1.0)
        return _largest(np.abs(scores[:, 0]), [_MarginRows.of(network, rows, sign)])
    best = scores.argmax(axis=1)
    radius = np.full(len(rows), np.inf)
    for other in range(network.n_outputs):
        compared = np.flatnonzero(best != other)
        signs = np.zeros((len(compared), network.n_outputs))
        signs[np.arange(len(compared)), best[compared]] = 1
        signs[:, other] -= 1
        margin = scores[compared, best[compared]] - scores[compared, other]
        found = _largest(margin, [_MarginRows.of(network, rows[compared], signs)])
        radius[compared] = np.minimum(radius[compared], found)
    return radius


def _outputs(network: TwoLayerNetwork, X: Floats) -> Floats:
    """Return outputs of rows whose distances from the gates are numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = network.forward(X)
        planes = boundaries(network)
        scores = X.astype(np.float64) @ planes.weights.T.astype(np.float64) + planes.bias
    if not (np.isfinite(outputs).all() and np.isfinite(scores).all()):
        raise ValueError("X holds values too large for the network; rescale the features.")
    return outputs


class _MarginRows(NamedTuple):
    """Rows, and what their neurons add to a margin.

    ``signs``, (n_rows, n_outputs), says how each output counts; ``inner`` is the linear model of
    each neuron at the row, ``reach`` the distance at which it may open or close.
    """

    network: TwoLayerNetwork
    signs: Floats
    inner: Floats
    reach: Floats
    is_open: NDArray[np.bool_]

    @classmethod
    @limits_threads(lambda _, network, X, __: 2.0 * len(X) * network.hidden_weights.size)
    def of(cls, network: TwoLayerNetwork, X: Floats, signs: Floats | float) -> _MarginRows:
        X = X.astype(np.float64)
        planes = boundaries(network)
        norms = np.linalg.norm(planes.weights, axis=1)
        scores = X @ planes.weights.T.astype(np.float64) + planes.bias
        away = np.where(norms > 0, np.abs(scores) / np.where(norms > 0, norms, 1), np.inf)
        opened = scores > 0 if network.gate_index is None else scores >= 0
        opened, away = opened[:, planes.of_neuron], away[:, planes.of_neuron]
        if opened.ndim == 3:  # it closes by its nearest vector, and opens when all others have
            is_open = np.asarray(opened.all(axis=2))
            closes, opens = away.min(axis=2), np.where(opened, 0, away).max(axis=2)
            opened, away = is_open, np.where(is_open, closes, opens)
        inner = X @ network.hidden_weights.T.astype(np.float64) + network.hidden_bias
        signs = np.broadcast_to(signs, (len(X), network.n_outputs))
        return cls(network, signs, inner, away, opened)

    def take(self, rows: slice) -> _MarginRows:
        """Return some of the rows."""
        return _MarginRows(
            self.network,
            self.signs[rows],
            self.inner[rows],
            self.reach[rows],
            self.is_open[rows],
        )

    def steepness(self) -> Floats:
        """Return how fast the margin may fall at each row."""
        slope = self._slope(self._weights(), np.ones_like(self.is_open))
        return np.asarray(np.linalg.norm(slope, axis=1))

    def _weights(self) -> Floats:
        """Return how each neuron counts in the margin of each row."""
        output = self.network.output_index
        own = self.signs[:, np.zeros(self.network.n_neurons, int) if output is None else output]
        return np.asarray(own * self.network.output_weights)

    def _slope(self, weights: Floats, stays: NDArray[np.bool_]) -> Floats:
        """Return the slope of the margin, of the open neurons that stay so."""
        network = self.network
        slope = (weights * (self.is_open & stays)) @ network.hidden_weights.astype(np.float64)
        if network.linear_weights is not None:
            slope = slope + self.signs @ network.linear_weights.T
        return np.asarray(slope)

    def fall(self, radius: Floats) -> Floats:
        """Return by how much the margin may fall within the radius of each row."""
        network, weights = self.network, self._weights()
        stays = self.reach > radius[:, None]
        slope = self._slope(weights, stays)
        total = radius * np.linalg.norm(slope, axis=1)
        moved = radius[:, None] * np.linalg.norm(network.hidden_weights, axis=1)
        now = np.where(self.is_open, weights * self.inner, 0)
        if network.gate_index is None:
            low, high = np.maximum(self.inner - moved, 0), np.maximum(self.inner + moved, 0)
            worst = np.where(weights > 0, weights * low, weights * high)
        else:
            worst = np.minimum(weights * self.inner - np.abs(weights) * moved, 0)
        return np.asarray(total + np.where(stays, 0, now - worst).sum(axis=1))


@limits_threads(lambda margin, sides: _chunk_flops(len(margin), sides[0].network))
def _largest(margin: Floats, sides: list[_MarginRows]) -> Floats:
    """Return the largest radius found at which the margin cannot fall to 0."""
    found = np.zeros(len(margin))
    for rows in row_chunks(len(margin), max(sides[0].network.n_neurons, 1)):
        own, parts = margin[rows].astype(np.float64), [side.take(rows) for side in sides]

        def holds(radius: Floats, own: Floats = own, parts: list[_MarginRows] = parts) -> Floats:
            return np.asarray(np.sum([part.fall(radius) for part in parts], axis=0) < own)

        # The radius of the linear model, from which the search takes its unit.
        steepness = np.sum([part.steepness() for part in parts], axis=0)
        known = (own > 0) & (steepness > 1e-200 * own)
        high = np.divide(own, steepness, out=np.ones(len(own)), where=known)
        low = np.zeros(len(own))
        for _ in range(_DOUBLINGS):  # a radius that is too large
            large = holds(high)
            if not large.any():
                break
            low, high = np.where(large, high, low), np.where(large, 2 * high, high)
        for _ in range(_DOUBLINGS):  # and one that is not, within a factor of 2
            small = (low == 0) & holds(high / 2)
            low = np.where(small, high / 2, low)
            far = (low == 0) & (own > 0)
            if not far.any():
                break
            high = np.where(far, high / 2, high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            fits = holds(middle)
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        found[rows] = low
    return found


def _chunk_flops(n_rows: int, network: TwoLayerNetwork) -> float:
    """Return the operations of a product of a chunk of rows with the first layer."""
    rows = next(row_chunks(n_rows, max(network.n_neurons, 1)), slice(0, 0))
    return 2.0 * (rows.stop - rows.start) * network.hidden_weights.size
