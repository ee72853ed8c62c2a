"""What is compared: a name for every method, and how it is made.

Imports are inside the functions, where the study times them. No method gets a ``random_state``: the
study seeds NumPy's global generator before each fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data import Split

# Settings of ``ConvexReLUClassifier``. A list is a grid, searched by 3-fold cross-validation.
# "cvxnn" is what a user gets who sets nothing; the others are what that is weighed against.
OURS: dict[str, dict[str, Any]] = {
    "cvxnn": {},
    "equal_factors": {"feature_factors": "equal"},
    "gated_32": {"n_patterns": 32},
    "gated_64": {"n_patterns": 64},
    "gated_128": {"n_patterns": 128},
    "gated_256": {"n_patterns": 256},
    "gated_512": {"n_patterns": 512},
    "gated_data": {"patterns": "data"},
    "gated_gaussian": {"patterns": "gaussian"},
    "gated_thresholds": {"patterns": "thresholds"},
    "gated_fixed_strength": {"strength": 1e-4},
    "gated_logistic": {"loss": "logistic", "n_patterns": 256},
    "gated_neuron": {"penalty": "neuron", "n_patterns": 64},
    "relu": {"formulation": "relu"},
    "relu_gaussian": {"formulation": "relu", "patterns": "gaussian"},
    "relu_fixed_strength": {"formulation": "relu", "strength": 1e-3},
}
MLPS = ("mlp", "mlp_tuned")
# Behind a ``StandardScaler``.
SCALED = ("logistic", "svc", *MLPS)
BASELINES = ("prior", *SCALED, "hgb")
TREES = ("extra_trees", "random_forest", "catboost", "lightgbm", "xgboost")
METHODS = (*BASELINES, *TREES, *OURS)
# What is run unless --methods says otherwise.
DEFAULT = (*BASELINES, "cvxnn")
# Training rows up to which the MLP's width is searched beside its alpha.
WIDTHS_UP_TO = 6000


def estimator(method: str, n_samples: int) -> Any:
    """The unfitted method, for that many training rows."""
    if method in OURS:
        from cvxnn import ConvexReLUClassifier

        settings = OURS[method]
        grid = {name: value for name, value in settings.items() if isinstance(value, list)}
        model = ConvexReLUClassifier(**{k: v for k, v in settings.items() if k not in grid})
        return _searched(model, grid) if grid else model

    if method == "prior":
        from sklearn.dummy import DummyClassifier

        return DummyClassifier(strategy="prior")
    if method == "hgb":
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier()

    if method == "extra_trees":
        from sklearn.ensemble import ExtraTreesClassifier

        return ExtraTreesClassifier(300)

    if method == "random_forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(300)

    if method == "catboost":
        from catboost import CatBoostClassifier

        return CatBoostClassifier(thread_count=1, verbose=False, allow_writing_files=False)

    if method == "lightgbm":
        from lightgbm import LGBMClassifier

        return LGBMClassifier(n_jobs=1, verbose=-1)

    if method == "xgboost":
        from xgboost import XGBClassifier

        return XGBClassifier(n_jobs=1)

    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    model = Pipeline([("scale", StandardScaler()), ("model", _baseline(method))])
    if method != "mlp_tuned":
        return model
    grid = {"model__alpha": [1e-4, 1e-2, 1.0]}
    if n_samples <= WIDTHS_UP_TO:
        grid["model__hidden_layer_sizes"] = [(50,), (100,)]
    return _searched(model, grid)


def fit_options(method: str, split: Split) -> dict[str, Any]:
    """What ``fit`` gets beside rows and labels: weights, and groups where the method takes them."""
    found = {}
    if split.weight is not None:
        steps = ("scale__", "model__") if method in SCALED else ("",)
        found = {f"{step}sample_weight": split.weight for step in steps}
    if split.groups is not None and method in OURS:
        found["groups"] = split.groups
    return found


def _baseline(method: str) -> Any:
    if method == "logistic":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression()
    if method == "svc":
        from sklearn.svm import SVC

        return SVC(kernel="rbf")
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier()


def _searched(model: Any, grid: dict[str, list[Any]]) -> Any:
    from sklearn.model_selection import GridSearchCV

    return GridSearchCV(model, grid, cv=3)
