"""Regression with a convex two-layer ReLU network."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from cvxnn.estimators._base import FLOATS, ConvexReLUBase, all_or_nothing, weights_of
from cvxnn.solvers.cronos import Cronos
from cvxnn.training import PatternChoice


class ConvexReLURegressor(RegressorMixin, ConvexReLUBase):
    r"""Two-layer ReLU network regressor, trained as a convex program.

    Least squares in units where targets have standard deviation 1
    (``cvxnn.estimators._base.Scaling``):

    .. math:: \min \tfrac1{2n} \|f(X) - y\|^2 + \alpha \sum_j \|\text{neuron}_j\|_2 .

    Parameters
    ----------
    alpha : float, default=1e-3
        Strength of the penalty, at least 0; about 0.5 or more gives a constant.
    n_patterns : int, default=64
        Activation patterns, at least 1: about the number of hidden neurons, for each output.
    patterns : {"local", "gaussian", "data"}, default="local"
        Where the patterns come from; see ``cvxnn.training.train``.
    fit_intercept : bool, default=True
        Give hidden neurons a bias and centre the targets.
    standardize : bool, default=True
        Scale the features inside; the fitted network takes raw ones.
    tol : float, default=1e-2
        Relative duality gap to reach.
    max_iter : int, default=1000
        Most solver iterations.
    solver : cvxnn.solvers.Cronos, optional
        Full solver options; replaces ``tol`` and ``max_iter``.
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

    def __init__(
        self,
        alpha: float = 1e-3,
        *,
        n_patterns: int = 64,
        patterns: PatternChoice = "local",
        fit_intercept: bool = True,
        standardize: bool = True,
        tol: float = 1e-2,
        max_iter: int = 1000,
        solver: Cronos | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.n_patterns = n_patterns
        self.patterns = patterns
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> ConvexReLURegressor:
        """Fit the network.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite; float32 stays float32, everything else becomes float64.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative weights; an integer weight equals repetition.

        Returns
        -------
        ConvexReLURegressor
            The estimator itself. An interrupted or failed fit leaves it as it was.
        """
        self._check_parameters()
        with all_or_nothing(self):
            data, values = validate_data(
                self, X, y, dtype=list(FLOATS), multi_output=True, y_numeric=True
            )
            weight = weights_of(sample_weight, len(data), data.dtype)
            with np.errstate(over="ignore"):  # Scaling refuses what does not fit float32
                targets = np.asarray(values, data.dtype).reshape(len(data), -1)
            network, training = self._fit_network(data, targets, weight)
            self._set_fitted(network, training)
            self._y_ndim = np.ndim(values)
            self._warn_unless_converged(training.result)
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
