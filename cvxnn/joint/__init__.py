"""Joint supervised and preference post-training of a softmax policy.

Everything is exported here: ``from cvxnn.joint import JointProblem, pareto_front, post_train``.
Names load when first used.
"""

from cvxnn._public_names import attach
from cvxnn.numerics.jax_import import keep_generator

_load, __dir__, __all__ = attach(__name__, __file__)
__getattr__ = keep_generator(_load)
