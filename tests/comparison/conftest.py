"""A tiny language model, and pairs of letters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cvxnn.llm import LanguageModel
from cvxnn.preference import PreferenceTriplet

from ..tiny_models import tiny_model, tiny_tokenizer

torch = pytest.importorskip("torch")

WORDS = ["<pad>", "<unk>", "<eos>", *"abcdefghijklmnopqrst"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    tokenizer = tiny_tokenizer(WORDS, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>")
    model = tiny_model(
        "llama",
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
