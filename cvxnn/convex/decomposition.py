r"""Cone decomposition: from the gated formulation to the ReLU one.

A gated solution :math:`z_i` becomes feasible for the ReLU formulation once it is written as
:math:`z_i = v_i - w_i` with both parts in the cone of pattern ``i`` (Mishkin et al., 2022). The
predictions stay, the penalty grows. With :math:`p = v + w` both cone constraints read

.. math:: E_i X p \ge |X z_i| ,

so the decomposition of least squares is the shortest ``p`` that satisfies them: a quadratic program
whose matrix is the same for all patterns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.operators import Weights
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.arrays import refuse_sparse

_RELAXATION = 1.6
_BALANCE_EVERY = 10


class Decomposition(NamedTuple):
    """A feasible point of the ReLU formulation, between two bounds.

    Attributes
    ----------
    weights : Weights
        Blocks of shape (n_outputs, 2, n_patterns, n_features), in the cones up to rounding, with
        the predictions of the gated solution.
    upper : float
        Their objective in the ReLU formulation: no less than its optimum.
    lower : float
        Bound from the gated formulation: no more than the optimum of the ReLU formulation with
        these patterns.
    """

    weights: Weights
    upper: float
    lower: float


def cone_decomposition(
    program: ConvexProgram,
    weights: Weights,
    gates: NDArray[np.floating],
    *,
    dual: DualPoint | None = None,
    n_iter: int = 1000,
) -> Decomposition:
    r"""Decompose a gated solution into a feasible ReLU network.

    Parameters
    ----------
    program : ConvexProgram
        The gated formulation, on the host (``on_host``), without a linear part.
    weights : Weights
        Its solution, or any point.
    gates : ndarray, shape (n_patterns, n_features)
        Gate vectors of the patterns, strictly inside their cones on every non-zero row.
    dual : DualPoint, optional
        What proves the gated bound; by default minus the loss gradient at ``weights``.
    n_iter : int, default=1000
        ADMM iterations for the shortest ``p``; each costs ``8 n d P n_outputs`` flops. The point
        is feasible after any number: what they leave open is closed along the gates.

    Returns
    -------
    Decomposition
        A feasible point, its objective and a lower bound.

    Raises
    ------
    TypeError
        For the ReLU formulation, whose weights need no decomposition, a linear part, sparse
        rows, or conjunctions, whose patterns are in general those of no ReLU neuron.
    ValueError
        If a gate is not strictly inside its cone, so that no decomposition may exist.
    """
    program.check()
    refuse_sparse(program.operator.X, "cone_decomposition")
    if program.formulation != "gated" or program.skip is not None:
        raise TypeError(
            "A cone decomposition needs a program of the gated formulation without a linear "
            "part; solve that one, or set skip=None."
        )
    if np.ndim(gates) != 2:
        raise TypeError(
            "A cone decomposition needs one vector for each gate; conjunctions of several have no "
            "cone of ReLU neurons."
        )
    op = program.operator
    X = op.X
    z = weights.blocks[:, 0]
    norms = np.linalg.norm(X, axis=1)
    live = norms > 0
    rows = X[live] / norms[live, None]
    signs = np.where(op.mask[live], 1.0, -1.0).astype(X.dtype)
    inner = signs * (rows @ gates.T.astype(X.dtype))
    active = np.linalg.norm(z, axis=-1).max(axis=0) > 0
    if np.any(inner[:, active] <= 0):
        raise ValueError(
            "A gate lies on the boundary of its cone: a row has x . g = 0. Move the gates off the "
            "rows (sample_patterns never puts them there by chance), or drop those patterns."
        )
    needed = np.abs(np.einsum("nd,cpd->ncp", rows, z, optimize=True))
    p = _shortest(rows, signs, needed, n_iter)
    missing = needed - signs[:, None] * np.einsum("nd,cpd->ncp", rows, p, optimize=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.where(missing > 0, missing / inner[:, None], 0)
    lengths[:, :, ~active] = 0
    # A hair beyond, so that rounding leaves no row outside.
    push = lengths.max(axis=0, initial=0) * (1 + 8 * np.finfo(X.dtype).eps)
    p = np.where(active[:, None], p + push[..., None] * gates.astype(X.dtype), 0)
    found = Weights(np.stack([p + z, p - z], axis=1) / 2)
    relu = replace(program, formulation="relu")
    if dual is None:
        dual = DualPoint(program.evaluate(weights).residual, None)
    upper = float(relu.evaluate(found).objective)
    return Decomposition(found, upper, float(program.bound_of(dual)))


def _shortest(
    rows: NDArray[np.floating],
    signs: NDArray[np.floating],
    needed: NDArray[np.floating],
    n_iter: int,
) -> NDArray[np.floating]:
    """Minimise ``|p|^2 / 2`` subject to ``E rows p >= needed`` for all patterns by ADMM."""
    n, d = rows.shape
    C, P = needed.shape[1:]
    # One eigendecomposition serves every penalty parameter.
    values, vectors = np.linalg.eigh(rows.T @ rows)
    rho = np.full((C, P), 100 / max(n, 1), rows.dtype)
    slack, dual = needed.copy(), np.zeros_like(needed)
    signs = signs[:, None]
    p = np.zeros((C, P, d), rows.dtype)
    for k in range(1, n_iter + 1):
        back = np.einsum("ncp,nd->cpd", signs * (slack - dual), rows, optimize=True)
        shrink = rho[..., None] / (1 + rho[..., None] * values)
        p = ((back @ vectors) * shrink) @ vectors.T
        scores = signs * np.einsum("nd,cpd->ncp", rows, p, optimize=True)
        before = slack
        relaxed = _RELAXATION * scores + (1 - _RELAXATION) * slack
        slack = np.maximum(relaxed + dual, needed)
        dual += relaxed - slack
        if k % _BALANCE_EVERY == 0:
            primal = np.linalg.norm(scores - slack, axis=0) / _size(np.linalg.norm(slack, axis=0))
            moved = np.linalg.norm(slack - before, axis=0) / _size(np.linalg.norm(dual, axis=0))
            factor = np.clip(np.sqrt(primal / _size(moved)), 0.2, 5)
            rho *= factor
            dual /= factor
    return p


def _size(norms: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.maximum(norms, np.finfo(norms.dtype).tiny)
