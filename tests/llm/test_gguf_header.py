"""Headers of GGUF files, as transformers gets them from either reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvxnn.llm.gguf_header import fast_headers

gguf = pytest.importorskip("gguf")
reading = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")


def test_both_readers_give_the_same(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<s>", "a", "ä", "→ x"])
    writer.add_token_types([3, 1, 1, 1])
    writer.add_token_scores([0.0, -1.5, 2.0, 0.25])
    writer.add_token_merges(["a b", "ä →"])
    writer.add_array("llama.flags", [True, False])
    writer.add_tensor("token_embd.weight", np.ones((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    original, names = gguf.GGUFReader, gguf.get_tensor_name_map
    expected = reading.load_gguf_checkpoint(str(file))
    with fast_headers():
        found = reading.load_gguf_checkpoint(str(file))
        reader = gguf.GGUFReader(str(file))
        table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2) is table  # made once
    assert gguf.GGUFReader is original
    assert gguf.get_tensor_name_map is names
    assert table.mapping == names(gguf.MODEL_ARCH.LLAMA, 2).mapping
    assert found == expected
    assert found["tokenizer"]["tokens"] == ["<s>", "a", "ä", "→ x"]
    [tensor] = reader.tensors
    np.testing.assert_array_equal(tensor.data, np.ones((4, 8), np.float32))
