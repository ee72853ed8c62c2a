"""The preference head that chooses the strengths of both its phases by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import GroupKFold, StratifiedKFold

from cvxnn.convex.loop import Result, Solver
from cvxnn.convex.losses import SquaredLoss
from cvxnn.estimators._base import Fit, PatternsParameter
from cvxnn.estimators._folds import Fold, best_of, fractions
from cvxnn.estimators._monitor import Snapshot
from cvxnn.estimators._rows import merge
from cvxnn.estimators.coala import COALAPreferenceHead, PreferenceLoss
from cvxnn.network import TwoLayerNetwork

_STRENGTHS = (0.3, 0.1, 0.03, 0.01)
_RIDGES = (1e-1, 1e-2, 1e-3)


class COALAPreferenceHeadCV(COALAPreferenceHead):
    r"""Preference head that chooses ``strength`` of phase I and ``ridge`` of phase II.

    Each combination is scored by the accuracy on held-out pairs: how often the chosen response
    has the higher reward; without pairs, by that of single responses. Responses that are paired
    stay in one fold. In each fold the first phase goes along all ``strengths`` with one set of
    patterns, and the second along all ``ridges`` from where the last one ended. The head is then
    fitted to all rows.

    Parameters
    ----------
    loss, beta, gamma, n_patterns, patterns, fit_intercept, standardize, tol, max_iter, solver, \\
    embedding, random_state, verbose
        As in ``COALAPreferenceHead``.
    strengths : array-like, default=(0.3, 0.1, 0.03, 0.01)
        Strengths of phase I, above 0 and at most 1: fractions of ``alpha_max_``.
    ridges : array-like, default=(0.1, 0.01, 0.001)
        Strengths of phase II, above 0.
    n_folds : int, default=5
        At least 2. Equal responses are in one fold, so that an integer weight equals repetition.

    Attributes
    ----------
    strengths_, ridges_ : ndarray
        What was tried, falling.
    cv_scores_ : ndarray, shape (n_folds, n_strengths, n_ridges)
        Held-out accuracies.
    best_strength_, best_ridge_ : float
        The choice; among equals the stronger ``strength``, then the stronger ``ridge``.
    best_score_ : float
        Mean accuracy there.
    network_, classes_, ...
        Of the fit to all rows; see ``COALAPreferenceHead``.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import COALAPreferenceHeadCV
    >>> rng = np.random.RandomState(0)
    >>> chosen, rejected = rng.randn(50, 8) + 1, rng.randn(50, 8) - 1
    >>> head = COALAPreferenceHeadCV(n_patterns=8, n_folds=2, random_state=0)
    >>> bool(head.fit_pairs(chosen, rejected).best_score_ > 0.95)
    True
    """

    _numbers: ClassVar[dict[str, tuple[Any, float, bool]]] = {
        **COALAPreferenceHead._numbers,
        "n_folds": (Integral, 2, True),
    }

    # Of the single head; have values of their own only while the head is fitted to all rows.
    strength: Any = "auto"
    ridge: Any = 1e-2

    def __init__(
        self,
        loss: PreferenceLoss = "pairwise",
        *,
        beta: float = 1.0,
        gamma: float = 0.5,
        strengths: ArrayLike = _STRENGTHS,
        ridges: ArrayLike = _RIDGES,
        n_folds: int = 5,
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
        self.strengths = strengths
        self.ridges = ridges
        self.n_folds = n_folds
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
        """Choose both strengths, then fit both phases to all rows."""
        strengths = fractions("strengths", self.strengths)
        ridges = fractions("ridges", self.ridges, most=np.inf)
        rows = Responses(X, preferred, weight, pairs, pair_weight)
        folds = rows.folds(self.n_folds)
        scores = np.empty((len(folds), len(strengths), len(ridges)))
        for k, (seen, unseen) in enumerate(folds):
            part, held_out = rows.take(seen), rows.take(unseen)
            fold = Fold.of(self, *merge(part.X, part.signs, part.weight), SquaredLoss())
            for i, (network, result) in enumerate(zip(*fold.networks(strengths), strict=True)):
                for j, ridge in enumerate(ridges):
                    head = _SecondPhase(self, float(ridge), network, result)
                    # The next ridge starts from this one's head.
                    network = head.train(part, classes)
                    scores[k, i, j] = held_out.accuracy(network)
        best, self.best_score_ = best_of(scores.reshape(len(folds), -1))
        self.strengths_, self.ridges_, self.cv_scores_ = strengths, ridges, scores
        self.best_strength_ = float(strengths[best // len(ridges)])
        self.best_ridge_ = float(ridges[best % len(ridges)])
        self.strength, self.ridge = self.best_strength_, self.best_ridge_
        super()._fit(X, preferred, classes, weight, pairs, pair_weight, hook)
        del self.strength, self.ridge


class Responses(NamedTuple):
    """Responses of positive weight, and their pairs."""

    X: NDArray[np.floating]
    preferred: NDArray[np.bool_]
    weight: NDArray[np.floating]
    pairs: NDArray[np.intp] | None
    pair_weight: NDArray[np.floating] | None

    @property
    def signs(self) -> NDArray[np.floating]:
        """Targets of phase I, shape (n_responses, 1)."""
        return np.where(self.preferred, 1, -1).astype(self.X.dtype)[:, None]

    def take(self, rows: NDArray[np.intp]) -> Responses:
        """Some of the responses, with the pairs among them."""
        pairs, pair_weight = self.pairs, self.pair_weight
        if pairs is not None and pair_weight is not None:
            position = np.full(len(self.X), -1)
            position[rows] = np.arange(len(rows))
            inside = (position[pairs] >= 0).all(axis=1)
            pairs, pair_weight = position[pairs[inside]], pair_weight[inside]
        return Responses(self.X[rows], self.preferred[rows], self.weight[rows], pairs, pair_weight)

    def folds(self, n_folds: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Folds that split no pair; without pairs, with equal parts of preferred responses.

        Equal responses stay together, whatever their order.
        """
        content = np.column_stack([self.X, self.preferred])
        _, first, same = np.unique(content, axis=0, return_index=True, return_inverse=True)
        if self.pairs is None:
            splitter = StratifiedKFold(n_folds, shuffle=True, random_state=0)
            parts = splitter.split(first, self.preferred[first])
            return [tuple(np.flatnonzero(np.isin(same, p)) for p in part) for part in parts]  # type: ignore[misc]
        alike = np.column_stack([np.arange(len(self.X)), first[same]])
        links = np.concatenate([self.pairs, alike])
        graph = coo_array((np.ones(len(links)), links.T), shape=(len(self.X),) * 2)
        _, prompts = connected_components(graph, directed=False)
        # Responses without a partner have no pair to be scored: they are always trained on.
        alone = ~np.isin(prompts, prompts[self.pairs])
        paired, single = np.flatnonzero(~alone), np.flatnonzero(alone)
        folds = GroupKFold(n_folds).split(paired, groups=prompts[paired])
        return [(np.concatenate([paired[a], single]), paired[b]) for a, b in folds]

    def accuracy(self, network: TwoLayerNetwork) -> float:
        """Weighted part of the pairs, or of the responses, that a head has right."""
        logits = network.forward(self.X)[:, 0]
        if self.pairs is None:
            return float(np.average((logits > 0) == self.preferred, weights=self.weight))
        won, lost = logits[self.pairs].T
        return float(np.average(won > lost, weights=self.pair_weight))


class _SecondPhase(COALAPreferenceHead):
    """Phase II alone, from a network of phase I."""

    def __init__(
        self, model: COALAPreferenceHeadCV, ridge: float, network: TwoLayerNetwork, result: Result
    ) -> None:
        super().__init__(
            model.loss,
            beta=model.beta,
            gamma=model.gamma,
            ridge=ridge,
            max_iter=model.max_iter,
            solver=model.solver,
        )
        training: Any = SimpleNamespace(result=result)
        nothing: Any = None
        self._first = Fit(network, training, nothing, 0.0, 0.0, None)

    def train(self, rows: Responses, classes: NDArray[Any]) -> TwoLayerNetwork:
        """The head."""
        X, preferred, weight, pairs, pair_weight = rows
        self._fit(X, preferred, classes, weight, pairs, pair_weight, None)
        return self.network_

    def _fit_network(self, *_: Any, **__: Any) -> Fit:
        return self._first

    def _set_fitted(self, fit: Fit) -> None:
        self.network_ = fit.network
