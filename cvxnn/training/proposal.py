r"""Short local training of the non-convex network, to propose patterns for the convex program.

The neurons of a locally trained network carry their own activation patterns, and that network
is feasible for the convex program over them. The program's optimum is therefore at least as good,
it is certified, and it may mix neurons of several runs. Training proposes, the program decides.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from cvxnn.convex.compiled_calls import Compiled, compiled_work, steps_of_a_call
from cvxnn.convex.losses import Loss, SquaredLoss
from cvxnn.convex.operators import Weights
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.numerics.arrays import Array, namespace, refuse_sparse
from cvxnn.numerics.interrupts import interrupt_held
from cvxnn.numerics.jax_import import precision
from cvxnn.numerics.phases import tell
from cvxnn.numerics.threads import limits_threads

N_STEPS = 300
# Products of rows, features, neurons and steps: from the first on steps are taken in single
# precision, which is enough to propose; from the second on compiling costs less than Python's loop.
_SINGLE_SIZE, _HOST_SIZE = 8.3e8, 1e10
# Fourth powers of such values, and sums of a million of them, are within single precision.
_LARGEST_SINGLE = 1e8
# Rows of which the host keeps all neurons at once: they stay in its cache, and fresh memory for
# each array of all rows costs more than the products.
_BLOCK = 1024

_Pair = tuple[Array, Array]
_Carry = tuple[_Pair, _Pair, _Pair]


class LocalNetwork(NamedTuple):
    """Weights of a network :math:`f(x) = A^T (W x)_+` without separate biases.

    Attributes
    ----------
    hidden : ndarray, shape (n_neurons, n_features)
        First layer :math:`W`.
    output : ndarray, shape (n_neurons, n_outputs)
        Second layer :math:`A`.
    """

    hidden: NDArray[np.floating]
    output: NDArray[np.floating]


@limits_threads(lambda X, y, alpha, n_neurons, **_: 2.0 * X.size * n_neurons)
def propose(
    X: NDArray[np.floating],
    y: NDArray[np.floating],
    alpha: float,
    n_neurons: int,
    *,
    loss: Loss | None = None,
    sample_weight: NDArray[np.floating] | None = None,
    n_steps: int = N_STEPS,
    learning_rate: float = 0.03,
    random_state: int | np.random.RandomState | None = None,
) -> LocalNetwork:
    r"""Minimise the non-convex objective by full-batch Adam with a cosine schedule.

    The objective is the weighted mean loss of :math:`(X W^T)_+ A` plus
    :math:`\tfrac\alpha2(\|W\|^2 + \|A\|^2)`, whose value at balanced neurons is the network
    objective of ``cvxnn.convex.program`` (one output, neuron group lasso).

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Data as the network sees it.
    y : ndarray, shape (n_samples, n_outputs)
        Targets in the form that the loss takes.
    alpha : float
        Strength of the weight decay, at least 0.
    n_neurons : int
        Neurons of the network, at least 1.
    loss : Loss, optional
        Squared loss by default.
    sample_weight : ndarray, shape (n_samples,), optional
        Positive weights of the rows; equal by default.
    n_steps : int, default=300
        Adam steps; a step costs ``4 n d n_neurons`` flops, and ``6 n n_neurons`` for each output.
    learning_rate : float, default=0.03
        First step size; it falls to 0.
    random_state : int, RandomState or None
        Draws the first weights.

    Returns
    -------
    LocalNetwork
        The weights after the last step.

    Notes
    -----
    Small runs stay on the host, where nothing has to be compiled; large ones are compiled. All but
    the smallest, and those of data in single precision, compute in it if squares of slopes are
    within its range.
    """
    refuse_sparse(X, "patterns='local'", "patterns='gaussian'")
    tell("local training")
    rng = check_random_state(random_state)
    n, d, C = *X.shape, y.shape[1]
    hidden = rng.standard_normal((n_neurons, d)) / n_neurons**0.25
    # Half of the neurons raise the output and half lower it, so that both signs are there at first.
    signs = np.where(np.arange(n_neurons) % 2 == 0, 1.0, -1.0)[:, None]
    output = signs * np.abs(rng.standard_normal((n_neurons, C))) / n_neurons**0.75
    share = np.full((n, 1), 1 / n) if sample_weight is None else sample_weight[:, None]
    size = float(n) * d * n_neurons * n_steps
    single = (size >= _SINGLE_SIZE or X.dtype == np.float32) and within_single(X, y)
    dtype = np.dtype(np.float32 if single else np.float64)
    share = (share / share.sum()).astype(dtype, copy=False)
    start = (hidden.astype(dtype), output.astype(dtype))
    zeros = tuple(np.zeros_like(part) for part in start)
    carry: _Carry = (start, zeros, zeros)
    arrays = X.astype(dtype, copy=False), y.astype(dtype, copy=False)
    parts = (*arrays, share, alpha, loss or SquaredLoss())
    if size < _HOST_SIZE:
        with np.errstate(over="ignore", invalid="ignore"):  # such neurons are dropped
            carry = _adam(*parts, carry, 0, n_steps, n_steps, learning_rate)
        return LocalNetwork(*(part.astype(X.dtype, copy=False) for part in carry[0]))
    import jax
    import jax.numpy as jnp

    most = steps_of_a_call(proposal_flops(X.shape, n_neurons, C, 1))
    with precision(dtype), compiled_work():
        parts = jax.tree.map(jnp.asarray, parts)
        for first in range(0, n_steps, most):
            last = min(first + most, n_steps)
            with interrupt_held():
                carry = _adam_compiled(*parts, carry, first, last, n_steps, learning_rate)
                jax.block_until_ready(carry)
        return LocalNetwork(*(np.asarray(part, X.dtype) for part in carry[0]))


def within_single(*arrays: NDArray[np.floating]) -> bool:
    """Return whether squares of slopes, which are products of two values, are within float32.

    Parameters
    ----------
    *arrays : ndarray
        Data and targets.
    """
    return all(np.abs(part).max(initial=0) < _LARGEST_SINGLE for part in arrays)


def proposal_flops(
    shape: tuple[int, ...], n_neurons: int, n_outputs: int = 1, n_steps: int = N_STEPS
) -> float:
    """Return the operations of :func:`propose` on data of ``shape``, dense products only.

    Parameters
    ----------
    shape : tuple of int
        ``(n_samples, n_features)`` of the data.
    n_neurons, n_outputs, n_steps : int
        As :func:`propose` takes them.
    """
    # Each layer's output and the slope of its weights; the data need no slope, the neurons do.
    return (4.0 * shape[1] + 6.0 * n_outputs) * shape[0] * n_neurons * n_steps


def to_program(
    X: NDArray[np.floating], network: LocalNetwork
) -> tuple[ActivationPatterns, Weights]:
    """Return the patterns of a network's neurons, and the network as weights over them.

    Neurons that share a pattern are summed, which keeps the predictions and can only lower the
    penalty; neurons that are closed on every row are dropped.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Data that the network was trained on.
    network : LocalNetwork
        The network.

    Returns
    -------
    patterns : ActivationPatterns
        Distinct patterns of neurons that are open on some row.
    weights : Weights
        Of the ReLU formulation, over these patterns.
    """
    found = ActivationPatterns.from_gates(X, network.hidden)
    index = {column.tobytes(): i for i, column in enumerate(found.mask.T)}
    pattern_of = [index.get(column.tobytes(), -1) for column in (X @ network.hidden.T >= 0).T]
    alive = np.flatnonzero(np.array(pattern_of) >= 0)
    C, d = network.output.shape[1], network.hidden.shape[1]
    weights = np.zeros((C, 2, len(found), d), network.hidden.dtype)
    for j in alive:
        for sign, scale in enumerate((network.output[j], -network.output[j])):
            weights[:, sign, pattern_of[j]] += np.maximum(scale, 0)[:, None] * network.hidden[j]
    return found, Weights(weights)


def gradients(
    X: Array, y: Array, share: Array, alpha: float, loss: Loss, parameters: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Return the gradients of the objective in both layers.

    Parameters
    ----------
    X : Array, shape (n_samples, n_features)
        Data.
    y : Array, shape (n_samples, n_outputs)
        Targets.
    share : Array, shape (n_samples, 1)
        Share of each row in the loss.
    alpha : float
        Strength of the weight decay.
    loss : Loss
        Loss of the rows.
    parameters : tuple of Array
        Weights of the first layer, (n_neurons, n_features), and of the second, (n_neurons,
        n_outputs).
    """
    W, A = parameters
    xp = namespace(W)
    if xp is np:
        return _gradients_by_blocks(X, y, share, alpha, loss, parameters)
    hidden = xp.maximum(X @ W.T, 0)
    error = share * loss.gradient(hidden @ A, y)
    back = xp.where(hidden > 0, error @ A.T, 0)
    return back.T @ X + alpha * W, hidden.T @ error + alpha * A


