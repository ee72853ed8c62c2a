"""Convex programs of two-layer networks: their parts, their solvers, their certificates.

Everything that a researcher needs is exported here: ``from cvxnn.convex import ConvexProgram,
Cronos, solve``. Names load when first used.
"""

from cvxnn._public_names import attach
from cvxnn.numerics.jax_import import prepare_for_jax

__getattr__, __dir__, __all__ = attach(__name__, __file__)
prepare_for_jax()
