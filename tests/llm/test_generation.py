from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cvxnn.llm import (
    LanguageModel,
    choose_reply,
    embed_responses,
    generate_candidates,
    generate_greedy,
    generation,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["<pad>", "<unk>", "<eos>", *"abcdefghijklmnopqrst"]
CONTEXT = 48


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", eos_token="<eos>"
    )
    config = transformers.CONFIG_MAPPING[request.param](
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # the usual small weights give an almost uniform distribution
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(5)
    return LanguageModel(model, tokenizer, request.param)


class Linear:
    """A head that prefers a direction."""

    def __init__(self, width: int) -> None:
        self.direction = np.random.default_rng(0).normal(size=width)

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X @ self.direction


def test_greedy_takes_the_most_likely_token_each_time(lm: LanguageModel) -> None:
    ids = list(lm.encode_prompts(["a b c"])[0])
    start = len(ids)
    for _ in range(8):
        with torch.no_grad():
            ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == lm.tokenizer.eos_token_id:
            break
    expected = lm.tokenizer.decode(ids[start:], skip_special_tokens=True)
    assert generate_greedy(lm, "a b c", 8) == expected
    assert generate_candidates(lm, "a b c", 2, max_new_tokens=8, top_k=1) == [expected] * 2


def test_candidates_are_those_of_their_seed(lm: LanguageModel) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = generate_candidates(lm, "a b c", seed=1, max_new_tokens=12)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    assert generate_candidates(lm, "a b c", seed=1, max_new_tokens=12) == first
    assert generate_candidates(lm, "a b c", seed=2, max_new_tokens=12) != first
    assert len(first) == 5
    assert len(set(first)) > 1
    assert not any("<eos>" in text for text in first)


def test_reading_the_prompt_once_changes_nothing(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = generate_candidates(lm, "a b c d e f", 4, max_new_tokens=12)
    assert generation._prefill(lm, torch.tensor([[3, 4, 5]]), 4) is not None
    monkeypatch.setattr(generation, "_prefill", lambda *_: None)
    assert generate_candidates(lm, "a b c d e f", 4, max_new_tokens=12) == once


def test_long_prompts_lose_their_beginning(lm: LanguageModel) -> None:
    with pytest.warns(UserWarning, match="60 tokens; its oldest 22 are dropped"):
        text = generate_greedy(lm, "a " * 22 + "b " * 38, 10)
    assert text == generate_greedy(lm, "b " * 38, 10)


def test_nothing_is_printed(lm: LanguageModel, capfd: pytest.CaptureFixture[str]) -> None:
    generate_candidates(lm, "a", 2, max_new_tokens=3)
    generate_greedy(lm, "a", 3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options",
    [
        {"n": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"max_new_tokens": 0},
        {"max_new_tokens": CONTEXT},
    ],
)
def test_settings_out_of_range(lm: LanguageModel, options: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=rf"{next(iter(options))} (is )?{next(iter(options.values()))}[,;]"
    ):
        generate_candidates(lm, "a", **options)


def test_choice_has_the_highest_reward(lm: LanguageModel) -> None:
    head, candidates = Linear(32), ["a b", "c", "d e f", "a b"]
    index, rewards = choose_reply(lm, head, "g h", candidates, pooling="last")
    expected = head.reward(embed_responses(lm, ["g h"] * 4, candidates, pooling="last"))
    np.testing.assert_allclose(rewards, expected, rtol=1e-4)
    assert index == expected.argmax()


def test_empty_candidates_are_never_chosen(lm: LanguageModel) -> None:
    index, rewards = choose_reply(lm, Linear(32), "g", ["", "a", " \n"])
    assert index == 1
    assert rewards[[0, 2]].tolist() == [-np.inf, -np.inf]
    for candidates in ([], ["", " "]):
        with pytest.raises(ValueError, match="candidates has any text"):
            choose_reply(lm, Linear(32), "g", candidates)


@pytest.mark.parametrize("rewards", [[[1.0], [2.0]], [1.0], [1.0, np.nan]])
def test_rewards_of_a_broken_head(lm: LanguageModel, rewards: Any) -> None:
    class Broken:
        def reward(self, X: np.ndarray) -> Any:
            return rewards

    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        choose_reply(lm, Broken(), "g", ["a", "b"])
