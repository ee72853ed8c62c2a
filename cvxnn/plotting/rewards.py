"""Rewards of a preference head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from cvxnn.plotting._shared import axes


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
        ax = axes(ax)
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
            text = f"{100 * right:.0f} % ranked right"
            ax.hist(values, bins=40, alpha=0.6, label=f"{label}: {text}" if label else text)
            ax.axvline(0, color="0.3", linewidth=1)
            ax.set_xlabel("reward of chosen minus rejected")
            ax.set_ylabel("pairs")
        if ax.get_legend_handles_labels()[1]:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
