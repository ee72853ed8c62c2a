"""A fit that is ready to run, in the units of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxnn import training  # names load when first used: JAX is for fits only
from cvxnn.estimators._scaling import Scaling
from cvxnn.network import TwoLayerNetwork, fold_scaling
from cvxnn.numerics.threads import limit_threads
from cvxnn.training.pattern_transfer import product_flops

Floats = NDArray[np.floating]


class HeldOut(NamedTuple):
    """Predictions of rows by networks that have not seen them, in units of the targets.

    Weights add up to the number of units of data, of all rows where these are a sample.
    """

    predictions: Floats
    targets: Floats
    weight: Floats

    @classmethod
    def of(cls, sample: training.Sample, predictions: Floats, scaling: Scaling) -> HeldOut:
        """Leave the units of the program."""
        y, (scale, mean) = sample.program.y, (scaling.y_scale, scaling.y_mean)
        share = np.broadcast_to(sample.program.share, (len(y), 1))[:, 0]
        units = len(y) if sample.units is None else sample.units.sum()
        weight = share * (units / sample.part)
        return cls(predictions * scale + mean, y * scale + mean, weight)


class Plan(NamedTuple):
    """A fit that is ready to run, in the units of the program.

    Attributes
    ----------
    fit : callable
        ``fit_direct`` or ``fit_iterative``.
    arguments : dict
        Its arguments, but for those by which it is watched.
    scaling : Scaling
        Units of the program.
    strength : Strength
        Penalty parameter, and what it was measured on.
    request : dict
        The patterns that were asked for.
    factors : ndarray, shape (n_features,), or None
        Factors of the features; None where all are equal.
    """

    fit: Callable[..., training.Fit]
    arguments: dict[str, Any]
    scaling: Scaling
    strength: training.Strength
    request: dict[str, Any]
    factors: Floats | None = None

    @property
    def all_factors(self) -> Floats:
        """Factors of the features, ones where all are equal."""
        d = len(self.scaling.x_scale)
        return np.ones(d) if self.factors is None else self.factors

    @property
    def direct(self) -> bool:
        """Whether the program has a closed form."""
        return self.fit is training.fit_direct

    def raw(self, network: TwoLayerNetwork) -> TwoLayerNetwork:
        """Return the network of raw features and targets."""
        return fold_scaling(network, *self.scaling)

    def complete(self, fit: training.Fit) -> training.Fit:
        """Return the fit with the network of raw features, and all operations counted."""
        training = fit.training
        training = training._replace(flops=training.flops + self.strength.flops)
        return fit._replace(network=self.raw(fit.network), training=training)

    def leave_one_out(self, fit: training.Fit) -> tuple[HeldOut, HeldOut]:
        """Return predictions of a sample of rows, by networks without them and by the network.

        The network of the fit is the one of the program's units.
        """
        return self.without_themselves(fit), self.with_themselves(fit)

    def with_themselves(self, fit: training.Fit) -> HeldOut:
        """Return predictions of a sample of rows by the network of the fit."""
        sample, bias = self.strength.sample, self.arguments["bias"]
        if self.direct and self.strength.by_folds is not None:
            sample, _ = self.strength.by_folds
        operator = sample.program.operator
        X = operator.X
        seen = operator.compare(fit.network.forward(X[:, :-1] if bias else X))
        return HeldOut.of(sample, seen, self.scaling)

    def without_themselves(self, fit: training.Fit) -> HeldOut:
        """Return predictions of a sample of rows without themselves.

        They are those by which the strength was chosen where that was done by folds, else of the
        closed form, where there is one, else of one step from the solution.
        """
        if self.direct and self.strength.by_folds is not None:
            return HeldOut.of(*self.strength.by_folds, self.scaling)
        sample, spectrum = self.strength.sample, self.strength.spectrum
        bias, skip = self.arguments["bias"], self.arguments["skip"]
        if self.direct and spectrum is not None and skip is None:
            unseen = training.predictions_without(
                sample, spectrum, fit.alpha / self.strength.factor
            )
        else:
            unseen = training.approximate_leave_one_out(
                fit.network,
                sample,
                alpha=fit.alpha,
                bias=bias,
                skip=skip,
                fitted=self.arguments["X"],
                gap=_gap_of_rows(fit.training),
            )
        return HeldOut.of(sample, unseen, self.scaling)


def _gap_of_rows(found: training.Training) -> float:
    """Return the gap, or the violation of the cones where that is more.

    A proof that stopped just below the objective of a network that has left its patterns makes a
    tiny gap, by chance: rows on the wrong side of an edge are no nearer to the optimum for it.
    """
    program, gap = found.program, found.result.gap
    if program.formulation != "relu" or gap < 0:
        return gap
    with limit_threads(product_flops(program, program.operator.n_patterns)):
        return max(gap, float(program.evaluate(found.result.weights).violation))
