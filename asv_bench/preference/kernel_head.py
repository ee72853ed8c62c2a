"""A head of infinitely many gates, as a kernel: the form that the package's heads are measured by.

A neuron of layer ``l`` is on where a random vector has a positive product with the response's
embedding ``h`` and another one with the prompt's ``p``; it then adds a linear function of ``h`` to
the reward. With a ridge on its weights the rewards of such networks have the kernel

    k(h, p; h', p') = sum_l w_l <h, h'> (1 - angle(h, h') / pi) (1 - angle(p, p') / pi)

(the arc-cosine kernel of order 0, Cho and Saul, 2009, times the linear one). A pair has the
difference of its responses' features, and the target 1. The weights ``w_l`` minimise the squared
error on groups of pairs that are left out, whose closed form has a closed gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import spotrf, spotri
from scipy.optimize import minimize

Array = NDArray[np.float32]
Gates = tuple[str, ...]
GATES = "response", "prompt"
N_STEPS = 15


class PairEmbeddings(NamedTuple):
    """Embeddings of pairs and of their prompts in one layer, centred."""

    chosen: Array
    rejected: Array
    prompt: Array


def pair_kernel(a: PairEmbeddings, b: PairEmbeddings, gates: Gates = GATES) -> Array:
    """The kernel between the pairs of two sets; without gates it is linear."""
    if "response" in gates:
        value = np.zeros((len(a.chosen), len(b.chosen)), np.float32)
        for left, sign in ((a.chosen, 1), (a.rejected, -1)):
            for right, other in ((b.chosen, 1), (b.rejected, -1)):
                value += np.float32(sign * other) * (left @ right.T) * both_on(left, right)
    else:
        value = (a.chosen - a.rejected) @ (b.chosen - b.rejected).T
    return value * both_on(a.prompt, b.prompt) if "prompt" in gates else value


def both_on(A: Array, B: Array) -> Array:
    """Twice the probability that a random gate is open for both: ``1 - angle / pi``."""
    A, B = (X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12) for X in (A, B))
    return 1 - np.arccos(np.clip(A @ B.T, -1, 1)) / np.float32(np.pi)


def inverse(kernel: Array) -> Array:
    """Inverse of the kernel plus the identity."""
    A = np.array(kernel, order="F")
    A.flat[:: len(A) + 1] += 1
    factor, failed = spotrf(A, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("the kernel is not positive semi-definite")
    lower = np.tril(spotri(factor, lower=1, overwrite_c=1)[0])
    return lower + np.tril(lower, -1).T


def left_out(G: Array, groups: Iterable[NDArray[np.intp]]) -> tuple[Array, list[Array]]:
    """Residuals of groups that are left out, and the inverses ``G_gg^-1`` that they come from."""
    fitted = G.sum(axis=1)
    inverses = [np.linalg.inv(G[np.ix_(g, g)]) for g in groups]
    residual = np.empty(len(G), np.float32)
    for g, inverted in zip(groups, inverses, strict=True):
        residual[g] = inverted @ fitted[g]
    return residual, inverses


def choose(kernels: list[Array], groups: NDArray[np.intp]) -> tuple[NDArray[np.floating], Array]:
    """Weights of kernels by the error on groups that are left out; and the margins there."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(groups))[:-1])
    n = len(groups)

    def error(theta: NDArray[np.floating]) -> tuple[float, NDArray[np.floating]]:
        weights = np.exp(theta).astype(np.float32)
        G = inverse(sum(w * K for w, K in zip(weights, kernels, strict=True)))
        residual, inverses = left_out(G, members)
        # With r_g = G_gg^-1 (G 1)_g and q_g = G_gg^-1 r_g:
        # d|r|^2 / 2 = sum_g r_g' G_gg^-1 (G dK G)_gg r_g - q' G dK G 1.
        q = np.empty(n, np.float32)
        left, right = np.empty((2, n, len(members)), np.float32)
        for k, (g, inverted) in enumerate(zip(members, inverses, strict=True)):
            q[g] = inverted @ residual[g]
            left[:, k], right[:, k] = G[:, g] @ residual[g], G[:, g] @ q[g]
        slope = left @ right.T - np.outer(G.sum(axis=1), G @ q)
        gradient = [2 / n * w * np.vdot(slope, K) for w, K in zip(weights, kernels, strict=True)]
        return float(np.square(residual).mean()), np.array(gradient, float)

    start = np.full(len(kernels), np.log(0.3 / len(kernels)))
    options = {"maxiter": N_STEPS, "maxfun": N_STEPS + 5}
    found = minimize(error, start, jac=True, bounds=[(-12, 8)] * len(start), options=options)
    weights = np.exp(found.x).astype(np.float32)
    G = inverse(sum(w * K for w, K in zip(weights, kernels, strict=True)))
    return weights, 1 - left_out(G, members)[0]


def solve(kernel: Array) -> Array:
    """Coefficients of the pairs."""
    A = kernel.copy()
    A.flat[:: len(A) + 1] += 1
    return cho_solve(cho_factor(A, lower=True, overwrite_a=True), np.ones(len(A), np.float32))