def _gradients_by_blocks(
    X: Array, y: Array, share: Array, alpha: float, loss: Loss, parameters: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Return what :func:`gradients` does, in NumPy and in blocks of rows that fit in a cache."""
    W, A = parameters
    slope_W, slope_A = alpha * W, alpha * A
    WT, AT = np.ascontiguousarray(W.T), np.ascontiguousarray(A.T)
    shape = (min(_BLOCK, len(X)), len(W))
    hidden_rows, back_rows = np.empty(shape, W.dtype), np.empty(shape, W.dtype)
    for first in range(0, len(X), _BLOCK):
        rows = slice(first, first + _BLOCK)
        x = X[rows]
        hidden = np.matmul(x, WT, out=hidden_rows[: len(x)])
        np.maximum(hidden, 0, out=hidden)
        error = share[rows] * loss.gradient(hidden @ A, y[rows])
        back = np.matmul(error, AT, out=back_rows[: len(x)])
        np.multiply(back, hidden > 0, out=back)
        slope_W += back.T @ x
        slope_A += hidden.T @ error
    return slope_W, slope_A


def _adam(
    X: Array,
    y: Array,
    share: Array,
    alpha: float,
    loss: Loss,
    carry: _Carry,
    first: Any,
    last: Any,
    n_steps: Any,
    learning_rate: float,
) -> _Carry:
    """Take steps of Adam on either array library: a plain loop, or a compiled one."""
    xp = namespace(X)
    beta1, beta2 = 0.9, 0.99

    def step(k: Any, carry: _Carry) -> _Carry:
        parameters, mean, square = carry
        t = k + 1.0
        rate = learning_rate * 0.5 * (1 + xp.cos(xp.pi * k / n_steps))
        rate = rate * xp.sqrt(1 - beta2**t) / (1 - beta1**t)
        slopes = gradients(X, y, share, alpha, loss, parameters)
        moved = []
        for p, m, v, g in zip(parameters, mean, square, slopes, strict=True):
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            moved.append(((p - rate * m / (xp.sqrt(v) + 1e-8)).astype(p.dtype), m, v))
        return tuple(zip(*moved, strict=True))  # type: ignore[return-value]

    if xp is not np:
        import jax

        return jax.lax.fori_loop(first, last, step, carry)
    for k in range(first, last):
        carry = step(k, carry)
    return carry


_adam_compiled = Compiled(_adam)
