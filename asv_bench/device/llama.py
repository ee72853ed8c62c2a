"""A model of the shape of Llama-3.1-8B with random weights: embedding, generation, LoRA for DPO."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import record
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cvxnn.llm import (
    Embedder,
    Guidance,
    LanguageModel,
    generate_candidates,
    generate_guided,
    memory_plan,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
}
TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}


def tokens_of(small: bool) -> int:
    """Tokens of a prompt with its reply, one half each."""
    return 32 if small else 512


@cache
def language_model(small: bool) -> LanguageModel:
    """Random weights on the device, and a tokenizer with one token for each byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({word: i for i, word in enumerate(["<eos>", *letters])}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    config = transformers.LlamaConfig(
        **(TINY if small else LLAMA_8B),
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32 if small else torch.bfloat16
        )
    return LanguageModel(model.eval().requires_grad_(False), tokenizer, "random llama")


def text(n_letters: int, seed: int) -> str:
    letters = np.random.default_rng(seed).choice(list("abcdefghijklmnop"), n_letters)
    return "".join(letters)


def dialogues(n: int, small: bool, start: int = 0) -> tuple[list[str], list[str]]:
    """Prompts and replies without common beginnings."""
    half = tokens_of(small) // 2
    prompts = [text(half - 1, 2 * i) for i in range(start, start + n)]  # a line break follows
    return prompts, [text(half, 2 * i + 1) for i in range(start, start + n)]


def seconds_of(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def planned(
    lm: LanguageModel, peak: float | None = None, **settings: Any
) -> dict[str, float | None]:
    """Memory as planned, and the peak in GiB (by default of the measurement) as a part of it."""
    total = memory_plan(lm, **settings).total / record.GIB
    peak = record.peak_gib("torch") if peak is None else peak
    return {"planned_gib": total, "peak_over_planned": None if peak is None else peak / total}


def make(small: bool) -> dict[str, Any]:
    seconds = seconds_of(lambda: language_model(small))
    model = language_model(small).model
    n_weights = sum(weight.numel() for weight in model.parameters())
    return {"seconds": seconds, "n_weights": n_weights, "dtype": str(model.dtype)}


def embed(shared: bool, small: bool) -> dict[str, Any]:
    """Tokens a second of `Embedder`, of 64 separate pairs or of 64 replies to 32 prompts."""
    lm, length = language_model(small), tokens_of(small)
    embedder = Embedder(lm, max_length=length, batch_tokens=16 * length)
    embedder.embed(*dialogues(16, small, start=1000))
    prompts, replies = dialogues(64, small)
    if shared:
        prompts = prompts[::2] * 2
    seconds = seconds_of(lambda: embedder.embed(prompts, replies))
    return {
        "shape": [64, length],
        "seconds": seconds,
        "tokens_per_second": embedder.tokens_naive_ / seconds,
        "tokens_computed_per_second": embedder.tokens_computed_ / seconds,
        "tflops": 2 * lm.n_parameters * embedder.tokens_computed_ / seconds / 1e12,
        "shares_prefixes": embedder.shares_prefixes_,
        **planned(lm, method="embed", batch_tokens=16 * length, max_length=length),
    }


def forward(small: bool) -> dict[str, Any]:
    """The same batch by the bare model."""
    lm, length = language_model(small), tokens_of(small)
    ids = torch.randint(3, 250, (16, length), device=DEVICE)

    def calls(n: int) -> None:
        with torch.inference_mode():
            for _ in range(n):
                lm.decoder(input_ids=ids, use_cache=False)

    calls(1)
    seconds = seconds_of(lambda: calls(4)) / 4
    tokens = ids.numel() / seconds
    tflops = 2 * lm.n_parameters * tokens / 1e12
    return {"shape": [16, length], "tokens_per_second": tokens, "tflops": tflops}


def generate(small: bool) -> dict[str, Any]:
    """Eight replies of 32 tokens to one prompt, by cvxnn and by the bare model."""
    lm, n_new, n = language_model(small), 4 if small else 32, 8
    prompt = text(16 if small else 128, 0)
    generate_candidates(lm, prompt, n, max_new_tokens=2)
    seconds = seconds_of(lambda: generate_candidates(lm, prompt, n, max_new_tokens=n_new, seed=1))
    ids = torch.tensor(lm.encode_prompts([prompt]), device=DEVICE).repeat(n, 1)

    def bare() -> None:
        with torch.inference_mode():
            lm.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                max_new_tokens=n_new,
                pad_token_id=0,
            )

    bare_seconds = seconds_of(bare)
    size = sum(w.numel() * w.itemsize for w in lm.model.parameters()) / record.GIB
    return {
        "shape": [n, n_new],
        "seconds": seconds,
        "tokens_per_second": n * n_new / seconds,
        "ms_a_token": 1e3 * seconds / n_new,
        "tokens_per_second_bare": n * n_new / bare_seconds,
        "weights_gib": size,
    }


class AnyHead:
    """A head of random weights, for the embeddings of the model."""

    def __init__(self, lm: LanguageModel) -> None:
        self.embedding = Embedder(lm).description
        self.weights = np.random.default_rng(0).standard_normal(self.embedding["width"])

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X @ self.weights


def guide(small: bool) -> dict[str, Any]:
    """One reply of 32 tokens, in segments of which a head chooses one of five."""
    lm, n_new = language_model(small), 4 if small else 32
    head, prompt = AnyHead(lm), text(16 if small else 128, 0)
    settings = Guidance(max_new_tokens=n_new, n_candidates=5)
    generate_guided(lm, head, prompt, replace(settings, max_new_tokens=2))
    seconds = seconds_of(lambda: generate_guided(lm, head, prompt, settings))
    limits = {"batch_tokens": 256, "max_length": 256, "n_candidates": 5}
    return {
        "shape": [5, n_new],
        "seconds": seconds,
        "tokens_per_second": n_new / seconds,
        **planned(lm, method="guide", **limits),
    }


def dpo(checkpointing: bool, small: bool) -> dict[str, Any]:
    """Steps of DPO on 4 pairs in one call of the model, by `fine_tune`."""
    from cvxnn.llm import FineTuningConfig, fine_tune
    from cvxnn.preference import PreferenceTriplet

    lm, length = language_model(small), tokens_of(small)
    prompts, chosen = dialogues(4, small)
    _, rejected = dialogues(4, small, start=100)
    data = [  # the end of the turn is one token more
        PreferenceTriplet(p, c[1:], r[1:])
        for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ]
    targets = ("q_proj", "v_proj")
    config = FineTuningConfig(
        objective="dpo",
        lora_r=16,
        target_modules=targets,
        micro_batch=4,
        accumulation=1,
        steps=4,
        max_length=length,
        gradient_checkpointing=checkpointing,
    )
    clock = [time.perf_counter()]
    tuned = fine_tune(
        lm, config, preferences=data, progress=lambda _: clock.append(time.perf_counter())
    )
    first, *steps = [after - before for before, after in pairwise(clock)]
    return {
        "shape": [4, length],
        "seconds_step": float(np.median(steps)),
        "seconds_to_first_step": first,
        "tokens_trained_per_step": tuned.tokens_trained / 4,
        "tokens_per_second": tuned.tokens_trained / 4 / float(np.median(steps)),
        "losses": [entry["loss"] for entry in tuned.history],
        "costs": tuned.costs,
        **planned(
            lm,
            # The meter resets the device's own record.
            peak=tuned.costs["train"]["device_peak_bytes"] / record.GIB or None,
            method="fine_tune",
            batch_tokens=8 * length,  # both replies of four pairs
            max_length=length,
            lora_r=16,
            target_modules=targets,
            gradient_checkpointing=checkpointing,
        ),
    }


def beside_dpo(small: bool) -> dict[str, Any]:
    """The same pairs by a COALA head, embedding and fit, and by one epoch of DPO with LoRA."""
    from cvxnn import COALAPreferenceHead
    from cvxnn.llm import FineTuningConfig, fine_tune
    from cvxnn.preference import PreferenceTriplet

    lm, length, n = language_model(small), tokens_of(small), 32
    prompts, chosen = dialogues(n, small)
    _, rejected = dialogues(n, small, start=200)
    pairs = [
        PreferenceTriplet(p, c[1:], r[1:])
        for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ]
    parts: list[np.ndarray] = []
    embedder = Embedder(lm, max_length=length, batch_tokens=16 * length)
    head = COALAPreferenceHead(n_patterns=16, strength=0.1, random_state=0)
    embedding = seconds_of(lambda: parts.extend(embedder.embed_pairs(pairs)))
    fitting = seconds_of(lambda: head.fit_pairs(*parts))
    config = FineTuningConfig(
        objective="dpo",
        lora_r=16,
        target_modules=("q_proj", "v_proj"),
        micro_batch=4,
        accumulation=1,
        steps=n // 4,
        max_length=length,
        gradient_checkpointing=True,
    )
    training = seconds_of(lambda: fine_tune(lm, config, preferences=pairs))
    return {
        "shape": [n, length],
        "seconds_embedding": embedding,
        "seconds_head": fitting,
        "seconds_dpo_epoch": training,
        "dpo_over_coala": training / (embedding + fitting),
    }


MEASUREMENTS: dict[str, record.Measurement] = {
    "make": (make, 40),
    "forward, bare": (forward, 20),
    "embed": (partial(embed, False), 25),
    "embed, shared prompts": (partial(embed, True), 25),
    "generate": (generate, 20),
    "guide": (guide, 20),
    "dpo": (partial(dpo, False), 30),
    "dpo, checkpointing": (partial(dpo, True), 30),
    "COALA beside DPO": (beside_dpo, 40),
}

if __name__ == "__main__":
    record.run("llama", MEASUREMENTS, "torch")
