"""Preference data, objectives of preference learning, and metrics of rewards.

Everything is exported here: ``from cvxnn.preference import PreferenceTriplet, read_preferences``.
Names load when first used.
"""

import lazy_loader

from cvxnn.numerics.jax_import import keep_generator

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = keep_generator(_load)
