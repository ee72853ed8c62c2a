"""Embeddings by vLLM's pooling runner, for which a stand-in has the documented interface."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cvxnn.features import blocks, extract_pairs
from cvxnn.llm import Embedder, LanguageModel, VllmEmbedder, vllm_engine
from cvxnn.preference import PreferenceTriplet

torch = pytest.importorskip("torch")

PAIRS = [PreferenceTriplet(f"a b {c}", f"c {c} d", "e f") for c in "ghijklmnop"]


class StandIn:
    """``vllm.LLM`` that runs a model of transformers, one sequence at a time."""

    def __init__(self, lm: LanguageModel, *, scale: float = 1.0, lost: int = 0) -> None:
        self.lm, self.scale, self.lost = lm, scale, lost
        self.n_prompts = 0

    def encode(self, prompts: Any, *, pooling_task: str, use_tqdm: bool) -> list[Any]:
        assert pooling_task == "token_embed"
        assert not use_tqdm
        self.n_prompts += len(prompts)
        outputs = []
        for prompt in prompts:
            ids = torch.tensor([prompt["prompt_token_ids"]])
            with torch.inference_mode():
                states = self.lm.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
            data = self.scale * states[self.lost :]
            outputs.append(SimpleNamespace(outputs=SimpleNamespace(data=data)))
        return outputs


@pytest.mark.parametrize(
    "settings",
    [{}, {"pooling": "last", "context": True}, {"pooling": "attention", "max_length": 5}],
)
def test_rows_are_those_of_the_model(
    tiny_lm: Callable[..., LanguageModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 8)
    lm = tiny_lm()
    ours = Embedder(lm, share_prefixes=False, **settings)
    theirs = VllmEmbedder(lm, StandIn(lm), **settings)
    assert theirs.description == ours.description
    if "max_length" in settings:
        with pytest.warns(UserWarning, match="lost the beginning"):
            found, expected = theirs.embed_pairs(PAIRS), ours.embed_pairs(PAIRS)
    else:
        found = extract_pairs(theirs, PAIRS, tmp_path).chosen, theirs.embed_pairs(PAIRS)[1]
        expected = ours.embed_pairs(PAIRS)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert theirs.tokens_computed_ > 0


def test_engines_that_differ_are_refused(tiny_lm: Callable[..., LanguageModel]) -> None:
    lm = tiny_lm()
    for engine in (StandIn(lm, scale=0.5), StandIn(tiny_lm(scale=3.0))):
        with pytest.raises(ValueError, match="vLLM gives other hidden states"):
            VllmEmbedder(lm, engine)
    with pytest.raises(ValueError, match="of 11 of 12 tokens"):
        VllmEmbedder(lm, StandIn(lm, lost=1))
    with pytest.raises(ValueError, match="gives the last layer only"):
        VllmEmbedder(lm, StandIn(lm), layer=1)


@dataclass
class PoolerConfig:
    """``vllm.config.PoolerConfig`` of 0.18."""

    use_activation: bool | None = None


@dataclass
class LaterPoolerConfig(PoolerConfig):
    """That of newer versions, where an engine has one task."""

    task: str | None = None


def test_engine_is_started_as_documented(
    tiny_lm: Callable[..., LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny_lm()
    with pytest.raises(ImportError, match=r'pip install "cvxnn\[vllm\]"'):
        vllm_engine("folder", lm, 64)
    vllm, config = ModuleType("vllm"), ModuleType("vllm.config")
    vllm.LLM = lambda **options: options  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.config", config)
    for kind, expected in (
        (PoolerConfig, PoolerConfig(False)),
        (LaterPoolerConfig, LaterPoolerConfig(False, "token_embed")),
    ):
        config.PoolerConfig = kind  # type: ignore[attr-defined]
        assert vllm_engine("folder", lm, 64, tensor_parallel_size=2) == {
            "model": "folder",
            "runner": "pooling",
            "convert": "embed",
            "pooler_config": expected,
            "dtype": "float32",
            "max_model_len": 64,
            "tensor_parallel_size": 2,
        }
