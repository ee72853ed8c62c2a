"""The course of a solve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from cvxnn.plotting._shared import axes, one_of


class ConvergenceDisplay:
    """Objective of the best network and the certified lower bound, or the gap between them.

    Parameters
    ----------
    history : mapping of str to array-like
        ``history_`` of an estimator or ``Result.history``: ``iteration``, ``time``, ``objective``,
        ``dual_bound``.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        After ``plot``.
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
        ax: Any = None,
    ) -> ConvergenceDisplay:
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator of cvxnn
        x : {"time", "iteration"}, default="time"
        kind : {"objective", "gap"}, default="objective"
            ``"objective"``: the objective and the bound. ``"gap"``: their relative duality gap,
            on a logarithmic axis; measurements at which it is not positive, as where the network
            has left its patterns and beats the bound, are marked at the lower edge.
        ax : matplotlib Axes, optional
        """
        check_is_fitted(estimator)
        return cls(estimator.history_).plot(x=x, kind=kind, ax=ax)

    def plot(
        self,
        *,
        x: Literal["time", "iteration"] = "time",
        kind: Literal["objective", "gap"] = "objective",
        ax: Any = None,
    ) -> ConvergenceDisplay:
        """Draw; parameters as in :meth:`from_estimator`."""
        one_of("x", x, ("time", "iteration"))
        one_of("kind", kind, ("objective", "gap"))
        ax = axes(ax)
        at, objective, bound = (
            np.asarray(self.history[name], float) for name in (x, "objective", "dual_bound")
        )
        known = np.isfinite(bound)
        if kind == "objective":
            # A direct solution has one measurement, of which a line shows nothing.
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


def _plot_gap(ax: Any, at: np.ndarray, objective: np.ndarray, bound: np.ndarray) -> None:
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
