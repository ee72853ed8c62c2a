r"""Search for patterns that lower the optimum: column generation for the convex program.

The program over *all* patterns is one over a finite subset plus a question, the pricing problem: at
a dual optimum ``r`` of the subset, is there a neuron whose gain exceeds its price,

.. math::

    \max_{\|g\|_2 \le 1} \pm \tfrac1n r^T (X g)_+ > \alpha \qquad
    \Big(\text{gated: } \big\|\tfrac1n X^T D_g r\big\|_2 > \alpha\Big) \; ?

If none exists, the subset's optimum is that of the non-convex network. The pricing problem is not
convex, so its answer is sought by local ascent from many starts: the active neurons pushed over
the boundaries that hold them back (along minus their cone multipliers ``X^T E a``), and random
directions. Patterns found this way strictly lower the optimum; not finding any proves nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvxnn._arrays import namespace
from cvxnn.convex.operators import Weights
from cvxnn.convex.penalties import NeuronGroupLasso
from cvxnn.convex.program import ConvexProgram, DualPoint

_N_STEPS = 30
# How far a neuron is pushed over its boundaries, relative to its own length.
_PUSHES = (0.01, 0.1, 0.5)
# Numbers in one block of scores: 2**24, 128 MiB in float64.
_CHUNK_NUMBERS = 2**24


def price(
    program: ConvexProgram,
    dual: DualPoint,
    starts: NDArray[np.floating],
    *,
    n_steps: int = _N_STEPS,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    r"""Look for gates whose neurons would lower the optimum.

    Parameters
    ----------
    program : ConvexProgram
        On the host (NumPy arrays), with the neuron group lasso.
    dual : DualPoint
        Its dual optimum, or near it.
    starts : ndarray, shape (n_starts, n_features)
        Directions to climb from.
    n_steps : int, default=30
        Ascent steps; each costs ``4 n d n_starts`` flops.

    Returns
    -------
    gates : ndarray, shape (n_found, n_features)
        Unit vectors whose gain exceeds their price, best first.
    gains : ndarray, shape (n_found,)
        Gains over :math:`\alpha`, all above 1. The largest tells how far the dual point is from
        that of all patterns.

    Raises
    ------
    TypeError
        For another penalty: its price is not one number for each neuron.
    """
    if type(program.penalty) is not NeuronGroupLasso:
        raise TypeError(
            f"Patterns are priced for NeuronGroupLasso, not {type(program.penalty).__name__}; "
            "use patterns from local training or random ones."
        )
    pulls = np.asarray(program.share * dual.residual)
    alpha = max(float(program.alpha), np.finfo(pulls.dtype).tiny)
    size = max(_CHUNK_NUMBERS // max(len(pulls), 1), 1)
    parts = [
        _climb(program, pulls, starts[first : first + size], n_steps)
        for first in range(0, max(len(starts), 1), size)
    ]
    gates = np.concatenate([gates for gates, _ in parts])
    gains = np.concatenate([gains for _, gains in parts]) / alpha
    # Rounding must not pass for progress.
    order = np.argsort(-gains)
    order = order[gains[order] > 1 + 1e-4]
    return gates[order], gains[order]


def directions(
    program: ConvexProgram,
    weights: Weights,
    dual: DualPoint,
    n_random: int,
    rng: np.random.RandomState,
) -> NDArray[np.floating]:
    """Return starts for :func:`price`: active neurons, pushed ones and random directions.

    Parameters
    ----------
    program : ConvexProgram
        On the host.
    weights : Weights
        Its optimum, or near it.
    dual : DualPoint
        Its dual optimum, or near it.
    n_random : int
        Random directions.
    rng : RandomState
        Draws them.

    Returns
    -------
    ndarray, shape (n_starts, n_features)
        Active neurons, random directions, and active neurons pushed over their boundaries.
    """
    op, blocks = program.operator, weights.blocks
    active = np.linalg.norm(blocks, axis=-1) > 0
    neurons = _unit(blocks[active])
    found = [neurons, rng.standard_normal((n_random, blocks.shape[-1])).astype(blocks.dtype)]
    if dual.multipliers is not None:
        held_back = op.constraints_adjoint(np.maximum(dual.multipliers, 0))[active]
        found += [neurons - push * _unit(held_back) for push in _PUSHES]
    return np.concatenate(found)


def _climb(
    program: ConvexProgram,
    pulls: NDArray[np.floating],
    starts: NDArray[np.floating],
    n_steps: int,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Ascend with a falling step; return the best gate and gain of each start."""
    X, xp = program.operator.X, namespace(pulls)
    gates = _unit(starts)
    best, best_gain = gates, np.full(len(gates), -np.inf, pulls.dtype)
    output = sign = None
    for step in range(n_steps + 1):
        scores = X @ gates.T
        opened = scores >= 0
        gains = pulls.T @ xp.where(opened, scores, 0)
        if output is None or sign is None:
            # Each start climbs for the output and the sign for which it is best placed.
            output = np.abs(gains).argmax(axis=0)
            sign = np.where(gains[output, np.arange(len(gates))] < 0, -1, 1).astype(pulls.dtype)
        slopes = (np.where(opened, pulls[:, output], 0) * sign).T @ X
        if program.formulation == "gated":
            gain = np.linalg.norm(slopes, axis=1)
        else:
            gain = gains[output, np.arange(len(gates))] * sign
        better = gain > best_gain
        best, best_gain = np.where(better[:, None], gates, best), np.maximum(gain, best_gain)
        gates = _unit(gates + 0.5 * 0.9**step * _unit(slopes))
    return best, best_gain


def _unit(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
