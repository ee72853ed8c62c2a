"""Rewards in a server of vLLM, for whose IO processors a stand-in has the documented interface."""

from __future__ import annotations

import asyncio
import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cvxnn
from cvxnn.llm import Embedder, LanguageModel
from cvxnn.serving import load_reward_head

torch = pytest.importorskip("torch")

PROMPT, REPLIES = "a b g", ["c d", "e f c", "c d", "p"]


class IOProcessor(ABC):
    """vLLM's class, whose methods a processor has to have."""

    METHODS = (
        "parse_data",
        "merge_sampling_params",
        "merge_pooling_params",
        "pre_process",
        "pre_process_async",
        "post_process",
        "post_process_async",
    )

    @abstractmethod
    def pre_process(self, prompt: Any) -> Any:
        """Return prompts of the model."""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    params = SimpleNamespace(PoolingParams=lambda task: SimpleNamespace(task=task))
    stand_ins: dict[str, Any] = {
        "vllm": params,
        "vllm.plugins": SimpleNamespace(),
        "vllm.plugins.io_processors": SimpleNamespace(),
        "vllm.plugins.io_processors.interface": SimpleNamespace(IOProcessor=IOProcessor),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, stand_in)
    return importlib.import_module("cvxnn.llm.vllm_rewards")


@pytest.fixture
def processor(
    module: Any, tiny_lm: Callable[..., LanguageModel], tmp_path: Path, monkeypatch: Any
) -> Any:
    lm = tiny_lm()
    embedder = Embedder(lm)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 40, 32)).astype(np.float32)
    head = cvxnn.COALAPreferenceHead(
        n_patterns=4, beta=2.0, random_state=0, embedding=embedder.description
    ).fit_pairs(X[0] + 0.3, X[1])
    cvxnn.save(head, tmp_path / "head.safetensors")
    monkeypatch.setenv("CVXNN_HEAD", str(tmp_path / "head.safetensors"))
    monkeypatch.setattr(module, "load_model", lambda name: lm)
    config = SimpleNamespace(model_config=SimpleNamespace(model="tiny"))
    assert module.processor() == "cvxnn.llm.vllm_rewards.RewardProcessor"
    found = module.RewardProcessor(config, renderer=None)
    assert isinstance(found, IOProcessor)
    assert all(callable(getattr(found, name)) for name in IOProcessor.METHODS)
    found.expected = head.reward(embedder.embed([PROMPT] * 4, REPLIES)).tolist()
    return found


def run(processor: Any, prompts: list[Any]) -> list[Any]:
    """Return what vLLM gives for token prompts: the states of all their tokens."""
    assert processor.merge_pooling_params().task == "token_embed"
    outputs = []
    for prompt in prompts:
        ids = torch.tensor([prompt["prompt_token_ids"]])
        with torch.inference_mode():
            lm = processor.embedder.lm
            data = lm.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
        outputs.append(SimpleNamespace(outputs=SimpleNamespace(data=data)))
    return outputs


def test_rewards_are_those_of_the_head_on_its_embeddings(processor: Any) -> None:
    asked = processor.parse_data({"prompt": PROMPT, "responses": REPLIES})
    outputs = run(processor, processor.pre_process(asked))
    found = processor.post_process(outputs)
    np.testing.assert_allclose(found["rewards"], processor.expected, rtol=1e-4)
    assert not processor._items


def test_requests_may_end_in_any_order(processor: Any) -> None:
    asked = {
        name: processor.parse_data({"prompt": PROMPT, "responses": [reply, REPLIES[1]]})
        for name, reply in zip("abcd", REPLIES, strict=True)
    }
    outputs = {name: run(processor, processor.pre_process(a, name)) for name, a in asked.items()}

    async def given(name: str) -> Any:
        for pair in reversed(list(enumerate(outputs[name]))):
            yield pair

    for name in "cadb":
        found = asyncio.run(processor.post_process_async(given(name), request_id=name))
        expected = [processor.expected["abcd".index(name)], processor.expected[1]]
        assert found["rewards"] == pytest.approx(expected, rel=1e-4)
    assert not processor._items


@pytest.mark.parametrize(
    "data",
    [None, [], {"prompt": "a"}, {"prompt": 1, "responses": ["b"]}]
    + [{"prompt": "a", "responses": wrong} for wrong in ([], "b", [1])],
)
def test_other_requests_are_refused(processor: Any, data: Any) -> None:
    with pytest.raises(ValueError, match="with at least one response"):
        processor.parse_data(data)


def test_a_head_that_does_not_fit_is_refused(
    processor: Any, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = processor.vllm_config
    X = np.random.default_rng(0).normal(size=(30, 32))
    cvxnn.save(
        cvxnn.LinearPreferenceHead(C=1.0).fit_pairs(X + 1, X[::-1]), tmp_path / "other.safetensors"
    )
    monkeypatch.setenv("CVXNN_HEAD", str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match="does not say which embeddings"):
        module.RewardProcessor(config, None)
    lower = Embedder(processor.embedder.lm, layer=1)
    described = cvxnn.load(tmp_path / "head.safetensors").set_params(embedding=lower.description)
    cvxnn.save(described, tmp_path / "lower.safetensors")
    monkeypatch.setenv("CVXNN_HEAD", str(tmp_path / "lower.safetensors"))
    with pytest.raises(ValueError, match="vLLM gives the last layer only"):
        module.RewardProcessor(config, None)
    monkeypatch.delenv("CVXNN_HEAD")
    with pytest.raises(RuntimeError, match="CVXNN_HEAD is not set"):
        module.RewardProcessor(config, None)


def test_only_heads_have_rewards(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(20, 2))
    cvxnn.save(cvxnn.ConvexReLURegressor(n_patterns=2).fit(X, X[:, 0]), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="expected a preference head"):
        load_reward_head(tmp_path / "m.safetensors")
