"""Two-layer ReLU networks and preference heads, trained by convex optimisation.

Importing this package starts no device and changes no JAX setting; names load when first used.
"""

from cvxnn._public_names import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
