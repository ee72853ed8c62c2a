"""HTML pages of comparisons, evaluations and joint training; needs the extra ``plot``."""

from cvxnn._extras import check_packages
from cvxnn._public_names import attach

check_packages("jinja2", "matplotlib", extra="plot")

__getattr__, __dir__, __all__ = attach(__name__, __file__)
