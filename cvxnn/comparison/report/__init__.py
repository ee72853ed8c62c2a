"""One HTML page of a comparison; needs the extra ``plot``."""

import lazy_loader

from cvxnn._extras import require

for package in ("jinja2", "matplotlib"):
    require(package, extra="plot")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
