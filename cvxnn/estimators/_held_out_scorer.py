"""Scorers of held-out rows, which may lack a class, and which may take no weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from inspect import Parameter, signature
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import check_scoring, make_scorer, r2_score


class HeldOutScorer(NamedTuple):
    """A scorer of scikit-learn as a function of held-out rows.

    Attributes
    ----------
    scorer : callable
        Takes an estimator, rows and targets, and returns a number, the larger the better.
    takes_weight : bool
        Whether it takes ``sample_weight``, too.
    """

    scorer: Callable[..., Any]
    takes_weight: bool

    @classmethod
    def of(cls, estimator: Any, scoring: Any, classes: NDArray[Any] | None) -> HeldOutScorer:
        """Find the scorer that ``scoring`` stands for.

        Parameters
        ----------
        estimator : estimator
            Its own score is used where ``scoring`` is None.
        scoring : str, callable or None
            As in scikit-learn.
        classes : ndarray, shape (n_classes,), or None
            All labels, for scores of probabilities, which cannot know a class that the held-out
            rows lack; None for a regressor.
        """
        scorer = check_scoring(estimator, scoring=scoring)
        measure = getattr(scorer, "_score_func", None)
        options = dict(getattr(scorer, "_kwargs", {}))
        of_labels = getattr(scorer, "_response_method", "predict") == "predict"
        if classes is not None and not of_labels and "labels" in _parameters(measure):
            # The way of scikit-learn's LogisticRegressionCV.
            scorer = make_scorer(
                measure,
                greater_is_better=scorer._sign == 1,
                response_method=scorer._response_method,
                **{"labels": classes, **options},
            )
        if classes is None and (scoring is None or scoring == "r2"):
            return cls(_coefficient_of_determination, takes_weight=True)
        asked = estimator.score if scoring is None else measure or scorer
        parameters = _parameters(asked)
        any_name = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
        return cls(scorer, "sample_weight" in parameters or any_name)

    def __call__(
        self, model: Any, X: Any, labels: NDArray[Any], weight: NDArray[np.floating] | None
    ) -> float:
        """Return the score of a model on rows; weights are left out if it takes none.

        It is NaN where the rows have none, as R2 of one row; such a fold does not count.
        """
        given = {"sample_weight": weight} if self.takes_weight and weight is not None else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            score = self.scorer(model, X, labels, **given)
        if not isinstance(score, Real):
            raise ValueError(f"scoring gave {score!r}; expected one number, the larger the better.")
        return float(score)


def _coefficient_of_determination(
    model: Any, X: Any, targets: NDArray[Any], sample_weight: Any = None
) -> float:
    """Return R2, to which rounding adds nothing where targets are constant.

    The mean of equal numbers is another one by rounding, and R2 then the error over nothing. From
    the least of the targets on, which changes no R2, it is exact.
    """
    rows = slice(None) if sample_weight is None else np.asarray(sample_weight) > 0
    if targets.dtype == bool:  # which NumPy does not subtract
        targets = targets.astype(np.float64)
    least = targets[rows].min(axis=0)
    return r2_score(targets - least, model.predict(X) - least, sample_weight=sample_weight)


def _parameters(function: Any) -> dict[str, Parameter]:
    """Return the parameters of a function; none where its signature is unknown."""
    try:
        return dict(signature(function).parameters)
    except (TypeError, ValueError):
        return {}
