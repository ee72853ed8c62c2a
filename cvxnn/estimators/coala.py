"""COALA: a preference head on frozen embeddings, in two convex phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.callback import with_callbacks
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from cvxnn.convex.loop import Solver, precision, solve
from cvxnn.convex.losses import SquaredLoss
from cvxnn.convex.patterns import add_bias
from cvxnn.convex.solvers.accelerated_gradient import AcceleratedGradient
from cvxnn.estimators._base import (
    ConvexReLUBase,
    all_or_nothing,
)
from cvxnn.estimators._defaults import PatternsParameter
from cvxnn.estimators._monitor import Monitor, Snapshot, progress
from cvxnn.estimators._preference_head import PreferenceHead
from cvxnn.estimators._rows import merge, require_two_classes, weights_of
from cvxnn.network import TwoLayerNetwork
from cvxnn.preference.coala_objective import CoalaObjective

PreferenceLoss = Literal["pointwise", "pairwise"]


class COALAPreferenceHead(ClassifierMixin, PreferenceHead, ConvexReLUBase):
    r"""Reward head of a language model: Algorithm 1 of the COALA paper.

    Phase I trains a convex ReLU network on embeddings of preferred (+1) and other (-1) responses
    by CRONOS. Phase II freezes its first layer and minimises the COALA loss over the last layer by
    preconditioned accelerated gradient descent. The reward is :math:`r(x) = \beta \log \pi(x)`
    with :math:`\pi(x) = \sigma(g(x))`, equation (7).

    Parameters
    ----------
    loss : {"pairwise", "pointwise"}, default="pairwise"
        Phase II: Bradley-Terry on pairs (equations 6-7), or equation (9) on single responses. See
        ``cvxnn.preference.objectives`` for how the two relate. ``fit`` without ``pair_id`` uses
        ``"pointwise"``.
    beta : float, default=1.0
        Inverse temperature of the reward, above 0.
    gamma : float, default=0.5
        Offset, at least 0: the margin asked for.
    ridge : float, default=1e-2
        Phase II: strength of the pull of the last layer towards zero, at least 0.
    strength : float or "auto"
        Phase I: strength of the penalty as a fraction of ``alpha_max_``, at least 0, or chosen from
        the noise level; see ``ConvexReLUClassifier``.
    n_patterns : int or "auto", default=64
        Phase I: activation patterns; ``"auto"`` is 64 as well.
    patterns : {"local", "adaptive", "gaussian", "data"}, default="local"
        Phase I: where they come from; see ``cvxnn.training.training.train``.
    fit_intercept, standardize : bool, default=True
        As in ``ConvexReLUClassifier``.
    tol : float, default=1e-2
        Phase I: relative duality gap to reach. Phase II goes to a gap of 1e-4.
    max_iter : int, default=1000
        Phase I: most iterations. Phase II may take ten times as many, each far cheaper.
    solver : Cronos or InteriorPoint, optional
        Full options of phase I; replaces ``tol`` and ``max_iter``.
    embedding : dict, optional
        What the features are: ``cvxnn.llm.Embedder.description``. It is saved with the head, and
        needed to generate with it; a language model that gives other features is refused.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
        The label of other responses, then that of preferred ones.
    network_ : cvxnn.network.TwoLayerNetwork
        The head after phase II, for raw embeddings: ``g`` above.
    phase1_network_ : cvxnn.network.TwoLayerNetwork
        The network phase I ended with; same first layer.
    strength_ : float
        Phase I: fraction of ``alpha_max_`` that was used.
    alpha_, alpha_max_ : float
        Phase I: penalty parameter of its program, and the unit of the strength.
    objective_, dual_bound_, gap_ : float
        Certificate of phase I; see ``ConvexReLUClassifier``.
    phase2_objective_, phase2_dual_bound_, phase2_gap_ : float
        Certificate of phase II (``ridge > 0``).
    history_ : dict of ndarray
        Phase I.
    phase2_history_ : dict of ndarray
        Phase II, with ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins`` and
        ``rewards/accuracies`` of the training data at each measurement (the last two only with
        pairs).
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

    _numbers: ClassVar[dict[str, tuple[Any, float, bool]]] = {
        **ConvexReLUBase._numbers,
        "beta": (Real, 0, False),
        "gamma": (Real, 0, True),
        "ridge": (Real, 0, True),
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

    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        pair_id: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> COALAPreferenceHead:
        """Fit on labelled responses.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.
        y : array-like, shape (n_responses,)
            Two labels; the larger one (1, True, ...) means preferred.
        pair_id : array-like, shape (n_responses,), optional
            Responses to one prompt share an id. Each preferred response is paired with each other
            one of its id. Without it, phase II is pointwise whatever ``loss`` says, so that the
            head works in pipelines and cross-validation.
        sample_weight : array-like, shape (n_responses,), optional
            Non-negative; a pair weighs the product of its two responses' weights.

        Returns
        -------
        COALAPreferenceHead
            The estimator itself. An interrupted or failed fit leaves it as it was.

        Raises
        ------
        ValueError
            For bad parameters or data, or if no id has both a preferred and another response.
        """
        self._check_parameters()
        end = self._begin_fit(X, y, sample_weight)
        with all_or_nothing(self):
            data, labels = self._validate(X, y)
            check_classification_targets(labels)
            classes, codes = np.unique(labels, return_inverse=True)
            if len(classes) > 2:
                raise ValueError(
                    "Only binary classification is supported. The type of the target is "
                    f"multiclass, {len(classes)} labels; expected 2, preferred or not."
                )
            weight = weights_of(sample_weight, len(data), data.dtype)
            keep = weight > 0
            require_two_classes(self, classes, codes[keep])
            preferred, pairs, pair_weight = codes[keep] == 1, None, None
            if pair_id is not None:
                ids = column_or_1d(pair_id)
                if len(ids) != len(data):
                    raise ValueError(f"pair_id has {len(ids)} entries; expected {len(data)}, as X.")
                pairs = _pairs(preferred, ids[keep])
                pair_weight = weight[keep][pairs].prod(axis=1)
            hook = self._head_hook(X, y, sample_weight, classes)
            self._fit(data[keep], preferred, classes, weight[keep], pairs, pair_weight, hook)
            end()
        return self

    @with_callbacks
    def fit_pairs(
        self,
        chosen: ArrayLike,
        rejected: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> COALAPreferenceHead:
        """Fit on pairs of embeddings.

        Parameters
        ----------
        chosen, rejected : array-like, shape (n_pairs, n_features)
            Row ``k`` of both belongs to one prompt.
        sample_weight : array-like, shape (n_pairs,), optional
            Non-negative weights; an integer weight equals repetition of the pair.

        Returns
        -------
        COALAPreferenceHead
            The estimator itself; ``classes_`` is ``[0, 1]``.

        Raises
        ------
        ValueError
            If the two have different shapes, are empty or not finite.
        """
        self._check_parameters()
        if np.shape(chosen) != np.shape(rejected):
            raise ValueError(
                f"chosen has shape {np.shape(chosen)} and rejected {np.shape(rejected)}; expected "
                "one row of each for every pair."
            )
        end = self._begin_fit(None, None, None)
        with all_or_nothing(self):
            won = self._validate(chosen)
            lost = self._validate(rejected, reset=False)
            weight = weights_of(sample_weight, len(won), won.dtype)
            keep = weight > 0
            data, n = np.concatenate([won[keep], lost[keep]]), int(keep.sum())
            pairs = np.column_stack([np.arange(n), np.arange(n) + n])
            self._fit(
                data,
                np.arange(2 * n) < n,
                np.array([0, 1]),
                np.tile(weight[keep], 2),
                pairs,
                weight[keep],
                self._head_hook(data, np.repeat([1, 0], n), None, np.array([0, 1])),
            )
            end()
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Logit ``g`` of each response, shape (n_responses,)."""
        data = self._network_input(X)
        return self.network_.forward(data)[:, 0]

    def __sklearn_tags__(self) -> Tags:
        """Two labels only."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_embedding()

    def _validate(self, X: Any, y: Any = "no_validation", **options: Any) -> Any:
        validated = super()._validate(X, y, **options)
        self._check_width(self.n_features_in_)
        return validated

    def _head_hook(
        self, X: Any, y: Any, weight: Any, classes: NDArray[Any]
    ) -> Callable[[Snapshot], bool] | None:
        """Call callbacks after each measurement of both phases; a stop ends the phase."""
        return self._hook(X, y, weight, lambda network: {"network_": network, "classes_": classes})

    def _fit(
        self,
        X: NDArray[np.floating],
        preferred: NDArray[np.bool_],
        classes: NDArray[Any],
        weight: NDArray[np.floating],
        pairs: NDArray[np.intp] | None,
        pair_weight: NDArray[np.floating] | None,
        hook: Callable[[Snapshot], bool] | None,
    ) -> None:
        """Both phases, on rows of positive weight."""
        if self.loss not in ("pairwise", "pointwise"):
            raise ValueError(f"loss={self.loss!r}; expected 'pairwise' or 'pointwise'.")
        signs = np.where(preferred, 1, -1).astype(X.dtype)
        with progress(self.verbose, type(self).__name__) as show:
            first = self._fit_network(
                *merge(X, signs[:, None], weight), SquaredLoss(), monitor=Monitor(show, None, hook)
            )
        network, training = first.network, first.training
        H = network.hidden(X)
        # Hidden features at unit scale: the ridge then means the same for every embedding.
        scale = np.sqrt(np.average(H**2, axis=0, weights=weight))
        scale = np.where(scale > 0, scale, 1).astype(X.dtype)
        H = H / scale
        theta = network.output_weights[:, 0] * scale
        pairwise = self.loss == "pairwise" and pairs is not None
        if pairwise:
            # Pairs leave the level of the logits free: let them average 0 over the responses.
            centre = np.average(H, axis=0, weights=weight).astype(X.dtype)
            H = H - centre
        else:
            # The output bias is one more feature, the constant.
            H, theta = add_bias(H), np.append(theta, network.output_bias)
        if pairs is None:
            chosen, rejected = H[preferred], H[~preferred]
        else:
            chosen, rejected = H[pairs[:, 0]], H[pairs[:, 1]]
        if pairwise:
            margins, omega = chosen - rejected, np.asarray(pair_weight)
        else:
            margins, omega = signs[:, None] * H, weight

        def head(theta: NDArray[np.floating]) -> TwoLayerNetwork:
            last, offset = (theta, -(theta @ centre)) if pairwise else (theta[:-1], theta[-1])
            return replace(
                network,
                output_weights=(last / scale)[:, None].astype(X.dtype),
                output_bias=np.array([offset], X.dtype),
            )

        with precision(X.dtype):
            objective = CoalaObjective(
                margins=jnp.asarray(margins),
                weights=jnp.asarray((omega / omega.sum()).astype(X.dtype)),
                beta=float(self.beta),
                gamma=float(self.gamma),
                ridge=float(self.ridge),
                chosen=jnp.asarray(chosen),
                rejected=jnp.asarray(rejected),
            )
        second = solve(
            objective,
            # Iterations are cheap: measure each, so that the history has its reward margins. With
            # this friction they rose at every iteration of all 27 problems we looked at; with that
            # of Nesterov's method they overshot by up to 1 %, without the preconditioner by 5 %.
            AcceleratedGradient(tol=1e-4, max_iter=10 * self.max_iter, friction=9, check_every=1),
            start=theta.astype(X.dtype),
            callback=None if hook is None else lambda _, theta: hook(lambda: head(theta())),
        )
        self._require_finite(second, phase=" (phase II)")

        self._set_fitted(first._replace(network=head(second.weights)))
        self.classes_ = classes
        self.phase1_network_ = network
        self.phase2_objective_ = second.objective
        self.phase2_dual_bound_ = second.dual_bound
        self.phase2_gap_ = second.gap
        self.phase2_history_ = second.history
        n_checks = len(second.history["time"])
        width = margins.shape[1]
        self.phase2_flops_ = 2.0 * (
            X.size * network.n_neurons
            + margins.size * (2 * second.n_iter + 2 * n_checks + width)
            + width**2 * (second.n_iter + width / 6)
            + (chosen.size + rejected.size) * n_checks
        )
        self._warn_unless_converged(training.result, phase=" (phase I)", stacklevel=5)
        self._warn_unless_converged(
            second, phase=" (phase II)", remedy="Increase max_iter or ridge.", stacklevel=5
        )


def _pairs(preferred: NDArray[np.bool_], pair_id: NDArray[Any]) -> NDArray[np.intp]:
    """Row numbers (preferred, other) of every such couple that shares an id."""
    rows = np.argsort(pair_id, kind="stable")
    groups = np.split(rows, np.flatnonzero(pair_id[rows][1:] != pair_id[rows][:-1]) + 1)
    found = [
        np.stack(np.meshgrid(g[preferred[g]], g[~preferred[g]], indexing="ij"), -1).reshape(-1, 2)
        for g in groups
    ]
    pairs = np.concatenate(found)
    if len(pairs) == 0:
        raise ValueError(
            "no pair_id has both a preferred and another response, so no pair can be formed; give "
            "the two responses to one prompt the same id, or leave pair_id out."
        )
    return pairs
