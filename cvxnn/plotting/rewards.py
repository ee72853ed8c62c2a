"""Display of the rewards of a preference head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from cvxnn.plotting._arguments import NamesConstructors, axes_or_new


class RewardMarginDisplay(metaclass=NamesConstructors):
    """Display of reward margins: their progress in training, or their distribution over pairs.

    Parameters
    ----------
    margins : array-like, shape (n_pairs,), optional
        Rewards of chosen replies minus those of rejected ones, to draw their distribution.
    history : mapping of str to array-like, optional
        Progress to draw: ``iteration`` (of phase II of COALA) or ``step`` (of another training),
        with ``rewards/margins`` (of training pairs), ``eval_rewards/margins`` (of held-out pairs)
        or both. Margins that are NaN are left out. Give either `margins` or `history`.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes of the last drawing. Set by ``plot``.
    figure_ : matplotlib.figure.Figure
        Figure of these axes. Set by ``plot``.
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
    def from_estimator(cls, head: Any, *, ax: Axes | None = None) -> RewardMarginDisplay:
        """Draw the mean margin of the training pairs over the iterations of phase II.

        Parameters
        ----------
        head : fitted COALAPreferenceHead
            Head that has ``phase2_history_``.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.

        Returns
        -------
        RewardMarginDisplay
            The display, with ``ax_`` and ``figure_``.

        Raises
        ------
        TypeError
            If `head` gives no rewards.
        """
        if not hasattr(type(head), "reward_margin"):
            raise TypeError(
                f"{type(head).__name__} has no rewards; expected a COALAPreferenceHead."
            )
        check_is_fitted(head)
        return cls(history=head.phase2_history_).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls, margins: ArrayLike, *, ax: Axes | None = None, label: str | None = None
    ) -> RewardMarginDisplay:
        """Draw the distribution of ``head.reward_margin(chosen, rejected)``.

        Parameters
        ----------
        margins : array-like, shape (n_pairs,)
            Reward margins of pairs.
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.
        label : str, optional
            Entry in the legend.

        Returns
        -------
        RewardMarginDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        return cls(margins=margins).plot(ax=ax, label=label)

    def plot(self, *, ax: Axes | None = None, label: str | None = None) -> RewardMarginDisplay:
        """Draw the margins.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Axes to draw on; by default those of a new figure.
        label : str, optional
            Entry in the legend.

        Returns
        -------
        RewardMarginDisplay
            The display, with ``ax_`` and ``figure_``.
        """
        ax = axes_or_new(ax)
        if self.history is not None:
            x = "iteration" if "iteration" in self.history else "step"
            at = np.asarray(self.history[x], float)
            both = "eval_rewards/margins" in self.history
            for key, name, color in (
                ("rewards/margins", "training pairs", "C0"),
                ("eval_rewards/margins", "held-out pairs", "C1"),
            ):
                margins = np.asarray(self.history.get(key, []), float)
                known = np.isfinite(margins)
                if known.any():
                    style = "o-" if known.sum() == 1 else "-"
                    text = " ".join(part for part in (label, name if both else None) if part)
                    ax.plot(at[known], margins[known], style, color=color, label=text or None)
            ax.set_xlabel("iteration of phase II" if x == "iteration" else "step of training")
            ax.set_ylabel("mean reward margin")
        else:
            values: NDArray[np.floating] = np.asarray(self.margins)
            right = float(np.mean(values > 0))
            text = f"{100 * right:.0f} % ranked correctly"
            ax.hist(values, bins=40, alpha=0.6, label=f"{label}: {text}" if label else text)
            ax.axvline(0, color="0.3", linewidth=1)
            ax.set_xlabel("reward of chosen minus rejected")
            ax.set_ylabel("pairs")
        if ax.get_legend_handles_labels()[1]:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
