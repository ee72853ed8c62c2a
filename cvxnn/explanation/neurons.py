"""Report of the neurons: their size, when they are open, and which features they look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._messages import counted
from cvxnn.explanation.hyperplanes import checked_rows, count_regions, open_neurons
from cvxnn.network import TwoLayerNetwork

# Features that a report names for each neuron, and neurons that it prints.
_TOP_FEATURES = 3
_TOP_NEURONS = 10


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
        """Return everything as plain numbers, strings and lists, which JSON can hold."""
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
            f"{counted(n_neurons, 'neuron')}, {self.n_active} of them active; "
            f"{counted(self.n_regions, 'linear region')} on {counted(self.n_samples, 'row')}"
        ]
        if n_neurons:
            lines.append(
                "norm: of the input weights times the output weight; open: share of rows; output:\n"
                "sign of the weight, and its number; slopes: of the output by a feature, where open"
            )
            lines.append("neuron      norm   open  output  largest slopes")
        for j in np.argsort(-self.norm, kind="stable")[:_TOP_NEURONS]:
            output = "-0+"[self.sign[j] + 1] + str(self.output[j])
            lines.append(
                f"{j:6d}  {self.norm[j]:8.3g}  {self.fraction_open[j]:5.0%}  {output:>6}  "
                f"{columns['largest_slopes'][j]}".rstrip()
            )
        if n_neurons > _TOP_NEURONS:
            lines.append(f"and {counted(n_neurons - _TOP_NEURONS, 'neuron')} of smaller norm")
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
    TypeError
        If `network` is an estimator or a pipeline; pass its ``network_``.
    ValueError
        If ``X`` has no rows, another width than the network, or is not finite, or there is not one
        name for each feature.
    """
    X = checked_rows(network, X)
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
