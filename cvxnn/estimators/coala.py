"""COALA: a preference head on frozen embeddings, in two convex phases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cvxnn import convex, preference
from cvxnn.convex.patterns import add_bias
from cvxnn.convex.solver import Result, Solver
from cvxnn.estimators._base import ConvexReLUBase
from cvxnn.estimators._monitor import Hook
from cvxnn.estimators._parameters import Number, PatternsParameter
from cvxnn.estimators._preference_head import PreferenceHead
from cvxnn.estimators._responses import Responses
from cvxnn.estimators._rows import DistinctRows, groups_of, merge, weights_of
from cvxnn.estimators._scaling import column_means
from cvxnn.network import TwoLayerNetwork

PreferenceLoss = Literal["pointwise", "pairwise"]


class COALAPreferenceHead(PreferenceHead, ConvexReLUBase):
    r"""Reward head of a language model: Algorithm 1 of the COALA paper.

    Phase I trains a convex ReLU network on embeddings of preferred (+1) and other (-1) responses,
    by interior point or, for large data, by CRONOS. Phase II freezes its first layer and minimises
    the COALA loss over the last layer by preconditioned accelerated gradient descent. The reward is
    :math:`r(x) = \beta \log \pi(x)` with :math:`\pi(x) = \sigma(g(x))`, equation (7).

    Parameters
    ----------
    loss : {"pairwise", "pointwise"}, default="pairwise"
        Phase II: Bradley-Terry on pairs (equations 6-7), or equation (9) on single responses. See
        ``cvxnn.preference.loss_functions`` for how the two relate. ``fit`` without ``pair_id`` uses
        ``"pointwise"``.
    beta : float, default=1.0
        Inverse temperature of the reward, above 0.
    gamma : float, default=0.5
        Offset, at least 0: the margin asked for.
    ridge : float, default=1e-2
        Phase II: strength of the pull of the last layer towards zero, at least 0.
    strength : float or "auto", default="auto"
        Phase I: strength of the penalty as a fraction of ``alpha_max_``, at least 0. ``"auto"``
        chooses it from the noise level; see ``ConvexReLUClassifier``.
    n_patterns : int or "auto", default=64
        Phase I: number of activation patterns, at least 1; ``"auto"`` is 64 as well.
    patterns : {"local", "adaptive", "gaussian", "data", "all"}, default="local"
        Phase I: where the activation patterns come from; see ``cvxnn.training.train``.
    fit_intercept : bool, default=True
        Phase I: give hidden neurons a bias and centre the targets.
    standardize : bool, default=True
        Phase I: scale the features inside; the fitted head takes raw embeddings.
    tol : float, default=1e-2
        Phase I: relative duality gap to reach. Phase II goes to a gap of 1e-4.
    max_iter : int, default=1000
        Phase I: most iterations. Phase II may take ten times as many, each far cheaper.
    solver : Cronos or InteriorPoint, optional
        Phase I: solver of ``cvxnn.convex`` with all its options; it replaces ``tol`` and
        ``max_iter``. By default one is chosen by cost.
    embedding : dict, optional
        Description of the features, ``cvxnn.llm.Embedder.description``. It is saved with the head,
        and needed to generate with it; a language model that gives other features is refused.
    random_state : int, RandomState or None, default=None
        Phase I: seed of the patterns. An integer gives the same head every time.
    verbose : int, default=0
        1 writes a progress line of phase I to standard error, 0 nothing.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
        The label of other responses, then that of preferred ones.
    network_ : cvxnn.network.TwoLayerNetwork
        The head after phase II, for raw embeddings: ``g`` above.
    phase1_network_ : cvxnn.network.TwoLayerNetwork
        The network of phase I; its first layer is that of ``network_``.
    strength_ : float
        Phase I: fraction of ``alpha_max_`` that was used.
    alpha_, alpha_max_ : float
        Phase I: penalty parameter of its program, and the unit of the strength.
    objective_, dual_bound_, gap_ : float
        Certificate of phase I; see ``ConvexReLUClassifier``.
    phase2_objective_, phase2_dual_bound_, phase2_gap_ : float
        Certificate of phase II (``ridge > 0``).
    history_ : dict of ndarray
        Measurements of phase I; see ``ConvexReLUClassifier``.
    phase2_history_ : dict of ndarray
        Measurements of phase II, with ``rewards/chosen``, ``rewards/rejected``,
        ``rewards/margins`` and ``rewards/accuracies`` of the training data at each
        measurement (the last two only with pairs).
    flops_, phase2_flops_ : float
        Floating-point operations of the two phases, dense products only; those of the hidden
        features are in the second.
    n_patterns_ : int
        Distinct patterns of phase I.
    rounds_ : dict of ndarray
        Phase I: one entry per program solved.
    n_iter_ : int
        Iterations of phase I.
    status_ : str
        Why phase I stopped.
    n_features_in_ : int
        Number of features seen in ``fit``.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import COALAPreferenceHead
    >>> rng = np.random.RandomState(0)
    >>> chosen, rejected = rng.randn(50, 8) + 1, rng.randn(50, 8) - 1
    >>> head = COALAPreferenceHead(n_patterns=8, random_state=0).fit_pairs(chosen, rejected)
    >>> bool((head.reward_margin(chosen, rejected) > 0).mean() > 0.95)
    True
    """

    _numbers: ClassVar[dict[str, Number]] = {
        **ConvexReLUBase._numbers,
        "beta": Number(Real, closed=False),
        "gamma": Number(Real),
        "ridge": Number(Real),
    }
    _choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        **ConvexReLUBase._choices,
        "loss": get_args(PreferenceLoss),
    }

    def __init__(
        self,
        loss: PreferenceLoss = "pairwise",
        *,
        beta: float = 1.0,
        gamma: float = 0.5,
        ridge: float = 1e-2,
        strength: float | Literal["auto"] = "auto",
        n_patterns: int = 64,
        patterns: PatternsParameter = "local",
        fit_intercept: bool = True,
        standardize: bool = True,
        tol: float = 1e-2,
        max_iter: int = 1000,
        solver: Solver | None = None,
        embedding: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.loss = loss
        self.beta = beta
        self.gamma = gamma
        self.ridge = ridge
        self.strength = strength
        self.n_patterns = n_patterns
        self.patterns = patterns
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.embedding = embedding
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self) -> None:
        ConvexReLUBase._check_parameters(self)
        self._check_embedding()

    def _fit(self, rows: Responses, hook: Hook | None) -> None:
        """Run both phases."""
        plan = self._plan(merge(rows.X, rows.signs, rows.weight, rows.groups), convex.SquaredLoss())
        with self._watched(plan, hook) as watching:
            first = plan.fit(**plan.arguments, **watching)
        self._require_finite(first.training.result)
        first = plan.complete(first)
        network, second, flops = self._fit_last_layer(first.network, rows, hook)
        self._set_fitted(plan, first._replace(network=network))
        self.phase1_network_ = first.network
        self.phase2_objective_ = second.objective
        self.phase2_dual_bound_ = second.dual_bound
        self.phase2_gap_ = second.gap
        self.phase2_history_ = second.history
        self.phase2_flops_ = flops
        self._warn_if_constant(rows.X, rows.signs, stacklevel=5)
        self._warn_unless_converged(first.training.result, phase=" (phase I)", stacklevel=5)
        self._warn_unless_converged(
            second, phase=" (phase II)", remedy="Increase max_iter or ridge.", stacklevel=5
        )

    def _fitted_data(
        self, X: Any, y: Any, sample_weight: Any, groups: Any
    ) -> tuple[DistinctRows, convex.Loss]:
        """Return the rows of the program, and its loss, from the data of the fit."""
        data, labels = self._validate(X, y, reset=False)
        preferred = labels == self.classes_[1]
        weight = weights_of(sample_weight, len(data), data.dtype)
        keep = weight > 0
        numbers = groups_of(groups, len(data))
        numbers = None if numbers is None else numbers[keep]
        rows = Responses(data[keep], preferred[keep], weight[keep])
        distinct = merge(rows.X, rows.signs, rows.weight, numbers)
        return distinct, convex.SquaredLoss()

    def _fit_last_layer(
        self, network: TwoLayerNetwork, rows: Responses, hook: Hook | None = None
    ) -> tuple[TwoLayerNetwork, Result, float]:
        """Run phase II from a network: return the head, how it was found, and the flops."""
        X, weight, pairs = rows.X, rows.weight, rows.pairs
        H = network.hidden(X)
        # Hidden features at unit scale: the ridge then means the same for every embedding.
        scale = np.sqrt(column_means(H**2, weight))
        scale = np.where(scale > 0, scale, 1).astype(X.dtype)
        H = H / scale
        theta = network.output_weights * scale
        pairwise = self.loss == "pairwise" and pairs is not None
        if pairwise:
            # Pairs leave the level of the logits free: let them average 0 over the responses.
            centre = column_means(H, weight).astype(X.dtype)
            H = H - centre
        else:
            # The output bias is one more feature, the constant.
            H, theta = add_bias(H), np.append(theta, network.output_bias)
        if pairs is None:
            chosen, rejected = H[rows.preferred], H[~rows.preferred]
        else:
            chosen, rejected = H[pairs[:, 0]], H[pairs[:, 1]]
        if pairwise:
            margins, omega = chosen - rejected, np.asarray(rows.pair_weight)
        else:
            margins, omega = rows.signs * H, weight

        def head(theta: NDArray[np.floating]) -> TwoLayerNetwork:
            last, offset = (theta, -(theta @ centre)) if pairwise else (theta[:-1], theta[-1])
            return replace(
                network,
                output_weights=(last / scale).astype(X.dtype),
                output_bias=np.array([offset], X.dtype),
            )

        objective = preference.CoalaObjective(
            margins=margins,
            weights=(omega / omega.sum()).astype(X.dtype),
            beta=float(self.beta),
            gamma=float(self.gamma),
            ridge=float(self.ridge),
            chosen=chosen,
            rejected=rejected,
        )
        found = convex.solve(
            objective,
            # Iterations are cheap: measure each, so that the history has its reward margins. With
            # this friction they rose at every iteration of all 27 problems we looked at; with that
            # of Nesterov's method they overshot by up to 1 %, without the preconditioner by 5 %.
            convex.AcceleratedGradient(
                tol=1e-4, max_iter=10 * self.max_iter, friction=9, check_every=1
            ),
            start=theta.astype(X.dtype),
            callback=None if hook is None else lambda _, theta: hook(lambda: head(theta())),
        )
        self._require_finite(found, phase=" (phase II)")
        n_checks = len(found.history["time"])
        width = margins.shape[1]
        flops = 2.0 * (
            X.size * network.n_neurons
            + margins.size * (2 * found.n_iter + 2 * n_checks + width)
            + width**2 * (found.n_iter + width / 6)
            + (chosen.size + rejected.size) * n_checks
        )
        return head(found.weights), found, flops
