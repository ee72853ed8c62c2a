r"""All activation patterns of data of small rank, by their exact enumeration.

The rows of ``X`` are normals of hyperplanes through the origin of gate space. They cut it into
cells, open cones on which the pattern of a gate is constant. With rank :math:`r` and :math:`n` rows
in general position there are :math:`2 \sum_{k<r} \binom{n-1}{k}` cells (Cover, 1965), and never
more. With all of them, the convex program is the whole non-convex one, not a sample of it.

In the row space every cell is a pointed cone, the hull of its extreme rays, and an extreme ray is
the null direction of :math:`r-1` independent rows. So the rays are found first. The cells around a
ray differ only in the signs of the rows that vanish on it: any signs if those rows are independent,
else the cells of their own arrangement, of rank :math:`r-1`. A sum of the rays of a cell with
positive factors lies in its interior.
"""

from __future__ import annotations

import math
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.numerics.arrays import refuse_sparse

# Rounding in a unit row, with room. A ray computed from rows of smallest singular value s is off by
# about _ROUNDING / s; at the square root of it, a dependence cannot be distinguished from rounding.
_ROUNDING = 100 * float(np.finfo(np.float64).eps)
# Rows that are enough to refuse most data of too many patterns.
_FIRST_ROWS = 64


def enumerate_patterns(
    X: NDArray[np.floating], *, max_patterns: int = 100_000
) -> ActivationPatterns:
    r"""Return all activation patterns of gates through the origin.

    Patterns of gates that lie on a hyperplane, where :math:`x_k^T g = 0` for a row that is not
    zero, are limits of these and are not listed. For gates with an offset, append a column of ones
    first: ``enumerate_patterns(add_bias(X))``.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Finite data of small rank. Rows may be zero, repeated, parallel or otherwise dependent.
    max_patterns : int, default=100_000
        Refuse data whose bound on the number of patterns,
        :math:`2 \sum_{k<r} \binom{n-1}{k}`, is larger. Here :math:`r` is the rank and :math:`n` the
        number of rows that are neither zero nor multiples of another row. Memory grows with
        ``n_samples`` times that bound.

    Returns
    -------
    ActivationPatterns
        Each pattern once, but for the one that is closed on every row, if there is one. The gates
        have norm 1 and are at random places strictly inside their cells: no row that is not zero
        is orthogonal.

    Raises
    ------
    TypeError
        If ``X`` is sparse.
    ValueError
        If ``X`` has no rows or is not finite; if there may be more than ``max_patterns`` patterns
        (draw some with ``cvxnn.convex.sample_patterns``); or if rows are so nearly dependent that
        the
        patterns cannot be distinguished in the precision of ``X``.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.convex import enumeration
    >>> X = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> enumeration.enumerate_patterns(X).mask.shape
    (3, 5)
    """
    refuse_sparse(X, "enumerate_patterns", "sample_patterns(X, n_patterns), which takes it")
    if X.ndim != 2 or len(X) == 0 or not np.isfinite(X).all():
        raise ValueError(f"X has shape {X.shape}; expected a finite matrix with at least one row.")
    for part in (X[:_FIRST_ROWS], X):  # The first may have too many, which is seen at once.
        rows, basis = _directions(part)
        n, rank = len(rows), len(basis)
        bound = 2 * sum(comb(n - 1, k) for k in range(rank)) if n else 1
        if bound > max_patterns:
            count = f"{bound}" if bound < 1e12 else f"about 1e{math.log10(bound):.0f}"
            raise ValueError(
                f"X has rank {rank} and {n} rows of different directions"
                f"{'' if len(part) == len(X) else f' in its first {len(part)} alone'}, so up to "
                f"{count} patterns, more than max_patterns={max_patterns} (n_patterns of "
                "estimators and train). Raise it, or use some of the patterns: "
                "patterns='local', or those of cvxnn.convex.sample_patterns."
            )
    if n == 0:  # Only zero rows: every gate is open on all of them.
        return ActivationPatterns.from_gates(X, np.zeros((1, X.shape[1]), X.dtype))
    signs, points = _cells(rows @ basis.T)
    gates = points @ basis
    gates = (gates / np.linalg.norm(gates, axis=1, keepdims=True)).astype(X.dtype)
    # Beyond the rounding of a product in the precision of X, so that no sign is left to chance.
    scores = gates.astype(np.float64) @ rows.T
    margin = X.shape[1] * float(np.finfo(X.dtype).eps) + _ROUNDING
    if not ((scores > margin) == signs).all() or (np.abs(scores) <= margin).any():
        raise _too_close()
    return ActivationPatterns.from_gates(X, np.concatenate([gates, -gates[::-1]]))


