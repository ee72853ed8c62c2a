"""Which programs are one linear system, and what its unknowns prove."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.penalties import SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.arrays import Array, namespace


def takes(program: ConvexProgram) -> bool:
    """Return True if a program has a closed form."""
    return (
        program.formulation == "gated"
        and type(program.loss) is SquaredLoss
        and type(program.penalty) is SquaredL2
        and (program.skip is None or float(program.skip) > 0)
    )


def check_closed_form(program: Any) -> None:
    """Refuse what has no closed form.

    Raises
    ------
    TypeError
        For another problem; the message names solvers that take it.
    ValueError
        For a strength that is not positive.
    """
    if not isinstance(program, ConvexProgram):
        raise TypeError(
            f"Ridge solves a ConvexProgram, not a {type(program).__name__}; "
            "for a smooth objective use AcceleratedGradient."
        )
    if not takes(program):
        raise TypeError(
            "Ridge needs the gated formulation, SquaredLoss, SquaredL2 and, if there is a linear "
            "part, a positive ridge on it; use InteriorPoint, or ProximalGradient for "
            "the gated formulation and Cronos for the ReLU formulation."
        )
    if not np.all(np.asarray(program.alpha) > 0):
        raise ValueError(
            f"alpha={np.asarray(program.alpha).tolist()!r}; Ridge needs a positive one, which "
            "may be tiny."
        )


def certify(
    targets: Array, u: Array, image: Array, alpha: Any, norms: Array | None = None
) -> tuple[Any, Any]:
    """Return objective and bound of dual unknowns; squared norms of their weights may be known."""
    # Weights A^T u have the squared norm u^T K u, and predictions K u in weighted units.
    norms = dots(u, image) if norms is None else norms
    objective = ((targets - image) ** 2).sum() / 2 + (alpha * norms).sum() / 2
    # The dual residual is alpha u / root, whose slope is alpha times the weights.
    linear = alpha * dots(u, targets)
    square = alpha**2 * dots(u, u) + alpha * norms
    scale = linear / namespace(u).where(square > 0, square, 1)
    return objective, (scale * linear - scale**2 * square / 2).sum()


def dots(a: Array, b: Array) -> Array:
    """Return the inner product of each output's columns."""
    return namespace(a).einsum("nc,nc->c", a, b)
