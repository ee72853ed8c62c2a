"""A choice among patterns by the leave-one-out error of their closed forms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.program import ConvexProgram
from cvxnn.training.row_sample import sample_rows
from cvxnn.training.spectrum import Spectrum, leave_one_out

# Rows that are looked at, unless outputs are many: then as many of each, up to a limit.
_ROWS, _ROWS_OF_OUTPUT, _LIMIT = 256, 4, 1024
# Least gain over the first program, as a part of its error: less is chance.
_GAIN = 0.02


def choose_program(
    programs: Sequence[ConvexProgram],
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
    shared: bool = False,
) -> int:
    """Return the position of the program whose patterns predict rows left out with least error.

    The first one stays unless another has an error that is 2 % smaller. The error is the squared
    one of the closed form at the best strength, on the same rows for all: a sample of 256, which
    tell kinds of patterns apart about as well as all rows do.

    Parameters
    ----------
    programs : sequence of ConvexProgram
        The same data over different patterns, on the host, in the gated formulation.
    random_state : RandomState
        Draws the rows; it is left as it was.
    units : ndarray, shape (n_samples,), optional
        Units of data that each row consists of, at least 1; by default each is one.
    groups : ndarray of int, shape (n_samples,), optional
        Groups of rows that are left out as wholes; by default single units are.
    shared : bool, default=False
        Whether all outputs have the same strength.

    Returns
    -------
    int
        The first of least error, or 0.
    """
    if len(programs) == 1:
        return 0
    state = random_state.get_state()
    most = max(_ROWS, min(_ROWS_OF_OUTPUT * programs[0].y.shape[1], _LIMIT))
    errors = []
    for program in programs:
        random_state.set_state(state)
        sample = sample_rows(program, random_state, units=units, groups=groups, most=most)
        found = leave_one_out(sample, Spectrum.of(sample.program), shared=shared).errors
        errors.append(found.sum(axis=1).min() if shared else found.min(axis=0).sum())
    random_state.set_state(state)
    best = int(np.argmin(errors))
    return best if errors[best] < (1 - _GAIN) * errors[0] else 0
