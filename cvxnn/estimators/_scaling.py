"""Units in which a program is solved, measured on the rows of an estimator."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cvxnn.convex.patterns import add_bias
from cvxnn.estimators._rows import Rows
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.stored_rows import StoredRows, is_stored, read_ahead

# Rows of which sums are taken at a time: a megabyte in float64 for 4,096 features.
_CACHED_ROWS = 32


class Scaling(NamedTuple):
    """Units in which the program is solved.

    Features have mean 0 and standard deviation ``1 / sqrt(n_features)``, so that rows have norm
    about 1 whatever the width; targets have mean 0 and standard deviation 1. A
    strength then has one meaning for every data set. Sparse features keep their zeros: they are
    scaled to that root mean square, not centred.
    """

    x_mean: NDArray[np.floating]
    x_scale: NDArray[np.floating]
    y_mean: NDArray[np.floating]
    y_scale: NDArray[np.floating]

    @classmethod
    def of(
        cls,
        X: Rows,
        y: NDArray[np.floating],
        weight: NDArray[np.floating],
        *,
        standardize: bool,
        fit_intercept: bool,
    ) -> Scaling:
        """Measure the data; constant targets keep scale 1, constant features vanish.

        Raises
        ------
        ValueError
            If a mean, a standard deviation or, of features that stay as they are, a sum of squares
            is beyond the range of the dtype.
        """
        d, dtype = X.shape[1], X.dtype
        x_mean, x_scale = np.zeros(d, dtype), np.ones(d, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            total = dtype.type(0)
            if standardize:
                x_mean, x_scale = _mean_and_scale(X, weight, centre=fit_intercept)
                x_scale = x_scale * dtype.type(np.sqrt(d))
            else:
                total = _largest(X) ** 2 * dtype.type(X.shape[0] * d)
            y_mean, y_scale = _mean_and_scale(y, weight, centre=fit_intercept)
        scaling = cls(x_mean, x_scale, y_mean, np.where(y_scale == 0, 1, y_scale))
        if not all(np.isfinite(part).all() for part in (*scaling, total)):
            raise ValueError(
                f"X or y holds values too large for {dtype}; rescale them, set standardize=True or "
                "pass X as float64."
            )
        # Weights on constant features would move gates and predictions where a row to predict has
        # another value, and rounding errors of a large one do the same to rows that have it.
        return scaling._replace(x_scale=np.where(x_scale == 0, dtype.type(np.inf), x_scale))

    def with_factors(self, factors: NDArray[np.floating]) -> Scaling:
        """Return units in which each feature is multiplied by a factor; with 0, it vanishes."""
        with np.errstate(divide="ignore"):
            x_scale = (self.x_scale / factors).astype(self.x_scale.dtype)
        return self._replace(x_scale=x_scale)

    def inputs(self, X: Rows, *, bias: bool) -> Rows:
        """Return data as the network sees them, with a column of ones if there are biases."""
        if is_stored(X):
            assert not bias
            return X.scaled(self.x_mean, self.x_scale)
        if is_sparse(X) and self.x_mean.any():  # of a fit to dense rows
            X = X.toarray()
        if not is_sparse(X):
            (n, d), dtype = X.shape, np.result_type(X, self.x_mean, self.x_scale)
            scaled = np.ones((n, d + bias), dtype)  # no copy without the ones is made
            np.subtract(X, self.x_mean, out=scaled[:, :d])
            scaled[:, :d] /= self.x_scale
            return scaled
        scaled = X @ sparse.diags_array((1 / self.x_scale).astype(X.dtype))
        return add_bias(scaled) if bias else sparse.csr_array(scaled)


def column_means(values: Rows, weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the weighted mean of each column, summed in float64 whatever the dtype.

    Along the rows NumPy adds one number after the other, so that float32 would lose all digits
    that a running sum of many rows has outgrown.
    """
    # A power of two, which rounds nothing, keeps products with large weights in range.
    factors = np.ldexp(weight.astype(np.float64), -int(np.frexp(weight.max())[1]))
    if is_stored(values):
        totals = factors @ values.astype(np.float64)
    elif is_sparse(values):
        totals = np.asarray(values.T @ factors)
    else:
        totals = np.einsum("i,ij->j", factors, values)
    means: NDArray[np.float64] = totals / factors.sum()
    return means


def _largest(X: Rows) -> Any:
    if is_stored(X):
        return max(np.abs(block).max() for _, block in read_ahead(X, X.blocks()))
    return abs(X).max() if is_sparse(X) else max(X.max(), -X.min())


