"""Display of predictions over a plane of two features, with their linear pieces."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_classifier
from sklearn.inspection import DecisionBoundaryDisplay

from cvxnn.explanation import boundaries
from cvxnn.plotting._arguments import (
    NamesConstructors,
    axes_or_new,
    check_labels,
    network_and_input,
)

_FILL_ALPHA = 0.6


class DecisionRegionDisplay(metaclass=NamesConstructors):
    """Display of the predictions of a network of two features, with its boundaries and points.

    Parameters
    ----------
    estimator : fitted estimator of cvxnn
        Estimator fitted to two features and, if it is a regressor, to one target.
    X : array-like, shape (n_samples, 2)
        Points to draw.
    y : array-like, shape (n_samples,)
        Classes or values of the points.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last drawing. Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Figure of these axes. Set by ``plot``.
    fill_ : sklearn.inspection.DecisionBoundaryDisplay
        Display of the predictions in the plane. Set by ``plot``.
    lines_ : list of matplotlib.lines.Line2D
        One line for each boundary that crosses the picture. Set by ``plot``.
    points_ : list of matplotlib.collections.PathCollection
        One collection of points for each class, or a single one for regression. Set by ``plot``.

    Raises
    ------
    ValueError
        If there are not two features and one target, or `y` does not fit.
    """

    def __init__(self, estimator: Any, X: ArrayLike, y: ArrayLike) -> None:
        network, rows = network_and_input(estimator, X)
        if rows.shape[1] != 2:
            raise ValueError(
                f"X has {rows.shape[1]} features; a plane has 2: fit on two columns or on two "
                "components of a PCA."
            )
        self.y = check_labels(y, len(rows))
        self.classes = estimator.classes_ if is_classifier(estimator) else None
        if self.classes is None and network.n_outputs != 1:
            raise ValueError(f"the network has {network.n_outputs} targets; fit it on one.")
        if self.classes is not None and not np.isin(self.y, self.classes).all():
            unknown = np.setdiff1d(self.y, self.classes).tolist()
            raise ValueError(f"y holds {unknown}; expected the classes {self.classes.tolist()}.")
        self.estimator, self.X = estimator, rows
        self.boundaries = boundaries(network)
        self.names = [str(name) for name in getattr(X, "columns", ("feature 0", "feature 1"))]
        self._like: Any = type(X) if hasattr(X, "iloc") else None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        grid_resolution: int = 200,
        margin: float = 0.1,
        ax: Axes | None = None,
    ) -> DecisionRegionDisplay:
        """Draw a fitted network of two features.

        With two classes, colours show the probability of the second class, and a line shows where
        it is a half. With more classes, they show the most likely class, paler where it is less
        likely. For regression, they show the prediction. Neurons (or gates) open at the dashed
        lines; between them the network is linear.

        Parameters
        ----------
        estimator : fitted estimator of cvxnn
            Estimator fitted to two features and, if it is a regressor, to one target.
        X : array-like, shape (n_samples, 2)
            Points to draw.
        y : array-like, shape (n_samples,)
            Classes or values of the points.
        grid_resolution : int, default=200
            Number of points of the grid along each axis.
        margin : float, default=0.1
            Room around the points, as a fraction of their range; at least 0.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        DecisionRegionDisplay
            The display, with ``ax_`` and ``figure_``.

        Raises
        ------
        ValueError
            If there are not two features and one target, or ``y`` does not fit.
        """
        return cls(estimator, X, y).plot(grid_resolution=grid_resolution, margin=margin, ax=ax)

    def plot(
        self, *, grid_resolution: int = 200, margin: float = 0.1, ax: Axes | None = None
    ) -> DecisionRegionDisplay:
        """Draw the plane, the boundaries and the points.

        Parameters
        ----------
        grid_resolution : int, default=200
            Number of points of the grid along each axis.
        margin : float, default=0.1
            Room around the points, as a fraction of their range; at least 0.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        DecisionRegionDisplay
            The display, with ``ax_`` and ``figure_``.

        Raises
        ------
        ValueError
            If `margin` is negative.
        """
        if not margin >= 0:
            raise ValueError(f"margin={margin!r}; expected a number of at least 0.")
        ax = axes_or_new(ax)
        low, high = self.X.min(axis=0), self.X.max(axis=0)
        room = margin * np.where(high > low, high - low, 1) + np.where(high > low, 0, 1)
        low, high = low - room, high + room
        colors = self._fill(ax, np.array([low, high]), grid_resolution)
        segments = _within(self.boundaries.weights, self.boundaries.bias, low, high)
        faint = np.clip(40 / max(len(segments), 1), 0.06, 0.6)  # hundreds would hide the rest
        self.lines_ = ax.plot(
            *segments.T, color="0.2", alpha=faint, linewidth=0.8, linestyle=(0, (4, 3))
        )
        self._scatter(ax, colors)
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        ax.set(xlabel=self.names[0], ylabel=self.names[1])
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _fill(self, ax: Axes, corners: NDArray[np.floating], grid_resolution: int) -> Any:
        """Fill the plane, and return the colours of the classes (None for regression)."""
        n_classes = 0 if self.classes is None else len(self.classes)
        options: dict[str, Any] = {"response_method": "predict_proba", "alpha": _FILL_ALPHA}
        colors: Any = None
        if n_classes == 0:
            options |= {"response_method": "predict", "cmap": "viridis"}
        elif n_classes == 2:
            colors = [colormaps["RdBu"](part) for part in (0.1, 0.9)]
            options |= {"cmap": "RdBu", "vmin": 0, "vmax": 1}
        else:
            name, part = ("tab10", 0.1) if n_classes <= 10 else ("gist_rainbow", 1 / n_classes)
            colors = colormaps[name](part * (np.arange(n_classes) + 0.5))
            if "multiclass_colors" in signature(DecisionBoundaryDisplay.from_estimator).parameters:
                options["multiclass_colors"] = [tuple(color) for color in colors]
            else:  # scikit-learn 1.6 draws classes, not their probabilities
                options |= {"response_method": "predict", "cmap": ListedColormap(colors)}
                options |= {"vmin": -0.5, "vmax": n_classes - 0.5}
        self.fill_ = DecisionBoundaryDisplay.from_estimator(
            self.estimator,
            corners if self._like is None else self._like(corners, columns=self.names),
            grid_resolution=grid_resolution,
            eps=0,
            plot_method="pcolormesh",
            ax=ax,
            **options,
        )
        fill = self.fill_
        if n_classes == 2 and fill.response.min() < 0.5 < fill.response.max():
            ax.contour(fill.xx0, fill.xx1, fill.response, levels=[0.5], colors="0.1", linewidths=2)
        return colors

    def _scatter(self, ax: Axes, colors: Any) -> None:
        style: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.5, "s": 22, "zorder": 3}
        if self.classes is None:
            surface = self.fill_.surface_
            values = np.concatenate([self.y, self.fill_.response.ravel()])
            surface.set_clim(values.min(), values.max())
            points = ax.scatter(
                self.X[:, 0], self.X[:, 1], c=self.y, cmap=surface.cmap, norm=surface.norm, **style
            )
            self.points_ = [points]
            ax.figure.colorbar(points, ax=ax, label="target (points), prediction (plane)")
            return
        self.points_ = [
            ax.scatter(*self.X[self.y == name].T, color=color, label=str(name), **style)
            for name, color in zip(self.classes, colors, strict=True)
        ]
        ax.legend(loc="upper right")  # finding the best place is slow with many lines


def _within(
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    low: NDArray[np.floating],
    high: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Return the ends of the lines ``weights @ x + bias = 0`` in a box, shape (n_lines, 2, 2)."""
    # In coordinates in which the box is the unit square, the units of the features do not matter.
    span = high - low
    normal, offset = weights * span, bias + weights @ low
    ends = []
    for (a, b), c in zip(normal, offset, strict=True):
        # Where the line meets the four sides.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            t = np.array([-c / b, -(a + c) / b, -c / a, -(b + c) / a])
        points = np.array([[0, t[0]], [1, t[1]], [t[2], 0], [t[3], 1]])
        inside = points[(t >= 0) & (t <= 1)]
        if len(inside):
            # Through a corner, a line meets two sides in one point.
            first, last = inside[np.lexsort(inside.T)[[0, -1]]]
            ends.append(low + span * np.array([first, last]))
    return np.array(ends).reshape(-1, 2, 2)
