"""Layers that get adapters by default, in many families, and merging where weights are shared."""

from __future__ import annotations

import contextlib
import copy
import warnings
from pathlib import Path
from typing import Any

import pytest

from cvxnn.llm import FineTuningConfig, LanguageModel, load_adapter
from cvxnn.llm.fine_tuning import adapters
from cvxnn.llm.identity import describe_model
from cvxnn.llm.model_shape import shape_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
ROUTED = {**MOE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "num_experts": 4,
    "shared_expert_intermediate_size": 16,
}
QKV, GATED = "q_proj k_proj v_proj", "gate_proj up_proj down_proj"
EXPERTS = "experts.down_proj experts.gate_up_proj"
# Options of the configuration, the layers with adapters, and what a warning says is left out.
FAMILIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "llama": ({}, f"{QKV} o_proj {GATED}", ""),
    "gpt2": ({}, "c_attn c_proj", ""),
    "gpt_neo": (
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
        f"{QKV} out_proj c_fc c_proj",
        "",
    ),
    "starcoder2": ({}, f"{QKV} o_proj c_fc c_proj", ""),
    "mpt": ({"d_model": 32, "n_heads": 4, "n_layers": 2}, "Wqkv out_proj up_proj down_proj", ""),
    "phi3": ({}, "qkv_proj o_proj gate_up_proj down_proj", ""),
    "lfm2": (
        {"layer_types": ["conv", "full_attention"]}, f"{QKV} in_proj out_proj w1 w2 w3", ""
    ),
    "opt": ({"ffn_dim": 48, "word_embed_proj_dim": 32}, f"{QKV} out_proj fc1 fc2", ""),
    "gpt_neox": ({}, "query_key_value dense dense_h_to_4h dense_4h_to_h", ""),
    "mamba": ({"state_size": 4}, "in_proj", "dt_proj out_proj x_proj"),
    "deepseek_v3": (
        {**ROUTED, **LATENT, "n_shared_experts": 1},
        f"q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj o_proj {GATED}",
        EXPERTS,
    ),
    "glm4_moe": (ROUTED, f"{QKV} o_proj {GATED}", EXPERTS),
    "qwen3_next": (
        {**MOE, **LINEAR}, f"{QKV} o_proj in_proj_qkvz in_proj_ba out_proj {GATED}", EXPERTS
    ),
    "mixtral": ({"num_local_experts": 4}, f"{QKV} o_proj", EXPERTS),
    "dbrx": (
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        },
        "Wqkv out_proj",  # not the router
        "mlp.v1 mlp.w1 mlp.w2",  # experts in matrices of their own
    ),
}  # fmt: skip


class Tokenizer:
    chat_template = None

    def get_vocab(self) -> dict[str, int]:
        return {}


def make_lm(family: str, **options: Any) -> LanguageModel:
    own = FAMILIES[family][0]
    config = transformers.CONFIG_MAPPING[family](**{**SIZES, **own, **options})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    return LanguageModel(model, Tokenizer(), family)


def logits(lm: LanguageModel) -> Any:
    with torch.no_grad():
        return lm.model(input_ids=torch.arange(3, 11)[None]).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_layers_of_blocks(family: str, tmp_path: Path) -> None:
    """They train, are saved and loaded, and the plan of memory counts the same ones."""
    _, expected, left_out = FAMILIES[family]
    if family not in transformers.CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {family}")
    lm = make_lm(family)
    names = ", ".join(map(repr, left_out.split()))
    warned = (
        pytest.warns(UserWarning, match=rf"LoRA adapts .* of {family}; \[{names}\] are left out")
        if left_out
        else contextlib.nullcontext()
    )
    config = FineTuningConfig(lora_r=2)
    with warned:
        adapted = adapters.add_adapter(lm, config)
    weights = adapters.trained_weights(adapted)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in weights} == set(expected.split())
    assert adapted.model.get_base_model().config.model_type == family
    n_inputs = sum(w.numel() for name, w in weights.items() if "lora_A" in name)
    assert n_inputs + sum(w.numel() for name, w in weights.items() if "lora_B" in name) == sum(
        2 * (rows + columns) for rows, columns in shape_of(lm, None).adapted
    )
    before = logits(lm)
    torch.testing.assert_close(logits(adapted), before)
    with torch.no_grad():
        for weight in weights.values():
            weight.normal_(std=0.3)
    changed = logits(adapted)
    assert not torch.allclose(changed, before)
    torch.testing.assert_close(logits(lm), before)
    adapters.save_adapter(adapted, tmp_path / "adapter", describe_model(lm))
    torch.testing.assert_close(logits(load_adapter(lm, tmp_path / "adapter")), changed)
    merged = adapters.merge_adapter(adapted)
    torch.testing.assert_close(logits(merged), changed, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [("q_proj", "lm_head"), ("embed_tokens",)])
def test_shared_weights_part_when_they_are_merged(
    tmp_path: Path, targets: tuple[str, ...], tied: bool
) -> None:
    lm = make_lm("llama", tie_word_embeddings=tied)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of tied layers as well
        adapted = adapters.add_adapter(lm, FineTuningConfig(lora_r=2, target_modules=targets))
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if ".lora_" in name:
                weight.normal_(std=0.3)
    expected, before = logits(adapted), copy.deepcopy(lm.model.state_dict())
    merged = adapters.merge_adapter(adapted)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(adapted), expected)
    torch.testing.assert_close(dict(lm.model.state_dict()), dict(before))
    merged.model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(LanguageModel(again, Tokenizer(), "again")), logits(merged))


@pytest.mark.parametrize("name", ["mlp", "experts", "norm", "layers", "gate"])
def test_modules_that_are_no_layers_are_refused(name: str) -> None:
    lm = make_lm("glm4_moe")
    said = rf"target_modules has \['{name}'\], which are no layers of weights; choose among \['down"
    with pytest.raises(ValueError, match=said):
        adapters.add_adapter(lm, FineTuningConfig(target_modules=("q_proj", name)))


def test_layers_that_adapters_cannot_change_are_refused() -> None:
    lm = make_lm("mamba")
    with pytest.raises(ValueError, match=r"\['out_proj'\], whose weights the model reads without"):
        adapters.add_adapter(lm, FineTuningConfig(target_modules=("in_proj", "out_proj")))
