from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.llm import EmbeddingCache, LanguageModel, log_probabilities, response_scorer
from cvxnn.llm.log_probabilities import (
    encode_pairs,
    response_log_probabilities,
)
from cvxnn.llm.packing import Pack
from cvxnn.llm.response_scorer import ResponseScorer

from ..tiny_models import tiny_model, tiny_tokenizer

torch = pytest.importorskip("torch")

WORDS = ["<pad>", "<unk>", "<eos>", "<user>", "<assistant>", "<bos>", *"abcdefghijklmnopqrst"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CONTEXT = 64
ATTENTION = {"num_key_value_heads": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIZES: dict[str, dict[str, Any]] = {
    "llama": ATTENTION,
    "gpt2": {"num_attention_heads": 4},
    "bloom": {"num_attention_heads": 4},  # no positions: takes no prefix trees
    "gemma2": {**ATTENTION, "head_dim": 8, "final_logit_softcapping": 3.0},  # logits are capped
    "llama4_text": {**ATTENTION, "head_dim": 8, "num_local_experts": 2},  # names no decoder
}
PROMPTS = ["a b c", "a b c", "d", "a b d e f g", "d"]
RESPONSES = ["e f", "e g h i", "j k l m n", "o", "j k l m n"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_lm(
    family: str = "llama",
    *,
    template: str | None = TEMPLATE,
    special: dict[str, str] | None = None,
    **options: Any,
) -> LanguageModel:
    tokenizer = tiny_tokenizer(WORDS, **({"eos_token": "<eos>"} if special is None else special))
    tokenizer.chat_template = template
    sizes = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2}
    if family != "bloom":
        sizes["max_position_embeddings"] = CONTEXT
    sizes.update(bos_token_id=5, eos_token_id=2, pad_token_id=0)
    model = tiny_model(family, **{**sizes, **SIZES[family], **options})
    return LanguageModel(model.requires_grad_(False), tokenizer, family)


def naive(lm: LanguageModel, prompt: Any, response: str, end: bool = True) -> tuple[float, int]:
    """One token after the other, from the model's own logits."""
    [tokens], [reply] = lm.encode_prompts([prompt]), lm.encode_responses([response])
    total = 0.0
    reply = reply + [2] * end
    for token in reply:
        with torch.no_grad():
            logits = lm.model(torch.tensor([tokens])).logits[0, -1].double().numpy()
        total += logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        tokens = [*tokens, token]
    return total, len(reply)


@pytest.mark.parametrize(
    ("family", "template"),
    [
        pytest.param(
            family,
            template,
            marks=[] if template is None or family == "llama" else pytest.mark.slow,
            id=f"{family}-{'plain' if template is None else 'template'}",
        )
        for family in SIZES
        for template in (TEMPLATE, None)
    ],
)
def test_token_by_token(family: str, template: str | None) -> None:
    lm = make_lm(family, template=template)
    for share_prefixes, batch_tokens, end in itertools.product(
        [True, False], [1, 30, 4096], [True, False]
    ):
        values, lengths = response_log_probabilities(
            lm,
            PROMPTS,
            RESPONSES,
            share_prefixes=share_prefixes,
            batch_tokens=batch_tokens,
            end_of_turn=end,
        )
        expected = [naive(lm, p, r, end) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
        np.testing.assert_allclose(values, [total for total, _ in expected], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(lengths, [n for _, n in expected])


@pytest.mark.parametrize("family", SIZES)
def test_slopes_are_those_of_the_whole_model(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_scorer, "_CHUNK", 2 * len(WORDS))  # two tokens at a time
    lm = make_lm(family)
    weights = [w for name, w in lm.decoder.named_parameters() if "norm" in name or "ln" in name]
    for weight in weights:
        weight.requires_grad_(True)
    items = encode_pairs(lm, PROMPTS, RESPONSES)
    factors = torch.arange(1.0, len(items) + 1)
    scorer = ResponseScorer(lm)
    batches = [[Pack([i], len(item.tokens)) for i, item in enumerate(items)]]
    if scorer.shares(CONTEXT):
        batches += scorer.plan(items[:2], 4096)
        assert [pack.members for pack in batches[1]] == [[0, 1]]
    else:
        assert family in ("bloom", "llama4_text")
    for batch in batches:
        members = [i for pack in batch for i in pack.members]
        loss = 0.0
        for k in members:
            item = items[k]
            logits = lm.model(torch.from_numpy(item.tokens)[None]).logits[0]
            losses = torch.nn.functional.cross_entropy(
                logits[item.start - 1 : -1], torch.from_numpy(item.tokens[item.start :])
            )
            loss = loss - factors[k] * losses * (len(item.tokens) - item.start)
        expected = torch.autograd.grad(loss, weights)
        actual = torch.autograd.grad(scorer(items, batch) @ factors[members], weights)
        for ours, theirs in zip(actual, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_prefix_trees_spare_tokens() -> None:
    lm = make_lm()
    items = encode_pairs(lm, ["a b c d e f g h i j k"] * 2, ["l", "m n"])
    scorer = ResponseScorer(lm)
    list(scorer.sums(items, scorer.plan(items, 4096)))
    prompt = items[0].start
    assert scorer.tokens_computed == prompt + len("l<") + len("mn<")


def test_half_precision_is_summed_in_float32() -> None:
    lm = make_lm()
    expected = response_log_probabilities(lm, PROMPTS, RESPONSES).log_probabilities
    lm.model.to(torch.bfloat16)
    items = encode_pairs(lm, PROMPTS, RESPONSES)
    sums = ResponseScorer(lm)(items, [Pack([i], len(x.tokens)) for i, x in enumerate(items)])
    assert sums.dtype == torch.float32
    np.testing.assert_allclose(sums, expected, rtol=0.1)


def test_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm()
    first = response_log_probabilities(lm, PROMPTS, RESPONSES, cache=tmp_path / "cache.sqlite")
    plain = response_log_probabilities(lm, PROMPTS, RESPONSES)
    np.testing.assert_array_equal(first.log_probabilities, plain.log_probabilities)
    with EmbeddingCache(tmp_path / "cache.sqlite") as cache:
        assert len(cache) == 4  # one pair is there twice
        with monkeypatch.context() as patch:
            patch.setattr(log_probabilities, "ResponseScorer", None)
            again = response_log_probabilities(lm, PROMPTS, RESPONSES, cache=cache)
        np.testing.assert_array_equal(again.log_probabilities, first.log_probabilities)
        lm.model.lm_head.weight.mul_(1.1)
        other = response_log_probabilities(lm, PROMPTS, RESPONSES, cache=cache)
        assert not np.allclose(other.log_probabilities, first.log_probabilities)
        response_log_probabilities(lm, PROMPTS, RESPONSES, cache=cache, end_of_turn=False)
        assert len(cache) == 12


def test_long_pairs_lose_the_beginning_of_the_prompt() -> None:
    lm = make_lm(template=None)
    prompts, responses = ["a b c d e f", "a", "a b"], ["g h", "i j k l m n o", "c"]
    with pytest.warns(UserWarning, match=r"1 of 3 .* more than 6 .* 1 of them lost the end"):
        items = encode_pairs(lm, prompts, responses, max_length=6)
    texts = [lm.tokenizer.decode(item.tokens) for item in items]
    assert texts == ["d e f g h <eos>", "a i j k l m", "a b c <eos>"]
    assert [item.start for item in items] == [3, 1, 2]


def test_context_length_is_the_limit() -> None:
    lm = make_lm(template=None)
    with pytest.warns(UserWarning, match=f"more than {CONTEXT} tokens"):
        [item] = encode_pairs(lm, ["a " * 100], ["b"])
    assert len(item.tokens) == CONTEXT


def test_no_tokens_to_end_or_begin_with() -> None:
    lm = make_lm(template=None, special={"bos_token": "<bos>"})
    [item] = encode_pairs(lm, [""], ["a b"])
    assert lm.tokenizer.decode(item.tokens) == "<bos> a b"
    lm = make_lm(template=None, special={})
    with pytest.raises(ValueError, match="prompt 0 has no token"):
        encode_pairs(lm, [""], ["a b"])


def test_bad_input() -> None:
    lm = make_lm()
    with pytest.raises(ValueError, match="1 prompt but 2 responses"):
        response_log_probabilities(lm, ["a"], ["b", "c"])
    with pytest.raises(ValueError, match="not strings"):
        response_log_probabilities(lm, "a", ["b"])
    with pytest.raises(ValueError, match="no reply"):
        response_log_probabilities(lm, [], [])
    with pytest.raises(ValueError, match="response 1 is empty"):
        response_log_probabilities(lm, ["a", "a"], ["b", " "])
    with pytest.raises(ValueError, match="max_length is 1"):
        response_log_probabilities(lm, ["a"], ["b"], max_length=1)
    with pytest.raises(ValueError, match="batch_tokens is 0"):
        response_log_probabilities(lm, ["a"], ["b"], batch_tokens=0)
    lm.model.train()
    with pytest.raises(ValueError, match="training mode"):
        response_log_probabilities(lm, ["a"], ["b"])


def test_overflow_is_told() -> None:
    lm = make_lm()
    lm.model.lm_head.weight.mul_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        response_log_probabilities(lm, ["a"], ["b"])


@pytest.mark.parametrize("n_calls", [1, 3])
def test_killed_run_with_a_cache_resumes_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_calls: int
) -> None:
    lm = make_lm("llama")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*"abcdefghij"], rng.integers(2, 9))) for _ in range(40)]
    options: dict[str, Any] = {"batch_tokens": 40, "share_prefixes": False}
    whole = response_log_probabilities(lm, texts, texts[::-1], **options)
    put, calls = EmbeddingCache.put, []

    def killed(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) > n_calls:
            raise KeyboardInterrupt
        put(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingCache, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            response_log_probabilities(lm, texts, texts[::-1], cache=tmp_path / "c", **options)
    again = response_log_probabilities(lm, texts, texts[::-1], cache=tmp_path / "c", **options)
    np.testing.assert_array_equal(again.log_probabilities, whole.log_probabilities)
