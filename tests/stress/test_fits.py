"""Random fits of every estimator on ugly data.

A case is a number that decides the estimator, its options and the data. It is fitted several times,
and what the documentation promises is checked: no warning and no exception but documented ones,
finite predictions, a gap within the tolerance or a warning, data that stay as they were, and equal
results for equal seeds, whatever the order of the rows, for integer weights as for repeated rows,
in other units of the features, and after saving and loading. Some fits are asked for influences,
intervals, radii and a copy under a side constraint.

``campaign.py fits`` runs many of them.
"""

from __future__ import annotations

import pickle
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import PredefinedSplit

import cvxnn
from cvxnn import (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    ConvexReLURegressorCV,
    LinearPreferenceHead,
    SoftmaxPolicy,
)
from cvxnn.convex import Cronos, InteriorPoint, LogisticLoss, ProximalGradient, Ridge, SquaredLoss
from cvxnn.explanation import decision_radius, label_set, prediction_interval
from cvxnn.numerics.stored_rows import StoredRows
from cvxnn.training import SideConstraint

PARTS = 25  # tests
ROWS, COLUMNS = (2, 3, 5, 8, 24), (1, 3)
MANY_ROWS = 560  # the strength is then chosen by folds
# A shape costs a compilation, but that rows are rounded up to a multiple of 8.
COMPILED_ROWS, COMPILED_COLUMNS = (2, 3, 5, 8), (3,)
KINDS = [
    *["regressor", "classifier"] * 7,
    *["linear"] * 3,
    "gated_head",
    "regressor_cv",
    "classifier_cv",
    "policy",
]
LOSSES = {
    "regressor": ("squared", "huber"),
    "classifier": ("squared", "logistic", "multinomial"),
}
# What a fit may raise: a part of the message, which names the remedy.
DOCUMENTED_ERRORS = {
    "at least 2 classes": ValueError,
    "not zero everywhere": ValueError,
    "values too large for float": ValueError,
    "early_stopping cannot set": ValueError,
    "early_stopping found no groups": ValueError,
    "no pair_id has both": ValueError,
    "met a value that is not finite before any usable": FloatingPointError,
    "Ridge needs the gated formulation": TypeError,
    "was certified to a gap of": RuntimeError,
    "training rows of fold": ValueError,
    "row of positive weight": ValueError,
    "gave no finite score": ValueError,
    "no label has more than": ValueError,
    "prompts with a pair; expected": ValueError,
    "Cannot have number of splits": ValueError,
    "of the gated formulation needs responses without pairs": ValueError,
    "cannot be greater than the number": ValueError,
    "groups holds one group only": ValueError,
}
# What a fit may warn of.
DOCUMENTED_WARNINGS = (
    "relative duality gap",
    "failed to converge",
    "predicts the same for all rows",
    "no better than chance",
    "which cannot tell how sure",
    "gives all responses the same reward",
    "has no neurons, at a strength of",
    "at which gates of the gated formulation still look",
    "that is tried",
    "of those that were tried",
    "gives all candidates of each prompt the same probability",
    "is lost in rounding",
)


class BrokenPromiseError(AssertionError):
    """A promise that a case breaks."""


class Data(NamedTuple):
    """Rows with all that belongs to them.

    Attributes
    ----------
    X, other : ndarray, shape (n_samples, n_features)
        Rows, and rows that they are preferred to.
    y : ndarray, shape (n_samples,) or (n_samples, n_outputs)
        Targets, labels or marks.
    weight : ndarray, shape (n_samples,), or None
        Sample weights.
    group : ndarray, shape (n_samples,)
        Prompts or folds.
    """

    X: np.ndarray
    other: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    group: np.ndarray

    def take(self, rows: np.ndarray) -> Data:
        return Data(*(None if part is None else part[rows] for part in self))


# Ugly data -------------------------------------------------------------------------------------


def pick(rng: np.random.Generator, *options: Any) -> Any:
    return options[rng.integers(len(options))]


def scales(rng: np.random.Generator, size: int | None = None) -> Any:
    """Return powers of ten from 1e-12 to 1e12."""
    return 10.0 ** rng.uniform(-12, 12, size)


