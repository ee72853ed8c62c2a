r"""Short local training of the non-convex network, to propose patterns for the convex program.

The neurons of a locally trained network carry their own activation patterns, and that network
is feasible for the convex program over them. The program's optimum is therefore at least as good,
it is certified, and it may mix neurons of several runs. Training proposes, the program decides.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from cvxnn.patterns import ActivationPatterns, from_gates
from cvxnn.solvers._loop import precision

N_STEPS = 300


class LocalNetwork(NamedTuple):
    """Weights of a network :math:`f(x) = A^T (W x)_+` without separate biases.

    Attributes
    ----------
    hidden : ndarray, shape (n_neurons, n_features)
    output : ndarray, shape (n_neurons, n_outputs)
    """

    hidden: NDArray[np.floating]
    output: NDArray[np.floating]


def train(
    X: NDArray[np.floating],
    y: NDArray[np.floating],
    alpha: float,
    n_neurons: int,
    *,
    n_steps: int = N_STEPS,
    learning_rate: float = 0.03,
    random_state: int | np.random.RandomState | None = None,
) -> LocalNetwork:
    r"""Minimise the non-convex objective by full-batch Adam with a cosine schedule.

    The objective is :math:`\tfrac1{2n}\|(X W^T)_+ A - y\|^2 + \tfrac\alpha2(\|W\|^2 + \|A\|^2)`,
    whose value at balanced neurons is the network objective of ``cvxnn.problem`` (one output).

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
    y : ndarray, shape (n_samples, n_outputs)
    alpha : float
        Strength of the weight decay.
    n_neurons : int
    n_steps : int, default=300
        Adam steps; a step costs ``6 n d n_neurons`` flops.
    learning_rate : float, default=0.03
        First step size; it falls to 0.
    random_state : int, RandomState or None

    Returns
    -------
    LocalNetwork
    """
    rng = check_random_state(random_state)
    d, C = X.shape[1], y.shape[1]
    hidden = rng.standard_normal((n_neurons, d)) / n_neurons**0.25
    # Half the neurons push up, half down, so that either sign is at hand from the start.
    signs = np.where(np.arange(n_neurons) % 2 == 0, 1.0, -1.0)[:, None]
    output = signs * np.abs(rng.standard_normal((n_neurons, C))) / n_neurons**0.75
    with precision(X.dtype):
        W, A = _adam(
            jnp.asarray(X),
            jnp.asarray(y),
            alpha,
            jnp.asarray(hidden, X.dtype),
            jnp.asarray(output, X.dtype),
            np.int32(n_steps),
            learning_rate,
        )
        return LocalNetwork(np.asarray(W), np.asarray(A))


def flops(shape: tuple[int, ...], n_neurons: int, n_steps: int = N_STEPS) -> float:
    """Floating-point operations of :func:`train` on data of ``shape``, dense products only."""
    return 6.0 * shape[0] * shape[1] * n_neurons * n_steps


def to_program(
    X: NDArray[np.floating], network: LocalNetwork
) -> tuple[ActivationPatterns, NDArray[np.floating]]:
    """Patterns of a network's neurons, and the network as weights of the program over them.

    Neurons that share a pattern are summed, which keeps the predictions and can only lower the
    penalty; neurons that are closed on every row are dropped.

    Returns
    -------
    patterns : ActivationPatterns
    weights : ndarray, shape (n_outputs, 2, n_patterns, n_features)
    """
    found = from_gates(X, network.hidden)
    index = {column.tobytes(): i for i, column in enumerate(found.mask.T)}
    pattern_of = [index.get(column.tobytes(), -1) for column in (X @ network.hidden.T >= 0).T]
    alive = np.flatnonzero(np.array(pattern_of) >= 0)
    C, d = network.output.shape[1], network.hidden.shape[1]
    weights = np.zeros((C, 2, len(found), d), network.hidden.dtype)
    for j in alive:
        for sign, scale in enumerate((network.output[j], -network.output[j])):
            weights[:, sign, pattern_of[j]] += np.maximum(scale, 0)[:, None] * network.hidden[j]
    return found, weights


@partial(jax.jit, donate_argnums=(3, 4))
def _adam(
    X: Array,
    y: Array,
    alpha: Array,
    hidden: Array,
    output: Array,
    n_steps: Array,
    learning_rate: Array,
) -> tuple[Array, Array]:
    n = X.shape[0]
    beta1, beta2 = 0.9, 0.99

    def objective(parameters: tuple[Array, Array]) -> Array:
        W, A = parameters
        error = jax.nn.relu(X @ W.T) @ A - y
        decay = jnp.sum(W**2) + jnp.sum(A**2)
        return jnp.sum(error**2) / (2 * n) + alpha / 2 * decay

    def step(k: Array, carry: tuple) -> tuple:
        parameters, first, second = carry
        gradient = jax.grad(objective)(parameters)
        first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, first, gradient)
        second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g**2, second, gradient)
        t = k + 1
        rate = learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * k / n_steps))
        rate = rate * jnp.sqrt(1 - beta2**t) / (1 - beta1**t)
        parameters = jax.tree.map(
            lambda p, m, v: p - (rate * m / (jnp.sqrt(v) + 1e-8)).astype(p.dtype),
            parameters,
            first,
            second,
        )
        return parameters, first, second

    start = (hidden, output)
    zeros = jax.tree.map(jnp.zeros_like, start)
    parameters, _, _ = jax.lax.fori_loop(0, n_steps, step, (start, zeros, zeros))
    return parameters