def _directions(X: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return unit rows of different directions, and an orthonormal basis of the row space.

    Zero rows are left out, and of parallel rows, equal or opposite, all but one. Returns arrays of
    shapes (n_directions, n_features) and (rank, n_features).
    """
    rows = X[X.any(axis=1)].astype(np.float64)
    if len(rows) == 0:
        return rows, rows
    rows /= np.abs(rows).max(axis=1, keepdims=True)  # No square below overflows or vanishes.
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    _, scales, basis = np.linalg.svd(rows, full_matrices=False)
    basis = basis[scales > scales[0] * max(rows.shape) * np.finfo(np.float64).eps]
    # Parallel rows are neighbours once sorted by their product with a fixed generic direction.
    heights = rows @ (np.random.RandomState(0).standard_normal(len(basis)) @ basis)
    rows *= np.where(heights < 0, -1.0, 1.0)[:, None]
    rows = rows[np.argsort(np.abs(heights), kind="stable")]
    steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    return rows[np.concatenate([[True], steps > _ROUNDING])], basis


def _cells(rows: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return signs and interior points of the cells on which the first row is positive.

    The rows, of shape (n, r), are unit vectors of rank r. Returns arrays of shapes (n_cells, n) and
    (n_cells, r).
    """
    rank = rows.shape[1]
    subsets = np.array(list(combinations(range(len(rows)), rank - 1)), np.intp)
    _, scales, frames = np.linalg.svd(rows[subsets])
    smallest = scales.min(axis=1, initial=1.0)
    independent = smallest > _ROUNDING
    if (smallest[independent] < np.sqrt(_ROUNDING)).any():
        raise _too_close()
    # The best conditioned subset first, so that it stands for all that share their ray.
    order = np.argsort(-smallest, kind="stable")[: independent.sum()]
    subsets, smallest, frames = subsets[order], smallest[order], frames[order]
    products = frames[:, -1] @ rows.T
    zero = np.abs(products) <= _ROUNDING / smallest[:, None]
    order, first = _group(zero)
    chosen = order[first]
    subsets, frames = subsets[chosen], frames[chosen]
    products, zero = products[chosen], zero[chosen]

    # Rays on which no other row vanishes: all signs of the subset occur.
    simple = zero.sum(axis=1) == rank - 1
    choices = np.arange(2 ** (rank - 1))[:, None] >> np.arange(rank - 1) & 1
    around = np.repeat(products[simple, None, :] > 0, len(choices), axis=1)
    np.put_along_axis(around, subsets[simple, None, :], choices[None].astype(bool), axis=2)
    blocks = [around.reshape(-1, len(rows))]
    ray_of = [np.repeat(np.flatnonzero(simple), len(choices))]
    # The other rays: the cells of the rows that vanish there, in the space orthogonal to the ray.
    for ray in np.flatnonzero(~simple):
        half, _ = _cells(rows[zero[ray]] @ frames[ray, :-1].T)
        local = np.concatenate([half, ~half])
        block = np.repeat(products[ray, None] > 0, len(local), axis=0)
        block[:, zero[ray]] = local
        blocks.append(block)
        ray_of.append(np.full(len(local), ray))

    signs = np.concatenate(blocks)
    rays = frames[np.concatenate(ray_of), -1]
    # Around the opposite ray lie the opposite cells.
    flip = ~signs[:, 0]
    signs[flip] = ~signs[flip]
    rays[flip] *= -1
    # A random point, not the middle: on that of data of integers, rows of other data may lie.
    rays *= np.random.RandomState(0).uniform(0.5, 1.5, (len(rays), 1))
    order, first = _group(signs)
    return signs[order[first]], np.add.reduceat(rays[order], first, axis=0)


def _group(rows: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Sort rows so that equal ones are together, in their old order; and where each group starts.

    Returns arrays of shapes (n_rows,) and (n_groups,).
    """
    keys = np.packbits(rows, axis=1)
    order = np.lexsort(keys.T)
    keys = keys[order]
    new = (keys[1:] != keys[:-1]).any(axis=1)
    return order, np.flatnonzero(np.concatenate([[True], new]))


def _too_close() -> ValueError:
    return ValueError(
        "rows of X are so nearly dependent that its patterns cannot be told apart in its "
        "precision. Pass X in float64, merge nearly parallel rows or round X, or draw patterns "
        "with cvxnn.convex.sample_patterns."
    )
