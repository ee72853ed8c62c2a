r"""Estimators that choose the strength of their penalty by cross-validation.

In each fold everything that depends on the data is done once: scaling, patterns, and, where the
solution is direct, the kernel. All strengths are then solved one after another from the strongest
on (``cvxnn.convex.path``, ``cvxnn.convex.solvers.ridge.path``), each with a certified gap of at
most ``tol``.
A fold's predictions are those of the single estimator fitted to the fold's training rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.multiclass import check_classification_targets

from cvxnn.convex.loop import Solver
from cvxnn.convex.losses import HuberLoss, SquaredLoss
from cvxnn.convex.program import Formulation
from cvxnn.estimators._base import (
    all_or_nothing,
)
from cvxnn.estimators._cross_validation import CrossValidated, Task
from cvxnn.estimators._defaults import PatternsParameter, PenaltyParameter
from cvxnn.estimators._rows import class_weights, require_two_classes, weights_of
from cvxnn.estimators.classifier import ConvexReLUClassifier
from cvxnn.estimators.regressor import ConvexReLURegressor, _columns

Floats = NDArray[np.floating]


class _ScoredClassifier(ConvexReLUClassifier):
    """Its temperature is found when a scorer asks for probabilities."""

    @property
    def temperature_(self) -> float:  # type: ignore[override]
        return self._find_temperature() if self.loss == "squared" else 1.0


class ConvexReLUClassifierCV(CrossValidated, ConvexReLUClassifier):
    r"""Classifier that chooses the strength of its penalty by cross-validation.

    ``ConvexReLUClassifier`` with one parameter less, ``strength``: each one of a grid is scored on
    held-out folds, and the network is fitted to all rows with the best. The strengths of a fold
    share patterns and factorisations, so that with the default form the whole costs a few single
    fits.

    Parameters
    ----------
    strengths : array-like, shape (n_strengths,), optional
        Strengths to try, above 0 and at most 1: fractions of ``alpha_max_``, as the single
        estimator takes them. By default a geometric grid of ``n_strengths`` from 1 to ``eps``.
    n_strengths : int, default=20
    eps : float, optional
        The weakest strength of the default grid, below 1: 1e-6 by default for ``penalty="l2"``,
        1e-3 for the others.
    cv : int, splitter or iterable of (training rows, held-out rows), optional
        As in scikit-learn: an integer is the number of folds, with the proportions of the classes;
        5 by default. ``fit`` passes ``groups`` on to a splitter.
    scoring : str or callable, optional
        As in scikit-learn; accuracy by default. The scorer is given an estimator that knows the
        held-out rows only. For probabilities, a strength has one temperature, found from the
        held-out rows of all folds.
    formulation, penalty, patterns, n_patterns, loss, class_weight, skip, fit_intercept
        As in ``ConvexReLUClassifier``.
    standardize, calibration_folds, tol, max_iter, solver, random_state, verbose
        As in ``ConvexReLUClassifier``. Patterns that depend on the strength (``"local"``,
        ``"adaptive"``) are found once for each fold, at the geometric middle of the grid.
    early_stopping, validation_fraction, n_iter_no_change, warm_start
        As there, for the last fit only.

    Attributes
    ----------
    strengths_ : ndarray, shape (n_strengths,)
        Fractions that were tried, falling.
    cv_scores_ : ndarray, shape (n_folds, n_strengths)
    best_strength_ : float
        The fraction chosen: of the highest mean score, and among equals the strongest. It equals
        ``strength_`` of the fit to all rows.
    best_score_ : float
        Mean score of the folds at ``best_strength_``; a little flattering, since it was chosen.
    classes_, network_, strength_, alpha_, gap_, ...
        Of the fit to all rows; see ``ConvexReLUClassifier``.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from cvxnn import ConvexReLUClassifierCV
    >>> X, y = make_moons(200, noise=0.2, random_state=0)
    >>> model = ConvexReLUClassifierCV(random_state=0).fit(X, y)
    >>> model.cv_scores_.shape
    (5, 20)
    >>> bool(model.best_score_ > 0.95)
    True
    """

    _single = ConvexReLUClassifier
    _numbers: ClassVar[dict[str, tuple[Any, float, bool]]] = {
        **ConvexReLUClassifier._numbers,
        **CrossValidated._numbers,
    }

    def __init__(
        self,
        strengths: ArrayLike | None = None,
        *,
        n_strengths: int = 20,
        eps: float | None = None,
        cv: Any = None,
        scoring: Any = None,
        formulation: Formulation = "gated",
        penalty: PenaltyParameter = "auto",
        patterns: PatternsParameter = "auto",
        n_patterns: int | Literal["auto"] = "auto",
        loss: Literal["squared", "logistic", "multinomial"] = "squared",
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        skip: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = True,
        calibration_folds: int = 3,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        tol: float = 1e-2,
        max_iter: int = 1000,
        solver: Solver | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.strengths = strengths
        self.n_strengths = n_strengths
        self.eps = eps
        self.cv = cv
        self.scoring = scoring
        self.formulation = formulation
        self.penalty = penalty
        self.patterns = patterns
        self.n_patterns = n_patterns
        self.loss = loss
        self.class_weight = class_weight
        self.skip = skip
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.calibration_folds = calibration_folds
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> ConvexReLUClassifierCV:
        """Choose the strength, then fit the network to all rows.

        Parameters
        ----------
        X, y, X_val, y_val
            As in ``ConvexReLUClassifier``.
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative; in training and in the scores.
        groups : array-like, shape (n_samples,), optional
            For a splitter such as ``sklearn.model_selection.GroupKFold``.

        Returns
        -------
        ConvexReLUClassifierCV
            The estimator itself. An interrupted or failed fit leaves it as it was.

        Raises
        ------
        ValueError
            For bad parameters or data, or folds that cannot be made or scored.
        """
        self._check_parameters()
        with all_or_nothing(self):
            data, labels = self._validate(X, y)
            check_classification_targets(labels)
            classes, codes = np.unique(labels, return_inverse=True)
            given = weights_of(sample_weight, data.shape[0], data.dtype)
            require_two_classes(self, classes, codes[given > 0])
            weight = class_weights(self.class_weight, classes, codes, given)
            require_two_classes(self, classes, codes[weight > 0])
            loss, targets = self._targets(codes, len(classes), data.dtype)
            self.classes_ = classes
            task = Task(data, labels, targets, given, loss)
            self._cross_validate(task, None if sample_weight is None else given, groups)
            self._refit(super().fit, X, y, sample_weight=sample_weight, X_val=X_val, y_val=y_val)
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

    def _fold_weight(self, task: Task, rows: NDArray[np.intp]) -> Floats:
        codes = np.searchsorted(self.classes_, task.labels[rows])
        return class_weights(self.class_weight, self.classes_, codes, task.weight[rows])

    def _stand_in(self, network: Any, temperature: Callable[[], float]) -> Any:
        model = _ScoredClassifier(loss=self.loss)
        model.network_, model.classes_ = network, self.classes_
        model.n_features_in_, model._find_temperature = self.n_features_in_, temperature
        return model


class ConvexReLURegressorCV(CrossValidated, ConvexReLURegressor):
    r"""Regressor that chooses the strength of its penalty by cross-validation.

    ``ConvexReLURegressor`` with one parameter less, ``strength``; see ``ConvexReLUClassifierCV``
    for what is done and for what it costs.

    Parameters
    ----------
    strengths, n_strengths, eps, cv
        As in ``ConvexReLUClassifierCV``; an integer ``cv`` makes consecutive folds.
    scoring : str or callable, optional
        As in scikit-learn; the coefficient of determination by default.
    formulation, penalty, patterns, n_patterns, loss, delta, skip, fit_intercept, standardize
        As in ``ConvexReLURegressor``.
    tol, max_iter, solver, random_state, verbose
        As in ``ConvexReLURegressor``. Patterns that depend on the strength (``"local"``,
        ``"adaptive"``) are found once for each fold, at the geometric middle of the grid.
    early_stopping, validation_fraction, n_iter_no_change, warm_start
        As there, for the last fit only.

    Attributes
    ----------
    strengths_, cv_scores_, best_strength_, best_score_
        As in ``ConvexReLUClassifierCV``.
    network_, strength_, alpha_, gap_, ...
        Of the fit to all rows; see ``ConvexReLURegressor``.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import ConvexReLURegressorCV
    >>> rng = np.random.RandomState(0)
    >>> X = rng.uniform(-1, 1, (100, 1))
    >>> y = np.abs(X[:, 0]) + 0.1 * rng.randn(100)
    >>> bool(ConvexReLURegressorCV(random_state=0).fit(X, y).best_score_ > 0.8)
    True
    """

    _single = ConvexReLURegressor
    _numbers: ClassVar[dict[str, tuple[Any, float, bool]]] = {
        **ConvexReLURegressor._numbers,
        **CrossValidated._numbers,
    }

    def __init__(
        self,
        strengths: ArrayLike | None = None,
        *,
        n_strengths: int = 20,
        eps: float | None = None,
        cv: Any = None,
        scoring: Any = None,
        formulation: Formulation = "gated",
        penalty: PenaltyParameter = "auto",
        patterns: PatternsParameter = "auto",
        n_patterns: int | Literal["auto"] = "auto",
        loss: Literal["squared", "huber"] = "squared",
        delta: float = 1.35,
        skip: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        warm_start: bool = False,
        tol: float = 1e-2,
        max_iter: int = 1000,
        solver: Solver | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.strengths = strengths
        self.n_strengths = n_strengths
        self.eps = eps
        self.cv = cv
        self.scoring = scoring
        self.formulation = formulation
        self.penalty = penalty
        self.patterns = patterns
        self.n_patterns = n_patterns
        self.loss = loss
        self.delta = delta
        self.skip = skip
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> ConvexReLURegressorCV:
        """Choose the strength, then fit the network to all rows.

        Parameters
        ----------
        X, y, X_val, y_val
            As in ``ConvexReLURegressor``.
        sample_weight, groups
            As in ``ConvexReLUClassifierCV``.

        Returns
        -------
        ConvexReLURegressorCV
            The estimator itself. An interrupted or failed fit leaves it as it was.

        Raises
        ------
        ValueError
            For bad parameters or data, or folds that cannot be made or scored.
        """
        self._check_parameters()
        with all_or_nothing(self):
            data, values = self._validate(X, y, **self._y_options)
            weight = weights_of(sample_weight, data.shape[0], data.dtype)
            loss = HuberLoss(float(self.delta)) if self.loss == "huber" else SquaredLoss()
            self._y_ndim = np.ndim(values)
            task = Task(data, values, _columns(values, data.dtype), weight, loss)
            self._cross_validate(task, None if sample_weight is None else weight, groups)
            self._refit(super().fit, X, y, sample_weight=sample_weight, X_val=X_val, y_val=y_val)
        return self

    def _stand_in(self, network: Any, temperature: Callable[[], float]) -> Any:
        model = ConvexReLURegressor()
        model.network_, model._y_ndim = network, self._y_ndim
        model.n_features_in_ = self.n_features_in_
        return model