def _mean_and_scale(
    values: Rows, weight: NDArray[np.floating], *, centre: bool
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the mean (0 unless ``centre``) of each column and the root mean square of the rest.

    The latter is 0 for constant columns.
    """
    if is_stored(values):
        return _mean_and_scale_of_stored(values, weight, centre=centre)
    dtype = values.dtype
    mean = np.zeros(values.shape[1], dtype)
    if is_sparse(values):
        rest: Any = values
        peak: Any = np.asarray(abs(values).max(axis=0).todense()).ravel()
    else:
        if centre:
            mean = column_means(values, weight).astype(dtype)
        rest = values - mean
        if centre:
            # Once more, for what rounding left: of a constant column, nothing.
            better = (mean + column_means(rest, weight)).astype(dtype)
            rest -= better - mean
            mean = better
        peak = np.maximum(rest.max(axis=0), -rest.min(axis=0))
    # Squares of the bare values could overflow or vanish.
    peak = np.where(peak == 0, 1, peak)
    if is_sparse(rest):
        squares = column_means((rest @ sparse.diags_array(1 / peak)).power(2), weight)
    else:
        rest /= peak
        squares = column_means(np.square(rest, out=rest), weight)
    scale = peak * np.sqrt(squares)
    return mean, _without_rounding(scale, mean).astype(dtype)


def _mean_and_scale_of_stored(
    values: StoredRows, weight: NDArray[np.floating], *, centre: bool
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the same, from sums in float64, for which the rows are read once."""
    share = weight.astype(np.float64)
    share = share / share.sum()
    mean, off, squares = np.zeros((3, values.shape[1]))
    for rows, block in read_ahead(values, values.blocks()):
        if centre and rows.start == 0:
            mean = block.mean(axis=0, dtype=np.float64)  # near enough for no digits to cancel
        for first in range(0, len(block), _CACHED_ROWS):
            rest = block[first : first + _CACHED_ROWS] - mean
            part = share[rows][first : first + _CACHED_ROWS]
            off += part @ rest
            squares += part @ np.square(rest, out=rest)
    if centre:
        mean, squares = mean + off, squares - off**2
    mean = mean.astype(values.dtype)
    scale = np.sqrt(np.maximum(squares, 0)).astype(values.dtype)
    return mean, _without_rounding(scale, mean)


def _without_rounding(scale: NDArray[np.floating], mean: NDArray[np.floating]) -> Any:
    """Return scales without those of constant columns, whose rounding leaves some spread."""
    constant = scale <= 10 * np.finfo(mean.dtype).eps * np.abs(mean)
    return np.where(constant, 0, scale)


class Scaled(NamedTuple):
    """Rows in the units of the program; ``weight`` and ``factors`` are None where all are equal."""

    inputs: Rows
    targets: NDArray[np.floating]
    weight: NDArray[np.floating] | None
    scaling: Scaling
    factors: NDArray[np.floating] | None = None

    def with_factors(self, X: Rows, factors: NDArray[np.floating] | None, *, bias: bool) -> Scaled:
        """Return the same rows, ``X`` when raw, with features times factors; None are equal."""
        if factors is None or bool(np.all(factors == 1)):
            return self
        scaling = self.scaling.with_factors(factors)
        inputs = scaling.inputs(X, bias=bias)
        return self._replace(inputs=inputs, scaling=scaling, factors=factors)


def scale(
    X: Rows,
    y: NDArray[np.floating],
    weight: NDArray[np.floating],
    *,
    standardize: bool,
    fit_intercept: bool,
    keep_targets: bool,
) -> Scaled:
    """Scale distinct rows; targets too, unless they are classes (``keep_targets``)."""
    scaling = Scaling.of(X, y, weight, standardize=standardize, fit_intercept=fit_intercept)
    if keep_targets:
        scaling = scaling._replace(
            y_mean=np.zeros_like(scaling.y_mean), y_scale=np.ones_like(scaling.y_scale)
        )
    scaled = in_units(X, y, weight, scaling, bias=fit_intercept)
    if fit_intercept and not keep_targets:
        # What rounding left of a large mean would pass for something to learn.
        means = column_means(scaled.targets, weight)
        scaled = scaled._replace(targets=(scaled.targets - means).astype(X.dtype))
    return scaled


def in_units(
    X: Rows,
    y: NDArray[np.floating],
    weight: NDArray[np.floating],
    scaling: Scaling,
    *,
    bias: bool,
) -> Scaled:
    """Return distinct rows in given units; ``bias`` says whether rows end with a one."""
    inputs = scaling.inputs(X, bias=bias)
    targets = ((y - scaling.y_mean) / scaling.y_scale).astype(X.dtype)
    equal = bool(np.all(weight == weight[0]))
    return Scaled(inputs, targets, None if equal else weight, scaling)
