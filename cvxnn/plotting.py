"""Displays in the style of scikit-learn; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from cvxnn._extras import require


class ConvergenceDisplay:
    """Objective of the best network and the certified lower bound, over time or iterations.

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
        cls, estimator: Any, *, x: str = "time", ax: Any = None
    ) -> ConvergenceDisplay:
        """Draw the history of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator of cvxnn
        x : {"time", "iteration"}, default="time"
        ax : matplotlib Axes, optional
        """
        check_is_fitted(estimator)
        return cls(estimator.history_).plot(x=x, ax=ax)

    def plot(self, *, x: str = "time", ax: Any = None) -> ConvergenceDisplay:
        """Draw; parameters as in :meth:`from_estimator`."""
        if x not in ("time", "iteration"):
            raise ValueError(f"x={x!r}; expected 'time' or 'iteration'.")
        ax = _axes(ax)
        h = {name: np.asarray(column) for name, column in self.history.items()}
        ax.plot(h[x], h["objective"], color="C0", label="network objective")
        finite = np.isfinite(h["dual_bound"])
        ax.plot(h[x][finite], h["dual_bound"][finite], color="C1", label="certified lower bound")
        ax.fill_between(
            h[x][finite],
            h["dual_bound"][finite],
            h["objective"][finite],
            color="C0",
            alpha=0.15,
            linewidth=0,
        )
        ax.set_xlabel("time (s)" if x == "time" else "iteration")
        ax.set_ylabel("objective")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


class RewardMarginDisplay:
    """Reward margins: their course in phase II, or their distribution over pairs.

    Parameters
    ----------
    margins : array-like, shape (n_pairs,), optional
        Distribution to draw.
    history : mapping of str to array-like, optional
        Course to draw: ``iteration`` and ``rewards/margins``.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        After ``plot``.
    """

    def __init__(
        self,
        margins: ArrayLike | None = None,
        history: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        if (margins is None) == (history is None):
            raise ValueError("give either margins or history.")
        self.margins = None if margins is None else np.asarray(margins, float)
        if self.margins is not None and (self.margins.ndim != 1 or self.margins.size == 0):
            raise ValueError(
                f"margins has shape {self.margins.shape}; expected (n_pairs,) with at least 1 pair."
            )
        self.history = history

    @classmethod
    def from_estimator(cls, head: Any, *, ax: Any = None) -> RewardMarginDisplay:
        """Draw the course of the mean training margin over the iterations of phase II.

        Parameters
        ----------
        head : fitted COALAPreferenceHead
        ax : matplotlib Axes, optional
        """
        if not hasattr(type(head), "reward_margin"):
            raise TypeError(
                f"{type(head).__name__} has no rewards; expected a COALAPreferenceHead."
            )
        check_is_fitted(head)
        return cls(history=head.phase2_history_).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls, margins: ArrayLike, *, ax: Any = None, label: str | None = None
    ) -> RewardMarginDisplay:
        """Draw the distribution of ``head.reward_margin(chosen, rejected)``.

        Parameters
        ----------
        margins : array-like, shape (n_pairs,)
        ax : matplotlib Axes, optional
        label : str, optional
            Legend entry.
        """
        return cls(margins=margins).plot(ax=ax, label=label)

    def plot(self, *, ax: Any = None, label: str | None = None) -> RewardMarginDisplay:
        """Draw; parameters as in the class methods."""
        ax = _axes(ax)
        if self.history is not None:
            margins = self.history["rewards/margins"]
            ax.plot(self.history["iteration"], margins, color="C2", label=label)
            ax.set_xlabel("iteration of phase II")
            ax.set_ylabel("mean reward margin")
        else:
            values: NDArray[np.floating] = np.asarray(self.margins)
            right = float(np.mean(values > 0))
            text = f"{100 * right:.0f} % ranked right"
            ax.hist(values, bins=40, alpha=0.6, label=f"{label}: {text}" if label else text)
            ax.axvline(0, color="0.3", linewidth=1)
            ax.set_xlabel("reward of chosen minus rejected")
            ax.set_ylabel("pairs")
        if ax.get_legend_handles_labels()[1]:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", extra="plot")
    return pyplot.subplots(layout="constrained")[1]
