"""The linear preference head on frozen embeddings, with which COALA is compared."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from cvxnn._messages import warn
from cvxnn.estimators._advice import end_of_grid, warn_of_grid
from cvxnn.estimators._monitor import Hook
from cvxnn.estimators._parameters import Number, check_parameters
from cvxnn.estimators._preference_head import PreferenceHead
from cvxnn.estimators._responses import Responses
from cvxnn.estimators._rows import merge
from cvxnn.estimators._scaling import Scaling, column_means
from cvxnn.estimators._streamed_pairs import fit_streamed, sampled
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.stored_rows import is_stored
from cvxnn.numerics.threads import limit_threads

# Tried by C="auto": rising, so that each fit starts at a stronger penalty's solution.
_CS = np.logspace(-5, 0, 11)
# Logits that differ by less are the same.
_FLAT = 1e-6
# A tenth of the loss of chance.
_LITTLE = 0.1 * np.log(2)


class LinearPreferenceHead(PreferenceHead):
    r"""Linear reward on frozen embeddings, as in Q-Probe (Li et al., 2024).

    The logit is :math:`g(x) = w^T x + b`. With pairs, ``w`` minimises the Bradley-Terry loss

    .. math::

        \tfrac12 \|w\|^2 + C \sum_k \omega_k \log\big(1 + e^{-w^T (z_{w,k} - z_{l,k})}\big)

    over embeddings ``z`` of mean 0 and variance 1 in each feature; without pairs it is logistic
    regression on single responses. scikit-learn's ``LogisticRegression`` does the work. What
    COALA adds to this head is the hidden layer.

    Parameters
    ----------
    C : float or "auto", default="auto"
        Inverse strength of the penalty, above 0. ``"auto"`` chooses among 11 values from 1e-5
        to 1 by the held-out loss in cross-validation, which keeps responses that are paired, or
        equal, in one fold.
    beta : float, default=1.0
        Scale of the reward :math:`\beta \log \sigma(g)`, above 0.
    n_folds : int, default=5
        Folds of the cross-validation for ``C="auto"``, at least 2; fewer are made where there are
        fewer prompts.
    standardize : bool, default=True
        Bring features to mean 0 and variance 1.
    tol : float, default=1e-4
        Tolerance of ``LogisticRegression``, above 0.
    max_iter : int, default=1000
        Most iterations of ``LogisticRegression``, at least 1.
    embedding : dict, optional
        Description of the features, ``cvxnn.llm.Embedder.description``. It is saved with the head,
        and needed to generate with it.
    random_state : int, RandomState or None, default=None
        Decides which pairs ``C`` is chosen on, where more than 2**25 numbers stay on the disk
        (``StoredRows``); the head is then fitted to all of them. Nothing else is random.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
        The label of other responses, then that of preferred ones.
    network_ : cvxnn.network.TwoLayerNetwork
        The head for raw embeddings: no neurons, only the linear part.
    coef_ : ndarray, shape (n_features,)
        ``w`` for raw embeddings.
    intercept_ : float
        ``b``; pairs leave it free, and logits then average 0 over the training responses.
    C_ : float
        Inverse strength that was used.
    Cs_, cv_scores_ : ndarray, shape (n_Cs,), (n_folds, n_Cs)
        Values that were tried, and minus the held-out loss of each; absent if ``C`` is given.
    n_iter_ : int
        Iterations of the last fit.
    flops_ : float
        Floating-point operations of all fits, dense products only, at one evaluation of the loss
        an iteration.
    n_features_in_ : int
        Number of features seen in ``fit``.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn import LinearPreferenceHead
    >>> rng = np.random.RandomState(0)
    >>> chosen, rejected = rng.randn(50, 8) + 1, rng.randn(50, 8) - 1
    >>> head = LinearPreferenceHead().fit_pairs(chosen, rejected)
    >>> bool((head.reward_margin(chosen, rejected) > 0).mean() > 0.95)
    True
    """

    _numbers: ClassVar[dict[str, Number]] = {
        "C": Number(Real, closed=False, words=("auto",)),
        "beta": Number(Real, closed=False),
        "n_folds": Number(Integral, 2),
        "tol": Number(Real, closed=False),
        "max_iter": Number(Integral, 1),
    }

    def __init__(
        self,
        C: float | Literal["auto"] = "auto",
        *,
        beta: float = 1.0,
        n_folds: int = 5,
        standardize: bool = True,
        tol: float = 1e-4,
        max_iter: int = 1000,
        embedding: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.C = C
        self.beta = beta
        self.n_folds = n_folds
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.embedding = embedding
        self.random_state = random_state

    @property
    def coef_(self) -> NDArray[np.floating]:
        """Weights of raw features."""
        check_is_fitted(self)
        assert self.network_.linear_weights is not None
        return self.network_.linear_weights[:, 0]

    @property
    def intercept_(self) -> float:
        """Logit of an embedding of zeros."""
        check_is_fitted(self)
        return float(self.network_.output_bias[0])

    def _check_parameters(self) -> None:
        check_parameters(self, self._numbers, {})
        self._check_embedding()

    def _fit(self, rows: Responses, hook: Hook | None) -> None:
        """Choose the strength if asked to, then fit to all rows; nothing is measured between."""
        self.flops_ = 0.0
        seen = None
        if is_stored(rows.X) and rows.pairs is not None:
            seen = sampled(rows, check_random_state(self.random_state))
        if seen is None:
            rows = rows._replace(X=np.asarray(rows.X))
        some = rows if seen is None else seen
        for name in ("Cs_", "cv_scores_"):
            self.__dict__.pop(name, None)
        if self.C == "auto":
            folds = self._folds(some)
            scores = np.zeros((len(folds), len(_CS)))
            for k, (kept, unseen) in enumerate(folds):
                scores[k] = [
                    _score(network, some.take(unseen))
                    for network in self._path(some.take(kept), _CS)
                ]
            # Among equals the strongest penalty; without folds as well.
            self.C_ = float(_CS[scores.mean(axis=0).argmax()]) if folds else float(_CS[0])
            self.Cs_, self.cv_scores_ = _CS.copy(), scores
        else:
            self.C_ = float(self.C)
        (self.network_,) = self._path(some, np.array([self.C_]))
        if seen is not None:
            self.network_ = self._streamed(rows, self.network_)
        auto = self.C == "auto"
        if np.ptp(self.network_.forward(rows.X)) <= _FLAT:
            tried = "no feature separates the preferred ones" if auto else f"C={self.C!r}"
            remedy = "" if auto else "Raise C. If that does not help, no feature separates them. "
            warn(
                f"LinearPreferenceHead gives all responses the same reward: {tried}. {remedy}See "
                "that their embeddings differ.",
            )
        elif auto and len(self.cv_scores_):
            best = int(np.flatnonzero(_CS == self.C_)[0])
            end = end_of_grid(self.cv_scores_, best)
            if end > 0 and self.cv_scores_[:, best].mean() > -_LITTLE:
                end = 0  # hardly anything is left to gain
            warn_of_grid(
                self,
                f"C={self.C_:g}",
                end,
                strong="The embeddings say little: try another layer or model, or more pairs.",
                weak=f"Set C={10 * self.C_:g} or more.",
            )

    def _folds(self, rows: Responses) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Return at most ``n_folds`` folds, or none where there is only one prompt."""
        most = self.n_folds
        if rows.pairs is None:
            distinct = np.unique(np.column_stack([rows.X, rows.preferred]), axis=0)
            n_preferred = int(distinct[:, -1].sum())
            most = min(most, n_preferred, len(distinct) - n_preferred)
        for n_folds in range(most, 1, -1):
            try:
                return rows.folds(n_folds)
            except ValueError:  # more folds than prompts
                continue
        return []

    def _path(self, rows: Responses, Cs: NDArray[np.floating]) -> list[TwoLayerNetwork]:
        """Return heads of rising ``Cs``, each fitted from the one before."""
        X, weight = rows.X, rows.weight
        scaling, scale = self._units(X, weight)
        Z = ((X - scaling.x_mean) / scale).astype(X.dtype)
        if rows.pairs is None:
            Z, target, omega, *_ = merge(Z, rows.signs, weight)
        else:
            assert rows.pair_weight is not None
            margins = Z[rows.pairs[:, 0]] - Z[rows.pairs[:, 1]]
            margins, target, omega, *_ = merge(
                margins, np.ones((len(margins), 1), X.dtype), rows.pair_weight
            )
            if len(margins) == 1:
                margins, target, omega = margins.repeat(2, 0), target.repeat(2, 0), omega.repeat(2)
                omega = omega / 2
            # A pair and its mirror image have one loss, and LogisticRegression asks for two
            # classes: every other pair is turned round.
            target[1::2] = -1
            Z = margins * target
        # Near the optimum of a strong penalty, steps change the loss by less than float32 can tell.
        Z = Z.astype(np.float64, copy=False)
        model = LogisticRegression(
            C=1.0,
            fit_intercept=rows.pairs is None,
            tol=self.tol,
            max_iter=self.max_iter,
            warm_start=True,
        )
        networks = []
        for C in Cs:
            with limit_threads(2.0 * Z.size):
                model.set_params(C=float(C)).fit(Z, target[:, 0], sample_weight=omega)
            self.n_iter_ = int(model.n_iter_[0])
            self.flops_ += 4.0 * Z.size * (self.n_iter_ + 1)
            coef = (model.coef_[0] / scale).astype(X.dtype)
            level = column_means(X, weight) if rows.pairs is not None else None
            offset = model.intercept_[0] - scaling.x_mean @ coef if level is None else -level @ coef
            networks.append(_linear(coef, offset))
        return networks

    def _streamed(self, rows: Responses, start: TwoLayerNetwork) -> TwoLayerNetwork:
        """Return the head of all pairs on the disk, fitted from that of a sample."""
        X, weight = rows.X, rows.weight
        scaling, scale = self._units(X, weight)
        assert start.linear_weights is not None
        known = np.isfinite(scale)  # others are of constant features
        found = fit_streamed(
            rows,
            scaling.x_mean,
            scale,
            C=self.C_,
            tol=self.tol,
            max_iter=self.max_iter,
            start=np.where(known, start.linear_weights[:, 0] * np.where(known, scale, 0.0), 0.0),
        )
        self.n_iter_ = found.n_iter
        self.flops_ += 4.0 * X.size / 2 * found.n_evaluations
        coef = (found.weights / scale).astype(X.dtype)
        return _linear(coef, -column_means(X, weight) @ coef)

    def _units(self, X: Any, weight: NDArray[np.floating]) -> tuple[Scaling, NDArray[np.floating]]:
        """Return the units of features, and their scale as a standard deviation."""
        scaling = Scaling.of(
            X,
            np.zeros((len(X), 1), X.dtype),
            weight,
            standardize=self.standardize,
            fit_intercept=True,
        )
        # Not the multiple that makes rows short.
        return scaling, scaling.x_scale / (np.sqrt(X.shape[1]) if self.standardize else 1)


def _linear(coef: NDArray[np.floating], offset: Any) -> TwoLayerNetwork:
    """Return the linear network, which has no neurons."""
    d, dtype = len(coef), coef.dtype
    return TwoLayerNetwork(
        hidden_weights=np.zeros((0, d), dtype),
        hidden_bias=np.zeros(0, dtype),
        output_weights=np.zeros(0, dtype),
        output_bias=np.array([offset], dtype),
        linear_weights=coef[:, None],
    )


def _score(network: TwoLayerNetwork, rows: Responses) -> float:
    """Return minus the weighted mean loss on held-out rows."""
    logits = network.forward(rows.X)[:, 0]
    if rows.pairs is None:
        return float(np.average(log_expit(logits * rows.signs[:, 0]), weights=rows.weight))
    won, lost = logits[rows.pairs].T
    return float(np.average(log_expit(won - lost), weights=rows.pair_weight))
