from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn import COALAPreferenceHead
from cvxnn.llm import (
    Embedder,
    Guidance,
    GuidedReply,
    LanguageModel,
    RewardLogitsProcessor,
    choose_reply,
    generate_greedy,
    generate_guided,
    stream_guided,
)
from cvxnn.llm.decoding.reply_text import ReplyText
from cvxnn.llm.decoding.rules import Nucleus, Proposer, draw_candidate

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPT = "a b c d e"


class Linear:
    """A head that prefers a direction."""

    def __init__(self, lm: LanguageModel, **embedding: Any) -> None:
        self.embedding = Embedder(lm, **embedding).description
        self.direction = np.random.default_rng(0).normal(size=self.embedding["width"]) / 5

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X @ self.direction


@pytest.fixture(params=["llama", "gpt2"])
def lm(request: pytest.FixtureRequest, tiny_lm: Callable[..., LanguageModel]) -> LanguageModel:
    return tiny_lm(request.param)


@pytest.fixture
def llama(tiny_lm: Callable[..., LanguageModel]) -> LanguageModel:
    return tiny_lm()


def without_end(lm: LanguageModel) -> LanguageModel:
    """The model, but it never ends a reply."""
    bias = torch.zeros(lm.config.vocab_size)
    bias[lm.tokenizer.eos_token_id] = -1e9
    head = lm.model.get_output_embeddings()
    head.register_forward_hook(lambda _, __, logits: logits + bias)
    return lm


