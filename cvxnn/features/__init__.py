"""Embeddings on disk: how they are written, read and verified. Nothing here needs torch."""

from cvxnn._public_names import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
