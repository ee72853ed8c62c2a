"""Judges: compare a system's replies with a baseline's, blind to their order.

A judge is any callable ``judge(prompt, first, second) -> preference``: 1 if the first reply is
better, 0 if the second is, 0.5 for a tie, or a probability. One that has a method ``batch(prompts,
firsts, seconds) -> preferences`` gets several questions at once.
"""

from cvxnn.evaluation.judges._comparison import (
    BatchJudge,
    Comparison,
    Judge,
    PositionBias,
    compare_with_judge,
)
from cvxnn.evaluation.judges._reward_model import RewardModelJudge, text_judge
from cvxnn.evaluation.judges._text import as_text

__all__ = [
    "BatchJudge",
    "Comparison",
    "Judge",
    "PositionBias",
    "RewardModelJudge",
    "as_text",
    "compare_with_judge",
    "text_judge",
]
