"""A head in RewardBench's runner, for which a stand-in does what its source does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cvxnn.llm import Embedder, LanguageModel, register_reward_bench

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class First:
    """A head that rewards the first number of an embedding."""

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X[:, 0]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "rewardbench", SimpleNamespace(REWARD_MODEL_CONFIG=found))
    return found


def test_the_runner_gets_the_rewards_of_the_head(
    tiny_lm: Callable[..., LanguageModel], registry: dict[str, Any], tmp_path: Path
) -> None:
    embedder = Embedder(tiny_lm())
    name = register_reward_bench(First(), embedder, tmp_path / "bench")
    config = registry[name]
    assert not config["quantized"]
    assert not config["custom_dialogue"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "bench")
    assert embedder.lm.tokenizer.chat_template != tokenizer.chat_template
    # A prompt of the core set, and one of several turns.
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chats = [[{"role": "user", "content": 'a "b"\n c é'}], [*turns, turns[0]]]
    replies = ["d e", "f"]
    texts = [
        tokenizer.apply_chat_template(
            [*chat, {"role": "assistant", "content": reply}], tokenize=False
        )
        for chat, reply in zip(chats, replies, strict=True)
    ]
    model = config["model_builder"](name, device_map="auto", trust_remote_code=False)
    pipe = config["pipeline_builder"]("text-classification", model=model, tokenizer=tokenizer)
    if pipe.tokenizer.pad_token_id is None:
        pipe.tokenizer.pad_token_id = pipe.tokenizer.eos_token_id
    assert pipe.model.config is not None
    pipe.model = pipe.model  # what accelerate has prepared
    found = pipe(texts, batch_size=2, truncation=True, max_length=4, function_to_apply="none")
    expected = embedder.embed([chats[0][0]["content"], chats[1]], replies)[:, 0]
    np.testing.assert_allclose(found.float().cpu().numpy(), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="as the tokenizer of the runner"):
        pipe(["<|user|> a <|assistant|> b"])


def test_what_is_missing_is_named(
    tiny_lm: Callable[..., LanguageModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rewardbench", None)
    with pytest.raises(ImportError, match="pip install --no-deps rewardbench"):
        register_reward_bench(First(), Embedder(tiny_lm()), tmp_path)
    # Installed, but made for another transformers: to install it again would not help.
    package = tmp_path / "rewardbench"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from transformers.models.llama.modeling_llama import _CONFIG_FOR_DOC\n", "utf-8"
    )
    monkeypatch.delitem(sys.modules, "rewardbench")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"cannot be imported \(cannot import name '_CONFIG") as e:
        register_reward_bench(First(), Embedder(tiny_lm()), tmp_path)
    assert "install it" not in str(e.value)
