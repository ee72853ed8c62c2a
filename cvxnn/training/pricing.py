r"""Search for patterns that lower the optimum: column generation for the convex program.

The program over *all* patterns is one over a finite subset plus a question, the pricing problem: at
a dual optimum ``r`` of the subset, is there a neuron whose gain exceeds its price,

.. math::

    \max_{\|g\|_2 \le 1} \pm \tfrac1n r^T (X g)_+ > \alpha \qquad
    \Big(\text{gated: } \big\|\tfrac1n X^T D_g r\big\|_2 > \alpha\Big) \; ?

If none exists, the subset's optimum is that of the non-convex network. The pricing problem is not
convex, so its answer is sought by local ascent from many starts (:func:`price`): the active neurons
pushed over the boundaries that hold them back (along minus their cone multipliers ``X^T E a``), and
random directions. Patterns found this way strictly lower the optimum; not finding any proves
nothing. Where all patterns can be listed, each one is priced exactly (:func:`price_all`): within a
cone the gain is linear, so its largest value is the length of the projection of
``X^T D r / n`` on the cone, a non-negative least squares problem.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.operators import Weights
from cvxnn.convex.patterns import ActivationPatterns, Formulation
from cvxnn.convex.penalties import NeuronGroupLasso
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.arrays import refuse_sparse

N_STEPS = 100
# Length of the first step, and of each one in units of the last; starts take them in turn. The gain
# of a gated neuron is the same in all of a cell, which short steps do not leave.
_LENGTHS: dict[Formulation, tuple[tuple[float, float], ...]] = {
    "relu": ((0.1, 0.97),),
    "gated": ((0.3, 0.95), (0.5, 0.97)),
}
# How far below its price, in units of the step, a gain may be that is not given up.
_REACH = 4
# How far a neuron is pushed over its boundaries, relative to its own length.
_PUSHES = (0.01, 0.1, 0.5)
# Cosine from which on two gates are too much alike to be added together.
_ALIKE = 0.95
# Numbers in one block of scores: 2**20, 4 MiB in float32.
_CHUNK_NUMBERS = 2**20
# Rounding must not pass for progress.
_PAYS = 1 + 1e-4


def price(
    program: ConvexProgram,
    dual: DualPoint,
    starts: NDArray[np.floating],
    *,
    n_steps: int = N_STEPS,
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
    n_steps : int, default=100
        Ascent steps; each costs ``4 n d`` flops for each start that is not given up.

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
    pulls, alpha = _pulls(program, dual)
    size = max(_CHUNK_NUMBERS // max(len(pulls), 1), 1)
    found = [
        _climb(program, pulls, alpha, starts[first : first + size], n_steps)
        for first in range(0, max(len(starts), 1), size)
    ]
    gates = _unit(np.concatenate(found))
    parts = np.array_split(gates, max(-(-len(gates) // size), 1))
    gains = np.concatenate([_gains(program, pulls, part) for part in parts]) / alpha
    order = np.argsort(-gains)
    order = order[gains[order] > _PAYS]
    return gates[order], gains[order]


def far_apart(gates: NDArray[np.floating], n_gates: int) -> NDArray[np.intp]:
    """Return the positions of the first gates that are far from each other.

    Parameters
    ----------
    gates : ndarray, shape (n, n_features)
        Unit vectors, best first.
    n_gates : int
        Most gates to take.
    """
    taken: list[int] = []
    left = np.arange(len(gates))
    while len(left) and len(taken) < n_gates:
        taken.append(left[0])
        left = left[gates[left] @ gates[left[0]] < _ALIKE]
    return np.array(taken, np.intp)


def price_all(
    program: ConvexProgram, dual: DualPoint, every: ActivationPatterns, n_patterns: int
) -> tuple[ActivationPatterns, float]:
    r"""Price each of some patterns exactly.

    Parameters
    ----------
    program : ConvexProgram
        On the host (NumPy arrays), with the neuron group lasso.
    dual : DualPoint
        Its dual optimum, or near it.
    every : ActivationPatterns
        The patterns to price: with all there are
        (:func:`cvxnn.convex.enumerate_patterns`), the answer is a proof.
    n_patterns : int
        Return at most so many of those that pay.

    Returns
    -------
    patterns : ActivationPatterns
        Those of the largest gains above their price, best first.
    gain : float
        The largest gain over :math:`\alpha` of all if one pays, else an upper bound of at most 1:
        up to 1e-4, the dual point is feasible for the program over all these patterns too, and its
        bound holds there.

    Raises
    ------
    TypeError
        For another penalty.
    """
    pulls, alpha = _pulls(program, dual)
    X = np.asarray(program.operator.X, np.float64)
    pulls = pulls.astype(np.float64)
    # The slope within each cone; its length bounds the gain.
    slopes = np.stack([(np.where(every.mask, pull[:, None], 0)).T @ X for pull in pulls.T])
    bounds = np.linalg.norm(slopes, axis=-1)
    if program.formulation == "gated":
        gains = bounds.max(axis=0) / alpha
        return _those_that_pay(every, gains, float(gains.max(initial=0)), n_patterns)
    _, _, basis = np.linalg.svd(X, full_matrices=False)
    rows, slopes = X @ basis.T, slopes @ basis.T
    signed = np.concatenate([slopes, -slopes]).reshape(-1, slopes.shape[-1])
    which = np.tile(np.arange(len(every)), 2 * len(slopes))
    left, bounds = _long_projections(rows, every.mask, signed, which, _PAYS * alpha)
    gains, least = np.zeros(len(every)), _PAYS * alpha
    for one in left[np.argsort(-bounds[left], kind="stable")]:
        if bounds[one] <= least:
            break  # Those that follow have no larger gains.
        pattern = which[one]
        walls = np.where(every.mask[:, pattern], 1.0, -1.0)[:, None] * rows
        _, bounds[one] = nnls(walls.T, -signed[one], maxiter=30 * len(X))
        gains[pattern] = max(gains[pattern], bounds[one])
        if n_patterns < len(gains):
            least = max(least, np.partition(gains, -n_patterns)[-n_patterns])
    return _those_that_pay(every, gains / alpha, float(bounds.max(initial=0)) / alpha, n_patterns)


def _those_that_pay(
    every: ActivationPatterns, gains: NDArray[np.float64], highest: float, n_patterns: int
) -> tuple[ActivationPatterns, float]:
    """Return the patterns of highest gain above their price, and that gain over the price.

    Parameters
    ----------
    every : ActivationPatterns
        Patterns that were priced.
    gains : ndarray, shape (n_patterns,)
        Their gains over their price.
    highest : float
        Upper bound of the gains of those that were not priced exactly, over the price.
    n_patterns : int
        Most patterns to return.
    """
    order = np.argsort(-gains, kind="stable")[:n_patterns]
    pays = order[gains[order] > _PAYS]
    return every.take(pays), float(gains.max()) if len(pays) else min(highest, 1.0)


def _long_projections(
    rows: NDArray[np.float64],
    mask: NDArray[np.bool_],
    slopes: NDArray[np.float64],
    which: NDArray[np.intp],
    least: float,
    n_sweeps: int = 50,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Find slopes whose projection on the cone of their pattern may be longer than ``least``.

    Cyclic coordinate descent on the multipliers of the rows (Hildreth, 1957), for all slopes at
    once: at any time what is left of a slope is at least as long as its projection. Returns the
    positions of those that stay longer, and the lengths of all when they were given up.

    Parameters
    ----------
    rows : ndarray, shape (n_samples, n_features)
        Data.
    mask : ndarray of bool, shape (n_samples, n_patterns)
        Patterns.
    slopes : ndarray, shape (n_slopes, n_features)
        Slopes to project.
    which : ndarray of int, shape (n_slopes,)
        Pattern of each slope.
    least : float
        Length from which on a projection counts.
    n_sweeps : int, default=50
        Most passes over the rows.
    """
    bounds = np.linalg.norm(slopes, axis=1)
    left = np.flatnonzero(bounds > least)
    squares = (rows**2).sum(axis=1)
    rest, multipliers = slopes[left], np.zeros((len(rows), len(left)))
    signs = np.where(mask[:, which[left]], 1.0, -1.0)
    for _ in range(n_sweeps):
        if len(left) == 0:
            break
        for k in np.flatnonzero(squares):
            needed = -signs[k] * (rest @ rows[k]) / squares[k]
            change = np.maximum(needed, -multipliers[k])
            multipliers[k] += change
            rest += (change * signs[k])[:, None] * rows[k]
        bounds[left] = np.linalg.norm(rest, axis=1)
        kept = bounds[left] > least
        left, rest = left[kept], rest[kept]
        multipliers, signs = multipliers[:, kept], signs[:, kept]
    return left, bounds


