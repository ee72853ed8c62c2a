"""Metrics of rewards under the names of TRL, and the part of a preference that is length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._messages import counted


def pair_accuracy(margins: ArrayLike) -> float:
    """Return the share of pairs whose chosen reply has the larger reward; a tie counts half.

    Parameters
    ----------
    margins : array-like, shape (n_pairs,)
        Reward of the chosen reply minus reward of the rejected reply, for at least one pair.

    Returns
    -------
    float
        Accuracy, in [0, 1].

    Raises
    ------
    ValueError
        If there are no margins.
    """
    margins = np.asarray(margins)
    if margins.size == 0:
        raise ValueError("margins is empty; expected at least one pair.")
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def reward_text(metrics: Mapping[str, float]) -> str:
    """Return what the metrics of rewards say, in words.

    Parameters
    ----------
    metrics : mapping of str to float
        As `reward_metrics` returns them.

    Returns
    -------
    str
        Mean rewards of chosen and rejected replies, and their difference.
    """
    won, lost, margin = (metrics[f"rewards/{name}"] for name in ("chosen", "rejected", "margins"))
    return f"mean reward {won:.3f} of chosen and {lost:.3f} of rejected replies, {margin:.3g} apart"


def reward_metrics(chosen: ArrayLike, rejected: ArrayLike) -> dict[str, float]:
    """Return mean rewards, margin and accuracy under the names that the trainers of TRL log.

    Parameters
    ----------
    chosen, rejected : array-like, shape (n_pairs,)
        Rewards of the chosen and of the rejected replies, for at least one pair.

    Returns
    -------
    dict of str to float
        Means of the rewards as ``rewards/chosen`` and ``rewards/rejected``, mean of their
        difference as ``rewards/margins``, pair accuracy as ``rewards/accuracies``.

    Raises
    ------
    ValueError
        If the shapes differ, are not one-dimensional, or there are no pairs.
    """
    won, lost = _paired(chosen, rejected)
    return {
        "rewards/chosen": float(won.mean()),
        "rewards/rejected": float(lost.mean()),
        "rewards/margins": float((won - lost).mean()),
        "rewards/accuracies": pair_accuracy(won - lost),
    }


def length_accuracy(chosen: Sequence[str], rejected: Sequence[str]) -> float:
    """Return the pair accuracy of the rule "the longer reply wins", a baseline for every head.

    Parameters
    ----------
    chosen, rejected : sequence of str, length n_pairs
        The preferred and the other replies, of at least one pair.

    Returns
    -------
    float
        Accuracy, in [0, 1]; pairs of equal length count half.

    Raises
    ------
    ValueError
        If the numbers of replies differ, or there are no pairs.
    """
    return pair_accuracy(_length_difference(chosen, rejected))


@dataclass(frozen=True)
class LengthBias:
    """Part of a preference that length explains; ``print`` describes it in words.

    The fields from ``head_accuracy`` on describe a head. They are NaN if no margins were given, an
    accuracy also if there are no such pairs, the correlation also if one of the two is constant.

    Parameters
    ----------
    pairs : int
        Number of pairs.
    longer, shorter : int
        Numbers of pairs whose chosen reply is the longer and the shorter one.
    accuracy, standard_error : float
        Pair accuracy of the rule "the longer reply wins", and its standard error.
    chosen_length, rejected_length : float
        Mean lengths of the replies, in characters.
    head_accuracy, head_standard_error : float
        Pair accuracy of the head, and its standard error.
    correlation : float
        Pearson's correlation between the margin of the head and the difference in length (chosen
        minus rejected), in [-1, 1].
    longer_accuracy, longer_standard_error : float
        Pair accuracy of the head on pairs whose chosen reply is the longer one.
    shorter_accuracy, shorter_standard_error : float
        Pair accuracy of the head on pairs whose chosen reply is the shorter one, where the rule
        "the longer reply wins" fails.
    """

    pairs: int
    longer: int
    shorter: int
    accuracy: float
    standard_error: float
    chosen_length: float
    rejected_length: float
    head_accuracy: float = float("nan")
    head_standard_error: float = float("nan")
    correlation: float = float("nan")
    longer_accuracy: float = float("nan")
    longer_standard_error: float = float("nan")
    shorter_accuracy: float = float("nan")
    shorter_standard_error: float = float("nan")

    def __str__(self) -> str:
        equal = self.pairs - self.longer - self.shorter
        lines = [
            f"{counted(self.pairs, 'pair')}: the chosen reply is longer in {self.longer}, shorter "
            f"in {self.shorter}, equally long in {equal}",
            f"mean length              {self.chosen_length:.0f} characters chosen, "
            f"{self.rejected_length:.0f} rejected",
            f"the longer reply wins    {_with_error(self.accuracy, self.standard_error)}",
        ]
        if not np.isnan(self.head_accuracy):
            head = _with_error(self.head_accuracy, self.head_standard_error)
            longer = _with_error(self.longer_accuracy, self.longer_standard_error)
            shorter = _with_error(self.shorter_accuracy, self.shorter_standard_error)
            known = not np.isnan(self.correlation)
            related = f"{self.correlation:.2f}" if known else "not known"
            lines += [
                f"the head                 {head}",
                f"  chosen reply longer    {longer}",
                f"  chosen reply shorter   {shorter}",
                f"  margin and length      correlation {related}",
            ]
        return "\n".join(lines)


def length_bias(
    chosen: Sequence[str], rejected: Sequence[str], margins: ArrayLike | None = None
) -> LengthBias:
    """Measure how much of a preference, and of the rewards of a head, length explains.

    Parameters
    ----------
    chosen, rejected : sequence of str, length n_pairs
        The preferred and the other replies, of at least one pair.
    margins : array-like, shape (n_pairs,), optional
        Reward of the chosen reply minus reward of the rejected reply, as a head gives them.

    Returns
    -------
    LengthBias
        Accuracies with standard errors, mean lengths and a correlation.

    Raises
    ------
    ValueError
        If there are no pairs, the sizes differ, or a margin is not finite.

    Examples
    --------
    >>> report = length_bias(["long reply", "no"], ["short", "yes"], margins=[2.0, -1.0])
    >>> report.accuracy, report.longer_accuracy, report.shorter_accuracy, report.correlation
    (0.5, 1.0, 0.0, 1.0)
    """
    difference = _length_difference(chosen, rejected)
    if not difference.size:
        raise ValueError("chosen and rejected are empty; expected at least one pair.")
    accuracy, error = _accuracy(difference)
    head: dict[str, float] = {}
    if margins is not None:
        margins = np.asarray(margins, float)
        if margins.shape != difference.shape:
            raise ValueError(
                f"margins has shape {margins.shape}; expected one margin for each of the "
                f"{difference.size} pairs."
            )
        if not np.isfinite(margins).all():
            raise ValueError("margins has a value that is not finite; expected finite rewards.")
        parts = {
            "head": np.full(difference.shape, True),
            "longer": difference > 0,
            "shorter": difference < 0,
        }
        for name, part in parts.items():
            head[f"{name}_accuracy"], head[f"{name}_standard_error"] = _accuracy(margins[part])
        if np.ptp(margins) > 0 and np.ptp(difference) > 0:
            head["correlation"] = float(np.corrcoef(margins, difference)[0, 1])
    return LengthBias(
        pairs=difference.size,
        longer=int(np.sum(difference > 0)),
        shorter=int(np.sum(difference < 0)),
        accuracy=accuracy,
        standard_error=error,
        chosen_length=float(np.mean([len(text) for text in chosen])),
        rejected_length=float(np.mean([len(text) for text in rejected])),
        **head,
    )


def _length_difference(chosen: Sequence[str], rejected: Sequence[str]) -> NDArray[np.floating]:
    pairs = zip(chosen, rejected, strict=True)
    return np.array([len(won) - len(lost) for won, lost in pairs], float)


def _with_error(accuracy: float, error: float) -> str:
    """Return the text of an accuracy; where all pairs count alike, their spread shows no error."""
    if np.isnan(accuracy):
        return "no such pairs"
    return f"{accuracy:.3f}" + (f" +- {error:.3f}" if error > 0 else ", error not known")


def _accuracy(margins: NDArray[np.floating]) -> tuple[float, float]:
    """Return the pair accuracy and its standard error; both are NaN without pairs."""
    if not margins.size:
        return float("nan"), float("nan")
    points = (margins > 0) + 0.5 * (margins == 0)
    return float(points.mean()), float(points.std() / np.sqrt(margins.size))


def _paired(chosen: Any, rejected: Any) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    won, lost = np.asarray(chosen, float), np.asarray(rejected, float)
    if won.shape != lost.shape or won.ndim != 1:
        raise ValueError(
            f"chosen has shape {won.shape} and rejected {lost.shape}; expected one reward for "
            "each response of the same pairs."
        )
    if won.size == 0:
        raise ValueError("chosen and rejected are empty; expected at least one pair.")
    return won, lost
