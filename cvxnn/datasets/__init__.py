"""Small data sets that come with the package, and pairs made of labelled texts.

Everything is exported here: ``from cvxnn.datasets import load_tutoring``. Names load when first
used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
