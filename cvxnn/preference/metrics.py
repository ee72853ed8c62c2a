"""Metrics of rewards, under TRL's names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pair_accuracy(margins: ArrayLike) -> float:
    """Share of pairs whose chosen response has the larger reward; a tie counts half.

    Parameters
    ----------
    margins : array-like, shape (n_pairs,)
        Reward of the chosen minus reward of the rejected response.
    """
    margins = np.asarray(margins)
    if margins.size == 0:
        raise ValueError("margins is empty; expected at least one pair.")
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def reward_metrics(chosen: ArrayLike, rejected: ArrayLike) -> dict[str, float]:
    """Mean rewards, margin and accuracy, named as TRL's trainers log them.

    Parameters
    ----------
    chosen, rejected : array-like, shape (n_pairs,)
        Rewards.

    Returns
    -------
    dict
        ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins``, ``rewards/accuracies``.
    """
    won, lost = _paired(chosen, rejected)
    return {
        "rewards/chosen": float(won.mean()),
        "rewards/rejected": float(lost.mean()),
        "rewards/margins": float((won - lost).mean()),
        "rewards/accuracies": pair_accuracy(won - lost),
    }


def length_accuracy(chosen: list[str], rejected: list[str]) -> float:
    """Pair accuracy of the rule "the longer reply wins": what any head must beat."""
    return pair_accuracy([len(w) - len(r) for w, r in zip(chosen, rejected, strict=True)])


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
