"""Scores of all strengths on all folds: what the cross-validated estimators share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv
from sklearn.utils.validation import check_is_fitted

from cvxnn import convex
from cvxnn._messages import warn
from cvxnn.estimators._advice import end_of_grid, warn_of_grid
from cvxnn.estimators._base import ConvexReLUBase
from cvxnn.estimators._held_out_scorer import HeldOutScorer
from cvxnn.estimators._monitor import progress_line
from cvxnn.estimators._parameters import Number, check_parameters
from cvxnn.estimators._rows import DistinctRows, Rows, merge
from cvxnn.estimators.classifier import ConvexReLUClassifier
from cvxnn.estimators.prediction import NetworkPrediction
from cvxnn.numerics.scores import ANY_PROBABILITY

# Weakest of the default strengths, as a fraction of the unit: a ridge still changes the network
# at strengths at which a norm no longer does.
_WEAKEST_RIDGE, _WEAKEST_NORM = 1e-6, 1e-3
# Fitted attributes whose names do not end in an underscore.
_PRIVATE = ("_feature_scale", "_n_features_out", "_proof", "_given", "_y_ndim", "_warm")
# What belongs to the fit to all rows: its warm start, and who watches it.
_PASSED_ON = ("_warm", "_skl_callbacks", "_parent_callback_ctx")
Floats = NDArray[np.floating]


class Task(NamedTuple):
    """Data of a cross-validation.

    Attributes
    ----------
    X : ndarray or CSR matrix, shape (n_samples, n_features)
        Rows.
    labels : ndarray, shape (n_samples,) or (n_samples, n_outputs)
        Targets as the user gave them, for splitter and scorer.
    targets : ndarray, shape (n_samples, n_outputs)
        Targets in the form that the loss takes.
    weight : ndarray, shape (n_samples,)
        Sample weights, without those of classes.
    loss : Loss
        Of the program.
    groups : ndarray of int, shape (n_samples,), or None
        Numbers of the groups of rows.
    """

    X: Rows
    labels: NDArray[Any]
    targets: Floats
    weight: Floats
    loss: convex.Loss
    groups: NDArray[np.intp] | None


# Returns the temperature of a classifier, and the range of its probabilities.
Link = Callable[[], tuple[float, NDArray[np.float64]]]


class _Replay:
    """Stand-in for a network that repeats its outputs for the held-out rows to a scorer."""

    def __init__(self, X: Rows, outputs: Floats) -> None:
        self.X, self.outputs = X, outputs

    def forward(self, X: Rows) -> Floats:
        """Return the outputs, for the held-out rows only."""
        if X.shape != self.X.shape or (X is not self.X and (X != self.X).sum() > 0):
            raise ValueError(
                "the scorer asked for predictions of other rows than those it was given; a scorer "
                "of a cross-validated estimator sees the held-out rows only."
            )
        return self.outputs


class HoldsEstimator(CallbackSupportMixin, BaseEstimator):
    """An estimator that fits a clone of another one, and takes its fitted attributes over."""

    # Class of the estimator that is held; with its defaults where none is given.
    _held: ClassVar[type[Any]]

    estimator: Any
    verbose: int

    @property
    def _base(self) -> Any:
        """Estimator whose parameters count."""
        return self._held() if self.estimator is None else self.estimator

    def _check_base(self) -> None:
        """Raise unless the estimator is one of the right class with good parameters."""
        if not isinstance(self._base, self._held):
            raise TypeError(
                f"estimator={self.estimator!r}; expected None or a {self._held.__name__}."
            )
        self._base._check_parameters()

    def certificate(self, X: Any, y: Any, sample_weight: Any = None, **more: Any) -> Any:
        """Return the certificate of the last fit, to all rows.

        Parameters
        ----------
        X, y, sample_weight : array-like
            Data of the fit.
        **more
            ``groups`` of classifiers and regressors.

        Returns
        -------
        cvxnn.convex.Certificate
            See the method of the estimator that is held.
        """
        return self._fitted_model().certificate(X, y, sample_weight, **more)

    def influence(self, X: Any, y: Any, sample_weight: Any = None, **more: Any) -> Any:
        """Return what each row does to the last fit, to all rows.

        Parameters
        ----------
        X, y, sample_weight : array-like
            Data of the fit.
        **more
            ``groups`` of classifiers and regressors, and ``leave_out``.

        Returns
        -------
        cvxnn.explanation.Influence
            See the method of the estimator that is held.
        """
        return self._fitted_model().influence(X, y, sample_weight, **more)

    def _fitted_model(self) -> Any:
        """Return the estimator that is held with the attributes of the last fit."""
        check_is_fitted(self)
        model = clone(self._base)
        vars(model).update({key: v for key, v in vars(self).items() if _is_fitted(key)})
        return model

    def _refit(self, fit: Callable[[Any], Any], **parameters: Any) -> None:
        """Call ``fit`` with a clone of other parameters, and take its fitted attributes over."""
        model = clone(self._base).set_params(**parameters)
        if self.verbose:
            model.set_params(verbose=self.verbose)
        for name in _PASSED_ON:
            if name in vars(self):
                setattr(model, name, getattr(self, name))
        model._chosen_by = type(self).__name__
        fit(model)
        for name, value in vars(model).items():
            if _is_fitted(name):
                setattr(self, name, value)


def _is_fitted(name: str) -> bool:
    """Return whether an attribute is one that a fit sets."""
    return name in _PRIVATE or (name.endswith("_") and not name.startswith("_"))


class CrossValidated(NetworkPrediction, HoldsEstimator):
    """Choice of the strength, which classifier and regressor share."""

    strengths_: Floats
    cv_scores_: Floats
    best_strength_: float

    _numbers: ClassVar[dict[str, Number]] = {
        "n_strengths": Number(Integral, 1),
        "eps": Number(Real, closed=False, words=(None,)),
        "verbose": Number(Integral, words=(True, False)),
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        strengths: ArrayLike | None = None,
        n_strengths: int = 20,
        eps: float | None = None,
        cv: Any = None,
        scoring: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.strengths = strengths
        self.n_strengths = n_strengths
        self.eps = eps
        self.cv = cv
        self.scoring = scoring
        self.verbose = verbose

    def _check_parameters(self) -> None:
        check_parameters(self, self._numbers, {})
        self._check_base()

    def _takes_sparse(self) -> bool:
        if not isinstance(self._base, ConvexReLUBase):
            return False
        return clone(self._base).set_params(strength="auto")._takes_sparse()

    def _grid(self) -> Floats:
        """Return the strengths to try, falling."""
        from cvxnn.estimators._folds import fractions  # with JAX, for fits only

        if self.strengths is None:
            eps = self.eps
            if eps is None:
                ridge = isinstance(self._base._choose().penalty, convex.SquaredL2)
                eps = _WEAKEST_RIDGE if ridge else _WEAKEST_NORM
            if not eps < 1:
                raise ValueError(f"eps={eps!r}; expected a number below 1.")
            return np.geomspace(1, eps, self.n_strengths)
        return fractions("strengths", self.strengths)

    def _cross_validate(self, task: Task, weight: Floats | None, groups: Any) -> None:
        """Score all strengths on all folds, with ``weight``, and set the attributes found."""
        from cvxnn.estimators._folds import Fold, best_of, cannot_win  # with JAX, for fits only

        base = clone(self._base)
        classifier = self._held is ConvexReLUClassifier
        grid = self._grid()
        scorer = HeldOutScorer.of(self._held(), self.scoring, getattr(self, "classes_", None))
        splitter = self._splitter(task, classifier, groups)
        folds = list(splitter.split(task.X, task.labels, groups))
        gaps: list[float] = []
        paths, direct = [], False
        scores = np.empty((len(folds), len(grid)))
        with progress_line(self.verbose, type(self).__name__, joined=True) as write:
            for k, (seen, unseen) in enumerate(folds):
                if write is not None:
                    write(f"fold {k + 1} of {len(folds)}")
                self._check_fold(k, task, seen, unseen)
                rows = self._merge(task.X[seen], task.targets[seen], task.weight[seen])
                fold = Fold.of(base, rows, task.loss)
                direct |= fold.direct
                paths.append(fold.predictions(task.X[self._asked(task, seen, unseen)], grid))
            stops = self.strengths is None and not direct
            for j in range(len(grid)):
                if write is not None and not direct:
                    write(f"strength {j + 1} of {'at most ' if stops else ''}{len(grid)}")
                found, certified = zip(*map(next, paths), strict=True)
                gaps += certified
                scores[:, j] = self._scores(task, folds, list(found), weight, scorer)
                if stops and cannot_win(scores[:, : j + 1]):
                    grid, scores = grid[: j + 1], scores[:, : j + 1]
                    break
        best, self.best_score_ = best_of(scores)
        self.strengths_, self.cv_scores_ = grid, scores
        self.best_strength_ = float(grid[best])
        warn_of_gaps(self, gaps, base.tol if base.solver is None else base.solver.tol)

    def _scores(
        self,
        task: Task,
        folds: list[Any],
        outputs: list[Floats],
        weight: Floats | None,
        scorer: HeldOutScorer,
    ) -> list[float]:
        """Return the score of each fold at one strength, from outputs for the rows asked for."""
        scores = []
        links = self._links(task, folds, outputs)
        for (_, unseen), found, link in zip(folds, outputs, links, strict=True):
            X = task.X[unseen]
            model = self._stand_in(_Replay(X, found[: len(unseen)]), link)
            own = None if weight is None else weight[unseen]
            scores.append(scorer(model, X, task.labels[unseen], own))
        return scores

    def _warn_of_grid(self) -> None:
        """Warn of a strength at an end of the grid, unless the network says that it is constant."""
        best = int(np.flatnonzero(self.strengths_ == self.best_strength_)[0])
        end = end_of_grid(self.cv_scores_, best)
        if end < 0 and self.network_.n_neurons == 0:  # nothing is left to penalise
            return
        warn_of_grid(
            self,
            f"strength {self.best_strength_:.2g}",
            end,
            strong="Give stronger ones (strengths=)."
            if self.best_strength_ < 1
            else "Nearly a constant predicts best: look for features that tell the targets apart.",
            weak="Give weaker ones: a smaller eps, or strengths=.",
        )

    def _splitter(self, task: Task, classifier: bool, groups: Any) -> Any:
        """Return the splitter; a number of folds splits no group, and stratifies classes."""
        cv = 5 if self.cv is None else self.cv
        if groups is not None and isinstance(cv, Integral):
            return StratifiedGroupKFold(int(cv)) if classifier else GroupKFold(int(cv))
        return check_cv(cv, task.labels, classifier=classifier)

    def _check_fold(
        self, k: int, task: Task, seen: NDArray[np.intp], unseen: NDArray[np.intp]
    ) -> None:
        """Raise if a fold cannot be fitted or scored."""
        for what, rows in (("training", seen), ("held-out", unseen)):
            if not np.any(task.weight[rows] > 0):
                raise ValueError(f"fold {k} of cv has no {what} row of positive weight.")

    def _merge(self, X: Rows, targets: Floats, weight: Floats) -> DistinctRows:
        """Return distinct rows with their weights, as a single fit has them."""
        return merge(X, targets, weight)

    def _asked(
        self, task: Task, seen: NDArray[np.intp], unseen: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Return the rows whose outputs the scores of a fold need, those held out first."""
        return unseen

    def _links(self, task: Task, folds: list[Any], outputs: list[Floats]) -> list[Link]:
        """Return what calibrates each fold's stand-in; a regressor needs none."""
        return [lambda: (1.0, np.array(ANY_PROBABILITY))] * len(folds)

    @abstractmethod
    def _stand_in(self, network: Any, link: Link) -> Any:
        """Return the single estimator as it would be with a network, for a scorer."""


def warn_of_gaps(estimator: Any, gaps: list[float], tol: float) -> None:
    """Warn if solutions of a cross-validation are not within their tolerance."""
    loose = [gap for gap in gaps if not gap <= tol]
    if loose:
        warn(
            f"{type(estimator).__name__}: {len(loose)} of {len(gaps)} solutions of the "
            f"cross-validation ended at a relative duality gap above {tol:g}, the largest at "
            f"{max(loose):.1e}; increase max_iter, or leave out the weakest strengths.",
            ConvergenceWarning,
        )
