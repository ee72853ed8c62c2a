"""Operations and memory of COALA, SFT, DPO, ORPO and SimPO, beside Table 3 of the paper of COALA.

``python asv_bench/preference/table3.py``

Nothing is trained and no weights are made: each model of ``model_shapes.json`` is laid out without
numbers (torch's meta device), one sequence of each kind is run through it, forward and through the
adapters of LoRA backward, and `cvxnn.costs` counts the products. That times the number of sequences
in the paper's data is a pass over them. Memory is `memory_plan` with the paper's micro-batch.

The paper gives the sizes of its data and not their lengths. Those here are those of the example in
its Appendix E.3 (``TOKENS``); all counts are close to proportional to them.

``--check`` trains a tiny model on the CPU by `fine_tune`, and compares what is counted while it
runs with the count without numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from asv_bench import raw_results
from cvxnn.convex.solvers.cronos.cronos_flops import solve_flops
from cvxnn.costs.operations import OperationCounter
from cvxnn.llm import FineTuningConfig, LanguageModel, memory_plan
from cvxnn.llm.fine_tuning.adapters import add_adapter
from cvxnn.llm.response_scorer import ResponseScorer, TokenLogProbabilities

HERE = Path(__file__).parent
RAW = HERE / "table3.jsonl"
TFLOP, GIB = 1e12, 2**30

# Section 5.1 and Appendix E.2: conversations for SFT, pairs for the others.
N_CONVERSATIONS, N_PAIRS = 26_621, 65_606
# Turns of user and tutor as long as those of the example in Appendix E.3, 4 to 8 of them.
TOKENS = {"conversation": 576, "tutor in a conversation": 432, "prompt": 192, "reply": 144}
MICRO_BATCH, MAX_LENGTH = 2, 1024  # train_micro_batch_size_per_gpu of its DeepSpeed; memory_plan
# Phase I at 131,072 x 4,096 with 64 patterns to a gap of 1e-2, in asv_bench/device/h100.jsonl.
ITERATIONS, CG_ITERATIONS, CHECKS, PATTERNS = 40, 85, 4, 64

# Table 3: "TFLOPS measurements for COALA (from logs), DPO, ORPO (measured via NVSIGHT), and SFT
# (from logs) on the EduFeedback dataset".
PAPER = {
    "distilgpt2": {"coala": 152.56, "dpo": 537.12, "orpo": 643.33, "sft": 271},
    "gpt2": {"coala": 379.89, "dpo": 1087.45, "orpo": 1305.27, "sft": 522},
    "mistral-7B": {"coala": 1580.45, "dpo": 9284.71, "orpo": 11241.89, "sft": 2492},
    "llama-8B": {"coala": 1805.39, "dpo": 10253.37, "orpo": 12352.98, "sft": 2851},
    "dolphin-7B": {"coala": 1794.66, "dpo": 10091.25, "orpo": 12116.50, "sft": 2804},
}
LABELS = {"coala": "COALA", "sft": "SFT", "dpo": "DPO", "orpo": "ORPO", "simpo": "SimPO"}


def outline(config: transformers.PretrainedConfig) -> LanguageModel:
    """The model without numbers, and without a tokenizer."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return LanguageModel(model.eval().requires_grad_(False), SimpleNamespace(), "outline")  # type: ignore[arg-type]


def inputs_of(n_tokens: int) -> dict[str, torch.Tensor]:
    """One sequence with a mask, which is not read: what it hides counts all the same."""
    return {
        "input_ids": torch.zeros(1, n_tokens, dtype=torch.long, device="meta"),
        "position_ids": torch.zeros(1, n_tokens, dtype=torch.long, device="meta"),
        "attention_mask": torch.ones(1, 1, n_tokens, n_tokens, dtype=torch.bool, device="meta"),
    }


def embedding(lm: LanguageModel, n_tokens: int) -> int:
    """Operations of the hidden states of one sequence."""
    with torch.inference_mode(), OperationCounter() as counter:
        lm.decoder(**inputs_of(n_tokens), use_cache=False)
    return counter.flops


def scoring(lm: LanguageModel, n_tokens: int, n_targets: int, *, train: bool) -> int:
    """Operations of the log-probabilities of the last tokens of a sequence, and of their gradient.

    As in `fine_tune`, the output layer is applied to the tokens that are predicted alone, and its
    gradient in the hidden states is made on the way forward.
    """
    head = lm.model.get_output_embeddings()
    targets = torch.zeros(n_targets, dtype=torch.long, device="meta")
    with torch.set_grad_enabled(train), OperationCounter() as counter:
        states = lm.decoder(**inputs_of(n_tokens), use_cache=False).last_hidden_state[0]
        states = states[-n_targets:]
        total = TokenLogProbabilities.apply(states, head.weight, head.bias, targets).sum()
        if train:
            total.backward()
    if not train:
        return counter.flops
    # Fused kernels of attention compute the scores again on the way back; without numbers, torch
    # takes attention apart and keeps them.
    config = lm.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    again = 2 * config.num_hidden_layers * config.num_attention_heads * width * n_tokens**2
    return counter.flops + again


def head_flops(width: int) -> float:
    """Operations of phase I by CRONOS, as its solver counts them, and of phase II."""
    rows = SimpleNamespace(shape=(2 * N_PAIRS, width))
    program = SimpleNamespace(
        operator=SimpleNamespace(X=rows, n_patterns=PATTERNS),
        y=SimpleNamespace(shape=(2 * N_PAIRS, 1)),
    )
    history = {
        "iteration": [0] * CHECKS,
        "rho_weights": [1.0, 1.0],
        "cg_iterations": [CG_ITERATIONS],
    }
    result = SimpleNamespace(n_iter=ITERATIONS, history=history)
    first = solve_flops(program, result, "mean_field", rank=0)  # type: ignore[arg-type]
    second = ITERATIONS * 4.0 * N_PAIRS * 2 * PATTERNS
    return first + second


