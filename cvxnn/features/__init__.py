"""Embeddings on disk: how they are written, read and verified. Nothing here needs torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
