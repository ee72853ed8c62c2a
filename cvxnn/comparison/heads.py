"""Preference heads on frozen embeddings: their fit and their row of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cvxnn.comparison.course import Course
from cvxnn.comparison.measures import accuracy_of, peak_memory
from cvxnn.comparison.results import HEAD_METHODS, MethodResult
from cvxnn.costs.meter import CostMeter
from cvxnn.costs.resources import Cost
from cvxnn.estimators.coala import COALAPreferenceHead
from cvxnn.estimators.linear_head import LinearPreferenceHead
from cvxnn.features.description import differences
from cvxnn.features.pairs import PairFeatures
from cvxnn.features.training_record import training_record
from cvxnn.numerics.stored_rows import is_stored
from cvxnn.preference.metrics import pair_accuracy, reward_metrics
from cvxnn.preference.triplets import PreferenceTriplet

HEADS: dict[str, type[Any]] = dict(
    zip(HEAD_METHODS, (COALAPreferenceHead, LinearPreferenceHead), strict=True)
)
LONGER = "longer reply wins"
SOLVERS = {"cronos": "Cronos", "interior-point": "InteriorPoint"}
"""Solvers of phase I by the name that ``--solver`` takes."""
_KEPT = 200  # largest number of points of a history


def fit_head(
    method: str,
    train: PairFeatures,
    test: PairFeatures,
    parameters: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> tuple[Any, MethodResult]:
    """Fit a head to embedded pairs and measure it on held-out ones.

    Parameters
    ----------
    method : {"coala", "linear"}
        Kind of head.
    train : PairFeatures
        Pairs to fit.
    test : PairFeatures
        Held-out pairs, embedded with the same settings.
    parameters : mapping, optional
        Arguments of the estimator.
    seed : int, default=0
        ``random_state`` of the estimator, unless `parameters` has one.

    Returns
    -------
    head : COALAPreferenceHead or LinearPreferenceHead
        Fitted head, with a description of its embeddings, and with ``training_record_``, the record
        of its training pairs; see `cvxnn.features.training_record`.
    result : MethodResult
        Accuracy, margins and cost of the head.

    Raises
    ------
    ValueError
        If the method is unknown, or parameters or data are not valid.
    """
    if differ := differences(train.embedding, test.embedding):
        raise ValueError(
            f"training and held-out features were embedded differently ({'; '.join(differ)}); "
            "extract both with the same settings"
        )
    course = Course(test)
    head, cost = train_head(method, train, parameters, seed=seed, course=course)
    cost = dataclasses.replace(cost, seconds=cost.seconds - course.spent)
    result = evaluate_head(method, head, train, test, cost)
    n = len(getattr(head, "phase2_history_", {}).get("iteration", ()))
    columns = _thinned(course.columns(n))
    return head, dataclasses.replace(result, history={**result.history, **columns})


def train_head(
    method: str,
    train: PairFeatures,
    parameters: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    course: Course | None = None,
) -> tuple[Any, Cost]:
    """Fit a head to embedded pairs.

    Parameters
    ----------
    method : {"coala", "linear"}
        Kind of head.
    train : PairFeatures
        Pairs to fit.
    parameters : mapping, optional
        Arguments of the estimator.
    seed : int, default=0
        ``random_state`` of the estimator, unless `parameters` has one.
    course : Course, optional
        What follows the fit of a COALA head on held-out pairs.

    Returns
    -------
    head : COALAPreferenceHead or LinearPreferenceHead
        As of `fit_head`.
    cost : Cost
        Measured cost of the fit.

    Raises
    ------
    ValueError
        If the method is unknown, or parameters or data are not valid.
    """
    if method not in HEADS:
        raise ValueError(f"method is {method!r}; expected one of {list(HEADS)}")
    own = {**_blocks(method, train, parameters or {}), **(parameters or {})}
    if isinstance(own.get("solver"), str):
        own["solver"] = named_solver(own)
    settings = {"random_state": seed, **own, "embedding": dict(train.embedding)}
    head, meter = HEADS[method](**settings), CostMeter()
    if course is not None and hasattr(head, "set_callbacks"):
        head.set_callbacks(course)
    with meter.phase("fit"):
        groups = train.groups if len(set(train.groups)) > 1 else None
        head.fit_pairs(_rows(train.chosen), _rows(train.rejected), groups=groups)
    if course is not None and hasattr(head, "set_callbacks"):
        head.set_callbacks()  # it is not saved with the head
    head.training_record_ = training_record(train.pairs)
    return head, meter["fit"]


def evaluate_head(
    method: str, head: Any, train: PairFeatures, test: PairFeatures, cost: Cost
) -> MethodResult:
    """Measure a fitted head.

    Parameters
    ----------
    method : str
        Name of the method.
    head : COALAPreferenceHead or LinearPreferenceHead
        Fitted head, which knows the number of operations of its fit.
    train : PairFeatures
        Pairs that it was fitted to.
    test : PairFeatures
        Held-out pairs.
    cost : Cost
        Measured cost of the fit.

    Returns
    -------
    MethodResult
        Accuracy, margins and cost of the head.
    """
    won, lost = (head.reward(_rows(rows)) for rows in (test.chosen, test.rejected))
    margins = np.asarray(won) - np.asarray(lost)
    training = head.reward_margin(_rows(train.chosen), _rows(train.rejected))
    flops, durations = {"fit": float(getattr(head, "flops_", 0.0))}, {"fit": cost.seconds}
    if hasattr(head, "phase2_history_"):
        # Its clock goes on while the course measures margins, which is not in the cost.
        second = min(float(head.phase2_history_["time"][-1]), cost.seconds)
        flops = {"phase I": float(head.flops_), "phase II": float(head.phase2_flops_)}
        durations = {"phase I": cost.seconds - second, "phase II": second}
    parameters = {
        name: _plain(value)
        for name, value in head.get_params(deep=False).items()
        if name != "embedding"
    }
    return MethodResult(
        method=method,
        **accuracy_of(margins, test.groups),
        train_accuracy=pair_accuracy(training),
        metrics=reward_metrics(won, lost),
        margins=[float(margin) for margin in margins],
        history=_history(getattr(head, "phase2_history_", {})),
        step_name="iteration of phase II",
        flops=flops,
        seconds=durations,
        peak_memory=peak_memory(cost),
        certificate=certificate_of(head),
        settings=parameters,
    )


def certificate_of(head: Any) -> dict[str, dict[str, float]]:
    """Return the objective, the lower bound and the gap of each phase of a fit.

    Parameters
    ----------
    head : COALAPreferenceHead or LinearPreferenceHead
        Fitted head.

    Returns
    -------
    dict of str to dict
        Bounds by the name of the phase; phases without bounds are left out.
    """
    phases = {"fit": ""}
    if hasattr(head, "phase2_history_"):
        phases = {"phase I": "", "phase II": "phase2_"}
    found = {phase: _certificate(head, prefix) for phase, prefix in phases.items()}
    return {phase: bounds for phase, bounds in found.items() if bounds}


def length_baseline(pairs: Sequence[PreferenceTriplet]) -> dict[str, Any]:
    """Return the pair accuracy of the rule that the longer reply wins.

    Parameters
    ----------
    pairs : sequence of PreferenceTriplet
        Pairs to rank.

    Returns
    -------
    dict
        As of `cvxnn.comparison.measures.accuracy_of`.
    """
    margins = [len(pair.chosen) - len(pair.rejected) for pair in pairs]
    return accuracy_of(margins, [pair.group for pair in pairs])


def _blocks(
    method: str, train: PairFeatures, parameters: Mapping[str, Any]
) -> dict[str, list[int]]:
    """Return the parameter that gives each of several layers a strength of its own."""
    n = len(train.layers)
    pairs = parameters.get("loss", "pairwise") == "pairwise"
    if (
        n == 1
        or method != "coala"
        or parameters.get("formulation", "gated") != "gated"
        or not pairs
    ):
        return {}
    own = train.embedding["width"] - train.embedding["context"]
    return {"blocks": [own // n] * n}


def _rows(embeddings: Any) -> Any:
    """Return embeddings as an array, unless they are too many for the memory."""
    return embeddings if is_stored(embeddings) else np.asarray(embeddings)


def _certificate(head: Any, prefix: str) -> dict[str, float]:
    names = ("objective", "dual_bound", "gap")
    values = {name: getattr(head, f"{prefix}{name}_", None) for name in names}
    return {name: float(value) for name, value in values.items() if value is not None}


def _history(history: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Return at most `_KEPT` points of a history, the last one included."""
    if "iteration" not in history:
        return {}
    columns = {"step": history["iteration"]}
    columns |= {name: values for name, values in history.items() if name.startswith("rewards/")}
    return _thinned(columns)


def _thinned(columns: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Return at most `_KEPT` entries of columns of equal lengths, the last one included."""
    n = len(next(iter(columns.values()), ()))
    kept = np.unique(np.linspace(0, n - 1, min(n, _KEPT)).round().astype(int))
    return {name: [float(v) for v in np.asarray(c)[kept]] for name, c in columns.items()}


def named_solver(parameters: Mapping[str, Any]) -> Any:
    """Return the solver of that name, with the tolerance and iterations that are given.

    Parameters
    ----------
    parameters : mapping of str to object
        ``solver``, a key of `SOLVERS`, and perhaps ``tol`` and ``max_iter``; others are ignored.

    Returns
    -------
    Solver
        The solver of `cvxnn.convex`.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    from cvxnn import convex

    name = parameters["solver"]
    if name not in SOLVERS:
        raise ValueError(f"solver is {name!r}; expected one of {list(SOLVERS)}")
    limits = {key: parameters[key] for key in ("tol", "max_iter") if key in parameters}
    return getattr(convex, SOLVERS[name])(**limits)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
