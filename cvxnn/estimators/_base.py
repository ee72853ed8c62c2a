"""The fit that estimators share: parameters, plan, watching, fitted attributes, warnings."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.convex.patterns import Formulation
from cvxnn.convex.solver import Result, Solver
from cvxnn.estimators._curved import Curved
from cvxnn.estimators._fit_plan import HeldOut, Plan
from cvxnn.estimators._incremental import MOST_WEIGHTS, Incremental, check_matrix
from cvxnn.estimators._monitor import Watched, report_gain
from cvxnn.estimators._parameters import (
    Choices,
    Number,
    PatternsParameter,
    PenaltyParameter,
    check_memory,
    check_parameters,
    resolve,
)
from cvxnn.estimators._rows import DistinctRows, Rows, weights_of
from cvxnn.estimators._scaling import Scaled, Scaling, scale
from cvxnn.estimators._validation import TrainingRows, Validation, set_apart
from cvxnn.estimators._warm_start import WarmStart, is_of_use, warm_patterns, warm_start
from cvxnn.estimators._weighted_features import WeightedFeatures
from cvxnn.estimators.prediction import NetworkPrediction

# Most rounds of refinement of patterns="adaptive"; they end early when nothing is left to gain.
ADAPTIVE_ROUNDS = 10
# Factors of the automatic strength that validation data may choose from. The first of equals wins,
# and few rows leave many equal: the one of leave-one-out, then those nearest to it.
_VALIDATED_FACTORS = 10.0 ** np.array([0, 0.5, -0.5, 1, -1, 1.5, -1.5, 2, -2])
# Patterns on which the unit of the strength is measured where the program's come from training.
_PILOT_PATTERNS = 256

Floats = NDArray[np.floating]


class ConvexReLUBase(
    WeightedFeatures, Incremental, Curved, Watched, NetworkPrediction, BaseEstimator
):
    """Parameters and the fit that classifier, regressor and preference head share."""

    _numbers: ClassVar[dict[str, Number]] = {
        "strength": Number(Real, words=("auto",)),
        "skip": Number(Real, words=(None,)),
        "n_patterns": Number(Integral, 1, words=("auto",)),
        "tol": Number(Real),
        "max_iter": Number(Integral, 1),
        "validation_fraction": Number(Real, closed=False),
        "n_iter_no_change": Number(Integral, 1),
        "verbose": Number(Integral, words=(True, False)),
    }
    _choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "patterns": get_args(PatternsParameter),
        "fit_intercept": (True, False),
        "standardize": (True, False),
        "feature_factors": ("auto", "equal"),
        "early_stopping": (True, False),
        "warm_start": (True, False),
    }
    # Protocols of objects that may take the place of a choice.
    _objects: ClassVar[dict[str, str]] = {}
    # Whether an automatic strength is one for all outputs: those of classes are compared.
    _shares_strength: ClassVar[bool] = True
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
    penalty: PenaltyParameter | convex.Penalty = "auto"
    skip: float | None = None
    warm_start: bool = False
    early_stopping: bool = False
    validation_fraction: float = 0.1
    n_iter_no_change: int = 5
    # Name of the class that chose the strength by cross-validation, if one did.
    _chosen_by: str | None = None

    def _check_parameters(self) -> None:
        """Raise for parameters that are out of range or do not go together."""
        check_parameters(self, self._numbers, self._choices, self._objects)
        penalty = type(self._choose().penalty)
        if self.patterns == "adaptive" and penalty is not convex.NeuronGroupLasso:
            raise ValueError(
                f"patterns='adaptive' needs penalty='neuron', got {self.penalty!r}, under which a "
                "pattern has no price; set penalty='neuron', or formulation='relu', whose penalty "
                "it is by default, or use patterns='local'."
            )
        if self.patterns == "thresholds" and (self.formulation == "relu" or not self.fit_intercept):
            raise ValueError(
                "patterns='thresholds' are gates with offsets, which no ReLU neuron has for a "
                "pattern; set formulation='gated' and fit_intercept=True, or use "
                "patterns='gaussian'."
            )
        if self.solver is not None and not isinstance(self.solver, Solver):
            raise TypeError(
                f"solver={self.solver!r}; expected None, or a Solver such as Cronos, "
                "InteriorPoint, ProximalGradient or Ridge of cvxnn.convex, or of your own."
            )

    def _choose(self, n: int = 1, d: int = 1, *, n_outputs: int = 1) -> Choices:
        """Resolve values of "auto" for ``n`` rows of ``d`` inputs."""
        parameters = self.formulation, self.penalty, self.patterns, self.n_patterns
        choices = resolve(*parameters, n, d, n_outputs)
        if self._first is None:
            return choices
        if self.n_patterns == "auto":
            most = max(MOST_WEIGHTS // d, 1)
            choices = choices._replace(n_patterns=min(choices.n_patterns, most))
        squared = type(self._incremental_loss()) is convex.SquaredLoss
        check_matrix(choices.n_patterns, d, 1 if squared else n_outputs)
        return choices

    def _has_ridge(self) -> bool:
        # Objects alone load their classes, and JAX with them, which predictions do without.
        if isinstance(self.penalty, str):
            return self.penalty in ("auto", "l2")
        return type(self.penalty) is convex.SquaredL2

    def _has_loss(self, *names: str) -> bool:
        loss = getattr(self, "loss", None)
        return loss in names if isinstance(loss, str | None) else type(loss) is convex.SquaredLoss

    def _takes_sparse(self) -> bool:
        """Return whether the parameters lead to the direct solution, which needs products only."""
        return (
            self.formulation == "gated"
            and self._has_ridge()
            and self._has_loss("squared")
            and self.patterns in ("auto", "gaussian")
            and (self.solver is None or isinstance(self.solver, convex.Ridge))
            and self.strength != 0
            and self.skip != 0
        )

    def _is_quadratic(self) -> bool:
        """Return whether sums over rows determine the fit, or Newton's step."""
        smooth = self._has_loss("squared", "logistic", "pairwise", "pointwise")
        gated = self.formulation == "gated" and self.skip is None
        return gated and self._has_ridge() and smooth and self.strength != 0

    def _incremental_loss(self) -> convex.Loss:
        """Return the loss of a program that sums over rows determine."""
        if getattr(self, "loss", None) == "logistic":
            return convex.LogisticLoss()
        return convex.SquaredLoss()

    def _has_bias(self) -> bool:
        """Return whether rows of the program end with a one."""
        return self.fit_intercept

    def _scale(
        self, X: Rows, y: NDArray[np.floating], weight: NDArray[np.floating], loss: convex.Loss
    ) -> Scaled:
        """Scale rows to the units of the program, and targets where the loss is one of distance."""
        return scale(
            X,
            y,
            weight,
            standardize=self.standardize,
            fit_intercept=self.fit_intercept,
            keep_targets=self._keeps_targets(loss),
        )

    def _keeps_targets(self, loss: convex.Loss) -> bool:
        """Return whether targets are classes, with a loss that takes nothing else."""
        return type(loss) is not convex.SquaredLoss

    def _complete(
        self,
        program: convex.ConvexProgram,
        rows: DistinctRows,
        rng: np.random.RandomState,
        spectrum: training.Spectrum | None,
    ) -> tuple[convex.ConvexProgram, training.Spectrum | None]:
        """Return the program with what is chosen from the data, and its spectrum where known."""
        return program, spectrum

    def _draw(
        self, scaled: Scaled, rows: DistinctRows, loss: convex.Loss, rng: np.random.RandomState
    ) -> training.ChosenPatterns:
        """Draw the patterns, or, where they come from training, some to look at the data with.

        Where rows left out can judge, Gaussian gates or thresholds, whichever predict them better.
        """
        inputs, targets = scaled.inputs, scaled.targets
        (n, d), n_outputs = inputs.shape, targets.shape[1]
        choices = self._choose(n, d, n_outputs=n_outputs)
        check_memory(choices, n, d, n_outputs, inputs.dtype.itemsize, formulation=self.formulation)
        penalty, source, n_patterns = choices
        if source in ("local", "adaptive") and type(penalty) is not convex.SquaredL2:
            n_patterns = _PILOT_PATTERNS  # the unit of ridge grows with their number
        return training.choose_patterns(
            self._bare_program(scaled, loss),
            n_patterns,
            self._kinds_of_patterns(inputs, loss),
            rng,
            units=rows.several_units,
            groups=rows.groups,
            shared=self._shares_strength,
            factors=scaled.factors,
        )

    def _plan(
        self,
        rows: DistinctRows,
        loss: convex.Loss,
        *,
        validated: bool = False,
    ) -> Plan:
        """Scale the data, find patterns that need no training, and decide the strength.

        Parameters
        ----------
        rows : DistinctRows
            What to fit. Losses of the distance between target and prediction have the targets
            centred and scaled.
        loss : Loss
            Of the program.
        validated : bool, default=False
            Whether networks are scored on validation data, which then choose an automatic strength
            of the direct solution.
        """
        rng = check_random_state(self.random_state)
        scaled = self._scale_features(rows, loss, rng)
        inputs, targets, weight, scaling, factors = scaled
        penalty, origin, n_patterns = self._choose(*inputs.shape, n_outputs=targets.shape[1])
        patterns: convex.ActivationPatterns | training.PatternChoice
        patterns = "local" if origin == "adaptive" else origin
        start: Result | None = None
        # The unit of the strength is measured on patterns that no fit before has chosen.
        _, known, spectrum = self._draw(scaled, rows, loss, rng)
        if patterns != "local":
            patterns = known
        request = self._request(*inputs.shape, n_outputs=targets.shape[1])
        if (warm := self._last_fit(*inputs.shape, n_outputs=targets.shape[1])) is not None:
            patterns, start = warm_patterns(warm, inputs, targets)
            if not isinstance(patterns, str) and np.array_equal(patterns.gates, known.gates):
                patterns = known
        operator = convex.GatedOperator(inputs, known.mask)
        program = convex.ConvexProgram(operator, targets, 0.0, loss, penalty, weight, "gated")
        program, spectrum = self._complete(program, rows, rng, spectrum)
        loss = program.loss
        measured = training.measure_strength(
            program,
            self.strength,
            rng,
            units=rows.several_units,
            groups=rows.groups,
            shared=self._shares_strength,
            error=self._error_in_units_of(scaling, loss),
            spectrum=spectrum,
        )
        arguments = {
            "X": inputs,
            "y": targets,
            "alpha": measured.alpha,
            "n_patterns": n_patterns,
            "sample_weight": weight,
            "skip": self.skip,
            "patterns": patterns,
            "bias": self.fit_intercept,
            "start": start,
            "solver": self.solver,
            "tol": self.tol,
            "max_iter": self.max_iter,
            "random_state": rng,
        }
        if self._is_closed(loss):
            if validated and self.strength == "auto":
                arguments["factors"] = _VALIDATED_FACTORS
            if patterns is known:
                arguments["kernel"] = measured.kernel
            return Plan(training.fit_direct, arguments, scaling, measured, request, factors)
        arguments |= {
            "loss": loss,
            "penalty": penalty,
            "formulation": self.formulation,
            "n_rounds": ADAPTIVE_ROUNDS if origin == "adaptive" else 0,
            "patience": self.n_iter_no_change,
        }
        return Plan(training.fit_iterative, arguments, scaling, measured, request, factors)

    def _held_out_error(self) -> Callable[[HeldOut], float] | None:
        """Return what judges an automatic strength in place of the squared error, if anything."""
        return None

    def _error_in_units_of(self, scaling: Scaling, loss: convex.Loss) -> Any:
        """Return what judges an automatic strength by predictions in the program's units."""
        error = self._held_out_error()
        if error is None or type(loss) is not convex.SquaredLoss:
            return None
        return lambda sample, predictions: error(HeldOut.of(sample, predictions, scaling))

    def _last_fit(self, n: int, d: int, *, n_outputs: int) -> WarmStart | None:
        """Return what the last fit left, if a warm start is asked for and it is of use here."""
        if not (self.warm_start and hasattr(self, "_warm")):
            return None
        request, linear = self._request(n, d, n_outputs=n_outputs), self.skip is not None
        fits = is_of_use(self._warm, request, d, n_outputs, self.formulation, linear=linear)
        return self._warm if fits else None

    def _request(self, n: int, d: int, *, n_outputs: int) -> dict[str, Any]:
        """Return what patterns were asked for; those of another request are not used again."""
        _, origin, n_patterns = self._choose(n, d, n_outputs=n_outputs)
        return {
            "patterns": self.patterns if self.formulation == "gated" else origin,
            "n_patterns": n_patterns,
            "fit_intercept": bool(self.fit_intercept),
            "standardize": bool(self.standardize),
            "feature_factors": self.feature_factors,
            "n_rows": n,
        }

    def _set_apart(
        self,
        rows: DistinctRows,
        validation: Validation | None,
        labels: Callable[[Floats], NDArray[Any]] | None,
    ) -> TrainingRows:
        """Set some rows apart if asked to.

        ``labels`` turns targets into the classes whose proportions a split should keep.
        """
        if self.early_stopping and validation is None:
            rng = check_random_state(self.random_state)
            classes = None if labels is None else labels(rows.y)
            return set_apart(rows, self.validation_fraction, classes, rng)
        return TrainingRows(rows, validation)

    def _validation_rows(self, X_val: Any, y_val: Any, sample_weight_val: Any) -> Any:
        """Check validation data and return rows, targets of the user and weights, or None."""
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together: give both or neither.")
        if X_val is None:
            if sample_weight_val is not None:
                raise ValueError("sample_weight_val weights rows of X_val: give X_val and y_val.")
            return None
        rows, targets = self._validate(X_val, y_val, reset=False, **self._y_options)
        weight = weights_of(sample_weight_val, rows.shape[0], rows.dtype, "sample_weight_val")
        return rows, targets, weight

    def _set_fitted(self, plan: Plan, fit: training.Fit) -> None:
        """Set the fitted attributes of a completed fit."""
        network, training = fit.network, fit.training
        for name in ("prices_", "_sums", "n_samples_seen_"):  # of a fit before
            self.__dict__.pop(name, None)
        result = training.result
        self.network_ = network
        self.n_iter_ = result.n_iter
        self.status_ = result.status.value
        self.objective_ = result.objective
        self.proposal_objective_ = training.proposal_objective
        self.dual_bound_ = result.dual_bound
        self.gap_ = result.gap
        if self.verbose:
            report_gain(type(self).__name__, training.proposal_objective, result.objective)
        self.history_ = result.history
        self.rounds_ = training.rounds
        self.strength_ = fit.alpha / plan.strength.alpha_max
        self.alpha_ = fit.alpha
        self.alpha_max_ = plan.strength.alpha_max
        self.n_patterns_ = len(training.patterns)
        self.flops_ = training.flops
        self._n_features_out = network.n_neurons
        self.feature_factors_ = plan.all_factors
        scale = plan.scaling.x_scale * self.feature_factors_  # the spread of the features
        self._feature_scale = np.where(np.isfinite(scale), scale, 0)  # constant features: no weight
        self._proof = self._proof_of(result, training.patterns.gates, direct=plan.direct)
        if self.warm_start:
            self._warm = warm_start(training.patterns, result, plan.request, plan.factors)

    def _fitted_rows(
        self, distinct: DistinctRows, labels: Callable[[Floats], NDArray[Any]] | None
    ) -> DistinctRows:
        """Return the rows that were fitted: without those that early stopping set apart."""
        residual = self._proof.get("residual")
        if residual is None or len(residual) == len(distinct.y):
            return distinct
        return self._set_apart(distinct, None, labels).rows
