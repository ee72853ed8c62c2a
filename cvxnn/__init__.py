"""Two-layer ReLU networks and preference heads, trained by convex optimisation.

Importing this package starts no device and changes no JAX setting; names load when first used.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
