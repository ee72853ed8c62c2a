r"""Bounds that dual points prove, and the least strength at which all weights vanish.

For any :math:`r \in R^n` and multipliers :math:`a \ge 0` with
:math:`\|\pm X^T D_i r / n + X^T E_i a_i\|_2 \le \alpha` for every block, the number
:math:`-\tfrac1n \sum_k \ell^*(-r_k, y_k)` is at most the optimum of the program. Any pair is scaled
down until it qualifies, so the bound is rigorous at every iteration, up to rounding. Other norms
put their dual norm in the place of the Euclidean one. Of a penalty :math:`g` that is no norm,
:math:`\alpha g^*(s / \alpha)` is subtracted, with :math:`g^*` its conjugate and :math:`s` the sum
in the condition above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cvxnn.convex.losses import Loss, MultinomialLoss
from cvxnn.convex.penalties import Penalty, SquaredL2, WithConjugate, WithDualNorm
from cvxnn.numerics.arrays import Array, is_sparse, namespace, refuse_sparse

# Thirds taken off the interval of the scale: (2/3)**40 is 1e-7, and the bound is flat at the top.
_N_THIRDS = 40
# Range of strengths around the largest slope, as powers of two, and its bisections.
_OCTAVES = 30.0
_N_HALVES = 60
# How far rounding in float32 may take probabilities off the simplex.
_OFF_SIMPLEX = 1e-4


def within_domain(loss: Loss, residual: Array, y: Array) -> Array:
    """Return a dual point near another one, in the domain of the conjugate of a coupled loss.

    Rounding, above all in another precision, moves probabilities off the simplex, outside of which
    nothing is proven. Any dual point proves a bound, so that they may be moved back.

    Parameters
    ----------
    loss : Loss
        Of the program; only ``MultinomialLoss`` is known here.
    residual : Array, shape (n_samples, n_outputs)
        The dual point: targets minus probabilities.
    y : Array, shape (n_samples, n_outputs)
        Targets, one-hot.

    Returns
    -------
    Array, shape (n_samples, n_outputs)
        The residual of probabilities that are not negative and add up to 1, if the given ones do
        up to the rounding of float32; else the given residual.
    """
    if type(loss) is not MultinomialLoss:
        return residual
    xp = namespace(residual)
    p = y - residual
    clipped = xp.maximum(p, 0)
    total = clipped.sum(axis=1, keepdims=True)
    near = (p >= -_OFF_SIMPLEX).all(axis=1, keepdims=True) & (xp.abs(total - 1) <= _OFF_SIMPLEX)
    return xp.where(near, y - clipped / xp.where(near, total, 1), residual)


def best_bound(
    loss: Loss,
    penalty: Penalty,
    alpha: Array | float,
    y: Array,
    share: Array | float,
    residual: Array,
    slope: Array,
    extra: Array | float,
) -> Array:
    """Return the best lower bound that the multiples of a dual point prove.

    Parameters
    ----------
    loss, penalty, alpha, y
        Parts of the program.
    share : Array
        Weight of each row, a scalar or shape (n_samples, 1).
    residual : Array, shape (n_samples, n_outputs)
        The dual point, zero in rows without weight.
    slope : Array, shape (n_outputs, n_signs, n_patterns, n_features)
        What the penalty has to balance: the adjoint of the residual, and the multipliers'.
    extra : Array, shape (n_outputs,), or 0
        Twice what the conjugate of the linear part's ridge takes off.

    Returns
    -------
    Array, a scalar
        The bound; minus infinity for a residual outside the domain of the conjugate.
    """
    xp = namespace(residual)
    tiny = xp.finfo(slope.dtype).tiny
    limit: Array | float = xp.inf
    if type(penalty) is SquaredL2:
        extra = extra + 2 * penalty.conjugate(slope) / xp.maximum(alpha, tiny)
        # Whether a slope cancels to nothing is a matter of rounding; at strength 0 it would decide.
        limit = xp.where(xp.asarray(alpha) > 0, xp.inf, 0)
    elif isinstance(penalty, WithConjugate):
        return _searched_bound(loss, penalty, alpha, y, share, residual, slope, extra)
    else:
        assert isinstance(penalty, WithDualNorm), "check_penalty refuses it"
        # Without a slope any scale will do; the division must not overflow.
        size = penalty.dual_norm(slope)
        limit = alpha / xp.maximum(size, tiny * xp.maximum(alpha, 1))
    scale = xp.clip(loss.dual_scale(residual, y, share, extra), 0, limit)
    # A strength in float64 must not hide in which precision the residual was rounded.
    scale = scale.astype(residual.dtype)
    if loss.coupled:
        scale = scale.min()
    conjugate = loss.conjugate(-scale * residual, y)
    return -(share * conjugate).sum() - (scale**2 * extra / 2).sum()


def _searched_bound(
    loss: Loss,
    penalty: WithConjugate,
    alpha: Array | float,
    y: Array,
    share: Array | float,
    residual: Array,
    slope: Array,
    extra: Array | float,
) -> Array:
    """Return the bound for a conjugate that is not quadratic: no formula has its best scale."""
    xp = namespace(residual)
    positive = xp.maximum(alpha, xp.finfo(slope.dtype).tiny)

    def value(scale: Array) -> Array:
        fit = (share * loss.conjugate(-scale * residual, y)).sum(axis=0)
        scaled = scale[:, None, None, None] * slope / positive
        lost = positive * penalty.conjugate(scaled) + scale**2 * extra / 2
        # Outputs that the loss couples have one scale, the best of all together.
        lost = xp.zeros_like(lost) + fit.sum() + lost.sum() if loss.coupled else fit + lost
        return xp.where(xp.isnan(lost), -xp.inf, -lost)

    ones = xp.ones_like(residual[0])
    positive = xp.asarray(positive, residual.dtype)
    with np.errstate(all="ignore"):  # the edge of a domain
        quadratic = 2 * positive * penalty.conjugate(slope / positive) + extra
        first = loss.dual_scale(residual, y, share, quadratic) * ones
        best = _best_value(value, first.min() * ones if loss.coupled else first)
    return best[0] if loss.coupled else best.sum()


def _best_value(value: Callable[[Array], Array], first: Array) -> Array:
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
        import jax

        ends = jax.lax.fori_loop(0, _N_THIRDS, narrow, ends)
    # The maximum may lie at the edge of the domain: the lower end is within, the mean perhaps not.
    scales = (xp.zeros_like(first), xp.ones_like(first), first, ends[0], (ends[0] + ends[1]) / 2)
    return xp.stack([value(scale) for scale in scales]).max(axis=0)


def orthogonal_to_columns(residual: Array, X: Array, share: Array | float) -> Array:
    """Project a dual point on what an unpenalised linear part allows.

    Parameters
    ----------
    residual : Array, shape (n_samples, n_outputs)
        The dual point, zero in rows without weight.
    X : Array, shape (n_samples, n_features)
        Data.
    share : Array
        Weight of each row, a scalar or shape (n_samples, 1).

    Returns
    -------
    Array, shape (n_samples, n_outputs)
        ``r`` with ``X^T (share * r) = 0``; zero for outputs of which rounding leaves no such point.
    """
    refuse_sparse(X, "a linear part without a ridge")
    xp = namespace(residual)
    root, eps = xp.sqrt(share), xp.finfo(residual.dtype).eps
    A, given = root * X, root * residual
    # Directions of data in rows of little weight have squares that vanish beside others in
    # A^T A. Along its eigenvectors they stand alone, and have a size that is accurate.
    _, directions = xp.linalg.eigh(A.T @ A)
    B = A @ directions
    # Where columns depend on each other, what is left of some directions is rounding of their
    # terms, and a part of directions before them.
    order = xp.argsort(-xp.linalg.norm(B, axis=0))
    noise = 4 * len(order) * eps * xp.linalg.norm(abs(A) @ abs(directions), axis=0)[order]
    own = abs(xp.diagonal(xp.linalg.qr(B[:, order])[1]))
    kept = xp.concatenate([own > noise[: len(own)], xp.zeros(len(order) - len(own), bool)])
    first = xp.argsort(~kept, stable=True)
    Q, _ = xp.linalg.qr(xp.where(kept, B[:, order], 0)[:, first])
    Q = xp.where(kept[first][: Q.shape[1]], Q, 0)
    rest = given
    for _ in range(2):  # the second time takes off what rounding left
        rest = rest - Q @ (Q.T @ rest)
    # What is nothing but rounding must not be scaled up to pass for a dual point, and a slope
    # that is more than rounding proves nothing.
    rounding, left = 100 * len(residual) ** 0.5 * eps, xp.linalg.norm(rest, axis=0)
    slope = xp.abs(A.T @ rest) <= rounding * xp.linalg.norm(A, axis=0)[:, None] * left
    proves = (left > rounding * xp.linalg.norm(given, axis=0)) & slope.all(axis=0)
    return xp.where(proves & (root > 0), rest / xp.where(root > 0, root, 1), 0)


def linear_prediction(X: Array, y: Array, share: Any, ridge: Any) -> Array:
    """Return the predictions of the linear part alone, a ridge regression of the targets.

    Parameters
    ----------
    X : Array, shape (n_samples, n_features)
        Data, perhaps sparse.
    y : Array, shape (n_samples, n_outputs)
        Targets.
    share : Array
        Weight of each row, a scalar or shape (n_samples, 1).
    ridge : float
        Ridge penalty, at least 0.
    """
    xp = namespace(y)
    weighted = X.multiply(share) if is_sparse(X) else share * X
    gram = X.T @ weighted
    gram = gram.toarray() if is_sparse(gram) else gram
    gram = gram + ridge * xp.eye(X.shape[1], dtype=X.dtype)
    return X @ (xp.linalg.pinv(gram) @ (weighted.T @ y))


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
