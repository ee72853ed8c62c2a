"""Errors of rows left out by folds along a path of strengths, for more rows than have a spectrum.

An eigendecomposition of more than some hundred rows takes longer than a fit to them. A path of
solutions to a part of the rows (``cvxnn.convex.solvers.ridge.ridge_path``) takes a few products
with the kernel at each strength, and the rest of the kernel predicts the rows left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn.convex.host_program import on_host
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.penalties import SquaredL2
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solvers.ridge.data import RidgeData
from cvxnn.convex.solvers.ridge.kernel import Kernel
from cvxnn.convex.solvers.ridge.ridge import Ridge
from cvxnn.convex.solvers.ridge.ridge_flops import kernel_flops
from cvxnn.convex.solvers.ridge.ridge_path import RidgePath, RidgePoint, takes_primal
from cvxnn.training.row_sample import Sample

# Rows that are looked at: a part of all, between half of this number and all of it.
MANY_ROWS, _PART = 4096, 1 / 4
# Rows that predict the others, at most.
_SEEN_ROWS = 2048
# Folds at most, and the columns that stand for those of more outputs.
_MOST_FOLDS, _MOST_COLUMNS = 4, 16
# Strengths, in units of the mean eigenvalue: falling, three to a power of ten.
_ALPHAS = 10.0 ** (-np.arange(-6, 19) / 3)
# Error over the least, from which on weaker strengths are not tried.
_RISEN = 1.02
# Nor are they where a power of ten of the strength has lowered the error by less than this part.
# Of strengths so alike over more than a power of ten, the strongest is taken: systems with a
# weaker one take several times the iterations, for the same predictions.
_ALIKE, _DECADE = 5e-3, 3
# Relative gap of the solutions.
_TOL = 1e-2


def rows_to_look_at(n_rows: int) -> int:
    """Return how many of ``n_rows`` rows to look at, which takes less time than the fit."""
    return int(np.clip(_PART * n_rows, MANY_ROWS // 2, MANY_ROWS))


class FoldErrors(NamedTuple):
    """The strength of least error on rows left out.

    Attributes
    ----------
    alpha : ndarray, shape (n_outputs,)
        Penalty parameter of each output, to suit as many rows as have predicted the others; the
        same for all where they share one.
    error : ndarray, shape (n_outputs,) or (1,)
        Weighted mean squared error there; of all outputs together where they share a strength.
    part : float
        Effective number of units that have predicted the others, as a fraction of that in all rows.
    kernel : ndarray, shape (n_samples, n_samples), or None
        Kernel of the rows in float32, where it was built.
    flops : float
        Floating-point operations.
    predictions : ndarray, shape (n_samples, n_outputs)
        Prediction of each row by the rows of the other folds, at about the best strength; the mean
        over the folds that have a part of it.
    """

    alpha: NDArray[np.floating]
    error: NDArray[np.floating]
    part: float
    kernel: NDArray[np.floating] | None
    flops: float
    predictions: NDArray[np.floating]


def fold_errors(
    sample: Sample,
    random_state: np.random.RandomState,
    *,
    until: float | NDArray[np.floating] = np.inf,
    shared: bool = False,
) -> FoldErrors:
    """Find the strength of least error of the closed form on units of data it has not seen.

    Parameters
    ----------
    sample : Sample
        Rows on the host; their data and patterns are used, with the squared loss and the ridge
        penalty whatever those of the program are.
    random_state : RandomState
        Draws the folds.
    until : float or ndarray, shape (n_outputs,), default=inf
        Strengths down to which the search goes in any case. Below, it ends where the error has
        risen.
    shared : bool, default=False
        Whether all outputs have the same strength.

    Returns
    -------
    FoldErrors
        Strength and error.
    """
    program = replace(sample.program, loss=SquaredLoss(), penalty=SquaredL2(), skip=None)
    n, n_outputs = program.y.shape
    program = whole = on_host(program, np.float64)
    if shared and n_outputs > _MOST_COLUMNS:
        program = replace(program, y=_sums_of_outputs(program, random_state))
    data = RidgeData.of(program)
    n_folds = int(np.clip(np.ceil(n / max(n - _SEEN_ROWS, 1)), 2, _MOST_FOLDS))
    units = units_of_folds(sample, n_folds, random_state)
    kernel, flops = None, 0.0
    if not takes_primal(data.take(np.arange(n - n // n_folds)), Ridge.max_dense):
        kernel = Kernel.stored(data, np.float32).matrix
        n_rows, n_inputs = program.operator.X.shape
        flops = kernel_flops(n_rows, n_inputs, data.n_patterns)
    folds = [_FoldPath.of(program, data, own, kernel) for own in units]
    mean = np.mean([fold.path.data.diagonal().mean() for fold in folds])
    alphas = max(float(mean), float(np.finfo(np.float64).tiny) * 1e6) * _ALPHAS
    rows: list[NDArray[np.floating]] = []
    predicted: list[NDArray[np.floating]] = []
    for points in zip(*(fold.path.points(alphas) for fold in folds), strict=True):
        found_by = [fold.predict(point) for fold, point in zip(folds, points, strict=True)]
        errors = np.sum([f.errors(p) for f, p in zip(folds, found_by, strict=True)], axis=0)
        rows.append(errors.sum(keepdims=True) if shared else errors)
        predicted.append(_joined(folds, found_by))
        if np.all(points[0].alpha < until) and np.all(_settled(np.array(rows))):
            break
    found = np.array(rows)
    best = [_minimum(np.log(alphas[: len(found)]), column) for column in found.T]
    alpha = np.exp(np.broadcast_to(best, n_outputs))
    part = sample.part * (1 - 1 / n_folds)
    if program is whole:
        at = np.abs(np.log(alphas[: len(found)])[:, None] - np.log(alpha)).argmin(axis=0)
        predictions = np.array(predicted)[at, :, np.arange(n_outputs)].T
    else:
        flops += sum(fold.path.flops for fold in folds)
        folds = [fold.of_targets(whole) for fold in folds]
        found_by = [fold.predict(next(fold.path.points(alpha[:1]))) for fold in folds]
        predictions = _joined(folds, found_by)
    flops += sum(fold.path.flops for fold in folds)
    return FoldErrors(alpha, found.min(axis=0), part, kernel, flops, predictions)


def _joined(folds: list[_FoldPath], predicted: list[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Return the predictions of all rows, of those in several folds the mean."""
    n = 1 + max(int(fold.left[-1]) for fold in folds)
    total, out = np.zeros((n, 1)), np.zeros((n, predicted[0].shape[1]))
    for fold, own in zip(folds, predicted, strict=True):
        out[fold.left] += fold.share[:, None] * own
        total[fold.left] += fold.share[:, None]
    return out / np.where(total > 0, total, 1)