def operations(config: transformers.PretrainedConfig) -> dict[str, float]:
    """Operations of one pass over the paper's data, by method."""
    lm = outline(config)
    adapted = add_adapter(lm, FineTuningConfig(lora_r=16))
    prompt, reply = TOKENS["prompt"], TOKENS["reply"]
    talk = TOKENS["conversation"], TOKENS["tutor in a conversation"]
    both = 2 * scoring(adapted, prompt + reply, reply, train=True)
    reference = 2 * scoring(lm, prompt + reply, reply, train=False)
    return {
        "coala": float(N_PAIRS * embedding(lm, prompt + 2 * reply)),
        "coala head": head_flops(lm.config.hidden_size),
        "sft": float(N_CONVERSATIONS * scoring(adapted, *talk, train=True)),
        "dpo": float(N_PAIRS * (both + reference)),
        "orpo": float(N_PAIRS * both),
        "simpo": float(N_PAIRS * both),
        # Both replies after one prompt, in a tree: what fine_tune of cvxnn computes.
        "dpo, prompt shared": float(
            N_PAIRS
            * (
                scoring(adapted, prompt + 2 * reply, 2 * reply, train=True)
                + scoring(lm, prompt + 2 * reply, 2 * reply, train=False)
            )
        ),
    }


def memory(config: transformers.PretrainedConfig, **settings: Any) -> dict[str, float]:
    """Planned memory in GiB, by method; in bfloat16."""
    limit = min(MAX_LENGTH, config.max_position_embeddings)
    tokens = {"sft": MICRO_BATCH * limit, "dpo": 2 * MICRO_BATCH * limit}
    tokens |= {"orpo": tokens["dpo"], "simpo": tokens["dpo"]}
    found = {"coala": memory_plan(config, method="embed", max_length=limit).total / GIB}
    for method, batch in tokens.items():
        plan = memory_plan(
            config, method="fine_tune", batch_tokens=batch, max_length=limit, **settings
        )
        found[method] = plan.total / GIB
    return found


def measure(name: str, shape: dict[str, Any]) -> dict[str, Any]:
    settings = dict(shape["config"])
    config = transformers.CONFIG_MAPPING[settings.pop("model_type")](**settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted = operations(config)
        return {
            "name": name,
            "source": shape["source"],
            "n_weights_in_blocks": outline(config).n_parameters,
            "tokens": TOKENS,
            "n_conversations": N_CONVERSATIONS,
            "n_pairs": N_PAIRS,
            "tflop": {key: round(value / TFLOP, 3) for key, value in counted.items()},
            "paper": PAPER.get(name),
            "gib": {key: round(value, 2) for key, value in memory(config).items()},
            "gib, checkpointing": {
                key: round(value, 2)
                for key, value in memory(config, gradient_checkpointing=True).items()
            },
        }


def check() -> dict[str, Any]:
    """Count `fine_tune` of a tiny model while it runs, and without numbers."""
    sys.path.insert(0, str(HERE.parent / "device"))
    import llama

    from cvxnn.llm import fine_tune
    from cvxnn.preference import PreferenceTriplet

    lm = llama.language_model(True)
    prompts, chosen = llama.dialogues(4, True)
    _, rejected = llama.dialogues(4, True, start=100)
    texts = zip(prompts, chosen, rejected, strict=True)
    pairs = [PreferenceTriplet(p, c[1:], r[1:]) for p, c, r in texts]
    config = FineTuningConfig(micro_batch=1, accumulation=4, steps=1, max_length=32)
    costs = fine_tune(lm, config, preferences=pairs).costs
    with OperationCounter() as counter:
        ResponseScorer(lm)  # runs a few tokens to see what the model allows
    measured = {
        "train": costs["train"]["flops"],
        "reference": costs["reference"]["flops"] - counter.flops,
    }
    empty, n_reply = outline(lm.config), len(chosen[0])
    shape = len(lm.encode_prompts([prompts[0]])[0]) + 2 * n_reply, 2 * n_reply
    counted = {
        "train": 4 * scoring(add_adapter(empty, config), *shape, train=True),
        "reference": 4 * scoring(empty, *shape, train=False),
    }
    assert counted == measured, (counted, measured)
    return {"name": "check", "shape": shape, "counted": counted, "measured": measured}


def show(records: list[dict[str, Any]]) -> None:
    print("| model | method | TFLOP, counted | of COALA | Table 3 | of COALA | GiB, planned |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for record in records:
        counted, paper = record["tflop"], record["paper"] or {}
        for method in LABELS:
            said = f"{paper[method]:,.0f}" if method in paper else "–"
            ratio = f"{paper[method] / paper['coala']:.2f}" if method in paper else "–"
            print(
                f"| {record['name']} | {LABELS[method]} | {counted[method]:,.0f} | "
                f"{counted[method] / counted['coala']:.2f} | {said} | {ratio} | "
                f"{record['gib'][method]:.1f} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        result = check()
        raw_results.append(RAW, result)
        print(json.dumps(result, indent=1))
    else:
        shapes = json.loads((HERE / "model_shapes.json").read_text())
        found = [measure(name, shape) for name, shape in shapes.items()]
        for row in found:
            raw_results.append(RAW, row)
        show(found)
