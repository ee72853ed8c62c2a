"""Texts of replies while they grow: pieces, characters of several tokens, stop strings."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.llm import Embedder, Guidance, LanguageModel, generate_greedy, stream_guided
from cvxnn.llm.decoding.reply_text import ReplyText
from cvxnn.llm.log_probabilities import encode_pairs

tokenizers = pytest.importorskip("tokenizers")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SPECIAL = ["<unk>", "</s>", "<|end|>"]
LETTERS = [chr(c) for c in range(32, 127)]


def byte_fallback() -> Any:
    """Characters or bytes, as in Llama 2, Mistral and Gemma."""
    words = [*SPECIAL, *(f"<0x{b:02X}>" for b in range(256)), *LETTERS[1:], "▁", "▁a", "日", "ab"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocabulary, [("▁", "a"), ("a", "b")], unk_token="<unk>", byte_fallback=True
        )
    )
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    decoders = tokenizers.decoders
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def byte_level() -> Any:
    """Bytes under other names, as in GPT-2, Llama 3 and Qwen."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *alphabet, "ab"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "b")]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def word_pieces() -> Any:
    """Words and their continuations, as in GPT models with BERT's vocabulary."""
    words = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS), "日", "##日", "n't", "do"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    return tokenizer


@functools.cache
def language_model(kind: Callable[[], Any]) -> LanguageModel:
    """A tiny model with this tokenizer, whose first three tokens are special."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=kind(),
        unk_token="<unk>",
        eos_token="</s>",
        additional_special_tokens=["<|end|>"],
        clean_up_tokenization_spaces=True,
    )
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        eos_token_id=1,
    )
    return LanguageModel(transformers.LlamaForCausalLM(config).eval(), tokenizer)


KINDS = pytest.mark.parametrize("kind", [byte_fallback, byte_level, word_pieces])
TEXT = st.text(
    st.sampled_from(" ab日本語で é🙂👩‍👩‍👧�.,'n") | st.characters(codec="utf-8"), max_size=12
)


def pieces_of(text: ReplyText, tokens: list[int]) -> list[str]:
    """Read the text after each token, as a stream does; the last element is the whole text."""
    seen = [text.read([], ended=False)]
    for n in range(len(tokens) + 1):
        ended = n == len(tokens) or text.stops(tokens[:n])
        seen.append(text.read(tokens[:n], ended=ended))
        if ended:
            break
    return seen


@KINDS
@given(text=TEXT, start=TEXT, data=st.data())
def test_nothing_that_was_shown_is_retracted(
    kind: Callable[[], Any], text: str, start: str, data: Any
) -> None:
    lm = language_model(kind)
    tokens = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    given_tokens = lm.tokenizer(start, add_special_tokens=False)["input_ids"]
    # A reply may be cut anywhere, and random models write anything, special tokens included.
    noise = data.draw(st.lists(st.integers(0, len(lm.tokenizer) - 1), max_size=3))
    tokens = tokens[: data.draw(st.integers(0, len(tokens)))] + noise
    stop = data.draw(st.lists(st.sampled_from(["ab", "日", "本語", " ", "🙂é"]), max_size=2))
    seen = pieces_of(ReplyText(lm, given_tokens, start, tuple(stop)), tokens)
    for before, after in itertools.pairwise(seen):
        assert after.startswith(before)
    assert seen[0] == start


@KINDS
@given(text=TEXT)
def test_whole_texts_are_those_of_the_tokenizer(kind: Callable[[], Any], text: str) -> None:
    lm = language_model(kind)
    tokens = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    seen = pieces_of(ReplyText(lm, [], "", ()), tokens)
    assert seen[-1] == lm.tokenizer.decode(
        tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    if kind is not word_pieces:
        assert seen[-1] == text


@given(values=st.binary(max_size=12) | TEXT.map(str.encode), n=st.integers(0, 12))
def test_bytes_are_decoded_as_python_does(values: bytes, n: int) -> None:
    lm = language_model(byte_fallback)
    names = [f"<0x{byte:02X}>" for byte in values[:n]]
    tokens = lm.tokenizer.convert_tokens_to_ids(names)
    expected = values[:n].decode(errors="replace")
    assert lm.decode(tokens) == expected.removeprefix(" ")  # as the tokenizer's decoder strips it
    words = lm.tokenizer.convert_tokens_to_ids(["x", "▁a"])
    assert lm.decode([words[0], *tokens, words[1]]) == f"x{expected} a"


def scripted(lm: LanguageModel, tokens: list[int]) -> Any:
    """Let the model write these tokens, then the end."""
    script = iter([*tokens, 1])

    def force(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        forced = torch.zeros_like(logits)
        forced[..., next(script, 1)] = 100.0
        return forced

    return lm.model.get_output_embeddings().register_forward_hook(force)


class Zero:
    """A head without an opinion."""

    def __init__(self, lm: LanguageModel) -> None:
        self.embedding = Embedder(lm).description

    def reward(self, X: Any) -> Any:
        return X[:, 0] * 0


def write(lm: LanguageModel, tokens: list[int], **options: Any) -> tuple[list[str], Any]:
    """Return the pieces and the reply of a model that writes these tokens."""
    settings = {"mode": "token", "n_candidates": 1, "max_new_tokens": 40, **options}
    handle = scripted(lm, tokens)
    stream, pieces = stream_guided(lm, Zero(lm), "x", Guidance(**settings)), []
    try:
        while True:
            pieces.append(next(stream))
    except StopIteration as end:
        return pieces, end.value
    finally:
        handle.remove()


@KINDS
@pytest.mark.parametrize("mode", ["token", "prefix"])
@pytest.mark.parametrize("max_new_tokens", [40, 10])
def test_pieces_of_a_guided_reply_make_up_its_text(
    kind: Callable[[], Any], mode: str, max_new_tokens: int
) -> None:
    lm, text = language_model(kind), "ok 日本語です 🙂é"
    tokens = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    options: dict[str, Any] = {"mode": mode, "segment": 4, "max_new_tokens": max_new_tokens}
    pieces, reply = write(lm, tokens, **options)
    assert "".join(pieces) == reply.text == lm.decode(tokens[:max_new_tokens])
    handle = scripted(lm, tokens)
    plain = generate_greedy(lm, "x", max_new_tokens)
    handle.remove()
    assert plain == reply.text
    if kind is byte_fallback:  # 10 tokens end within a character
        assert reply.text == {40: text, 10: "ok 日本�"}[max_new_tokens]


@KINDS
@pytest.mark.parametrize("stop", ["<|end|>", " <|end|>\n", "</s>"])
def test_special_tokens_stop(kind: Callable[[], Any], stop: str) -> None:
    lm = language_model(kind)
    [a] = lm.tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    tokens = [a, a, lm.tokenizer.convert_tokens_to_ids(stop.strip()), a, a]
    expected = lm.decode([a, a])
    pieces, reply = write(lm, tokens, stop=["zz", stop])
    assert "".join(pieces) == reply.text == expected
    assert reply.tokens == [a, a]
    assert reply.ending == ("end" if stop == "</s>" else "stop")
    handle = scripted(lm, tokens)
    assert generate_greedy(lm, "x", 8, stop=["zz", stop]) == expected
    handle.remove()
    handle = scripted(lm, tokens)  # without it, that token is passed over
    assert (generate_greedy(lm, "x", 8) == lm.decode([a] * 4)) == (stop != "</s>")
    handle.remove()
    pieces, reply = write(lm, tokens[2:], stop=[stop])  # but a reply is never empty
    assert reply.tokens != []


def test_stop_strings_with_a_special_token_and_other_text() -> None:
    lm = language_model(byte_level)
    message = r"'<\|end\|>\\nUser:' has the special token '<\|end\|>' and other text"
    with pytest.raises(ValueError, match=message):
        generate_greedy(lm, "x", 8, stop=["<|end|>\nUser:"])
    with pytest.raises(ValueError, match=message):
        write(lm, [], stop=["<|end|>\nUser:"])


@pytest.mark.parametrize("ending", ["", "</s>", "</s>\n", "</s></s>", "\n<|end|>\n </s>\n"])
def test_white_space_after_the_end_is_no_part_of_a_reply(ending: str) -> None:
    lm = language_model(byte_level)
    [item] = encode_pairs(lm, ["x"], [f"a</s> b{ending}"])
    reply = item.tokens[item.start :].tolist()
    assert reply[-1] == lm.end_of_turn
    words = lm.tokenizer.decode(reply[:-1])
    assert words == "a</s> b" + "\n<|end|>\n " * ("<|end|>" in ending)
