"""Warnings of fits that say little or not what was asked, each with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn._messages import counted, warn
from cvxnn.convex.solver import Result, Status
from cvxnn.estimators._rows import FEW_UNITS, Rows
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.stored_rows import is_stored

# Predictions that differ by less than this part of the targets' range are the same; and rows that
# are looked at first.
_FLAT, _GLANCED_ROWS = 1e-6, 256
# An error matters from this part of the targets' variance on, and still falls at the end of the
# range if the last step takes this part of it off.
_MATTERS, _FALLS = 0.01, 0.05
# The best of a grid is at its end for a reason if it is better than its neighbour by a standard
# error over the folds; at the weak end, where scores of fits that are far too strong differ most,
# also by this part of the range of all scores.
_PART_OF_RANGE = 0.05
# A target is an outlier if it is so many times as far from the median as three quarters of all.
_FAR = 30

Floats = NDArray[np.floating]


def constant_outputs(network: TwoLayerNetwork, X: Rows, targets: Floats) -> NDArray[np.bool_]:
    """Return which outputs are the same for all rows although their targets differ."""
    spread = np.ptp(targets, axis=0)
    flat = spread > 0
    # A few rows nearly always show that none is.
    for step in (max(len(targets) // _GLANCED_ROWS, 1), 1):
        if flat.any():
            flat = flat & (np.ptp(network.forward(X[::step]), axis=0) <= _FLAT * spread)
    return np.asarray(flat)


def _has_equal_rows(X: Rows) -> bool:
    """Return whether all rows are one; of sparse ones, this is not asked."""
    if is_sparse(X):
        return False
    blocks = X.blocks() if is_stored(X) else [slice(None)]
    return all(bool((X[rows] == X[0]).all()) for rows in blocks)


def warn_of_constant(
    estimator: Any,
    X: Rows,
    flat: NDArray[np.bool_],
    names: Sequence[Any] | None = None,
    *,
    remedy: str | None = None,
) -> None:
    """Warn of outputs that are the same for all rows; ``names`` are those of several outputs."""
    name = type(estimator).__name__
    where = ""
    if not flat.all():
        same = np.flatnonzero(flat).tolist()
        where = f" in outputs {same}" if names is None else f" of {[names[k] for k in same]}"
    strength = float(np.max(estimator.strength_))
    if remedy is not None:
        pass
    elif _has_equal_rows(X):
        remedy = "Every feature has one value in all rows: give features that vary."
    elif getattr(estimator, "validation_scores_", None) is not None and _stopped(estimator):
        remedy = (
            "No later network was better on the validation data, which ended the fit: raise "
            "n_iter_no_change, give more validation rows (validation_fraction, or X_val and "
            "y_val), or set early_stopping=False."
        )
    else:
        if chooser := getattr(estimator, "_chosen_by", None):
            remedy = f"{chooser} found no weaker strength better: give weaker ones to try."
        elif estimator.strength == "auto":
            remedy = (
                "All that the rows show looks like noise, so the automatic strength holds it back: "
                f"set strength={strength / 10:.1g} or less to find fainter patterns."
            )
        else:
            remedy = "Decrease strength: from 1 on, no neuron is worth the penalty of a norm."
        remedy += " If that does not help, the features say little about the targets."
    warn(
        f"{name} predicts the same for all rows{where}, at a strength of {strength:.2g} "
        f"(strength={estimator.strength!r}). {remedy}",
    )


def warn_of_fit(
    estimator: Any,
    measured: training.Strength,
    X: Rows,
    targets: Floats,
    names: Sequence[Any] | None = None,
) -> None:
    """Warn once of a network that is constant or empty, or that still looks at removed features.

    Or of a strength at the end of its range. A callback that stopped the fit wanted what there is.
    """
    if _stopped(estimator) and getattr(estimator, "validation_scores_", None) is None:
        return
    flat = constant_outputs(estimator.network_, X, targets)
    if flat.any():
        warn_of_constant(estimator, X, flat, names)
    elif estimator.network_.n_neurons == 0 and np.ptp(targets, axis=0).any():
        warn(
            f"{type(estimator).__name__} has no neurons, at a strength of "
            f"{float(np.max(estimator.strength_)):.2g} (strength={estimator.strength!r}): what is "
            "left is the linear model of skip. Decrease strength to get neurons, or keep the "
            "linear model.",
        )
    elif removed := _removed_but_seen(estimator):
        every = removed == estimator.n_features_in_
        warn(
            f"{type(estimator).__name__}: penalty='feature' removed {removed} of "
            f"{estimator.n_features_in_} features, at which gates of the gated formulation still "
            "look, so that they move predictions. "
            f"{'So nothing is selected: all importances are 0. ' if every else ''}"
            "Set formulation='relu', whose neurons open by the weights that the penalty removes.",
        )
    elif estimator.strength == "auto":
        warn_of_range(estimator, measured, names)


def warn_of_few_rows(estimator: Any, units: float) -> None:
    """Warn of a classifier whose rows are too few to tell how sure it may be of others."""
    if units < FEW_UNITS:
        warn(
            f"{type(estimator).__name__} was fitted to {counted(units, 'row')}, which cannot tell "
            "how sure it may be of others: a prior keeps the probabilities of these rows away from "
            f"0 and 1, and no other row is surer than they are. Give {FEW_UNITS} rows of each "
            "class, or use predict alone.",
        )


def warn_of_rewards(
    estimator: Any,
    measured: training.Strength,
    X: Rows,
    signs: Floats,
    unknown: str | None,
) -> None:
    """Warn once of a head of two phases; ``unknown`` is what it judges no better than chance."""
    name = type(estimator).__name__
    flat = constant_outputs(estimator.network_, X, signs)
    won = signs.ravel() > 0
    if flat.any() and np.array_equal(X[won], X[~won]):
        same = "Preferred responses have the embeddings of the others: see that the texts differ."
        warn_of_constant(estimator, X, flat, remedy=same)
    elif flat.any() and not constant_outputs(estimator.phase1_network_, X, signs).any():
        warn(
            f"{name} gives all responses the same reward, although the network of phase I does "
            f"not: decrease ridge (ridge={estimator.ridge!r}).",
        )
    elif unknown is None or flat.any():
        warn_of_fit(estimator, measured, X, signs)
    else:
        verb = "ranks" if unknown == "pairs" else "judges"
        warn(
            f"{name} {verb} {unknown} that were left out of the fit no better than chance; its "
            f"rewards are close to equal. Give more {unknown}, or embeddings of another layer or "
            "model; if several come from one conversation, name it for each (groups=).",
        )


def warn_of_range(
    estimator: Any,
    measured: training.Strength,
    names: Sequence[Any] | None = None,
) -> None:
    """Warn of an automatic ridge that is at the end of the range in which it is looked for."""
    program = measured.sample.program
    if measured.spectrum is None or program.has_alpha_max:
        return
    grid, n_outputs = measured.spectrum.alphas(), program.y.shape[1]
    alpha = np.broadcast_to(measured.alpha / (measured.factor * program.loss.curvature), n_outputs)
    strongest = np.isclose(alpha, grid[-1], rtol=1e-6)
    weakest = np.isclose(alpha, grid[0], rtol=1e-6) & _falls(measured, grid)
    scaled = "" if estimator.standardize else "Keep standardize=True, or s"
    far = ""
    if names is None and _has_outliers(program):
        far = "Or a few targets are far from all others, as outliers are: set loss='huber'. "
    for where, what in (
        (
            strongest,
            "is the strongest that is tried: rows that are left out are predicted best by nearly a "
            f"constant, so the features say little about the targets. {far}Look for others. "
            "If rows of one kind resemble each other, name their groups (groups=); if you know "
            "that there is more to find, set strength yourself",
        ),
        (
            weakest,
            "is the weakest that is tried, and rows that are left out are predicted the better the "
            f"weaker it is. {scaled or 'S'}et "
            f"strength={float(np.min(estimator.strength_)) / 10:.1g} or less, or give more rows or "
            "patterns (n_patterns)",
        ),
    ):
        if where.any():
            own = np.flatnonzero(where).tolist()
            of = "" if where.all() else f" of outputs {own}"
            if of and names is not None:
                of = f" of {[names[k] for k in own]}"
            warn(
                f"{type(estimator).__name__}: the automatic strength{of}, "
                f"{float(np.max(estimator.strength_)):.2g}, {what}.",
            )
            return


def _has_outliers(program: convex.ConvexProgram) -> bool:
    """Return whether a few targets make most of the spread of a regression."""
    if type(program.loss) is not convex.SquaredLoss or len(np.unique(program.y[:, :1])) <= 2:
        return False
    away = np.abs(program.y - np.median(program.y, axis=0))
    usual = np.quantile(away, 0.75, axis=0)
    return bool(((away.max(axis=0) > _FAR * usual) & (usual > 0)).any())


def _removed_but_seen(estimator: Any) -> int:
    """Return how many features the penalty of features removed from all but the gates."""
    network, penalty = estimator.network_, getattr(estimator, "penalty", None)
    named = isinstance(penalty, str) and penalty == "feature"
    if network.gate_weights is None or not (named or isinstance(penalty, convex.FeatureGroupLasso)):
        return 0
    kept = (network.hidden_weights != 0).any(axis=0)
    if network.linear_weights is not None:
        kept |= (network.linear_weights != 0).any(axis=1)
    seen = (network.gate_weights.reshape(-1, len(kept)) != 0).any(axis=0)
    return int((seen & ~kept).sum())


def _falls(measured: training.Strength, grid: Floats) -> NDArray[np.bool_]:
    """Return for which outputs leave-one-out errors matter and still fall at the weakest ridge."""
    sample, spectrum = measured.sample, measured.spectrum
    assert spectrum is not None
    y, share = sample.program.y, sample.program.share
    unseen = (training.predictions_without(sample, spectrum, float(alpha)) for alpha in grid[:2])
    errors = [(share * (y - predictions) ** 2).sum(axis=0) for predictions in unseen]
    variance = (share * (y - (share * y).sum(axis=0)) ** 2).sum(axis=0)
    if np.ndim(measured.alpha) == 0:  # one strength for all
        errors, variance = [each.sum() for each in errors], variance.sum()
    falls = errors[0] < (1 - _FALLS) * errors[1]
    return np.broadcast_to(falls & (errors[0] > _MATTERS * variance), y.shape[1])


def end_of_grid(scores: Floats, best: int) -> int:
    """Return -1 or 1 if the best of a grid is its first or last entry for a reason, else 0.

    Parameters
    ----------
    scores : ndarray, shape (n_folds, n_entries)
        The larger the better.
    best : int
        Entry of the best mean.

    Returns
    -------
    int
        0 also where the neighbour of the end is about as good.
    """
    scores = scores[np.isfinite(scores).all(axis=1)]
    n_folds, n_entries = scores.shape
    if n_folds < 2 or n_entries < 2 or 0 < best < n_entries - 1:
        return 0
    side = -1 if best == 0 else 1
    gain = scores[:, best] - scores[:, best - side]
    error = gain.std(ddof=1) / np.sqrt(n_folds)
    of_range = _PART_OF_RANGE * np.ptp(scores.mean(axis=0)) if side > 0 else 0
    return side if gain.mean() > max(error, of_range) else 0


def warn_of_grid(estimator: Any, what: str, end: int, *, strong: str, weak: str) -> None:
    """Warn of a choice at an end of its grid, ``end`` as ``end_of_grid`` returns it."""
    if end == 0:
        return
    side, remedy = ("strongest", strong) if end < 0 else ("weakest", weak)
    warn(
        f"{type(estimator).__name__}: {what} is the {side} of those that were tried, and clearly "
        f"better than the one beside it. {remedy}",
    )


def require_finite(estimator: Any, result: Result, *, phase: str = "") -> None:
    """Refuse a fit whose first values are not finite already."""
    if not np.isfinite(result.objective):
        raise FloatingPointError(
            f"{type(estimator).__name__}{phase} met a value that is not finite before any usable "
            f"network was found. {Status.NON_FINITE.remedy}"
        )


def warn_unless_converged(
    estimator: Any,
    result: Result,
    *,
    phase: str = "",
    remedy: str | None = None,
) -> None:
    """Warn of a solver that stopped early, unless that was asked for."""
    if result.status in (Status.CONVERGED, Status.STOPPED):
        return
    warn(
        f"{type(estimator).__name__}{phase} stopped after {result.n_iter} iterations "
        f"({result.status.value}) at a relative duality gap of {result.gap:.1e}. "
        f"{remedy or result.status.remedy}",
        ConvergenceWarning,
    )


def _stopped(estimator: Any) -> bool:
    return bool(estimator.status_ == Status.STOPPED.value)
