"""Random language models of a few kilobytes, and tokenizers of given words, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def tiny_tokenizer(words: Sequence[str], *, unknown: str = "<unk>", **special: str) -> Any:
    """A tokenizer whose tokens are these words; spaces part them."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    numbers = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def tiny_model(
    family: str, *, seed: int = 0, scale: float = 4.0, attention: str | None = None, **sizes: Any
) -> Any:
    """A model of random weights: usual ones are so small that all tokens are nearly as likely."""
    config = transformers.CONFIG_MAPPING[family](**sizes)
    options = {} if attention is None else {"attn_implementation": attention}
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, **options).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(scale)
    return model
