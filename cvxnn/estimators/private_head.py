"""A preference head that reveals little about any single pair: differential privacy."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import Tags, check_random_state

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn._messages import warn
from cvxnn.estimators._monitor import Hook
from cvxnn.estimators._parameters import Number, check_parameters
from cvxnn.estimators._preference_head import PreferenceHead
from cvxnn.estimators._responses import Responses
from cvxnn.network import recover
from cvxnn.numerics.gates import open_where

PrivateLoss = Literal["logistic", "huber"]
# Slope of the Huber loss, in units of the difference of 1 that it asks for.
_HUBER = 1.0
# alpha="auto", as a part of the norm that the random linear term has: chosen on AlpacaEval.
_PART_OF_NOISE = 0.5


class PrivatePreferenceHead(PreferenceHead):
    r"""Reward head that is :math:`(\epsilon, \delta)`-private in each pair, or each response.

    Whoever sees the head, and knows all pairs but one, learns little about that one: adding or
    removing it changes the chance of any event by a factor of at most :math:`e^\epsilon`, but for
    :math:`\delta`. The head has the gates of ``COALAPreferenceHead(formulation="gated")``,

    .. math::

        g(x) = \sum_i 1(c_i^T x \ge 0)\, x^T z_i ,

    and the gates are drawn from :math:`N(0, I)`, whatever the data are; the first is always open.
    The features of each record (those of the chosen response minus those of the rejected one) are
    brought to norm 1, which bounds what the record does, and the program gets a random linear term
    (``cvxnn.training.privacy`` has the proof). Its solution has to be exact; the certificate says
    how near it is, and a little more noise covers that distance.

    Parameters
    ----------
    epsilon : float, default=1.0
        Budget, above 0.
    delta : float, default=1e-5
        Chance that the budget does not hold, between 0 and 1; take less than one divided by the
        number of records.
    loss : {"logistic", "huber"}, default="logistic"
        Bradley-Terry, or squares of the distance from a difference of 1 (without pairs, from 1
        and -1) that grow linearly beyond an error of 1: squares alone have no bounded slope.
    alpha : float or "auto", default="auto"
        Strength of the ridge penalty against the sum of the losses, above 0. It must not be chosen
        by looking at the data. ``"auto"`` is half of the expected norm of the random linear term.
    n_gates : int, default=1
        Gates, at least 1. With 1 the head is linear; each further gate takes as many weights again,
        all of which are perturbed.
    beta : float, default=1.0
        Scale of the reward :math:`\beta \log \sigma(g)`, above 0.
    embedding : dict, optional
        Description of the features, ``cvxnn.llm.Embedder.description``. It is saved with the head,
        and needed to generate with it.
    gate_state : int, RandomState or None, default=0
        Seed of the gates, which are public.
    noise_state : int or None, default=None
        Seed of the noise. None takes it from the operating system; anyone who knows or guesses the
        seed can subtract the noise, so that an integer, which ``save`` writes too, is for tests
        only.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
        The label of other responses, then that of preferred ones.
    network_ : cvxnn.network.TwoLayerNetwork
        The head for raw embeddings. It may be published, and so may all that is computed from it.
    alpha_ : float
        Strength that was used.
    noise_ : float
        Standard deviation of the random linear term.
    n_features_in_ : int
        Number of features seen in ``fit``.

    Notes
    -----
    What is protected is one record. Someone who made ``k`` pairs is protected with about
    ``k`` times ``epsilon``. There are no weights or groups, since they change what a record does.
    Embeddings are taken as they are: scale or centre them with public data only. The arithmetic is
    ordinary floating point, whose roundings can tell more than real numbers would (Mironov, 2012).

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import PrivatePreferenceHead
    >>> rng = np.random.RandomState(0)
    >>> chosen, rejected = rng.randn(500, 8) + 1, rng.randn(500, 8) - 1
    >>> head = PrivatePreferenceHead(epsilon=1.0, noise_state=0).fit_pairs(chosen, rejected)
    >>> bool((head.reward_margin(chosen, rejected) > 0).mean() > 0.9)
    True
    """

    _numbers: ClassVar[dict[str, Number]] = {
        "epsilon": Number(Real, closed=False),
        "delta": Number(Real, closed=False),
        "alpha": Number(Real, closed=False, words=("auto",)),
        "n_gates": Number(Integral, 1),
        "beta": Number(Real, closed=False),
    }
    _choices: ClassVar[dict[str, tuple[Any, ...]]] = {"loss": get_args(PrivateLoss)}

    def __init__(
        self,
        epsilon: float = 1.0,
        delta: float = 1e-5,
        *,
        loss: PrivateLoss = "logistic",
        alpha: float | Literal["auto"] = "auto",
        n_gates: int = 1,
        beta: float = 1.0,
        embedding: Mapping[str, Any] | None = None,
        gate_state: int | np.random.RandomState | None = 0,
        noise_state: int | None = None,
    ) -> None:
        self.epsilon = epsilon
        self.delta = delta
        self.loss = loss
        self.alpha = alpha
        self.n_gates = n_gates
        self.beta = beta
        self.embedding = embedding
        self.gate_state = gate_state
        self.noise_state = noise_state

    def _check_parameters(self) -> None:
        check_parameters(self, self._numbers, self._choices)
        if self.delta >= 1:
            raise ValueError(f"delta={self.delta!r}; expected a number between 0 and 1.")
        self._check_embedding()

    def fit(self, X: ArrayLike, y: ArrayLike, pair_id: ArrayLike | None = None) -> Self:
        """Fit on labelled responses, each of which counts the same.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.
        y : array-like, shape (n_responses,)
            Two labels; the larger one (1, True, ...) means preferred.
        pair_id : array-like, shape (n_responses,), optional
            Responses to one prompt share an id, and each preferred one is paired with each other
            one; a pair is then what is protected. Without it that is a response.

        Returns
        -------
        self
            The estimator itself. An interrupted or failed fit leaves it as it was.

        Raises
        ------
        ValueError
            For bad parameters or data, or if no id has both a preferred and another response.
        """
        return super().fit(X, y, pair_id)

    def fit_pairs(self, chosen: ArrayLike, rejected: ArrayLike) -> Self:
        """Fit on pairs of embeddings, each of which counts the same.

        Parameters
        ----------
        chosen, rejected : array-like, shape (n_pairs, n_features)
            Row ``k`` of both belongs to one prompt.

        Returns
        -------
        self
            The estimator itself; ``classes_`` is ``[0, 1]``.

        Raises
        ------
        ValueError
            For bad parameters, or if the two have different shapes, are empty or not finite.
        """
        return super().fit_pairs(chosen, rejected)

    def _fit(self, rows: Responses, hook: Hook | None) -> None:
        """Solve the perturbed program; nothing is measured between."""
        X = np.asarray(rows.X, np.float64)
        gates = check_random_state(self.gate_state).standard_normal((self.n_gates, X.shape[1]))
        gates[0] = 0
        won = rows.signs.ravel() > 0
        preferred, other = X[won], X[~won]
        if rows.pairs is not None:
            preferred, other = X[rows.pairs[:, 0]], X[rows.pairs[:, 1]]
        if np.array_equal(preferred, other) or not np.ptp(X, axis=0).any():
            warn(
                "PrivatePreferenceHead: preferred responses have the embeddings of the others, so "
                "that the head is nothing but noise. See that their texts and embeddings differ.",
            )
        signs = rows.signs.astype(np.float64)
        loss = convex.LogisticLoss() if self.loss == "logistic" else convex.HuberLoss(_HUBER)
        self.alpha_ = self._strength(gates.size, float(loss.curvature))
        found = training.perturbed(
            X,
            open_where(X, gates),
            signs if rows.pairs is None else np.ones((len(rows.pairs), 1)),
            loss,
            pairs=rows.pairs,
            alpha=self.alpha_,
            epsilon=self.epsilon,
            delta=self.delta,
            slope=1.0 if self.loss == "logistic" else _HUBER,
            random=np.random.default_rng(self.noise_state),
        )
        weights = convex.Weights(found.blocks[:, None].astype(rows.X.dtype), None)
        self.network_ = recover(weights, bias=False, gates=gates)
        # How near the solution came, and in how many steps, would tell of the data.
        self.noise_ = found.noise

    def _strength(self, n_weights: int, curvature: float) -> float:
        """Return ``alpha``."""
        if self.alpha != "auto":
            return float(self.alpha)
        noise = training.needed_noise(
            self.epsilon, self.delta, alpha=np.inf, slope=1.0, curvature=curvature
        )
        least = 4 * curvature / np.expm1(min(self.epsilon, 1.0))
        return float(max(_PART_OF_NOISE * noise * np.sqrt(n_weights), least))

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags: fits differ, since noise is drawn."""
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags
