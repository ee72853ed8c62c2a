"""Folds of a cross-validation: the grid of strengths, solutions along it, the choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from cvxnn.convex.losses import Loss
from cvxnn.convex.operators import GatedOperator
from cvxnn.convex.path import solutions
from cvxnn.convex.pattern_sampling import sample_patterns
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.program import ConvexProgram
from cvxnn.convex.solver import Result
from cvxnn.convex.solvers.ridge.ridge import Ridge
from cvxnn.convex.solvers.ridge.ridge_path import RidgePath, takes_path
from cvxnn.estimators._base import ADAPTIVE_ROUNDS, ConvexReLUBase
from cvxnn.estimators._rows import DistinctRows, Rows
from cvxnn.estimators._scaling import Scaling
from cvxnn.network import TwoLayerNetwork, fold_scaling
from cvxnn.numerics.gates import open_where
from cvxnn.numerics.threads import limits_threads
from cvxnn.training import proposal, strength
from cvxnn.training.networks import network_of
from cvxnn.training.row_sample import sample_rows
from cvxnn.training.spectrum import Spectrum
from cvxnn.training.training import train

Floats = NDArray[np.floating]

# The direct solution of the single estimator is far inside its tolerance; here it costs little to
# be inside by this factor, and scores differ less from those of single fits.
_FINER = 0.1
# Part of a score that rounding, or what is left of a gap, may make: scores this close are equal.
_TIE = 1e-6
# A path ends after this many successive strengths that score worse than the best by more than a
# standard error; with fewer folds than the second number, the standard error is not reliable.
_PATIENCE, _LEAST_FOLDS = 3, 3


class Fold(NamedTuple):
    """Training rows of one fold, prepared for all strengths.

    Attributes
    ----------
    estimator : ConvexReLUBase
        Estimator whose parameters count.
    program : ConvexProgram
        In the gated formulation, over the patterns that are known without training.
    patterns : ActivationPatterns
        The patterns of ``program``.
    spectrum : Spectrum or None
        Of ``program``, where it is known.
    scaling : Scaling
        Units of the program.
    rng : RandomState
        Generator, in the state in which a single fit has it after drawing patterns.
    """

    estimator: ConvexReLUBase
    program: ConvexProgram
    patterns: ActivationPatterns
    spectrum: Spectrum | None
    scaling: Scaling
    rng: np.random.RandomState

    @classmethod
    def of(cls, estimator: ConvexReLUBase, rows: DistinctRows, loss: Loss) -> Fold:
        """Scale distinct rows and draw patterns, as the single fit does."""
        rng = check_random_state(estimator.random_state)
        scaled = estimator._scale_features(rows, loss, rng)
        inputs, targets, shared, scaling, _ = scaled
        _, found, spectrum = estimator._draw(scaled, rows, loss, rng)
        penalty = estimator._choose(*inputs.shape).penalty
        operator = GatedOperator(inputs, found.mask)
        program = ConvexProgram(operator, targets, 0.0, loss, penalty, shared, "gated")
        program, spectrum = estimator._complete(program, rows, rng, spectrum)
        return cls(estimator, program, found, spectrum, scaling, rng)

    @property
    def direct(self) -> bool:
        """Whether the kernel gives solutions at all strengths, and predictions without weights."""
        estimator = self.estimator
        return (
            takes_path(self.program)
            and estimator.formulation == "gated"
            and estimator.skip is None
            and (estimator.solver is None or isinstance(estimator.solver, Ridge))
        )

    def predictions(self, X: Rows, grid: Floats) -> Iterator[tuple[Floats, float]]:
        """Return outputs for new rows and the certified gap at one strength after another.

        Where they are not direct, each is found when it is asked for.
        """
        if self.direct:
            return self._directly(X, grid)
        return ((network.forward(X), result.gap) for network, result in self.networks(grid))

    @limits_threads(
        lambda self, *_: 2.0 * len(self.patterns) * max(self.program.operator.X.shape) ** 2
    )
    def _directly(self, X: Rows, grid: Floats) -> Iterator[tuple[Floats, float]]:
        """Return outputs and gaps at all strengths at once."""
        estimator, scaling = self.estimator, self.scaling
        options = Ridge(tol=_FINER * estimator.tol, max_iter=estimator.max_iter)
        given = estimator.solver if isinstance(estimator.solver, Ridge) else options
        path = RidgePath(self.program, given, self.spectrum and self.spectrum.kernel)
        unit = path.largest()
        points = list(path.points(grid * (unit if unit > 0 else 1.0)))
        inputs = scaling.inputs(X, bias=estimator.fit_intercept)
        mask = open_where(inputs, self.patterns.gates.astype(inputs.dtype))
        outputs = path.predict(points, inputs, mask) * scaling.y_scale + scaling.y_mean
        return zip(outputs.astype(X.dtype), [point.gap for point in points], strict=True)

    def networks(self, grid: Floats) -> Iterator[tuple[TwoLayerNetwork, Result]]:
        """Yield the network of raw features at each strength, and how it was found."""
        estimator = self.estimator
        pilot = sample_rows(self.program, self.rng).program
        spectrum = None
        if not pilot.has_alpha_max:
            spectrum = self.spectrum if pilot is self.program else None
            spectrum = spectrum or Spectrum.of(pilot)
        alphas = grid * strength.alpha_max(pilot, spectrum)
        _, source, n_patterns = estimator._choose(
            *self.program.operator.X.shape, n_outputs=self.program.y.shape[1]
        )
        used, operator = self.patterns, self.program.operator
        if source in ("local", "adaptive"):
            middle = float(np.sqrt(alphas[0] * alphas[-1]))
            used = self._trained(middle, n_patterns, adaptive=source == "adaptive")
            operator = GatedOperator(operator.X, used.mask)
        program = replace(
            self.program,
            operator=operator,
            formulation=estimator.formulation,
            skip=estimator.skip,
        )
        for result in solutions(
            program, alphas, tol=estimator.tol, solver=estimator.solver, max_iter=estimator.max_iter
        ):
            network = network_of(
                result.weights, used, program.formulation, bias=estimator.fit_intercept
            )
            yield fold_scaling(network, *self.scaling), result

    def _trained(self, alpha: float, n_patterns: int, *, adaptive: bool) -> ActivationPatterns:
        """Return patterns found by training at one strength."""
        estimator, program = self.estimator, self.program
        X, y = program.operator.X, program.y
        if adaptive:
            return train(
                X,
                y,
                alpha,
                n_patterns,
                loss=program.loss,
                sample_weight=program.sample_weight,
                formulation=estimator.formulation,
                skip=estimator.skip,
                n_rounds=ADAPTIVE_ROUNDS,
                solver=estimator.solver,
                tol=estimator.tol,
                max_iter=estimator.max_iter,
                random_state=self.rng,
            ).patterns
        network = proposal.propose(
            X,
            y,
            alpha,
            n_patterns,
            loss=program.loss,
            sample_weight=program.sample_weight,
            random_state=self.rng,
        )
        found, _ = proposal.to_program(X, network)
        return found if len(found) else sample_patterns(X, n_patterns, random_state=self.rng)


def fractions(name: str, values: Any, *, most: float = 1.0) -> Floats:
    """Check strengths and return each once, falling.

    Raises
    ------
    ValueError
        If there is none, or one that is not above 0 and at most ``most``.
    """
    grid = np.asarray(values)
    numeric = grid.ndim == 1 and grid.dtype.kind in "fiu"
    if not numeric or len(grid) == 0 or not np.all((grid > 0) & (grid <= most) & (grid < np.inf)):
        limit = f" and at most {most:g}: fractions of alpha_max_" if np.isfinite(most) else ""
        raise ValueError(f"{name}={values!r}; expected one or more finite numbers above 0{limit}.")
    return np.unique(grid.astype(np.float64))[::-1]


def best_of(scores: Floats) -> tuple[int, float]:
    """Return the column of the highest mean, the first among equals, and that mean.

    A fold on which the score is not defined (NaN for every strength) does not count.

    Raises
    ------
    ValueError
        If no mean is finite.
    """
    defined = scores[~np.isnan(scores).all(axis=1)]
    mean = defined.mean(axis=0) if len(defined) else np.full(scores.shape[1], np.nan)
    if not np.isfinite(mean).any():
        raise ValueError(
            "the folds gave no finite score for any strength; use a cv with more rows in each "
            "fold, or another scoring."
        )
    top = mean[np.isfinite(mean)].max()
    best = int(np.flatnonzero(mean >= top - _TIE * max(abs(top), 1))[0])
    return best, float(mean[best])


def cannot_win(scores: Floats) -> bool:
    """Return whether weaker strengths than those scored, one a column, promise nothing.

    The last ones score worse than the best, each by more than the standard error of the difference,
    fold by fold.
    """
    scores = scores[~np.isnan(scores).any(axis=1)]
    if len(scores) < _LEAST_FOLDS or scores.shape[1] <= _PATIENCE:
        return False
    best, _ = best_of(scores)
    if best >= scores.shape[1] - _PATIENCE:
        return False
    worse = scores[:, [best]] - scores[:, -_PATIENCE:]
    errors = worse.std(axis=0, ddof=1) / len(worse) ** 0.5
    return bool((worse.mean(axis=0) > errors).all())
