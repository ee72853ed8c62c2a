"""From scores to probabilities: a factor and a bend, fitted to scores of rows left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from cvxnn import training  # names load when first used: JAX is for fits only
from cvxnn.estimators._classes import gives_log_odds
from cvxnn.estimators._fit_plan import HeldOut, Plan
from cvxnn.estimators._rows import DistinctRows, Rows, has_few_units
from cvxnn.numerics.phases import tell
from cvxnn.numerics.scores import (
    ANY_PROBABILITY,
    bent,
    log_probabilities,
    probability_range,
    scores_of,
    winner,
)

# Bends that are tried, and the part of the log-loss that one has to gain: less is chance. Chosen on
# half of the tables of asv_bench/tables/links.py.
BENDS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_LEAST_GAIN = 5e-3
# Attributes of a classifier whose scores are log-odds as they are.
PLAIN_LINK = {
    "temperature_": 1.0,
    "bend_": 0.0,
    "probability_range_": np.array(ANY_PROBABILITY),
}


class Calibration(NamedTuple):
    """A factor of scores, and the smoothed log-loss that it has."""

    temperature: float
    loss: float


def calibrate(held_out: HeldOut, bend: float = 0.0) -> Calibration:
    """Return the scale of the bent scores that minimises a smoothed log-loss.

    Platt (1999) smooths the targets of a class by its number of rows, for a scale and an offset of
    each class. One scale serves all classes, so all rows count together: the rule of succession
    gives (N + 1) / (N + 2) to the own class, and the others share the rest.
    """
    scores, weight = bent(held_out.predictions, bend), held_out.weight.astype(np.float64)
    if scores.shape[1] == 1:
        scores = np.column_stack([-scores[:, 0] / 2, scores[:, 0] / 2])
    scores = scores.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    (n, k), total = scores.shape, weight.sum()
    own, other = (total + 1) / (total + 2), 1 / (total + 2) / (k - 1)
    of_own = scores[np.arange(n), winner(held_out.targets)]
    # Targets sum to 1, so the loss is that of the normalisers but for a multiple of the scale.
    slope = weight @ ((own - other) * of_own + other * scores.sum(axis=1))

    def loss(log_scale: float) -> float:
        scale = np.exp(log_scale)
        return float(weight @ np.log(np.exp(scale * scores).sum(axis=1)) - scale * slope)

    best = minimize_scalar(loss, bounds=(-3, 6), method="bounded", options={"xatol": 1e-9})
    return Calibration(float(np.exp(best.x)), float(best.fun / total))


def fit_temperature(held_out: HeldOut) -> float:
    """Return the scale of the scores that minimises a smoothed log-loss."""
    return calibrate(held_out).temperature


def fit_link(unseen: HeldOut, seen: HeldOut) -> tuple[float, float]:
    """Return the factor and the bend of the scores, in this order.

    Both are those of least log-loss of rows left out. A few rows may be too far apart to tell of
    each other, so that any factor suits their scores without themselves. None needs more than those
    with themselves. And scores without themselves may be those of far fewer rows than the network
    has seen, so a bend has to lower the log-loss of those with themselves, too.
    """
    plain, bend = calibrate(unseen), 0.0
    best = plain
    for trial in BENDS:
        found = calibrate(unseen, trial)
        if not found.loss < best.loss:
            break
        best, bend = found, trial
    own = calibrate(seen, bend)
    if bend:
        straight = calibrate(seen)
        if best.loss > (1 - _LEAST_GAIN) * plain.loss or own.loss > straight.loss:
            best, own, bend = plain, straight, 0.0
    return min(best.temperature, own.temperature), bend


def limit_log_odds(
    seen: HeldOut, groups: NDArray[np.intp] | None, *, one_against_rest: bool
) -> float:
    """Return a factor, at most 1, of log-odds that too few rows of a class may have made rash.

    Rows left out cannot tell: without one of its few rows, a class is another one. The factor is
    that of least log-loss of the rows with themselves and smoothed targets, see :func:`calibrate`;
    1 where each class has ten units of data, or groups of them, or more.
    """
    few = has_few_units(winner(seen.targets), seen.weight.astype(np.float64), groups)
    return shrink_log_odds(seen, one_against_rest=one_against_rest) if few else 1.0


def shrink_log_odds(held_out: HeldOut, *, one_against_rest: bool) -> float:
    """Return the factor, at most 1, of log-odds that minimises a smoothed log-loss."""
    codes, weight = winner(held_out.targets), held_out.weight.astype(np.float64)
    scores = scores_of(held_out.predictions.astype(np.float64))
    total = weight.sum()

    def loss(log_factor: float) -> float:
        logs = log_probabilities(np.exp(log_factor) * scores, one_against_rest=one_against_rest)
        own = logs[np.arange(len(logs)), codes]
        others = (logs.sum(axis=1) - own) / (logs.shape[1] - 1)
        return -float(weight @ ((total + 1) * own + others)) / (total * (total + 2))

    best = minimize_scalar(loss, bounds=(-10, 0), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(best.x)) if best.fun < loss(0.0) else 1.0


def link_of_fit(classifier: Any, plan: Plan, fit: training.Fit) -> tuple[float, float]:
    """Return the factor and the bend of a classifier's fit, which is in the program's units."""
    tell("calibration")
    if gives_log_odds(classifier.loss):
        against = classifier._one_against_rest()
        return limit_of_fit(plan, fit, one_against_rest=against), 0.0
    return fit_link(*plan.leave_one_out(fit))


def limit_of_fit(plan: Plan, fit: training.Fit, *, one_against_rest: bool) -> float:
    """Return a factor, at most 1, of the log-odds of a fit, which is in the program's units."""
    sample = plan.strength.sample
    seen = plan.with_themselves(fit)
    factor = limit_log_odds(seen, sample.groups, one_against_rest=one_against_rest)
    if not sample.program.has_alpha_max:
        return factor
    # A norm frees the few neurons that it keeps: they are surer of their rows than of others.
    unseen = plan.without_themselves(fit)
    return min(factor, shrink_log_odds(unseen, one_against_rest=one_against_rest))


def range_of_fit(rows: DistinctRows, link: Callable[[Rows], dict[str, Any]]) -> NDArray[np.float64]:
    """Return the range of the probabilities of a fit: its rows' where a class has few units.

    A network grows with the distance from its rows, which are then too few to tell how sure that
    makes it.
    """
    if not has_few_units(winner(rows.y), rows.units, rows.groups):
        return np.array(ANY_PROBABILITY)
    return probability_range(**link(rows.X))


def calibrated_log_loss(held_out: HeldOut) -> float:
    """Return the log-loss of the scores at the temperature that suits them best."""
    scores = held_out.predictions * fit_temperature(held_out)
    if scores.shape[1] == 1:
        scores = np.column_stack([-scores[:, 0] / 2, scores[:, 0] / 2])
    own = log_probabilities(scores)[np.arange(len(scores)), winner(held_out.targets)]
    return -float(np.average(own, weights=held_out.weight))
