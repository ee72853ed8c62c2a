from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

import cvxnn
from cvxnn import COALAPreferenceHead, COALAPreferenceHeadCV
from cvxnn.llm import Embedder, LanguageModel, choose_reply

torch = pytest.importorskip("torch")


@pytest.fixture
def lm(tiny_lm: Callable[..., LanguageModel]) -> LanguageModel:
    return tiny_lm()


def cast(lm: LanguageModel, dtype: Any) -> LanguageModel:
    return dataclasses.replace(lm, model=copy.deepcopy(lm.model).to(dtype), name="copy")


def small_head(lm: LanguageModel, head: Any = None, **settings: Any) -> Any:
    embedder = Embedder(lm, **settings)
    chosen = embedder.embed(["a b"] * 6, ["c d", "d", "e f", "f", "c", "f d"])
    rejected = embedder.embed(["a b"] * 6, ["p q", "q", "r s", "s", "p", "s q"])
    head = COALAPreferenceHead(n_patterns=4, strength=0.1, random_state=0) if head is None else head
    single = head.estimator if isinstance(head, COALAPreferenceHeadCV) else head
    single.set_params(embedding=embedder.description)
    return head.fit_pairs(chosen, rejected)


def test_description_is_plain_data_that_says_it_all(lm: LanguageModel) -> None:
    description = Embedder(lm, layer=-1, pooling="last", max_length=77).description
    assert json.loads(json.dumps(description)) == description
    expected = {
        "model": "llama",
        "fingerprint": lm.fingerprint,
        "dtype": "float32",
        "layer": 2,
        "pooling": "last",
        "max_length": 77,
        "width": 32,
    }
    assert expected.items() <= description.items()
    again = Embedder.from_description(lm, description, batch_tokens=7)
    assert again.description == description
    assert again.batch_tokens == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "mean"}, r"pooling is 'mean', but .* with pooling='last'"),
        ({"layer": 0}, "layer is 0, but .* with layer=1"),
        ({"max_length": 9}, "max_length is 9, but .* with max_length=50"),
    ],
)
def test_other_settings_are_refused(
    lm: LanguageModel, settings: dict[str, Any], message: str
) -> None:
    description = Embedder(lm, layer=1, pooling="last", max_length=50).description
    same = {"pooling": "last", "layer": -2, "max_length": 50}  # counted from the end
    assert Embedder.from_description(lm, description, **same).description == description
    with pytest.raises(ValueError, match=message):
        Embedder.from_description(lm, description, **settings)


@pytest.mark.parametrize("change", ["weights", "template", "vocabulary", "config", "family"])
def test_other_models_are_refused(
    lm: LanguageModel, tiny_lm: Callable[..., LanguageModel], change: str
) -> None:
    description = Embedder(lm).description
    other = tiny_lm("gpt2") if change == "family" else tiny_lm()
    if change == "weights":
        with torch.no_grad():
            other.model.model.layers[0].mlp.up_proj.weight.mul_(1 + 1e-6)
    elif change == "template":
        other.tokenizer.chat_template = "{{ messages }}"
    elif change == "vocabulary":
        other.tokenizer.add_tokens(["new"])
    elif change == "config":
        other.model.config.rms_norm_eps = 1e-3
    message = rf"made by llama in float32 \(fingerprint {lm.fingerprint[:12]}.* the model is "
    with pytest.raises(ValueError, match=message + rf".*{other.fingerprint[:12]}"):
        Embedder.from_description(other, description)
    # In another type too: rounding does not hide that.
    if change != "weights":
        with pytest.raises(ValueError, match=message):
            Embedder.from_description(cast(other, torch.bfloat16), description)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_copies_in_another_type_are_the_same_model(lm: LanguageModel, dtype: str) -> None:
    other = cast(lm, getattr(torch, dtype))
    if dtype != "float64":
        assert other.fingerprint != lm.fingerprint
    with pytest.warns(UserWarning, match=f"in float32, and it computes in {dtype} now"):
        rounded = Embedder.from_description(other, Embedder(lm).description)
    with pytest.warns(UserWarning, match=f"in {dtype}, and it computes in float32 now"):
        exact = Embedder.from_description(lm, Embedder(other).description)
    # float32 numbers from a file in half precision: the same numbers in another type.
    with pytest.warns(UserWarning, match="computes in float32"):
        Embedder.from_description(cast(other, torch.float32), Embedder(other).description)
    X, Y = (embedder.embed(["a b"], ["c d"]) for embedder in (rounded, exact))
    assert np.linalg.norm(X - Y) < 0.05 * np.linalg.norm(Y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (7, "embedding is 7; expected Embedder.description"),
        ({"layer": -1}, r"embedding\['layer'\] is -1; expected an integer of at least 0"),
        ({"width": True}, r"embedding\['width'\] is True; expected an integer"),
        ({"dtype": None}, r"embedding\['dtype'\] is None; expected text"),
        ({"pooling": "max"}, r"embedding\['pooling'\] is 'max'; expected one of"),
        ({"colour": "red"}, r"has the entries \['colour'"),
    ],
)
def test_what_is_no_description(lm: LanguageModel, change: Any, message: str) -> None:
    description: Any = Embedder(lm).description
    bad = {**description, **change} if isinstance(change, dict) else change
    with pytest.raises(ValueError, match=message):
        Embedder.from_description(lm, bad)
    X = np.random.default_rng(0).normal(size=(2, 6, 32))
    with pytest.raises(ValueError, match=message):
        COALAPreferenceHead(embedding=bad).fit_pairs(*X)


def test_head_of_other_width_is_refused(lm: LanguageModel) -> None:
    X = np.random.default_rng(0).normal(size=(2, 6, 31))
    head = COALAPreferenceHead(embedding=Embedder(lm).description)
    with pytest.raises(ValueError, match="X has 31 features, but those of embedding are 32"):
        head.fit_pairs(*X)


@pytest.mark.parametrize("kind", ["single", "cv"])
def test_description_is_saved_with_the_head(lm: LanguageModel, tmp_path: Path, kind: str) -> None:
    head = small_head(
        lm,
        COALAPreferenceHeadCV(
            COALAPreferenceHead(formulation="relu", n_patterns=4, random_state=0), n_folds=2
        )
        if kind == "cv"
        else None,
        pooling="last",
        layer=1,
    )
    cvxnn.save(head, tmp_path / "head.safetensors")
    back = cvxnn.load(tmp_path / "head.safetensors")
    assert back.embedding == head.embedding == Embedder(lm, pooling="last", layer=1).description
    assert clone(back).embedding == head.embedding
    X = Embedder.from_description(lm, back.embedding).embed(["a b"], ["c d"])
    np.testing.assert_array_equal(back.reward(X), head.reward(X))


def test_choose_takes_the_settings_from_the_head(lm: LanguageModel) -> None:
    head = small_head(lm, pooling="last", layer=1)
    index, rewards = choose_reply(lm, head, "a b", ["p q", "c d"])
    expected = head.reward(Embedder(lm, pooling="last", layer=1).embed(["a b"] * 2, ["p q", "c d"]))
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)
    assert index == 1
    assert choose_reply(lm, head, "a b", ["p q", "c d"], pooling="last")[0] == 1
    with pytest.raises(ValueError, match="pooling is 'mean'"):
        choose_reply(lm, head, "a b", ["p q", "c d"], pooling="mean")
