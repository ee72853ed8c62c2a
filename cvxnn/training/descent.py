r"""Local descent between two programs: the neurons move before the next program is solved.

A program fixes the patterns of its neurons, and only the next one may have others. Descent of the
non-convex network, from the solution and the neurons that pricing found, lets all of them move
across the boundaries of their cones, at a small part of the cost of a program. It is the
fully corrective step of conic particle methods (Chizat, 2022). The network that it leaves is
feasible for the program over its own patterns, whose optimum is therefore at least as good.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.host_program import on_host
from cvxnn.convex.operators import Weights
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.phases import tell
from cvxnn.numerics.threads import blas_threads, limit_threads, limits_threads, with_threads
from cvxnn.training import pricing
from cvxnn.training.pattern_transfer import product_flops
from cvxnn.training.proposal import LocalNetwork, proposal_flops, to_program, within_single

# Steps of L-BFGS between two searches, and the part of the objective below which they end.
_N_STEPS, _LEAST_FALL = 100, 1e-7
# Pairs of steps and gradients that L-BFGS keeps.
_MEMORY = 20
# Part of the mean neuron that a new one begins with.
_NEW = 0.1
# Neurons below this part of the largest are left out.
_ALIVE = 1e-3


class Neurons(NamedTuple):
    r"""Neurons :math:`u_j = \|w_j\| w_j`, of which each adds to one output or subtracts from it.

    In ``w`` the penalty :math:`\alpha \|u_j\| = \alpha \|w_j\|^2` is smooth.

    Attributes
    ----------
    roots : ndarray, shape (n_neurons, n_features)
        The :math:`w_j`.
    signs : ndarray, shape (n_neurons, n_outputs)
        1 or -1 at the output of each neuron, zero elsewhere.
    """

    roots: NDArray[np.floating]
    signs: NDArray[np.floating]

    def network(self) -> LocalNetwork:
        """Return the neurons as a network of two layers."""
        return LocalNetwork(self.roots, np.linalg.norm(self.roots, axis=1)[:, None] * self.signs)


class DescendedNetwork(NamedTuple):
    """Network that a descent found.

    Attributes
    ----------
    patterns : ActivationPatterns
        Patterns of the neurons.
    weights : Weights
        The network, as weights over them.
    objective : float
        Its network objective.
    n_rounds : int
        Rounds that were taken.
    flops : float
        Floating-point operations of the steps.
    """

    patterns: ActivationPatterns
    weights: Weights
    objective: float
    n_rounds: int
    flops: float


@limits_threads(lambda base, _, better, *__: product_flops(base, len(better)))
def descend(
    base: ConvexProgram,
    weights: Weights,
    better: ActivationPatterns,
    n_patterns: int,
    n_rounds: int,
    rng: np.random.RandomState,
) -> DescendedNetwork:
    """Let neurons and new ones descend together, and search for more of them in between.

    Parameters
    ----------
    base : ConvexProgram
        Program in the ReLU formulation without a linear part, on the host, with the neuron group
        lasso; its own patterns do not count.
    weights : Weights
        Network to begin with, such as a solution.
    better : ActivationPatterns
        Patterns whose gates are the first new neurons, best first.
    n_patterns : int
        Most neurons to add in each round, at least 1.
    n_rounds : int
        Most rounds, at least 1. They end early where the search finds no neuron that pays.
    rng : RandomState
        Draws starts of the searches.

    Returns
    -------
    DescendedNetwork
        The network after the last round.
    """
    tell("descent")
    X, flops = base.operator.X, 0.0
    neurons, gates = _neurons_of(weights), better.gates
    _, residual = _measure(base, neurons)
    for round_ in range(1, n_rounds + 1):
        neurons = _with_gates(base, neurons, gates[:n_patterns], residual)
        size = len(neurons.roots)
        neurons, n_steps = _move(base, neurons)
        neurons = _alive(neurons)
        flops += proposal_flops(X.shape, size, base.y.shape[1], n_steps)
        objective, residual = _measure(base, neurons)
        if round_ == n_rounds:
            break
        random = rng.standard_normal((2 * n_patterns, X.shape[1])).astype(neurons.roots.dtype)
        starts = np.concatenate([_unit(neurons.roots), random])
        gates, _ = pricing.price(base, residual, starts)
        gates = gates[pricing.far_apart(gates, n_patterns)]
        if len(gates) == 0:
            break
    found, moved = to_program(X, neurons.network())
    return DescendedNetwork(found, moved, objective, round_, flops)


@limits_threads(lambda base, weights: product_flops(base, weights.blocks.shape[2]))
def descend_in_place(base: ConvexProgram, weights: Weights) -> tuple[Weights, float]:
    """Let the neurons of a network descend, each in the block where it is, and return the flops.

    Parameters
    ----------
    base : ConvexProgram
        As for :func:`descend`.
    weights : Weights
        The network. Its neurons may leave the patterns of their blocks. It is returned as it is
        where it has none, or values overflow.
    """
    tell("local training, descent")
    blocks, (X, y) = weights.blocks, (base.operator.X, base.y)
    neurons = _neurons_of(weights)
    if X.dtype != np.float32 and within_single(X, y):  # enough to propose
        base = on_host(base, np.float32)
        neurons = Neurons(*(part.astype(np.float32) for part in neurons))
    moved, n_steps = _move(base, neurons)
    if not n_steps or not np.isfinite(moved.roots).all():
        return weights, 0.0
    flops = proposal_flops(X.shape, len(moved.roots), y.shape[1], n_steps)
    found = np.zeros_like(blocks)
    found[_are_alive(blocks)] = moved.roots * np.linalg.norm(moved.roots, axis=1)[:, None]
    return Weights(found), flops


def _neurons_of(weights: Weights) -> Neurons:
    """Return the neurons of weights, without those far below the largest."""
    blocks = weights.blocks
    alive = _are_alive(blocks)
    output, sign, _ = np.nonzero(alive)
    signs = np.zeros((len(output), len(blocks)), blocks.dtype)
    signs[np.arange(len(output)), output] = 1 - 2 * sign
    roots = blocks[alive]
    return Neurons(roots / np.sqrt(np.linalg.norm(roots, axis=1))[:, None], signs)


def _are_alive(blocks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which blocks are not far below the largest, (n_outputs, n_signs, n_patterns)."""
    norms = np.linalg.norm(blocks, axis=-1)
    alive: NDArray[np.bool_] = norms > _ALIVE * norms.max(initial=0)
    return alive


