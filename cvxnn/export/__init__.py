"""Fitted networks in other frameworks: as ONNX graph, torch module, JAX function or Dense modules.

A network consists of two matrix products, so the copies are exact up to rounding. Where a row lies
within rounding of a gate, a gated network may open that gate in one library and not in another.
ReLU networks are continuous and have no such rows.
"""

from cvxnn._public_names import attach
from cvxnn.numerics.jax_import import prepare_for_jax

__getattr__, __dir__, __all__ = attach(__name__, __file__)
prepare_for_jax()
