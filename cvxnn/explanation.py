r"""Explanations of a network: the affine piece on which a row lies, and what each neuron adds.

A two-layer network is affine wherever the same neurons are open, so around almost every row it
*is* a linear model, :math:`f(x) = W x + c`, up to the nearest boundary at which a neuron opens or
closes. Nothing is sampled, fitted or approximated. This module is plain NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._arrays import refuse_sparse
from cvxnn._threads import limit_threads
from cvxnn.network import TwoLayerNetwork, _chunks

# Features that a report names for each neuron, and neurons that it prints.
_TOP_FEATURES = 3
_TOP_NEURONS = 10


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


class Contributions(NamedTuple):
    """The outputs as sums over features; ``pandas.DataFrame(parts.columns)`` is a table of them.

    Attributes
    ----------
    features : ndarray, shape (n_samples, n_outputs, n_features)
        Contribution of each feature, by its distance from the baseline.
    rest : ndarray, shape (n_samples, n_outputs)
        The row's piece at the baseline.
    feature_names : sequence of str, optional
        Names of the features; ``x0``, ``x1``, and so on in the table where it is None.
    output_names : sequence, optional
        Names of the outputs, such as classes; their numbers in the table where it is None.
    """

    features: NDArray[np.floating]
    rest: NDArray[np.floating]
    feature_names: Sequence[str] | None = None
    output_names: Sequence[Any] | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """Columns of a table with one line for each row and output.

        ``"row"`` and ``"output"`` name the line. Then each feature has a column, and these and
        ``"rest"`` add up to ``"sum"``, the output of the network.
        """
        n, C, d = self.features.shape
        names = [f"x{i}" for i in range(d)] if self.feature_names is None else self.feature_names
        outputs = range(C) if self.output_names is None else self.output_names
        lines = self.features.reshape(-1, d)
        return {
            "row": np.repeat(np.arange(n), C),
            "output": np.tile(np.asarray(outputs), n),
            **{str(name): column for name, column in zip(names, lines.T, strict=True)},
            "rest": self.rest.ravel(),
            "sum": lines.sum(axis=1) + self.rest.ravel(),
        }


class Boundaries(NamedTuple):
    """The hyperplanes ``weights @ x + bias = 0`` at which neurons open.

    Attributes
    ----------
    weights : ndarray, shape (n_boundaries, n_features)
        Normal vectors.
    bias : ndarray, shape (n_boundaries,)
        Offsets.
    of_neuron : ndarray of int, shape (n_neurons,)
        The boundary of each neuron; neurons that share a gate share a boundary.
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
        One hyperplane for each neuron, or for each gate in use.
    """
    if network.gate_index is None:
        own = np.arange(network.n_neurons)
        return Boundaries(network.hidden_weights, network.hidden_bias, own)
    assert network.gate_weights is not None
    assert network.gate_bias is not None
    used, of_neuron = np.unique(network.gate_index, return_inverse=True)
    return Boundaries(network.gate_weights[used], network.gate_bias[used], of_neuron)


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
    """
    return _look(network, _rows(network, X))[0]


def count_regions(active: NDArray[np.bool_]) -> int:
    """Count the distinct activation patterns among the rows of ``active``."""
    if active.size == 0:
        return min(len(active), 1)
    return len(np.unique(np.packbits(active, axis=1), axis=0))


