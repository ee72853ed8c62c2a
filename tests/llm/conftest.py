"""Language models small enough for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cvxnn.llm import LanguageModel

from ..tiny_models import tiny_model, tiny_tokenizer

torch = pytest.importorskip("torch")

WORDS = ["u", "v", "<eos>", *"abcdefghijklmnopqrst"]
GROUPED = {"num_key_value_heads": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIZES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "gpt2": {"num_attention_heads": 4},
    "mistral": GROUPED,
    "mamba": {"state_size": 4},
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"]},
    "falcon_h1": {
        **GROUPED,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_chunk_size": 16,
    },
    "minimax": {
        **GROUPED,
        "layer_types": ["linear_attention", "full_attention"],
        "num_local_experts": 2,
        "head_dim": 8,
    },
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices gain nothing from threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_tiny_lm(family: str = "llama", *, scale: float = 4.0, **options: Any) -> LanguageModel:
    """Make a random model of two blocks whose words are the letters a to v."""
    tokenizer = tiny_tokenizer(WORDS, unknown="u", eos_token="<eos>")
    sizes = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 96,
    }
    if family == "mamba":
        del sizes["max_position_embeddings"]
    model = tiny_model(family, scale=scale, **{**sizes, **SIZES[family], **options})
    return LanguageModel(model, tokenizer, family)


@pytest.fixture(scope="session")
def tiny_lm() -> Callable[..., LanguageModel]:
    """Give `make_tiny_lm`: equal arguments, equal models."""
    return make_tiny_lm
