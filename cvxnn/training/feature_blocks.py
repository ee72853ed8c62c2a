r"""Factors of blocks of features, such as the embeddings of several layers, by leaving out.

A block whose columns are multiplied by a factor :math:`w` has its own strength
:math:`\alpha / w^2`, and moves the gates as much more. The factors are those of least error on
units or groups that are left out, found by doubling and halving one at a time. Errors are those of
infinitely many Gaussian gates, whose kernel has a closed form (Cho & Saul, 2009),

.. math:: k(a, b) = a^T b \, (1 - \theta(a, b) / \pi) ,

so that no gates are drawn and no products with the data are repeated. Where neurons also have a
gate of the context, the kernel is multiplied by the same factor of the angle between contexts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn.training.row_sample import Sample
from cvxnn.training.spectrum import Spectrum, leave_one_out

_MOST_PASSES = 3
# Part of the error that a step has to gain; less is chance.
_LEAST_GAIN = 1e-3


def gated_kernel(gram: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the kernel of infinitely many Gaussian gates from the inner products of rows.

    Parameters
    ----------
    gram : ndarray, shape (n, n)
        Inner products.

    Returns
    -------
    ndarray, shape (n, n)
        Mean over gates of inner products, in units in which a row with itself has its square.
    """
    return gram * both_open(gram)


def both_open(gram: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return twice the part of Gaussian gates that are open on both of two rows.

    Parameters
    ----------
    gram : ndarray, shape (n, n)
        Inner products.

    Returns
    -------
    ndarray, shape (n, n)
        Between 0 and 1; 1 where a row is zero, which is open for all gates.
    """
    norm = np.sqrt(np.diagonal(gram))
    zero = norm == 0
    norm = np.where(zero, 1, norm)
    part: NDArray[np.floating] = 1 - np.arccos(np.clip(gram / norm[:, None] / norm, -1, 1)) / np.pi
    part[zero] = part[:, zero] = 1
    return part


def block_factors(sample: Sample, widths: ArrayLike, n_context: int = 0) -> NDArray[np.float64]:
    """Return the factors of blocks of columns that predict best what is left out.

    Parameters
    ----------
    sample : Sample
        Rows, or pairs of rows, on the host. The gates of their program are not used.
    widths : array-like of int, shape (n_blocks,)
        Widths of the blocks, neighbouring columns of ``X``, that add up to all but the context.
    n_context : int, default=0
        The last columns of ``X``, of which neurons have a second gate and no weights.

    Returns
    -------
    ndarray, shape (n_blocks,) or (n_blocks + 1,)
        Factors, at least 0 and with a mean square of 1 over the columns; equal ones stay where
        nothing else is clearly better. With a context, the last entry is 1, or 0 where the error
        is less without gates on it.
    """
    operator, widths = sample.program.operator, np.asarray(widths)
    parts = np.split(operator.X.astype(np.float64), np.cumsum(widths), axis=1)
    grams = [part @ part.T for part in parts[:-1]]
    context = both_open(parts[-1] @ parts[-1].T) if n_context else None
    root = np.sqrt(np.broadcast_to(sample.program.share, (operator.n_rows, 1)))

    def error(factors: NDArray[np.float64]) -> float:
        own = factors[: len(grams)]
        kernel = gated_kernel(sum(f**2 * gram for f, gram in zip(own, grams, strict=True)))
        if context is not None and factors[-1]:
            kernel = kernel * context
        kernel = operator.compare(operator.compare(kernel).T) * root * root.T
        return float(leave_one_out(sample, Spectrum.of_kernel(kernel)).errors.sum(axis=1).min())

    factors = np.ones(len(grams) + bool(n_context))
    least = error(factors)
    own = slice(len(grams))
    steps = [(block, step) for block in range(len(grams)) for step in (2.0, 0.5, 0.0)]
    steps = steps if len(grams) > 1 else []
    steps = [*steps, (-1, 0.0)] if n_context else steps
    for _ in range(_MOST_PASSES if len(grams) > 1 else 1):
        before = least
        for block, step in steps:
            while True:
                trial = factors.copy()
                trial[block] *= step
                if not trial[own].any():
                    break
                found = error(trial)
                if not found < least * (1 - _LEAST_GAIN):
                    break
                factors, least = trial, found
        if least == before:
            break
    factors[own] *= np.sqrt(widths.sum() / (widths @ factors[own] ** 2))
    return factors