def _pulls(program: ConvexProgram, dual: DualPoint) -> tuple[NDArray[np.floating], float]:
    """Return each row's pull on each output, and the price of a neuron.

    Parameters
    ----------
    program : ConvexProgram
        On the host, with the neuron group lasso.
    dual : DualPoint
        Its dual optimum, or near it.
    """
    if type(program.penalty) is not NeuronGroupLasso:
        raise TypeError(
            f"Patterns are priced for NeuronGroupLasso, not {type(program.penalty).__name__}; "
            "use patterns from local training or random ones."
        )
    refuse_sparse(program.operator.X, "pricing")
    pulls = np.asarray(program.share * dual.residual)
    return pulls, max(float(program.alpha), np.finfo(pulls.dtype).tiny)


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
    alpha: float,
    starts: NDArray[np.floating],
    n_steps: int,
) -> NDArray[np.floating]:
    """Ascend in single precision with a falling step; return the gates that may pay.

    A start is given up when its gain is further from its price than the remaining steps are likely
    to bring it.

    Parameters
    ----------
    program : ConvexProgram
        On the host.
    pulls : ndarray, shape (n_samples, n_outputs)
        Pulls of the rows, from :func:`_pulls`.
    alpha : float
        Price of a neuron.
    starts : ndarray, shape (n_starts, n_features)
        Directions to climb from.
    n_steps : int
        Number of steps.
    """
    # Numbers of size one: those of the program may have no place in single precision.
    size_of_rows, size_of_pulls = _largest(program.operator.X), _largest(pulls)
    X = np.ascontiguousarray(program.operator.X / size_of_rows, np.float32)
    XT, pulls = X.T.copy(), np.ascontiguousarray(pulls.T / size_of_pulls, np.float32)
    price = np.float32(alpha / size_of_rows / size_of_pulls)
    gates = _unit(starts).astype(np.float32)
    # Each start climbs for the output and the sign for which it is best placed.
    gains = np.maximum(gates @ XT, 0) @ pulls.T
    output = np.abs(gains).argmax(axis=1)
    sign = np.where(gains[np.arange(len(gates)), output] < 0, -1, 1).astype(np.float32)
    pulls = pulls[output] * sign[:, None]
    best, best_gain = gates, np.full(len(gates), -np.inf, np.float32)
    lengths = np.resize(_LENGTHS[program.formulation], (len(gates), 2))
    for step in range(n_steps + 1):
        slopes = np.where(gates @ XT >= 0, pulls, 0) @ X
        if program.formulation == "gated":
            gain = np.linalg.norm(slopes, axis=1)
        else:
            gain = np.einsum("sd,sd->s", gates, slopes)
        better = gain > best_gain
        best, best_gain = np.where(better[:, None], gates, best), np.maximum(gain, best_gain)
        length = (lengths[:, 0] * lengths[:, 1] ** step).astype(np.float32)
        gates = _unit(gates + length[:, None] * _unit(slopes))
        near = best_gain >= (1 - _REACH * length) * price
        if not near.all():
            gates, pulls, lengths = gates[near], pulls[near], lengths[near]
            best, best_gain = best[near], best_gain[near]
    return best.astype(starts.dtype)


def _gains(
    program: ConvexProgram, pulls: NDArray[np.floating], gates: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Return the gain of each gate for the output that gains most.

    Parameters
    ----------
    program : ConvexProgram
        On the host.
    pulls : ndarray, shape (n_samples, n_outputs)
        Pulls of the rows, from :func:`_pulls`.
    gates : ndarray, shape (n_gates, n_features)
        Unit vectors.
    """
    X = program.operator.X
    scores = X @ gates.T
    if program.formulation == "relu":
        return np.abs(pulls.T @ np.maximum(scores, 0)).max(axis=0)
    opened = scores >= 0
    slopes = [np.where(opened, pull[:, None], 0).T @ X for pull in pulls.T]
    return np.linalg.norm(slopes, axis=-1).max(axis=0)


def _largest(array: NDArray[np.floating]) -> float:
    """Return the largest size of the entries, 1 where there is none."""
    return float(np.abs(array).max(initial=0)) or 1.0


def _unit(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return rows of length 1; those of length 0 stay."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
