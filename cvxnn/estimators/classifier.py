"""Classification with a convex two-layer ReLU network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import with_callbacks
from sklearn.utils.multiclass import check_classification_targets

from cvxnn import convex
from cvxnn.convex.patterns import Formulation
from cvxnn.convex.solver import Solver
from cvxnn.estimators._advice import (
    require_finite,
    warn_of_few_rows,
    warn_of_fit,
    warn_unless_converged,
)
from cvxnn.estimators._base import ConvexReLUBase
from cvxnn.estimators._calibration import PLAIN_LINK, calibrated_log_loss, link_of_fit, range_of_fit
from cvxnn.estimators._certified import names_of
from cvxnn.estimators._classes import (
    class_targets,
    class_weights,
    codes_of,
    loss_of_classes,
    require_two_classes,
)
from cvxnn.estimators._fit_plan import HeldOut
from cvxnn.estimators._incremental import coded
from cvxnn.estimators._incremental_classes import IncrementalClasses
from cvxnn.estimators._monitor import all_or_nothing
from cvxnn.estimators._parameters import PatternsParameter, PenaltyParameter
from cvxnn.estimators._rows import DistinctRows, Rows, groups_of, merge, weights_of
from cvxnn.estimators._validation import Validation, is_correct
from cvxnn.estimators.prediction import ClassifierPrediction
from cvxnn.numerics.scores import winner

Floats = NDArray[np.floating]


class ConvexReLUClassifier(ClassifierPrediction, IncrementalClasses, ConvexReLUBase):
    r"""Two-layer network classifier, trained as a convex program.

    By default a gated network with many random gates :math:`g_i`, least squares on targets -1 and 1
    and a ridge penalty, which one linear system solves:

    .. math::

        \min_z \; \tfrac1{2n} \|f(X) - y\|^2 + \tfrac\alpha2 \sum_i \|z_i\|^2, \qquad
        f(x) = \sum_i 1(x^T g_i \ge 0)\, x^T z_i .

    With ``formulation="relu"`` a ReLU network with weight decay:

    .. math:: \min \; \tfrac1{2n} \|f(X) - y\|^2 + \alpha \sum_j \|\text{neuron}_j\|_2 .

    Two classes have one output, more have one each. Features have mean 0 and standard deviation
    :math:`1 / \sqrt d` inside, so that ``strength`` has one meaning for all data.

    Parameters
    ----------
    strength : float or "auto", default="auto"
        Strength of the penalty as a fraction of ``alpha_max_``, at least 0 and seldom above 1.
        ``"auto"``: for ``"l2"`` the strength of least squared leave-one-out error or, with the
        squared loss and up to 1,024 distinct rows, of least leave-one-out log-loss; beyond them,
        of least squared error over folds of up to 4,096 of them. For norms 0.1 times the slope that
        noise alone would have, measured by leave-one-out residuals.
    formulation : {"gated", "relu"}, default="gated"
        ``"gated"``: gates stay where they were put, the training problem is convex as it stands and
        many neurons are cheap. ``"relu"``: an ordinary ReLU network, which the penalty
        ``"neuron"`` makes small.
    penalty : {"auto", "neuron", "feature", "l1", "l2"} or Penalty, default="auto"
        What vanishes as ``strength`` grows: whole neurons, whole features, single weights or
        nothing; see ``cvxnn.convex.penalties``. ``"auto"``: ``"l2"`` for the gated formulation,
        ``"neuron"``, which equals weight decay, for the ReLU formulation. Or an object of
        ``cvxnn.convex`` or of your own; see the guide, "Your own loss, penalty, solver".
    patterns : str, default="auto"
        Where the activation patterns come from: ``"auto"``, ``"local"``, ``"adaptive"``,
        ``"gaussian"``, ``"data"``, ``"thresholds"`` or ``"all"``; see ``cvxnn.training.train``.
        ``"adaptive"`` (``penalty="neuron"`` only): local ones, then up to ten rounds that add the
        patterns which lower the objective most; slow, with the lowest training objective.
        ``"all"``: every pattern of small data of few features, so that the certificate holds for
        networks of any width and any gates; data with more than ``n_patterns`` are refused with
        their number.
        ``"thresholds"`` (gated formulation only): gates that are open where two random features are
        beyond random thresholds, rules on named features. ``"auto"``: ``"local"`` for the ReLU
        formulation; for the gated one ``"gaussian"``, or, where the solution is direct, rows are
        dense and there is an intercept, ``"thresholds"`` if their squared leave-one-out error on a
        sample of rows is at least 2 % smaller.
    n_patterns : int or "auto", default="auto"
        Number of activation patterns, at least 1. In the gated formulation each is a neuron of each
        output; in the ReLU formulation each allows two, of which the penalty keeps few.
        ``"auto"``: 64 for the ReLU formulation; for the gated one ``128 * n_features`` between 256
        and 1024, beyond 6,000 rows 512; fewer beyond 131,072 rows, so that a mask has at most
        ``2**26`` entries (but at least 32), and with very many features or outputs, so that gates
        and weights have at most ``2**25`` numbers. With ``patterns="all"``, the most that the data
        may have: 4096.
    loss : {"squared", "logistic", "multinomial"} or Loss, default="squared"
        ``"logistic"``: each class against the rest. ``"multinomial"``: softmax cross-entropy of all
        classes together; no interior-point method takes it, so that it converges slowly at
        small ``strength``. For two classes they are the same. Both are solved iteratively. An
        object's targets are -1 and 1, a column for each of more than two classes; those of one that
        couples outputs are one-hot.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, on top of ``sample_weight``. ``"balanced"``: each class counts the
        same. A label that a dict lacks has weight 1; it may hold labels that ``y`` lacks.
    skip : float, optional
        Ridge penalty of a linear term that is added to the network: at least 0, above 0 with the
        logistic losses. None adds no linear term.
    fit_intercept : bool, default=True
        Give hidden neurons a bias and centre the targets.
    standardize : bool, default=True
        Scale the features inside; the fitted network takes raw ones.
    feature_factors : {"auto", "equal"}, default="auto"
        ``"auto"``: features that move a first network more count more, where that predicts rows
        that this network has not seen clearly better (``cvxnn.training.feature_factors``). Only for
        direct solutions: of 128 dense, standardised rows or more, with an intercept and patterns
        that are ``"auto"``, ``"gaussian"`` or ``"thresholds"``. ``"equal"``: all count alike.
    early_stopping : bool, default=False
        Set rows apart and let them decide: an iterative solver keeps its best network and stops
        when none is better; the direct solution with ``strength="auto"`` chooses among nine
        strengths, from a hundredth to a hundred times the one of leave-one-out, and among equals
        the nearest to it. Validation data given to ``fit`` (``X_val``, ``y_val``) do the same
        without setting rows apart.
    validation_fraction : float, default=0.1
        Part of the rows that ``early_stopping`` sets apart, stratified where they are enough for
        it; above 0. Of each class one row is always fitted.
    n_iter_no_change : int, default=5
        Measurements without a better score after which ``early_stopping`` stops.
    warm_start : bool, default=False
        Begin at the last fit, with its patterns, factors and solution, if features and outputs are
        as many as before, the parameters ask for the same patterns, and the rows are at most twice
        as many. The unit of the strength does not depend on the last fit.
    tol : float, default=1e-2
        Relative duality gap at which to stop. The direct solution goes far below it, interior point
        to 1e-3 at least, and a solver that starts from the network of a local training on until its
        own is better.
    max_iter : int, default=1000
        Most solver iterations.
    solver : Solver, optional
        ``Ridge``, ``InteriorPoint``, ``Cronos`` or ``ProximalGradient`` of ``cvxnn.convex``, with
        all its options, or one of your own; it replaces ``tol`` and ``max_iter``. By default one is
        chosen by cost (``cvxnn.convex.automatic``).
    random_state : int, RandomState or None, default=None
        Seed of patterns, of rows set apart and of rows on which the strength is chosen. An integer
        gives the same network every time, whatever the order of the rows.
    verbose : int, default=0
        1 writes a progress line to standard error, which names the phases of the fit, and one of
        what the convex program gained over local training; 0 nothing.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
        Labels, sorted.
    network_ : cvxnn.network.TwoLayerNetwork
        The fitted network, for raw features.
    strength_ : float
        Fraction of ``alpha_max_`` that was used.
    alpha_ : float
        Penalty parameter of the objective above, ``strength_ * alpha_max_``.
    alpha_max_ : float
        Unit of the strength. For norms the penalty parameter from which on all weights vanish, for
        ``"l2"`` the largest curvature of the mean loss. It is measured on a sample of rows and,
        where the patterns come from training, on 256 Gaussian ones.
    objective_, dual_bound_, gap_ : float
        Certificate, in scaled units: the network's training objective, a lower bound over the
        given patterns, and their difference relative to the objective. In the ReLU formulation
        the difference may be negative: then the network beats every one with these patterns.
    proposal_objective_ : float
        Objective of the network that local training proposed, in the units of ``objective_``, which
        is lower by what the convex program gained; infinite for patterns from elsewhere.
    status_ : str
        Why the solver stopped; see ``cvxnn.convex.Status``.
    n_iter_ : int
        Solver iterations; 1 where the solution is direct.
    history_ : dict of ndarray
        One entry per measurement of the solver: ``iteration``, ``time`` (seconds), ``objective``,
        ``dual_bound``, ``stopping`` (compared with ``tol``) and columns of the solver's own.
    rounds_ : dict of ndarray
        One entry per program solved, more than one with ``patterns="adaptive"``; see
        ``cvxnn.training.Training``.
    validation_scores_ : ndarray or None
        Accuracy of the data set apart: at each measurement, or for each strength tried, in the
        order of their distance from that of leave-one-out.
        None without early stopping.
    n_patterns_ : int
        Distinct patterns used.
    feature_factors_ : ndarray, shape (n_features,)
        Factors of the standardised features, with a mean square of 1. Ones where all count alike:
        because no others predict better, or because none were tried (see ``feature_factors``).
        They say what the gates look at, ``feature_importances_`` what the network makes of it.
    flops_ : float
        Floating-point operations of the fit, dense products and factorisations only.
    n_features_in_ : int
        Number of features seen in ``fit``.
    feature_names_in_ : ndarray, shape (n_features,)
        Names of the features; only where ``X`` had names.
    temperature_ : float
        Factor of the scores in ``predict_proba``, found without a further fit; 1 with the logistic
        losses, or less where a class has fewer than ten units of data, or the penalty is a norm
        (``formulation="relu"``) and rows left out show that the scores are too large.
    bend_ : float
        How far ``predict_proba`` goes from differences of scores to ratios of the chances that they
        estimate, at least 0, as where classes are rare or many; found as ``temperature_`` is, and 0
        with the logistic losses.
    probability_range_ : ndarray, shape (2,)
        The least and the largest probability of ``predict_proba``: those of the training rows where
        a class has fewer than ten units of data, which cannot tell of rows far away; else 0 and 1.

    See Also
    --------
    ConvexReLUClassifierCV : Strength of the penalty by cross-validation.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from cvxnn import ConvexReLUClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> float(ConvexReLUClassifier(random_state=0).fit(X, y).score(X, y))
    1.0

    A ReLU network with few neurons:

    >>> small = ConvexReLUClassifier(formulation="relu", n_patterns=16, random_state=0).fit(X, y)
    >>> small.network_.n_neurons < 32
    True
    """

    _choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        **ConvexReLUBase._choices,
        "loss": ("squared", "logistic", "multinomial"),
        "formulation": get_args(Formulation),
        "penalty": get_args(PenaltyParameter),
    }
    _objects: ClassVar[dict[str, str]] = {"loss": "Loss", "penalty": "Penalty"}

    def __init__(
        self,
        strength: float | Literal["auto"] = "auto",
        *,
        formulation: Formulation = "gated",
        penalty: PenaltyParameter | convex.Penalty = "auto",
        patterns: PatternsParameter = "auto",
        n_patterns: int | Literal["auto"] = "auto",
        loss: Literal["squared", "logistic", "multinomial"] | convex.Loss = "squared",
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        skip: float | None = None,
        fit_intercept: bool = True,
        standardize: bool = True,
        feature_factors: Literal["auto", "equal"] = "auto",
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
        self.strength = strength
        self.formulation = formulation
        self.penalty = penalty
        self.patterns = patterns
        self.n_patterns = n_patterns
        self.loss = loss
        self.class_weight = class_weight
        self.skip = skip
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.feature_factors = feature_factors
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
        groups: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> ConvexReLUClassifier:
        """Fit the network.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Finite rows; float32 stays float32, everything else becomes float64. Arrays of NumPy,
            PyTorch and JAX and tables of pandas and polars are taken; sparse matrices where the
            solution is direct.
        y : array-like, shape (n_samples,)
            Labels of at least two classes.
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative weights; an integer weight equals repetition, to the last bit. Weights
            that are all whole numbers are counts: the automatic choice leaves one of them out. Of
            other weights, it leaves out the whole row.
        X_val, y_val : array-like, optional
            Validation rows and targets for ``early_stopping``, which they switch on.
        groups : array-like, shape (n_samples,), optional
            Labels of groups of rows that resemble each other, such as those of one patient or of
            one conversation; at least two. An automatic strength, the temperature of
            probabilities and early stopping then look at groups that were left out as wholes,
            since a network that has seen the others of a group would look too good. By default
            rows are independent.
        sample_weight_val : array-like, shape (n_validation_rows,), optional
            Non-negative weights of the validation rows; equal by default.

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
        end = self._begin_fit(X, y, sample_weight)
        with all_or_nothing(self):
            data, labels = self._validate(X, y)
            check_classification_targets(labels)
            classes, codes = coded(labels, self._first)
            weight = weights_of(sample_weight, data.shape[0], data.dtype)
            require_two_classes(self, classes, codes[weight > 0])
            loss, targets = self._targets(codes, len(classes), data.dtype)
            validation = self._validation_rows(X_val, y_val, sample_weight_val)
            if validation is not None:
                seen, truth, own = validation
                truth = self._targets(codes_of(truth, classes, "y_val"), len(classes))[1]
                validation = Validation(seen, truth, own)
            numbers = groups_of(groups, len(targets))
            distinct = self._merge(data, targets, weight, classes, numbers)
            rows, validation = self._set_apart(distinct, validation, winner)
            hook = self._hook(X, y, sample_weight, {"classes_": classes, **PLAIN_LINK})
            with self._progress():
                plan = self._plan(rows, loss, validated=validation is not None)
                watching = self._watched(plan, hook, validation, is_correct)
                fit = plan.fit(**plan.arguments, **watching)
                require_finite(self, fit.training.result)
                self.temperature_, self.bend_ = link_of_fit(self, plan, fit)
            fit = plan.complete(fit)
            self._set_fitted(plan, fit)
            self.probability_range_ = range_of_fit(rows, self._link)
            self.validation_scores_ = fit.scores
            self.classes_ = classes
            self._given = names_of(sample_weight=sample_weight, groups=groups)
            end()
            warn_unless_converged(self, fit.training.result)
            names = classes.tolist() if rows.y.shape[1] > 1 else None
            warn_of_fit(self, plan.strength, rows.X, rows.y, names)
            warn_of_few_rows(self, float(rows.units.sum()))
        return self

    def _fitted_data(
        self, X: Any, y: Any, sample_weight: Any, groups: Any
    ) -> tuple[DistinctRows, convex.Loss]:
        """Return the rows of the program, and its loss, from the data of the fit."""
        data, labels = self._validate(X, y, reset=False)
        codes = codes_of(labels, self.classes_, "y")
        weight = weights_of(sample_weight, data.shape[0], data.dtype)
        loss, targets = self._targets(codes, len(self.classes_), data.dtype)
        numbers = groups_of(groups, len(targets))
        distinct = self._merge(data, targets, weight, self.classes_, numbers)
        return self._fitted_rows(distinct, winner), loss

    def _merge(
        self,
        X: Rows,
        targets: Floats,
        weight: Floats,
        classes: NDArray[Any],
        groups: NDArray[np.intp] | None = None,
    ) -> DistinctRows:
        """Return distinct rows, weighted by their classes as well."""
        rows = merge(X, targets, weight, groups)
        codes = winner(rows.y)
        weight = class_weights(self.class_weight, classes, codes, rows.weight)
        kept = np.flatnonzero(weight > 0)
        require_two_classes(self, classes, codes[kept])
        return rows._replace(weight=weight).take(kept)

    def _targets(
        self, codes: NDArray[np.intp], n_classes: int, dtype: Any = None
    ) -> tuple[convex.Loss, NDArray[np.floating]]:
        """Return the loss, and targets in the form that it takes."""
        loss = loss_of_classes(self.loss, n_classes)
        return loss, class_targets(loss, codes, n_classes, dtype)

    def _held_out_error(self) -> Callable[[HeldOut], float]:
        return calibrated_log_loss
