"""Evaluation of replies: win rates, judges, files of leaderboards, studies with people.

Everything is exported here: ``from cvxnn.evaluation import win_rate, compare_with_judge``. Names
load when first used.
"""

from cvxnn._public_names import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
