from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cvxnn.llm import (
    Embedder,
    FineTuningConfig,
    Guidance,
    LanguageModel,
    choose_reply,
    generate_candidates,
    generate_greedy,
    generate_guided,
)
from cvxnn.llm.decoding import plain_replies
from cvxnn.llm.fine_tuning.adapters import add_adapter

from ..tiny_models import tiny_model, tiny_tokenizer

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
    tokenizer = tiny_tokenizer(WORDS, unk_token="<unk>", eos_token="<eos>")
    model = tiny_model(
        request.param,
        scale=5,
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LanguageModel(model, tokenizer, request.param)


class Linear:
    """A head that prefers a direction."""

    embedding: Any = None

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


OBSTACLES: list[dict[str, Any]] = [
    {"repetition_penalty": 5.0},
    {"no_repeat_ngram_size": 1},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    {"do_sample": True, "temperature": 3.0, "top_k": 3, "top_p": 0.5, "min_p": 0.1},
    {"suppress_tokens": list(range(3, 20))},
    {"bad_words_ids": [[i] for i in range(3, 20)]},
    {"sequence_bias": [[[3], 100.0]]},
    {"forced_bos_token_id": 5, "forced_eos_token_id": 6},
    {"min_new_tokens": 8, "exponential_decay_length_penalty": [1, 2.0]},
    {"max_length": 3, "max_new_tokens": 1, "max_time": 1e-9},
    {"stop_strings": list("abcdefghijklmnopqrst")},
    {"cache_implementation": "static"},
    {"use_cache": False},
    {"return_dict_in_generate": True, "output_scores": True, "output_hidden_states": True},
    {"num_return_sequences": 2, "num_beams": 2},
    {"prompt_lookup_num_tokens": 2},
    {"guidance_scale": 3.0},
]


def test_generation_configuration_of_the_model_does_not_count(
    tiny_lm: Callable[..., LanguageModel],
) -> None:
    """Published models have penalties, beams and caches of their own, such as Qwen2.5 with 1.1."""
    lm, head = tiny_lm(), Linear(32)
    head.embedding = Embedder(lm).description
    guidance = Guidance(max_new_tokens=4, n_candidates=3, segment=2)

    def write() -> list[Any]:
        return [
            generate_greedy(lm, "a b c", 4),
            *generate_candidates(lm, "a b c", 3, max_new_tokens=4, seed=1),
            generate_guided(lm, head, "a b c", guidance).text,
        ]

    expected = write()
    for obstacle in OBSTACLES:
        config = transformers.GenerationConfig(eos_token_id=2, **obstacle)
        lm.model.generation_config = config
        before = config.to_dict()
        assert write() == expected, obstacle
        assert lm.model.generation_config is config
        assert config.to_dict() == before


def test_adapters_change_neither_configuration_nor_the_way_to_write(lm: LanguageModel) -> None:
    config = lm.model.generation_config
    adapted = add_adapter(lm, FineTuningConfig(lora_r=2))  # a new adapter changes nothing
    adapted.model.generation_config.repetition_penalty = 5.0
    assert generate_greedy(adapted, "a b c", 8) == generate_greedy(lm, "a b c", 8)
    assert lm.model.generation_config is config


def test_tokens_of_the_configuration_and_of_the_template_end_replies(lm: LanguageModel) -> None:
    whole = generate_greedy(lm, "a b c", 8)
    end = whole.split()[2]
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [end]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} "
        "{% if m['role'] == 'assistant' %}" + end + "{% endif %}{% endfor %}"
    )
    expected = whole[: whole.index(end)].strip()
    assert generate_greedy(dataclasses.replace(lm, tokenizer=tokenizer), "a b c", 8) == expected
    config = transformers.GenerationConfig(eos_token_id=[2, lm.encode_responses([end])[0][0]])
    model = copy.copy(lm.model)
    model.generation_config = config
    assert generate_greedy(dataclasses.replace(lm, model=model), "a b c", 8) == expected


def test_padding_that_the_model_does_not_know(lm: LanguageModel) -> None:
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<beyond the matrix>"})
    larger = dataclasses.replace(lm, tokenizer=tokenizer)
    options: dict[str, Any] = {"n": 6, "max_new_tokens": 12, "seed": 3}
    texts = generate_candidates(lm, "a b c", **options)
    assert len({len(text.split()) for text in texts}) > 1  # some end before others
    assert generate_candidates(larger, "a b c", **options) == texts


def test_tokens_are_counted_as_they_were_written(lm: LanguageModel) -> None:
    sampling = {"do_sample": True, "top_k": 0}
    replies = plain_replies.write_plain(lm, "a b c", 8, 6, options=sampling)
    assert {reply.ending for reply in replies} <= {"end", "length"}
    for text, ending, n_tokens in replies:
        assert len(text.split()) <= n_tokens <= 6  # special tokens have no text
        assert (n_tokens == 6) == (ending == "length")


def test_stop_strings_end_replies(lm: LanguageModel) -> None:
    options: dict[str, Any] = {"n": 6, "max_new_tokens": 12, "seed": 3}
    texts = generate_candidates(lm, "a b c", **options)
    stop = [texts[0].split()[3], "zz"]
    found = generate_candidates(lm, "a b c", stop=stop, **options)
    assert found[0] == texts[0][: texts[0].index(stop[0])]
    assert not any(stop[0] in text for text in found)
    greedy = generate_greedy(lm, "a b c", 8)
    stop = greedy.split()[2]
    assert generate_greedy(lm, "a b c", 8, stop=stop) == greedy[: greedy.index(stop)]
    calls: list[int] = []
    handle = lm.model.register_forward_hook(lambda *_: calls.append(1))
    generate_greedy(lm, "a b c", 40, stop=stop)
    handle.remove()
    assert len(calls) <= len(greedy.split())  # nothing is written after it
    with pytest.raises(ValueError, match=r"stop is \[''\]; expected strings"):
        generate_greedy(lm, "a", 8, stop=[""])


@pytest.mark.parametrize("family", ["mamba", "lfm2", "falcon_h1", "minimax"])
def test_caches_that_cannot_be_repeated(tiny_lm: Callable[..., LanguageModel], family: str) -> None:
    lm = tiny_lm(family, scale=2.0)
    assert plain_replies._prefill(lm, torch.tensor([[3, 4, 5]]), 2) is None
    ids = list(lm.encode_prompts(["a b c"])[0])
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in lm.end_tokens:
            break
    assert (
        generate_candidates(lm, "a b c", 2, max_new_tokens=6, top_k=1) == [lm.decode(ids[3:])] * 2
    )


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
    assert plain_replies._prefill(lm, torch.tensor([[3, 4, 5]]), 4) is not None
    monkeypatch.setattr(plain_replies, "_prefill", lambda *_: None)
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
    expected = head.reward(Embedder(lm, pooling="last").embed(["g h"] * 4, candidates))
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
