"""Display of the progress of a solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from cvxnn.plotting._arguments import NamesConstructors, axes_or_new, check_choice


class ConvergenceDisplay(metaclass=NamesConstructors):
    """Display of the objective and the certified lower bound, or of the gap between them.

    Parameters
    ----------
    history : mapping of str to array-like
        ``history_`` of an estimator or ``Result.history``, with ``iteration``, ``time`` (seconds),
        ``objective`` (of the best network) and ``dual_bound``.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last drawing. Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Figure of these axes. Set by ``plot``.
    """

    def __init__(self, history: Mapping[str, ArrayLike]) -> None:
        self.history = history

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        x: Literal["time", "iteration"] = "time",
        kind: Literal["objective", "gap"] = "objective",
        ax: Axes | None = None,
    ) -> ConvergenceDisplay:
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator of cvxnn
            Estimator that has ``history_``.
        x : {"time", "iteration"}, default="time"
            Horizontal axis: seconds since the beginning, or iterations.
        kind : {"objective", "gap"}, default="objective"
            ``"objective"``: the objective and the bound. ``"gap"``: their relative duality gap on
            a logarithmic axis. Measurements whose gap is not positive are marked at the lower
            edge; there the network has left its patterns and is better than the bound.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        ConvergenceDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        check_is_fitted(estimator)
        return cls(estimator.history_).plot(x=x, kind=kind, ax=ax)

    def plot(
        self,
        *,
        x: Literal["time", "iteration"] = "time",
        kind: Literal["objective", "gap"] = "objective",
        ax: Axes | None = None,
    ) -> ConvergenceDisplay:
        """Draw the history.

        Parameters
        ----------
        x : {"time", "iteration"}, default="time"
            Horizontal axis: seconds since the beginning, or iterations.
        kind : {"objective", "gap"}, default="objective"
            ``"objective"``: the objective and the bound. ``"gap"``: their relative duality gap on
            a logarithmic axis. Measurements whose gap is not positive are marked at the lower
            edge; there the network has left its patterns and is better than the bound.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        ConvergenceDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        check_choice("x", x, ("time", "iteration"))
        check_choice("kind", kind, ("objective", "gap"))
        ax = axes_or_new(ax)
        at, objective, bound = (
            np.asarray(self.history[name], float) for name in (x, "objective", "dual_bound")
        )
        known = np.isfinite(bound)
        if kind == "objective":
            # A direct solution has one measurement, which a line alone would not show.
            style = "o-" if at.size == 1 else "-"
            ax.plot(at, objective, style, color="C0", label="network objective")
            ax.plot(at[known], bound[known], style, color="C1", label="certified lower bound")
            ax.fill_between(
                at[known], bound[known], objective[known], color="C0", alpha=0.15, linewidth=0
            )
        else:
            _plot_gap(ax, at[known], objective[known], bound[known])
        ax.set_xlabel("time (s)" if x == "time" else "iteration")
        ax.set_ylabel("objective" if kind == "objective" else "relative duality gap")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _plot_gap(ax: Axes, at: np.ndarray, objective: np.ndarray, bound: np.ndarray) -> None:
    scale = np.maximum(np.abs(objective), np.finfo(float).tiny)
    gap = (objective - bound) / scale
    positive = gap > 0
    ax.set_yscale("log")
    ax.plot(at, np.where(positive, gap, np.nan), ".-", color="C0", label="relative duality gap")
    if not positive.all():
        ax.plot(
            at[~positive],
            np.full(np.sum(~positive), 0.02),
            "v",
            color="C2",
            transform=ax.get_xaxis_transform(),
            label="at or below the bound",
        )
