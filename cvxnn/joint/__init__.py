"""Joint supervised and preference post-training of a softmax policy.

Everything is exported here: ``from cvxnn.joint import JointProblem, pareto_front, post_train``.
Names load when first used.
"""

from cvxnn._public_names import attach
from cvxnn.numerics.jax_import import prepare_for_jax

__getattr__, __dir__, __all__ = attach(__name__, __file__)
prepare_for_jax()
