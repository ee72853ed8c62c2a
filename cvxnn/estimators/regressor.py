"""Regression with a convex two-layer ReLU network."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.callback import with_callbacks
from sklearn.metrics import r2_score
from sklearn.utils import Tags

from cvxnn.estimators._base import (
    ConvexReLUBase,
    PatternsParameter,
    PenaltyParameter,
    all_or_nothing,
)
from cvxnn.estimators._rows import weights_of
from cvxnn.losses import HuberLoss, SquaredLoss
from cvxnn.problem import Form
from cvxnn.solvers._loop import Solver


class ConvexReLURegressor(RegressorMixin, ConvexReLUBase):
    r"""Two-layer ReLU network regressor, trained as a convex program.

    By default least squares, in units where targets have standard deviation 1
    (``cvxnn.estimators._base.Scaling``):

    .. math:: \min \tfrac1{2n} \|f(X) - y\|^2 + \alpha \sum_j \|\text{neuron}_j\|_2 .

    Parameters
    ----------
    alpha : float, default=1e-3
        Strength of the penalty, at least 0; about 0.5 or more gives a constant.
    n_patterns : int, default=64
        Activation patterns, at least 1: about the number of hidden neurons, for each output.
    patterns : {"local", "adaptive", "gaussian", "data"}, default="local"
        Where the patterns come from; see ``cvxnn.training.train``. ``"adaptive"``: local, then up
        to ten rounds that add the patterns which lower the objective most; slower, and the
        lowest training objective.
    loss : {"squared", "huber"}, default="squared"
        ``"huber"`` is less sensitive to outliers.
    delta : float, default=1.35
        Where the Huber loss turns linear, in standard deviations of the targets.
    formulation : {"relu", "gated"}, default="relu"
        ``"gated"`` trains a gated network (no cone constraints): faster, and often as good.
    penalty : {"neuron", "feature", "l1", "l2"}, default="neuron"
        What vanishes: whole neurons, whole features, single weights, nothing. See
        ``cvxnn.penalties``.
    skip : float, optional
        Adds a linear term to the network, with this ridge penalty (0: none).
    fit_intercept : bool, default=True
        Give hidden neurons a bias and centre the targets.
    standardize : bool, default=True
        Scale the features inside; the fitted network takes raw ones.
    tol : float, default=1e-2
        Relative duality gap to reach.
    max_iter : int, default=1000
        Most solver iterations.
    solver : Cronos, InteriorPoint or ProximalGradient, optional
        Of ``cvxnn.solvers``; replaces ``tol`` and ``max_iter``. By default chosen by size
        (``cvxnn.solvers.automatic``).
    random_state : int, RandomState or None, default=None
    verbose : int, default=0
        1 writes a progress line to standard error.

    Attributes
    ----------
    network_ : cvxnn.network.TwoLayerNetwork
        The fitted network, for raw features and targets.
    objective_, dual_bound_, gap_ : float
        Certificate, in scaled units; see ``ConvexReLUClassifier``.
    history_ : dict of ndarray
    flops_ : float
        Floating-point operations of the fit, dense products only.
    rounds_ : dict of ndarray
        One entry per program solved; see ``cvxnn.training.Training``.
    n_iter_ : int
    n_patterns_ : int
    status_ : str
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import ConvexReLURegressor
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> model = ConvexReLURegressor(random_state=0).fit(X, np.abs(X[:, 0]))
    >>> bool(model.score(X, np.abs(X[:, 0])) > 0.99)
    True
    """

    _numbers: ClassVar[dict[str, tuple[Any, float, bool]]] = {
        **ConvexReLUBase._numbers,
        "delta": (Real, 0, False),
    }
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **ConvexReLUBase._choices,
        "loss": ("squared", "huber"),
        "formulation": get_args(Form),
        "penalty": get_args(PenaltyParameter),
    }

    _y_options: ClassVar[dict[str, Any]] = {"multi_output": True, "y_numeric": True}

    def __init__(
        self,
        alpha: float | Literal["auto"] = "auto",
        *,
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
        self.alpha = alpha
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

    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> ConvexReLURegressor:
        """Fit the network.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Finite; float32 stays float32, everything else becomes float64. NumPy, pandas, polars,
            PyTorch and JAX are all welcome; sparse where the solution is direct.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative weights; an integer weight equals repetition, to the last bit.
        X_val, y_val : array-like, optional
            Validation data of your own, for ``early_stopping``, which they switch on.

        Returns
        -------
        ConvexReLURegressor
            The estimator itself. An interrupted or failed fit leaves it as it was.
        """
        self._check_parameters()
        self._init_callback_context(max_subtasks=None)
        with all_or_nothing(self):
            data, values = self._validate(X, y, **self._y_options)
            weight = weights_of(sample_weight, data.shape[0], data.dtype)
            targets = _columns(values, data.dtype)
            loss = HuberLoss(float(self.delta)) if self.loss == "huber" else SquaredLoss()
            self._y_ndim = np.ndim(values)
            ndim = self._y_ndim
            validation = self._validation_rows(X_val, y_val)
            if validation is not None:
                validation = validation[0], _columns(validation[1], data.dtype)
                if validation[1].shape[1] != targets.shape[1]:
                    raise ValueError(
                        f"y_val has {validation[1].shape[1]} outputs; expected "
                        f"{targets.shape[1]}, as y."
                    )
            fit, _ = self._fit_rows(
                data,
                targets,
                weight,
                loss,
                score=lambda predicted, truth: r2_score(truth, predicted),
                validation=validation,
                labels=None,
                hook=self._hook(
                    X, y, sample_weight, lambda network: {"network_": network, "_y_ndim": ndim}
                ),
            )
            self._set_fitted(fit)
            self._warn_unless_converged(fit.training.result)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.floating]:
        """Predictions, of the dimensions that ``y`` had."""
        data = self._network_input(X)
        out = self.network_.forward(data)
        return out[:, 0] if self._y_ndim == 1 else out

    def __sklearn_tags__(self) -> Tags:
        """Multi-output regression is native."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _columns(y: NDArray[Any], dtype: Any) -> NDArray[np.floating]:
    """Targets as columns; ``Scaling`` refuses what does not fit float32."""
    with np.errstate(over="ignore"):
        return np.asarray(y, dtype).reshape(len(y), -1)
