"""What an iteration of the ridge solver carries."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import LinAlgError

from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import Floats, shifted_inverse
from cvxnn.convex.solvers.ridge.kernel import Kernel


class RidgeState(NamedTuple):
    """Dual unknowns of all outputs, and the vectors of conjugate gradient."""

    kernel: Kernel
    alpha: Any
    precondition: Any
    u: Floats
    image: Floats
    direction: Floats
    inner: Floats
    best: Floats
    """Unknowns of the point of least gap."""
    least_gap: float
    objective: float
    bound: float
    blocks: Any = None
    """Weights of ``u``, where they are known."""
    n_products: int = 0
    """Products of conjugate gradient with the kernel so far."""

    @property
    def data(self) -> RidgeData:
        """The weighted data of the program."""
        return self.kernel.data


def with_factor(state: RidgeState) -> RidgeState:
    """Precondition by the kernel itself, and start again from the point that is reached.

    A strength that rounding hides is raised, for the preconditioner alone.
    """
    kernel, alpha = state.kernel, state.alpha
    least = state.data.rounding(alpha, kernel.matrix.dtype)
    value = float(np.max(np.maximum(alpha, least)))
    try:
        solve = shifted_inverse(kernel.matrix, value)
    except LinAlgError:  # rounding is larger than it is expected to be
        return state
    return state._replace(precondition=solve, direction=np.zeros_like(state.direction))
