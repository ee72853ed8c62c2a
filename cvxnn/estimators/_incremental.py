"""Fits that take rows in and forget them again, at a cost that does not depend on the others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn._messages import warn
from cvxnn.estimators._certified import Solved
from cvxnn.estimators._certified_answers import CertifiedAnswers
from cvxnn.estimators._monitor import all_or_nothing
from cvxnn.estimators._rows import Rows
from cvxnn.estimators._scaling import Scaling
from cvxnn.explanation import Removal
from cvxnn.files.digests import digest
from cvxnn.network import fold_scaling, recover
from cvxnn.numerics.arrays import is_sparse

# Most weights of an output that an automatic number of patterns leads to, and at all: the matrix
# then takes 128 MiB, and 2 GiB.
MOST_WEIGHTS, _MOST_NUMBERS = 4096, 2**28
# Sums over rows that are kept.
_SUMS = ("gram", "right", "constant", "total", "ridge", "centre", "reach")

Floats = NDArray[np.floating]


class Batch(NamedTuple):
    """Rows, or pairs of rows, that are added or removed.

    Attributes
    ----------
    X : ndarray, shape (n_rows, n_features)
        Raw rows.
    y : ndarray, shape (n_units, n_outputs)
        Targets in the form of the loss, of rows or of pairs.
    weight : ndarray, shape (n_units,)
        Weights.
    pairs : ndarray of int, shape (n_units, 2), or None
        Rows of each pair.
    """

    X: Rows
    y: Floats
    weight: Floats
    pairs: NDArray[np.intp] | None = None

    def keys(self) -> NDArray[np.uint64]:
        """Return a number for each row or pair, that of its contents, in rising order."""
        X = self.X.toarray() if is_sparse(self.X) else np.asarray(self.X)
        own = X if self.pairs is None else X[self.pairs].reshape(len(self.pairs), -1)
        rows = np.column_stack([own, self.y, self.weight]).astype(np.float64) + 0.0
        return np.sort(np.array([int(digest(row), 16) for row in rows], np.uint64))

    def counted(self) -> Batch:
        """Return those of positive weight."""
        kept = self.weight > 0
        if kept.all():
            return self
        if self.pairs is None:
            return Batch(self.X[kept], self.y[kept], self.weight[kept])
        return self._replace(y=self.y[kept], weight=self.weight[kept], pairs=self.pairs[kept])


class First(NamedTuple):
    """What the first batch is fitted with: all labels that there will be, where they are given."""

    classes: NDArray[Any] | None = None


def takes_rows(estimator: Any) -> bool:
    """Return True if sums over rows determine the fit; say why not otherwise."""
    if not estimator._is_quadratic():
        raise AttributeError(
            f"partial_fit and forget of {type(estimator).__name__} need formulation='gated', "
            "penalty='l2', skip=None, a positive strength, and loss='squared' or 'logistic': other "
            "fits depend on their rows by more than sums."
        )
    return True


class Incremental(CertifiedAnswers):
    """Estimator whose fit follows from sums over its rows, which may come and go.

    What is held is what the first batch chose: gates, scaling of features and targets, the ridge
    ``alpha_ * n`` of the sum of losses, and calibration. All else is the fit to the present rows.
    """

    n_samples_seen_: int
    alpha_: Any
    alpha_max_: float
    strength_: Any
    early_stopping: bool
    fit: Callable[..., Any]
    _first: First | None = None
    _factors: training.KeptFactors

    @available_if(takes_rows)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Add rows to the fit, at a cost that does not grow with those that it has.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite rows.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative weights, which count as repetitions here.

        Returns
        -------
        self
            The estimator, fitted to all rows so far; an interrupted call leaves it as it was.

        Raises
        ------
        ValueError
            With ``early_stopping``, or if the matrix would take more than 2 GiB: the message says
            which ``n_patterns`` would do.

        Notes
        -----
        ``fit`` keeps no sums: after it, the first call begins again, with its own rows, and warns.
        With ``m = n_patterns_ * (n_features_in_ + 1)``, ``k`` rows take ``k m**2`` flops and a few
        products with the matrix, which takes ``8 m**2`` bytes, its factor as many;
        :mod:`cvxnn.training.normal_equations` has the equations. ``n_patterns="auto"`` leads to at
        most 4,096 weights.
        """
        given = X, y, sample_weight
        return self._add(lambda: self._batch(*given), lambda: given, First())

    @available_if(takes_rows)
    def forget(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Removal:
        """Remove rows from the fit, as if they had never been added to it.

        Parameters
        ----------
        X, y, sample_weight : array-like
            Rows that ``partial_fit`` was given, with their targets and weights, in any order and
            from any calls.

        Returns
        -------
        cvxnn.explanation.Removal
            What was removed, and a bound on what the fit differs from one without these rows, with
            the same gates, scaling and ridge. Those were chosen from the first batch: only rows of
            later ones leave no trace in them.

        Raises
        ------
        ValueError
            If some of the rows are not among those that were added, or none would stay; the
            estimator then is as it was.
        """
        return self._remove(lambda: self._batch(X, y, sample_weight))

    @abstractmethod
    def _batch(self, X: Any, y: Any, sample_weight: Any) -> Batch:
        """Check rows that are added or removed."""

    @abstractmethod
    def _has_bias(self) -> bool:
        """Return whether rows of the program end with a one."""

    @abstractmethod
    def _is_quadratic(self) -> bool:
        """Return whether sums over rows determine the fit, or Newton's step."""

    @abstractmethod
    def _incremental_loss(self) -> convex.Loss:
        """Return the loss of the program."""

    def _add(
        self,
        batch: Callable[[], Batch],
        given: Callable[[], tuple[Any, Any, Any]],
        first: First,
        fit: Callable[[], Any] | None = None,
    ) -> Self:
        """Add a batch; the first one is fitted."""
        if self.early_stopping:
            raise ValueError("partial_fit fits all rows: set early_stopping=False.")
        with all_or_nothing(self):
            if hasattr(self, "_sums"):
                self._change(batch().counted(), remove=False)
                return self
            if hasattr(self, "network_"):  # scikit-learn's checks refuse an error here
                warn(
                    f"this {type(self).__name__} was fitted as a whole, which keeps no sums to add "
                    "rows to: it begins again, with the rows of this call alone. Give the first "
                    "rows to partial_fit, too.",
                    UserWarning,
                )
            self._first = first
            X, y, sample_weight = given()
            if fit is None:
                self.fit(X, y, sample_weight=sample_weight)
            else:
                fit()
            del self._first
            self._begin(self._solved(X, y, sample_weight, None), batch().counted())
        return self

    def _remove(self, batch: Callable[[], Batch]) -> Removal:
        check_is_fitted(self)
        if not hasattr(self, "_sums"):
            raise ValueError(
                "this fit keeps no sums, so it can forget nothing: fit it by partial_fit, or again "
                "without these rows."
            )
        with all_or_nothing(self):
            removed = batch().counted()
            solution, keys = self._change(removed, remove=True)
        scaling, held = self._held_scaling(), self._as_it_is()
        assert scaling is not None
        for large in ("_sums", "_factors"):
            held.__dict__.pop(large, None)
        return Removal(
            digest(keys, digits=64),
            len(keys),
            self.n_samples_seen_,
            solution.distance,
            self.gap_,
            partial(held._feature_norms, scaling),
        )

    def _feature_norms(self, scaling: Scaling, new: Any) -> Floats:
        """Return the norms of the features of raw rows, in units of the targets."""
        inputs, mask = self._look(scaling, new)
        squares = (np.asarray(inputs, np.float64) ** 2).sum(axis=1) * mask.sum(axis=1)
        return np.sqrt(squares)[:, None] * scaling.y_scale

    def _begin(self, solved: Solved, batch: Batch) -> None:
        """Sum up the first batch."""
        certificate, total = solved.certificate, float(batch.weight.sum())
        centre = np.asarray(certificate.weights.blocks, np.float64)[:, 0]
        sums = training.NormalEquations.of(certificate.program, total, centre)
        self._factors = training.KeptFactors()
        self._settle(sums, sums.centre, batch.keys(), solved.scaling)

    def _change(
        self, batch: Batch, *, remove: bool
    ) -> tuple[training.Solution, NDArray[np.uint64]]:
        """Add or remove a batch."""
        known, keys = self._sums["keys"], batch.keys()
        kept = _without(known, keys) if remove else np.sort(np.concatenate([known, keys]))
        scaling = self._held_scaling()
        assert scaling is not None
        inputs, mask = self._program_rows(batch.X, scaling)
        inputs = inputs.toarray() if is_sparse(inputs) else inputs
        targets = (batch.y - scaling.y_mean) / scaling.y_scale
        program = convex.ConvexProgram(
            convex.paired(inputs, mask, batch.pairs),
            targets,
            self.alpha_,
            self._incremental_loss(),
            convex.SquaredL2(),
            batch.weight,
            "gated",
        )
        state = {name: self._sums[name] for name in _SUMS}
        sums = training.NormalEquations(**state, loss=program.loss)
        total = float(batch.weight.sum())
        changed = sums.changed(program, total, remove=remove)
        return self._settle(changed, self._sums["blocks"], kept, scaling), keys

    def _settle(
        self,
        sums: training.NormalEquations,
        start: Floats,
        keys: NDArray[np.uint64],
        scaling: Scaling,
    ) -> training.Solution:
        """Take the solution of sums."""
        if not hasattr(self, "_factors"):  # they are not saved
            self._factors = training.KeptFactors()
        solution = self._factors.solve(sums, start)
        gates = self._proof["gates"]
        blocks = solution.blocks[:, None].astype(gates.dtype)
        network = recover(convex.Weights(blocks, None), bias=self._has_bias(), gates=gates)
        self._take(fold_scaling(network, *scaling))
        alpha = sums.ridge / sums.total
        self.alpha_ = alpha if np.ndim(self.alpha_) else float(alpha[0])
        self.strength_ = self.alpha_ / self.alpha_max_
        self.objective_, self.dual_bound_ = solution.objective, solution.bound
        self.gap_ = convex.relative_gap(solution.objective, solution.bound)
        if not np.isfinite(solution.distance).all():
            warn(
                f"the rows that changed take {type(self).__name__} too far from the fit to the "
                "first ones for a proof that Newton's step is near the optimum; fit all rows "
                "again, by partial_fit on sklearn.base.clone(estimator).",
                ConvergenceWarning,
            )
        self.n_samples_seen_ = len(keys)
        self._proof = {"gates": gates, "blocks": blocks}
        self._sums = {
            **{name: getattr(sums, name) for name in _SUMS},
            **{f"scaling.{name}": value for name, value in scaling._asdict().items()},
            "blocks": solution.blocks,
            "keys": keys,
        }
        return solution


def check_matrix(n_patterns: int, d: int, n_matrices: int) -> None:
    """Refuse patterns whose weights have a matrix that is too large."""
    most = int((_MOST_NUMBERS / n_matrices) ** 0.5)
    if n_patterns * d > most:
        raise ValueError(
            f"n_patterns={n_patterns} of {d} inputs are {n_patterns * d} weights, whose matrix "
            f"takes {8 * n_matrices * (n_patterns * d) ** 2 / 2**30:.3g} GiB; for partial_fit set "
            f"n_patterns to at most {max(most // d, 1)}, or to 'auto'."
        )


def coded(labels: NDArray[Any], first: First | None) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the classes, and the number of each label's; those of a first batch may be more."""
    if first is None or first.classes is None:
        return np.unique(labels, return_inverse=True)
    classes = np.unique(first.classes)
    unknown = np.setdiff1d(labels, classes)
    if len(unknown):
        raise ValueError(f"y has labels {unknown.tolist()} that classes={classes.tolist()} lacks.")
    return classes, np.searchsorted(classes, labels)


def _without(known: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return sorted keys without some of them."""
    distinct, counts = np.unique(keys, return_counts=True)
    first = np.searchsorted(known, distinct)
    there = np.searchsorted(known, distinct, side="right") - first
    missing = int(np.maximum(counts - there, 0).sum())
    if missing:
        raise ValueError(
            f"{missing} of {len(keys)} rows to forget are not among those that were added: give "
            "the same numbers, targets and weights."
        )
    if len(keys) == len(known):
        raise ValueError("no row would stay; fit again, with other rows, instead.")
    gone = np.concatenate([np.arange(a, a + k) for a, k in zip(first, counts, strict=True)])
    return np.delete(known, gone)
