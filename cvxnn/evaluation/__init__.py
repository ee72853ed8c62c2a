"""Evaluation of replies: win rates, judges, files of leaderboards, studies with people.

Everything is exported here: ``from cvxnn.evaluation import win_rate, compare_with_judge``. Names
load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
