"""What a fit leaves to the next one, which begins at its patterns and its solution."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cvxnn import convex  # names load when first used: JAX is for fits only
from cvxnn.convex.patterns import Formulation
from cvxnn.convex.solver import Result
from cvxnn.estimators._rows import Rows
from cvxnn.numerics.gates import open_where

# Gates, result, what patterns were asked for, and the factors of the features.
WarmStart: TypeAlias = tuple[
    NDArray[np.floating], Result, dict[str, Any], NDArray[np.floating] | None
]


def warm_start(
    patterns: convex.ActivationPatterns,
    result: Result,
    request: dict[str, Any],
    factors: NDArray[np.floating] | None,
) -> WarmStart:
    """Return what the next fit may begin with.

    It has no status: a pickle that runs no code cannot hold our enumerations.
    """
    bare = result._replace(status=None)  # type: ignore[arg-type]
    return patterns.gates, bare, request, factors


def is_of_use(
    warm: WarmStart,
    request: dict[str, Any],
    n_inputs: int,
    n_outputs: int,
    formulation: Formulation,
    *,
    linear: bool,
) -> bool:
    """Return whether patterns and result of the last fit are those of such a network.

    ``linear`` says whether the network has a linear part.
    """
    gates, result, before, _ = warm
    # Few rows know few patterns; the list of all is one of these very rows.
    if request["n_rows"] > 2 * before["n_rows"] or request["patterns"] == "all":
        return False
    if {**request, "n_rows": 0} != {**before, "n_rows": 0}:
        return False
    weights, shape = result.weights, (n_outputs, 2 if formulation == "relu" else 1)
    if gates.shape[-1] != n_inputs or weights.blocks.shape[:2] != shape:
        return False
    return (weights.linear is not None) == linear


def warm_patterns(
    warm: WarmStart, inputs: Rows, targets: NDArray[np.floating]
) -> tuple[convex.ActivationPatterns, Result]:
    """Return patterns and result of the last fit for these rows."""
    gates, result, *_ = warm
    mask = open_where(inputs, gates.astype(inputs.dtype))
    if result.dual is not None and len(result.dual.residual) != len(targets):
        result = result._replace(dual=None)
    return convex.ActivationPatterns(mask, gates), result
