"""Estimators with the scikit-learn API."""

from cvxnn.estimators.classifier import ConvexReLUClassifier
from cvxnn.estimators.preference import COALAPreferenceHead
from cvxnn.estimators.regressor import ConvexReLURegressor

__all__ = ["COALAPreferenceHead", "ConvexReLUClassifier", "ConvexReLURegressor"]
