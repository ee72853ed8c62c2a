"""The direct solution of a ridge program, through the cheaper of its two matrices."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError

from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import Floats, by_strength, shifted_inverse
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.convex.solvers.ridge.ridge_flops import takes_kernel


def solve_directly(
    data: RidgeData,
    alpha: float | Floats,
    *,
    coarse: bool,
    max_dense: int,
    kernel: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Return the dual unknowns ``u`` and the kernel times ``u``, through the cheaper matrix.

    Each output may have its ``alpha``; those of one value share a factorisation. One that
    rounding hides is raised to ``data.rounding``: errors of the unknowns are divided by it.
    A ``kernel`` that is known takes the place of both matrices, unless it is in float32 and that
    is too coarse.
    """
    least = data.rounding(alpha)
    if not np.isfinite(least).all():  # nothing is known of squares that overflow
        return np.full_like(data.targets, np.nan), np.full_like(data.targets, np.nan)
    single = kernel is not None and kernel.dtype == np.float32
    if kernel is None or (single and not (coarse and _allows_float32(data, alpha))):
        kernel = kernel_to_factor(data, alpha, coarse=coarse, max_dense=max_dense)
    if kernel is not None:
        return _solve_dual(data, alpha, Kernel(data, kernel))
    gram, right = data.gram()

    def shift(a: float) -> Floats:
        """Return the ridge of each weight."""
        raised = max(a, float(data.rounding(a)))
        ridges = np.full(data.n_weights, raised)
        if data.ridge is not None:
            ridges.reshape(data.n_patterns, -1)[-1] = data.ridge * (raised / a)
        return ridges

    single = np.size(np.unique(alpha)) == 1
    flat = by_strength(
        alpha, right, lambda a, part: shifted_inverse(gram, shift(a), overwrite=single)(part)
    )
    blocks = data.blocks(flat)
    # alpha u is what the predictions leave of the targets.
    u = data.root * (data.y - data.forward(blocks)) / np.maximum(alpha, least)
    return u, Kernel(data).product(u, alpha)


def kernel_to_factor(
    data: RidgeData, alpha: float | Floats, *, coarse: bool, max_dense: int
) -> Floats | None:
    """Return the kernel if :func:`solve_directly` factors it, else None."""
    if not np.isfinite(data.rounding(alpha)).all():
        return None
    coarse = coarse and _allows_float32(data, alpha)
    if not takes_kernel(data, coarse=coarse, max_dense=max_dense):
        return None
    return Kernel.stored(data, np.float32 if coarse else np.float64).matrix


def _allows_float32(data: RidgeData, alpha: float | Floats) -> bool:
    """Return whether all strengths are above the rounding of a kernel in float32."""
    return bool(np.all(alpha >= data.rounding(alpha, np.float32)))


def _solve_dual(data: RidgeData, alpha: float | Floats, kernel: Kernel) -> tuple[Floats, Floats]:
    dtype = kernel.matrix.dtype
    linear = None
    if data.ridge is not None:
        linear = Kernel.stored(data.linear, dtype).matrix / dtype.type(data.ridge)

    def solve(value: float, targets: Floats) -> Floats:
        whole = kernel.matrix if linear is None else kernel.matrix + dtype.type(value) * linear
        raised = max(value, float(data.rounding(value)))
        inverse = shifted_inverse(whole, raised, overwrite=linear is not None)
        u = inverse(targets).astype(targets.dtype)
        # The second time takes off what a factor in float32, or of more than alpha, left.
        if dtype == np.float32 or value < raised:
            u += inverse(targets - value * u - kernel.product(u, value))
        return u

    try:
        u = by_strength(alpha, data.targets, solve)
    except LinAlgError:
        if dtype == np.float64:
            raise
        # The penalty is below the rounding of float32.
        return _solve_dual(data, alpha, Kernel.stored(data))
    return u, kernel.product(u, alpha)