def _sums_of_outputs(
    program: ConvexProgram, random_state: np.random.RandomState
) -> NDArray[np.floating]:
    """Return random sums of outputs, whose squared errors add up to about those of all outputs."""
    y = program.y
    sums = y @ random_state.choice([-1.0, 1.0], (y.shape[1], _MOST_COLUMNS))
    share = np.broadcast_to(program.share, (len(y), 1))

    def spread(values: NDArray[np.floating]) -> float:
        return float((share * (values - (share * values).sum(axis=0)) ** 2).sum())

    own, all_outputs = spread(sums), spread(y)
    return np.asarray(sums * np.sqrt(all_outputs / own) if own > 0 else sums)


def units_of_folds(
    sample: Sample, n_folds: int, random_state: np.random.RandomState
) -> NDArray[np.floating]:
    """Return the part of each row's units that is in each fold, (n_folds, n_samples)."""
    n = len(sample.program.y)
    if sample.groups is not None:
        _, codes = np.unique(sample.groups, return_inverse=True)
        fold = random_state.permutation(codes.max() + 1)[codes] % n_folds
        return np.asarray(fold == np.arange(n_folds)[:, None], np.float64)
    units = np.ones(n) if sample.units is None else sample.units
    # Units in random order go to one fold after the other.
    order = random_state.permutation(n)
    ends = np.cumsum(units[order])
    out = np.empty((n_folds, n))
    for k in range(n_folds):
        count = np.floor((ends + k) / n_folds)
        out[k, order] = np.diff(count, prepend=np.floor(k / n_folds))
    return out / units


