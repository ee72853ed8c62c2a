"""One HTML page of a comparison; needs the extra ``plot``."""

import lazy_loader

from cvxnn._extras import check_packages

check_packages("jinja2", "matplotlib", extra="plot")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
