"""Fitted estimators on the Hugging Face Hub, each with a model card of what was measured."""

from cvxnn._public_names import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
