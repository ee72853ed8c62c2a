r"""A solved program without some of its rows: exact for the squared loss, else proved steps.

With the gated features :math:`F`, shares :math:`s` of the rows and second derivatives
:math:`\ell''` of their losses at the solution, let
:math:`A = \operatorname{diag}(\sqrt{s \ell''}) F` and :math:`B = (A A^T + \alpha I)^{-1}`. Without
the rows :math:`S` the inverse Hessian takes :math:`A^T` to :math:`A^T M`, with

.. math:: M = B + B_{:S}\, (\alpha B_{SS})^{-1} (I - \alpha B)_{S:} ,

and a gradient :math:`F^T p` leads from :math:`z` to
:math:`z - A^T M \operatorname{diag}(s \ell'')^{-1/2} p`. For the squared loss this is the solution
without these rows. For another loss the same matrix takes further steps. What is left of the
objective is :math:`\alpha`-strongly convex, so that the solution is within the norm of the
gradient divided by :math:`\alpha`, which is computed, not estimated. The penalty keeps its weight
against each row that stays: :math:`\alpha` is that of the program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.certificate import Certificate
from cvxnn.convex.host_program import on_host
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.penalties import SquaredL2
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.factors import shifted_inverse
from cvxnn.convex.solvers.ridge.kernel import Kernel, predict
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads, limits_threads

# Least second derivative of a loss, as a part of the largest: a step divides by it.
_FLOOR = 1e-6
# Most steps of a loss that is not squared, and the part of the change that its error may be.
_MOST_STEPS = 100
_NEAR = 1e-3
# Longest step, in that of Newton, and halvings that find how far one goes down.
_LONGEST, _HALVINGS = 4.0, 6
# Most numbers of all steps together: 2 GiB.
_MOST_NUMBERS = 2**28

Floats = NDArray[np.floating]


class Units(NamedTuple):
    """What is left out, one unit at a time: parts of rows, or whole groups of them.

    Attributes
    ----------
    rows : ndarray of int, shape (n_units,) or (n_rows,)
        Row of each unit; with ``groups``, one row after another.
    part : ndarray, shape (n_units,)
        Part of its row that a unit is, in (0, 1].
    groups : ndarray of int, shape (n_rows,), optional
        Number of the group of each row, from 0; a unit is then a group.
    """

    rows: NDArray[np.intp]
    part: Floats
    groups: NDArray[np.intp] | None = None


@dataclass(frozen=True)
class LeftOut:
    """The solutions of a program without each of some units of its data.

    Attributes
    ----------
    fitted : ndarray, shape (n_rows, n_outputs)
        Predictions of the rows of the program by its exact solution: of what the gap of the
        certificate left, the same steps take the largest part.
    predictions : ndarray, shape (n_units, n_outputs) or (n_rows, n_outputs)
        Prediction of the row of each unit by the solution without the unit; with groups, of each
        row by the solution without its group.
    distance : ndarray, shape (n_units, n_outputs)
        Bound on the distance of the weights of each unit's solution from the exact ones, up to
        rounding.
    steps : ndarray, shape (n_outputs, n_rows, n_units)
        Coefficients of the rows' features in the change of the weights.
    norms : ndarray, shape (n_rows,)
        Norms of the rows' features: times ``distance``, a bound on the error of a prediction.
    data : RidgeData
        Features of the rows, without weights.
    """

    fitted: Floats
    predictions: Floats
    distance: Floats
    steps: Floats
    norms: Floats
    data: RidgeData

    def changes(self, X: Any, mask: NDArray[np.bool_]) -> Floats:
        """Return how predictions of rows change, shape (n_new, n_units, n_outputs).

        Parameters
        ----------
        X : ndarray, shape (n_new, n_features)
            Rows, in the units of the program.
        mask : ndarray of bool, shape (n_new, n_patterns)
            Gates that are open on them.
        """
        return np.stack([predict(self.data, step, X, mask) for step in self.steps], axis=2)

    def bounds(self, X: Any, mask: NDArray[np.bool_]) -> Floats:
        """Return bounds on the errors of :meth:`changes`, shape (n_new, n_units, n_outputs).

        Parameters
        ----------
        X : ndarray, shape (n_new, n_features)
            New rows, as for :meth:`changes`.
        mask : ndarray of bool, shape (n_new, n_patterns)
            Where the gates are open on them.
        """
        squares = X.multiply(X) if is_sparse(X) else np.asarray(X, np.float64) ** 2
        norms = np.sqrt(np.asarray(squares.sum(axis=1)) * mask.sum(axis=1))
        return np.asarray(norms[:, None, None] * self.distance)


@limits_threads(lambda certificate, _: solution_flops(certificate.program), SHARED_FACTOR)
def leave_out(certificate: Certificate, units: Units) -> LeftOut:
    """Return the solutions of a gated program with a ridge penalty without units of its data.

    Parameters
    ----------
    certificate : Certificate
        Program and solution: the gated formulation with the penalty ``SquaredL2`` and no linear
        part, and a loss that treats each output by itself.
    units : Units
        What is left out.

    Returns
    -------
    LeftOut
        Of each unit.

    Raises
    ------
    TypeError
        If the program is another, whose solutions have no such form.
    ValueError
        If the steps are too many to hold.
    """
    program = on_host(certificate.program, np.float64)
    require_ridge(program)
    if program.loss.coupled:
        raise TypeError(
            f"{type(program.loss).__name__} couples the outputs, and has no closed form without a "
            "row; use loss='squared' or loss='logistic', or fit without these rows."
        )
    n, n_outputs = program.y.shape
    n_units = len(units.rows) if units.groups is None else int(units.groups.max()) + 1
    if n_outputs * n * n_units > _MOST_NUMBERS:
        raise ValueError(
            f"{n_units} units of {n} rows with {n_outputs} outputs take "
            f"{n_outputs * n * n_units / 2**27:.1f} GiB; leave out groups instead, fewer than "
            f"{max(_MOST_NUMBERS // (n_outputs * n), 1)} of them, or fit fewer rows."
        )
    data = RidgeData.of(program)
    share = data.root**2
    data = replace(data, root=np.ones_like(data.root))
    kernel, removed = Kernel.between(data, data), _Removed.of(units, n, n_units)
    start = data.forward(np.asarray(certificate.weights.blocks, np.float64)[:, 0])
    curvature = np.asarray(program.loss.hessian(start, program.y))
    curvature = np.maximum(curvature, _FLOOR * float(program.loss.curvature))
    alphas = np.broadcast_to(np.asarray(program.alpha, np.float64), n_outputs).tolist()
    roots = np.sqrt(share * curvature)
    objective: _OutputObjective | None = None
    fitted, steps = np.empty((n, n_outputs)), np.empty((n_outputs, n, n_units))
    distance = np.empty((n_units, n_outputs))
    predictions = np.empty((len(units.rows), n_outputs))
    for output, alpha in enumerate(alphas):
        root, y = roots[:, output, None], program.y[:, output, None]
        if objective is not None and objective.quadratic and objective.alpha == alpha:
            objective = objective._replace(y=y)  # the same matrix
        else:
            inverse = _inverse(root * kernel * root[:, 0], alpha)
            objective = _OutputObjective(program.loss, y, share, alpha, kernel, root, inverse)
        # What the gap left of the program itself comes first.
        before = start[:, output, None]
        whole = -objective.pull_of_rows(before) / alpha
        found = objective.minimise(whole, kernel @ whole)
        whole, before = whole + found.step, found.seen
        found = objective.minimise(whole, before, removed)
        fitted[:, output], steps[output] = before[:, 0], found.step
        distance[:, output] = found.distance
        unit = np.arange(n_units) if units.groups is None else units.groups
        predictions[:, output] = found.seen[units.rows, unit]
    norms = np.sqrt(np.maximum(np.diagonal(kernel), 0))
    return LeftOut(fitted, predictions, distance, steps, norms, data)


class _Found(NamedTuple):
    """Steps of coefficients, the predictions after them, and bounds on what is missing."""

    step: Floats
    seen: Floats
    distance: Floats


class _OutputObjective(NamedTuple):
    """The objective of one output, of weights that are coefficients times the rows' features."""

    loss: Any
    y: Floats
    share: Floats
    alpha: float
    kernel: Floats
    root: Floats
    """Roots of the rows' second derivatives, of which ``inverse`` is ``B``."""
    inverse: Floats

    @property
    def quadratic(self) -> bool:
        """Whether one step leads to the solution."""
        return isinstance(self.loss, SquaredLoss)

    def pull_of_rows(self, seen: Floats) -> Floats:
        """Return the coefficients of the gradient of the loss, from predictions."""
        return self.share * np.asarray(self.loss.gradient(seen, self.y))

    def minimise(self, whole: Floats, seen: Floats, removed: _Removed | None = None) -> _Found:
        """Minimise what is left without each unit, from coefficients that predict ``seen``."""
        n_units = 1 if removed is None else removed.part.shape[1]
        found = _Found(
            np.zeros((len(seen), n_units)), np.repeat(seen, n_units, 1), np.full(n_units, np.inf)
        )
        left = np.arange(n_units)  # those that are not near enough yet
        step, moved = np.zeros((2, len(seen), n_units))
        for _ in range(1 if self.quadratic else _MOST_STEPS):
            stays = 1.0 if removed is None else 1 - removed.part
            pull = stays * self.pull_of_rows(seen + moved) + self.alpha * (whole + step)
            ahead = -self.root * self._newton(pull / self.root, removed)
            with limit_threads(4.0 * len(step) * step.size, SHARED_FACTOR):
                shift = self.kernel @ ahead
                if not self.quadratic:
                    length = self._length(whole + step, seen + moved, ahead, shift, stays)
                    ahead, shift = length * ahead, length * shift
                step, moved = step + ahead, moved + shift
                pull = stays * self.pull_of_rows(seen + moved) + self.alpha * (whole + step)
                squares = np.einsum("nu,nu->u", pull, self.kernel @ pull)
            unknown = self._rounding(pull, whole + step, stays)
            distance = (np.sqrt(np.maximum(squares, 0)) + unknown) / self.alpha
            nearer = distance < found.distance[left]
            for kept, now in zip(found, (step, seen + moved, distance), strict=True):
                kept[..., left[nearer]] = now[..., nearer]
            covered = np.sqrt(np.maximum(np.einsum("nu,nu->u", step, moved), 0))
            far = found.distance[left] > _NEAR * covered
            if not far.any():
                break
            left, step, moved = left[far], step[:, far], moved[:, far]
            removed = None if removed is None else removed.take(far)
        return found

    def _rounding(self, pull: Floats, coefficients: Floats, stays: Floats | float) -> Floats:
        """Return how far the norm of the gradient may be off, for rounding in products.

        Coefficients whose features cancel grow without an end and leave nothing but rounding.
        """
        eps = np.sqrt(len(pull)) * np.finfo(np.float64).eps
        size = np.sqrt(np.diagonal(self.kernel))
        of_product = np.sqrt(eps) * (size @ np.abs(pull))
        # Predictions are off by rounding, and the slope of each row's loss by as much more.
        seen = eps * size[:, None] * (size @ np.abs(coefficients))
        slopes = stays * self.share * float(self.loss.curvature) * seen
        return np.asarray(of_product + size @ slopes)

    def _length(
        self, whole: Floats, seen: Floats, ahead: Floats, shift: Floats, stays: Floats | float
    ) -> Floats:
        """Return how far each unit's step goes down, by halving an interval."""
        inner = np.einsum("nu,nu->u", whole, shift), np.einsum("nu,nu->u", ahead, shift)
        low, high = np.zeros(ahead.shape[1]), np.full(ahead.shape[1], _LONGEST)
        for _ in range(_HALVINGS):
            t = (low + high) / 2
            slope = np.einsum("nu,nu->u", stays * self.pull_of_rows(seen + t * shift), shift)
            down = slope + self.alpha * (inner[0] + t * inner[1]) < 0
            low, high = np.where(down, t, low), np.where(down, high, t)
        return (low + high) / 2

    def _newton(self, pull: Floats, removed: _Removed | None) -> Floats:
        """Return ``M`` of each unit times its column."""
        with limit_threads(2.0 * len(pull) * pull.size, SHARED_FACTOR):
            solved = self.inverse @ pull
        if removed is None:
            return solved
        rest = pull - self.alpha * solved
        if removed.members is None:
            rows, part = removed.rows, removed.share
            # The part that stays, in a form that does not cancel where all of the row goes.
            remains = (1 - part) + part * self.alpha * np.diagonal(self.inverse)[rows]
            lengths = part * rest[rows, np.arange(len(rows))] / remains
            return np.asarray(solved + self.inverse[:, rows] * lengths)
        for unit, own in enumerate(removed.members):
            matrix = self.alpha * self.inverse[np.ix_(own, own)]
            solved[:, unit] += self.inverse[:, own] @ np.linalg.solve(matrix, rest[own, unit])
        return solved


