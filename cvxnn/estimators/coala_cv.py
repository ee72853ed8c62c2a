"""The preference head that chooses the strengths of both its phases by cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from cvxnn import convex
from cvxnn.estimators._advice import end_of_grid, warn_of_grid
from cvxnn.estimators._cross_validation import HoldsEstimator, warn_of_gaps
from cvxnn.estimators._monitor import Hook, progress_line
from cvxnn.estimators._parameters import Number, check_parameters
from cvxnn.estimators._preference_head import PreferenceHead
from cvxnn.estimators._responses import Responses
from cvxnn.estimators._rows import merge
from cvxnn.estimators.coala import COALAPreferenceHead
from cvxnn.estimators.prediction import NetworkPrediction

_STRENGTHS = (0.3, 0.1, 0.03, 0.01)
_RIDGES = (1e-1, 1e-2, 1e-3)


class COALAPreferenceHeadCV(PreferenceHead, NetworkPrediction, HoldsEstimator):
    r"""Preference head of the paper's Algorithm 1 that chooses ``strength`` and ``ridge``.

    The former belongs to phase I, the latter to phase II.

    Each combination is scored by the accuracy on held-out pairs: how often the chosen response
    has the higher reward; without pairs, by that of single responses. Responses that are paired
    stay in one fold. In each fold the first phase goes along all ``strengths`` with one set of
    patterns, and the second along all ``ridges``, each from where the one before ended. A clone of
    ``estimator`` is then fitted to all rows.

    Parameters
    ----------
    estimator : COALAPreferenceHead, optional
        Its parameters count, but for ``strength`` and ``ridge``, which are chosen; by default
        ``COALAPreferenceHead(formulation="relu")``. It is cloned, never fitted itself. One of many
        gates is refused: it chooses its strength itself, on groups of pairs that are left out.
    strengths : array-like, default=(0.3, 0.1, 0.03, 0.01)
        Strengths of phase I to try, above 0 and at most 1: fractions of ``alpha_max_``.
    ridges : array-like, default=(0.1, 0.01, 0.001)
        Ridges of phase II to try, above 0.
    n_folds : int, default=5
        Number of folds, at least 2. Equal responses are in one fold, so that an integer weight
        equals repetition.
    verbose : int, default=0
        1 writes progress lines to standard error: which fold is at work, then the fit to all rows.

    Attributes
    ----------
    strengths_ : ndarray, shape (n_strengths,)
        Strengths that were tried, falling.
    ridges_ : ndarray, shape (n_ridges,)
        Ridges that were tried, falling.
    cv_scores_ : ndarray, shape (n_folds, n_strengths, n_ridges)
        Held-out accuracies.
    best_strength_, best_ridge_ : float
        The choice: of the highest mean accuracy, among equals the stronger ``strength``, then the
        stronger ``ridge``.
    best_score_ : float
        Mean accuracy of the choice.
    network_, classes_, ...
        Fitted attributes of the fit to all rows; see ``COALAPreferenceHead``.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import COALAPreferenceHead, COALAPreferenceHeadCV
    >>> rng = np.random.RandomState(0)
    >>> chosen, rejected = rng.randn(50, 8) + 1, rng.randn(50, 8) - 1
    >>> single = COALAPreferenceHead(formulation="relu", n_patterns=8, random_state=0)
    >>> head = COALAPreferenceHeadCV(single, n_folds=2)
    >>> bool(head.fit_pairs(chosen, rejected).best_score_ > 0.95)
    True
    """

    _held = COALAPreferenceHead
    _numbers: ClassVar[dict[str, Number]] = {
        "n_folds": Number(Integral, 2),
        "verbose": Number(Integral, words=(True, False)),
    }

    def __init__(
        self,
        estimator: COALAPreferenceHead | None = None,
        *,
        strengths: ArrayLike = _STRENGTHS,
        ridges: ArrayLike = _RIDGES,
        n_folds: int = 5,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.strengths = strengths
        self.ridges = ridges
        self.n_folds = n_folds
        self.verbose = verbose

    @property
    def beta(self) -> float:  # type: ignore[override]
        """Inverse temperature of the reward, of the estimator."""
        return self._base.beta

    @property
    def embedding(self) -> Mapping[str, Any] | None:  # type: ignore[override]
        """Description of the features, of the estimator."""
        return self._base.embedding

    def _check_parameters(self) -> None:
        check_parameters(self, self._numbers, {})
        self._check_base()
        if self._base.formulation != "relu":
            raise ValueError(
                "COALAPreferenceHeadCV chooses for Algorithm 1 of the COALA paper: set "
                "formulation='relu' on its estimator. With formulation='gated' fit "
                "COALAPreferenceHead itself, which chooses its strength on pairs left out."
            )

    @property
    def _base(self) -> Any:
        """Estimator whose parameters count."""
        if self.estimator is None:
            return COALAPreferenceHead(formulation="relu")
        return self.estimator

    def _fit(self, rows: Responses, hook: Hook | None) -> None:
        """Choose both strengths, then fit both phases to all rows."""
        from cvxnn.estimators._folds import Fold, best_of, fractions  # with JAX, for fits only

        strengths = fractions("strengths", self.strengths)
        ridges = fractions("ridges", self.ridges, most=np.inf)
        folds = rows.folds(self.n_folds)
        model = clone(self._base)
        scores = np.empty((len(folds), len(strengths), len(ridges)))
        gaps: list[float] = []
        with progress_line(self.verbose, type(self).__name__, joined=True) as write:
            for k, (seen, unseen) in enumerate(folds):
                if write is not None:
                    write(f"fold {k + 1} of {len(folds)}")
                part, held_out = rows.take(seen), rows.take(unseen)
                fold = Fold.of(model, merge(part.X, part.signs, part.weight), convex.SquaredLoss())
                for i, (network, result) in enumerate(fold.networks(strengths)):
                    gaps.append(result.gap)
                    for j, ridge in enumerate(ridges):
                        # Each ridge starts from the head of the one before.
                        model.set_params(ridge=float(ridge))
                        network = model._fit_second_phase(network, part).network
                        scores[k, i, j] = held_out.accuracy(network)
        best, self.best_score_ = best_of(scores.reshape(len(folds), -1))
        self.strengths_, self.ridges_, self.cv_scores_ = strengths, ridges, scores
        self.best_strength_ = float(strengths[best // len(ridges)])
        self.best_ridge_ = float(ridges[best % len(ridges)])
        warn_of_gaps(self, gaps, model.tol if model.solver is None else model.solver.tol)
        self._refit(
            lambda model: model._fit(rows, hook),
            strength=self.best_strength_,
            ridge=self.best_ridge_,
        )
        i, j = divmod(best, len(ridges))
        for name, value, own, k in (
            ("strengths", self.best_strength_, scores[:, :, j], i),
            ("ridges", self.best_ridge_, scores[:, i], j),
        ):
            warn_of_grid(
                self,
                f"{value:.2g} of {name}",
                end_of_grid(own, k),
                strong=f"Give larger {name}.",
                weak=f"Give smaller {name}.",
            )
