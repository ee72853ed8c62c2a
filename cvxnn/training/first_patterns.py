"""The first patterns of a program: drawn, listed, or found by local training."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.enumeration import enumerate_patterns
from cvxnn.convex.operators import Weights
from cvxnn.convex.pattern_sampling import sample_patterns
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.penalties import NeuronGroupLasso
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.threads import limits_threads
from cvxnn.training import proposal
from cvxnn.training.descent import descend_in_place
from cvxnn.training.pattern_transfer import product_flops, program_over, spread_weights

PatternChoice = Literal["local", "gaussian", "data", "thresholds", "all"]

# Targets of at most this many values are classes, whose rows make good pairs for gates.
_MOST_CLASSES = 100


def draw_patterns(
    X: NDArray[np.floating],
    y: NDArray[np.floating],
    n_patterns: int,
    patterns: Literal["gaussian", "data", "thresholds", "all"],
    rng: np.random.RandomState,
    factors: NDArray[np.floating] | None = None,
) -> ActivationPatterns:
    """Draw patterns that need no training; those of ``"data"`` lie between classes, if any.

    Thresholds need a column of ones at the end of the data.

    Parameters
    ----------
    X : ndarray or CSR matrix, shape (n_samples, n_features)
        Data as the network sees it.
    y : ndarray, shape (n_samples, n_outputs)
        Targets.
    n_patterns : int
        Patterns to look for, at least 1.
    patterns : {"gaussian", "data", "thresholds", "all"}
        Where they come from; see ``cvxnn.training.train``.
    rng : RandomState
        Draws them.
    factors : ndarray, shape (n_features,), optional
        Relative chances of the features of thresholds; equal by default.
    """
    if patterns == "all":
        return enumerate_patterns(X, max_patterns=n_patterns)
    if patterns == "gaussian":
        return sample_patterns(X, n_patterns, random_state=rng)
    if patterns == "thresholds":
        return sample_patterns(
            X,
            n_patterns,
            patterns=patterns,
            n_constant=1,
            feature_chances=factors,
            random_state=rng,
        )
    classes, codes = np.unique(y, axis=0, return_inverse=True)
    labels = codes.ravel() if 1 < len(classes) <= _MOST_CLASSES else None
    # Bisectors need an offset, which only a column of ones can carry.
    n_constant = int(X.shape[1] > 1 and X[0, -1] != 0 and np.all(X[:, -1] == X[0, -1]))
    return sample_patterns(
        X, n_patterns, patterns="data", n_constant=n_constant, y=labels, random_state=rng
    )


@limits_threads(lambda base, n_patterns, *_: product_flops(base, n_patterns))
def first_patterns(
    base: ConvexProgram,
    n_patterns: int,
    patterns: PatternChoice | ActivationPatterns,
    n_runs: int,
    rng: np.random.RandomState,
) -> tuple[ActivationPatterns, Weights | None, float]:
    """Return first patterns, the best local network as weights over them, and the flops spent.

    With several outputs, neurons of the network have descended once more, outside of the patterns.

    Parameters
    ----------
    base : ConvexProgram
        Program without patterns.
    n_patterns : int
        Patterns to look for in each run.
    patterns : PatternChoice or ActivationPatterns
        Where they come from, or the patterns; see ``cvxnn.training.train``.
    n_runs : int
        Local runs whose neurons are united.
    rng : RandomState
        Draws patterns and starts.
    """
    X, y = base.operator.X, base.y
    if isinstance(patterns, ActivationPatterns):
        return patterns, None, 0.0
    if patterns in ("gaussian", "data", "thresholds", "all"):
        return draw_patterns(X, y, n_patterns, patterns, rng), None, 0.0
    if patterns != "local":
        raise ValueError(
            f"patterns={patterns!r}; expected 'local', 'gaussian', 'data', 'thresholds', "
            "'all' or ActivationPatterns. What 'adaptive' is to estimators, "
            "patterns='local' with n_rounds=10 is here."
        )
    found: ActivationPatterns | None = None
    best: tuple[ActivationPatterns, Weights] | None = None
    lowest = np.inf
    for _ in range(n_runs):
        network = proposal.propose(
            X,
            y,
            float(np.mean(base.alpha)),
            n_patterns,
            loss=base.loss,
            sample_weight=base.sample_weight,
            random_state=rng,
        )
        own, weights = proposal.to_program(X, network)
        if len(own) == 0:
            continue
        found = own if found is None else found.union(own)
        value = float(
            program_over(replace(base, formulation="relu"), own).evaluate(weights).network_objective
        )
        if value < lowest:
            best, lowest = (own, weights), value
    flops = n_runs * proposal.proposal_flops(X.shape, n_patterns, y.shape[1])
    if found is None or best is None:
        # Every neuron died, as happens near alpha_max: any pattern proves as much.
        return sample_patterns(X, n_patterns, random_state=rng), None, flops
    weights = spread_weights(best[1], best[0], found)
    if y.shape[1] > 1 and base.formulation == "relu" and type(base.penalty) is NeuronGroupLasso:
        # Outputs of local training share neurons; those of the program do not.
        weights, more = descend_in_place(base, weights)
        flops += more
    return found, weights, flops
