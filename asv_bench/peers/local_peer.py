"""Local training of the non-convex network: Adam and L-BFGS (SciPy), full batch.

The network has two neurons for each gate, as many as the convex program. Its objective is
``(1/2n) ||f - y||^2 + (alpha/2) (||W||^2 + ||a||^2)``. What is reported is the value of the same
network after each neuron is balanced, with penalty ``alpha * sum_j |a_j| ||w_j||``: never higher,
and the objective of the convex program. The gradient is written out in NumPy, which for these sizes
is several times faster than automatic differentiation: the peer is not charged for a framework.
"""

from __future__ import annotations

import time

import numpy as np
from problems import Array, Problem
from scipy.optimize import minimize
from timing import Report

LEARNING_RATES = (0.3, 0.1, 0.03, 0.01, 0.003)
MAX_STEPS = 5000
# Adam has converged when its best value fell by less than this over so many steps.
TOL, WINDOW = 1e-5, 200


class Network:
    """The objective of one problem over one flat vector: hidden weights, then output weights."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.n_neurons = problem, 2 * problem.mask.shape[1]
        self.X, self.y = problem.X, problem.y[:, 0]

    def start(self, seed: int) -> Array:
        """Draw He's initialisation, balanced: the rows of ``X`` are already divided by sqrt(d)."""
        rng = np.random.default_rng(seed)
        hidden = rng.standard_normal((self.n_neurons, self.X.shape[1])) * 2**0.5
        output = rng.standard_normal(self.n_neurons) * (2 / self.n_neurons) ** 0.5
        ratio = np.sqrt(np.abs(output) / np.linalg.norm(hidden, axis=1))
        start = np.concatenate([(hidden * ratio[:, None]).ravel(), output / ratio])
        return start.astype(self.X.dtype)

    def unpack(self, flat: Array) -> tuple[Array, Array]:
        """Hidden weights (n_neurons, d) and output weights (n_neurons,)."""
        return flat[: -self.n_neurons].reshape(self.n_neurons, -1), flat[-self.n_neurons :]

    def value_and_gradient(self, flat: Array) -> tuple[float, Array]:
        """Objective with weight decay, and its gradient."""
        alpha, n = self.problem.alpha, len(self.y)
        flat = flat.astype(self.X.dtype, copy=False)
        hidden, output = self.unpack(flat)
        active = np.maximum(self.X @ hidden.T, 0)
        error = active @ output - self.y
        value = error @ error / (2 * n) + alpha / 2 * (flat @ flat)
        gradient = alpha * flat
        into_hidden, into_output = self.unpack(gradient)
        error /= n
        into_output += active.T @ error
        into_hidden += ((active > 0) * error[:, None]).T @ self.X * output[:, None]
        return float(value), gradient

    def balanced(self, flat: Array) -> float:
        """Objective after balancing, in float64."""
        hidden, output = self.unpack(flat.astype(np.float64))
        neurons = np.abs(output)[:, None] * hidden
        U = np.stack([neurons * (output > 0)[:, None], neurons * (output < 0)[:, None]])
        return self.problem.network_objective(U)


def _adam(network: Network, seed: int, rate: float, deadline: float) -> tuple[Array, bool]:
    """Best weights on the way, and whether it came to its end."""
    flat = network.start(seed)
    first, second = np.zeros_like(flat), np.zeros_like(flat)
    best, before, kept = np.inf, np.inf, flat
    for step in range(1, MAX_STEPS + 1):
        value, gradient = network.value_and_gradient(flat)
        if value < best:
            best, kept = value, flat
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient**2 - second)
        scale = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        flat = flat - scale * first / (np.sqrt(second) + 1e-8)
        if step % WINDOW == 0:
            if not before - best > TOL * best:
                break
            before = best
        if time.process_time() > deadline:
            return kept, False
    return kept, True


def _lbfgs(network: Network, seed: int, deadline: float) -> tuple[Array, bool]:
    """Weights, and whether it came to its end."""

    def watch(_: Array) -> None:
        if time.process_time() > deadline:
            raise StopIteration

    def value_and_gradient(flat: Array) -> tuple[float, Array]:
        value, gradient = network.value_and_gradient(flat)
        return value, gradient.astype(np.float64)

    options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "ftol": 1e-9, "gtol": 1e-8}
    start = network.start(seed).astype(np.float64)
    found = minimize(
        value_and_gradient, start, jac=True, method="L-BFGS-B", callback=watch, options=options
    )
    return found.x, time.process_time() <= deadline


def adam(problem: Problem, report: Report, limit: float, n_runs: int = 20) -> None:
    """Tune the learning rate on the first two seeds, then train from ``n_runs`` others."""
    network = Network(problem)
    report.begin()
    began = time.process_time()
    reached = {}
    # Every rate gets its share of the limit, so that none is judged by its place in the queue.
    share = limit / (2 * len(LEARNING_RATES))
    for rate in LEARNING_RATES:
        runs = [_adam(network, seed, rate, time.process_time() + share)[0] for seed in (0, 1)]
        reached[rate] = float(np.mean([network.balanced(weights) for weights in runs]))
    rate = min(reached, key=lambda rate: reached[rate])
    report.detail(learning_rate=rate, tuning_seconds=time.process_time() - began)
    deadline = time.process_time() + limit
    for run in range(n_runs):
        began = time.process_time()
        weights, finished = _adam(network, 2 + run, rate, deadline)
        if not _say(network, report, run, began, weights, finished):
            break


def lbfgs(problem: Problem, report: Report, limit: float, n_runs: int = 20) -> None:
    """Train from ``n_runs`` starts, the same as Adam's."""
    network = Network(problem)
    report.begin()
    deadline = time.process_time() + limit
    for run in range(n_runs):
        began = time.process_time()
        weights, finished = _lbfgs(network, 2 + run, deadline)
        if not _say(network, report, run, began, weights, finished):
            break


def _say(
    network: Network, report: Report, run: int, began: float, weights: Array, finished: bool
) -> bool:
    """Report one run; ``finished`` is handed back."""
    report(run, time.process_time() - began, network.balanced(weights))
    report.detail(finished=run + finished, weight_decay_form=network.value_and_gradient(weights)[0])
    return finished
