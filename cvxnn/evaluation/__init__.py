"""Win rates: how often one system's replies are preferred to another's, and how surely.

A preference is a number in [0, 1]: 1 if the first reply wins, 0 if the second does, 0.5 for a tie,
and anything between for a judge that gives a probability.
"""

from cvxnn.evaluation.length_control import (
    LengthControlledWinRate,
    length_controlled_win_rate,
    length_controlled_win_rates,
)
from cvxnn.evaluation.win_rates import (
    Judgement,
    PairwiseWinRates,
    WinRate,
    pairwise_win_rates,
    win_rate,
    win_rates,
)

__all__ = [
    "Judgement",
    "LengthControlledWinRate",
    "PairwiseWinRates",
    "WinRate",
    "length_controlled_win_rate",
    "length_controlled_win_rates",
    "pairwise_win_rates",
    "win_rate",
    "win_rates",
]
