"""Preference data, objectives of preference learning, and metrics of rewards.

Everything is exported here: ``from cvxnn.preference import PreferenceTriplet, read_preferences``.
Names load when first used.
"""

from cvxnn._public_names import attach
from cvxnn.numerics.jax_import import prepare_for_jax

__getattr__, __dir__, __all__ = attach(__name__, __file__)
prepare_for_jax()
