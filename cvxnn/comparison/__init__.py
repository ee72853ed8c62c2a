"""Preference methods on the same pairs: accuracy, reward margins, cost, and a report."""

from cvxnn._public_names import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