def _with_gates(
    base: ConvexProgram, neurons: Neurons, gates: NDArray[np.floating], residual: DualPoint
) -> Neurons:
    """Add small neurons along gates, each to the output that gains most."""
    pulls = np.maximum(gates @ base.operator.X.T, 0) @ (base.share * residual.residual)
    each, output = np.arange(len(gates)), np.abs(pulls).argmax(axis=1)
    signs = np.zeros_like(pulls)
    signs[each, output] = np.where(pulls[each, output] < 0, -1, 1)
    sizes = (neurons.roots**2).sum(axis=1)
    size = _NEW * float(sizes.mean() if len(sizes) else 1.0)
    roots = np.concatenate([neurons.roots, size**0.5 * _unit(gates)])
    return Neurons(roots, np.concatenate([neurons.signs, signs]))


def _move(base: ConvexProgram, neurons: Neurons) -> tuple[Neurons, int]:
    """Take steps of L-BFGS; return the neurons, and the evaluations."""
    roots, signs = neurons
    if len(roots) == 0:
        return neurons, 0
    options: Any = {"maxiter": _N_STEPS, "ftol": _LEAST_FALL, "gtol": 0.0, "maxcor": _MEMORY}
    start = roots.astype(np.float64).ravel()
    threads = blas_threads()

    def evaluate(flat: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
        with with_threads(threads):
            return value_and_slope(flat, base, signs)

    # Between evaluations L-BFGS takes thousands of inner products, each too small to share. What is
    # not finite is no descent.
    with limit_threads(0), np.errstate(over="ignore", invalid="ignore"):
        found = minimize(evaluate, start, (), "L-BFGS-B", True, options=options)
    return Neurons(found.x.reshape(roots.shape).astype(roots.dtype), signs), found.nfev


def _alive(neurons: Neurons) -> Neurons:
    """Return neurons without those far below the largest."""
    sizes = (neurons.roots**2).sum(axis=1)
    alive = sizes > _ALIVE * sizes.max(initial=0)
    return Neurons(neurons.roots[alive], neurons.signs[alive])


def _measure(base: ConvexProgram, neurons: Neurons) -> tuple[float, DualPoint]:
    """Return the network objective of neurons, and minus the gradient of each row's loss."""
    prediction = np.maximum(base.operator.X @ neurons.roots.T, 0) @ neurons.network().output
    value = (base.share * base.loss.value(prediction, base.y)).sum()
    value += float(base.alpha) * (neurons.roots**2).sum()
    return float(value), DualPoint(-base.loss.gradient(prediction, base.y), None)


def value_and_slope(
    flat: NDArray[np.floating], base: ConvexProgram, signs: NDArray[np.floating]
) -> tuple[float, NDArray[np.float64]]:
    """Return the network objective of neurons, and its gradient in their roots.

    Parameters
    ----------
    flat : ndarray, shape (n_neurons * n_features,)
        The roots.
    base : ConvexProgram
        As for :func:`descend`.
    signs : ndarray, shape (n_neurons, n_outputs)
        As in :class:`Neurons`.
    """
    X, alpha = base.operator.X, float(base.alpha)
    roots = flat.reshape(len(signs), -1).astype(X.dtype, copy=False)
    lengths = np.linalg.norm(roots, axis=1, keepdims=True)
    scores = roots @ X.T
    np.maximum(scores, 0, out=scores)
    prediction = scores.T @ (lengths * signs)
    value = float((base.share * base.loss.value(prediction, base.y)).sum())
    back = signs @ (base.share * base.loss.gradient(prediction, base.y)).T
    back *= scores > 0
    slopes = back @ X
    along = (slopes * roots).sum(axis=1, keepdims=True) / np.where(lengths > 0, lengths, 1)
    slopes = lengths * slopes + (along + 2 * alpha) * roots
    return value + alpha * float(flat @ flat), slopes.ravel().astype(np.float64)


def _unit(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return rows of length 1; those of length 0 stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
