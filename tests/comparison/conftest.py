"""A tiny language model, and pairs of letters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cvxnn.llm import LanguageModel
from cvxnn.preference import PreferenceTriplet

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["<pad>", "<unk>", "<eos>", *"abcdefghijklmnopqrst"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    )
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    return LanguageModel(model, tokenizer, "tiny")


@pytest.fixture(scope="session")
def pairs() -> list[PreferenceTriplet]:
    rng = np.random.default_rng(0)

    def say(letters: str) -> str:
        return " ".join(rng.choice(list(letters), size=rng.integers(2, 5)))

    return [
        PreferenceTriplet(
            f"{say('abcdefghijklmnopqrst')} a", say("abcdefghij"), say("klmnopqrst"), f"g{i // 2}"
        )
        for i in range(24)
    ]
