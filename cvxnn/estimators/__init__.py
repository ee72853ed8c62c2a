"""Estimators with the scikit-learn API."""

from cvxnn.estimators.classifier import ConvexReLUClassifier
from cvxnn.estimators.coala import COALAPreferenceHead
from cvxnn.estimators.coala_cv import COALAPreferenceHeadCV
from cvxnn.estimators.cv import ConvexReLUClassifierCV, ConvexReLURegressorCV
from cvxnn.estimators.linear_head import LinearPreferenceHead
from cvxnn.estimators.policy import SoftmaxPolicy
from cvxnn.estimators.regressor import ConvexReLURegressor

__all__ = [
    "COALAPreferenceHead",
    "COALAPreferenceHeadCV",
    "ConvexReLUClassifier",
    "ConvexReLUClassifierCV",
    "ConvexReLURegressor",
    "ConvexReLURegressorCV",
    "LinearPreferenceHead",
    "SoftmaxPolicy",
]
