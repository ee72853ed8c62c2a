"""Scores of all strengths on all folds: what the cross-validated estimators share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv

from cvxnn.convex.losses import Loss
from cvxnn.convex.penalties import SquaredL2
from cvxnn.estimators._base import (
    ConvexReLUBase,
    HeldOut,
)
from cvxnn.estimators._folds import Fold, best_of, fractions
from cvxnn.estimators._rows import Rows, merge
from cvxnn.estimators.classifier import ConvexReLUClassifier, _temperature

# Weakest of the default strengths, as a fraction of the unit: a ridge goes on to matter where a
# norm has long ceased to.
_WEAKEST_RIDGE, _WEAKEST_NORM = 1e-6, 1e-3
Floats = NDArray[np.floating]


class Task(NamedTuple):
    """What is fitted: rows, targets as the loss wants them, and weights."""

    X: Rows
    labels: NDArray[Any]
    targets: Floats
    weight: Floats
    loss: Loss


class _Replay:
    """Stands for a network in the eyes of a scorer: what it said about the held-out rows."""

    def __init__(self, X: Rows, outputs: Floats) -> None:
        self.X, self.outputs = X, outputs

    def forward(self, X: Rows) -> Floats:
        """Outputs, for the held-out rows only."""
        if X.shape != self.X.shape or (X is not self.X and (X != self.X).sum() > 0):
            raise ValueError(
                "the scorer asked for predictions of other rows than those it was given; a scorer "
                "of a cross-validated estimator sees the held-out rows only."
            )
        return self.outputs


class CrossValidated(ConvexReLUBase):
    """What classifier and regressor share; goes before the single estimator among the bases."""

    _numbers: ClassVar[dict[str, tuple[Any, float, bool]]] = {
        "n_strengths": (Integral, 1, True),
        "eps": (Real, 0, False),
    }
    _words: ClassVar[dict[str, Any]] = {**ConvexReLUBase._words, "eps": None}
    _single: ClassVar[type[Any]]

    # Of the single estimator; has a value of its own only while the network is fitted to all rows.
    strength: Any = "auto"
    strengths: ArrayLike | None
    n_strengths: int
    eps: float | None
    cv: Any
    scoring: Any

    def _grid(self) -> Floats:
        """Fractions of the unit, falling."""
        if self.strengths is None:
            eps = self.eps
            if eps is None:
                ridge = isinstance(self._choose().penalty, SquaredL2)
                eps = _WEAKEST_RIDGE if ridge else _WEAKEST_NORM
            if not eps < 1:
                raise ValueError(f"eps={eps!r}; expected a number below 1.")
            return np.geomspace(1, eps, self.n_strengths)
        return fractions("strengths", self.strengths)

    def _cross_validate(self, task: Task, weight: Floats | None, groups: Any) -> None:
        """Score all strengths on all folds, with ``weight``; set what was found."""
        classifier = self._single is ConvexReLUClassifier
        grid = self._grid()
        scorer = check_scoring(self._single(), scoring=self.scoring)
        splitter = check_cv(5 if self.cv is None else self.cv, task.labels, classifier=classifier)
        folds = list(splitter.split(task.X, task.labels, groups))
        gaps: list[float] = []
        outputs = []
        for k, (seen, unseen) in enumerate(folds):
            self._check_fold(k, task, seen, unseen)
            rows = merge(task.X[seen], task.targets[seen], self._fold_weight(task, seen))
            found, certified = Fold.of(self, *rows, task.loss).predictions(task.X[unseen], grid)
            outputs.append(found)
            gaps += certified
        scores = np.empty((len(folds), len(grid)))
        for j in range(len(grid)):
            pooled = cache(partial(self._temperature_of, task, folds, [out[j] for out in outputs]))
            for k, (_, unseen) in enumerate(folds):
                X = task.X[unseen]
                model = self._stand_in(_Replay(X, outputs[k][j]), pooled)
                given = {} if weight is None else {"sample_weight": weight[unseen]}
                scores[k, j] = _number(scorer(model, X, task.labels[unseen], **given))
        best, self.best_score_ = best_of(scores)
        self.strengths_, self.cv_scores_ = grid, scores
        self.best_strength_ = float(grid[best])
        loose = [gap for gap in gaps if not gap <= self._tolerance()]
        if loose:
            warnings.warn(
                f"{type(self).__name__}: {len(loose)} of {len(gaps)} solutions of the "
                f"cross-validation ended at a relative duality gap above {self._tolerance():g}, "
                f"the largest at {max(loose):.1e}; increase max_iter, or leave out the weakest "
                "strengths.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _tolerance(self) -> float:
        return self.tol if self.solver is None else self.solver.tol

    def _check_fold(
        self, k: int, task: Task, seen: NDArray[np.intp], unseen: NDArray[np.intp]
    ) -> None:
        for what, rows in (("training", seen), ("held-out", unseen)):
            if not np.any(task.weight[rows] > 0):
                raise ValueError(f"fold {k} of cv has no {what} row of positive weight.")

    def _fold_weight(self, task: Task, rows: NDArray[np.intp]) -> Floats:
        """Weights of some rows in training, as a single fit to them would have them."""
        return task.weight[rows]

    # (network, temperature) -> the single estimator as it would be with them, for a scorer.
    _stand_in: Any

    def _temperature_of(self, task: Task, folds: list[Any], outputs: list[Floats]) -> float:
        """Temperature of the held-out predictions of all folds; for classifiers."""
        unseen = np.concatenate([rows for _, rows in folds])
        weight = self._fold_weight(task, unseen)
        held_out = HeldOut(np.concatenate(outputs), task.targets[unseen], weight)
        return _temperature(held_out)

    def _refit(self, fit: Callable[..., Any], X: Any, y: Any, **given: Any) -> None:
        """Fit the single estimator's way, at the fraction that was chosen."""
        self.strength = self.best_strength_
        fit(X, y, **given)
        del self.strength


def _number(score: Any) -> float:
    if not isinstance(score, Real):
        raise ValueError(f"scoring gave {score!r}; expected one number, the larger the better.")
    return float(score)
