"""Regression with a convex two-layer ReLU network."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from sklearn.callback import with_callbacks

from cvxnn import convex
from cvxnn.convex.patterns import Formulation
from cvxnn.convex.solver import Solver
from cvxnn.estimators._advice import require_finite, warn_of_fit, warn_unless_converged
from cvxnn.estimators._base import ConvexReLUBase
from cvxnn.estimators._certified import names_of
from cvxnn.estimators._huber_delta import HuberDelta
from cvxnn.estimators._incremental import Batch
from cvxnn.estimators._monitor import all_or_nothing
from cvxnn.estimators._parameters import Number, PatternsParameter, PenaltyParameter
from cvxnn.estimators._rows import DistinctRows, columns, groups_of, merge, weights_of
from cvxnn.estimators._validation import Validation, validation_score
from cvxnn.estimators.prediction import RegressorPrediction


class ConvexReLURegressor(RegressorPrediction, HuberDelta):
    r"""Two-layer network regressor, trained as a convex program.

    By default a gated network with many random gates :math:`g_i` and a ridge penalty, which one
    linear system solves:

    .. math::

        \min_z \; \tfrac1{2n} \|f(X) - y\|^2 + \tfrac\alpha2 \sum_i \|z_i\|^2, \qquad
        f(x) = \sum_i 1(x^T g_i \ge 0)\, x^T z_i .

    With ``formulation="relu"`` a ReLU network with weight decay:

    .. math:: \min \; \tfrac1{2n} \|f(X) - y\|^2 + \alpha \sum_j \|\text{neuron}_j\|_2 .

    Features have mean 0 and standard deviation :math:`1 / \sqrt d` inside, targets standard
    deviation 1, so that ``strength`` has one meaning for all data. Several targets
    are fitted at once.

    Parameters
    ----------
    strength : float or "auto", default="auto"
        Strength of the penalty as a fraction of ``alpha_max_``, at least 0 and seldom above 1.
        ``"auto"``: for ``"l2"`` the strength of least squared leave-one-out error or, beyond 1,024
        distinct rows, of least error over folds of up to 4,096 of them. For norms 0.1 times the
        slope that noise alone would have, measured by leave-one-out residuals.
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
        formulation; for the gated one ``"gaussian"``, or, where the solution is direct (or
        ``delta`` from the data), rows are dense and there is an intercept, ``"thresholds"`` if
        their squared leave-one-out error on a sample of rows is at least 2 % smaller.
    n_patterns : int or "auto", default="auto"
        Number of activation patterns, at least 1. In the gated formulation each is a neuron of each
        output; in the ReLU formulation each allows two, of which the penalty keeps few.
        ``"auto"``: 64 for the ReLU formulation; for the gated one ``128 * n_features`` between 256
        and 1024, beyond 6,000 rows 512; fewer beyond 131,072 rows, so that a mask has at most
        ``2**26`` entries (but at least 32), and with very many features or outputs, so that gates
        and weights have at most ``2**25`` numbers. With ``patterns="all"``, the most that the data
        may have: 4096.
    loss : {"squared", "huber"} or Loss, default="squared"
        ``"huber"`` is less sensitive to outliers; it is solved iteratively. An object, too, sees
        targets of mean 0 and standard deviation 1.
    delta : float or "auto", default="auto"
        Where the Huber loss turns linear, in standard deviations of the targets; above 0.
        ``"auto"``: 1.345 standard deviations of the noise, from leave-one-out residuals without
        regard to outliers. Targets are then centred by their median and scaled by 1.4826 times the
        median distance from it, and those beyond 6 such units count as at 6.
    skip : float, optional
        Ridge penalty, at least 0, of a linear term that is added to the network. None adds no
        linear term.
    fit_intercept : bool, default=True
        Give hidden neurons a bias and centre the targets.
    standardize : bool, default=True
        Scale the features inside; the fitted network takes raw ones.
    feature_factors : {"auto", "equal"}, default="auto"
        ``"auto"``: features that move a first network more count more, where that predicts rows
        that this network has not seen clearly better (``cvxnn.training.feature_factors``). Only for
        direct solutions, and ``loss="huber"`` with a ``delta`` from the data, where targets are
        within 2.5 robust standard deviations to judge: of 128 dense, standardised rows or more, one
        target, with an intercept and patterns ``"auto"``, ``"gaussian"`` or ``"thresholds"``.
        ``"equal"``: all count alike.
    early_stopping : bool, default=False
        Set rows apart and let them decide: an iterative solver keeps its best network and stops
        when none is better; the direct solution with ``strength="auto"`` chooses among nine
        strengths, from a hundredth to a hundred times the one of leave-one-out, and among equals
        the nearest to it. Validation data given to ``fit`` (``X_val``, ``y_val``) do the same
        without setting rows apart.
    validation_fraction : float, default=0.1
        Part of the rows that ``early_stopping`` sets apart; above 0.
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
    network_ : cvxnn.network.TwoLayerNetwork
        The fitted network, for raw features and targets.
    strength_ : float or ndarray, shape (n_outputs,)
        Fraction of ``alpha_max_`` that was used. Several targets have one each if it was chosen
        automatically, with ``penalty="l2"`` and without ``skip``.
    alpha_ : float or ndarray, shape (n_outputs,)
        Penalty parameter of the objective above, ``strength_ * alpha_max_``.
    alpha_max_ : float
        Unit of the strength. For norms the penalty parameter from which on all weights vanish, for
        ``"l2"`` the largest curvature of the mean loss. It is measured on a sample of rows and,
        where the patterns come from training, on 256 Gaussian ones.
    delta_ : float
        Where the Huber loss turns linear, in robust standard deviations of the targets; only with
        ``delta="auto"``.
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
        Scores of the data set apart: at each measurement, or for each strength tried, in the order
        of their distance from that of leave-one-out. 1 minus the
        mean squared error in units of the variance of ``y``, so that few rows have a score, too;
        with ``loss="huber"``, twice the loss takes the place of the square. None without early
        stopping.
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

    See Also
    --------
    ConvexReLURegressorCV : Strength of the penalty by cross-validation.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import ConvexReLURegressor
    >>> X = np.linspace(-1, 1, 100)[:, None]
    >>> model = ConvexReLURegressor(random_state=0).fit(X, np.abs(X[:, 0]))
    >>> bool(model.score(X, np.abs(X[:, 0])) > 0.99)
    True
    """

    _numbers: ClassVar[dict[str, Number]] = {
        **ConvexReLUBase._numbers,
        "delta": Number(Real, closed=False, words=("auto",)),
    }
    _choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        **ConvexReLUBase._choices,
        "loss": ("squared", "huber"),
        "formulation": get_args(Formulation),
        "penalty": get_args(PenaltyParameter),
    }
    _objects: ClassVar[dict[str, str]] = {"loss": "Loss", "penalty": "Penalty"}

    _shares_strength: ClassVar[bool] = False
    _y_options: ClassVar[dict[str, Any]] = {"multi_output": True, "y_numeric": True}

    def __init__(
        self,
        strength: float | Literal["auto"] = "auto",
        *,
        formulation: Formulation = "gated",
        penalty: PenaltyParameter | convex.Penalty = "auto",
        patterns: PatternsParameter = "auto",
        n_patterns: int | Literal["auto"] = "auto",
        loss: Literal["squared", "huber"] | convex.Loss = "squared",
        delta: float | Literal["auto"] = "auto",
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
        self.delta = delta
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
    ) -> ConvexReLURegressor:
        """Fit the network.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Finite rows; float32 stays float32, everything else becomes float64. Arrays of NumPy,
            PyTorch and JAX and tables of pandas and polars are taken; sparse matrices where the
            solution is direct.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            Finite targets; several columns are fitted at once.
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
        ConvexReLURegressor
            The estimator itself. An interrupted or failed fit leaves it as it was.
        """
        self._check_parameters()
        end = self._begin_fit(X, y, sample_weight)
        with all_or_nothing(self):
            data, values = self._validate(X, y, **self._y_options)
            weight = weights_of(sample_weight, data.shape[0], data.dtype)
            targets = columns(values, data.dtype)
            loss = self._program_loss()
            self._y_ndim = np.ndim(values)
            validation = self._validation_rows(X_val, y_val, sample_weight_val)
            if validation is not None:
                seen, truth, own = validation
                validation = Validation(seen, columns(truth, data.dtype), own)
                if validation.y.shape[1] != targets.shape[1]:
                    raise ValueError(
                        f"y_val has {validation.y.shape[1]} outputs; expected "
                        f"{targets.shape[1]}, as y."
                    )
            distinct = merge(data, targets, weight, groups_of(groups, len(targets)))
            rows, validation = self._set_apart(distinct, validation, None)
            hook = self._hook(X, y, sample_weight, {"_y_ndim": self._y_ndim})
            with self._progress():
                plan = self._plan(rows, loss, validated=validation is not None)
                used = plan.arguments.get("loss", loss)  # its delta may come from the data
                score = partial(validation_score, used, plan.scaling.y_scale)
                watching = self._watched(plan, hook, validation, score)
                fit = plan.fit(**plan.arguments, **watching)
            require_finite(self, fit.training.result)
            fit = plan.complete(fit)
            self._set_fitted(plan, fit)
            if self._chooses_delta():
                self.delta_ = float(used.delta)
            self.validation_scores_ = fit.scores
            self._given = names_of(sample_weight=sample_weight, groups=groups)
            end()
            warn_unless_converged(self, fit.training.result)
            warn_of_fit(self, plan.strength, rows.X, rows.y)
        return self

    def _batch(self, X: Any, y: Any, sample_weight: Any) -> Batch:
        """Check rows that are added or removed."""
        data, values = self._validate(X, y, reset=False, **self._y_options)
        weight = weights_of(sample_weight, data.shape[0], data.dtype)
        targets = columns(values, data.dtype)
        if targets.shape[1] != self.network_.n_outputs:
            raise ValueError(
                f"y has {targets.shape[1]} outputs; expected {self.network_.n_outputs}, as in the "
                "first call."
            )
        return Batch(data, targets, weight)

    def _fitted_data(
        self, X: Any, y: Any, sample_weight: Any, groups: Any
    ) -> tuple[DistinctRows, convex.Loss]:
        """Return the rows of the program, and its loss, from the data of the fit."""
        data, values = self._validate(X, y, reset=False, **self._y_options)
        weight = weights_of(sample_weight, data.shape[0], data.dtype)
        targets = columns(values, data.dtype)
        distinct = merge(data, targets, weight, groups_of(groups, len(targets)))
        loss = convex.HuberLoss(self.delta_) if self._chooses_delta() else self._program_loss()
        return self._fitted_rows(distinct, None), loss

    def _keeps_targets(self, loss: convex.Loss) -> bool:
        """Return False: a loss compares targets with predictions, both in scaled units."""
        return False
