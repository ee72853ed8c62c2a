"""ONNX graphs of pipelines: the runtime predicts what the pipeline predicts."""

import re
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    StandardScaler,
)

from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
)
from cvxnn.export import to_onnx

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("skl2onnx")

SMALL: dict[str, Any] = {"n_patterns": 8, "random_state": 0}
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 4)) * [1, 10, 0.1, 3] + [0, 5, 0, 1]
CLASSES = np.array(["a", "b", "c"])[np.digitize(X[:, 0] + X[:, 3] / 3, [0, 1])]
VALUES = np.column_stack([np.abs(X[:, 0]), X[:, 1]])


def run(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    onnx.checker.check_model(model, full_check=True)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    engine = runtime.InferenceSession(model.SerializeToString(), options)
    assert [given.name for given in engine.get_inputs()] == list(inputs)
    names = [output.name for output in engine.get_outputs()]
    return dict(zip(names, engine.run(None, inputs), strict=True))


def check_classifier(pipeline: Any, rows: Any, found: dict[str, Any], close: float) -> None:
    assert list(found) == ["label", "probabilities"]
    np.testing.assert_array_equal(found["label"], pipeline.predict(rows))
    assert len(set(found["label"])) > 1
    np.testing.assert_allclose(
        found["probabilities"], pipeline.predict_proba(rows), rtol=close, atol=close
    )


@pytest.mark.parametrize(
    ("step", "dtype"),
    [
        (StandardScaler(), np.float64),
        (make_pipeline(MinMaxScaler(), PCA(2, random_state=0)), np.float64),
        (QuantileTransformer(n_quantiles=10), np.float64),
        (SelectKBest(k=2), np.float64),
        ("passthrough", np.float64),
        (FunctionTransformer(), np.float32),
        (SimpleImputer(), np.float32),
        (PolynomialFeatures(2), np.float32),
    ],
    ids=str,
)
def test_classifiers_after_transformers(step: Any, dtype: Any) -> None:
    rows, close = X.astype(dtype), 1e-10 if dtype == np.float64 else 1e-4
    pipeline = make_pipeline(step, ConvexReLUClassifier(**SMALL)).fit(rows, CLASSES)
    model = to_onnx(pipeline)
    check_classifier(pipeline, rows, run(model, {"X": rows}), close)
    assert run(model, {"X": rows[:1]})["probabilities"].shape == (1, 3)


def test_tables_of_several_types() -> None:
    table = pd.DataFrame(X, columns=[*"pqrs"]).assign(
        kind=np.array(["u", "v", "w"])[rng.integers(0, 3, 60)], count=rng.integers(0, 5, 60)
    )
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), [*"pqrs", "count"]), ("names", OneHotEncoder(), ["kind"])]
    )
    pipeline = make_pipeline(columns, ConvexReLUClassifier(**SMALL)).fit(table, CLASSES)
    inputs = {name: table[[name]].to_numpy(dtype=None if name != "kind" else str) for name in table}
    found = run(to_onnx(pipeline, table), inputs)
    check_classifier(pipeline, table, found, 1e-10)


def test_regressors_heads_and_cross_validation() -> None:
    regressor = make_pipeline(StandardScaler(), ConvexReLURegressor(**SMALL)).fit(X, VALUES)
    found = run(to_onnx(regressor), {"X": X})
    assert list(found) == ["variable"]
    np.testing.assert_allclose(found["variable"], regressor.predict(X), rtol=1e-9, atol=1e-12)
    head = make_pipeline(StandardScaler(), COALAPreferenceHead(**SMALL)).fit(X, X[:, 0] > 0)
    found = run(to_onnx(head), {"X": X})
    assert list(found) == ["logit", "reward"]
    np.testing.assert_allclose(found["logit"], head.decision_function(X), rtol=1e-9, atol=1e-12)
    reward = head[-1].reward(head[:-1].transform(X))
    np.testing.assert_allclose(found["reward"], reward, rtol=1e-9, atol=1e-12)
    search = ConvexReLUClassifierCV(ConvexReLUClassifier(**SMALL), n_strengths=3, cv=2)
    chosen = make_pipeline(StandardScaler(), search).fit(X, CLASSES)
    check_classifier(chosen, X, run(to_onnx(chosen), {"X": X}), 1e-10)
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), ConvexReLUClassifier(**SMALL)),
        {"convexreluclassifier__strength": [1e-3, 1e-1]},
        cv=2,
    ).fit(X, CLASSES)
    check_classifier(grid, X, run(to_onnx(grid), {"X": X}), 1e-10)


class Unknown(TransformerMixin, BaseEstimator):
    def fit(self, X: Any, y: Any = None) -> Any:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: Any) -> Any:
        return X


def test_what_cannot_be_converted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ConvexReLUClassifier(**SMALL)
    own = make_pipeline(Unknown(), StandardScaler(), model).fit(X, CLASSES)
    with pytest.raises(TypeError, match=r"does not say what its input is.*X\[:5\]"):
        to_onnx(own)
    with pytest.raises(TypeError, match=r"cannot convert a step.*Unknown.*pipeline\[k:\]"):
        to_onnx(own, X[:5])
    rest = own[1:]
    check_classifier(rest, X, run(to_onnx(rest), {"X": X}), 1e-10)
    with pytest.raises(TypeError, match="cannot export a LogisticRegression"):
        to_onnx(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, CLASSES))
    with pytest.raises(NotFittedError):
        to_onnx(make_pipeline(StandardScaler(), ConvexReLUClassifier()))
    with pytest.raises(TypeError, match="leave X out"):
        to_onnx(own[-1], X)
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ImportError, match=r"'skl2onnx'.*cvxnn\[export\]"):
        to_onnx(rest)


@pytest.mark.slow
def test_skops_saves_pipelines(tmp_path: Any) -> None:
    """The remedy of the message of ``save``."""
    import skops.io

    import cvxnn

    pipeline = make_pipeline(StandardScaler(), ConvexReLUClassifier(**SMALL)).fit(X, CLASSES)
    with pytest.raises(TypeError, match=r"skops\.io\.dump") as error:
        cvxnn.save(pipeline, tmp_path / "model.safetensors")
    calls = re.findall(r"skops\.io\.\w+\([^)]*\)", str(error.value))
    assert len(calls) == 3
    known = {"skops": skops, "pipeline": pipeline, "file": tmp_path / "model.skops"}
    dump, load, list_types = calls
    eval(dump, known)
    known["types"] = eval(list_types, known)
    assert known["types"]
    assert all(name.startswith("cvxnn.") for name in known["types"])
    back = eval(load, known)
    np.testing.assert_array_equal(back.predict_proba(X), pipeline.predict_proba(X))
