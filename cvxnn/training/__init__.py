"""From data to a certified network: propose patterns, choose the strength, solve, refine.

Everything is exported here: ``from cvxnn.training import fit_direct, fit_iterative, train``. Names
load when first used.
"""

from cvxnn._public_names import attach
from cvxnn.numerics.jax_import import prepare_for_jax

__getattr__, __dir__, __all__ = attach(__name__, __file__)
prepare_for_jax()
