"""From data to a certified network: propose patterns, choose the strength, solve, refine.

Everything is exported here: ``from cvxnn.training import fit_direct, fit_iterative, train``. Names
load when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