def draw_rows(rng: np.random.Generator, compiled: bool) -> np.ndarray:
    n = pick(rng, *(COMPILED_ROWS if compiled else ROWS))
    d = pick(rng, *(COMPILED_COLUMNS if compiled else COLUMNS))
    kind = rng.integers(12)
    X = rng.standard_normal((n, d))
    if kind == 0:
        X = rng.standard_cauchy((n, d))
    elif kind == 1:
        X = rng.integers(-2, 3, (n, d))
    elif kind == 2:
        X = rng.integers(0, 2, (n, d)).astype(bool)
    elif kind == 3:
        X *= scales(rng)
    elif kind == 4:
        X = X * scales(rng, d)
    elif kind == 5:
        X = X * scales(rng, n)[:, None]
    elif kind == 6:
        X = X + scales(rng)
    elif kind == 7:
        X[:, -1] = pick(rng, 0.0, 1.0, 0.1, scales(rng))
    elif kind == 8:
        X[:, -1] = X[:, 0]
    elif kind == 9:
        X = X[rng.integers(0, max(n // 3, 1), n)]
    elif kind == 10:
        X[rng.random(X.shape) < 0.7] = 0
    if rng.random() < (0.1 if compiled else 0.3):
        X = X.astype(np.float32)
    return X


def draw_values(rng: np.random.Generator, X: np.ndarray) -> np.ndarray:
    """Return targets of a regression."""
    n = len(X)
    outputs = pick(rng, 1, 1, 1, 3)
    size = np.abs(X).max() or 1
    y = np.maximum(X / size @ rng.standard_normal((X.shape[1], outputs)), 0)
    y = y + pick(rng, 0, 0.1, 1) * rng.standard_normal(y.shape)
    kind = rng.integers(9)
    if kind == 0:
        y = rng.standard_cauchy(y.shape)
    elif kind == 1:
        y = np.full(y.shape, pick(rng, 0.0, 0.1, scales(rng)))
    elif kind == 2:
        y = y * scales(rng)
    elif kind == 3:
        y = y * scales(rng, outputs)
    elif kind == 4:
        y = y + scales(rng)
    elif kind == 5:
        y = rng.integers(-3, 4, y.shape)
    elif kind == 6:
        y[rng.integers(n)] = 1e6
    elif kind == 7:
        y[:, 0] = y[0, 0]
    if rng.random() < 0.2:
        y = y.astype(np.float32)
    return y[:, 0] if outputs == 1 and rng.random() < 0.8 else y


def draw_labels(rng: np.random.Generator, X: np.ndarray, n_classes: int) -> np.ndarray:
    """Return labels of at least two classes, rare ones among them."""
    n = len(X)
    codes = rng.integers(0, n_classes, n)
    if rng.random() < 0.4:
        codes = np.argsort(np.argsort(X[:, 0], kind="stable")) * n_classes // n
    if rng.random() < 0.2:  # a class of one row
        codes = np.where(np.arange(n) == rng.integers(n), n_classes - 1, 0)
    codes[rng.permutation(n)[:2]] = [0, n_classes - 1]
    names = pick(rng, np.arange(5), np.arange(5.0) * 3 - 1, np.array([*"vwxyz"]), np.arange(5) > 0)
    return names[codes] if n_classes == 2 or len(np.unique(names)) > 2 else codes


def draw_weight(rng: np.random.Generator, n: int) -> np.ndarray | None:
    kind = rng.integers(8)
    if kind == 0:
        return rng.integers(0, 4, n)
    if kind == 1:
        return rng.random(n)
    if kind == 2:
        return scales(rng, n)
    if kind == 3:
        return np.full(n, scales(rng))
    if kind == 4:
        return np.where(rng.random(n) < 0.5, 0.0, scales(rng))
    return None


def draw_type(rng: np.random.Generator, X: np.ndarray, takes_sparse: bool) -> Callable[[Any], Any]:
    """Return what turns rows into the type in which an estimator gets them."""
    kind = rng.integers(6)
    if kind == 0:
        return pd.DataFrame
    if kind == 1:
        return lambda rows: pd.DataFrame(rows).astype({0: "category"})
    if kind == 2:
        return np.asfortranarray
    if takes_sparse and kind in (3, 4):
        return pick(rng, sparse.csr_array, sparse.csc_matrix, _with_zeros)
    return np.asarray


def _with_zeros(rows: np.ndarray) -> sparse.csr_matrix:
    """Return a sparse matrix that stores all zeros, with large indices in falling order."""
    n, d = rows.shape
    indices = np.tile(np.arange(d)[::-1], n).astype(np.int64)
    return sparse.csr_matrix(
        (np.asarray(rows)[:, ::-1].ravel(), indices, np.arange(n + 1) * d), shape=(n, d)
    )


def _stored(rows: np.ndarray) -> StoredRows:
    """Return rows that are read a block at a time."""
    return StoredRows(rows if rows.dtype.kind == "f" else rows.astype(np.float64))


# Estimators ------------------------------------------------------------------------------------


def draw_options(rng: np.random.Generator, losses: tuple[str, ...]) -> dict[str, Any]:
    """Return options of a classifier or a regressor that go together."""
    relu = bool(rng.random() < 0.35)
    options: dict[str, Any] = {
        "formulation": "relu" if relu else "gated",
        "n_patterns": pick(rng, 1, 8, 8, 8),
        "strength": pick(rng, *["auto"] * 4, 1e-9, 1e-9, 1e-3, 0.1, 1, 3, 0),
        "standardize": bool(rng.random() < 0.85),
        "fit_intercept": bool(rng.random() < 0.8),
        "loss": pick(rng, losses[0], *losses),
        "tol": pick(rng, 1e-2, 1e-2, 1e-4),
        "random_state": int(rng.integers(1000)),
    }
    if rng.random() < 0.4:
        options["penalty"] = pick(rng, "neuron", "neuron", "feature", "l1", "l2", "l2")
    if rng.random() < 0.5:
        neurons = options.get("penalty", "neuron" if relu else "l2") == "neuron"
        options["patterns"] = pick(
            rng, "local", "gaussian", "data", *(["adaptive"] if neurons else [])
        )
    if rng.random() < 0.2:
        options["skip"] = pick(rng, 0 if options["loss"] in ("squared", "huber") else 1, 1e-3, 10)
    if rng.random() < 0.2:
        options |= {"early_stopping": True, "validation_fraction": pick(rng, 0.1, 0.5)}
    if rng.random() < 0.1:
        options["warm_start"] = True
    if rng.random() < 0.1:
        options["max_iter"] = 3
    penalty = options.get("penalty", "neuron" if relu else "l2")
    if rng.random() < 0.3:
        fit = [Cronos(max_iter=200) if relu else ProximalGradient(max_iter=200)]
        if penalty in ("neuron", "l2") and options["loss"] != "multinomial":
            fit += [InteriorPoint()] if options["strength"] != 0 else []
        if not relu and penalty == "l2" and options["loss"] == "squared":
            fit += [Ridge()] if options["strength"] != 0 else []
        options["solver"] = pick(rng, *fit)
    if is_compiled(options):
        options |= {"fit_intercept": True, "n_patterns": 8, "max_iter": 200}
    return options


def is_compiled(options: dict[str, Any]) -> bool:
    """Return whether the solver is one that JAX compiles."""
    solver = options.get("solver")
    if solver is not None:
        return isinstance(solver, Cronos | ProximalGradient)
    coupled = options["loss"] == "multinomial"
    return coupled or options.get("penalty") in ("feature", "l1") or options["strength"] == 0


def draw_head(rng: np.random.Generator, kind: str) -> Any:
    if kind == "gated_head":
        return COALAPreferenceHead(
            loss=pick(rng, "pairwise", "pairwise", "pointwise"),
            formulation="gated",
            beta=pick(rng, 1.0, 0.1, 1e3),
            gamma=pick(rng, 0.5, 0.0, 10.0),
            n_patterns=pick(rng, 1, 8, "auto"),
            patterns=pick(rng, "auto", "gaussian", "data", "local"),
            strength=pick(rng, "auto", "auto", 1e-9, 0.1, 3.0),
            ridge=pick(rng, 1e-2, 1.0, 0.0),
            fit_intercept=bool(rng.random() < 0.8),
            standardize=bool(rng.random() < 0.85),
            solver=pick(rng, None, None, Ridge()),
            random_state=0,
        )
    if kind == "linear":
        return LinearPreferenceHead(
            pick(rng, "auto", 1e-3, 1.0, 1e3), standardize=bool(rng.random() < 0.85)
        )
    formulation = pick(rng, "gated", "relu")
    known = ("local",) if formulation == "relu" else ()
    return COALAPreferenceHead(
        loss=pick(rng, "pairwise", "pointwise"),
        formulation=formulation,
        n_patterns=8,
        patterns=pick(rng, *known, "gaussian", "data"),
        strength=pick(rng, "auto", 0.01, 0.1),
        ridge=pick(rng, 1e-2, 1.0),
        standardize=bool(rng.random() < 0.85),
        random_state=0,
    )


class Case:
    """One random fit, and the checks of what it promises; a number decides everything."""

    def __init__(self, number: int) -> None:
        self.number = number
        rng = self.rng = np.random.default_rng(number)
        self.n_fits = 0
        kind = pick(rng, *KINDS) if rng.random() < 0.97 else pick(rng, "coala", "coala_cv")
        network = kind in ("regressor", "classifier", "regressor_cv", "classifier_cv")
        losses = LOSSES[kind.removesuffix("_cv")] if network else ()
        options = draw_options(rng, losses) if network else {}
        while network and is_compiled(options) and rng.random() < 0.85:  # they take a second
            options = draw_options(rng, losses)
        X = draw_rows(rng, is_compiled(options) if network else kind.startswith(("coala", "gated")))
        group = rng.permutation(np.arange(len(X)) % max(len(X) // 3, 1))
        if kind.startswith("regressor"):
            self.model = ConvexReLURegressor(**options)
            y = draw_values(rng, X)
        elif kind.startswith("classifier"):
            options["class_weight"] = pick(rng, None, None, "balanced")
            self.model = ConvexReLUClassifier(**options)
            y = draw_labels(rng, X, pick(rng, 2, 2, 3))
        elif kind == "policy":
            self.model = SoftmaxPolicy(
                pick(rng, 0.0, 0.5, 1.0), reference=pick(rng, "chosen", "uniform"), random_state=0
            )
            y = np.zeros(len(X), bool)
            y[np.unique(group, return_index=True)[1]] = True
        else:
            self.model = draw_head(rng, kind)
            y = draw_labels(rng, X, 2)
        if kind in ("regressor_cv", "classifier_cv"):
            group = np.argsort(np.argsort(y if y.ndim == 1 else y[:, 0], kind="stable")) % 2
            own = (
                ConvexReLUClassifierCV
                if hasattr(self.model, "class_weight")
                else ConvexReLURegressorCV
            )
            self.model = own(self.model.set_params(warm_start=False), n_strengths=4)
        elif kind == "coala_cv":
            self.model = COALAPreferenceHeadCV(
                self.model.set_params(formulation="relu"),
                strengths=(0.1,),
                ridges=(0.1,),
                n_folds=2,
            )
        other = pick(rng, X[::-1], X[rng.permutation(len(X))], np.zeros_like(X))
        self.name = type(self.model).__name__
        self.data = Data(X, other, y, draw_weight(rng, len(X)), group)
        self.wrap = draw_type(rng, X, getattr(self.model, "_takes_sparse", lambda: False)())
        # Heads are fitted to single responses, to those of a prompt, or to pairs.
        self.way = pick(rng, "single", "prompts", "pairs") if "Head" in self.name else "rows"
        self._draw_more(np.random.default_rng([number, 1]), kind)

    def _draw_more(self, rng: np.random.Generator, kind: str) -> None:
        """Draw what came later, by numbers of its own, so that older cases differ by that only."""
        self.grouped = kind in ("regressor", "classifier", "linear", "gated_head")
        self.grouped &= bool(rng.random() < 0.15)
        if kind == "classifier" and rng.random() < 0.3:
            own = {"logistic": LogisticLoss(), "squared": SquaredLoss()}
            self.model.set_params(loss=own.get(self.model.loss, self.model.loss))
        elif kind == "classifier_cv" and rng.random() < 0.5:
            self.model.set_params(scoring="neg_log_loss")
        elif kind == "gated_head" and self.way == "pairs" and rng.random() < 0.5:
            self.wrap = _stored
        self.asks = np.random.default_rng([self.number, 2])
        if kind in ("regressor", "classifier") and self._is_direct() and self.asks.random() < 0.02:
            self._take_many()

    def _take_many(self) -> None:
        """Take so many rows that folds choose the strength."""
        rng, d = self.asks, self.data.X.shape[1]
        X = rng.standard_normal((MANY_ROWS, d)) * scales(rng, pick(rng, None, d))
        classes = len(np.unique(self.data.y)) if "Classifier" in self.name else 0
        y = draw_labels(rng, X, classes) if classes else draw_values(rng, X)
        group = rng.integers(0, 40, MANY_ROWS)
        self.data = Data(X, X[::-1], y, draw_weight(rng, MANY_ROWS), group)
        self.model.set_params(strength="auto")

    def fit(self, data: Data) -> Any:
        """Fit a clone, and raise a BrokenPromiseError for what is not documented."""
        model, self.warned = clone(self.model), False
        before = [None if part is None else part.copy() for part in data]
        X = self.wrap(data.X)
        self.n_fits += 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # As in pyproject.toml: another process writes what this one reads.
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation")
            if self.name == "SoftmaxPolicy":
                model.fit(X, data.y, data.group, chosen=data.X, rejected=data.other)
            elif self.way == "pairs":
                model.fit_pairs(X, self.wrap(data.other), data.weight, **self._groups(data))
            elif self.way == "prompts":
                model.fit(X, data.y, data.group, data.weight, **self._groups(data))
            elif self.name.endswith("CV") and self.way == "rows":
                model.set_params(cv=PredefinedSplit(data.group))
                model.fit(X, data.y, sample_weight=data.weight).set_params(cv=None)
            else:
                more = {"sample_weight": data.weight, **self._groups(data)}
                model.fit(X, data.y, **more)
                if getattr(model, "warm_start", False):
                    self.n_fits += 1
                    model.fit(X, data.y, **more)
        for item in caught:
            if not any(part in str(item.message) for part in DOCUMENTED_WARNINGS):
                raise BrokenPromiseError(f"warning: {item.category.__name__}: {item.message}")
            self.warned |= issubclass(item.category, ConvergenceWarning)
        for part, old in zip(data, before, strict=True):
            if part is not None and not np.array_equal(part, old):
                raise BrokenPromiseError("data: changed by the fit")
        return model

    def _groups(self, data: Data) -> dict[str, np.ndarray]:
        return {"groups": data.group} if self.grouped else {}

    def outputs(self, model: Any) -> np.ndarray:
        """Return the outputs of a fitted model for the rows of the case, which are finite."""
        X = self.wrap(self.data.X)
        found = {}
        if self.name == "SoftmaxPolicy":
            found["log_proba"] = model.predict_log_proba(X, self.data.group)
        elif "Regressor" in self.name:
            found["predict"] = model.predict(X)
        else:
            found["decision_function"] = model.decision_function(X)
            found["predict_proba"] = model.predict_proba(X)
            assert np.isin(model.predict(X), model.classes_).all()
            sums = found["predict_proba"].sum(axis=1)
            if not np.allclose(sums, 1, atol=1e-5):
                raise BrokenPromiseError(f"predict_proba: sums to {sums}")
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise BrokenPromiseError(f"{name}: not finite")
        return next(iter(found.values()))

    def attempt(self, data: Data) -> tuple[str, Any]:
        """Return a fitted model, or the documented error that the fit raises."""
        try:
            return "", self.fit(data)
        except BrokenPromiseError:
            raise
        except Exception as error:
            for part, kind in DOCUMENTED_ERRORS.items():
                if part in str(error) and isinstance(error, kind):
                    return part, None
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.name}"
            raise BrokenPromiseError(
                f"error: {type(error).__name__} in {place}: {error}"
            ) from error

    def check(self) -> str:
        """Check all promises; return the documented error of the fit, if there is one."""
        error, model = self.attempt(self.data)
        same, again = self.attempt(self.data)
        if (error, same) != ("", ""):
            if error != same:
                raise BrokenPromiseError(f"repetition: {error!r} and then {same!r}")
            return error
        values = self.outputs(model)
        self._check_gap(model)
        self._equal("repetition", values, again, exact=True)
        self._equal("save and load", values, self._saved(model), exact=True)
        self._check_questions(model)
        n = len(self.data.X)
        mixed = self.data.take(self.rng.permutation(n))
        if self.wrap is _stored:
            # Gates that are drawn from the rows are drawn by their places on the disk: to draw them
            # by contents, as of rows in memory, would read all rows once more.
            if self.model.patterns not in ("data", "local"):
                self._equal("permutation", values, self._fitted("permutation", mixed))
            return ""
        self._equal("permutation", values, self._fitted("permutation", mixed))
        if self.name == "SoftmaxPolicy" or (self.name.endswith("CV") and self.way == "rows"):
            return ""
        if getattr(model, "standardize", False) and self._is_direct():
            self._check_units(model)
        self._check_repetition(self.rng.integers(0, 3, n))
        return ""

    def _check_questions(self, model: Any) -> None:
        """Ask a fit what its rows do to it, how far it can be trusted, and for one that is fair."""
        if "ConvexReLU" not in self.name or self.name.endswith("CV") or self.asks.random() < 0.6:
            return
        data, X = self.data, self.wrap(self.data.X)
        more = {"sample_weight": data.weight, **self._groups(data)}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "the gates were chosen with the targets")
            rows = np.asarray(data.X, np.float64)
            if "Classifier" in self.name:
                radius = decision_radius(model.network_, rows)
                if not (radius >= 0).all():
                    raise BrokenPromiseError(f"decision_radius: {radius}")
            closed = model.formulation == "gated" and model.penalty in ("auto", "l2")
            if not closed or model.skip is not None or not np.all(model.alpha_ > 0):
                return
            if model.loss == "multinomial":
                return
            influence = model.influence(X, data.y, **more)
            if "Classifier" in self.name:
                assert label_set(influence, X, 0.5).shape == (len(rows), len(model.classes_))
            else:
                ends = prediction_interval(influence, X, 0.5)
                if not (ends[..., 0] <= ends[..., 1]).all():
                    raise BrokenPromiseError(f"prediction_interval: {ends}")
            for name in ("seen", "unseen", "doubt", "error"):
                if not np.isfinite(getattr(influence, name)).all():
                    raise BrokenPromiseError(f"influence: {name} is not finite")
            if model.loss == "squared":
                self._check_constrained(model, X, more)

    def _check_constrained(self, model: Any, X: Any, more: dict[str, Any]) -> None:
        """Check that a fit under a side constraint proves its objective."""
        coefficients = self.asks.standard_normal(len(self.data.X))
        try:
            fair = model.constrained(X, self.data.y, [SideConstraint(X, coefficients)], **more)
        except ValueError as error:
            if "cannot be met" in str(error):
                return
            raise
        unit = max(abs(model.objective_), np.finfo(float).tiny)
        if not (fair.dual_bound_ <= fair.objective_ and np.isfinite(fair.objective_)):
            raise BrokenPromiseError(f"constrained: {fair.objective_} below {fair.dual_bound_}")
        if not fair.objective_ >= model.dual_bound_ - 1e-6 * unit:
            raise BrokenPromiseError(f"constrained: {fair.objective_}, freely {model.dual_bound_}")
        self.outputs(fair)

    def _check_repetition(self, counts: np.ndarray) -> None:
        """Check that integer weights are repetition."""
        error, model = self.attempt(self.data._replace(weight=counts))
        rows = np.arange(len(counts)).repeat(counts)
        repeated = self.data._replace(weight=None).take(rows)
        if error:
            return
        if self.grouped and len(np.unique(repeated.group)) == 1:
            return
        classes = getattr(model, "classes_", None)
        # A class of weight zero is one still, unless its rows are missing.
        if classes is None or len(np.unique(repeated.y)) == len(classes):
            fitted = self._fitted("repeated rows", repeated)
            self._equal("repeated rows", self.outputs(model), fitted)

    def _fitted(self, name: str, data: Data) -> Any:
        error, model = self.attempt(data)
        if error:
            raise BrokenPromiseError(f"{name}: raises {error!r}")
        return model

    def _is_direct(self) -> bool:
        """Return whether the fit is the closed form, of rows that a product does not round."""
        model = self.model
        networks = "ConvexReLUClassifier", "ConvexReLURegressor"
        return self.data.X.dtype.kind == "f" and self.name in networks and model._takes_sparse()

    def _equal(
        self, name: str, values: np.ndarray, model: Any, *, exact: bool | None = None
    ) -> None:
        """Check that a model has the same outputs, to the last bit where that is promised."""
        found = self.outputs(model)
        if exact is None:
            exact = self.name in ("ConvexReLUClassifier", "ConvexReLURegressor")
        if np.array_equal(found, values):
            return
        least = 1e-300 if "Regressor" in self.name else 1e-4  # logits of zero differ by rounding
        distance = np.abs(found - values).max() / max(np.abs(values).max(), least)
        if exact or distance > (2e-2 if self.data.X.dtype == np.float32 else 1e-2):
            raise BrokenPromiseError(f"{name}: relative distance {distance:.1e}")

    def _check_gap(self, model: Any) -> None:
        """Check that the gap is within the tolerance, or that a warning says that it is not."""
        if self.name == "LinearPreferenceHead":
            return
        single = getattr(model, "estimator", model)
        solver = getattr(single, "solver", None)
        tol = single.tol if solver is None else solver.tol
        if self.name == "SoftmaxPolicy":
            tol = 100 * single.tol
        status = getattr(model, "status_", "")
        if not (model.gap_ <= tol or self.warned or status == "stopped"):
            raise BrokenPromiseError(f"gap: {model.gap_:.1e} above {tol:g} ({status})")
        if getattr(single, "formulation", "relu") == "gated" and not model.gap_ >= -1e-5:
            raise BrokenPromiseError(f"gap: {model.gap_:.1e}, a bound above the optimum")
        if status:
            self._check_certificate(model)

    def _check_certificate(self, model: Any) -> None:
        """Check that the program of the fit has the objective and the bound that are reported.

        Where gates of a ReLU network are at an edge, rounding in float32 moves the objective.
        """
        data, X = self.data, self.wrap(self.data.X)
        more = self._groups(data)
        try:
            if self.way == "pairs":
                both = self.wrap(np.concatenate([data.X, data.other]))
                marks = np.repeat([1, 0], len(data.X))
                twice = None if data.weight is None else np.tile(data.weight, 2)
                more = {name: np.tile(labels, 2) for name, labels in more.items()}
                proof = model.certificate(both, marks, twice, **more)
            elif self.way == "prompts":
                proof = model.certificate(X, data.y, data.weight, pair_id=data.group, **more)
            else:
                proof = model.certificate(X, data.y, data.weight, **more)
        except ValueError as error:
            raise BrokenPromiseError(f"certificate: {error}") from error
        program, weights, dual = proof
        unit = max(abs(model.objective_), program.rounding())
        found = {"objective": float(program.evaluate(weights).network_objective)}
        known = {"objective": model.objective_, "bound": model.dual_bound_}
        if dual is not None:
            found["bound"] = float(program.bound_of(dual))
        for name, value in found.items():
            if not abs(value - known[name]) <= 1e-5 * unit:
                raise BrokenPromiseError(f"{name}: {known[name]:.8g}, and recomputed {value:.8g}")

    def _check_units(self, model: Any) -> None:
        """Check that a power of two, which rounds nothing, changes little.

        Merged rows may come in another order, so that sums are rounded in another way.
        """
        data = self.data._replace(X=1024 * self.data.X, other=1024 * self.data.other)
        values, scaled = self.outputs(model), self._fitted("units", data)
        self.data, own = data, self.data
        self._equal("units", values, scaled, exact=False)
        self.data = own

    def _saved(self, model: Any) -> Any:
        """Return the model after saving and loading."""
        if self.name == "SoftmaxPolicy":
            return pickle.loads(pickle.dumps(model))
        with tempfile.TemporaryDirectory() as folder:
            cvxnn.save(model, Path(folder) / "model.safetensors")
            return cvxnn.load(Path(folder) / "model.safetensors")


class Outcome(NamedTuple):
    """What came of a case: a documented error, a broken promise, or neither."""

    number: int
    name: str
    error: str = ""
    broken: str = ""


def run(number: int) -> Outcome:
    """Check one case."""
    case = Case(number)
    try:
        return Outcome(number, case.name, case.check())
    except BrokenPromiseError as broken:
        return Outcome(number, case.name, broken=str(broken))
    except Exception as error:  # of predictions, of saving
        return Outcome(number, case.name, broken=f"{type(error).__name__}: {error}")


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("part", range(PARTS))
def test_fits_keep_their_promises(part: int, cases: int) -> None:
    # Memory is released between tests, so that a part is one of few programs.
    outcomes = map(run, range(part, max(cases // 4, PARTS), PARTS))
    assert [outcome for outcome in outcomes if outcome.broken] == []