def solution_flops(program: Any) -> float:
    """Return the operations of the largest product behind a closed form.

    Parameters
    ----------
    program : ConvexProgram
        Gated, with a ridge penalty.
    """
    n, operator = len(program.y), program.operator
    return 2.0 * n**2 * max(n, operator.X.shape[1], operator.n_patterns)


def require_ridge(program: Any) -> None:
    """Refuse programs that are not alpha-strongly convex in the weights of each output alone.

    Parameters
    ----------
    program : ConvexProgram
        The program of a fit.

    Raises
    ------
    TypeError
        If it is not gated with a ridge penalty on all weights.
    """
    ridge = type(program.penalty) is SquaredL2 and np.all(np.asarray(program.alpha) > 0)
    if program.formulation != "gated" or not ridge or program.skip is not None:
        raise TypeError(
            "what a fit says of its rows, and fits that follow from it, need formulation='gated' "
            "with penalty='l2', a positive strength and skip=None, not "
            f"formulation={program.formulation!r} with {type(program.penalty).__name__} and "
            f"skip={program.skip}."
        )


def _inverse(matrix: Floats, alpha: float) -> Floats:
    with limit_threads(2.0 * len(matrix) ** 3, SHARED_FACTOR):
        return shifted_inverse(matrix, alpha, overwrite=True)(np.eye(len(matrix)))


class _Removed(NamedTuple):
    """Units by the part of each row that goes with them, (n_rows, n_units).

    ``rows`` and ``share`` are those of single rows; ``members`` the rows of each group, if a unit
    is a group.
    """

    part: Floats
    rows: NDArray[np.intp]
    share: Floats
    members: list[NDArray[np.intp]] | None

    @classmethod
    def of(cls, units: Units, n: int, n_units: int) -> _Removed:
        part = np.zeros((n, n_units))
        if units.groups is None:
            part[units.rows, np.arange(n_units)] = units.part
            return cls(part, units.rows, units.part, None)
        part[np.arange(n), units.groups] = 1
        members = [np.flatnonzero(units.groups == group) for group in range(n_units)]
        return cls(part, units.rows, units.part, members)

    def take(self, some: NDArray[np.bool_]) -> _Removed:
        """Return some of the units."""
        if self.members is None:
            return _Removed(self.part[:, some], self.rows[some], self.share[some], None)
        members = [own for own, kept in zip(self.members, some, strict=True) if kept]
        return self._replace(part=self.part[:, some], members=members)
