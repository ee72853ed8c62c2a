"""Displays of networks, solutions and trade-offs in the style of scikit-learn.

They need the extra ``plot``. Each display has a class method such as ``from_estimator``, which
draws at once, and a method ``plot``, which draws again; both take ``ax`` and set ``ax_`` and
``figure_``.
"""

from cvxnn._extras import check_packages
from cvxnn._public_names import attach

check_packages("matplotlib", extra="plot")

__getattr__, __dir__, __all__ = attach(__name__, __file__)
