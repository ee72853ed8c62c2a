"""Exported heads say which embeddings they take, and refuse others."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvxnn import ConvexReLURegressor, LinearPreferenceHead
from cvxnn.export import TorchHead, check_embedding, embedding_of, to_onnx, to_torch

DESCRIPTION = {
    "model": "tiny",
    "fingerprint": "a" * 64,
    "fingerprint_float16": "b" * 64,
    "fingerprint_bfloat16": "c" * 64,
    "dtype": "float32",
    "layer": 2,
    "pooling": "mean",
    "max_length": 64,
    "date": "2024-07-26",
    "context": 0,
    "width": 3,
}
OTHER = {**DESCRIPTION, "layer": 1, "fingerprint": "d" * 64}
X = np.random.default_rng(0).standard_normal((20, 3))


def head(embedding=DESCRIPTION, sign=1):
    made = LinearPreferenceHead(C=1.0, embedding=embedding)
    return made.fit_pairs(X[:10] + sign, X[10:] - sign)


def opened(model):
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return runtime.InferenceSession(model.SerializeToString(), options)


def forms(estimator):
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    return [to_onnx(estimator), opened(to_onnx(estimator)), to_torch(estimator)]


def test_every_form_carries_the_description_and_computes_the_same():
    fitted = head()
    for form in forms(fitted):
        assert embedding_of(form) == DESCRIPTION
        check_embedding(form, {**DESCRIPTION, "model": "elsewhere"})
        with pytest.raises(ValueError, match=r"other embeddings \(fingerprint is .*; layer is 2 "):
            check_embedding(form, OTHER)
    torch = pytest.importorskip("torch")
    logits = fitted.decision_function(X)
    np.testing.assert_allclose(to_torch(fitted)(torch.tensor(X)).detach()[:, 0], logits)
    found = opened(to_onnx(fitted)).run(["logit", "reward"], {"X": X})
    np.testing.assert_allclose(found, [logits, fitted.reward(X)])


def test_a_pipeline_carries_that_of_its_last_step():
    pytest.importorskip("skl2onnx")
    y = np.repeat([1, 0], 10)
    pipeline = make_pipeline(StandardScaler(), LinearPreferenceHead(C=1.0, embedding=DESCRIPTION))
    model = to_onnx(pipeline.fit(X, y))
    assert embedding_of(model) == DESCRIPTION
    reward = opened(model).run(["reward"], {"X": X})[0].ravel()
    np.testing.assert_allclose(reward, pipeline[-1].reward(pipeline[0].transform(X)))


def test_without_a_description_nothing_is_promised():
    for form in [*forms(head(None)), *forms(ConvexReLURegressor(n_patterns=4).fit(X, X[:, 0]))]:
        assert embedding_of(form) is None
        with pytest.raises(ValueError, match="the head does not say which embeddings it takes"):
            check_embedding(form, DESCRIPTION)
    with pytest.raises(TypeError, match="cannot find a description in a str"):
        embedding_of("head.onnx")


def test_a_state_of_other_embeddings_changes_nothing():
    torch = pytest.importorskip("torch")
    rows = torch.tensor(X)
    file = io.BytesIO()
    torch.save(to_torch(head(sign=-1)).state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    module, target = to_torch(head()), to_torch(head(OTHER))
    before = target(rows)
    for model, part in (
        (target, state),
        (torch.nn.Sequential(target), {f"0.{k}": v for k, v in state.items()}),
    ):
        with pytest.raises(ValueError, match="layer is 1 and 2, of the head first"):
            model.load_state_dict(part)
        assert torch.equal(target(rows), before)
    module.load_state_dict(state)
    assert torch.equal(module(rows), to_torch(head(sign=-1))(rows))
    blank = TorchHead(head().network_, None)
    with pytest.raises(ValueError, match="the other one does not say"):
        target.load_state_dict(blank.state_dict())
    blank.load_state_dict(state)
    assert blank.embedding == DESCRIPTION
    assert pickle.loads(pickle.dumps(blank)).embedding == DESCRIPTION


def test_a_state_is_tensors_alone():
    safetensors = pytest.importorskip("safetensors.torch")
    state = to_torch(head()).state_dict()
    back = safetensors.load(safetensors.save(state))
    to_torch(head()).load_state_dict(back)
    assert embedding_of(to_torch(head())) == DESCRIPTION
