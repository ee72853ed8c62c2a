"""A classifier as the head of SetFit, by what SetFit's model does with its head."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np
import pytest

from cvxnn import ConvexReLUClassifier


class Model:
    """The calls of ``setfit.SetFitModel`` that reach a head of scikit-learn."""

    def __init__(self, model_head: ConvexReLUClassifier) -> None:
        self.model_head = model_head
        self.rng = np.random.default_rng(0)

    def encode(self, labels: list[int]) -> np.ndarray:
        noise = self.rng.normal(size=(len(labels), 16))
        return (noise + 12 * np.eye(16)[labels]).astype(np.float32)

    def fit(self, y_train: list[int]) -> list[str | int]:
        self.model_head.fit(self.encode(y_train), list(y_train))
        classes = self.model_head.classes_
        return classes.tolist() if isinstance(classes, np.ndarray) else list(classes)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_it_is_fitted_asked_and_kept_as_setfit_does(n_classes: int, tmp_path: Path) -> None:
    y = [k % n_classes for k in range(30)]
    model = Model(ConvexReLUClassifier(random_state=0))
    assert model.fit(y) == list(range(n_classes))
    embeddings = model.encode(y)
    probabilities = model.model_head.predict_proba(embeddings)
    predicted = model.model_head.predict(embeddings)
    assert probabilities.shape == (30, n_classes)
    assert predicted.ndim == 1
    assert [int(label) for label in predicted] == y
    joblib.dump(model.model_head, tmp_path / "model_head.pkl")
    again = joblib.load(tmp_path / "model_head.pkl")
    np.testing.assert_array_equal(again.predict_proba(embeddings), probabilities)
