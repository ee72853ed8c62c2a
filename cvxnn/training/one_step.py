r"""Leave-one-out of a network that was solved by iterations: one step from its solution.

A penalty that is a norm bends like a ridge around the solution: of a neuron with weights
:math:`v`, :math:`\alpha \|u\| \le \tfrac\alpha2 (\|u\|^2 / \|v\| + \|v\|)`, with equality at
:math:`u = v`. Along :math:`v` itself it bends half as much: there both layers of the network move,
each held by its own weight decay (the Gauss-Newton form of the network's objective). With the
patterns as they are, this ridge and the parabola that touches the loss have
a closed form, whose leverages give the prediction of each row left out. It costs one inverse of a
matrix of about 512 rows for each output, and no further fit. Rad and Maleki (2020) study such
approximations. Cones that hold a ReLU neuron back, those of rows at the edge of its pattern, hold
it at the step too: only directions that leave the scores of these rows at zero bend like the ridge.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.penalties import L1, FeatureGroupLasso, Penalty, WithDualNorm
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.threads import SHARED_FACTOR, limits_threads
from cvxnn.training.row_sample import Sample

_LARGEST_LEVERAGE = 1 - 1e-6
# A row is at the edge of a neuron's pattern from this cosine on, a part of the gap within a range,
# and of the largest of it where the gap is negative (asv_bench/tables/negative_gap.py).
_EDGE, _GAPS = 0.3, (1e-5, 1e-2)
# Rows at the edge span a direction that is larger than this part of the largest.
_SPANNED = 1e-9
# Least second derivative of a loss, as a part of the largest.
_FLOOR = 1e-6

_TINY = np.finfo(np.float64).tiny

Floats = NDArray[np.floating]


@limits_threads(lambda network, sample, **_: 2.0 * len(sample.program.y) ** 3, SHARED_FACTOR)
def approximate_leave_one_out(
    network: TwoLayerNetwork,
    sample: Sample,
    *,
    alpha: float | Floats,
    bias: bool,
    skip: float | None = None,
    fitted: Floats | None = None,
    gap: float = 1e-2,
) -> Floats:
    r"""Return predictions of rows by the network without them, to first order.

    Parameters
    ----------
    network : TwoLayerNetwork
        Network of the rows of the sample, but for a column of ones.
    sample : Sample
        The rows, with the loss and the penalty of their program, whose patterns are not used. One
        unit of a row is left out, or its group.
    alpha : float or ndarray, shape (n_outputs,)
        Penalty parameter of the network, at least 0.
    bias : bool
        Whether the last column of the rows is one of ones.
    skip : float, optional
        Ridge of the linear part of the network, at least 0; None where it has none.
    fitted : ndarray, shape (n_fitted, n_features), optional
        All rows of the fit, whose cones hold ReLU neurons back; by default those of the sample.
    gap : float, default=0.01
        Relative duality gap of the network, or how far rows have left their cones where that is
        more: with a larger one, rows are less near to the edges that hold them at the optimum. A
        negative one, of a network that has left its patterns, does not say how near they are, and
        counts as 0.01, like all larger ones.

    Returns
    -------
    ndarray, shape (n_samples, n_outputs)
        Predictions.

    Notes
    -----
    With the kernel :math:`K` of the active weights, weighted by the second derivatives
    :math:`\ell''` of the rows' losses, the leverages are :math:`H = I - (K + I)^{-1}`. Without row
    ``k`` its prediction moves by :math:`h / (1 - h) \cdot \ell' / \ell''`, with :math:`h = H_{kk}`;
    of a group, the eigenvalues of its block take the place of :math:`h`. Rows of a sample weigh
    more than they do in the fit; what is too much is taken off. Where the penalty is a norm, the
    step is not exact and can be far too long; no prediction is then larger than the largest of the
    network itself.
    """
    program, part = sample.program, sample.part
    X = program.operator.X.astype(np.float64)
    rows = X[:, :-1] if bias else X
    products = X @ X.T
    products = products.toarray() if is_sparse(products) else np.asarray(products)
    mask = _open(network, rows).astype(np.float64)
    weights = network.hidden_weights
    if bias:
        weights = np.column_stack([weights, network.hidden_bias])
    weights = np.asarray(weights * network.output_weights[:, None], np.float64)
    seen = np.asarray(network.forward(rows), np.float64)
    predictions = seen.copy()
    target, loss = np.asarray(program.y, np.float64), program.loss
    # The floor keeps the quotient finite where the loss is linear.
    curvature = np.maximum(loss.hessian(predictions, target), _FLOOR * loss.curvature)
    slope = np.asarray(loss.gradient(predictions, target)) / curvature
    roots = np.sqrt(np.broadcast_to(program.share, (len(predictions), 1)) * curvature)
    alphas = np.broadcast_to(alpha, predictions.shape[1])

    def growth(leverage: Floats, units: Floats | float = 1.0) -> Floats:
        leverage = part * leverage / (1 - (1 - part) * leverage)
        leverage = np.clip(leverage / units, 0, _LARGEST_LEVERAGE)
        return leverage / (1 - leverage)

    for output, neurons in enumerate(network.blocks):
        opened, blocks = mask[:, neurons], weights[neurons]
        kernel = _kernel(X, products, opened, blocks, program.penalty)
        if network.gate_index is None:
            rows = X if fitted is None else fitted
            edge = _EDGE * float(np.clip(gap if gap >= 0 else np.inf, *_GAPS))
            for held in _held(X, rows, opened, blocks, program.penalty, edge):
                kernel -= held @ held.T
        kernel = _with_scales(kernel, X, opened, blocks, program.penalty)
        kernel /= max(alphas[output], 1e-12 * np.trace(kernel) + _TINY)
        if skip is not None:
            kernel += products / max(skip, 1e-12 * np.trace(products) + _TINY)
        root, diagonal = roots[:, output], np.diag_indices(len(kernel))
        kernel *= root[:, None]
        kernel *= root
        kernel[diagonal] += 1
        leverages = np.linalg.inv(kernel)
        np.negative(leverages, out=leverages)
        leverages[diagonal] += 1
        if sample.groups is None:
            units = 1.0 if sample.units is None else sample.units
            predictions[:, output] += growth(np.diagonal(leverages), units) * slope[:, output]
            continue
        for group in np.unique(sample.groups):
            own = np.flatnonzero(sample.groups == group)
            values, vectors = np.linalg.eigh(leverages[np.ix_(own, own)])
            moved = vectors @ (growth(values) * (vectors.T @ (root[own] * slope[own, output])))
            predictions[own, output] += moved / root[own]
    if isinstance(program.penalty, WithDualNorm):
        most = np.abs(seen).max(axis=0)
        predictions = np.clip(predictions, -most, most)
    return predictions


def _open(network: TwoLayerNetwork, X: Floats) -> NDArray[np.bool_]:
    """Return which neurons are open on which rows."""
    if network.gate_index is not None:
        return network.open_gates(X)[:, network.gate_index]
    return X @ network.hidden_weights.T + network.hidden_bias > 0


def _kernel(X: Floats, products: Floats, mask: Floats, weights: Floats, penalty: Penalty) -> Floats:
    """Return the kernel of one output's neurons, each weight divided by its curvature."""
    if not len(weights):
        return np.zeros_like(products)
    stretched = _stretch(weights, penalty)
    if isinstance(penalty, FeatureGroupLasso):
        return np.asarray((X * stretched[0] ** 2) @ X.T) * (mask @ mask.T)
    if isinstance(penalty, L1):
        kernel = np.zeros_like(products)
        for column, own in zip(mask.T, stretched, strict=True):
            used = own > 0
            features = column[:, None] * X[:, used] * own[used]
            kernel += features @ features.T
        return kernel
    kernel = (mask * stretched[:, 0] ** 2) @ mask.T
    kernel *= products
    return np.asarray(kernel)


