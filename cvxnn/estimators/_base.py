"""What the estimators share: scaling, the crossing to the solver, warnings."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from cvxnn.losses import HuberLoss, Loss, SquaredLoss
from cvxnn.network import TwoLayerNetwork, fold_scaling, recover
from cvxnn.patterns import add_bias
from cvxnn.penalties import L1, FeatureGroupLasso, NeuronGroupLasso, Penalty, SquaredL2
from cvxnn.problem import Form
from cvxnn.solvers._loop import Callback, Result, Status
from cvxnn.solvers.cronos import Cronos
from cvxnn.solvers.interior_point import InteriorPoint
from cvxnn.solvers.proximal_gradient import ProximalGradient
from cvxnn.training import Training, train

FLOATS = (np.float64, np.float32)

PatternsParameter = Literal["local", "adaptive", "gaussian", "data"]
PenaltyParameter = Literal["neuron", "feature", "l1", "l2"]
_PENALTIES: dict[str, type[Penalty]] = {
    "neuron": NeuronGroupLasso,
    "feature": FeatureGroupLasso,
    "l1": L1,
    "l2": SquaredL2,
}
# Most rounds of refinement of patterns="adaptive"; they end early when nothing is left to gain.
_ADAPTIVE_ROUNDS = 10


class Scaling(NamedTuple):
    """Units in which the program is solved.

    Features have mean 0 and standard deviation ``1 / sqrt(n_features)``, so that rows have norm
    about 1 whatever the width; targets have mean 0 and standard deviation 1. ``alpha`` then has one
    meaning for every data set.
    """

    x_mean: NDArray[np.floating]
    x_scale: NDArray[np.floating]
    y_mean: NDArray[np.floating]
    y_scale: NDArray[np.floating]

    @classmethod
    def of(
        cls,
        X: NDArray[np.floating],
        y: NDArray[np.floating],
        weight: NDArray[np.floating],
        *,
        standardize: bool,
        fit_intercept: bool,
    ) -> Scaling:
        """Measure the data; constant columns keep scale 1.

        Raises
        ------
        ValueError
            If a mean or a standard deviation is beyond the range of the dtype.
        """
        d, dtype = X.shape[1], X.dtype
        x_mean, x_scale = np.zeros(d, dtype), np.ones(d, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            if standardize:
                x_mean, x_scale = _mean_and_scale(X, weight, centre=fit_intercept)
                x_scale = x_scale * dtype.type(np.sqrt(d))
            y_mean, y_scale = _mean_and_scale(y, weight, centre=fit_intercept)
        scaling = cls(x_mean, x_scale, y_mean, y_scale)
        if not all(np.isfinite(part).all() for part in scaling):
            raise ValueError(
                f"X or y holds values too large for {dtype}; rescale them or pass X as float64."
            )
        return scaling


def _mean_and_scale(
    values: NDArray[np.floating], weight: NDArray[np.floating], *, centre: bool
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Mean (0 unless ``centre``) of each column and root mean square of what is left."""
    dtype = values.dtype
    mean = np.zeros(values.shape[1], dtype)
    if centre:
        mean = np.average(values, axis=0, weights=weight).astype(dtype)
    rest = values - mean
    # Squares of the bare values could overflow or vanish.
    peak = np.abs(rest).max(axis=0)
    peak = np.where(peak == 0, 1, peak)
    scale = peak * np.sqrt(np.average((rest / peak) ** 2, axis=0, weights=weight))
    # Rounding alone leaves a spread of about eps times the mean on constant columns.
    constant = scale <= 10 * np.finfo(dtype).eps * np.abs(mean)
    return mean, np.where(constant, 1, scale).astype(dtype)


def weights_of(sample_weight: Any, n_samples: int, dtype: np.dtype) -> NDArray[np.floating]:
    """Checked sample weights, or ones."""
    if sample_weight is None:
        return np.ones(n_samples, dtype)
    weight = np.asarray(sample_weight, dtype)
    if weight.shape != (n_samples,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}; expected ({n_samples},), one for each row."
        )
    if not np.all(np.isfinite(weight)) or np.any(weight < 0) or not np.any(weight > 0):
        raise ValueError("sample_weight must be finite and non-negative, and not zero everywhere.")
    return weight


def require_two_classes(estimator: Any, classes: NDArray[Any], codes: NDArray[np.intp]) -> None:
    """Refuse targets of one class; ``codes`` index ``classes`` on the rows that count."""
    present = np.unique(codes)
    if len(present) < 2:
        raise ValueError(
            f"{type(estimator).__name__} needs samples of at least 2 classes; the data holds only "
            f"one class: {classes.tolist()[present[0]]!r}."
        )