class _FoldPath(NamedTuple):
    """A path of solutions to the rows of the other folds, and what it has to predict."""

    path: RidgePath
    data: RidgeData
    seen: NDArray[np.intp]
    left: NDArray[np.intp]
    share: NDArray[np.floating]
    cross: NDArray[np.floating] | None

    @classmethod
    def of(
        cls,
        program: ConvexProgram,
        data: RidgeData,
        own: NDArray[np.floating],
        kernel: NDArray[np.floating] | None,
    ) -> _FoldPath:
        share = np.broadcast_to(program.share, (data.n_rows, 1))[:, 0]
        seen, left = np.flatnonzero(own < 1), np.flatnonzero(own > 0)
        weight = share[seen] * (1 - own[seen])
        some = replace(
            program,
            operator=program.operator.take(seen),
            y=program.y[seen],
            sample_weight=weight,
        )
        matrix = cross = None
        if kernel is not None:
            # Shares are those among the rows of the fit; rows that are predicted have none.
            scale = (np.sqrt(weight / weight.sum() / share[seen])).astype(np.float32)
            matrix = kernel[np.ix_(seen, seen)]
            matrix *= scale[:, None]
            matrix *= scale
            cross = kernel[np.ix_(left, seen)]
            cross *= scale
            cross /= data.root[left].astype(np.float32)
        path = RidgePath(some, Ridge(tol=_TOL), matrix)
        return cls(path, data.take(left), seen, left, share[left] * own[left], cross)

    def of_targets(self, program: ConvexProgram) -> _FoldPath:
        """Return the path of other targets of the same rows."""
        known = self.path
        some = replace(known.program, y=program.y[self.seen])
        path = RidgePath(some, known.solver, known.kernel.matrix)
        return self._replace(path=path, data=replace(self.data, y=program.y[self.left]))

    def predict(self, point: RidgePoint) -> NDArray[np.floating]:
        """Return predictions of the rows that are left out."""
        if self.cross is not None:
            return np.asarray(self.cross @ point.u.astype(np.float32))
        return self.data.forward(self.path.data.blocks_of(point.u, point.alpha))

    def errors(self, predicted: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the sum of the weighted squared errors of each output."""
        return np.asarray(self.share @ (self.data.y - predicted) ** 2)


def _settled(errors: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return whether the errors of each column have risen, or have stopped falling."""
    least = errors.min(axis=0)
    flat = len(errors) > _DECADE
    return (errors[-1] > _RISEN * least) | (
        flat & (errors[-1 - _DECADE :].max(axis=0) <= (1 + _ALIKE) * least)
    )


def _minimum(x: NDArray[np.floating], errors: NDArray[np.floating]) -> float:
    """Return where the parabola of logarithms through the least error and its neighbours is.

    Where errors are alike from more than a power of ten above on, return that strength.
    """
    k = int(np.argmin(errors))
    first = int(np.flatnonzero(errors <= (1 + _ALIKE) * errors[k])[0])
    if k - first > _DECADE:
        return float(x[first])
    if not 0 < k < len(errors) - 1 or not errors[k] > 0:
        return float(x[k])
    left, middle, right = np.log(errors[k - 1 : k + 2])
    bend = left - 2 * middle + right
    step = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(x[k] + step * (x[k + 1] - x[k]))
