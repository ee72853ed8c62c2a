"""Regression whose Huber loss turns linear where the noise of the data says."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.estimators._base import ConvexReLUBase, Floats
from cvxnn.estimators._rows import DistinctRows, Rows
from cvxnn.estimators._scaling import Scaled

# Robust standard deviations from the median beyond which targets are outliers to the Huber loss.
_FARTHEST = 6.0
# Those beyond which they are pulled where squared errors judge.
_JUDGED = 2.5


class HuberDelta(ConvexReLUBase):
    """Estimator with the squared or the Huber loss, whose ``delta`` may come from the data."""

    loss: Literal["squared", "huber"] | convex.Loss
    delta: float | Literal["auto"]
    delta_: float

    def _program_loss(self) -> convex.Loss:
        """Return the loss of the program."""
        if not isinstance(self.loss, str):
            return self.loss
        if self.loss == "squared":
            return convex.SquaredLoss()
        return convex.HuberLoss() if self.delta == "auto" else convex.HuberLoss(float(self.delta))

    def _chooses_delta(self) -> bool:
        """Return whether the Huber loss turns linear where the data say."""
        return isinstance(self.loss, str) and (self.loss, self.delta) == ("huber", "auto")

    def _scale(self, X: Rows, y: Floats, weight: Floats, loss: convex.Loss) -> Scaled:
        """Scale rows to the units of the program, by medians where outliers are expected."""
        scaled = super()._scale(X, y, weight, loss)
        if not self._chooses_delta():
            return scaled
        mean = scaled.scaling.y_mean
        if self.fit_intercept:
            mean = np.array([training.weighted_median(column, weight) for column in y.T], y.dtype)
        spread = [training.spread_of(column, weight) for column in (y - mean).T]
        scaling = scaled.scaling._replace(y_mean=mean, y_scale=np.array(spread, y.dtype))
        # Beyond all predictions the loss has one slope, and its value would hide the other rows'.
        targets = np.clip((y - mean) / scaling.y_scale, -_FARTHEST, _FARTHEST).astype(X.dtype)
        return scaled._replace(targets=targets, scaling=scaling)

    def _is_judged(self, loss: convex.Loss) -> bool:
        """Return whether squared errors judge patterns and features: of clipped targets, too."""
        return super()._is_judged(loss) or (self._chooses_delta() and self._has_kernel())

    def _bare_program(self, scaled: Scaled, loss: convex.Loss) -> convex.ConvexProgram:
        """Return the program without patterns, whose squared errors no outlier decides."""
        program = super()._bare_program(scaled, loss)
        if not self._chooses_delta():
            return program
        return replace(program, y=np.clip(program.y, -_JUDGED, _JUDGED))

    def _complete(
        self,
        program: convex.ConvexProgram,
        rows: DistinctRows,
        rng: np.random.RandomState,
        spectrum: training.Spectrum | None,
    ) -> tuple[convex.ConvexProgram, training.Spectrum | None]:
        """Return the program with the Huber loss that suits its noise."""
        if not self._chooses_delta():
            return program, spectrum
        delta, spectrum = training.choose_delta(
            program, rng, units=rows.several_units, groups=rows.groups, spectrum=spectrum
        )
        return replace(program, loss=convex.HuberLoss(delta)), spectrum
