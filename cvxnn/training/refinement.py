"""Refinement: keep the patterns that a solution uses, add those that would lower the objective."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.dual_point import DualPoint
from cvxnn.convex.enumeration import enumerate_patterns
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result
from cvxnn.numerics.phases import tell
from cvxnn.numerics.threads import limits_threads
from cvxnn.training import pricing
from cvxnn.training.pattern_transfer import positions, product_flops, spread, spread_weights

# Neurons below this part of the largest are left out before patterns are added.
_ACTIVE = 1e-3
# Part of the mean block by which weights move into their cones for an interior point.
_SHIFT = 0.1
# Data of at most this many patterns have all of them priced, in about a second for each output.
_MOST_PRICED = 10_000
# A search that found nothing is repeated with as many times the starts.
_HARDER = 16


@limits_threads(lambda program, found, result, n_patterns, *_: product_flops(program, n_patterns))
def refine(
    program: ConvexProgram,
    found: ActivationPatterns,
    result: Result,
    n_patterns: int,
    rng: np.random.RandomState,
    every: Callable[[], ActivationPatterns | None],
) -> tuple[ActivationPatterns, ActivationPatterns, float]:
    """Return patterns to keep, better ones to add, and the best gain over its price.

    Without better ones, a gain is a proof that there are none, and nan says that there is no proof.

    Parameters
    ----------
    program : ConvexProgram
        Program of the last solve, on the host.
    found : ActivationPatterns
        Its patterns.
    result : Result
        Its solution, with a dual point.
    n_patterns : int
        Most patterns to add. Twice as many random starts are tried, and 16 times these where they
        find nothing and the patterns cannot be listed.
    rng : RandomState
        Draws the starts.
    every : callable
        Returns all patterns of the data, or None; see :func:`all_patterns`. It is called only where
        the search finds nothing.
    """
    tell("looking for patterns")
    weights, dual = result.weights, result.dual
    assert dual is not None
    norms = np.linalg.norm(weights.blocks, axis=-1).max(axis=(0, 1))
    kept = found.take(np.flatnonzero(norms > _ACTIVE * norms.max(initial=0)))
    for n_starts in (2 * n_patterns, 2 * n_patterns * _HARDER):
        starts = pricing.directions(program, weights, dual, n_starts, rng)
        gates, gains = pricing.price(program, dual, starts)
        better = ActivationPatterns.from_gates(program.operator.X, gates)
        better = better.take(np.flatnonzero(positions(better, kept) < 0))
        better = better.take(pricing.far_apart(better.gates, n_patterns))
        if len(better):
            return kept, better, float(gains.max())
        listed = every()
        if listed is not None:
            others = listed.take(np.flatnonzero(positions(listed, found) < 0))
            return kept, *pricing.price_all(program, dual, others, n_patterns)
    return kept, better, np.nan


def carry(
    found: ActivationPatterns,
    result: Result,
    kept: ActivationPatterns,
    better: ActivationPatterns,
    *,
    inside: bool = False,
) -> tuple[ActivationPatterns, Result]:
    """Return the patterns of the next round, and the result of the last one as its start.

    Parameters
    ----------
    found : ActivationPatterns
        Patterns of the last round.
    result : Result
        Its solution, with a dual point.
    kept, better : ActivationPatterns
        Patterns to keep and to add, from :func:`refine`.
    inside : bool, default=False
        Whether weights of both signs of each pattern move alike along its gate, which leaves the
        predictions as they are and shows an interior point the inside of each cone.
    """
    union = kept.union(better)
    weights = spread_weights(result.weights, found, union)
    if inside and union.gates.shape == weights.blocks.shape[2:]:
        lengths = np.linalg.norm(union.gates, axis=1, keepdims=True)
        directions = union.gates / np.maximum(lengths, np.finfo(union.gates.dtype).tiny)
        size = _SHIFT * np.linalg.norm(weights.blocks, axis=-1).mean()
        weights = weights._replace(blocks=weights.blocks + size * directions)
    dual = result.dual
    assert dual is not None
    multipliers = dual.multipliers
    if multipliers is not None:
        multipliers = spread(multipliers, found, union, axis=3)
    return union, result._replace(weights=weights, dual=DualPoint(dual.residual, multipliers))


def all_patterns(X: NDArray[np.floating]) -> ActivationPatterns | None:
    """Return all patterns of data; None where they are too many, or too close to be distinguished.

    Parameters
    ----------
    X : ndarray, shape (n_samples, n_features)
        Data as the network sees it.
    """
    try:
        return enumerate_patterns(X, max_patterns=_MOST_PRICED)
    except ValueError:
        return None