def states_of(lm: LanguageModel, tokens: list[int], layer: int) -> tuple[Any, np.ndarray]:
    """Logits after the last token and the states of all, computed from scratch."""
    with torch.no_grad():
        out = lm.model(torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    return out.logits[0, -1].double(), out.hidden_states[layer][0].double().numpy()


def reward_of(lm: LanguageModel, head: Linear, prompt: list[int], reply: list[int]) -> float:
    """Reward of a reply's tokens, from scratch and in numpy."""
    _, states = states_of(lm, prompt + reply, head.embedding["layer"])
    states = states[len(prompt) :]
    if head.embedding["pooling"] == "mean":
        pooled = states.mean(axis=0)
    elif head.embedding["pooling"] == "last":
        pooled = states[-1]
    else:
        z = (states - states.mean(1, keepdims=True)) / np.sqrt(states.var(1, keepdims=True) + 1e-5)
        weights = np.exp(z @ z[-1] / np.sqrt(states.shape[1]))
        pooled = weights @ states / weights.sum()
    return float(pooled @ head.direction)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the candidates of each decision, with what was written before."""
    seen: list[Any] = []
    propose = Proposer.__call__

    def call(self: Proposer, branches: Any, written: list[int]) -> Any:
        candidates = propose(self, branches, written)
        seen.append((list(written), candidates))
        return candidates

    monkeypatch.setattr(Proposer, "__call__", call)
    return seen


# The values


@pytest.mark.parametrize("mode", ["prefix", "token"])
@pytest.mark.parametrize(
    "embedding",
    [
        {"pooling": "last"},
        {"pooling": "mean", "layer": 1},
        {"pooling": "attention", "layer": 0},
        pytest.param({"pooling": "mean"}, marks=pytest.mark.slow),
        pytest.param({"pooling": "attention"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("start", ["", "f g h"])
def test_scores_and_rewards_are_those_of_computing_everything_again(
    lm: LanguageModel,
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
    embedding: dict[str, Any],
    start: str,
) -> None:
    head, seen = Linear(lm, **embedding), recorded(monkeypatch)
    guidance = Guidance(mode=mode, segment=3, weight=2.0, likelihood=0.7, max_new_tokens=10, seed=1)
    reply = generate_guided(lm, head, PROMPT, guidance, reply_start=start)
    [prompt] = lm.encode_prompts([PROMPT])
    given = lm.encode_responses([start])[0] if start else []
    assert reply.tokens[: reply.n_given] == given

    @functools.cache  # candidates share their first tokens
    def logits_after(*tokens: int) -> Any:
        return states_of(lm, list(tokens), 0)[0]

    for k, (written, candidates) in enumerate(seen):
        before = prompt + given + written
        values = np.array([reward_of(lm, head, prompt, given + written + c) for c in candidates[0]])
        mean_log_p = []
        for tokens, ending in zip(*candidates[:2], strict=True):
            steps = tokens + ([lm.tokenizer.eos_token_id] if ending == "end" else [])
            log_p = 0.0
            for i, token in enumerate(steps):
                logits = logits_after(*before, *steps[:i]).clone()
                if written == given == [] and i == 0:
                    logits[lm.tokenizer.eos_token_id] = -math.inf
                log_p += float(logits.log_softmax(-1)[token])
            mean_log_p.append(log_p / len(steps))
        usable = np.isfinite(candidates.log_probabilities)
        expected = 0.7 * np.array(mean_log_p) + 2.0 * (values - values[usable].mean())
        np.testing.assert_allclose(reply.scores[k][usable], expected[usable], rtol=1e-4, atol=1e-4)
        assert (reply.scores[k][~usable] == -np.inf).all()
        assert reply.chosen[k] == reply.scores[k].argmax()
        np.testing.assert_allclose(reply.rewards[k], values[reply.chosen[k]], rtol=1e-4, atol=1e-4)
        chosen = candidates.tokens[reply.chosen[k]]
        n = len(given) + len(written)
        assert reply.tokens[n : n + len(chosen)] == chosen
    assert len(seen) == len(reply.rewards) > 1


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("mode", ["prefix", "token"])
def test_last_reward_is_that_of_the_embedder(lm: LanguageModel, mode: Any, context: bool) -> None:
    head = Linear(lm, context=context)
    guidance = Guidance(mode=mode, max_new_tokens=12, segment=5)
    reply = generate_guided(lm, head, PROMPT, guidance, reply_start="f g")
    expected = head.reward(Embedder(lm, context=context).embed([PROMPT], [reply.text]))
    np.testing.assert_allclose(reply.rewards[-1], expected[0], rtol=1e-4)


@pytest.mark.parametrize("mode", ["prefix", "token"])
def test_windows_that_bind(tiny_lm: Callable[..., LanguageModel], mode: Any) -> None:
    lm = without_end(tiny_lm("mistral", sliding_window=6))
    head = Linear(lm)
    guidance = Guidance(mode=mode, max_new_tokens=14, segment=9, seed=2)
    reply = generate_guided(lm, head, PROMPT, guidance)
    [prompt] = lm.encode_prompts([PROMPT])
    expected = reward_of(lm, head, prompt, reply.tokens)
    assert len(reply.tokens) == 14
    np.testing.assert_allclose(reply.rewards[-1], expected, rtol=1e-4)


def test_without_weight_the_likeliest_tokens_are_taken(lm: LanguageModel) -> None:
    lm = without_end(lm)
    guidance = Guidance(mode="token", weight=0.0, max_new_tokens=8)
    reply = generate_guided(lm, Linear(lm), PROMPT, guidance)
    assert reply.text == generate_greedy(lm, PROMPT, 8)
    assert reply.ending == "length"


def test_weight_raises_the_reward(llama: LanguageModel) -> None:
    lm, rewards = without_end(llama), []
    for weight in (-4.0, 0.0, 4.0):
        guidance = Guidance(mode="token", weight=weight, max_new_tokens=20)
        rewards.append(generate_guided(lm, Linear(lm), PROMPT, guidance).rewards[-1])
    assert rewards[0] < rewards[1] < rewards[2]


def test_whole_replies_are_chosen_as_choose_does(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, seen = Linear(lm), recorded(monkeypatch)
    guidance = Guidance(segment=10, max_new_tokens=10, likelihood=0.0, n_candidates=7)
    reply = generate_guided(lm, head, PROMPT, guidance)
    [(_, candidates)] = seen
    texts = [lm.tokenizer.decode(tokens) for tokens in candidates.tokens]
    index, rewards = choose_reply(lm, head, PROMPT, texts)
    assert len(set(texts)) > 1
    assert reply.text == texts[index]
    np.testing.assert_allclose(reply.rewards, [rewards.max()], rtol=1e-4)


def test_draws_follow_the_scores() -> None:
    scores, rng = np.array([0.3, -np.inf, 1.0, 0.0]), np.random.default_rng(0)
    n = 20_000
    found = np.bincount([draw_candidate(scores, 0.5, rng) for _ in range(n)], minlength=4) / n
    expected = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum()
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / n**0.5)
    assert found[1] == 0.0
    assert draw_candidate(scores, None, rng) == 2


@settings(max_examples=50)
@given(
    seed=st.integers(0, 1000),
    top_k=st.integers(0, 30),
    top_p=st.floats(0.05, 1.0),
    temperature=st.floats(0.3, 3.0),
)
def test_nucleus_is_that_of_transformers(
    seed: int, top_k: int, top_p: float, temperature: float
) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 20)) * 3)
    guidance = Guidance(top_k=top_k, top_p=top_p, temperature=temperature)
    nucleus = Nucleus.of(logits, guidance)
    scores = transformers.TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        scores = transformers.TopKLogitsWarper(top_k)(None, scores)
    scores = transformers.TopPLogitsWarper(top_p)(None, scores)
    found = nucleus.probabilities / nucleus.probabilities.sum(dim=1, keepdim=True)
    expected = scores.softmax(dim=1).gather(1, nucleus.tokens)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    log_p = logits.log_softmax(dim=1).gather(1, nucleus.tokens)
    np.testing.assert_allclose(nucleus.log_probabilities, log_p, rtol=1e-5, atol=1e-6)


# The work


@pytest.mark.parametrize("mode", ["prefix", "token"])
def test_prompt_goes_through_the_model_once(llama: LanguageModel, mode: Any) -> None:
    lm, sizes = without_end(llama), []
    table = lm.decoder.get_input_embeddings()
    head = Linear(lm)
    handle = table.register_forward_hook(lambda _, args, __: sizes.append(tuple(args[0].shape)))
    guidance = Guidance(mode=mode, n_candidates=3, segment=4, max_new_tokens=10)
    generate_guided(lm, head, PROMPT, guidance)
    handle.remove()
    assert sizes == [(1, 5), *[(3, 1)] * 10]


def test_models_without_a_plain_cache_are_refused(tiny_lm: Callable[..., LanguageModel]) -> None:
    lm = tiny_lm("mamba")
    with pytest.raises(
        ValueError, match=r"mamba keeps .* of earlier tokens; guided decoding needs"
    ):
        generate_guided(lm, Linear(lm), PROMPT)


def test_copy_in_half_precision(llama: LanguageModel) -> None:
    head = Linear(llama)
    lm = dataclasses.replace(llama, model=copy.deepcopy(llama.model).to(torch.bfloat16))
    with pytest.warns(UserWarning, match="computes in bfloat16 now"):
        reply = generate_guided(lm, head, PROMPT, Guidance(max_new_tokens=6))
    expected = head.reward(Embedder(lm).embed([PROMPT], [reply.text]))
    np.testing.assert_allclose(reply.rewards[-1], expected[0], rtol=0.1, atol=0.1)


# Seeds, pieces, endings


@pytest.mark.parametrize("mode", ["prefix", "token"])
def test_reply_is_that_of_its_seed(lm: LanguageModel, mode: Any) -> None:
    head = Linear(lm)

    def write(seed: int) -> GuidedReply:
        guidance = Guidance(mode=mode, tau=1.0, max_new_tokens=12, segment=4, seed=seed)
        return generate_guided(lm, head, PROMPT, guidance)

    torch.manual_seed(7)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = write(1)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    torch.manual_seed(8)
    assert write(1).text == first.text
    assert len({write(seed).text for seed in range(4)}) > 1


@pytest.mark.parametrize("mode", ["prefix", "token"])
def test_pieces_make_up_the_text(lm: LanguageModel, mode: Any) -> None:
    lm = without_end(lm)
    head = Linear(lm)
    guidance = Guidance(mode=mode, max_new_tokens=12, segment=4, seed=3)
    reply = generate_guided(
        lm, head, PROMPT, guidance, reply_start="f g", stream=(heard := []).append
    )
    assert heard == list(stream_guided(lm, head, PROMPT, guidance, reply_start="f g"))
    assert "".join(heard) == reply.text == lm.tokenizer.decode(reply.tokens)
    assert heard[0] == "f g"
    assert len(heard) == 1 + {"prefix": 3, "token": 12}[mode]


def test_interruption_leaves_nothing_behind(llama: LanguageModel) -> None:
    head, guidance = Linear(llama, layer=1), Guidance(mode="token", max_new_tokens=8)
    expected = generate_guided(llama, head, PROMPT, guidance).text

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_guided(llama, head, PROMPT, guidance, stream=interrupt)
    pieces = stream_guided(llama, head, PROMPT, guidance)
    next(pieces)
    hooks = [
        hook
        for part in llama.model.modules()
        for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    ]
    assert hooks == []
    assert not torch.is_inference_mode_enabled()
    assert generate_guided(llama, head, PROMPT, guidance).text == expected


@pytest.mark.parametrize("mode", ["prefix", "token"])
def test_stop_strings_end_the_reply_and_are_left_out(lm: LanguageModel, mode: Any) -> None:
    lm = without_end(lm)
    head, options = Linear(lm), {"mode": mode, "max_new_tokens": 20, "segment": 6, "seed": 5}
    whole = generate_guided(lm, head, PROMPT, Guidance(**options), reply_start="a")
    words = whole.text.split()
    stop = " ".join(words[4:6]) + " "
    at = whole.text.index(stop, 1)
    guidance = Guidance(**options, stop=[stop, "zzz"])
    heard: list[str] = []
    reply = generate_guided(lm, head, PROMPT, guidance, reply_start="a", stream=heard.append)
    assert stop not in reply.text[1:]
    assert "".join(heard) == reply.text
    if mode == "token":  # the same choices up to there
        assert reply.ending == "stop"
        assert reply.text == whole.text[:at]
    assert Guidance(stop="x").stop == ("x",)


@pytest.mark.parametrize("mode", ["prefix", "token"])
def test_model_ends_the_reply_but_not_before_it_began(lm: LanguageModel, mode: Any) -> None:
    bias = torch.zeros(lm.config.vocab_size)
    bias[lm.tokenizer.eos_token_id] = 1e3
    lm.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits + bias)
    reply = generate_guided(lm, Linear(lm), PROMPT, Guidance(mode=mode))
    assert len(reply.tokens) == 1
    assert reply.ending == "end"
    assert "<eos>" not in reply.text
    given = generate_guided(lm, Linear(lm), PROMPT, Guidance(mode=mode), reply_start="f g")
    assert given.text == "f g"
    assert given.ending == "end"


@given(
    letters=st.lists(st.sampled_from("abé☃"), max_size=30).map("".join),
    stop=st.lists(st.sampled_from(["ab", "aab", "é☃", "bb"]), max_size=2),
)
def test_pieces_never_change(letters: str, stop: list[str]) -> None:
    class Bytes:
        """A model with one token a byte."""

        tokenizer = SimpleNamespace(added_tokens_decoder={})

        def decode(self, tokens: list[int]) -> str:
            return bytes(tokens).decode("utf-8", errors="replace")

    tokens, text = list(letters.encode()), ReplyText(Bytes(), [97], "a", tuple(stop))
    pieces, n = ["a"], 0
    for n in range(len(tokens) + 1):
        seen = text.read(tokens[:n], ended=False)
        assert seen.startswith(pieces[-1])
        pieces.append(seen)
        if text.stops(tokens[:n]):
            break
    final = text.read(tokens[:n], ended=True)
    assert final.startswith(pieces[-1])
    cut = min((letters.index(s) for s in stop if s in letters), default=len(letters))
    assert final == "a" + letters[:cut]


# The head and transformers


def small_head(lm: LanguageModel) -> COALAPreferenceHead:
    embedder = Embedder(lm)
    X = embedder.embed(["a b"] * 8, [" ".join(x) for x in itertools.product("cdpq", "ef")])
    head = COALAPreferenceHead(n_patterns=4, strength=0.1, random_state=0)
    return head.set_params(embedding=embedder.description).fit_pairs(X[:4], X[4:])


def test_head_writes_replies(llama: LanguageModel) -> None:
    head, heard = small_head(llama), []
    options: dict[str, Any] = {"max_new_tokens": 9, "segment": 3, "weight": 3.0}
    text = head.generate(llama, PROMPT, reply_start="f", stream=heard.append, **options)
    reply = generate_guided(llama, head, PROMPT, Guidance(**options), reply_start="f")
    assert text == reply.text == "".join(heard)
    np.testing.assert_allclose(
        reply.rewards[-1], head.reward(Embedder(llama).embed([PROMPT], [text]))[0], rtol=1e-3
    )
    with pytest.raises(ValueError, match="not fitted"):
        COALAPreferenceHead().generate(llama, PROMPT)


@pytest.mark.parametrize("layer", [-1, 1])
def test_greedy_generate_with_the_processor_is_the_token_mode(
    lm: LanguageModel, layer: int
) -> None:
    head = Linear(lm, layer=layer)
    guidance = Guidance(mode="token", weight=1.5, max_new_tokens=10)
    reply = generate_guided(lm, head, PROMPT, guidance)
    processor = RewardLogitsProcessor(lm, head, guidance)
    ids = torch.tensor(lm.encode_prompts([PROMPT]))
    options = {"max_new_tokens": 10, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    for _ in range(2):  # it may be used again
        out = lm.model.generate(ids, logits_processor=[processor], do_sample=False, **options)
        assert lm.tokenizer.decode(out[0, 5:], skip_special_tokens=True) == reply.text
    assert isinstance(processor, transformers.LogitsProcessor)
    with pytest.raises(ValueError, match="called with 2 rows"):
        lm.model.generate(
            ids, logits_processor=[processor], num_return_sequences=2, do_sample=True, **options
        )


def test_processor_scores_and_what_others_choose(llama: LanguageModel) -> None:
    head = Linear(llama)
    guidance = Guidance(n_candidates=4, weight=2.0, tau=0.5, top_p=1.0)
    processor = RewardLogitsProcessor(llama, head, guidance, n_reply_tokens=2)
    [prompt] = llama.encode_prompts([PROMPT])
    tokens = [*prompt, 7, 8]
    for next_one in ("likeliest", "no candidate", "any"):
        logits, _ = states_of(llama, tokens, 0)
        new = processor(torch.tensor([tokens]), logits[None])[0]
        found = logits.topk(4).indices.tolist()
        assert new.isfinite().nonzero()[:, 0].tolist() == sorted(found)
        reply = tokens[len(prompt) :]
        ends = llama.tokenizer.eos_token_id
        values = np.array(
            [reward_of(llama, head, prompt, reply + [t] * (t != ends)) for t in found]
        )
        scores = logits.log_softmax(-1)[found].numpy() + 2.0 * (values - values.mean())
        np.testing.assert_allclose(new[found], scores / 0.5, rtol=1e-4, atol=1e-4)
        tokens.append(int(new.argmax()) if next_one == "likeliest" else int(logits.argmin()))


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "beam"}, "mode is 'beam'; expected one of"),
        ({"n_candidates": 0}, "n_candidates is 0; expected an integer of at least 1"),
        ({"n_candidates": 2.0}, "n_candidates is 2.0; expected an integer"),
        ({"segment": 0}, "segment is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"tau": 0.0}, "tau is 0.0; expected a number above 0"),
        ({"tau": -1.0}, "tau is -1.0"),
        ({"weight": math.nan}, "weight is nan"),
        ({"likelihood": -1.0}, "likelihood is -1.0"),
        ({"stop": [""]}, r"stop is \[''\]; expected strings that are not empty"),
        ({"stop": ""}, "stop is ''"),
        ({"stop": ["a", "\ud800"]}, r"stop\[1\] is not valid Unicode"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Guidance(**options)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("", {}, "the prompt is ''; expected some text"),
        (" \n", {}, "expected some text"),
        ([], {}, r"prompt 0 is \[\]"),
        ("a", {"max_new_tokens": 96}, "max_new_tokens is 96 .* hold 96, the prompt included"),
    ],
)
def test_prompts_that_cannot_be(
    llama: LanguageModel, prompt: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stream_guided(llama, Linear(llama), prompt, Guidance(**options))


def test_long_prompts_lose_their_beginning(llama: LanguageModel) -> None:
    head, guidance = Linear(llama), Guidance(max_new_tokens=10)
    with pytest.warns(UserWarning, match="110 tokens; its oldest 24 are dropped"):
        reply = generate_guided(llama, head, "a " * 24 + "b " * 86, guidance)
    assert reply.text == generate_guided(llama, head, "b " * 86, guidance).text


def test_heads_that_do_not_fit(llama: LanguageModel, lm: LanguageModel) -> None:
    head = Linear(llama)
    head.embedding = None
    with pytest.raises(ValueError, match="does not say which embeddings it was fitted to"):
        generate_guided(llama, head, PROMPT)
    head = Linear(lm)
    if lm.name != "llama":
        with pytest.raises(ValueError, match=r"made by gpt2 .* the model is llama"):
            generate_guided(llama, head, PROMPT)
    head.reward = lambda X: np.full(len(X), np.nan)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="expected as many finite numbers"):
        generate_guided(lm, head, PROMPT)
    lm.model.train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        generate_guided(lm, head, PROMPT)
