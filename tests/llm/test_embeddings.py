from __future__ import annotations

import dataclasses
import itertools
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.features.description import POOLINGS
from cvxnn.llm import Embedder, EmbeddingCache, LanguageModel, load_model
from cvxnn.llm.packing import Item, lay_out, plan
from cvxnn.llm.pooling import pool
from cvxnn.llm.token_embeddings import TokenEmbedder
from cvxnn.preference import Conversation, PreferenceTriplet, alternating_population

from ..tiny_models import tiny_model, tiny_tokenizer

torch = pytest.importorskip("torch")

WORDS = ["<pad>", "<unk>", "<eos>", "<user>", "<assistant>", "<bos>", *"abcdefghijklmnopqrst"]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# Families with different positions (rotary, learned, none) and attention.
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2, "num_attention_heads": 4, "intermediate_size": 48},
    "gpt2": {"num_attention_heads": 4},
    "mistral": {"num_key_value_heads": 2, "num_attention_heads": 4, "intermediate_size": 48},
    "bloom": {"num_attention_heads": 4},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_lm(
    family: str = "llama", *, template: str | None = TEMPLATE, **options: Any
) -> LanguageModel:
    """A random model of three blocks, and a tokenizer that knows the letters a to t."""
    tokenizer = tiny_tokenizer(WORDS, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>")
    tokenizer.chat_template = template
    attention = options.pop("attn_implementation", None)
    sizes = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "bos_token_id": 5,
        "eos_token_id": 2,
    }
    if family != "bloom":
        sizes["max_position_embeddings"] = 128
    sizes = {**sizes, **SIZES[family], **options}
    return LanguageModel(tiny_model(family, attention=attention, **sizes), tokenizer, family)


def dialogues() -> tuple[list[Any], list[str]]:
    """Pairs of two growing conversations, and a few that share nothing."""

    def talk(name: str, *turns: str) -> Conversation:
        roles = itertools.cycle(["user", "assistant"])
        return Conversation(
            tuple({"role": r, "content": t} for r, t in zip(roles, turns, strict=False)), name
        )

    triplets = alternating_population(
        [
            talk("x", "a b c d e", "f g h", "i j", "k l m n", "o", "p q r s t a"),
            talk("y", "a b c d f", "g h", "j i", "n m l k o", "p", "t"),
        ]
    )
    prompts: list[Any] = [t.prompt for t in triplets for _ in range(2)]
    responses = [reply for t in triplets for reply in (t.chosen, t.rejected)]
    return [*prompts, "q r", "s t a b c d e f g h"], [*responses, "a a b", "c"]


def oracle(lm: LanguageModel, prompt: Any, response: str, pooling: str, layer: int) -> np.ndarray:
    """One pair, all by itself, through the whole model; pooled in numpy."""
    [head], [reply] = lm.encode_prompts([prompt]), lm.encode_responses([response])
    ids = torch.tensor([head + reply])
    with torch.no_grad():
        states = lm.model(ids, output_hidden_states=True).hidden_states[layer][0].double().numpy()
    states = states[len(head) :]
    if pooling == "last":
        return states[-1]
    if pooling == "mean":
        return states.mean(axis=0)
    z = (states - states.mean(1, keepdims=True)) / np.sqrt(states.var(1, keepdims=True) + 1e-5)
    weights = np.exp([row @ z[-1] / np.sqrt(len(row)) for row in z])
    return (weights[:, None] * states).sum(axis=0) / weights.sum()


# The values