class ConvexReLUBase(BaseEstimator):
    """Parameters and the fit that classifier, regressor and preference head share."""

    # name -> (number type, smallest value, whether the smallest is allowed)
    _numbers: ClassVar[dict[str, tuple[Any, float, bool]]] = {
        "alpha": (Real, 0, True),
        "skip": (Real, 0, True),
        "n_patterns": (Integral, 1, True),
        "tol": (Real, 0, True),
        "max_iter": (Integral, 1, True),
    }
    # name -> what it may be
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "patterns": get_args(PatternsParameter),
    }

    # Parameters of some estimators only.
    formulation: Form = "relu"
    penalty: PenaltyParameter = "neuron"
    skip: float | None = None

    def _check_parameters(self) -> None:
        for name, (kind, low, closed) in self._numbers.items():
            value: Any = getattr(self, name)
            if name == "skip" and value is None:
                continue
            fits = isinstance(value, kind) and not isinstance(value, bool) and np.isfinite(value)
            if not fits or value < low or (value == low and not closed):
                what = "an integer" if kind is Integral else "a number"
                bound = "at least" if closed else "above"
                raise ValueError(f"{name}={value!r}; expected {what} {bound} {low}.")
        for name, choices in self._choices.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}; expected one of {choices}.")
        if self.patterns == "adaptive" and self.penalty != "neuron":
            raise ValueError(
                f"patterns='adaptive' needs penalty='neuron', got {self.penalty!r}, under which a "
                "pattern has no price; use patterns='local'."
            )
        if self.solver is not None and not isinstance(
            self.solver, Cronos | InteriorPoint | ProximalGradient
        ):
            raise TypeError(
                f"solver={self.solver!r}; expected None or a Cronos, InteriorPoint or "
                "ProximalGradient of cvxnn.solvers."
            )

    def _fit_network(
        self,
        X: NDArray[np.floating],
        y: NDArray[np.floating],
        sample_weight: NDArray[np.floating],
        loss: Loss,
    ) -> tuple[TwoLayerNetwork, Training]:
        """Solve the program for targets ``y`` (n_samples, n_outputs) and recover the network.

        Losses of the distance between target and prediction have the targets centred and scaled.
        """
        keep = sample_weight > 0
        X, y, weight = X[keep], y[keep], sample_weight[keep]
        scaling = Scaling.of(
            X, y, weight, standardize=self.standardize, fit_intercept=self.fit_intercept
        )
        inputs = (X - scaling.x_mean) / scaling.x_scale
        if self.fit_intercept:
            inputs = add_bias(inputs)
        if not isinstance(loss, SquaredLoss | HuberLoss):
            scaling = scaling._replace(
                y_mean=np.zeros_like(scaling.y_mean), y_scale=np.ones_like(scaling.y_scale)
            )
        targets = ((y - scaling.y_mean) / scaling.y_scale).astype(X.dtype)
        equal = bool(np.all(weight == weight[0]))
        adaptive = self.patterns == "adaptive"
        with progress(self.verbose, type(self).__name__) as callback:
            training = train(
                np.ascontiguousarray(inputs),
                targets,
                float(self.alpha),
                int(self.n_patterns),
                loss=loss,
                penalty=_PENALTIES[self.penalty](),
                sample_weight=None if equal else weight,
                form=self.formulation,
                skip=self.skip,
                source="local" if adaptive else self.patterns,
                n_rounds=_ADAPTIVE_ROUNDS if adaptive else 0,
                solver=self.solver,
                tol=self.tol,
                max_iter=self.max_iter,
                random_state=self.random_state,
                callback=callback,
            )
        self._require_finite(training.result)
        network = recover(
            training.result.weights,
            bias=self.fit_intercept,
            tol=1e-6,
            gates=training.patterns.gates if self.formulation == "gated" else None,
            skip=self.skip is not None,
        )
        return fold_scaling(network, *scaling), training

    def _set_fitted(self, network: TwoLayerNetwork, training: Training) -> None:
        result = training.result
        self.network_ = network
        self.n_iter_ = result.n_iter
        self.status_ = result.status.value
        self.objective_ = result.objective
        self.dual_bound_ = result.dual_bound
        self.gap_ = result.gap
        self.history_ = result.history
        self.rounds_ = training.rounds
        self.n_patterns_ = len(training.patterns)
        self.flops_ = training.flops

    def _require_finite(self, result: Result, *, phase: str = "") -> None:
        if not np.isfinite(result.objective):
            raise FloatingPointError(
                f"{type(self).__name__}{phase} met a value that is not finite before any usable "
                f"network was found. {Status.NON_FINITE.remedy}"
            )

    def _warn_unless_converged(
        self, result: Result, *, phase: str = "", remedy: str | None = None, stacklevel: int = 3
    ) -> None:
        if result.status is Status.CONVERGED:
            return
        warnings.warn(
            f"{type(self).__name__}{phase} stopped after {result.n_iter} iterations "
            f"({result.status.value}) at a relative duality gap of {result.gap:.1e}. "
            f"{remedy or result.status.remedy}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )

    def _network_input(self, X: Any) -> NDArray[np.floating]:
        check_is_fitted(self)
        return validate_data(self, X, dtype=list(FLOATS), reset=False)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether ``fit`` has come to its end."""
        return hasattr(self, "network_")


@contextmanager
def all_or_nothing(estimator: BaseEstimator) -> Iterator[None]:
    """Give the estimator its attributes back if the block fails or is interrupted."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


@contextmanager
def progress(verbose: int, name: str) -> Iterator[Callback | None]:
    """One line on standard error that follows a solve; nothing when ``verbose`` is 0."""
    if not verbose:
        yield None
        return

    def show(row: dict[str, float]) -> None:
        line = (
            f"\r{name}: iteration {row['iteration']:.0f}, objective {row['objective']:.6g}, "
            f"bound {row['dual_bound']:.6g}, {row['stopping']:.1e} to go to tol, "
            f"{row['time']:.1f} s"
        )
        print(line, end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print(file=sys.stderr)
