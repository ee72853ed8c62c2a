"""Methods of a fitted estimator: they need its network and fitted attributes, no parameters.

A plain estimator and the one that chooses its strength by cross-validation share them.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from cvxnn import convex  # names load when first used: JAX is for fits only
from cvxnn.estimators._missing_values import checked_data, refuse_missing
from cvxnn.estimators._rows import (
    FLOATS,
    Rows,
    canonical,
    numbers_only,
    to_host,
)
from cvxnn.explanation import (
    Contributions,
    LocalLinear,
    NeuronReport,
    contributions,
    feature_importances,
    local_linear,
    neuron_report,
)
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.arrays import is_sparse
from cvxnn.numerics.scores import bent, log_probabilities, probabilities, scores_of, winner


class NetworkPrediction(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Validation of rows, hidden activations and explanations of ``network_``."""

    _doc_link_module: ClassVar[str] = "cvxnn"

    network_: TwoLayerNetwork
    _feature_scale: NDArray[np.floating]

    @property
    def feature_importances_(self) -> NDArray[np.floating]:
        """Share of each feature in the slopes of all neurons, shape (n_features,), with sum 1.

        Features count in their standard deviations, or in raw units with ``standardize=False``; see
        `cvxnn.explanation.feature_importances`. With ``penalty="feature"`` those that were removed
        have 0: ``SelectFromModel(model, threshold=1e-9)`` keeps the others. Gates of the gated
        formulation look at all features and are not counted: select by ``formulation="relu"``.
        """
        check_is_fitted(self)
        return feature_importances(self.network_, self._feature_scale)

    def _takes_sparse(self) -> bool:
        """Return whether the parameters lead to the direct solution, which needs products only."""
        return False

    def _validate(self, X: Any, y: Any = "no_validation", **options: Any) -> Any:
        """Check rows, and targets if given, and bring them to the host in a dtype of FLOATS."""
        y = to_host(y, "y")
        refuse_missing(y)
        accepted = "csr" if self._takes_sparse() else False
        if not accepted and is_sparse(X):
            raise TypeError(
                "Sparse data was passed for X, but dense data is required: only the direct "
                "solution (formulation='gated', penalty='l2', patterns='gaussian', "
                "loss='squared', with strength and skip above 0) works on sparse rows. Use it, or "
                "X.toarray()."
            )
        options = {"accept_sparse": accepted, "dtype": list(FLOATS), **options}
        with numbers_only("X"):
            checked = checked_data(self, to_host(X, "X"), y, **options)
        if isinstance(checked, tuple):
            return canonical(checked[0]), checked[1]
        return canonical(checked)

    def _network_input(self, X: Any) -> Rows:
        """Check rows for a prediction."""
        if self._passes(X):
            return X
        check_is_fitted(self)
        return self._validate(X, reset=False)

    def _passes(self, X: Any) -> bool:
        """Return whether scikit-learn's checks would return these rows as they are.

        It makes the same ones, for the commonest case: they take longer than to predict a row.
        """
        if type(X) is not np.ndarray or X.ndim != 2 or X.dtype not in FLOATS:
            return False
        fitted = getattr(self, "n_features_in_", None) if hasattr(self, "network_") else None
        if X.shape[1] != fitted or len(X) == 0 or hasattr(self, "feature_names_in_"):
            return False
        with np.errstate(over="ignore", invalid="ignore"):
            return bool(np.isfinite(X.sum()))  # of terms of which one is not, no sum is finite

    def transform(self, X: Any) -> NDArray[np.floating]:
        """Return the hidden activations, which are features for another estimator.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows as in ``fit``.

        Returns
        -------
        ndarray, shape (n_samples, n_neurons)
            Activations, in the order of the neurons of ``network_``.
        """
        rows = self._network_input(X)
        return self.network_.hidden(rows)

    def explain(self, X: Any) -> LocalLinear:
        """Return the linear model that the network is around each row, exactly.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows to explain.

        Returns
        -------
        cvxnn.explanation.LocalLinear
            ``weights``, ``intercept``, the ``active`` neurons, and the ``radius`` within which
            this holds.
        """
        rows = self._network_input(X)
        return local_linear(self.network_, rows)

    def contributions(self, X: Any, baseline: ArrayLike | None = None) -> Contributions:
        """Split the outputs at each row into a sum over features, exactly.

        ``pandas.DataFrame(model.contributions(X).columns)`` is a table with a line for each row and
        class, and a column for each feature.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows to explain.
        baseline : array-like, shape (n_features,), optional
            Values that features are compared with, such as the mean of the training rows;
            zeros by default.

        Returns
        -------
        cvxnn.explanation.Contributions
            ``features.sum(axis=-1) + rest`` is the decision function, or the prediction of a
            regressor, always with an axis of outputs; see `cvxnn.explanation.contributions`.
        """
        rows = self._network_input(X)
        parts = contributions(self.network_, rows, baseline)
        classes = getattr(self, "classes_", None)
        if classes is not None:  # one output scores the second of two classes
            classes = classes[-self.network_.n_outputs :].tolist()
        names = getattr(self, "feature_names_in_", None)
        return parts._replace(feature_names=names, output_names=classes)

    def neuron_report(self, X: Any) -> NeuronReport:
        """Return what each neuron adds on these rows, the largest first; ``print`` it.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows over which contributions are averaged.

        Returns
        -------
        cvxnn.explanation.NeuronReport
            One entry for each neuron.
        """
        rows = self._network_input(X)
        return neuron_report(self.network_, rows, getattr(self, "feature_names_in_", None))

    def __sklearn_is_fitted__(self) -> bool:
        """Return whether ``fit`` has come to its end."""
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags: sparse rows are taken where the solution is direct."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._takes_sparse()
        return tags

    @property
    def _doc_link_template(self) -> str:
        """Page of the class on the documentation site that the package's metadata name."""
        try:
            links = metadata("cvxnn").get_all("Project-URL") or []
        except PackageNotFoundError:
            links = []
        for link in links:
            name, _, url = link.partition(", ")
            if name.lower() == "documentation":
                return url.rstrip("/") + "/generated/cvxnn.{estimator_name}.html"
        return ""


