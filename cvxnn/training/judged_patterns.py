"""A choice between kinds of patterns by the leave-one-out error of their closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.program import ConvexProgram
from cvxnn.training.row_sample import sample_rows
from cvxnn.training.spectrum import Spectrum, leave_one_out
from cvxnn.training.training import draw_patterns

# Rows that are looked at, unless outputs are many: then as many of each, up to a limit.
_ROWS, _ROWS_OF_OUTPUT, _LIMIT = 256, 4, 1024
# Least gain over the first kind, as a part of its error: less is chance.
_GAIN = 0.02


def choose_patterns(
    program: ConvexProgram,
    n_patterns: int,
    kinds: Sequence[Any],
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
    shared: bool = False,
) -> Any:
    """Return the kind of patterns that predicts rows left out with least error.

    The first kind stays unless another has an error that is 2 % smaller. The error is the squared
    one of the closed form at the best strength, on the same rows for all: a sample of 256, on which
    the patterns are drawn, and which tells kinds apart about as well as all rows do.

    Parameters
    ----------
    program : ConvexProgram
        Data on the host, in the gated formulation; its own patterns are not used.
    n_patterns : int
        Patterns of each kind, at least 1.
    kinds : sequence of str
        Names that ``train`` knows for patterns without training.
    random_state : RandomState
        Draws the rows and patterns; it is left as it was.
    units : ndarray, shape (n_samples,), optional
        Units of data that each row consists of, at least 1; by default each is one.
    groups : ndarray of int, shape (n_samples,), optional
        Groups of rows that are left out as wholes; by default single units are.
    shared : bool, default=False
        Whether all outputs have the same strength.

    Returns
    -------
    str
        One of ``kinds``.
    """
    if len(kinds) == 1:
        return kinds[0]
    state = random_state.get_state()
    most = max(_ROWS, min(_ROWS_OF_OUTPUT * program.y.shape[1], _LIMIT))
    sample = sample_rows(program, random_state, units=units, groups=groups, most=most)
    X, y = sample.program.operator.X, sample.program.y
    errors = []
    for kind in kinds:
        found = draw_patterns(X, y, n_patterns, kind, random_state)
        pilot = replace(sample.program, operator=GatedOperator(X, found.mask))
        out = leave_one_out(sample._replace(program=pilot), Spectrum.of(pilot), shared=shared)
        errors.append(out.errors.sum(axis=1).min() if shared else out.errors.min(axis=0).sum())
    random_state.set_state(state)
    best = int(np.argmin(errors))
    return kinds[best if errors[best] < (1 - _GAIN) * errors[0] else 0]
