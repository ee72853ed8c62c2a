"""The choice of labels as a query strategy of scikit-activeml (extra ``active``)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from cvxnn import training  # names load when first used: JAX is for fits only
from cvxnn._extras import require


class LabelQuery:
    """What scikit-activeml asks of a strategy; `make_query_strategy` makes one."""

    criterion: training.Criterion

    missing_label_: Any
    random_state_: Any
    _validate_data: Any
    _transform_candidates: Any

    def query(
        self,
        X: ArrayLike,
        y: ArrayLike,
        clf: Any,
        *,
        candidates: ArrayLike | None = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        """Choose the rows to label next.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            All rows. For a preference head, each is a pair: the embedding of one reply, then that
            of the other.
        y : array-like, shape (n_samples,)
            Labels, the missing label where there is none. For a preference head, 1 where the first
            reply was preferred, 0 where the second was.
        clf : estimator
            ConvexReLUClassifier or COALAPreferenceHead; a copy is fitted to the labelled rows.
        candidates : array-like, optional
            Numbers of rows that may be asked for, or rows; all without a label by default.
        batch_size : int, default=1
            How many rows to choose.
        return_utilities : bool, default=False
            Whether to return, for each of the choices, what every candidate would add.

        Returns
        -------
        ndarray of int, shape (batch_size,)
            Numbers of the rows, or of the ``candidates`` if these are rows.
        ndarray, shape (batch_size, n_samples)
            Only with ``return_utilities``. The first row has what each candidate would add as the
            first; the others have only what the chosen ones add.

        Raises
        ------
        ValueError
            If no row has a label, which a first random batch mends.
        """
        is_labeled = require("skactiveml.utils", extra="active").is_labeled
        checked = self._validate_data(X, y, candidates, batch_size, return_utilities, reset=True)
        every, labels, candidates, batch_size, return_utilities = checked
        rows, mapping = self._transform_candidates(candidates, every, labels)
        labelled = is_labeled(labels, missing_label=self.missing_label_)
        if not labelled.any():
            raise ValueError("no row has a label; label a first batch at random.")
        known, target = np.asarray(every)[labelled], np.asarray(labels)[labelled]
        model: Any = clone(clf)
        settings = {"n": batch_size, "criterion": self.criterion}
        if hasattr(model, "fit_pairs"):
            first, second = _halves(known)
            won = (target == 1)[:, None]
            chosen, rejected = np.where(won, first, second), np.where(won, second, first)
            data = np.concatenate([chosen, rejected]), np.repeat([1, 0], len(target))
            model.fit_pairs(chosen, rejected)
            asked = model.next_labels(*data, _halves(rows), **settings)
        else:
            target = np.array(target.tolist())  # objects, where labels are words
            if target.dtype.kind == "f" and np.all(np.mod(target, 1) == 0):
                target = target.astype(int)
            asked = model.fit(known, target).next_labels(known, target, rows, **settings)
        numbers = np.arange(len(rows)) if mapping is None else mapping
        if not return_utilities:
            return numbers[asked.order]
        n = len(rows) if mapping is None else len(labelled)
        utilities = np.full((batch_size, n), np.nan)
        utilities[0, numbers] = asked.utility
        utilities[np.arange(batch_size), numbers[asked.order]] = asked.gain
        return numbers[asked.order], utilities


def make_query_strategy(
    criterion: training.Criterion = "variance",
    missing_label: Any = np.nan,
    random_state: Any = None,
) -> Any:
    """Make a query strategy for scikit-activeml that asks for the most informative labels.

    ``next_labels`` of the estimator decides (:mod:`cvxnn.training.labelling`).

    Parameters
    ----------
    criterion : {"variance", "determinant"}, default="variance"
        What the labels should do most: lower the mean variance of all candidates' predictions, or
        raise the determinant of the Hessian (D-optimal).
    missing_label : scalar, default=nan
        What stands in ``y`` where there is no label.
    random_state : int, RandomState or None, default=None
        It has no effect, since nothing is random; scikit-activeml expects it.

    Returns
    -------
    skactiveml.base.SingleAnnotatorPoolQueryStrategy
        Its ``query(X, y, clf)`` is that of :class:`LabelQuery`.

    Raises
    ------
    ImportError
        Without scikit-activeml; install the extra ``active``.
    """
    base = require("skactiveml.base", extra="active").SingleAnnotatorPoolQueryStrategy
    made = type("LabelQuery", (LabelQuery, base), {"criterion": criterion})
    return made(missing_label=missing_label, random_state=random_state)


def _halves(X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the first and the second replies of rows that hold both."""
    width = np.shape(X)[1]
    if width % 2:
        raise ValueError(
            f"X has {width} columns; expected the embedding of one reply, then that of the other, "
            "of equal widths."
        )
    return np.asarray(X)[:, : width // 2], np.asarray(X)[:, width // 2 :]
