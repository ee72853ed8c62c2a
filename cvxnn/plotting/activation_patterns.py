"""Display of the neurons that are open on each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from cvxnn.explanation import count_regions, neuron_report, open_neurons
from cvxnn.plotting._arguments import (
    NamesConstructors,
    axes_or_new,
    check_labels,
    network_and_input,
)

# Targets of at most this many values are groups, with names beside the rows and lines between.
_MOST_GROUPS = 20


class ActivationPatternDisplay(metaclass=NamesConstructors):
    """Display of the neurons (or gates) that are open on each row, as an image.

    Rows are sorted by target, then by similarity, and neurons by falling norm, from left to right.
    Rows of the same pattern lie on the same linear piece of the network.

    Parameters
    ----------
    active : array-like of bool, shape (n_samples, n_neurons)
        ``cvxnn.explanation.open_neurons``, for example.
    y : array-like, shape (n_samples,), optional
        Targets.
    norm : array-like, shape (n_neurons,), optional
        Sizes by which neurons are sorted; by default they keep their order.
    what : str, default="neurons"
        Name of the columns, in the plural.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last drawing. Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Figure of these axes. Set by ``plot``.
    image_ : matplotlib.image.AxesImage
        The image. Set by ``plot``.
    rows_ : ndarray of int, shape (n_samples,)
        Row of the data in each line of the image. Set by ``plot``.
    columns_ : ndarray of int, shape (n_neurons,)
        Neuron in each column of the image. Set by ``plot``.
    n_regions : int
        Number of distinct patterns.

    Raises
    ------
    ValueError
        If the shapes do not fit together, or there are no neurons.
    """

    def __init__(
        self,
        active: ArrayLike,
        *,
        y: ArrayLike | None = None,
        norm: ArrayLike | None = None,
        what: str = "neurons",
    ) -> None:
        self.active = np.asarray(active, bool)
        if self.active.ndim != 2 or self.active.size == 0:
            raise ValueError(
                f"active has shape {self.active.shape}; expected (n_samples, n_neurons) with at "
                "least one of each; a network without neurons has no patterns."
            )
        n, m = self.active.shape
        self.y = None if y is None else check_labels(y, n)
        self.norm = None if norm is None else np.asarray(norm, float)
        if self.norm is not None and self.norm.shape != (m,):
            raise ValueError(
                f"norm has shape {self.norm.shape}; expected ({m},), one for each neuron."
            )
        self.what = what
        self.n_regions = count_regions(self.active)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: ArrayLike, y: ArrayLike | None = None, *, ax: Axes | None = None
    ) -> ActivationPatternDisplay:
        """Draw the patterns of a fitted network on given rows.

        Parameters
        ----------
        estimator : fitted estimator of cvxnn
            Estimator that has ``network_``.
        X : array-like, shape (n_samples, n_features)
            Rows to draw.
        y : array-like, shape (n_samples,), optional
            Classes or numbers by which rows are sorted first.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        ActivationPatternDisplay
            The display, with ``ax_`` and ``figure_``.

        Notes
        -----
        Neurons that share a gate share a column, whose norm is the sum of theirs. Norms are those
        of ``cvxnn.explanation.neuron_report``.
        """
        network, rows = network_and_input(estimator, X)
        gates = np.arange(network.n_neurons) if network.gate_index is None else network.gate_index
        _, first, column = np.unique(gates, return_index=True, return_inverse=True)
        norm = neuron_report(network, rows).norm
        return cls(
            open_neurons(network, rows)[:, first],
            y=y,
            norm=np.bincount(column, norm, minlength=len(first)),
            what="neurons" if network.gate_index is None else "gates",
        ).plot(ax=ax)

    def plot(self, *, ax: Axes | None = None) -> ActivationPatternDisplay:
        """Draw the image, in which open neurons are dark.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        ActivationPatternDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        ax = axes_or_new(ax)
        n, m = self.active.shape
        self.columns_ = np.arange(m) if self.norm is None else np.argsort(-self.norm, kind="stable")
        groups, codes = np.unique(np.zeros(n) if self.y is None else self.y, return_inverse=True)
        self.rows_ = _by_similarity(self.active[:, self.columns_], codes)
        self.image_ = ax.imshow(
            self.active[np.ix_(self.rows_, self.columns_)],
            cmap="Blues",
            vmin=0,
            vmax=1.25,
            aspect="auto",
            interpolation="nearest",
        )
        order = "" if self.norm is None else ", by falling norm"
        ax.set_xlabel(f"{self.what}{order} (dark: open)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if self.y is not None and len(groups) <= _MOST_GROUPS:
            ends = np.cumsum(np.bincount(codes))
            ax.hlines(ends[:-1] - 0.5, -0.5, m - 0.5, color="C3", linewidth=1)
            ax.set_yticks(ends - np.bincount(codes) / 2 - 0.5, groups)
            ax.tick_params(axis="y", length=0)
            ax.set_ylabel("rows by target")
        else:
            ax.set_ylabel("rows" if self.y is None else "rows, by rising target")
        ax.set_title(f"{m} {self.what}, {self.n_regions} distinct regions on {n} rows")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _by_similarity(active: NDArray[np.bool_], codes: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the order of the rows by group, then by the first column, the second, and so on."""
    return np.lexsort([*(~active.T[::-1]), codes])