def local_linear(network: TwoLayerNetwork, X: ArrayLike) -> LocalLinear:
    """Return the affine piece of the network at each row.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated, with or without a skip connection; ``network_`` of an estimator.
    X : array-like, shape (n_samples, n_features)
        Finite raw features.

    Returns
    -------
    LocalLinear
        ``weights @ x + intercept`` is ``network.forward`` at each row and within ``radius`` of it,
        up to rounding.

    Raises
    ------
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
    X = _rows(network, X)
    active, radius = _look(network, X)
    shape = len(X), network.n_outputs, X.shape[1]
    weights = np.empty(shape, np.result_type(X, network.hidden_weights))
    intercept = np.empty(shape[:2], weights.dtype)
    for rows in _chunks(len(X), max(network.n_neurons, 1)):
        with limit_threads(2.0 * (rows.stop - rows.start) * network.hidden_weights.size):
            for output, neurons in enumerate(network.blocks):
                share = active[rows, neurons] * network.output_weights[neurons]
                weights[rows, output] = share @ network.hidden_weights[neurons]
                intercept[rows, output] = share @ network.hidden_bias[neurons]
    if network.linear_weights is not None:
        weights += network.linear_weights.T
    intercept += network.output_bias
    return LocalLinear(weights, intercept, active, radius)


def contributions(
    network: TwoLayerNetwork, X: ArrayLike, baseline: ArrayLike | None = None
) -> Contributions:
    r"""Split the outputs at each row into a sum over features.

    With the row's own piece :math:`f(x) = W x + c`, feature :math:`i` contributes
    :math:`W_i (x_i - b_i)`, and the rest is :math:`W b + c`. The sum is :math:`f(x)`, exactly.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated network.
    X : array-like, shape (n_samples, n_features)
        Finite raw features.
    baseline : array-like, shape (n_features,), optional
        Values that features are compared with, such as the mean of the training rows;
        zeros by default.

    Returns
    -------
    Contributions
        ``features.sum(axis=-1) + rest`` is ``network.forward(X)``, up to rounding.

    Raises
    ------
    ValueError
        If ``X`` or ``baseline`` has another width than the network, or is not finite.

    Notes
    -----
    This is arithmetic of the model, no claim about causes. It is not SHAP: no feature is left out,
    nothing is averaged over other rows. The rest is the row's piece continued to the baseline, and
    equals :math:`f(b)` only where both lie on one piece, as they do when ``b`` is nearer than the
    row's ``radius``.
    """
    X = _rows(network, X)
    zero = np.zeros(X.shape[1], X.dtype)
    base = zero if baseline is None else np.asarray(baseline, np.float64)
    if base.shape != zero.shape or not np.isfinite(base).all():
        raise ValueError(
            f"baseline has shape {base.shape}; expected {zero.shape}, one finite number for each "
            "feature."
        )
    piece = local_linear(network, X)
    features = piece.weights * (X - base.astype(X.dtype))[:, None]
    return Contributions(features, piece.intercept + piece.weights @ base.astype(X.dtype))


def feature_importances(
    network: TwoLayerNetwork, scale: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    r"""Return the share of each feature in the slopes of all neurons.

    .. math::

        I_j \propto s_j \sqrt{\textstyle\sum_i \|\Theta_{2,i}\|^2 \, \Theta_{1,ij}^2
            + \|\Theta_{3,j}\|^2}, \qquad \sum_j I_j = 1 ,

    with the layers of ``TwoLayerNetwork`` and the scale :math:`s_j` of feature :math:`j`. Before
    they are brought to sum 1, these are the group norms of ``FeatureGroupLasso``, over all outputs.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated network.
    scale : ndarray, shape (n_features,), optional
        Units in which to count the features, such as their standard deviations; by default 1.

    Returns
    -------
    ndarray, shape (n_features,)
        At least 0, with sum 1; zeros where no weight differs from zero.
    """
    size = np.square(network.output_weights, dtype=np.float64)
    total = size @ np.square(network.hidden_weights, dtype=np.float64)
    if network.linear_weights is not None:
        total = total + np.square(network.linear_weights, dtype=np.float64).sum(axis=1)
    norms = np.sqrt(total) * (1 if scale is None else scale)
    return norms / (norms.sum() or 1)


@dataclass(frozen=True)
class NeuronReport:
    """Description of each neuron and of its effect on given rows; printed, a table of the largest.

    Attributes
    ----------
    norm : ndarray, shape (n_neurons,)
        Norm of the first-layer weights times the output weight; biases left out.
    fraction_open : ndarray, shape (n_neurons,)
        Part of the rows on which the neuron is open.
    output : ndarray of int, shape (n_neurons,)
        The output that the neuron feeds.
    sign : ndarray of int, shape (n_neurons,)
        Sign of its weight there. A ReLU neuron pushes in this direction; a gated one in either.
    top_features : ndarray of int, shape (n_neurons, n_top)
        The (at most three) features with the largest first-layer weights, largest first.
    top_slopes : ndarray, shape (n_neurons, n_top)
        Change of the output for one unit of these features, where the neuron is open.
    feature_names : tuple of str
        Names of the features.
    n_samples : int
        Rows that were looked at.
    n_regions : int
        Distinct activation patterns on these rows: the linear pieces that they touch.
    n_active : int
        Neurons with a norm above zero that are open on at least one row.
    """

    norm: NDArray[np.floating]
    fraction_open: NDArray[np.floating]
    output: NDArray[np.intp]
    sign: NDArray[np.intp]
    top_features: NDArray[np.intp]
    top_slopes: NDArray[np.floating]
    feature_names: tuple[str, ...]
    n_samples: int
    n_regions: int
    n_active: int

    @property
    def columns(self) -> dict[str, Any]:
        """Columns with one entry for each neuron, for ``pandas.DataFrame(report.columns)``."""
        top = [
            ", ".join(
                f"{self.feature_names[feature]} {slope:+.3g}"
                for feature, slope in zip(features, slopes, strict=True)
                if slope
            )
            for features, slopes in zip(self.top_features, self.top_slopes, strict=True)
        ]
        return {
            "norm": self.norm,
            "fraction_open": self.fraction_open,
            "output": self.output,
            "sign": self.sign,
            "largest_slopes": np.array(top, dtype=object),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings and lists, as JSON wants them."""
        return {
            "n_samples": self.n_samples,
            "n_regions": self.n_regions,
            "n_active": self.n_active,
            "neurons": {name: column.tolist() for name, column in self.columns.items()},
        }

    def __str__(self) -> str:
        """Return the table of the largest neurons."""
        n_neurons, columns = len(self.norm), self.columns
        lines = [
            f"{n_neurons} neurons, {self.n_active} of them active; {self.n_regions} linear regions "
            f"on {self.n_samples} rows"
        ]
        if n_neurons:
            lines.append("neuron      norm   open  output  largest slopes")
        for j in np.argsort(-self.norm, kind="stable")[:_TOP_NEURONS]:
            output = "-0+"[self.sign[j] + 1] + str(self.output[j])
            lines.append(
                f"{j:6d}  {self.norm[j]:8.3g}  {self.fraction_open[j]:5.0%}  {output:>6}  "
                f"{columns['largest_slopes'][j]}".rstrip()
            )
        if n_neurons > _TOP_NEURONS:
            lines.append(f"and {n_neurons - _TOP_NEURONS} neurons of smaller norm")
        return "\n".join(lines)


