"""Predictions over a plane of two features, with the linear pieces they are made of."""

from __future__ import annotations

from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_classifier

from cvxnn._extras import require
from cvxnn.explanation import boundaries
from cvxnn.plotting._shared import axes, labels_of, network_and_input

_FILL_ALPHA = 0.6


class DecisionRegionDisplay:
    """Predictions of a network of two features, the boundaries of its linear pieces, and points.

    Parameters
    ----------
    estimator : fitted estimator of cvxnn
        Of two features and, if it is a regressor, one target.
    X : array-like, shape (n_samples, 2)
        Points to draw.
    y : array-like, shape (n_samples,)
        Their classes or values.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
    fill_ : sklearn.inspection.DecisionBoundaryDisplay
    lines_ : list of matplotlib Line2D
        One for each boundary that crosses the picture.
    points_ : list of matplotlib PathCollection
        One for each class; one for regression. All after ``plot``.
    """

    def __init__(self, estimator: Any, X: ArrayLike, y: ArrayLike) -> None:
        network, rows = network_and_input(estimator, X)
        if rows.shape[1] != 2:
            raise ValueError(
                f"X has {rows.shape[1]} features; a plane has 2: fit on two columns or on two "
                "components of a PCA."
            )
        self.y = labels_of(y, len(rows))
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
        ax: Any = None,
    ) -> DecisionRegionDisplay:
        """Draw a fitted network of two features.

        Two classes: the probability of the second, and the line where it is a half. More classes:
        the most likely one, paler where it is less likely. Regression: the prediction. Dashed: the
        lines at which neurons, or gates, open; between them the network is linear.

        Parameters
        ----------
        estimator : fitted estimator of cvxnn
            Of two features and, if it is a regressor, one target.
        X : array-like, shape (n_samples, 2)
            Points to draw.
        y : array-like, shape (n_samples,)
            Their classes or values.
        grid_resolution : int, default=200
            Points of the grid along each axis.
        margin : float, default=0.1
            Room around the points, as a part of their range; at least 0.
        ax : matplotlib Axes, optional

        Raises
        ------
        ValueError
            If there are not two features and one target, or ``y`` does not fit.
        """
        return cls(estimator, X, y).plot(grid_resolution=grid_resolution, margin=margin, ax=ax)

    def plot(
        self, *, grid_resolution: int = 200, margin: float = 0.1, ax: Any = None
    ) -> DecisionRegionDisplay:
        """Draw; parameters as in :meth:`from_estimator`."""
        if not margin >= 0:
            raise ValueError(f"margin={margin!r}; expected a number of at least 0.")
        ax = axes(ax)
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

    def _fill(self, ax: Any, corners: NDArray[np.floating], grid_resolution: int) -> Any:
        """Fill the plane; the colours of the classes, or the norm and map of a regression."""
        inspection = require("sklearn.inspection", extra="plot").DecisionBoundaryDisplay
        pyplot = require("matplotlib.pyplot", extra="plot")
        n_classes = 0 if self.classes is None else len(self.classes)
        options: dict[str, Any] = {"response_method": "predict_proba", "alpha": _FILL_ALPHA}
        colors: Any = None
        if n_classes == 0:
            options |= {"response_method": "predict", "cmap": "viridis"}
        elif n_classes == 2:
            colors = [pyplot.get_cmap("RdBu")(part) for part in (0.1, 0.9)]
            options |= {"cmap": "RdBu", "vmin": 0, "vmax": 1}
        else:
            name, part = ("tab10", 0.1) if n_classes <= 10 else ("gist_rainbow", 1 / n_classes)
            colors = pyplot.get_cmap(name)(part * (np.arange(n_classes) + 0.5))
            if "multiclass_colors" in signature(inspection.from_estimator).parameters:
                options["multiclass_colors"] = [tuple(color) for color in colors]
            else:  # scikit-learn 1.6 draws classes, not their probabilities
                listed = require("matplotlib.colors", extra="plot").ListedColormap(colors)
                options |= {"response_method": "predict", "cmap": listed}
                options |= {"vmin": -0.5, "vmax": n_classes - 0.5}
        self.fill_ = inspection.from_estimator(
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

    def _scatter(self, ax: Any, colors: Any) -> None:
        style = {"edgecolor": "white", "linewidth": 0.5, "s": 22, "zorder": 3}
        if self.classes is None:
            surface = self.fill_.surface_
            values = np.concatenate([self.y, self.fill_.response.ravel()])
            surface.set_clim(values.min(), values.max())
            points = ax.scatter(*self.X.T, c=self.y, cmap=surface.cmap, norm=surface.norm, **style)
            self.points_ = [points]
            ax.figure.colorbar(points, ax=ax, label="target (points), prediction (plane)")
            return
        self.points_ = [
            ax.scatter(*self.X[self.y == name].T, color=color, label=str(name), **style)
            for name, color in zip(self.classes, colors, strict=True)
        ]
        ax.legend(loc="upper right")  # the best place is slow to find among many lines


def _within(
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    low: NDArray[np.floating],
    high: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Ends (n_crossing, 2, 2) of the parts of lines ``weights @ x + bias = 0`` inside a box."""
    # In coordinates in which the box is the unit square, features of any units are alike.
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
