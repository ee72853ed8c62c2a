"""From the data of an estimator to what each row, pair or group of them does to its fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.estimators._scaling import Scaling
from cvxnn.explanation import Influence
from cvxnn.numerics.scores import winner

Floats = NDArray[np.floating]
Unit = Literal["row", "group"]
Kind = Literal["numbers", "classes", "pairs"]
Look = Callable[[Any], tuple[Floats, NDArray[np.bool_]]]


class GivenRows(NamedTuple):
    """Rows, or pairs of rows, as they were given, and what became of them in the program.

    Attributes
    ----------
    rows : ndarray of int, shape (n_given,) or (n_given, 2)
        Row numbers of the data that were given; of pairs, the chosen row and the rejected one.
    place : ndarray of int, shape (n_given,)
        Row of the program, in which equal rows are one.
    weight : ndarray, shape (n_given,)
        Their weights.
    groups : ndarray of int, shape (n_given,), or None
        Their groups.
    """

    rows: NDArray[np.intp]
    place: NDArray[np.intp]
    weight: Floats
    groups: NDArray[np.intp] | None

    def fitted(self) -> GivenRows:
        """Return those that the program has."""
        kept = self.place >= 0
        groups = None if self.groups is None else self.groups[kept]
        return GivenRows(self.rows[kept], self.place[kept], self.weight[kept], groups)


def influence_of(
    certificate: convex.Certificate,
    given: GivenRows,
    scaling: Scaling,
    look: Look,
    scores: Callable[[Any], Floats],
    *,
    leave_out: Unit,
    kind: Kind,
    gates_of_targets: bool,
) -> Influence:
    """Leave out each unit of the data in turn.

    Parameters
    ----------
    certificate : Certificate
        Of the fit.
    given : GivenRows
        Rows or pairs.
    scaling : Scaling
        Units of the program.
    look : callable
        Takes raw rows to rows of the program and the gates that are open on them.
    scores : callable
        Takes raw rows to predictions by the fit.
    leave_out : {"row", "group"}
        What a unit is.
    kind : {"numbers", "classes", "pairs"}
        What the targets are.
    gates_of_targets : bool
        Whether gates were chosen with the targets.

    Returns
    -------
    Influence
        In raw units.
    """
    if leave_out not in ("row", "group"):
        raise ValueError(f"leave_out={leave_out!r}; expected 'row' or 'group'.")
    given = given.fitted()
    place, n = given.place, len(certificate.program.y)
    if leave_out == "row":
        unit = np.arange(len(place))
        total = np.bincount(place, weights=given.weight, minlength=n)
        left = training.leave_out(certificate, training.Units(place, given.weight / total[place]))
        unseen = left.predictions
    else:
        if given.groups is None:
            raise ValueError("leave_out='group' needs groups: give the groups of the rows.")
        unit = np.unique(given.groups, return_inverse=True)[1]
        if unit.max() == 0:
            raise ValueError("all rows that were fitted are one group: nothing would stay.")
        groups = np.empty(n, np.intp)
        groups[place] = unit  # equal rows of two groups are two
        left = training.leave_out(certificate, training.Units(np.arange(n), np.ones(n), groups))
        unseen = left.predictions[place]
    scale = np.broadcast_to(scaling.y_scale, unseen.shape[1]).astype(np.float64)
    mean = np.asarray(scaling.y_mean, np.float64)
    targets = np.asarray(certificate.program.y, np.float64)[place] * scale + mean
    unseen = unseen * scale + mean
    return Influence(
        rows=given.rows,
        unit=unit,
        targets=targets,
        seen=left.fitted[place] * scale + mean,
        unseen=unseen,
        error=left.norms[place, None] * left.distance[unit] * scale,
        doubt=_doubt(targets, unseen) if kind != "numbers" else _distance(targets, unseen, scale),
        n_units=left.steps.shape[2],
        kind=kind,
        gates_of_targets=gates_of_targets,
        _changes=partial(on_rows, left.changes, look, scale),
        _bounds=partial(on_rows, left.bounds, look, scale),
        _scores=scores,
    )


def on_rows(
    answer: Callable[[Floats, NDArray[np.bool_]], Floats], look: Look, scale: Any, X: Any
) -> Floats:
    """Return what a solution answers on raw rows; of this function, `partial` can be pickled.

    Parameters
    ----------
    answer : callable
        Takes rows of the program and the gates that are open on them.
    look : callable
        Takes raw rows to these.
    scale : float or ndarray
        Unit of the answer.
    X : array-like
        Raw rows.
    """
    return answer(*look(X)) * scale


def functional(
    constraint: training.SideConstraint,
    look: Look,
    scaling: Scaling,
) -> training.Functional:
    """Return a side constraint in the units of the program.

    Parameters
    ----------
    constraint : SideConstraint
        On predictions of raw rows.
    look : callable
        Takes raw rows to rows of the program and the gates that are open on them.
    scaling : Scaling
        Units of the program.
    """
    if not isinstance(constraint, training.SideConstraint):
        raise TypeError(
            f"constraints hold a {type(constraint).__name__}; expected a list of "
            "cvxnn.training.SideConstraint."
        )
    if not (isinstance(constraint.bound, Real) and np.isfinite(constraint.bound)):
        raise ValueError(f"bound={constraint.bound!r}; expected a finite number.")
    if not isinstance(constraint.equal, bool | np.bool_):
        raise ValueError(f"equal={constraint.equal!r}; expected True or False.")
    inputs, mask = look(constraint.X)
    if issparse(inputs):
        inputs = inputs.toarray()  # sums over rows of all patterns are dense
    coefficients = constraint.coefficients
    if issparse(coefficients):
        coefficients = csr_array(coefficients, dtype=np.float64)
        fits = coefficients.shape[1:] == (len(inputs),) and np.isfinite(coefficients.data).all()
    else:
        try:
            coefficients = np.asarray(coefficients, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"coefficients are not numbers ({error}).") from error
        fits = coefficients.shape == (len(inputs),) and np.isfinite(coefficients).all()
    if not fits:
        raise ValueError(
            f"a side constraint has coefficients of shape {coefficients.shape} for {len(inputs)} "
            "rows; expected a finite number for each, or a sparse array with a column for each."
        )
    # Predictions are those of the program times y_scale, plus y_mean.
    totals = np.atleast_1d(coefficients.sum(axis=-1))
    bounds = (constraint.bound - totals[:, None] * scaling.y_mean) / scaling.y_scale
    return training.Functional(inputs, mask, coefficients, bounds, constraint.equal)


def _doubt(targets: Floats, unseen: Floats) -> Floats:
    """Return by how much another class, or the other order of a pair, is ahead."""
    if targets.shape[1] == 1:
        return np.where(targets[:, 0] > 0, -unseen[:, 0], unseen[:, 0])
    rows, own = np.arange(len(targets)), winner(targets)
    others = unseen.copy()
    others[rows, own] = -np.inf
    return np.asarray(others.max(axis=1) - unseen[rows, own])


def _distance(targets: Floats, unseen: Floats, scale: Floats) -> Floats:
    """Return distances in standard deviations of the targets."""
    return np.linalg.norm((targets - unseen) / scale, axis=1)
