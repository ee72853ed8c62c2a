"""What the estimators share: parameters, the crossing to the solver, warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from cvxnn.convex.losses import HuberLoss, Loss, SquaredLoss
from cvxnn.convex.operators import GatedOperator, Weights
from cvxnn.convex.patterns import ActivationPatterns
from cvxnn.convex.penalties import NeuronGroupLasso, SquaredL2
from cvxnn.convex.program import ConvexProgram, Formulation
from cvxnn.convex.solver import Result, Solver, Status
from cvxnn.convex.solvers.cronos.solver import Cronos
from cvxnn.convex.solvers.interior_point.solver import InteriorPoint
from cvxnn.convex.solvers.proximal_gradient import ProximalGradient
from cvxnn.convex.solvers.ridge.solver import Ridge
from cvxnn.estimators._monitor import EarlyStopping, Monitor, Snapshot, Watched, progress
from cvxnn.estimators._parameters import (
    Choices,
    Number,
    PatternsParameter,
    PenaltyParameter,
    check_parameters,
    resolve,
)
from cvxnn.estimators._prediction import NetworkPrediction
from cvxnn.estimators._rows import Rows, Scaled, Scaling, merge, scale, split
from cvxnn.network import TwoLayerNetwork, fold_scaling, recover
from cvxnn.training import strength
from cvxnn.training.training import PatternChoice, Training, draw_patterns, train

# Most rounds of refinement of patterns="adaptive"; they end early when nothing is left to gain.
_ADAPTIVE_ROUNDS = 10
# Smallest automatic strength, as a part of its unit: data without noise ask for none at all.
_LEAST_ALPHA = 1e-9
# Factors of the automatic strength that data set apart may choose from; the first of equals wins.
_VALIDATED_STRENGTHS = np.logspace(2, -2, 9)
# Patterns on which the unit of the strength is measured where the program's are not known yet.
_PILOT_PATTERNS = 256


class Fit(NamedTuple):
    """One training: the network of raw features, how it was found, and in which units."""

    network: TwoLayerNetwork
    training: Training
    scaling: Scaling
    alpha: float
    alpha_max: float
    held_out: HeldOut | None


class HeldOut(NamedTuple):
    """Predictions of rows by networks that have not seen them, in units of the targets."""

    predictions: NDArray[np.floating]
    targets: NDArray[np.floating]
    weight: NDArray[np.floating]


class ConvexReLUBase(Watched, NetworkPrediction, BaseEstimator):
    """Parameters and the fit that classifier, regressor and preference head share."""

    _numbers: ClassVar[dict[str, Number]] = {
        "strength": Number(Real, words=("auto",)),
        "skip": Number(Real, words=(None,)),
        "n_patterns": Number(Integral, 1, words=("auto",)),
        "tol": Number(Real),
        "max_iter": Number(Integral, 1),
        "validation_fraction": Number(Real, closed=False),
        "n_iter_no_change": Number(Integral, 1),
    }
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "patterns": get_args(PatternsParameter),
    }
    # Options of the validation of targets.
    _y_options: ClassVar[dict[str, Any]] = {}

    # Parameters of all; some have only some of the others, whose values are these otherwise.
    strength: float | Literal["auto"]
    patterns: PatternsParameter
    n_patterns: int | Literal["auto"]
    fit_intercept: bool
    standardize: bool
    tol: float
    max_iter: int
    solver: Solver | None
    random_state: int | np.random.RandomState | None
    verbose: int
    formulation: Formulation = "relu"
    penalty: PenaltyParameter = "auto"
    skip: float | None = None
    warm_start: bool = False
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 5

    def _check_parameters(self) -> None:
        """Raise for parameters that are out of range or do not go together."""
        check_parameters(self, self._numbers, self._choices)
        if self.patterns == "adaptive" and not isinstance(self._choose().penalty, NeuronGroupLasso):
            raise ValueError(
                f"patterns='adaptive' needs penalty='neuron', got {self.penalty!r}, under which a "
                "pattern has no price; use patterns='local'."
            )
        if self.solver is not None and not isinstance(
            self.solver, Cronos | InteriorPoint | ProximalGradient | Ridge
        ):
            raise TypeError(
                f"solver={self.solver!r}; expected None or a Cronos, InteriorPoint, "
                "ProximalGradient or Ridge of cvxnn.convex."
            )

    def _choose(self, n: int = 1, d: int = 1) -> Choices:
        """Resolve what is "auto" for ``n`` rows of ``d`` inputs."""
        return resolve(self.formulation, self.penalty, self.patterns, self.n_patterns, n, d)

    def _takes_sparse(self) -> bool:
        """Whether the parameters lead to the direct solution, which needs products only."""
        chosen = self._choose()
        return (
            self.formulation == "gated"
            and isinstance(chosen.penalty, SquaredL2)
            and chosen.patterns == "gaussian"
            and getattr(self, "loss", None) == "squared"
            and (self.solver is None or isinstance(self.solver, Ridge))
        )

    def _scale(
        self, X: Rows, y: NDArray[np.floating], weight: NDArray[np.floating], loss: Loss
    ) -> Scaled:
        """Rows in the units of the program; targets only where the loss is one of distance."""
        return scale(
            X,
            y,
            weight,
            standardize=self.standardize,
            fit_intercept=self.fit_intercept,
            keep_targets=not isinstance(loss, SquaredLoss | HuberLoss),
        )

    def _draw(
        self, inputs: Rows, targets: NDArray[np.floating], rng: np.random.RandomState
    ) -> ActivationPatterns:
        """The patterns, where they need no training; else some to look at the data with."""
        penalty, source, n_patterns = self._choose(*inputs.shape)
        if source == "gaussian" or source == "data":
            return draw_patterns(inputs, targets, n_patterns, source, rng)
        if not isinstance(penalty, SquaredL2):  # whose unit grows with the number of patterns
            n_patterns = _PILOT_PATTERNS
        return draw_patterns(inputs, targets, n_patterns, "gaussian", rng)

    def _network(
        self,
        weights: Weights,
        patterns: ActivationPatterns,
        *,
        scaling: Scaling,
    ) -> TwoLayerNetwork:
        """The network of raw features that weights over patterns stand for."""
        network = recover(
            weights,
            bias=self.fit_intercept,
            tol=1e-6,
            gates=patterns.gates if self.formulation == "gated" else None,
        )
        return fold_scaling(network, *scaling)

    def _fit_network(
        self,
        X: Rows,
        y: NDArray[np.floating],
        sample_weight: NDArray[np.floating],
        loss: Loss,
        *,
        alpha: float | None = None,
        monitor: Monitor | None = None,
    ) -> Fit:
        """Solve the program for targets ``y`` (n_samples, n_outputs) and recover the network.

        Rows are distinct, with positive weights, as ``merge`` gives them. Losses of the distance
        between target and prediction have the targets centred and scaled. ``alpha``, in the
        program's own units, replaces the parameter and asks for a fit from scratch.
        """
        rng = check_random_state(self.random_state)
        inputs, targets, weight, scaling = self._scale(X, y, sample_weight, loss)
        penalty, source, n_patterns = self._choose(*inputs.shape)
        patterns: ActivationPatterns | PatternChoice
        patterns = "local" if source == "adaptive" else source
        start: Result | None = None
        if self.warm_start and alpha is None and hasattr(self, "_warm"):
            patterns, start = self._warm_patterns(inputs, targets) or (patterns, None)
        # The unit of the strength, and perhaps the strength, from a sample of the rows.
        known = patterns
        if isinstance(known, str):
            known = self._draw(inputs, targets, rng)
            patterns = patterns if patterns == "local" else known
        operator = GatedOperator(inputs, known.mask)
        pilot = strength.sample_rows(
            ConvexProgram(operator, targets, 0.0, loss, penalty, weight, "gated"), rng
        )
        direct = (
            self.formulation == "gated"
            and isinstance(penalty, SquaredL2)
            and isinstance(loss, SquaredLoss)
        )
        choosing = alpha is None and self.strength == "auto"
        spectrum = None
        if choosing or isinstance(penalty, SquaredL2):
            spectrum = strength.Spectrum.of(pilot)
        alpha_max = strength.alpha_max(pilot, spectrum)
        if choosing:
            assert spectrum is not None
            chosen = strength.automatic_alpha(pilot, spectrum, len(y), rng)
            alpha = max(chosen, _LEAST_ALPHA * alpha_max)
        elif alpha is None:
            alpha = float(self.strength) * alpha_max
        alphas = np.array([alpha])
        early = None if monitor is None else monitor.early
        if early is not None and direct and self.strength == "auto":
            # Nothing to stop: data set apart choose the strength.
            alphas = alpha * _VALIDATED_STRENGTHS

        def look(row: dict[str, float], found: Callable[[], Any]) -> bool:
            assert watch is not None
            return watch(row, lambda: self._network(*found(), scaling=scaling))

        # The direct solution has one measurement: what counts is scored below.
        watch = monitor._replace(early=None) if monitor is not None and direct else monitor
        best: Fit | None = None
        flops = strength.flops(pilot, spectrum)
        for alpha in alphas:
            training = train(
                inputs,
                targets,
                float(alpha),
                n_patterns,
                loss=loss,
                penalty=penalty,
                sample_weight=weight,
                formulation=self.formulation,
                skip=self.skip,
                source=patterns,
                n_rounds=_ADAPTIVE_ROUNDS if source == "adaptive" else 0,
                start=start,
                solver=self.solver,
                tol=self.tol,
                max_iter=self.max_iter,
                random_state=rng,
                callback=look if watch else None,
            )
            self._require_finite(training.result)
            flops += training.flops
            network = self._network(training.result.weights, training.patterns, scaling=scaling)
            fit = Fit(network, training, scaling, float(alpha), alpha_max, None)
            # Networks of an iterative solution have been scored while it ran.
            if early is None or not direct or early.is_best(network):
                best = fit
        assert best is not None
        best = best._replace(training=best.training._replace(flops=flops))
        if early is not None and early.best is not None:
            best = best._replace(network=early.best)
        if direct and spectrum is not None and self.skip is None:
            best = best._replace(held_out=_leave_one_out(pilot, spectrum, len(y), best))
        return best

    def _fit_rows(
        self,
        X: Rows,
        y: NDArray[np.floating],
        weight: NDArray[np.floating],
        loss: Loss,
        *,
        score: Callable[[NDArray[np.floating], NDArray[np.floating]], float],
        validation: tuple[Rows, NDArray[np.floating]] | None,
        labels: Callable[[NDArray[np.floating]], NDArray[Any]] | None,
        hook: Callable[[Snapshot], bool] | None,
    ) -> tuple[Fit, tuple[Rows, NDArray[np.floating], NDArray[np.floating]]]:
        """Merge rows, set some apart if asked to, and fit, watched; the fit and its rows.

        ``score`` compares predictions with targets, ``labels`` turns targets into the classes
        whose proportions a split should keep.
        """
        X, y, weight = merge(X, y, weight)
        if self.early_stopping and validation is None:
            rng = check_random_state(self.random_state)
            kept, apart = split(
                len(y), self.validation_fraction, None if labels is None else labels(y), rng
            )
            validation = X[apart], y[apart]
            X, y, weight = X[kept], y[kept], weight[kept]
        early = None
        if validation is not None:
            seen, truth = validation
            early = EarlyStopping(
                lambda network: score(network.forward(seen), truth), self.n_iter_no_change
            )
        with progress(self.verbose, type(self).__name__) as show:
            fit = self._fit_network(X, y, weight, loss, monitor=Monitor(show, early, hook))
        self.validation_scores_ = None if early is None else np.array(early.scores)
        return fit, (X, y, weight)

    def _validation_rows(self, X_val: Any, y_val: Any) -> tuple[Rows, Any] | None:
        """Checked validation data, or None."""
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together: give both or neither.")
        if X_val is None:
            return None
        rows, targets = self._validate(X_val, y_val, reset=False, **self._y_options)
        return rows, targets

    def _warm_patterns(
        self, inputs: Rows, targets: NDArray[np.floating]
    ) -> tuple[ActivationPatterns, Result] | None:
        """Patterns of the last fit on these rows, and what it found; None where they do not fit."""
        gates, result = self._warm
        shape = (targets.shape[1], 2 if self.formulation == "relu" else 1)
        weights = result.weights
        if gates.shape[1] != inputs.shape[1] or weights.blocks.shape[:2] != shape:
            return None
        if (weights.linear is None) != (self.skip is None):
            return None
        mask = np.asarray(inputs @ gates.T.astype(inputs.dtype)) >= 0
        if result.dual is not None and len(result.dual.residual) != len(targets):
            result = result._replace(dual=None)
        return ActivationPatterns(mask, gates), result

    def _set_fitted(self, fit: Fit) -> None:
        network, training = fit.network, fit.training
        result = training.result
        self.network_ = network
        self.n_iter_ = result.n_iter
        self.status_ = result.status.value
        self.objective_ = result.objective
        self.dual_bound_ = result.dual_bound
        self.gap_ = result.gap
        self.history_ = result.history
        self.rounds_ = training.rounds
        self.strength_ = fit.alpha / fit.alpha_max
        self.alpha_ = fit.alpha
        self.alpha_max_ = fit.alpha_max
        self.n_patterns_ = len(training.patterns)
        self.flops_ = training.flops
        self._n_features_out = network.n_neurons
        if self.warm_start:
            # Without the status: pickles that run no code know no enumerations of ours.
            self._warm = (training.patterns.gates, result._replace(status=None))  # type: ignore

    def _require_finite(self, result: Result, *, phase: str = "") -> None:
        if not np.isfinite(result.objective):
            raise FloatingPointError(
                f"{type(self).__name__}{phase} met a value that is not finite before any usable "
                f"network was found. {Status.NON_FINITE.remedy}"
            )

    def _warn_unless_converged(
        self, result: Result, *, phase: str = "", remedy: str | None = None, stacklevel: int = 4
    ) -> None:
        if result.status in (Status.CONVERGED, Status.STOPPED):
            return
        warnings.warn(
            f"{type(self).__name__}{phase} stopped after {result.n_iter} iterations "
            f"({result.status.value}) at a relative duality gap of {result.gap:.1e}. "
            f"{remedy or result.status.remedy}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )


def _leave_one_out(
    pilot: ConvexProgram, spectrum: strength.Spectrum, n_samples: int, fit: Fit
) -> HeldOut:
    """Predictions of the sampled rows, each without itself, at the strength of the fit."""
    n = pilot.y.shape[0]
    left = strength.leave_one_out(pilot, spectrum, np.array([fit.alpha * n_samples / n]))
    scale, mean = fit.scaling.y_scale, fit.scaling.y_mean
    share = np.broadcast_to(pilot.share, (n, 1))[:, 0]
    return HeldOut(left.predictions * scale + mean, pilot.y * scale + mean, share)
