"""Display of the rewards of a preference head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from cvxnn.plotting._arguments import NamesConstructors, axes_or_new


def smoothed(at: ArrayLike, values: ArrayLike, half_life: float) -> NDArray[np.float64]:
    """Return a time-weighted exponential moving average.

    A value that is ``half_life`` older than another has half its weight, whatever lies between
    them; the first average is the first value.

    Parameters
    ----------
    at : array-like, shape (n,)
        Times, or steps, in ascending order.
    values : array-like, shape (n,)
        Values at these times.
    half_life : float
        Age at which a weight has halved, above 0.

    Returns
    -------
    ndarray, shape (n,)
        Averages of the values up to each time.
    """
    times, numbers = np.asarray(at, float), np.asarray(values, float)
    found = numbers.copy()
    weight = 1.0
    for i in range(1, len(numbers)):
        decay = 0.5 ** ((times[i] - times[i - 1]) / half_life)
        found[i] = (decay * weight * found[i - 1] + numbers[i]) / (decay * weight + 1)
        weight = decay * weight + 1
    return found


class RewardMarginDisplay(metaclass=NamesConstructors):
    """Display of reward margins: their progress in training, or their distribution over pairs.

    Parameters
    ----------
    margins : array-like, shape (n_pairs,), optional
        Rewards of chosen replies minus those of rejected ones, to draw their distribution.
    history : mapping of str to array-like, optional
        Progress to draw: ``iteration`` (of phase II of COALA) or ``step`` (of another training),
        with ``rewards/margins`` (of training pairs), ``eval_rewards/margins`` (of held-out pairs)
        or both. Margins that are NaN are left out. Give either `margins` or `history`. With
        ``seconds`` margins are drawn over time.
    half_life : float, optional
        Time, or number of steps, after which a margin has half its weight in an exponential moving
        average, which is drawn over the margins of training pairs; see `smoothed`. By default
        nothing is smoothed.

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
        half_life: float | None = None,
    ) -> None:
        if (margins is None) == (history is None):
            raise ValueError("give either margins or history.")
        self.margins = None if margins is None else np.asarray(margins, float)
        if self.margins is not None and (self.margins.ndim != 1 or self.margins.size == 0):
            raise ValueError(
                f"margins has shape {self.margins.shape}; expected (n_pairs,) with at least 1 pair."
            )
        self.history = history
        self.half_life = half_life

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
            names = ("seconds", "iteration", "step")
            x = next(name for name in names if name in self.history)
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
                    values = margins[known]
                    if self.half_life is not None and key == "rewards/margins":
                        ax.plot(at[known], values, color=color, linewidth=0.6, alpha=0.35)
                        values = smoothed(at[known], values, self.half_life)
                    ax.plot(at[known], values, style, color=color, label=text or None)
            titles = {"seconds": "seconds of training", "iteration": "iteration of phase II"}
            ax.set_xlabel(titles.get(x, "step of training"))
            ax.set_ylabel("mean reward margin")
        else:
            shown: NDArray[np.floating] = np.asarray(self.margins)
            right = float(np.mean(shown > 0))
            text = f"{100 * right:.0f} % ranked correctly"
            ax.hist(shown, bins=40, alpha=0.6, label=f"{label}: {text}" if label else text)
            ax.axvline(0, color="0.3", linewidth=1)
            ax.set_xlabel("reward of chosen minus rejected")
            ax.set_ylabel("pairs")
        if ax.get_legend_handles_labels()[1]:
            ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
