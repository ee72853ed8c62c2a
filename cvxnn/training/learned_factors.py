r"""Factors of single features, from the slopes of a network, judged on rows that it has not seen.

A feature that is multiplied by a factor :math:`w` has the strength :math:`\alpha / w^2`, moves
Gaussian gates as much more, and is the feature of a threshold as much more often. The factors are

.. math::

    w_j^2 \propto \sum_c \operatorname{mean}_i \left( \frac{\partial f_c}{\partial x_j}(x_i)
    \right)^2 ,

the diagonal of the average outer product of gradients, of a network of infinitely many Gaussian
gates (``cvxnn.training.feature_blocks``) that is fitted to some rows; then once more, of the
network with these factors (Radhakrishnan, Beaglehole, Pandit & Belkin, 2024, "Mechanism for feature
learning in neural networks and backpropagation-free machine learning models", Science 383).
Features that say nothing of the targets get small factors; random gates look at all features alike.

Slopes exist for noise as well. So the factors are learned on one half of a sample of rows, and
taken only if they predict the other half clearly better, each row from the others. Many rows tell
by themselves which features decide, so that what is gained on a few hundred may be lost on many
more: the gain that is asked for grows with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.program import ConvexProgram
from cvxnn.numerics.phases import tell
from cvxnn.numerics.threads import SHARED_FACTOR, limit_threads
from cvxnn.training.feature_blocks import both_open
from cvxnn.training.first_patterns import draw_patterns
from cvxnn.training.judged_patterns import relative_errors
from cvxnn.training.row_sample import Sample, sample_rows
from cvxnn.training.spectrum import Spectrum, leave_one_out

# Rows that are looked at: half of them teach, half of them judge.
_LEAST_ROWS, _MOST_ROWS = 128, 768
# Groups that are looked at, at least.
_LEAST_GROUPS = 8
# Numbers that the slopes of these rows have at most, over all outputs.
_MOST_SLOPES = 2**22
# How often slopes are measured; the second time with the factors of the first.
_ROUNDS = 2
# Part of the largest mean square that is added to all: no feature is lost.
_FLOOR = 1e-3
# Least gain over equal factors, as a part of their error, for each time that the rows of the fit
# are twice as many as those that judge.
_GAIN = 0.05
# Gain of the first round below which there is no second.
_PROMISE = 0.01

Floats = NDArray[np.floating]


def feature_factors(
    program: ConvexProgram,
    n_patterns: int,
    kinds: Sequence[Any],
    random_state: np.random.RandomState,
    *,
    units: Floats | None = None,
    groups: NDArray[np.intp] | None = None,
    shared: bool = False,
) -> NDArray[np.float64] | None:
    """Return factors of the features with which rows are predicted better, if there are such.

    Parameters
    ----------
    program : ConvexProgram
        Data on the host, features of equal spread and a column of ones at the end; its patterns are
        not used.
    n_patterns : int
        Patterns of the networks that judge, at least 1: those of the fit.
    kinds : sequence of str
        Kinds of patterns among which the fit chooses; see ``cvxnn.training.choose_patterns``.
    random_state : RandomState
        Draws rows and patterns; it is left as it was.
    units : ndarray, shape (n_samples,), optional
        Units of data that each row consists of, at least 1; by default each is one.
    groups : ndarray of int, shape (n_samples,), optional
        Groups of rows that are left out as wholes; by default single units are.
    shared : bool, default=False
        Whether all outputs have the same strength.

    Returns
    -------
    ndarray, shape (n_features,), or None
        Factors above 0 with a mean square of 1. None where equal ones do as well: at most half of
        768 rows judge, and their squared error has to be smaller by 5 % for each time that all rows
        are twice as many. None, too, where there are fewer than 128 rows, 8 groups or 2 features,
        and where slopes would be more than ``2**22`` numbers.
    """
    (n, columns), n_outputs = program.operator.X.shape, program.y.shape[1]
    if columns < 3 or n < _LEAST_ROWS or columns * n_outputs * _LEAST_ROWS > _MOST_SLOPES:
        return None
    if groups is not None and len(np.unique(groups)) < _LEAST_GROUPS:
        return None
    tell("choosing factors of features")
    state = random_state.get_state()
    most = min(_MOST_ROWS, _MOST_SLOPES // (columns * n_outputs))
    sample = sample_rows(program, random_state, units=units, groups=groups, most=most)
    judge = _Judge.of(sample, n_patterns, kinds, random_state.randint(2**31), shared=shared)
    random_state.set_state(state)
    errors, alphas = [judge.errors(None)], []
    for factors, alpha in _learn(sample.take(sample.half()), shared=shared):
        errors.append(judge.errors(factors))
        alphas.append(alpha)
        gains = judge.gains(errors)
        if gains[0] < _PROMISE:
            return None
    if not alphas or gains.max() <= _GAIN * np.log2(n / len(judge.sample.program.y)):
        return None
    # Once more with all rows, at the strengths that are known: shares, and so kernels, have one sum
    # whatever the rows.
    known = alphas[: int(np.argmax(gains)) + 1]
    taught = list(_learn(sample, known, shared=shared))
    return taught[-1][0] if taught else None


def _learn(
    sample: Sample, alphas: Sequence[Floats | None] = (None,) * _ROUNDS, *, shared: bool
) -> Iterator[tuple[NDArray[np.float64], Floats]]:
    """Yield the factors after each round, and the strengths at which slopes were measured.

    Strengths that are None are those of least leave-one-out error.
    """
    X, y = sample.program.operator.X.astype(np.float64), sample.program.y.astype(np.float64)
    share = np.broadcast_to(sample.program.share, (len(y), 1))
    root, factors = np.sqrt(share), np.ones(X.shape[1] - 1)
    for alpha in alphas:
        seen = X * np.append(factors, 1.0)
        gram = seen @ seen.T
        opened = both_open(gram)
        kernel = root * (gram * opened) * root.T
        if alpha is None:
            alpha = leave_one_out(sample, Spectrum.of_kernel(kernel), shared=shared).alpha
        weights = root * _solve(kernel, root * y, alpha)
        slopes = _squared_slopes(seen[:, :-1], gram, opened, weights, share) * factors**2
        if not slopes.max() > 0:
            return
        factors = np.sqrt(slopes / slopes.max() + _FLOOR)
        factors /= np.sqrt(np.mean(factors**2))
        yield factors, alpha


def _solve(kernel: Floats, targets: Floats, alpha: Floats) -> Floats:
    """Return ``(kernel + alpha I)^-1 targets``, with an alpha for each output."""
    solved = np.empty(targets.shape)
    for value in np.unique(alpha):
        # Of rows that repeat each other, rounding could make the matrix indefinite.
        shift = max(float(value), 1e-10 * float(np.trace(kernel)))
        own = np.broadcast_to(alpha == value, targets.shape[1])
        with limit_threads(len(kernel) ** 3 / 3, SHARED_FACTOR):
            factor = cho_factor(kernel + shift * np.eye(len(kernel)), check_finite=False)
            solved[:, own] = cho_solve(factor, targets[:, own], check_finite=False)
    return solved


def _squared_slopes(
    features: Floats, gram: Floats, opened: Floats, weights: Floats, share: Floats
) -> NDArray[np.float64]:
    r"""Return the mean squared slope of all outputs along each feature.

    With the angle :math:`\theta` between rows :math:`a` and :math:`b`, the kernel
    :math:`k = a^T b (1 - \theta / \pi)` has the slope

    .. math::

        \frac{\partial k}{\partial a} = \left(1 - \frac\theta\pi\right) b
        + \frac{\cot\theta}{\pi} \left( b - \frac{a^T b}{\|a\|^2} a \right).
    """
    own = np.diagonal(gram)
    norm = np.sqrt(np.where(own > 0, own, 1))
    cosine = gram / norm[:, None] / norm
    sine = np.sqrt(np.maximum(1 - cosine**2, 0))
    turn = np.divide(cosine, np.pi * sine, out=np.zeros(gram.shape), where=sine > 1e-6)
    along = turn * cosine * (norm / norm[:, None])
    weighted = features[:, None] * weights[:, :, None]  # of all outputs at once
    with limit_threads(2.0 * len(gram) * weighted.size, SHARED_FACTOR):
        slopes = ((opened + turn) @ weighted.reshape(len(gram), -1)).reshape(weighted.shape)
        slopes -= (along @ weights)[:, :, None] * features[:, None]
    return np.einsum("i,icj,icj->j", share[:, 0], slopes, slopes)


class _Judge(NamedTuple):
    """Rows that have taught no factors, and the networks that predict them.

    Attributes
    ----------
    sample : Sample
        The rows.
    n_patterns : int
        Patterns of each network.
    kinds : sequence of str
        Kinds of patterns.
    seed : int
        Seed of their patterns: those of all factors are made of the same numbers.
    shared : bool
        Whether all outputs have the same strength.
    """

    sample: Sample
    n_patterns: int
    kinds: Sequence[Any]
    seed: int
    shared: bool

    @classmethod
    def of(
        cls, sample: Sample, n_patterns: int, kinds: Sequence[Any], seed: int, *, shared: bool
    ) -> _Judge:
        """Judge by the rows that are not in the first half."""
        rows = np.setdiff1d(np.arange(len(sample.program.y)), sample.half())
        return cls(sample.take(rows), n_patterns, kinds, seed, shared)

    def errors(self, factors: Floats | None) -> list[Floats]:
        """Return the errors of each kind of patterns; None are equal factors."""
        return [self._error(kind, factors) for kind in self.kinds]

    def gains(self, errors: Sequence[list[Floats]]) -> Floats:
        """Return how much less the error is with each factors but the first, in parts of those."""
        error = relative_errors(np.concatenate(errors), self.sample.program)
        least = error.reshape(len(errors), -1).min(axis=1)
        return np.asarray(1 - least[1:] / least[0] if least[0] > 0 else np.zeros(len(least) - 1))

    def _error(self, kind: Any, factors: Floats | None) -> Floats:
        """Return the squared error of each output, each unit predicted from the others."""
        X, y = self.sample.program.operator.X, self.sample.program.y
        if factors is not None:
            X = X * np.append(factors, 1.0).astype(X.dtype)
        rng = np.random.RandomState(self.seed)
        found = draw_patterns(X, y, self.n_patterns, kind, rng, factors)
        pilot = replace(self.sample.program, operator=GatedOperator(X, found.mask))
        out = leave_one_out(
            self.sample._replace(program=pilot), Spectrum.of(pilot), shared=self.shared
        )
        return np.atleast_1d(out.least(shared=self.shared))
