"""COALA: a preference head on frozen embeddings, in two convex phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cvxnn import convex  # names load when first used: JAX is for fits only
from cvxnn.convex.patterns import Formulation
from cvxnn.convex.solver import Solver
from cvxnn.estimators._advice import require_finite, warn_of_rewards, warn_unless_converged
from cvxnn.estimators._base import ConvexReLUBase
from cvxnn.estimators._distinct_pairs import DistinctPairs
from cvxnn.estimators._fit_plan import HeldOut
from cvxnn.estimators._monitor import Hook
from cvxnn.estimators._pair_curvature import PairCurved
from cvxnn.estimators._parameters import Number, PatternsParameter
from cvxnn.estimators._preference_head import PreferenceHead
from cvxnn.estimators._responses import Responses
from cvxnn.estimators._rows import merge
from cvxnn.estimators._second_phase import SecondPhase, fit_second_phase
from cvxnn.network import TwoLayerNetwork

PreferenceLoss = Literal["pairwise", "pointwise"]

Floats = NDArray[np.floating]


class COALAPreferenceHead(PreferenceHead, PairCurved):
    r"""Reward head of a language model, in two convex phases: COALA.

    **Many gates** (``formulation="gated"``). Phase I fits a network of many random gates by one
    linear system, so that rewards of chosen and rejected responses differ by 1,

    .. math::

        \min_z \; \tfrac12 \sum_k \omega_k \big(1 - g(x_{w,k}) + g(x_{l,k})\big)^2
            + \tfrac\alpha2 \sum_i \|z_i\|^2, \qquad
        g(x) = \sum_i 1(c_i^T x \ge 0)\, x^T z_i ,

    and without pairs so that they are 1 and -1. With an embedding :math:`p` of the prompt beside
    that of the response (``context``), a neuron is on where a gate of each is:
    :math:`1(c_i^T x \ge 0)\, 1(d_i^T p \ge 0)\, x^T z_i`. The strength is the one of least error
    on groups that are left out. Phase II minimises the COALA loss over the scale of the logit, on
    pairs that are left out; it sets the margins, and never changes which response is ranked first.

    **Algorithm 1 of the COALA paper** (``formulation="relu"``). Phase I trains a convex ReLU
    network on embeddings of preferred (+1) and other (-1) responses, by interior point or, for
    large data, by CRONOS. Phase II freezes its first layer and minimises the COALA loss over the
    last layer by preconditioned accelerated gradient descent.

    The reward is :math:`r(x) = \beta \log \pi(x)` with :math:`\pi(x) = \sigma(g(x))`, equation
    (7).

    Parameters
    ----------
    loss : {"pairwise", "pointwise"}, default="pairwise"
        Phase II: Bradley-Terry on pairs (equations 6-7), or equation (9) on single responses. See
        ``cvxnn.preference.loss_functions`` for how the two relate. ``fit`` without ``pair_id`` uses
        ``"pointwise"``. With ``formulation="gated"`` it decides on phase I as well.
    formulation : {"gated", "relu"}, default="gated"
        ``"gated"`` is the network of many gates, ``"relu"`` Algorithm 1 of the COALA paper.
    blocks : sequence of int, optional
        Widths of blocks of columns of ``X``, such as embeddings of several layers, that add up to
        ``n_features`` without the context. Each block has a strength of its own, chosen on pairs
        that are left out (``cvxnn.training.block_factors``); a block that does not help has zero
        weights. Only for pairs, with ``formulation="gated"``.
    context : int, optional
        Number of last columns of ``X`` that describe the prompt and not the response. They have
        gates and no weights. Whether these gates stay is decided on pairs that are left out. By
        default what ``embedding`` says, or 0. Only for pairs, with ``formulation="gated"``.
    beta : float, default=1.0
        Inverse temperature of the reward, above 0.
    gamma : float, default=0.5
        Offset, at least 0: the margin asked for.
    ridge : float, default=1e-2
        Phase II: strength of the pull of the last layer, or of the scale, towards zero, at least 0.
    strength : float or "auto", default="auto"
        Phase I: strength of the penalty as a fraction of ``alpha_max_``, at least 0. ``"auto"``
        chooses the one of least squared error on pairs, responses or groups that are left out; in
        the ReLU formulation 0.1 times the slope that noise alone would have, see
        ``ConvexReLUClassifier``.
    n_patterns : int or "auto", default="auto"
        Phase I: number of activation patterns, at least 1. ``"auto"`` is 64 of the ReLU
        formulation, and up to 1,024 gates.
    patterns : str, default="auto"
        Phase I: where the activation patterns come from, as for ``ConvexReLUClassifier``. For pairs
        ``"auto"`` is ``"local"`` of the ReLU formulation, ``"gaussian"`` of gates.
    fit_intercept : bool, default=True
        Phase I: centre embeddings and targets, and give hidden neurons a bias. To pairs, the gated
        formulation fits neurons without a bias.
    standardize : bool, default=True
        Phase I: scale the features inside; the fitted head takes raw embeddings.
    tol : float, default=1e-3
        Phase I: relative duality gap to reach. Phase II goes to a gap of 1e-4.
    max_iter : int, default=1000
        Phase I: most iterations. Phase II may take ten times as many, each far cheaper.
    solver : Cronos, InteriorPoint or Ridge, optional
        Phase I: solver of ``cvxnn.convex`` with all its options; it replaces ``tol`` and
        ``max_iter``. Pairs of the gated formulation take ``Ridge``. By default one is chosen by
        cost.
    embedding : dict, optional
        Description of the features, ``cvxnn.llm.Embedder.description``. It is saved with the head,
        and needed to generate with it; a language model that gives other features is refused.
    random_state : int, RandomState or None, default=None
        Phase I: seed of the patterns. An integer gives the same head every time.
    verbose : int, default=0
        1 writes a progress line to standard error, which names the phases of the fit, and one of
        what the convex program of phase I gained over local training; 0 nothing.

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
    proposal_objective_ : float
        Phase I: objective of the network that local training proposed; see
        ``ConvexReLUClassifier``.
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
    n_pairs_ : int
        Distinct pairs of the program of phase I; 0 where it is one of single responses.
    rounds_ : dict of ndarray
        Phase I: one entry per program solved.
    n_iter_ : int
        Iterations of phase I.
    status_ : str
        Why phase I stopped.
    block_factors_ : ndarray, shape (n_blocks,)
        Factors of scaled features of each block, with a mean square of 1; only with ``blocks``.
    uses_context_ : bool
        Whether gates look at the prompt; False without ``context``.
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
        "formulation": get_args(Formulation),
    }

    def __init__(
        self,
        loss: PreferenceLoss = "pairwise",
        *,
        formulation: Formulation = "gated",
        blocks: Sequence[int] | None = None,
        context: int | None = None,
        beta: float = 1.0,
        gamma: float = 0.5,
        ridge: float = 1e-2,
        strength: float | Literal["auto"] = "auto",
        n_patterns: int | Literal["auto"] = "auto",
        patterns: PatternsParameter = "auto",
        fit_intercept: bool = True,
        standardize: bool = True,
        tol: float = 1e-3,
        max_iter: int = 1000,
        solver: Solver | None = None,
        embedding: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.loss = loss
        self.formulation = formulation
        self.blocks = blocks
        self.context = context
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

    def _fits_by_blocks(self) -> bool:
        """Return whether this is the head of many gates."""
        return self.formulation == "gated" and self.loss == "pairwise"

    def _pairwise(self, rows: Responses) -> bool:
        """Return whether the second phase is fitted to pairs."""
        return self.loss == "pairwise" and rows.pairs is not None

    def _fit(self, rows: Responses, hook: Hook | None) -> None:
        """Run both phases."""
        gated, pairwise = self.formulation == "gated", self._pairwise(rows)
        self.__dict__.pop("block_factors_", None)
        self.uses_context_ = False
        self._columns.check(rows.X.shape[1])
        for name in ("blocks", "context"):
            if getattr(self, name) is not None and not (gated and pairwise):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}; expected pairs, formulation='gated' and "
                    f"loss='pairwise' with it. Set {name}=None, or fit pairs (fit_pairs, or "
                    "pair_id)."
                )
        with self._progress():
            if gated and pairwise:
                plan = self._plan_pairs(DistinctPairs.of(rows))
            else:
                distinct = merge(rows.X, rows.signs, rows.weight, rows.groups)
                plan = self._plan(distinct, convex.SquaredLoss())
            first = plan.fit(**plan.arguments, **self._watched(plan, hook))
            require_finite(self, first.training.result)
            # Scores of a gated network on responses that it was fitted to do not measure its
            # quality.
            held_out = plan.without_themselves(first) if gated else None
            first = plan.complete(first)
            second = self._fit_second_phase(first.network, rows, held_out, hook)
        self._set_fitted(plan, first._replace(network=second.network))
        self.n_pairs_ = len(plan.arguments["pairs"]) if gated and pairwise else 0
        self.phase1_network_ = first.network
        self.phase2_objective_ = second.result.objective
        self.phase2_dual_bound_ = second.result.dual_bound
        self.phase2_gap_ = second.result.gap
        self.phase2_history_ = second.result.history
        self.phase2_flops_ = second.flops
        warn_unless_converged(self, first.training.result, phase=" (phase I)")
        warn_unless_converged(
            self,
            second.result,
            phase=" (phase II)",
            remedy="Increase max_iter or ridge.",
        )
        what = "pairs" if pairwise else "responses"
        warn_of_rewards(
            self, plan.strength, rows.X, rows.signs, None if second.informative else what
        )

    def _fit_second_phase(
        self,
        network: TwoLayerNetwork,
        rows: Responses,
        held_out: HeldOut | None = None,
        hook: Hook | None = None,
    ) -> SecondPhase:
        """Run phase II from a network."""
        second = fit_second_phase(
            network,
            rows,
            held_out,
            pairwise=self._pairwise(rows),
            beta=self.beta,
            gamma=self.gamma,
            ridge=self.ridge,
            max_iter=10 * self.max_iter,
            hook=hook,
        )
        require_finite(self, second.result, phase=" (phase II)")
        return second
