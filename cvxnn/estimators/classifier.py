"""Classification with a convex two-layer ReLU network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from cvxnn.estimators._base import (
    FLOATS,
    ConvexReLUBase,
    PatternsParameter,
    PenaltyParameter,
    all_or_nothing,
    require_two_classes,
    weights_of,
)
from cvxnn.losses import LogisticLoss, Loss, MultinomialLoss, SquaredLoss
from cvxnn.problem import Form
from cvxnn.solvers._loop import Solver


class ConvexReLUClassifier(ClassifierMixin, ConvexReLUBase):
    r"""Two-layer ReLU network classifier, trained as a convex program.

    By default least squares on targets -1 and 1 (one output for two classes, else one for each
    class, all solved together on shared factorisations), in the units of
    ``cvxnn.estimators._base.Scaling``:

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
    loss : {"squared", "logistic", "multinomial"}, default="squared"
        ``"logistic"``: each class against the rest. ``"multinomial"``: softmax cross-entropy of all
        classes together, which no interior-point method is there for: it converges slowly at
        small ``alpha``. For two classes they are the same.
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
    classes_ : ndarray, shape (n_classes,)
    network_ : cvxnn.network.TwoLayerNetwork
        The fitted network, for raw features.
    objective_, dual_bound_, gap_ : float
        Certificate: the network's training objective (scaled units), a lower bound over the
        patterns, and their relative difference. A negative gap says that the network beats every
        network with the given patterns.
    history_ : dict of ndarray
        One entry per measurement.
    flops_ : float
        Floating-point operations of the fit, dense products only.
    n_iter_ : int
    n_patterns_ : int
        Distinct patterns used.
    status_ : str
        Why the solver stopped.
    temperature_ : float
        Factor of the scores in ``predict_proba``; 1 with the logistic losses.
    rounds_ : dict of ndarray
        One entry per program solved; see ``cvxnn.training.Training``.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from cvxnn import ConvexReLUClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> float(ConvexReLUClassifier(random_state=0).fit(X, y).score(X, y))
    1.0
    """

    _choices: ClassVar[dict[str, tuple[str, ...]]] = {
        **ConvexReLUBase._choices,
        "loss": ("squared", "logistic", "multinomial"),
        "formulation": get_args(Form),
        "penalty": get_args(PenaltyParameter),
    }

    def __init__(
        self,
        alpha: float = 1e-3,
        *,
        n_patterns: int = 64,
        patterns: PatternsParameter = "local",
        loss: Literal["squared", "logistic", "multinomial"] = "squared",
        formulation: Form = "relu",
        penalty: PenaltyParameter = "neuron",
        skip: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = True,
        tol: float = 1e-2,
        max_iter: int = 1000,
        solver: Solver | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.n_patterns = n_patterns
        self.patterns = patterns
        self.loss = loss
        self.formulation = formulation
        self.penalty = penalty
        self.skip = skip
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> ConvexReLUClassifier:
        """Fit the network.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite; float32 stays float32, everything else becomes float64.
        y : array-like, shape (n_samples,)
            Labels of at least two classes.
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative weights; an integer weight equals repetition.

        Returns
        -------
        ConvexReLUClassifier
            The estimator itself. An interrupted or failed fit leaves it as it was.

        Raises
        ------
        ValueError
            For bad parameters or data; the message says what to change.
        """
        self._check_parameters()
        with all_or_nothing(self):
            data, labels = validate_data(self, X, y, dtype=list(FLOATS))
            check_classification_targets(labels)
            classes, codes = np.unique(labels, return_inverse=True)
            weight = weights_of(sample_weight, len(data), data.dtype)
            require_two_classes(self, classes, codes[weight > 0])
            own = codes[:, None] == np.arange(len(classes))
            loss: Loss = SquaredLoss()
            targets = np.where(own[:, 1:] if len(classes) == 2 else own, 1, -1)
            if self.loss == "multinomial" and len(classes) > 2:
                loss, targets = MultinomialLoss(), own
            elif self.loss != "squared":
                loss = LogisticLoss()
            network, training = self._fit_network(data, targets.astype(data.dtype), weight, loss)
            self._set_fitted(network, training)
            self.classes_ = classes
            # The scores of a logistic loss are log-odds already.
            self.temperature_ = 1.0
            if self.loss == "squared":
                self.temperature_ = _temperature(self._decision(data), codes, weight)
            self._warn_unless_converged(training.result)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Scores, shape (n_samples,) for two classes, else (n_samples, n_classes)."""
        return self._decision(self._network_input(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Most likely class of each row."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[codes]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Class probabilities, shape (n_samples, n_classes).

        The logistic (softmax) link of the scores times ``temperature_``, which minimises the
        log-loss of the training rows with targets smoothed as Platt (1999) does. With the logistic
        loss of more than two classes, the probabilities of each class against the rest, brought to
        sum one. The ranking and the most likely class are those of the scores.
        """
        scores = self.decision_function(X) * self.temperature_
        if scores.ndim == 1:
            positive = expit(scores)
            return np.column_stack([1 - positive, positive])
        return softmax(log_expit(scores) if self.loss == "logistic" else scores, axis=1)

    def _decision(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        scores = self.network_.forward(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores


def _temperature(
    scores: NDArray[np.floating], codes: NDArray[np.intp], weight: NDArray[np.floating]
) -> float:
    """Scale of the scores that minimises a smoothed log-loss."""
    if scores.ndim == 1:
        scores = np.column_stack([-scores / 2, scores / 2])
    n, k = scores.shape
    counts = np.bincount(codes, weights=weight, minlength=k)
    # Platt's targets: (N + 1) / (N + 2) for the own class, the rest shared by the others.
    own = ((counts + 1) / (counts + 2))[codes]
    targets = np.repeat(((1 - own) / (k - 1))[:, None], k, axis=1)
    targets[np.arange(n), codes] = own

    def loss(log_scale: float) -> float:
        return -float(weight @ (targets * log_softmax(np.exp(log_scale) * scores, axis=1)).sum(1))

    best = minimize_scalar(loss, bounds=(-3, 6), method="bounded", options={"xatol": 1e-9})
    return float(np.exp(best.x))