class ClassifierPrediction(ClassifierMixin, NetworkPrediction):
    """Scores, labels and probabilities of a fitted classifier."""

    classes_: NDArray[Any]
    temperature_: float
    bend_: float
    probability_range_: NDArray[np.float64]
    loss: Any

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the scores of rows: the outputs of the network.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Rows as in ``fit``.

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_classes)
            One score for two classes, positive for the second; else one for each class.
        """
        rows = self._network_input(X)
        return scores_of(self.network_.forward(rows))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most likely class of each row.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Rows as in ``fit``.

        Returns
        -------
        ndarray, shape (n_samples,)
            Labels of ``classes_``.
        """
        rows = self._network_input(X)
        return self.classes_[winner(self.network_.forward(rows))]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return class probabilities.

        They are the logistic (softmax) link of the scores, bent by ``bend_`` and times
        ``temperature_``. Both minimise the log-loss of leave-one-out scores with smoothed targets
        (the rule of succession, as in Platt, 1999). The factor is no larger than the one that the
        scores of the same rows with themselves ask for, and these have to gain by the bend as well.
        With the logistic loss of more than two classes they are the probabilities of each class
        against the rest, brought to sum one. Where a class has fewer than ten units of data,
        smoothed targets limit log-odds as well, and no probability leaves the range of those of the
        training rows, ``probability_range_``: those of a row far from them are mixed with even
        chances. The order of the classes of a row is that of the scores.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Rows as in ``fit``.

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
            Rows sum to 1; columns are in the order of ``classes_``.
        """
        return probabilities(**self._link(self._network_input(X)), within=self.probability_range_)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return logarithms of class probabilities, exact where a probability rounds to 0 or 1.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Rows as in ``fit``.

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
            At most 0; columns are in the order of ``classes_``.
        """
        link = self._link(self._network_input(X))
        return log_probabilities(**link, within=self.probability_range_)

    def _link(self, rows: Rows) -> dict[str, Any]:
        """Return what the logistic or softmax link turns into probabilities."""
        scores = bent(scores_of(self.network_.forward(rows)), self.bend_) * self.temperature_
        return {"scores": scores, "one_against_rest": self._one_against_rest()}

    def _one_against_rest(self) -> bool:
        """Return whether each score is the log-odds of its class against the rest."""
        if isinstance(self.loss, str):
            return self.loss == "logistic"
        return type(self.loss) is convex.LogisticLoss


class RegressorPrediction(RegressorMixin, NetworkPrediction):
    """Predictions of a fitted regressor."""

    _y_ndim: int

    def predict(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return predictions, of as many dimensions as ``y`` had.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)
            Rows as in ``fit``.

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_outputs)
            In the units of ``y``.
        """
        rows = self._network_input(X)
        out = self.network_.forward(rows)
        return out[:, 0] if self._y_ndim == 1 else out

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags: several outputs are fitted at once."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
