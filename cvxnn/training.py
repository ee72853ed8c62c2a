"""From data to a certified network: propose patterns, solve the program, keep the best network."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from cvxnn import local_search, patterns
from cvxnn.operators import GatedOperator
from cvxnn.problem import ConvexProgram
from cvxnn.solvers._loop import Callback, Result, precision, relative_gap, solve
from cvxnn.solvers.cronos import Cronos

PatternChoice = Literal["local", "gaussian", "data"]


class Training(NamedTuple):
    """What training found.

    Attributes
    ----------
    result : Result
        Weights over ``patterns``, their objective, bound and gap, and the solver's history.
    patterns : ActivationPatterns
        The patterns of the program that was solved.
    local_objective : float
        Network objective of the locally trained proposal; ``inf`` where there was none.
    flops : float
        Floating-point operations of the proposal and the solver.
    """

    result: Result
    patterns: patterns.ActivationPatterns
    local_objective: float
    flops: float


def train(
    X: NDArray[np.floating],
    y: NDArray[np.floating],
    alpha: float,
    n_patterns: int,
    *,
    source: PatternChoice = "local",
    solver: Cronos | None = None,
    random_state: int | np.random.RandomState | None = None,
    callback: Callback | None = None,
) -> Training:
    """Train a two-layer ReLU network through its convex program.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Data as the network sees it, with its column of ones if there is one.
    y : ndarray, shape (n_samples, n_outputs)
    alpha : float
    n_patterns : int
        Patterns to look for, at least 1.
    source : {"local", "gaussian", "data"}, default="local"
        Where they come from. ``"local"``: the neurons of a short local training of the
        non-convex network (``cvxnn.local_search``); the outcome is never worse than that network.
        The others: see ``cvxnn.patterns.sample``.
    solver : Cronos, optional
    random_state : int, RandomState or None
    callback : callable, optional
        See ``cvxnn.solvers.solve``.

    Returns
    -------
    Training
    """
    rng = check_random_state(random_state)
    local_weights = None
    if source == "local":
        network = local_search.train(X, y, alpha, n_patterns, random_state=rng)
        found, local_weights = local_search.to_program(X, network)
        if len(found) == 0:
            # Every neuron died, as happens near alpha_max: any pattern proves as much.
            found, local_weights = patterns.sample(X, n_patterns, random_state=rng), None
    elif source in ("gaussian", "data"):
        found = patterns.sample(X, n_patterns, source=source, random_state=rng)
    else:
        raise ValueError(
            f"pattern source {source!r} is unknown; expected 'local', 'gaussian' or 'data'."
        )
    # Closed patterns as padding: their weights stay zero, and one shape serves many fits.
    padding = n_patterns - len(found)
    mask = np.pad(found.mask, ((0, 0), (0, padding)))
    with precision(X.dtype):
        program = ConvexProgram(
            GatedOperator(jnp.asarray(X), jnp.asarray(mask)), jnp.asarray(y), alpha
        )
        local_objective = float("inf")
        if local_weights is not None:
            padded = np.pad(local_weights, ((0, 0), (0, 0), (0, padding), (0, 0)))
            local_objective = float(_network_objective(program, jnp.asarray(padded)))
    solver = solver or Cronos()
    result = solve(program, solver, callback=callback)
    flops = solver.flops(program, result)
    if source == "local":
        flops += local_search.flops(X.shape, n_patterns)
    result = result._replace(weights=result.weights[:, :, : len(found)])
    if local_objective < result.objective and local_weights is not None:
        result = result._replace(
            weights=local_weights,
            objective=local_objective,
            gap=relative_gap(local_objective, result.dual_bound),
        )
    return Training(result, found, local_objective, flops)


@jax.jit
def _network_objective(program: ConvexProgram, weights: Array) -> Array:
    return program.evaluate(weights).network_objective
