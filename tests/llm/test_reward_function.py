"""Rewards as trainers ask for them, against those of single replies, and in a trainer of TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.llm import Embedder, RewardFunction, RewardServer

pytest.importorskip("torch")


class First:
    """A head that rewards the first number of an embedding, in negative numbers as heads do."""

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X[:, 0] - 10


@pytest.fixture(scope="module")
def function(tiny_lm: Any) -> RewardFunction:
    return RewardFunction(First(), Embedder(tiny_lm()))


def serve_once(head: Any, embedder: Embedder) -> None:
    RewardServer(head, embedder, port=0).server_close()


def reward(function: RewardFunction, prompt: Any, reply: str) -> float:
    return float(First().reward(function.embedder.embed([prompt], [reply]))[0])


def said(role: str, content: str | None) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_texts_and_conversations(function: RewardFunction) -> None:
    prompts, replies = ["a b", "a b", "c"], ["d", "e f", "g h"]
    expected = [reward(function, *pair) for pair in zip(prompts, replies, strict=True)]
    found = function(prompts=prompts, completions=replies, completion_ids=[[1]], answer=["x"] * 3)
    assert all(type(value) is float for value in found)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    chats: Any = [[said("system", "s"), said("user", prompt)] for prompt in prompts]
    expected = [reward(function, *pair) for pair in zip(chats, replies, strict=True)]
    found = function(chats, [[said("assistant", reply)] for reply in replies])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_last_message_of_several_is_scored(function: RewardFunction) -> None:
    steps = [said("assistant", "d"), said("tool", "e"), said("assistant", "f g")]
    expected = reward(function, [said("user", "a"), *steps[:2]], "f g")
    assert function(["a"], [steps]) == pytest.approx([expected])


def test_a_completion_without_text_is_never_the_best(function: RewardFunction) -> None:
    found = function(["a"] * 5, ["b", " ", "c d", [], [said("assistant", None)]])
    kept = [reward(function, "a", "b"), reward(function, "a", "c d")]
    least = min(kept)
    assert found == pytest.approx([kept[0], least, kept[1], least, least])
    assert function(["a"], [""]) == [0.0]


@pytest.mark.parametrize(
    "completion",
    [
        None,
        5,
        {"role": "assistant", "content": "b"},
        ["b"],
        [{"role": "assistant"}],
        [{"role": "assistant", "content": 5}],
        [{"role": "assistant", "content": [{"type": "text", "text": "b"}]}],
        [{"role": "assistant", "content": None}, {"role": "assistant", "content": "b"}],
    ],
    ids=repr,
)
def test_completions_that_are_no_text_are_named(function: RewardFunction, completion: Any) -> None:
    with pytest.raises(ValueError, match="completion 1"):
        function(["a", "a"], ["b", completion])


def test_prompts_and_completions_go_together(function: RewardFunction) -> None:
    with pytest.raises(ValueError, match="shorter"):
        function(["a", "b"], ["c"])


@pytest.mark.parametrize("made", [RewardFunction, serve_once])
def test_embeddings_that_the_head_was_not_fitted_to_are_refused(tiny_lm: Any, made: Any) -> None:
    lm, head = tiny_lm(), First()
    embedder = Embedder(lm, layer=1)
    head.embedding = embedder.description  # type: ignore[attr-defined]
    others = {
        "layer is 1 and 2": Embedder(lm, layer=2),
        "max_length is 1024 and 8": Embedder(lm, layer=1, max_length=8),
        "pooling is 'mean' and 'last'": Embedder(lm, layer=1, pooling="last"),
        "with other weights": Embedder(tiny_lm(scale=3.0), layer=1),
    }
    for differs, other in others.items():
        with pytest.raises(ValueError, match=f"fitted to other embeddings .*{differs}"):
            made(head, other)
    made(head, Embedder.from_description(lm, embedder.description))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # within TRL
def test_trl_trains_with_it(function: RewardFunction, tiny_lm: Any, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    policy = tiny_lm()
    policy.tokenizer.pad_token = "v"
    asked = []

    def watched(**given: Any) -> list[float]:
        asked.append(given)
        return function(**given)

    config = trl.GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=4,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = trl.GRPOTrainer(
        model=policy.model.train().requires_grad_(True),
        reward_funcs=[watched, function],
        args=config,
        train_dataset=datasets.Dataset.from_list([{"prompt": "a b c"}] * 4),
        processing_class=policy.tokenizer,
    )
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert logged["rewards/cvxnn_reward/mean"] == pytest.approx(logged["rewards/watched/mean"])
    assert (len(asked), len(asked[0]["completions"])) == (1, 4)
