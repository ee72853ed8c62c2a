"""Outlines read from headers of GGUF files, beside those of transformers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvxnn.llm.gguf_outline import outline_of_gguf
from cvxnn.llm.loading import load_outline
from cvxnn.llm.model_outline import model_outline
from cvxnn.llm.model_shape import shape_of

gguf = pytest.importorskip("gguf")

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}\n<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}{{ strftime_now('%Y') }}"
)
PROMPTS = [
    "the cat's hat, 2024",
    [{"role": "user", "content": "a hat\n\nb"}, {"role": "assistant", "content": "then the ä"}],
]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_the_header_says_what_transformers_says(
    architecture: str, template: str | None, tmp_path: Path
) -> None:
    file = tiny_gguf(tmp_path / "tiny.gguf", architecture, template)
    found, lm = outline_of_gguf(file), load_outline(file)
    assert found is not None
    expected = shape_of(lm, None)
    assert sorted(found.shape.adapted) == sorted(expected.adapted)
    assert dataclasses.replace(found.shape, adapted=()) == dataclasses.replace(expected, adapted=())
    assert found.context_length == lm.context_length
    assert found.exact
    assert found.count_prompts(PROMPTS) == [len(row) for row in lm.encode_prompts(PROMPTS)]
    texts = ["the hat", "the <|user|>'s 1234 thés", "  a \n b"]
    assert found.count_responses(texts) == [len(row) for row in lm.encode_responses(texts)]


def test_other_rules_for_words_are_not_exact(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "tiny.gguf", "llama", TEMPLATE, pre="llama-bpe")
    found = model_outline(file)
    assert not found.exact
    assert found.count_responses(["the hat"]) == [3]  # "the", a space, "hat"


def test_other_vocabularies_and_templates_are_left_to_transformers(tmp_path: Path) -> None:
    assert outline_of_gguf(tiny_gguf(tmp_path / "a.gguf", "llama", None, model="llama")) is None
    broken = tiny_gguf(tmp_path / "b.gguf", "llama", "{% generation %}a{% endgeneration %}")
    assert outline_of_gguf(broken) is None
    assert model_outline(broken).shape.width == 16


def test_a_template_that_refuses_a_prompt(tmp_path: Path) -> None:
    template = "{{ raise_exception('no system prompt here') }}"
    found = outline_of_gguf(tiny_gguf(tmp_path / "tiny.gguf", "llama", template))
    assert found is not None
    with pytest.raises(ValueError, match=r"no system prompt here \(its roles are \['user'\]\)"):
        found.count_prompts(["a"])


@pytest.mark.slow
def test_a_plan_of_a_gguf_file_does_without_transformers(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "tiny.gguf", "llama", TEMPLATE)
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a", "chosen": "b c", "rejected": "d"}\n' * 8, encoding="utf-8")
    code = (
        "import sys; from cvxnn.cli.main import main; "
        "code = main(['extract', sys.argv[1], '--model', sys.argv[2], '--plan-only']); "
        "assert code == 0, code; slow = {'transformers', 'jax', 'sklearn'} & {*sys.modules}; "
        "assert not slow, slow"
    )
    command = [sys.executable, "-c", code, str(data), str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "fits in" in ended.stdout


def tiny_gguf(
    file: Path,
    architecture: str,
    template: str | None,
    *,
    pre: str = "default",
    model: str = "gpt2",
) -> Path:
    """Write a model of random weights, with a byte-level vocabulary and a few merges."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    alphabet = list(bytes_to_unicode().values())
    merges = ["t h", "th e", "h a", "ha t", "Ġ the", "1 2"]
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
    tokens = special + alphabet + [merge.replace(" ", "") for merge in merges]
    head = 128 if architecture == "qwen3" else 4  # transformers takes no other of Qwen3
    width, queries, keys, hidden = 16, 4 * head, 2 * head, 24
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    if architecture == "qwen3":
        writer.add_key_length(head)
        writer.add_value_length(head)
    else:
        writer.add_rope_dimension_count(head)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(special) + [1] * (len(tokens) - len(special)))
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    sizes = {"attn_q": (queries, width), "attn_k": (keys, width), "attn_v": (keys, width)}
    sizes |= {"attn_output": (width, queries), "ffn_down": (width, hidden)}
    sizes |= {"ffn_gate": (hidden, width), "ffn_up": (hidden, width)}
    tensors = {"token_embd.weight": (len(tokens), width), "output_norm.weight": (width,)}
    for block in range(2):
        tensors |= {f"blk.{block}.{name}.weight": size for name, size in sizes.items()}
        tensors |= {f"blk.{block}.{name}_norm.weight": (width,) for name in ("attn", "ffn")}
        if architecture == "qwen2":
            biases = {"attn_q": queries, "attn_k": keys, "attn_v": keys}
            tensors |= {f"blk.{block}.{name}.bias": (size,) for name, size in biases.items()}
        if architecture == "qwen3":
            tensors |= {f"blk.{block}.attn_{name}_norm.weight": (head,) for name in "qk"}
    rng = np.random.default_rng(0)
    for name, size in tensors.items():
        writer.add_tensor(name, rng.standard_normal(size).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
