"""Protocols of objectives that are no convex program, for the solvers of smooth functions.

``AcceleratedGradient`` takes a :class:`SmoothObjective`, ``TrustRegionNewton`` a
:class:`BallObjective`. The other protocols are optional parts, which a solver uses if they are
there. All are checked by ``isinstance``: an objective needs the methods, not a base class.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from cvxnn.numerics.arrays import Array


@runtime_checkable
class SmoothObjective(Protocol):
    """A smooth convex function of a vector, for ``AcceleratedGradient``.

    Register its class as a pytree, with its arrays as leaves, so that it can be compiled.

    Notes
    -----
    The methods take

    theta : Array, shape (n_features,)
        Point.
    """

    def value(self, theta: Array) -> Array:
        """Return the objective, a scalar."""

    def gradient(self, theta: Array) -> Array:
        """Return the gradient, of the shape of ``theta``."""

    def smoothness(self) -> Array:
        """Return an upper bound of the Lipschitz constant of the gradient."""

    def strong_convexity(self) -> Array:
        """Return a lower bound of the modulus of strong convexity; 0 if there is none."""

    def report(self, theta: Array) -> dict[str, Array]:
        """Return further columns of the history; may be empty."""


@runtime_checkable
class WithCurvature(Protocol):
    """Optional part: a matrix above all Hessians, by which steps are measured."""

    def curvature(self) -> Array:
        """Return a positive semi-definite matrix that exceeds every Hessian."""


@runtime_checkable
class WithProjection(Protocol):
    """Optional part: a convex set over which the function is minimised."""

    def project(self, theta: Array) -> Array:
        """Return the nearest point of the set.

        Parameters
        ----------
        theta : Array, shape (n_features,)
            Point.
        """


@runtime_checkable
class WithLowerBound(Protocol):
    """Optional part: the objective's own certificate."""

    def lower_bound(self, theta: Array, value: Array, gradient: Array) -> Array:
        """Return a lower bound on the optimum, from the value and the gradient at ``theta``.

        Parameters
        ----------
        theta : Array, shape (n_features,)
            Point.
        value : Array
            Objective there.
        gradient : Array, shape (n_features,)
            Gradient there.
        """


@runtime_checkable
class WithRows(Protocol):
    """Optional part: data with rows, which the devices of a mesh may share."""

    def by_rows(self) -> dict[str, Array]:
        """Return the fields that are divided among the devices along their first axes.

        Rows of zeros that are added to each, to equal numbers on all devices, must not change the
        objective. The objective is rebuilt with them by ``dataclasses.replace``.
        """


@runtime_checkable
class BallObjective(WithProjection, WithLowerBound, Protocol):
    """A convex function with its Hessian, and the ball over which it is minimised."""

    @property
    def radius(self) -> Any:
        """Radius of the ball around zero, perhaps infinite."""

    def value_and_gradient(self, theta: Array) -> tuple[Any, Array]:
        """Return the objective and its gradient.

        Parameters
        ----------
        theta : Array, shape (n_features,)
            Point.
        """

    def hessian(self, theta: Array) -> Array:
        """Return the Hessian, a positive semi-definite matrix.

        Parameters
        ----------
        theta : Array, shape (n_features,)
            Point.
        """