@pytest.mark.parametrize("template", [TEMPLATE, None], ids=["template", "plain"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_pair_as_if_alone(family: str, pooling: str, template: str | None) -> None:
    lm = make_lm(family, template=template)
    prompts, responses = dialogues()
    expected = [oracle(lm, p, r, pooling, -1) for p, r in zip(prompts, responses, strict=True)]
    for share_prefixes, batch_tokens in itertools.product([True, False], [1, 60, 4096]):
        embedder = Embedder(
            lm, pooling=pooling, share_prefixes=share_prefixes, batch_tokens=batch_tokens
        )
        actual = embedder.embed(prompts, responses)
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
        assert embedder.shares_prefixes_ == share_prefixes


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_prompt_follows_the_reply(pooling: str, tmp_path: Path) -> None:
    lm, (prompts, responses) = make_lm(), dialogues()
    alone = Embedder(lm, pooling=pooling)
    both = Embedder(lm, pooling=pooling, context=True, cache=tmp_path / "cache")
    found = both.embed(prompts, responses)
    np.testing.assert_allclose(found[:, :32], alone.embed(prompts, responses), atol=1e-5)
    # The states of a prompt do not depend on what follows: it is a reply to nothing.
    for row, prompt in zip(found, prompts, strict=True):
        [tokens] = lm.encode_prompts([prompt])
        with torch.no_grad():
            out = lm.model(torch.tensor([tokens]), output_hidden_states=True)
        expected = pool(out.hidden_states[-1][0], pooling)
        np.testing.assert_allclose(row[32:], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(both.embed(prompts, responses), found)  # from the cache
    assert (both.description["context"], both.description["width"]) == (32, 64)
    again = Embedder.from_description(lm, both.description)
    assert again.context
    # A reply as long as the window leaves no token of the prompt.
    with pytest.warns(UserWarning, match="lost the beginning of the prompt"):
        cut = Embedder(lm, pooling=pooling, context=True, max_length=2).embed(["a b"], ["c d e"])
    assert cut[0, :32].any()
    assert not cut[0, 32:].any()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("layer", [-4, 0, 1, -2, 3])
def test_layers(family: str, layer: int) -> None:
    lm = make_lm(family)
    prompts, responses = dialogues()
    expected = [oracle(lm, p, r, "mean", layer) for p, r in zip(prompts, responses, strict=True)]
    actual = Embedder(lm, layer=layer).embed(prompts, responses)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [[1, -2], [2, 0], "all"])
def test_several_layers_stand_side_by_side(pooling: str, layers: Any, tmp_path: Path) -> None:
    lm, (prompts, responses) = make_lm(), dialogues()
    numbers = [1, 2, 3] if layers == "all" else layers
    expected = np.hstack(
        [
            [oracle(lm, p, r, pooling, layer) for p, r in zip(prompts, responses, strict=True)]
            for layer in numbers
        ]
    )
    cached = Embedder(lm, pooling=pooling, layer=layers, cache=tmp_path / "cache")
    found = cached.embed(prompts, responses)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(cached.embed(prompts, responses), found)
    described = cached.description
    assert described["layer"] == [layer % 4 for layer in numbers]
    assert described["width"] == expected.shape[1]
    again = Embedder.from_description(lm, described, context=False)
    assert again.description == described


def test_layers_that_make_no_sense() -> None:
    for layers, message in (([1, -3], "several different"), ([], "one layer"), ("al", "'all'")):
        with pytest.raises(ValueError, match=message):
            Embedder(make_lm(), layer=layers)


def test_blocks_above_the_layer_are_not_run() -> None:
    lm = make_lm()
    ran = []
    for i, block in enumerate(lm.model.model.layers):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    Embedder(lm, layer=1).embed(["a"], ["b"])
    assert ran == [0]
    Embedder(lm, layer=[2, 0]).embed(["a"], ["b"])
    assert ran == [0, 0, 1]
    assert not any(block._forward_pre_hooks for block in lm.model.model.layers)


def test_output_layer_is_not_run() -> None:
    lm = make_lm()
    lm.model.lm_head.register_forward_hook(lambda *_: pytest.fail("logits were computed"))
    assert Embedder(lm).embed(["a"], ["b"]).shape == (1, 32)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("llama", {"attn_implementation": "eager"}, None),
        ("mistral", {"sliding_window": 64}, None),  # wider than any pair
        ("mistral", {"sliding_window": 8}, "its sliding window of 8 tokens is too short"),
        ("bloom", {}, "it takes no tree of them ("),  # no positions
        ("llama", {"is_causal": False}, "its attention is not causal"),
    ],
)
def test_sharing_is_given_up_where_it_would_change_results(
    family: str, options: dict[str, Any], reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    lm = dataclasses.replace(make_lm(family, **options), name=f"{family} {options}")
    prompts, responses = dialogues()
    embedder = Embedder(lm)
    actual = embedder.embed(prompts, responses)
    assert embedder.shares_prefixes_ == (reason is None)
    embedder.embed(prompts, responses)
    told = reasons(lm, caplog)  # twice embedded, once told
    assert [line[: len(reason or "")] for line in told] == [reason] * (reason is not None)
    expected = [oracle(lm, p, r, "mean", -1) for p, r in zip(prompts, responses, strict=True)]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def reasons(lm: LanguageModel, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why prefix trees are not used, as the log says for a model that has this name alone."""
    lines = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    return [line.partition("takes longer: ")[2] for line in lines if line.startswith(lm.name)]


def test_models_that_see_the_other_branches_are_noticed(caplog: pytest.LogCaptureFixture) -> None:
    lm = dataclasses.replace(make_lm("gpt2"), name="a model that counts its tokens")
    first = torch.eye(lm.config.hidden_size)[0]
    lm.decoder.h[0].register_forward_hook(lambda _, args, out: out + args[0].shape[1] * first)
    embedder = Embedder(lm)
    embedder.embed(*dialogues())
    embedder.embed(*dialogues())
    assert not embedder.shares_prefixes_
    expected = "its hidden states in a tree of them differ by more than 0.001"
    assert reasons(lm, caplog) == [expected]


def test_half_precision() -> None:
    lm = make_lm()
    prompts, responses = dialogues()
    expected = Embedder(lm).embed(prompts, responses)
    lm = dataclasses.replace(lm, model=lm.model.to(torch.bfloat16))
    embedder = Embedder(lm)
    actual = embedder.embed(prompts, responses)
    assert embedder.shares_prefixes_
    assert actual.dtype == np.float32
    assert np.linalg.norm(actual - expected) < 0.05 * np.linalg.norm(expected)


def test_overflow_is_reported() -> None:
    lm = make_lm()
    with torch.no_grad():
        lm.model.model.norm.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match="not finite"):
        Embedder(lm).embed(["a"], ["b"])


# The work


def test_common_beginnings_are_computed_once() -> None:
    lm = make_lm()
    prompts, responses = ["a b c d e f g h i j k l m n o p"] * 4, ["q", "q r", "s t", "q"]
    embedder = Embedder(lm)
    embedder.embed(prompts, responses)
    [head] = lm.encode_prompts(prompts[:1])
    assert embedder.tokens_naive_ == 4 * len(head) + 6
    assert embedder.tokens_computed_ == len(head) + 4  # q, r, s, t
    plain = Embedder(lm, share_prefixes=False)
    plain.embed(prompts, responses)
    assert plain.tokens_computed_ == 3 * (len(head) + 2)  # one of them is padding
    assert embedder.seconds_ > 0


sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@settings(max_examples=200)
@given(rows=sequences, capacity=st.integers(12, 60), ratio=st.floats(1.0, 1e4))
def test_plan_and_layout(rows: list[list[int]], capacity: int, ratio: float) -> None:
    items = [Item(np.array(row), 0) for row in rows]
    packs = plan(items, capacity, ratio)
    assert sorted(i for pack in packs for i in pack.members) == list(range(len(rows)))
    for pack in packs:
        members = [rows[i] for i in pack.members]
        nodes = {tuple(row[: k + 1]) for row in members for k in range(len(row))}
        assert pack.length == len(nodes) <= capacity
        tokens, depth = np.full(pack.length, -1), np.full(pack.length, -1)
        visible = np.zeros((pack.length, pack.length), dtype=bool)
        paths = lay_out([np.array(row) for row in members], tokens, depth, visible)
        column = {}
        for row, path in zip(members, paths, strict=True):
            assert tokens[path].tolist() == row
            assert depth[path].tolist() == list(range(len(row)))
            column |= {tuple(row[: k + 1]): path[k] for k in range(len(row))}
        assert len(set(column.values())) == pack.length
        for left, right in itertools.product(nodes, nodes):
            ancestor = left[: len(right)] == right
            assert visible[column[left], column[right]] == ancestor


def test_a_short_common_beginning_does_not_join_long_conversations() -> None:
    rng = np.random.default_rng(0)
    start = rng.integers(100, size=20)
    items = []
    for _ in range(3):
        trunk = np.concatenate([start, rng.integers(100, size=400)])
        items += [Item(np.concatenate([trunk, rng.integers(100, size=30)]), 0) for _ in range(2)]
    packs = plan(items, 10_000, 3000.0)
    assert sorted(sorted(pack.members) for pack in packs) == [[0, 1], [2, 3], [4, 5]]


# Long inputs


def test_long_prompts_lose_their_beginning() -> None:
    lm = make_lm(template=None)
    with pytest.warns(
        UserWarning,
        match="1 of 2 replies have more than 6 tokens.* lost the beginning of the prompt\\. Incr",
    ):
        actual = Embedder(lm, max_length=6).embed(["a b c d e f", "e f"], ["g h"] * 2)
    expected = Embedder(lm).embed(["c d e f", "e f"], ["g h"] * 2)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_a_common_cut_leaves_the_same_prompt_to_all_replies() -> None:
    lm = make_lm(template=None)
    pairs = [
        PreferenceTriplet("a b c d e f", "g", "h i j", group="0"),
        PreferenceTriplet("a b c d e f", "g h", "i", group="0"),
        PreferenceTriplet("c d e f", "g", "h", group="1"),
    ]
    embedder, naive = (Embedder(lm, max_length=7, share_prefixes=share) for share in (True, False))
    with pytest.warns(
        UserWarning, match="4 of 6 replies have more than 7 tokens with their prompts"
    ):
        chosen, rejected = embedder.embed_pairs(pairs)
    # The longest reply to the first prompt has three tokens.
    for found, side in ((chosen, "chosen"), (rejected, "rejected")):
        expected = Embedder(lm).embed(["c d e f"] * 3, [getattr(pair, side) for pair in pairs])
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.warns(UserWarning, match="more than 7 tokens"):
        naive.embed_pairs(pairs)
    assert naive.tokens_naive_ == embedder.tokens_naive_ == 6 * 4 + 1 + 3 + 2 + 1 + 1 + 1
    assert embedder.tokens_computed_ < naive.tokens_computed_


def test_long_responses_keep_their_beginning() -> None:
    lm = make_lm(template=None)
    with pytest.warns(UserWarning, match="1 of 1 replies .* 1 of them"):
        actual = Embedder(lm, max_length=3).embed(["a b"], ["c d e f"])
    with torch.no_grad():
        ids = torch.tensor([lm.encode_responses(["c d e"])[0]])
        expected = lm.decoder(ids).last_hidden_state[0].mean(dim=0)
    np.testing.assert_allclose(actual[0], expected, atol=1e-5)


def test_the_context_length_of_the_model_caps_the_length() -> None:
    lm = make_lm("gpt2", template=None, max_position_embeddings=8)
    with pytest.warns(UserWarning, match="have more than 8 tokens"):
        actual = Embedder(lm, max_length=1000).embed(["a " * 20], ["b"])
    np.testing.assert_allclose(actual, Embedder(lm).embed(["a " * 7], ["b"]), atol=1e-6)


# The cache


def test_cached_embeddings_are_not_computed_again(tmp_path: Path) -> None:
    lm, path = make_lm(), tmp_path / "c.sqlite"
    prompts, responses = dialogues()
    first = Embedder(lm, cache=path)
    X = first.embed(prompts, responses)
    again = Embedder(lm, cache=path, share_prefixes=False, batch_tokens=64, layer=3)
    np.testing.assert_array_equal(again.embed(prompts[::-1], responses[::-1]), X[::-1])
    assert first.tokens_computed_ > 0
    assert again.tokens_computed_ == 0
    assert again.tokens_naive_ == first.tokens_naive_


def test_damaged_entry_of_the_cache_is_computed_again(tmp_path: Path) -> None:
    lm, path = make_lm(), tmp_path / "c.sqlite"
    prompts, responses = dialogues()
    expected = Embedder(lm, cache=path).embed(prompts, responses)
    connection = sqlite3.connect(path)
    with connection:
        [key, value] = connection.execute("SELECT key, value FROM embeddings").fetchone()
        damaged = np.frombuffer(value, "<f4") + np.float32(1.0)
        connection.execute(
            "UPDATE embeddings SET value = ? WHERE key = ?", (damaged.tobytes(), key)
        )
    connection.close()
    embedder = Embedder(lm, cache=path)
    with pytest.warns(UserWarning, match="has 1 damaged entry"):
        actual = embedder.embed(prompts, responses)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert 0 < embedder.tokens_computed_ < embedder.tokens_naive_ / 5
    again = Embedder(lm, cache=path)
    np.testing.assert_array_equal(again.embed(prompts, responses), actual)
    assert again.tokens_computed_ == 0


@pytest.mark.parametrize("change", ["pooling", "layer", "dtype", "weights", "prompt"])
def test_cache_tells_computations_apart(tmp_path: Path, change: str) -> None:
    lm, prompt = make_lm(), "a b"
    settings: dict[str, Any] = {}
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        Embedder(lm, cache=cache).embed([prompt], ["c d"])
        if change == "pooling":
            settings["pooling"] = "last"
        elif change == "layer":
            settings["layer"] = 1
        elif change == "dtype":
            lm.model.to(torch.float64)
        elif change == "weights":
            with torch.no_grad():
                lm.model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        else:
            prompt = "a b c"
        embedder = Embedder(lm, cache=cache, **settings)
        actual = embedder.embed([prompt], ["c d"])
        assert len(cache) == 2
    assert embedder.tokens_computed_ > 0
    np.testing.assert_array_equal(actual, Embedder(lm, **settings).embed([prompt], ["c d"]))


def test_boundary_between_prompt_and_reply_is_part_of_the_key(tmp_path: Path) -> None:
    lm, path = make_lm(template=None), tmp_path / "c.sqlite"
    actual = [Embedder(lm, cache=path).embed([p], [r]) for p, r in [("a b", "c d"), ("a", "b c d")]]
    expected = [Embedder(lm).embed([p], [r]) for p, r in [("a b", "c d"), ("a", "b c d")]]
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert not np.allclose(actual[0], actual[1], atol=1e-3)


def test_interrupted_run_resumes_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, path = make_lm(), tmp_path / "c.sqlite"
    prompts, responses = dialogues()
    options: dict[str, Any] = {"batch_tokens": 1, "share_prefixes": False}
    whole = Embedder(lm, **options)
    expected = whole.embed(prompts, responses)
    forward, calls = TokenEmbedder._forward, []

    def interrupt(self: TokenEmbedder, *args: Any) -> np.ndarray:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, *args)

    first = Embedder(lm, cache=path, **options)
    with monkeypatch.context() as patch:
        patch.setattr(TokenEmbedder, "_forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            first.embed(prompts, responses)
    with EmbeddingCache(path) as cache:
        assert len(cache) == 3
    second = Embedder(lm, cache=path, **options)
    np.testing.assert_allclose(second.embed(prompts, responses), expected, atol=1e-6)
    assert first.tokens_computed_ > 0
    assert first.tokens_computed_ + second.tokens_computed_ == whole.tokens_computed_


# Manners


def test_progress_is_on_stderr_and_on_request_only(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cvxnn._progress._PRINTED", 0.0)
    lm = make_lm()
    Embedder(lm).embed(["a"], ["b"])
    assert capfd.readouterr() == ("", "")
    Embedder(lm, progress=True).embed(["a"], ["b"])
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "embedding 1 of 1 reply (100 %)" in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling is 'max'; expected one of"),
        ({"layer": 4}, "layer is 4; llama has 3 blocks, so expected -4 to 3"),
        ({"layer": -5}, "layer is -5"),
        ({"max_length": 0}, "max_length is 0"),
        ({"batch_tokens": 0}, "batch_tokens 0"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Embedder(make_lm(), **options).embed(["a"], ["b"])


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        ([], [], "there is no reply"),
        (["a"], ["b", "c"], "1 prompt but 2 responses"),
        ("ab", "cd", "not strings"),
        (["a", "b"], ["c", ""], "response 1 is empty"),
        (["a", 7], ["c", "d"], "prompt 1 is 7"),
    ],
)
def test_bad_pairs(prompts: Any, responses: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Embedder(make_lm()).embed(prompts, responses)


def test_training_mode_is_refused() -> None:
    lm = make_lm()
    lm.model.train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        Embedder(lm).embed(["a"], ["b"])


@pytest.mark.slow
@pytest.mark.usefixtures("released_memory")
def test_packaged_model(packaged_model: Any) -> None:
    lm = load_model(device="cpu", cache_dir=packaged_model.cache_dir)
    prompts = [
        "Why is the sky blue?",
        [
            {"role": "user", "content": "Why is the sky blue?"},
            {"role": "assistant", "content": "Air scatters blue light most."},
            {"role": "user", "content": "Then why are sunsets red?"},
        ],
    ]
    responses = ["Air scatters blue light most.", "The blue is gone by then.", "Ask someone else."]
    pairs = [(0, 0), (0, 1), (1, 1), (1, 2)]
    arguments = [prompts[i] for i, _ in pairs], [responses[j] for _, j in pairs]
    packed, plain = Embedder(lm), Embedder(lm, share_prefixes=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X, Y = packed.embed(*arguments), plain.embed(*arguments)
    assert packed.shares_prefixes_
    assert packed.tokens_computed_ < plain.tokens_computed_ / 2
    assert X.shape == (4, 576)
    assert np.linalg.norm(X - Y) < 1e-3 * np.linalg.norm(Y)
    assert np.linalg.norm(X[0] - X[1]) > 0.1 * np.linalg.norm(X[0])