def _stretch(weights: Floats, penalty: Penalty) -> Floats:
    """Return the roots of inverse curvatures: features times these have weights that bend alike."""
    if isinstance(penalty, FeatureGroupLasso):
        return np.broadcast_to(np.sqrt(np.linalg.norm(weights, axis=0)), weights.shape)
    if isinstance(penalty, L1):
        return np.sqrt(np.abs(weights))
    # Of a norm, v' C v is its value at v; of a ridge, twice that.
    degree = 1 if isinstance(penalty, WithDualNorm) else 2
    curved = np.array([degree * float(penalty.value(v[None, None, None])) for v in weights])
    squares = (weights**2).sum(axis=1)
    inverse = squares / np.maximum(curved, _TINY)
    return np.broadcast_to(np.sqrt(inverse)[:, None], weights.shape)


def _with_scales(
    kernel: Floats, X: Floats, mask: Floats, weights: Floats, penalty: Penalty
) -> Floats:
    """Return the kernel with the second layer's: of the weights along themselves."""
    if not isinstance(penalty, WithDualNorm):
        return kernel
    if isinstance(penalty, L1):
        kernel *= 2
        return kernel
    along = weights * _stretch(weights, penalty)
    axis = 0 if isinstance(penalty, FeatureGroupLasso) else 1
    along /= np.maximum(np.linalg.norm(weights, axis=axis, keepdims=True), _TINY)
    features = X * (mask @ along) if axis == 0 else mask * (X @ along.T)
    kernel += np.asarray(features @ features.T)
    return kernel


def _held(
    X: Floats, fitted: Floats, mask: Floats, weights: Floats, penalty: Penalty, edge: float
) -> Iterator[Floats]:
    """Yield features of the rows in the directions in which rows at the edge hold a neuron."""
    most = edge * np.linalg.norm(fitted, axis=1)
    for column, own, stretch in zip(mask.T, weights, _stretch(weights, penalty), strict=True):
        scores = fitted @ own.astype(fitted.dtype)
        rows = fitted[np.abs(scores) <= most * np.linalg.norm(own)].astype(np.float64)
        if len(rows):
            _, sizes, directions = np.linalg.svd(rows * stretch, full_matrices=False)
            directions = directions[sizes > _SPANNED * sizes[0]]
            yield column[:, None] * ((X * stretch) @ directions.T)
