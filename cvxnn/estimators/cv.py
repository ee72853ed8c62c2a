r"""Estimators that choose the strength of their penalty by cross-validation.

In each fold everything that depends on the data is done once: scaling, patterns, and, where the
solution is direct, the kernel. All strengths are then solved one after another from the strongest
on (``cvxnn.convex.path``, ``cvxnn.convex.solvers.ridge.ridge_path``), each with a certified gap of
at most ``tol``. A fold's predictions are those of the single estimator fitted to the fold's
training rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets

from cvxnn.estimators._calibration import fit_temperature, limit_log_odds
from cvxnn.estimators._classes import class_weights, gives_log_odds, require_two_classes
from cvxnn.estimators._cross_validation import CrossValidated, Floats, Link, Task
from cvxnn.estimators._fit_plan import HeldOut
from cvxnn.estimators._monitor import all_or_nothing
from cvxnn.estimators._rows import (
    DistinctRows,
    Rows,
    columns,
    groups_of,
    has_few_units,
    units_of,
    weights_of,
)
from cvxnn.estimators.classifier import ConvexReLUClassifier
from cvxnn.estimators.prediction import ClassifierPrediction, RegressorPrediction
from cvxnn.estimators.regressor import ConvexReLURegressor
from cvxnn.numerics.scores import ANY_PROBABILITY, probability_range, scores_of


class _ScoredClassifier(ConvexReLUClassifier):
    """A classifier whose calibration is found when a scorer asks for probabilities."""

    @property
    def temperature_(self) -> float:  # type: ignore[override]
        return self._find_link()[0]

    @property
    def probability_range_(self) -> NDArray[np.float64]:  # type: ignore[override]
        return self._find_link()[1]


class ConvexReLUClassifierCV(ClassifierPrediction, CrossValidated):
    r"""Classifier that chooses the strength of its penalty by cross-validation.

    Each strength of a grid is scored on held-out folds, and a clone of ``estimator`` is fitted to
    all rows with the best. The strengths of a fold share patterns and factorisations, so that with
    the default formulation the whole costs a few single fits.

    Parameters
    ----------
    estimator : ConvexReLUClassifier, optional
        Its parameters count, but for ``strength``, which is chosen; by default
        ``ConvexReLUClassifier()``. It is cloned, never fitted itself. Patterns that depend on the
        strength (``"local"``, ``"adaptive"``) are found once for each fold, at the geometric middle
        of the grid. ``early_stopping`` and ``warm_start`` act on the last fit only.
    strengths : array-like, shape (n_strengths,), optional
        Strengths to try, above 0 and at most 1: fractions of ``alpha_max_``, as the single
        estimator takes them. By default a geometric grid of ``n_strengths`` from 1 to ``eps``;
        without a closed form it ends where three strengths in turn score worse than the best, each
        by more than a standard error (with three folds or more).
    n_strengths : int, default=20
        Number of strengths of the default grid at most, at least 1.
    eps : float, optional
        The weakest strength of the default grid, above 0 and below 1: by default 1e-6 for the
        penalty ``"l2"`` and 1e-3 for the others.
    cv : int, splitter or iterable of (training rows, held-out rows), optional
        As in scikit-learn: an integer is the number of folds, with the proportions of the classes;
        5 by default. Where ``fit`` is given ``groups``, no fold splits one.
    scoring : str or callable, optional
        As in scikit-learn; accuracy by default. The scorer is given an estimator that knows the
        held-out rows only, and ``sample_weight`` if it takes any. Scores of probabilities know all
        classes, whichever the held-out rows hold. For probabilities, a strength has one
        temperature, found from the held-out rows of all folds; with the logistic losses, each fold
        has that of a single fit to its training rows.
    verbose : int, default=0
        1 writes progress lines to standard error: which fold is at work, then the fit to all rows.

    Attributes
    ----------
    strengths_ : ndarray, shape (n_strengths,)
        Strengths that were tried, falling.
    cv_scores_ : ndarray, shape (n_folds, n_strengths)
        Scores of the held-out rows of each fold. Where a fold's are NaN, as the area under a
        curve is where a class is missing, the others choose.
    best_strength_ : float
        The chosen strength: of the highest mean score, and among equals the strongest. It equals
        ``strength_`` of the fit to all rows.
    best_score_ : float
        Mean score of the folds at ``best_strength_``; a little flattering, since it was chosen.
    classes_, network_, strength_, alpha_, gap_, ...
        Fitted attributes of the fit to all rows; see ``ConvexReLUClassifier``.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from cvxnn import ConvexReLUClassifier, ConvexReLUClassifierCV
    >>> X, y = make_moons(200, noise=0.2, random_state=0)
    >>> model = ConvexReLUClassifierCV(ConvexReLUClassifier(random_state=0)).fit(X, y)
    >>> model.cv_scores_.shape
    (5, 20)
    >>> bool(model.best_score_ > 0.95)
    True
    """

    _held = ConvexReLUClassifier

    @property
    def loss(self) -> str:
        """Loss of the estimator."""
        return self._base.loss

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> ConvexReLUClassifierCV:
        """Choose the strength, then fit the network to all rows.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Rows, as in ``ConvexReLUClassifier``.
        y : array-like, shape (n_samples,)
            Labels of at least two classes.
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative weights, in training and in the scores.
        X_val, y_val : array-like, optional
            Validation data for early stopping of the last fit, which they switch on.
        groups : array-like, shape (n_samples,), optional
            Groups of rows that resemble each other. No group is on both sides of a split, unless
            ``cv`` is a splitter that does not take them; see ``fit`` of the estimator that is held.
        sample_weight_val : array-like, shape (n_validation_rows,), optional
            Non-negative weights of the validation rows; equal by default.

        Returns
        -------
        ConvexReLUClassifierCV
            The estimator itself. An interrupted or failed fit leaves it as it was.

        Raises
        ------
        ValueError
            For bad parameters or data, or folds that cannot be made or scored.
        TypeError
            If ``estimator`` is of another class.
        """
        self._check_parameters()
        with all_or_nothing(self):
            data, labels = self._validate(X, y)
            check_classification_targets(labels)
            classes, codes = np.unique(labels, return_inverse=True)
            shared = weights_of(sample_weight, data.shape[0], data.dtype)
            require_two_classes(self, classes, codes[shared > 0])
            loss, targets = self._base._targets(codes, len(classes), data.dtype)
            self.classes_ = classes
            numbers = groups_of(groups, len(targets))
            task = Task(data, labels, targets, shared, loss, numbers)
            self._cross_validate(task, None if sample_weight is None else shared, groups)
            self._refit(
                lambda model: model.fit(
                    X,
                    y,
                    sample_weight=sample_weight,
                    X_val=X_val,
                    y_val=y_val,
                    groups=groups,
                    sample_weight_val=sample_weight_val,
                ),
                strength=self.best_strength_,
            )
            self._warn_of_grid()
        return self

    def _check_fold(
        self, k: int, task: Task, seen: NDArray[np.intp], unseen: NDArray[np.intp]
    ) -> None:
        super()._check_fold(k, task, seen, unseen)
        present = np.unique(task.labels[seen][task.weight[seen] > 0])
        if len(present) < 2:
            raise ValueError(
                f"the training rows of fold {k} of cv hold only one class, "
                f"{present.tolist()[0]!r}; use folds with at least 2, such as those of "
                "sklearn.model_selection.StratifiedKFold."
            )

    def _merge(self, X: Rows, targets: Floats, weight: Floats) -> DistinctRows:
        return self._base._merge(X, targets, weight, self.classes_)

    def _asked(
        self, task: Task, seen: NDArray[np.intp], unseen: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        both = gives_log_odds(self._base.loss) or self._has_few(task, seen)
        return np.concatenate([unseen, seen]) if both else unseen

    def _has_few(self, task: Task, seen: NDArray[np.intp]) -> bool:
        """Return whether a class has few units of data among rows."""
        codes = np.searchsorted(self.classes_, task.labels[seen])
        groups = None if task.groups is None else task.groups[seen]
        return has_few_units(codes, units_of(task.weight[seen]), groups)

    def _links(self, task: Task, folds: list[Any], outputs: list[Floats]) -> list[Link]:
        parts = [
            (found[: len(rows)], found[len(rows) :])
            for (_, rows), found in zip(folds, outputs, strict=True)
        ]
        against = self._base._one_against_rest()
        unseen = np.concatenate([rows for _, rows in folds])
        held_out = self._held_out(task, unseen, np.concatenate([found for found, _ in parts]))
        of_all = cache(partial(fit_temperature, held_out))

        def link(seen: NDArray[np.intp], found: Floats) -> tuple[float, NDArray[np.float64]]:
            factor: Callable[[], float] = of_all
            groups = None if task.groups is None else task.groups[seen]
            if gives_log_odds(self._base.loss):
                own = self._held_out(task, seen, found)
                factor = partial(limit_log_odds, own, groups, one_against_rest=against)
            temperature, within = factor(), np.array(ANY_PROBABILITY)
            if self._has_few(task, seen):
                scores = temperature * scores_of(found)
                within = probability_range(scores, one_against_rest=against)
            return temperature, within

        return [
            cache(partial(link, seen, own))
            for (seen, _), (_, own) in zip(folds, parts, strict=True)
        ]

    def _held_out(self, task: Task, rows: NDArray[np.intp], outputs: Floats) -> HeldOut:
        """Return outputs for rows, with weights as a single fit to them has them."""
        codes = np.searchsorted(self.classes_, task.labels[rows])
        weight = class_weights(self._base.class_weight, self.classes_, codes, task.weight[rows])
        weight = weight / weight.sum() * units_of(task.weight[rows]).sum()
        return HeldOut(outputs, task.targets[rows], weight)

    def _stand_in(self, network: Any, link: Link) -> Any:
        model = _ScoredClassifier(loss=self._base.loss)
        model.bend_ = 0.0
        model.network_, model.classes_ = network, self.classes_
        model.n_features_in_, model._find_link = self.n_features_in_, link
        return model


class ConvexReLURegressorCV(RegressorPrediction, CrossValidated):
    r"""Regressor that chooses the strength of its penalty by cross-validation.

    Each strength of a grid is scored on held-out folds, and a clone of ``estimator`` is fitted to
    all rows with the best; see ``ConvexReLUClassifierCV`` for what that costs.

    Parameters
    ----------
    estimator : ConvexReLURegressor, optional
        Its parameters count, but for ``strength``, which is chosen; by default
        ``ConvexReLURegressor()``. It is cloned, never fitted itself. Patterns that depend on the
        strength (``"local"``, ``"adaptive"``) are found once for each fold, at the geometric middle
        of the grid. ``early_stopping`` and ``warm_start`` act on the last fit only.
    strengths : array-like, shape (n_strengths,), optional
        Strengths to try, above 0 and at most 1: fractions of ``alpha_max_``, as the single
        estimator takes them. By default a geometric grid of ``n_strengths`` from 1 to ``eps``;
        without a closed form it ends where three strengths in turn score worse than the best, each
        by more than a standard error (with three folds or more).
    n_strengths : int, default=20
        Number of strengths of the default grid at most, at least 1.
    eps : float, optional
        The weakest strength of the default grid, above 0 and below 1: by default 1e-6 for the
        penalty ``"l2"`` and 1e-3 for the others.
    cv : int, splitter or iterable of (training rows, held-out rows), optional
        As in scikit-learn: an integer is the number of consecutive folds; 5 by default. Where
        ``fit`` is given ``groups``, no fold splits one.
    scoring : str or callable, optional
        As in scikit-learn; the coefficient of determination by default. The scorer is given an
        estimator that knows the held-out rows only, and ``sample_weight`` if it takes any.
    verbose : int, default=0
        1 writes progress lines to standard error: which fold is at work, then the fit to all rows.

    Attributes
    ----------
    strengths_ : ndarray, shape (n_strengths,)
        Strengths that were tried, falling.
    cv_scores_ : ndarray, shape (n_folds, n_strengths)
        Scores of the held-out rows of each fold; a fold of which all are NaN does not count.
    best_strength_ : float
        The chosen strength: of the highest mean score, and among equals the strongest. It equals
        ``strength_`` of the fit to all rows.
    best_score_ : float
        Mean score of the folds at ``best_strength_``; a little flattering, since it was chosen.
    network_, strength_, alpha_, gap_, ...
        Fitted attributes of the fit to all rows; see ``ConvexReLURegressor``.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import ConvexReLURegressor, ConvexReLURegressorCV
    >>> rng = np.random.RandomState(0)
    >>> X = rng.uniform(-1, 1, (100, 1))
    >>> y = np.abs(X[:, 0]) + 0.1 * rng.randn(100)
    >>> model = ConvexReLURegressorCV(ConvexReLURegressor(random_state=0)).fit(X, y)
    >>> bool(model.best_score_ > 0.8)
    True
    """

    _held = ConvexReLURegressor

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> ConvexReLURegressorCV:
        """Choose the strength, then fit the network to all rows.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Rows, as in ``ConvexReLURegressor``.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative weights, in training and in the scores.
        X_val, y_val : array-like, optional
            Validation data for early stopping of the last fit, which they switch on.
        groups : array-like, shape (n_samples,), optional
            Groups of rows that resemble each other. No group is on both sides of a split, unless
            ``cv`` is a splitter that does not take them; see ``fit`` of the estimator that is held.
        sample_weight_val : array-like, shape (n_validation_rows,), optional
            Non-negative weights of the validation rows; equal by default.

        Returns
        -------
        ConvexReLURegressorCV
            The estimator itself. An interrupted or failed fit leaves it as it was.

        Raises
        ------
        ValueError
            For bad parameters or data, or folds that cannot be made or scored.
        TypeError
            If ``estimator`` is of another class.
        """
        self._check_parameters()
        with all_or_nothing(self):
            data, values = self._validate(X, y, **self._held._y_options)
            weight = weights_of(sample_weight, data.shape[0], data.dtype)
            self._y_ndim = np.ndim(values)
            targets = columns(values, data.dtype)
            loss = self._base._program_loss()
            task = Task(data, values, targets, weight, loss, None)
            self._cross_validate(task, None if sample_weight is None else weight, groups)
            self._refit(
                lambda model: model.fit(
                    X,
                    y,
                    sample_weight=sample_weight,
                    X_val=X_val,
                    y_val=y_val,
                    groups=groups,
                    sample_weight_val=sample_weight_val,
                ),
                strength=self.best_strength_,
            )
            self._warn_of_grid()
        return self

    def _stand_in(self, network: Any, link: Link) -> Any:
        model = ConvexReLURegressor()
        model.network_, model._y_ndim = network, self._y_ndim
        model.n_features_in_ = self.n_features_in_
        return model
