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

# Gates, result, and what patterns were asked for.
WarmStart: TypeAlias = tuple[NDArray[np.floating], Result, dict[str, Any]]


def warm_start(
    patterns: convex.ActivationPatterns, result: Result, request: dict[str, Any]
) -> WarmStart:
    """Return what the next fit may begin with.

    It has no status: a pickle that runs no code cannot hold our enumerations.
    """
    return patterns.gates, result._replace(status=None), request  # type: ignore[arg-type]


def warm_patterns(
    warm: WarmStart,
    request: dict[str, Any],
    inputs: Rows,
    targets: NDArray[np.floating],
    formulation: Formulation,
    *,
    linear: bool,
) -> tuple[convex.ActivationPatterns, Result] | None:
    """Return patterns and result of the last fit for these rows; None where they do not fit.

    ``linear`` says whether the network has a linear part.
    """
    gates, result, before = warm
    # Few rows know few patterns; the list of all is one of these very rows.
    if request["n_rows"] > 2 * before["n_rows"] or request["patterns"] == "all":
        return None
    if {**request, "n_rows": 0} != {**before, "n_rows": 0}:
        return None
    weights, shape = result.weights, (targets.shape[1], 2 if formulation == "relu" else 1)
    if gates.shape[-1] != inputs.shape[1] or weights.blocks.shape[:2] != shape:
        return None
    if (weights.linear is not None) != linear:
        return None
    mask = open_where(inputs, gates.astype(inputs.dtype))
    if result.dual is not None and len(result.dual.residual) != len(targets):
        result = result._replace(dual=None)
    return convex.ActivationPatterns(mask, gates), result
