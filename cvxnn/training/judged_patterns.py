"""A choice between kinds of patterns by the leave-one-out error of their closed forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.phases import tell
from cvxnn.training.first_patterns import draw_patterns
from cvxnn.training.row_sample import sample_rows
from cvxnn.training.spectrum import Spectrum, leave_one_out

# Rows that are looked at: a part of all, between two numbers. Unless outputs are many: then as many
# of each, up to a limit.
_ROWS, _PART, _MOST_ROWS = 256, 1 / 16, 1024
_ROWS_OF_OUTPUT, _LIMIT = 4, 1024
# Least gain over the first kind, as a part of its error: less is chance.
_GAIN = 0.02


class ChosenPatterns(NamedTuple):
    """Patterns, and what the choice between kinds of them found out.

    Attributes
    ----------
    kind : str
        Kind of the patterns.
    patterns : ActivationPatterns
        Patterns of all rows.
    spectrum : Spectrum or None
        Of the program of all rows over these patterns, where the choice looked at just these.
    """

    kind: Any
    patterns: ActivationPatterns
    spectrum: Spectrum | None


def choose_patterns(
    program: ConvexProgram,
    n_patterns: int,
    kinds: Sequence[Any],
    random_state: np.random.RandomState,
    *,
    units: NDArray[np.floating] | None = None,
    groups: NDArray[np.intp] | None = None,
    shared: bool = False,
    factors: NDArray[np.floating] | None = None,
) -> ChosenPatterns:
    """Draw patterns of the kind that predicts rows left out with least error.

    The first kind is taken unless another has an error that is 2 % smaller. The error is the
    squared one of the closed form at the best strength, on the same rows for all: a sample of 256
    to 1,024, a 16th of all rows, and of four rows for each output at least, up to 1,024. The
    patterns are drawn on it, and it tells kinds apart about as well as all rows do. Outputs with
    strengths of their own have a say by the part of their variance that is predicted, so that
    noisy ones, for which all kinds are alike, do not hide what another gains.

    Parameters
    ----------
    program : ConvexProgram
        Data on the host, in the gated formulation; its own patterns are not used.
    n_patterns : int
        Patterns of each kind, at least 1.
    kinds : sequence of str
        Names that ``train`` knows for patterns without training.
    random_state : RandomState
        Draws the rows and patterns; it is left as if it had drawn the patterns that are returned
        and nothing else.
    units : ndarray, shape (n_samples,), optional
        Units of data that each row consists of, at least 1; by default each is one.
    groups : ndarray of int, shape (n_samples,), optional
        Groups of rows that are left out as wholes; by default single units are.
    shared : bool, default=False
        Whether all outputs have the same strength.
    factors : ndarray, shape (n_features,), optional
        Factors that the features of ``X`` have; thresholds are drawn on features in proportion to
        them.

    Returns
    -------
    ChosenPatterns
        Patterns, and the kernel of the program where the choice has built it.
    """
    X, y = program.operator.X, program.y
    if len(kinds) == 1:
        found = draw_patterns(X, y, n_patterns, kinds[0], random_state, factors)
        return ChosenPatterns(kinds[0], found, None)
    tell("choosing patterns")
    state = random_state.get_state()
    most = int(np.clip(_PART * len(y), _ROWS, _MOST_ROWS))
    most = max(most, min(_ROWS_OF_OUTPUT * y.shape[1], _LIMIT))
    sample = sample_rows(program, random_state, units=units, groups=groups, most=most)
    trials, errors = [], []
    for kind in kinds:
        seen, targets = sample.program.operator.X, sample.program.y
        found = draw_patterns(seen, targets, n_patterns, kind, random_state, factors)
        pilot = replace(sample.program, operator=GatedOperator(seen, found.mask))
        spectrum = Spectrum.of(pilot)
        out = leave_one_out(sample._replace(program=pilot), spectrum, shared=shared)
        trial = ChosenPatterns(kind, found, spectrum)
        errors.append(np.atleast_1d(out.least(shared=shared)))
        trials.append(_Trial(trial, random_state.get_state()))
    error = relative_errors(np.array(errors), sample.program)
    number = int(np.argmin(error))
    best = trials[number if error[number] < 1 - _GAIN else 0]
    if best is trials[0] and sample.program is program:
        # A draw from the first state would give the same patterns again.
        random_state.set_state(best.state)
        return best.chosen
    # Drawn from the first state, like those of ``patterns="thresholds"``, so that both give one
    # network. Where the sample is all rows, this costs a third kernel of a few hundred rows: the
    # second belongs to thresholds that were drawn after the Gaussian gates.
    random_state.set_state(state)
    found = draw_patterns(X, y, n_patterns, best.chosen.kind, random_state, factors)
    return ChosenPatterns(best.chosen.kind, found, None)


def relative_errors(errors: NDArray[np.floating], program: ConvexProgram) -> NDArray[np.floating]:
    """Return errors as means over outputs, in parts of those of the first of them.

    An output weighs the part of its variance that is predicted by the one with the least error.

    Parameters
    ----------
    errors : ndarray, shape (n_networks, n_outputs) or (n_networks, 1)
        Errors of each output, or of all together.
    program : ConvexProgram
        Whose targets were predicted.

    Returns
    -------
    ndarray, shape (n_networks,)
        Relative errors, 1 for the first.
    """
    relative = np.ones(errors.shape)
    np.divide(errors, errors[0], out=relative, where=errors[0] > 0)
    if errors.shape[1] == 1:
        return relative[:, 0]
    y, share = program.y, program.share
    variance = (share * (y - (share * y).sum(axis=0)) ** 2).sum(axis=0)
    predicted = np.maximum(variance - errors.min(axis=0), 0)
    weight = np.divide(predicted, variance, out=np.zeros(variance.shape), where=variance > 0)
    return np.asarray(np.average(relative, axis=1, weights=weight if weight.any() else None))


class _Trial(NamedTuple):
    """What was drawn for a kind, and the state of the generator after its draw."""

    chosen: ChosenPatterns
    state: Any
