"""Comparison of methods that learn a reward from the same preference pairs, and its report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
