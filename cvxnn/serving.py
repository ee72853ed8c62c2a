"""Predictions of a saved estimator with NumPy alone, for processes that start often.

scikit-learn and SciPy, which estimators need, take more than a second to import.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvxnn._model_file import (
    check_classes,
    check_network,
    read_model,
    taking_apart,
    unpack,
    unpack_plain,
)
from cvxnn.network import TwoLayerNetwork
from cvxnn.numerics.real_rows import real_rows
from cvxnn.numerics.scores import ANY_PROBABILITY, bent, probabilities, scores_of, winner

# Attributes of estimators that predictions need.
_ATTRIBUTES = {
    "network_",
    "n_features_in_",
    "classes_",
    "temperature_",
    "bend_",
    "probability_range_",
    "_y_ndim",
}


@dataclass(frozen=True)
class SavedNetwork:
    """The network of a saved estimator, with what its predictions need.

    Attributes
    ----------
    network : TwoLayerNetwork
        The network, for raw features.
    classes : ndarray, shape (n_classes,), or None
        Labels of a classifier or a preference head; None of a regressor.
    temperature : float, default=1.0
        Factor of the scores in probabilities.
    one_against_rest : bool, default=False
        Whether each score stands for its class against the rest, as with the logistic loss.
    n_dimensions : int, default=1
        Dimensions of the predictions of a regressor, as those of ``y`` were: 1 or 2.
    bend : float, default=0.0
        How far the link of a classifier is from the softmax of its scores.
    probability_range : tuple of float, default=(0, 1)
        The least and the largest probability of a classifier.
    """

    network: TwoLayerNetwork
    classes: NDArray[Any] | None
    temperature: float = 1.0
    one_against_rest: bool = False
    n_dimensions: int = 1
    bend: float = 0.0
    probability_range: tuple[float, float] = ANY_PROBABILITY

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the outputs of the network.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite rows.

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_outputs)
            Scores of classes, logits of responses, or predictions of a regressor.

        Raises
        ------
        TypeError
            If the rows are sparse; pass ``X.toarray()``.
        ValueError
            If the rows have another width, or are no finite real numbers.
        """
        rows = real_rows(X, self.network.hidden_weights.shape[1])
        outputs = self.network.forward(rows)
        several = self.classes is None and self.n_dimensions == 2
        return outputs if several else scores_of(outputs)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest labels, or the predictions of a regressor.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite rows.

        Returns
        -------
        ndarray, shape (n_samples,) or (n_samples, n_outputs)
            As ``predict`` of the estimator.
        """
        scores = self.decision_function(X)
        if self.classes is None:
            return scores
        return self.classes[winner(scores)]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the probabilities of classes.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Finite rows.

        Returns
        -------
        ndarray, shape (n_samples, n_classes)
            As ``predict_proba`` of the estimator, up to rounding.

        Raises
        ------
        AttributeError
            For a regressor, which has no classes; use ``predict``.
        """
        if self.classes is None:
            raise AttributeError("a regressor has no classes to give probabilities of; use predict")
        scores = self.temperature * bent(self.decision_function(X), self.bend)
        return probabilities(
            scores, one_against_rest=self.one_against_rest, within=self.probability_range
        )


@dataclass(frozen=True)
class SavedHead:
    """A saved preference head: its network, and what its rewards need.

    Attributes
    ----------
    network : SavedNetwork
        The network, for raw embeddings.
    beta : float
        Scale of the reward, above 0.
    embedding : dict or None
        Description of the embeddings.
    """

    network: SavedNetwork
    beta: float
    embedding: dict[str, Any] | None

    def reward(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the reward of each response, as the head does.

        Parameters
        ----------
        X : array-like, shape (n_responses, n_features)
            Embeddings.

        Returns
        -------
        ndarray, shape (n_responses,)
            At most 0; the larger the better.
        """
        return -self.beta * np.logaddexp(0, -self.network.decision_function(X))


def load_reward_head(path: str | os.PathLike[str]) -> SavedHead:
    """Read a preference head that :func:`cvxnn.save` wrote, without scikit-learn.

    Parameters
    ----------
    path : path-like
        File that ``cvxnn.save`` or ``cvxnn fit`` wrote.

    Returns
    -------
    SavedHead
        What rewards need.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged, of another version, or of another estimator than a head.
    """
    header, _ = read_model(path)
    network = load_network(path)
    with taking_apart(path):
        parameters = _parameters(header)
        if {"beta", "embedding"} <= parameters.keys():
            embedding = unpack_plain(parameters["embedding"])
            return SavedHead(network, float(parameters["beta"]), embedding)
    raise ValueError(f"{path} is a {header['class']}; expected a preference head")


def _parameters(header: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of an estimator, or of the one that a CV class holds."""
    parameters: dict[str, Any] = header["parameters"]
    held = parameters.get("estimator")
    return held["estimator"]["parameters"] if isinstance(held, dict) else parameters


def load_network(path: str | os.PathLike[str]) -> SavedNetwork:
    """Read the network of an estimator that :func:`cvxnn.save` wrote, without scikit-learn.

    The checksum is compared first, as :func:`cvxnn.load` does.

    Parameters
    ----------
    path : path-like
        File that ``cvxnn.save`` wrote.

    Returns
    -------
    SavedNetwork
        What predictions need: ``predict`` and ``predict_proba``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is truncated, changed or damaged, or of another format or version.

    Examples
    --------
    >>> import cvxnn
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> cvxnn.save(cvxnn.ConvexReLUClassifier(random_state=0).fit(X, y), "model.safetensors")
    >>> served = cvxnn.load_network("model.safetensors")
    >>> bool(served.predict(X[:1])[0] == y[0])
    True
    """
    header, tensors = read_model(path)
    with taking_apart(path):
        needed = _ATTRIBUTES & header["attributes"].keys()
        fitted = {name: unpack(header["attributes"][name], tensors) for name in needed}
        network, classes = fitted["network_"], fitted.get("classes_")
        check_network(network, fitted["n_features_in_"])
        if classes is not None:
            check_classes(classes, network.n_outputs)
        parameters = _parameters(header)
        least, largest = map(float, fitted.get("probability_range_", ANY_PROBABILITY))
        return SavedNetwork(
            network,
            classes,
            float(fitted.get("temperature_", 1.0)),
            header["class"].startswith("ConvexReLU") and parameters.get("loss") == "logistic",
            int(fitted.get("_y_ndim", 1)),
            float(fitted.get("bend_", 0.0)),
            (least, largest),
        )
