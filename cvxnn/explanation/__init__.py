r"""Explanations of a network: the affine piece on which a row lies, and what each neuron adds.

A two-layer network is affine wherever the same neurons are open, so around almost every row it
*is* a linear model, :math:`f(x) = W x + c`, up to the nearest boundary at which a neuron opens or
closes. Nothing is sampled, fitted or approximated.

Of a fit, :class:`Influence` says what each row did to it, :class:`Removal` what is proven of rows
that it has forgotten, and :class:`Curvature` how exact and how sure its predictions are. Intervals
and radii come with a proof. This package is plain NumPy.
"""

from cvxnn._public_names import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
