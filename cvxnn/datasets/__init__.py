"""Small data sets that come with the package, and pairs made of labelled texts.

Everything is exported here: ``from cvxnn.datasets import load_tutoring``. Names load when first
used.
"""

from cvxnn._public_names import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
