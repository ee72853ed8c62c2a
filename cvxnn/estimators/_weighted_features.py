"""Features that count more or less than others, where rows left out show that it helps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.convex.patterns import Formulation
from cvxnn.estimators._parameters import Choices, PatternsParameter
from cvxnn.estimators._rows import DistinctRows, Rows
from cvxnn.estimators._scaling import Scaled
from cvxnn.estimators._warm_start import WarmStart
from cvxnn.numerics.arrays import is_sparse

Floats = NDArray[np.floating]


class WeightedFeatures:
    """Estimator whose features may have factors of their own."""

    feature_factors: Literal["auto", "equal"] = "equal"
    feature_factors_: Floats
    formulation: Formulation
    patterns: PatternsParameter
    fit_intercept: bool
    standardize: bool
    _shares_strength: ClassVar[bool]
    _choose: Callable[..., Choices]
    _scale: Callable[[Rows, Floats, Floats, convex.Loss], Scaled]
    _last_fit: Callable[..., WarmStart | None]

    def _scale_features(
        self, rows: DistinctRows, loss: convex.Loss, rng: np.random.RandomState
    ) -> Scaled:
        """Scale rows to the units of the program, with factors of their features."""
        scaled = self._scale(rows.X, rows.y, rows.weight, loss)
        factors = self._factors_of(scaled, rows, loss, rng)
        return scaled.with_factors(rows.X, factors, bias=self.fit_intercept)

    def _factors_of(
        self, scaled: Scaled, rows: DistinctRows, loss: convex.Loss, rng: np.random.RandomState
    ) -> Floats | None:
        """Return the factors of the features; None where all are equal."""
        inputs, n_outputs = scaled.inputs, scaled.targets.shape[1]
        if (warm := self._last_fit(*inputs.shape, n_outputs=n_outputs)) is not None:
            return warm[-1]
        kinds = self._kinds_of_patterns(inputs, loss)
        drawn = self.patterns in ("auto", "gaussian", "thresholds")
        apart = self.feature_factors == "auto" and self.standardize and self.fit_intercept
        # Targets of a regression that are fitted together stay as they are alone.
        alike = n_outputs == 1 or self._shares_strength
        if not (apart and alike and self._is_judged(loss)):
            return None
        if is_sparse(inputs) or not drawn:
            return None
        return training.feature_factors(
            self._bare_program(scaled, loss),
            self._choose(*inputs.shape, n_outputs=n_outputs).n_patterns,
            kinds,
            rng,
            units=rows.several_units,
            groups=rows.groups,
            shared=self._shares_strength,
        )

    def _is_closed(self, loss: convex.Loss) -> bool:
        """Return whether one linear system solves the program."""
        return type(loss) is convex.SquaredLoss and self._has_kernel()

    def _is_judged(self, loss: convex.Loss) -> bool:
        """Return whether squared errors of rows left out judge patterns and features."""
        return self._is_closed(loss)

    def _has_kernel(self) -> bool:
        """Return whether the network is a kernel machine, of any loss."""
        ridge = type(self._choose().penalty) is convex.SquaredL2
        return ridge and self.formulation == "gated"

    def _kinds_of_patterns(self, inputs: Rows, loss: convex.Loss) -> tuple[Any, ...]:
        """Return the patterns to choose from: where rows left out can judge, more than one kind."""
        source: Any = self._choose(*inputs.shape).patterns
        if source in ("local", "adaptive"):
            source = "gaussian"
        judged = self.patterns == "auto" and self._is_judged(loss) and self.fit_intercept
        return (source, "thresholds") if judged and not is_sparse(inputs) else (source,)

    def _bare_program(self, scaled: Scaled, loss: convex.Loss) -> convex.ConvexProgram:
        """Return the program without patterns."""
        inputs, targets, weight, *_ = scaled
        penalty = self._choose(*inputs.shape, n_outputs=targets.shape[1]).penalty
        operator = convex.GatedOperator(inputs, np.zeros((inputs.shape[0], 0), bool))
        return convex.ConvexProgram(operator, targets, 0.0, loss, penalty, weight, "gated")
