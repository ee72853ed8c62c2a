"""Numbers that conjugates without a formula ask for: the best scale, the least strength."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cvxnn._arrays import Array, namespace
from cvxnn.convex.penalties import Penalty, WithConjugate, WithDualNorm

# Thirds taken off the interval of the scale: (2/3)**40 is 1e-7, and the bound is flat at the top.
_N_THIRDS = 40
# Range of strengths around the largest slope, as powers of two, and its bisections.
_OCTAVES = 30.0
_N_HALVES = 60


def best_value(value: Callable[[Array], Array], first: Array) -> Array:
    """Return the maximum over scales ``t >= 0`` of concave functions, one for each output.

    Parameters
    ----------
    value : callable
        Function from scales, shape (n_outputs,), to values of that shape; minus infinity outside
        of its domain, which holds zero.
    first : Array, shape (n_outputs,)
        A good guess. It, 0 and 1 are tried too, so that the dual point of the optimum is exact.
    """
    xp = namespace(first)
    first = xp.where(xp.isfinite(first), xp.maximum(first, 0), 1)

    def narrow(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        third = (high - low) / 3
        falling = value(low + third) >= value(high - third)
        return xp.where(falling, low, low + third), xp.where(falling, high - third, high)

    ends = xp.zeros_like(first), 2 * xp.maximum(first, 1)
    if xp is np:
        for _ in range(_N_THIRDS):
            ends = narrow(None, ends)
    else:
        ends = jax.lax.fori_loop(0, _N_THIRDS, narrow, ends)
    scales = (xp.zeros_like(first), xp.ones_like(first), first, (ends[0] + ends[1]) / 2)
    return xp.stack([value(scale) for scale in scales]).max(axis=0)


def removes(penalty: Penalty, shape: tuple[int, ...]) -> bool:
    """Return whether small slopes leave weights of a shape at zero, as under a norm."""
    if not isinstance(penalty, WithConjugate):
        return True
    return bool((np.asarray(penalty.conjugate(np.full(shape, 2.0**-_OCTAVES))) == 0).all())


def least_alpha(penalty: Penalty, slope: Array) -> Array:
    """Return the least strength at which a slope leaves all weights zero.

    There the slope over the strength is a subgradient at zero: its conjugate is zero. For
    penalties that remove weights.
    """
    if not isinstance(penalty, WithConjugate):
        assert isinstance(penalty, WithDualNorm)
        return penalty.dual_norm(slope).max()
    xp = namespace(slope)
    size = xp.abs(slope).max()
    low, high = xp.full_like(size, -_OCTAVES), xp.full_like(size, _OCTAVES)
    for _ in range(_N_HALVES):
        middle = (low + high) / 2
        scaled = slope / xp.maximum(size * 2.0**middle, xp.finfo(slope.dtype).tiny)
        enough = (penalty.conjugate(scaled) == 0).all()
        low, high = xp.where(enough, low, middle), xp.where(enough, middle, high)
    return size * 2.0**high
