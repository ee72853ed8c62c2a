"""Classifiers that take rows in and forget them again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if

from cvxnn import convex, training  # names load when first used: JAX is for fits only
from cvxnn.estimators._classes import class_weights, codes_of
from cvxnn.estimators._incremental import Batch, First, Incremental, takes_rows
from cvxnn.estimators._rows import weights_of
from cvxnn.numerics.scores import ANY_PROBABILITY, probability_range

Floats = NDArray[np.floating]


class IncrementalClasses(Incremental):
    """Estimator of labels, all of which are known after the first call."""

    class_weight: Any
    _validate: Callable[..., Any]
    _link: Callable[..., dict[str, Any]]
    classes_: NDArray[Any]
    probability_range_: NDArray[np.float64]

    @available_if(takes_rows)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Add rows to the fit, at a cost that does not grow with those that it has.

        For the squared loss the fit is exact; for the logistic one it is Newton's step from the fit
        to the first call's rows, and ``gap_`` is a proved bound.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite rows.
        y : array-like, shape (n_samples,)
            Labels; those of the first call are of two classes at least.
        classes : array-like, shape (n_classes,), optional
            All labels that there will be, in the first call; by default those of its ``y``.
        sample_weight : array-like, shape (n_samples,), optional
            Non-negative weights, which count as repetitions here.

        Returns
        -------
        self
            The estimator, fitted to all rows so far; an interrupted call leaves it as it was.

        Raises
        ------
        ValueError
            With ``early_stopping`` or ``class_weight="balanced"``; for labels that ``classes``
            lacks; or if the matrix would take more than 2 GiB: the message says which
            ``n_patterns`` would do.

        Notes
        -----
        ``fit`` keeps no sums: after it, the first call begins again, with its own rows, and warns.
        With ``m = n_patterns_ * (n_features_in_ + 1)``, ``k`` rows take ``k m**2`` flops and a few
        products with the matrix, which takes ``8 m**2`` bytes, its factor as many;
        :mod:`cvxnn.training.normal_equations` has the equations. With the logistic loss each output
        has a matrix. ``n_patterns="auto"`` leads to at most 4,096 weights.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' changes with the rows, and partial_fit holds weights: "
                "give a dict."
            )
        labels = None if classes is None else np.asarray(classes)
        if labels is not None:
            known = getattr(self, "classes_", np.unique(labels))
            if not np.array_equal(np.unique(labels), known):
                raise ValueError(
                    f"classes={labels.tolist()} are not those of the first call, {known.tolist()}."
                )
        given = X, y, sample_weight
        return self._add(lambda: self._batch(*given), lambda: given, First(labels))

    def _change(
        self, batch: Batch, *, remove: bool
    ) -> tuple[training.Solution, NDArray[np.uint64]]:
        """Add or remove a batch; probabilities of rows that are added are reached by others."""
        found = super()._change(batch, remove=remove)
        held = self.probability_range_
        if not remove and tuple(held) != ANY_PROBABILITY:
            own = probability_range(**self._link(batch.X))
            self.probability_range_ = np.array([min(held[0], own[0]), max(held[1], own[1])])
        return found

    def _batch(self, X: Any, y: Any, sample_weight: Any) -> Batch:
        """Check rows that are added or removed."""
        data, labels = self._validate(X, y, reset=False)
        remedy = "; give all in classes= of the first call"
        codes = codes_of(labels, self.classes_, "y", remedy)
        weight = weights_of(sample_weight, data.shape[0], data.dtype)
        weight = class_weights(self.class_weight, self.classes_, codes, weight)
        return Batch(data, self._targets(codes, len(self.classes_), data.dtype)[1], weight)

    @abstractmethod
    def _targets(
        self, codes: NDArray[np.intp], n_classes: int, dtype: Any = None
    ) -> tuple[convex.Loss, Floats]:
        """Return the loss, and targets in the form that it takes."""
