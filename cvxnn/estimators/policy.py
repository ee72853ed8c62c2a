"""The softmax policy: an estimator that is fine-tuned and aligned at once, to an optimum."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvxnn._messages import warn
from cvxnn.convex.loop import solve
from cvxnn.convex.solvers.trust_region import TrustRegionNewton
from cvxnn.estimators._candidate_rows import in_fixed_order, marks_of, require_one_wanted, sets_of
from cvxnn.estimators._missing_values import checked_data
from cvxnn.estimators._rows import row_codes
from cvxnn.features.description import check_description
from cvxnn.joint.candidates import CandidateSets, as_matrix, as_vector
from cvxnn.joint.policy_objectives import (
    bradley_terry_objective,
    dpo_objective,
    orpo_objectives,
    sft_objective,
)
from cvxnn.joint.post_training import post_train
from cvxnn.joint.problem import JointProblem
from cvxnn.joint.strategies import Strategy
from cvxnn.joint.trade_offs import pareto_front, stop_at_front

# Scores that differ by less are the same.
_ALIKE = 1e-6


class SoftmaxPolicy(BaseEstimator):
    r"""Choose among candidate responses: convex fine-tuning and DPO on frozen features.

    :math:`\pi(y | x)` is the softmax of :math:`\theta^T \phi_{y,x}` over the candidates of a
    prompt. Fitted is :math:`\lambda f_{DPO} + (1 - \lambda) f_{SFT}` plus a ridge, equation (6) of
    "Understanding Forgetting in LLM Supervised Fine-Tuning and Preference Learning": by the exact
    solver, or by one of the stochastic strategies of that paper, to see what they lose.

    Parameters
    ----------
    lam : float, default=0.5
        Trade-off: 0 is demonstrations only, 1 preferences only.
    strategy : {"exact", "orpo", "sequential", "mix", "alright", "maxright"}, default="exact"
        ``"orpo"`` is a baseline that learns from the pairs alone, exactly: the mix of ORPO's odds
        ratio, weighted by ``lam``, and of the likelihood of chosen responses; see
        ``cvxnn.joint.orpo_objectives``. All but these two: see ``cvxnn.joint.post_train``.
    beta : float, default=0.1
        DPO's pull towards the reference policy, above 0.
    reference : "chosen", "uniform" or array-like of shape (n_features,), default="chosen"
        The reference policy: fine-tuned on the chosen responses (section 3.1), none, or its
        ``theta``.
    ridge : float, default=1e-3
        Pull of ``theta`` towards 0, at least 0.
    radius : float or None, default=None
        Radius of the ball of ``theta``; needed if ``ridge`` is 0.
    standardize : bool, default=False
        Divide features by their standard deviations over all rows. ``ridge`` and ``radius`` then
        count in these units; ``coef_`` and ``reference_`` are for raw features.
    tol : float, default=1e-8
        Duality gap of all optima, in units of the objective or of 1, whichever is larger.
    n_steps : int, default=10_000
        Steps of a stochastic strategy.
    batch_size : int or (int, int), default=16
        Examples that a stochastic strategy draws for a gradient, or those of DPO and of SFT.
    max_evaluation_steps : int, default=10
        Interval at which ``"maxright"`` evaluates both objectives; 1 evaluates both at each step.
    stop_excess : float, optional
        Fraction by which both objectives may exceed the exact front where a strategy other than
        ``"sequential"`` stops, as in appendix B.2 of the paper; by default all steps are made.
    random_state : int, RandomState or None, default=None
        Samples of a stochastic strategy.
    embedding : dict, optional
        Description of the features, ``cvxnn.llm.Embedder.description``. It is saved with the
        policy, and needed to generate with it.

    Attributes
    ----------
    coef_ : ndarray, shape (n_features,)
        ``theta``.
    reference_ : ndarray, shape (n_features,)
        The reference policy.
    dpo_, sft_ : float
        The two objectives, each with the ridge.
    objective_, dual_bound_, gap_ : float
        Their mix, a lower bound on its optimum, and the difference, in units of the mix or of 1,
        whichever is larger: how much better any policy could be, whatever the strategy was.
    trajectory_ : Trajectory or None
        Course of a stochastic strategy, in scaled features; None for exact ones. It is not saved.
    n_features_in_ : int
        Number of features seen in ``fit``.

    Notes
    -----
    Predictions and their score take

    X : array-like, shape (n_candidates, n_features)
        Features of candidates.
    groups : array-like, shape (n_candidates,)
        Prompt that each candidate belongs to.
    y : array-like, shape (n_candidates,)
        True for wanted responses.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import SoftmaxPolicy
    >>> rng = np.random.default_rng(0)
    >>> X, prompt = rng.standard_normal((80, 5)), np.repeat(np.arange(20), 4)
    >>> wanted = np.arange(80) % 4 == 1
    >>> X[wanted] += 1
    >>> chosen, rejected = rng.standard_normal((2, 30, 5)) + [[[0.5]], [[0.0]]]
    >>> policy = SoftmaxPolicy().fit(X, wanted, prompt, chosen=chosen, rejected=rejected)
    >>> policy.gap_ < 1e-7, policy.score(X, wanted, prompt) > 0.5
    (True, True)
    """

    def __init__(
        self,
        lam: float = 0.5,
        *,
        strategy: Literal["exact", "orpo", "sequential", "mix", "alright", "maxright"] = "exact",
        beta: float = 0.1,
        reference: ArrayLike | Literal["chosen", "uniform"] = "chosen",
        ridge: float = 1e-3,
        radius: float | None = None,
        standardize: bool = False,
        tol: float = 1e-8,
        n_steps: int = 10_000,
        batch_size: int | tuple[int, int] = 16,
        max_evaluation_steps: int = 10,
        stop_excess: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        embedding: Mapping[str, Any] | None = None,
    ) -> None:
        self.lam = lam
        self.strategy = strategy
        self.beta = beta
        self.reference = reference
        self.ridge = ridge
        self.radius = radius
        self.standardize = standardize
        self.tol = tol
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.max_evaluation_steps = max_evaluation_steps
        self.stop_excess = stop_excess
        self.random_state = random_state
        self.embedding = embedding

    def problem(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike,
        *,
        chosen: ArrayLike,
        rejected: ArrayLike,
    ) -> JointProblem:
        """Build what ``fit`` solves, for ``pareto_front`` and ``post_train``; data as there.

        With ``standardize``, its policies are those of the scaled features.

        Parameters
        ----------
        X : array-like, shape (n_candidates, n_features)
            Features of candidates.
        y : array-like, shape (n_candidates,)
            True for wanted responses.
        groups : array-like, shape (n_candidates,)
            Prompt that each candidate belongs to.
        chosen, rejected : array-like, shape (n_pairs, n_features)
            Features of pairs.
        """
        return self._problem(X, y, groups, chosen, rejected)[0]

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike,
        *,
        chosen: ArrayLike,
        rejected: ArrayLike,
    ) -> SoftmaxPolicy:
        """Fit on demonstrations and preferences.

        Parameters
        ----------
        X : array-like, shape (n_candidates, n_features)
            Features of the candidates of all prompts, in any order: embeddings, or
            ``network_.hidden(embeddings)`` of a fitted estimator.
        y : array-like of bool, shape (n_candidates,)
            True for the wanted response, one for each prompt.
        groups : array-like, shape (n_candidates,)
            Candidates of one prompt share a value.
        chosen, rejected : array-like, shape (n_pairs, n_features)
            Features of preferred responses, and of those that they were preferred to.

        Returns
        -------
        SoftmaxPolicy

        Raises
        ------
        ValueError
            For bad parameters or data.

        Warns
        -----
        UserWarning
            If all responses have the same probability: decrease ``ridge``, or check that features
            differ.
            If features are so large that the ridge is lost in rounding: divide them by their
            standard deviations.
        """
        names = ("exact", "orpo", *get_args(Strategy))
        if self.strategy not in names:
            raise ValueError(f"strategy={self.strategy!r}; expected one of {names}.")
        if self.embedding is not None:
            check_description(self.embedding)
        problem, reference, scale = self._problem(X, y, groups, chosen, rejected)
        best = problem.optimum(self.lam)
        theta: NDArray[np.floating] = best.weights
        self.trajectory_ = None
        if self.strategy == "orpo":
            margins = -problem.dpo.rows / self.beta
            nothing = np.zeros_like(margins)
            parts = orpo_objectives(margins, nothing, ridge=problem.ridge, radius=problem.radius)
            theta = JointProblem(*parts, tol=self.tol).optimum(self.lam).weights
        elif self.strategy != "exact":
            seed = check_random_state(self.random_state).randint(2**31 - 1)
            stop = None
            if self.stop_excess is not None and self.strategy != "sequential":
                stop = stop_at_front(problem, pareto_front(problem), self.stop_excess)
            self.trajectory_ = post_train(
                problem,
                self.strategy,
                self.lam,
                n_steps=self.n_steps,
                batch_size=self.batch_size,
                max_evaluation_steps=self.max_evaluation_steps,
                seed=seed,
                callback=stop,
            )
            theta = self.trajectory_.theta
        dpo, sft = problem.values(theta)
        self.coef_ = theta / scale
        self.reference_ = reference / scale
        self.dpo_, self.sft_ = float(dpo), float(sft)
        self.objective_ = self.lam * self.dpo_ + (1 - self.lam) * self.sft_
        self.dual_bound_ = best.dual_bound
        self.gap_ = (self.objective_ - self.dual_bound_) / max(abs(self.objective_), 1.0)
        self.n_features_in_ = len(theta)
        self._warn_of(problem, theta)
        return self

    def reward(self, X: ArrayLike) -> NDArray[np.float64]:
        r"""Return :math:`\theta^T \phi` of each response.

        It is the log-probability of a response, up to a constant of its prompt, so that decoding
        with it prefers what the policy does.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Features.

        Returns
        -------
        ndarray, shape (n_responses,)
            The larger the likelier.
        """
        check_is_fitted(self)
        rows: NDArray[np.float64] = checked_data(self, X, dtype=np.float64, reset=False)
        return rows @ self.coef_

    def predict_log_proba(self, X: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
        """Return the log-probability of each candidate among those of its prompt."""
        check_is_fitted(self)
        rows = checked_data(self, X, dtype=np.float64, reset=False)
        order, offsets = sets_of(groups, len(rows))
        found = np.empty(len(rows))
        found[order] = CandidateSets(rows[order], offsets).log_probabilities(self.coef_)
        return found

    def predict_proba(self, X: ArrayLike, groups: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each candidate among those of its prompt."""
        return np.exp(self.predict_log_proba(X, groups))

    def predict(self, X: ArrayLike, groups: ArrayLike) -> NDArray[np.bool_]:
        """Mark the likeliest candidate of each prompt, the first of equals."""
        found = self.predict_log_proba(X, groups)
        order, offsets = sets_of(groups, len(found))
        marks = np.zeros(len(found), bool)
        for low, high in itertools.pairwise(offsets):
            rows = order[low:high]
            marks[rows[np.argmax(found[rows])]] = True
        return marks

    def score(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike) -> float:
        """Return the share of prompts whose wanted response is the likeliest."""
        marks = self.predict(X, groups)
        return float(marks[marks_of(y, len(marks))].mean())

    def reward_margin(self, chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
        r"""Return DPO's implicit reward of each chosen response minus that of its rejected one.

        :math:`\beta (\theta - \theta_{ref})^T (\phi_w - \phi_l)`, equation (17), shape (n_pairs,).

        Parameters
        ----------
        chosen, rejected : array-like, shape (n_pairs, n_features)
            Features of pairs.
        """
        check_is_fitted(self)
        won, lost = (
            checked_data(self, rows, dtype=np.float64, reset=False) for rows in (chosen, rejected)
        )
        if won.shape != lost.shape:
            raise ValueError(
                f"chosen has {len(won)} rows and rejected {len(lost)}; expected equal numbers."
            )
        margin: NDArray[np.float64] = self.beta * ((won - lost) @ (self.coef_ - self.reference_))
        return margin

    def _warn_of(self, problem: JointProblem, theta: NDArray[np.floating]) -> None:
        """Warn of a policy that gives all the same probability, or that rounding has decided."""
        mix = problem.mix(self.lam)
        lost = float(np.finfo(float).eps * mix.curvature(theta))
        if 0 < self.ridge < lost:
            warn(
                f"SoftmaxPolicy: some features are so large that ridge={self.ridge!r} is lost in "
                "rounding, and nothing decides between policies that fit the data alike. Divide "
                "the features by their standard deviations, as StandardScaler does, or set ridge "
                f"above {lost:.2g}.",
            )
        elif np.abs(mix.rows @ theta).max() <= _ALIKE:
            warn(
                "SoftmaxPolicy gives all candidates of each prompt the same probability, and both "
                f"responses of each pair the same reward. Decrease ridge (ridge={self.ridge!r}) or "
                "raise radius; if that does not help, the features do not separate responses.",
            )

    def _problem(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike, chosen: ArrayLike, rejected: ArrayLike
    ) -> tuple[JointProblem, NDArray[np.floating], NDArray[np.floating]]:
        """Return the problem and the reference policy in scaled units, and the units."""
        radius = np.inf if self.radius is None else self.radius
        if not isinstance(self.tol, Real) or not self.tol > 0:
            raise ValueError(f"tol={self.tol!r}; expected a number above 0.")
        rows = checked_data(self, X, dtype=np.float64)
        chosen, rejected = as_matrix("chosen", chosen), as_matrix("rejected", rejected)
        scale: NDArray[np.floating] = np.ones(rows.shape[1])
        if self.standardize and {chosen.shape[1], rejected.shape[1]} == {rows.shape[1]}:
            scale = np.concatenate([rows, chosen, rejected]).std(axis=0)
            scale[scale <= np.finfo(float).eps * np.abs(rows).max(axis=0)] = 1.0
            rows, chosen, rejected = rows / scale, chosen / scale, rejected / scale
        order, offsets = sets_of(groups, len(rows))
        marks = marks_of(y, len(rows))
        require_one_wanted(marks[order], offsets, np.asarray(groups)[order])
        # Sums are rounded by the order of their terms: a fixed one, whatever that of the rows.
        order, offsets = in_fixed_order(row_codes(rows, marks[:, None]), order, offsets)
        wanted = marks[order]
        if chosen.shape == rejected.shape:  # else refused below
            pairs = np.argsort(row_codes(chosen, rejected), kind="stable")
            chosen, rejected = chosen[pairs], rejected[pairs]
        sft = sft_objective(
            CandidateSets(rows[order], offsets),
            np.flatnonzero(wanted) - offsets[:-1],
            ridge=self.ridge,
            radius=radius,
        )
        if isinstance(self.reference, str):
            reference: NDArray[np.floating] = np.zeros(rows.shape[1])
            if self.reference == "chosen":
                first = bradley_terry_objective(chosen, rejected, ridge=self.ridge, radius=radius)
                start = np.zeros(first.n_features)
                reference = solve(first, TrustRegionNewton(tol=self.tol), start=start).weights
            elif self.reference != "uniform":
                raise ValueError(
                    f"reference={self.reference!r}; expected 'chosen', 'uniform' or an array."
                )
        else:
            reference = as_vector("reference", self.reference, rows.shape[1]) * scale
        dpo = dpo_objective(
            chosen, rejected, reference=reference, beta=self.beta, ridge=self.ridge, radius=radius
        )
        return JointProblem(dpo=dpo, sft=sft, tol=self.tol), reference, scale
