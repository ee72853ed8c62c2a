"""Networks from data: one function for programs with a closed form, one for all others.

Both are pure functions of arrays in the units of the program. The penalty parameter is decided
before (``cvxnn.training.strength.measure_strength``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from cvxnn.convex.loop import solve
from cvxnn.convex.losses import Loss, SquaredLoss
from cvxnn.convex.operators import GatedOperator, Weights, paired
from cvxnn.convex.patterns import ActivationPatterns, Formulation
from cvxnn.convex.penalties import Penalty, SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result, Solver
from cvxnn.convex.solvers.automatic import automatic
from cvxnn.convex.solvers.ridge.ridge import Ridge
from cvxnn.convex.solvers.ridge.ridge_flops import kernel_flops
from cvxnn.network import TwoLayerNetwork, recover
from cvxnn.training.first_patterns import PatternChoice, first_patterns
from cvxnn.training.training import Training, train

# Neurons below this part of the largest are zero up to the accuracy of a solver.
_DEAD = 1e-6

# Called after each measurement with the newest row of the history and a function that returns the
# present network; the solver stops where it returns true.
NetworkCallback = Callable[[dict[str, float], Callable[[], TwoLayerNetwork]], bool | None]


class Fit(NamedTuple):
    """A network and how it was found.

    Attributes
    ----------
    network : TwoLayerNetwork
        Network of inputs as they were given: the one of best score where there was a score, else
        the one that solves the program.
    training : Training
        Program, solution and certificate.
    alpha : float or ndarray, shape (n_outputs,)
        Penalty parameter of the program.
    scores : ndarray or None
        Scores of all networks looked at, one for each measurement or for each ``alpha``; None
        without a score.
    """

    network: TwoLayerNetwork
    training: Training
    alpha: Any
    scores: NDArray[np.floating] | None


class EarlyStopping:
    """Scores of networks on data of their own: which is best, and when to stop.

    Parameters
    ----------
    score : callable
        Function from a network to a number, the larger the better.
    patience : int
        Measurements without a better score after which to stop.
    """

    def __init__(self, score: Callable[[TwoLayerNetwork], float], patience: int) -> None:
        self.score, self.patience = score, patience
        self.scores: list[float] = []
        self.best: TwoLayerNetwork | None = None

    def is_best(self, network: TwoLayerNetwork) -> bool:
        """Score one more network; return whether none before was as good.

        Parameters
        ----------
        network : TwoLayerNetwork
            Network to score.
        """
        score = self.score(network)
        best = not self.scores or score > max(self.scores)
        if best:
            self.best = network
        self.scores.append(score)
        return best

    def look(self, network: TwoLayerNetwork) -> bool:
        """Score one more network; return whether to stop.

        Parameters
        ----------
        network : TwoLayerNetwork
            Network to score.
        """
        self.is_best(network)
        return len(self.scores) - 1 - int(np.argmax(self.scores)) >= self.patience


def fit_direct(
    X: NDArray[np.floating],
    y: NDArray[np.floating],
    alpha: float | NDArray[np.floating],
    n_patterns: int,
    *,
    sample_weight: NDArray[np.floating] | None = None,
    skip: float | None = None,
    patterns: PatternChoice | ActivationPatterns = "gaussian",
    bias: bool = False,
    pairs: NDArray[np.intp] | None = None,
    kernel: NDArray[np.floating] | None = None,
    start: Result | None = None,
    solver: Solver | None = None,
    tol: float = 1e-2,
    max_iter: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    score: Callable[[TwoLayerNetwork], float] | None = None,
    factors: ArrayLike = (1.0,),
    callback: NetworkCallback | None = None,
) -> Fit:
    r"""Fit a gated network with squared loss and ridge penalty, which one linear system solves.

    .. math::

        \min_z \; \tfrac1{2n} \|f(X) - y\|^2 + \tfrac\alpha2 \sum_i \|z_i\|^2, \qquad
        f(x) = \sum_i 1(x^T g_i \ge 0)\, x^T z_i

    Parameters
    ----------
    X : ndarray or CSR matrix, shape (n_samples, n_features)
        Data as the network sees it, with its column of ones if there is one.
    y : ndarray, shape (n_samples, n_outputs)
        Targets.
    alpha : float or ndarray, shape (n_outputs,)
        Penalty parameter, above 0.
    n_patterns : int
        Patterns to look for, at least 1, or the most of ``"all"``; not used where ``patterns``
        holds them.
    sample_weight : ndarray, shape (n_samples,), optional
        Positive weights of the rows; equal by default.
    skip : float, optional
        Ridge of a linear part, above 0; none by default.
    patterns : PatternChoice or ActivationPatterns, default="gaussian"
        Where the patterns come from, or the patterns; see :func:`cvxnn.training.train`.
    bias : bool, default=False
        Whether the last column of ``X`` is one of ones, whose weights become biases.
    pairs : ndarray of int, shape (n_pairs, 2), optional
        Rows of ``X`` whose difference of outputs each target belongs to
        (``cvxnn.convex.PairedOperator``); targets and weights then have one row for each pair, and
        ``patterns`` must be ActivationPatterns.
    kernel : ndarray, shape (n_samples, n_samples), optional
        Kernel of the data and patterns without a linear part, where it is known
        (``cvxnn.training.strength.Strength``); it is not computed again then.
    start : Result, optional
        Solution of a similar program over the same patterns, for solvers that iterate.
    solver : Solver, optional
        By default ``Ridge(tol, max_iter)``.
    tol : float, default=1e-2
        Relative duality gap to reach.
    max_iter : int, optional
        Most iterations of a solver that iterates.
    random_state : int, RandomState or None
        Draws patterns.
    score : callable, optional
        Function from a network to a number, the larger the better, such as its accuracy on
        validation data.
    factors : array-like, shape (n_factors,), default=(1.0,)
        Factors of ``alpha``, of which the one is used whose network has the best score, the first
        among equals.
    callback : callable, optional
        Called with the newest row of the history and a function that returns the network.

    Returns
    -------
    Fit
        That of the factor that is used; or the first one whose objective is not finite, if there
        is one.

    Raises
    ------
    ValueError, TypeError
        If the solver does not take the program; the message names those that do.
    """
    rng = check_random_state(random_state)
    early = None if score is None else EarlyStopping(score, 1)
    best: Fit | None = None
    flops, values = 0.0, np.asarray(factors, float)
    for factor in values:
        value = np.asarray(alpha, float)[()] * factor
        began = time.perf_counter()
        base = ConvexProgram(
            GatedOperator(X, np.zeros((X.shape[0], 0), bool)),
            y,
            value,
            SquaredLoss(),
            SquaredL2(),
            sample_weight,
            "gated",
            skip,
        )
        found, _, spent = first_patterns(base, n_patterns, patterns, 1, rng)
        operator = paired(X, found.mask, pairs)
        program = replace(base, operator=operator)
        chosen = solver or automatic(program, tol=tol, max_iter=max_iter)
        if isinstance(chosen, Ridge):
            if kernel is None and len(values) > 1 and isinstance(patterns, ActivationPatterns):
                kernel = chosen.kernel_of(program)
                if kernel is not None:
                    flops += kernel_flops(X.shape[0], X.shape[1], len(found))
            if kernel is not None:
                chosen = replace(chosen, kernel=kernel)

        def look(
            row: dict[str, float],
            weights: Callable[[], Weights],
            found: ActivationPatterns = found,
        ) -> bool | None:
            assert callback is not None
            return callback(row, lambda: network_of(weights(), found, "gated", bias=bias))

        watch = None if callback is None else look
        result = solve(program, chosen, start=start, callback=watch)
        flops += spent + (chosen.flops(program, result) or 0.0)
        row = {
            "n_patterns": float(len(found)),
            "objective": result.objective,
            "dual_bound": result.dual_bound,
            "gap": result.gap,
            "gain": np.nan,
            "time": time.perf_counter() - began,
        }
        rounds = {name: np.array([number]) for name, number in row.items()}
        training = Training(result, found, program, float("inf"), rounds, flops)
        network = network_of(result.weights, found, "gated", bias=bias)
        fit = Fit(network, training, value, None)
        if not np.isfinite(result.objective):
            return fit
        if early is None or early.is_best(network):
            best = fit
    assert best is not None
    scores = None if early is None else np.array(early.scores)
    return best._replace(training=best.training._replace(flops=flops), scores=scores)


def fit_iterative(
    X: NDArray[np.floating],
    y: NDArray[np.floating],
    alpha: float | NDArray[np.floating],
    n_patterns: int,
    *,
    loss: Loss | None = None,
    penalty: Penalty | None = None,
    sample_weight: NDArray[np.floating] | None = None,
    formulation: Formulation = "relu",
    skip: float | None = None,
    patterns: PatternChoice | ActivationPatterns = "local",
    bias: bool = False,
    n_rounds: int = 0,
    start: Result | None = None,
    solver: Solver | None = None,
    tol: float = 1e-2,
    max_iter: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    score: Callable[[TwoLayerNetwork], float] | None = None,
    patience: int = 5,
    callback: NetworkCallback | None = None,
) -> Fit:
    """Fit a network of any formulation, loss and penalty by a solver that iterates.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Data as the network sees it, with its column of ones if there is one.
    y : ndarray, shape (n_samples, n_outputs)
        Targets in the form that the loss takes.
    alpha : float or ndarray, shape (n_outputs,)
        Penalty parameter, at least 0; one for each output with ``SquaredL2`` only.
    n_patterns : int
        Patterns to look for, at least 1, or the most of ``"all"``, and to add at most in each
        round.
    loss : Loss, optional
        Squared loss by default.
    penalty : Penalty, optional
        Neuron group lasso by default.
    sample_weight : ndarray, shape (n_samples,), optional
        Positive weights of the rows; equal by default.
    formulation : {"relu", "gated"}, default="relu"
        Whether neurons keep their patterns by constraints, or by gates of their own.
    skip : float, optional
        Ridge of a linear part, at least 0; none by default.
    patterns : PatternChoice or ActivationPatterns, default="local"
        Where the first patterns come from, or the patterns; see :func:`cvxnn.training.train`.
    bias : bool, default=False
        Whether the last column of ``X`` is one of ones, whose weights become biases.
    n_rounds : int, default=0
        Most rounds of refinement; see :func:`cvxnn.training.train`.
    start : Result, optional
        Solution of a similar program over the same patterns.
    solver : Solver, optional
        By default chosen by cost (``cvxnn.convex.automatic``).
    tol : float, default=1e-2
        Relative duality gap to reach.
    max_iter : int, optional
        Most iterations; the default of the solver otherwise.
    random_state : int, RandomState or None
        Draws patterns and starts of the local search.
    score : callable, optional
        Function from a network to a number, the larger the better, such as its accuracy on
        validation data. The network of best score is returned, and training stops when none is
        better.
    patience : int, default=5
        Measurements without a better score after which to stop.
    callback : callable, optional
        Called after each measurement with the newest row of the history and a function that
        returns the present network; training stops where it returns true.

    Returns
    -------
    Fit
        Its certificate belongs to where the solver stopped, the network to the best score.

    Raises
    ------
    ValueError, TypeError
        As :func:`cvxnn.training.train`.
    """
    early = None if score is None else EarlyStopping(score, patience)

    def look(
        row: dict[str, float], found: Callable[[], tuple[Weights, ActivationPatterns]]
    ) -> bool:
        def network() -> TwoLayerNetwork:
            return network_of(*found(), formulation, bias=bias)

        stop = early is not None and early.look(network())
        if callback is not None:
            stop |= bool(callback(row, network))
        return stop

    training = train(
        X,
        y,
        alpha,
        n_patterns,
        loss=loss,
        penalty=penalty,
        sample_weight=sample_weight,
        formulation=formulation,
        skip=skip,
        patterns=patterns,
        n_rounds=n_rounds,
        start=start,
        solver=solver,
        tol=tol,
        max_iter=max_iter,
        random_state=random_state,
        callback=None if early is None and callback is None else look,
    )
    if early is not None and early.best is not None:
        network = early.best
    else:
        network = network_of(training.result.weights, training.patterns, formulation, bias=bias)
    return Fit(network, training, alpha, None if early is None else np.array(early.scores))


def network_of(
    weights: Weights, patterns: ActivationPatterns, formulation: Formulation, *, bias: bool
) -> TwoLayerNetwork:
    """Return the network that weights over patterns stand for, in the precision of the data.

    Parameters
    ----------
    weights : Weights
        Weights of a program.
    patterns : ActivationPatterns
        Its patterns.
    formulation : {"relu", "gated"}
        Its formulation.
    bias : bool
        Whether the last feature is a column of ones, whose weights become biases.

    Returns
    -------
    TwoLayerNetwork
        Neurons whose weights are zero, or nearly so beside the largest, are left out.
    """
    gates = patterns.gates if formulation == "gated" else None
    dtype = patterns.gates.dtype
    linear = None if weights.linear is None else np.asarray(weights.linear, dtype)
    weights = Weights(np.asarray(weights.blocks, dtype), linear)
    return recover(weights, bias=bias, tol=_DEAD, gates=gates)
