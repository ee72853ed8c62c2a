"""Training of a network through its convex program: patterns, solution, refinement, certificate.

The way from data to the step of a solver, one call a line:

.. code-block:: none

    direct (gated, squared loss, ridge)       iterative (all others)

    ConvexReLUClassifier.fit                  ConvexReLUClassifier.fit
      fit_direct                                fit_iterative
        convex.solve                              train
          _advance_on_host                          convex.solve
            Ridge.step                                _advance_on_host
                                                        InteriorPoint.step

Solvers that XLA compiles have ``_advance_and_wait`` in the place of ``_advance_on_host``, and their
steps are one compiled loop; where a program may be solved in single precision,
``convex.single_precision.solve_to_tolerance`` calls ``solve``.

Before that, ``fit`` draws patterns, by ``choose_patterns`` where there is a choice of kinds, and
asks ``measure_strength`` for the penalty parameter. A kernel that one of them builds is handed on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from cvxnn.convex.host_program import on_host
from cvxnn.convex.loop import solve
from cvxnn.convex.losses import Loss, SquaredLoss
from cvxnn.convex.operators import GatedOperator, Weights
from cvxnn.convex.patterns import ActivationPatterns, Formulation
from cvxnn.convex.penalties import NeuronGroupLasso, Penalty
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.single_precision import solve_to_tolerance
from cvxnn.convex.solver import Callback, Result, Solver, Status, relative_gap
from cvxnn.convex.solvers.automatic import automatic
from cvxnn.convex.solvers.interior_point.interior_point import InteriorPoint
from cvxnn.numerics.interrupts import no_interrupt_lost
from cvxnn.numerics.phases import tell
from cvxnn.numerics.threads import limit_threads, limits_threads
from cvxnn.training.descent import descend
from cvxnn.training.first_patterns import PatternChoice, first_patterns
from cvxnn.training.pattern_transfer import product_flops, program_over
from cvxnn.training.refinement import all_patterns, carry, refine

# Interior points go at least this far, which takes them a few iterations more than 1e-2.
_FINE_TOL = 1e-3
# Rounds end when one gains less than this part of the objective.
_LEAST_GAIN = 1e-5
# Searches for better patterns from one program to the next, each followed by local descent.
_LOCAL_ROUNDS = 4


TrainingCallback = Callable[
    [dict[str, float], Callable[[], tuple[Weights, ActivationPatterns]]], bool | None
]


class Training(NamedTuple):
    """Result of training.

    Attributes
    ----------
    result : Result
        Weights over ``patterns``, their objective, bound and gap, and the history of the last
        solve.
    patterns : ActivationPatterns
        The patterns of the program that was solved last.
    program : ConvexProgram
        That program, on the host: ``program.bound_of(result.dual)`` recomputes the bound.
    proposal_objective : float
        Network objective of the best locally trained proposal, at which the first solver started;
        ``inf`` in the gated formulation, and where there was none.
    rounds : dict of ndarray
        One entry per program solved: ``n_patterns``, ``objective`` (falls), ``dual_bound``,
        ``gap``, ``gain`` and ``time`` in seconds. The gain is that of the best pattern outside the
        program over its price: above 1, this pattern was found, and lowers the objective; at most
        1 (up to 1e-4), no pattern of the data does, which is proven, and ``dual_bound`` holds for
        networks of any width; nan, none was found, or none was looked for (``n_rounds=0``), and
        nothing is proven.
    flops : float
        Floating-point operations of proposals and solvers.
    """

    result: Result
    patterns: ActivationPatterns
    program: ConvexProgram
    proposal_objective: float
    rounds: dict[str, NDArray[np.floating]]
    flops: float


@no_interrupt_lost()
def train(
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
    n_runs: int = 1,
    n_rounds: int = 0,
    start: Result | None = None,
    solver: Solver | None = None,
    tol: float = 1e-2,
    max_iter: int | None = None,
    random_state: int | np.random.RandomState | None = None,
    callback: TrainingCallback | None = None,
) -> Training:
    """Train a two-layer network through its convex program.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Data as the network sees it, with its column of ones if there is one.
    y : ndarray, shape (n_samples, n_outputs)
        Targets in the form that the loss takes.
    alpha : float or ndarray, shape (n_outputs,)
        Penalty parameter, at least 0; one for each output with ``SquaredL2`` only.
    n_patterns : int
        Patterns to look for in each run, and to add at most in each round; at least 1. With
        ``patterns="all"``, the most that the data may have.
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
        Where the first patterns come from, ``"local"``, ``"gaussian"``, ``"data"``,
        ``"thresholds"`` or ``"all"``, or the patterns themselves. ``"local"``: the neurons of
        short local training of the non-convex network (``cvxnn.training.proposal``); the solver
        starts at the best of these networks, and goes on until its own is better, or no network
        over the patterns can be. With several outputs the network has descended once more, by
        ``cvxnn.training.descent.descend_in_place``. ``"all"``: every
        pattern of the data, for small data of small rank (``cvxnn.convex.enumerate_patterns``); the
        bound then holds for networks of any width. The others: see
        ``cvxnn.convex.sample_patterns``.
    n_runs : int, default=1
        Local runs whose neurons are united; the program may mix neurons of all of them.
    n_rounds : int, default=0
        Rounds of refinement: drop the patterns that are not used, add those that would lower the
        objective (``cvxnn.training.pricing``), solve again. Where an interior point solves programs
        of the ReLU formulation without a linear part, up to four rounds share a program: in
        between, the neurons descend (``cvxnn.training.descent``). The objective falls with each
        program; rounds end early when no pattern is found that lowers it. Data of at most 10,000
        patterns have all of them priced, others are searched from many starts.
    start : Result, optional
        Result of a previous training over the same patterns, which ``patterns`` holds then.
    solver : Solver, optional
        By default ``cvxnn.convex.solvers.automatic`` chooses one for ``tol`` and ``max_iter``.
    tol : float, default=1e-2
        Relative duality gap to reach. An interior-point method that was not asked for by
        ``solver`` goes to 1e-3 at least, which takes it a few iterations more.
    max_iter : int, optional
        Most iterations of a solve; the default of the solver otherwise.
    random_state : int, RandomState or None
        Draws patterns, starts of the local search and of the search for better patterns.
    callback : callable, optional
        As for ``cvxnn.convex.solve``, with a function that returns both weights and patterns.
        Rounds end where it returns true.

    Returns
    -------
    Training
        Of all rounds, the solution of lowest objective.

    Raises
    ------
    ValueError
        For unknown ``patterns``, or ``"all"`` of data that may have more than ``n_patterns``.
    TypeError
        For refinement with a penalty other than the neuron group lasso.
    """
    rng = check_random_state(random_state)
    base = ConvexProgram(
        GatedOperator(X, np.zeros((X.shape[0], 0), bool)),
        y,
        alpha,
        loss or SquaredLoss(),
        penalty or NeuronGroupLasso(),
        sample_weight,
        formulation,
        skip,
    )
    base.check()
    if n_rounds > 0 and type(base.penalty) is not NeuronGroupLasso:
        raise TypeError(
            f"n_rounds={n_rounds} needs NeuronGroupLasso, got {type(base.penalty).__name__}: "
            "the price of a pattern is not defined otherwise; set n_rounds=0."
        )
    began = time.perf_counter()
    found, proposal, flops = first_patterns(base, n_patterns, patterns, n_runs, rng)
    proposed = float("inf")
    beginning: Result | Weights | None = start
    if proposal is not None and formulation == "relu":
        with limit_threads(product_flops(base, len(found))):
            proposed = float(program_over(base, found).evaluate(proposal).network_objective)
        beginning = proposal
    every = cache(partial(all_patterns, X))
    rows: list[dict[str, float]] = []
    first: tuple[Result, ActivationPatterns, ConvexProgram] | None = None
    best = first
    round_ = 0
    while True:
        program = program_over(base, found)
        chosen = solver or _solver_for(program, tol, max_iter, refining=n_rounds > 0)
        tell("convex program")
        watch = _with_patterns(callback, found)
        own = solver is not None or chosen.on_host
        solving = solve if own else solve_to_tolerance
        result = solving(program, chosen, start=beginning, incumbent=proposed, callback=watch)
        flops += chosen.flops(program, result) or 0.0
        first = first or (result, found, program)
        previous = best[0].objective if best else np.inf
        if not result.objective > previous:
            best = result, found, program
        row = {
            "n_patterns": len(found),
            "objective": min(result.objective, previous),
            "dual_bound": result.dual_bound,
            "gap": result.gap,
            "gain": np.nan,
            "time": time.perf_counter() - began,
        }
        rows.append(row)
        little = previous - result.objective < _LEAST_GAIN * abs(previous)
        if n_rounds == 0 or result.dual is None or result.status is Status.STOPPED:
            break
        kept, better, row["gain"] = refine(program, found, result, n_patterns, rng, every)
        if len(better) == 0 or round_ == n_rounds or (round_ > 0 and little):
            break
        inside = formulation == "relu" and isinstance(chosen, InteriorPoint)
        if inside and skip is None:
            most = min(_LOCAL_ROUNDS, n_rounds - round_)
            # As many new neurons as in one round without descent.
            few = -(-n_patterns // most)
            moved = descend(base, result.weights, better, few, most, rng)
            flops += moved.flops
            gained = result.objective - moved.objective >= _LEAST_GAIN * result.objective
            if gained and len(moved.patterns):  # they may have left all rows behind
                round_ += moved.n_rounds
                found, beginning = moved.patterns, moved.weights
                continue
        round_ += 1
        found, beginning = carry(found, result, kept, better, inside=inside)
    assert first is not None
    assert best is not None
    result, found, program = best
    if skip is None and proposal is not None and proposed < result.objective:
        # Its neurons have left their patterns, or a solver stopped before it had refined them.
        result, found, program = first
        result = _with_point(result, proposal, program, chosen.tol)
    if skip is None:
        # Where all neurons should be off, an interior point leaves tiny ones of random directions.
        without = float((base.share * base.loss.value(np.zeros_like(y), y)).sum())
        if result.objective >= without - program.rounding():
            zero = _with_point(result, program.zeros(), program, chosen.tol)
            # A tolerance below rounding is one still.
            if zero.gap <= max(result.gap, chosen.tol):
                result = zero
    rounds = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Training(result, found, program, proposed, rounds, flops)


@limits_threads(lambda _, __, program, ___: product_flops(program, program.operator.n_patterns))
def _with_point(result: Result, weights: Weights, program: ConvexProgram, tol: float) -> Result:
    """Return the result with another point in place of the solver's, judged by the same proof."""
    # In the precision in which a proof is checked: tiny objectives have few digits in another.
    objective = float(on_host(program, np.float64).evaluate(weights).network_objective)
    gap = relative_gap(objective, result.dual_bound, program.rounding())
    proven = gap <= tol and result.status is not Status.STOPPED
    status = Status.CONVERGED if proven else result.status
    return result._replace(weights=weights, objective=objective, gap=gap, status=status)


def _with_patterns(callback: TrainingCallback | None, found: ActivationPatterns) -> Callback | None:
    if callback is None:
        return None
    return lambda row, weights: callback(row, lambda: (weights(), found))


def _solver_for(
    program: ConvexProgram, tol: float, max_iter: int | None, *, refining: bool
) -> Solver:
    chosen = automatic(program, tol=tol, max_iter=max_iter)
    if not isinstance(chosen, InteriorPoint):
        return chosen
    if refining:
        # Multipliers of the program itself, and a few iterations more, tell used patterns from
        # unused ones, and true gains from slack.
        return replace(chosen, tol=min(tol, 1e-6), certify="program")
    return replace(chosen, tol=min(tol, _FINE_TOL))
