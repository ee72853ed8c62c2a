r"""Estimators that choose the strength of their penalty by cross-validation.

In each fold everything that depends on the data is done once: scaling, patterns, and, where the
solution is direct, the kernel. All strengths are then solved one after another from the strongest
on (``cvxnn.path``, ``cvxnn.solvers.ridge_path``), each with a certified gap of at most ``tol``.
A fold's predictions are those of the single estimator fitted to the fold's training rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.multiclass import check_classification_targets

from cvxnn.estimators._base import (
    ConvexReLUBase,
    HeldOut,
    PatternsParameter,
    PenaltyParameter,
    all_or_nothing,
    require_two_classes,
)
from cvxnn.estimators._folds import Fold, best_of, fractions
from cvxnn.estimators._rows import Rows, class_weights, merge, weights_of
from cvxnn.estimators.classifier import ConvexReLUClassifier, _temperature
from cvxnn.estimators.regressor import ConvexReLURegressor, _columns
from cvxnn.losses import HuberLoss, Loss, SquaredLoss
from cvxnn.penalties import SquaredL2
from cvxnn.problem import Form
from cvxnn.solvers._loop import Solver

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


class _CrossValidated(ConvexReLUBase):
    """What classifier and regressor share; goes before the single estimator among the bases."""

    _numbers: ClassVar[dict[str, tuple[Any, float, bool]]] = {
        "n_alphas": (Integral, 1, True),
        "eps": (Real, 0, False),
    }
    _words: ClassVar[dict[str, Any]] = {**ConvexReLUBase._words, "eps": None}
    _single: ClassVar[type[Any]]

    # Of the single estimator; has a value of its own only while the network is fitted to all rows.
    alpha: Any = "auto"
    alphas: ArrayLike | None
    n_alphas: int
    eps: float | None
    cv: Any
    scoring: Any

    def _grid(self) -> Floats:
        """Fractions of the unit, falling."""
        if self.alphas is None:
            eps = self.eps
            if eps is None:
                ridge = isinstance(self._choose().penalty, SquaredL2)
                eps = _WEAKEST_RIDGE if ridge else _WEAKEST_NORM
            if not eps < 1:
                raise ValueError(f"eps={eps!r}; expected a number below 1.")
            return np.geomspace(1, eps, self.n_alphas)
        return fractions("alphas", self.alphas)

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
        self.alphas_, self.cv_scores_ = grid, scores
        self.best_alpha_ = float(grid[best])
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

    def _stand_in(self, network: Any, temperature: Callable[[], float]) -> Any:
        """The single estimator as it would be with a network, for a scorer."""
        raise NotImplementedError

    def _temperature_of(self, task: Task, folds: list[Any], outputs: list[Floats]) -> float:
        """Temperature of the held-out predictions of all folds; for classifiers."""
        unseen = np.concatenate([rows for _, rows in folds])
        weight = self._fold_weight(task, unseen)
        held_out = HeldOut(np.concatenate(outputs), task.targets[unseen], weight)
        return _temperature(held_out)

    def _refit(self, fit: Callable[..., Any], X: Any, y: Any, **given: Any) -> None:
        """Fit the single estimator's way, at the fraction that was chosen."""
        self.alpha = self.best_alpha_
        fit(X, y, **given)
        del self.alpha


class _ScoredClassifier(ConvexReLUClassifier):
    """Its temperature is found when a scorer asks for probabilities."""

    @property
    def temperature_(self) -> float:  # type: ignore[override]
        return self._find_temperature() if self.loss == "squared" else 1.0


class ConvexReLUClassifierCV(_CrossValidated, ConvexReLUClassifier):
    r"""Classifier that chooses the strength of its penalty by cross-validation.

    ``ConvexReLUClassifier`` with one parameter less, ``alpha``: each strength of a grid is scored
    on held-out folds, and the network is fitted to all rows with the best. The strengths of a fold
    share patterns and factorisations, so that with the default form the whole costs a few single
    fits.

    Parameters
    ----------
    alphas : array-like, shape (n_alphas,), optional
        Strengths to try, above 0 and at most 1: fractions of ``alpha_max_``, as the single
        estimator takes them. By default a geometric grid of ``n_alphas`` from 1 to ``eps``.
    n_alphas : int, default=20
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
    alphas_ : ndarray, shape (n_alphas,)
        Fractions that were tried, falling.
    cv_scores_ : ndarray, shape (n_folds, n_alphas)
    best_alpha_ : float
        The fraction chosen: of the highest mean score, and among equals the strongest. The same
        strength in the units of the program is ``alpha_``, as in the single estimator.
    best_score_ : float
        Mean score of the folds at ``best_alpha_``; a little flattering, since it was chosen.
    classes_, network_, alpha_, alpha_max_, gap_, ...
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
        **_CrossValidated._numbers,
    }

    def __init__(
        self,
        alphas: ArrayLike | None = None,
        *,
        n_alphas: int = 20,
        eps: float | None = None,
        cv: Any = None,
        scoring: Any = None,
        formulation: Form = "gated",
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
        self.alphas = alphas
        self.n_alphas = n_alphas
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


class ConvexReLURegressorCV(_CrossValidated, ConvexReLURegressor):
    r"""Regressor that chooses the strength of its penalty by cross-validation.

    ``ConvexReLURegressor`` with one parameter less, ``alpha``; see ``ConvexReLUClassifierCV`` for
    what is done and for what it costs.

    Parameters
    ----------
    alphas, n_alphas, eps, cv
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
    alphas_, cv_scores_, best_alpha_, best_score_
        As in ``ConvexReLUClassifierCV``.
    network_, alpha_, alpha_max_, gap_, ...
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
        **_CrossValidated._numbers,
    }

    def __init__(
        self,
        alphas: ArrayLike | None = None,
        *,
        n_alphas: int = 20,
        eps: float | None = None,
        cv: Any = None,
        scoring: Any = None,
        formulation: Form = "gated",
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
        self.alphas = alphas
        self.n_alphas = n_alphas
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


def _number(score: Any) -> float:
    if not isinstance(score, Real):
        raise ValueError(f"scoring gave {score!r}; expected one number, the larger the better.")
    return float(score)
