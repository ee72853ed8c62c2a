"""Networks of fitted estimators that can be exported."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from cvxnn.estimators.coala import COALAPreferenceHead
from cvxnn.estimators.coala_cv import COALAPreferenceHeadCV
from cvxnn.estimators.linear_head import LinearPreferenceHead
from cvxnn.estimators.prediction import ClassifierPrediction, RegressorPrediction
from cvxnn.estimators.private_head import PrivatePreferenceHead
from cvxnn.network import TwoLayerNetwork

HEADS = (
    COALAPreferenceHead,
    COALAPreferenceHeadCV,
    LinearPreferenceHead,
    PrivatePreferenceHead,
)
_CLASSES = (ClassifierPrediction, RegressorPrediction, *HEADS)
TRAINED = ("hidden_weights", "hidden_bias", "output_weights", "output_bias", "linear_weights")
FIXED = ("gate_weights", "gate_bias", "gate_index")


def fitted_network(estimator: Any) -> TwoLayerNetwork:
    """Return the network of a fitted estimator; raise TypeError for other objects."""
    if not isinstance(estimator, _CLASSES):
        raise TypeError(
            f"cannot export a {type(estimator).__name__}; expected a fitted ConvexReLUClassifier, "
            "ConvexReLURegressor or preference head, or the CV class of one. Of a pipeline that "
            "ends with one, to_onnx takes the whole, the others the last step, pipeline[-1], which "
            "is fed with what pipeline[:-1] returns."
        )
    check_is_fitted(estimator)
    return estimator.network_


def copies(network: TwoLayerNetwork, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Return copies of those arrays that a network has, by name."""
    arrays = {name: getattr(network, name) for name in names}
    return {name: array.copy() for name, array in arrays.items() if array is not None}
