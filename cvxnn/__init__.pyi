from .estimators.classifier import ConvexReLUClassifier
from .estimators.coala import COALAPreferenceHead
from .estimators.coala_cv import COALAPreferenceHeadCV
from .estimators.cv import ConvexReLUClassifierCV, ConvexReLURegressorCV
from .estimators.linear_head import LinearPreferenceHead
from .estimators.policy import SoftmaxPolicy
from .estimators.private_head import PrivatePreferenceHead
from .estimators.query_strategy import make_query_strategy
from .estimators.regressor import ConvexReLURegressor
from .persistence import load, save
from .serving import load_network

__version__: str

__all__ = [
    "COALAPreferenceHead",
    "COALAPreferenceHeadCV",
    "ConvexReLUClassifier",
    "ConvexReLUClassifierCV",
    "ConvexReLURegressor",
    "ConvexReLURegressorCV",
    "LinearPreferenceHead",
    "PrivatePreferenceHead",
    "SoftmaxPolicy",
    "load",
    "load_network",
    "make_query_strategy",
    "save",
]
