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
    warm_start: bool
    _first: Any
    _shares_strength: ClassVar[bool]
    _choose: Callable[..., Choices]
    _scale: Callable[[Rows, Floats, Floats, convex.Loss], Scaled]
    _warm: Any

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
        n, d = rows.X.shape
        if self.warm_start and hasattr(self, "_warm"):
            before = self._warm[2]
            if before["feature_factors"] == self.feature_factors and n <= 2 * before["n_rows"]:
                known = self.feature_factors_
                return known if len(known) == d else None
        kinds = self._kinds_of_patterns(scaled.inputs, loss)
        apart = self.feature_factors == "auto" and self.standardize and self._first is None
        if not (apart and self._is_closed(loss) and self.fit_intercept):
            return None
        if is_sparse(scaled.inputs) or not set(kinds) <= {"gaussian", "thresholds"}:
            return None
        return training.feature_factors(
            self._bare_program(scaled, loss),
            kinds,
            rng,
            units=rows.several_units,
            groups=rows.groups,
            shared=self._shares_strength,
        )

    def _is_closed(self, loss: convex.Loss) -> bool:
        """Return whether one linear system solves the program."""
        squared = type(loss) is convex.SquaredLoss
        ridge = type(self._choose().penalty) is convex.SquaredL2
        return squared and ridge and self.formulation == "gated"

    def _kinds_of_patterns(self, inputs: Rows, loss: convex.Loss) -> tuple[Any, ...]:
        """Return the patterns to choose from: where rows left out can judge, more than one kind."""
        source: Any = self._choose(*inputs.shape).patterns
        if source in ("local", "adaptive"):
            source = "gaussian"
        judged = self.patterns == "auto" and self._is_closed(loss) and self.fit_intercept
        return (source, "thresholds") if judged and not is_sparse(inputs) else (source,)

    def _bare_program(self, scaled: Scaled, loss: convex.Loss) -> convex.ConvexProgram:
        """Return the program without patterns."""
        inputs, targets, weight, *_ = scaled
        penalty = self._choose(*inputs.shape, n_outputs=targets.shape[1]).penalty
        operator = convex.GatedOperator(inputs, np.zeros((inputs.shape[0], 0), bool))
        return convex.ConvexProgram(operator, targets, 0.0, loss, penalty, weight, "gated")
