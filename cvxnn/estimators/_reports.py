"""What a fitted estimator tells of its network: activations, explanations, documentation."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin

from cvxnn.explanation import LocalLinear, NeuronReport, local_linear, neuron_report
from cvxnn.network import TwoLayerNetwork


class NetworkReports(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Looks into ``network_``; ``_network_input`` checks the rows."""

    _doc_link_module: ClassVar[str] = "cvxnn"

    network_: TwoLayerNetwork
    _network_input: Any

    def transform(self, X: Any) -> NDArray[np.floating]:
        """Hidden activations, shape (n_samples, n_neurons): features for another estimator."""
        rows = self._network_input(X)
        return self.network_.hidden(rows)

    def explain(self, X: Any) -> LocalLinear:
        """The linear model that the network is around each row, exactly.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        cvxnn.explanation.LocalLinear
            ``weights``, ``intercept``, the ``active`` neurons, and the ``radius`` within which
            this holds.
        """
        return local_linear(self.network_, self._network_input(X))

    def neuron_report(self, X: Any) -> NeuronReport:
        """What each neuron adds on these rows, the largest first; ``print`` it.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        cvxnn.explanation.NeuronReport
        """
        rows = self._network_input(X)
        return neuron_report(self.network_, rows, getattr(self, "feature_names_in_", None))

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