def neuron_report(
    network: TwoLayerNetwork,
    X: ArrayLike,
    feature_names: Sequence[str] | None = None,
    *,
    standardize: bool = True,
) -> NeuronReport:
    """Describe each neuron: its size, when it is open, what it feeds and what it looks at.

    Parameters
    ----------
    network : TwoLayerNetwork
        ReLU or gated network.
    X : array-like, shape (n_samples, n_features)
        Finite raw features of at least one row.
    feature_names : sequence of str, optional
        Names of the features; by default ``x0``, ``x1``, and so on.
    standardize : bool, default=True
        Count features in standard deviations on ``X`` (constant ones keep their unit), so that
        their units do not decide which weights and norms are largest. With False, in raw units.

    Returns
    -------
    NeuronReport
        One entry for each neuron of the network.

    Raises
    ------
    ValueError
        If ``X`` has no rows, another width than the network, or is not finite, or there is not one
        name for each feature.
    """
    X = _rows(network, X)
    n, d = X.shape
    if n == 0:
        raise ValueError("X has no rows; expected at least one.")
    names = tuple(f"x{i}" for i in range(d)) if feature_names is None else tuple(feature_names)
    if len(names) != d:
        raise ValueError(f"feature_names has {len(names)} names; expected {d}, one a feature.")
    hidden = network.hidden_weights
    if standardize:
        spread = X.std(axis=0, dtype=np.float64)
        hidden = hidden * np.where(spread > 0, spread, 1)
    active = open_neurons(network, X)
    fraction = active.mean(axis=0)
    weight, output = network.output_weights, network.output_index
    norm = np.linalg.norm(hidden, axis=1) * np.abs(weight)
    top = np.argsort(-np.abs(hidden), axis=1, kind="stable")[:, :_TOP_FEATURES]
    return NeuronReport(
        norm=norm,
        fraction_open=fraction,
        output=np.zeros(len(weight), np.intp) if output is None else output.astype(np.intp),
        sign=np.sign(weight).astype(np.intp),
        top_features=top,
        top_slopes=np.take_along_axis(hidden, top, axis=1) * weight[:, None],
        feature_names=tuple(str(name) for name in names),
        n_samples=n,
        n_regions=count_regions(active),
        n_active=int(((norm > 0) & (fraction > 0)).sum()),
    )


def _rows(network: TwoLayerNetwork, X: ArrayLike) -> NDArray[np.floating]:
    """Check rows: finite, of the network's width; their precision stays."""
    refuse_sparse(X, "an explanation")
    rows = np.asarray(X)
    if not np.issubdtype(rows.dtype, np.floating):
        rows = rows.astype(np.float64)
    width = network.hidden_weights.shape[1]
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(
            f"X has shape {rows.shape}; expected (n_samples, {width}), the width of the network; "
            "pass a single row as X[None]."
        )
    if not np.isfinite(rows).all():
        raise ValueError("X holds NaN or infinity; fill in or leave out these rows.")
    return rows


def _look(
    network: TwoLayerNetwork, X: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Return which neurons are open on which rows, and distances to the nearest boundary."""
    planes = boundaries(network)
    norms = np.linalg.norm(planes.weights, axis=1)
    real = norms > 0  # the others are open, or closed, everywhere
    active = np.empty((len(X), network.n_neurons), bool)
    radius = np.empty(len(X), np.result_type(X, network.hidden_weights))
    # The chunks of `forward`: products of other shapes may be rounded to the other side.
    for rows in _chunks(len(X), max(network.n_neurons, 1)):
        scores = X[rows] @ planes.weights.T
        scores += planes.bias
        is_open = scores > 0 if network.gate_index is None else scores >= 0
        active[rows] = is_open[:, planes.of_neuron]
        radius[rows] = (np.abs(scores[:, real]) / norms[real]).min(axis=1, initial=np.inf)
    return active, radius
