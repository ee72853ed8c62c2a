"""Saved networks with NumPy alone: they predict what the estimators predict."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_blobs

import cvxnn
from cvxnn import (
    COALAPreferenceHead,
    ConvexReLUClassifier,
    ConvexReLUClassifierCV,
    ConvexReLURegressor,
    LinearPreferenceHead,
)

SMALL: dict[str, Any] = {"n_patterns": 8, "random_state": 0}
X, LABELS = make_blobs(60, 3, centers=3, cluster_std=4, random_state=0)
NAMES = np.array(["a", "b", "c"])[LABELS]
NORM: dict[str, Any] = {**SMALL, "penalty": "neuron", "patterns": "gaussian", "strength": 0.05}
CASES = {
    "two classes": (ConvexReLUClassifier(**SMALL), LABELS > 0),
    "names": (ConvexReLUClassifier(**SMALL), NAMES),
    "objects": (ConvexReLUClassifier(**SMALL, skip=0.1), NAMES.astype(object)),
    "logistic": (ConvexReLUClassifier(**NORM, loss="logistic"), LABELS),
    "relu": (ConvexReLUClassifier(**SMALL, formulation="relu", patterns="gaussian"), LABELS),
    "cv": (ConvexReLUClassifierCV(ConvexReLUClassifier(**SMALL), n_strengths=3, cv=2), LABELS),
    "regressor": (ConvexReLURegressor(**SMALL), X[:, 0]),
    "column": (ConvexReLURegressor(**SMALL), X[:, :1]),
    "outputs": (ConvexReLURegressor(**SMALL), X[:, :2]),
    "coala": (COALAPreferenceHead(**SMALL, patterns="gaussian"), LABELS > 0),
    "linear": (LinearPreferenceHead(1.0), LABELS > 0),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", CASES)
def test_the_predictions_are_those_of_the_estimator(case: str, dtype: Any, tmp_path: Any) -> None:
    model, y = CASES[case]
    rows = X.astype(dtype)
    model.fit(rows, y)
    cvxnn.save(model, tmp_path / "model.safetensors")
    served = cvxnn.load_network(tmp_path / "model.safetensors")
    found, expected = served.predict(rows), model.predict(rows)
    np.testing.assert_array_equal(found, expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(served.predict(rows.tolist()), model.predict(rows.tolist()))
    if not hasattr(model, "predict_proba"):
        with pytest.raises(AttributeError, match="use predict"):
            served.predict_proba(rows)
        return
    np.testing.assert_array_equal(served.decision_function(rows), model.decision_function(rows))
    close = 1e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(served.predict_proba(rows), model.predict_proba(rows), atol=close)


def test_large_scores_overflow_nowhere(tmp_path: Any) -> None:
    model = ConvexReLUClassifier(**SMALL).fit(X, LABELS)
    cvxnn.save(model, tmp_path / "model.safetensors")
    served = cvxnn.load_network(tmp_path / "model.safetensors")
    far = served.predict_proba(1e6 * X)
    np.testing.assert_allclose(far, model.predict_proba(1e6 * X), atol=1e-9)


def test_bad_rows_and_files_are_refused(tmp_path: Any) -> None:
    path = tmp_path / "model.safetensors"
    cvxnn.save(ConvexReLUClassifier(**SMALL).fit(X, LABELS), path)
    served = cvxnn.load_network(path)
    for bad in (X[:, :2], X[0]):
        with pytest.raises(ValueError, match=r"X has shape .*; expected \(n_samples, 3\)"):
            served.predict(bad)
    with pytest.raises(ValueError, match="NaN"):
        served.predict(X * np.nan)
    for odd in (X + 1j, X.astype(str), X.astype("datetime64[s]"), np.full((2, 3), None)):
        with pytest.raises(ValueError, match=r"real numbers|NaN"):
            served.predict(odd)
    with pytest.raises(ValueError, match="masked"):
        served.predict(np.ma.masked_array(X, X > 0))
    with pytest.raises(TypeError, match="X is sparse"):
        served.predict(sparse.csr_array(X))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum does not match"):
        cvxnn.load_network(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        cvxnn.load_network(tmp_path / "missing")


def test_nothing_large_is_imported(tmp_path: Any) -> None:
    path = tmp_path / "model.safetensors"
    cvxnn.save(ConvexReLUClassifier(**SMALL).fit(X, NAMES), path)
    code = (
        f"import sys, cvxnn; served = cvxnn.load_network({str(path)!r})\n"
        "served.predict_proba([[0.0, 1.0, 2.0]]); served.predict([[0.0, 1.0, 2.0]])\n"
        "print(sorted({'sklearn', 'scipy', 'pandas', 'jax', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
