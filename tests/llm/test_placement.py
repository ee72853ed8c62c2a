"""Models that accelerate divides, on a machine without several devices: layers on the disk."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.llm import (
    Embedder,
    FineTuningConfig,
    Guidance,
    LanguageModel,
    fine_tune,
    generate_guided,
    load_model,
    loading,
)
from cvxnn.preference import PreferenceTriplet

pytest.importorskip("torch")
pytest.importorskip("accelerate")

PAIRS = [PreferenceTriplet(f"a b {c}", f"c {c} d", "e f") for c in "ghij"]
# accelerate loads a layer on the disk when it is its turn, by the hooks that move layers on GPUs.
DIVIDED = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}

SHORT = Guidance(max_new_tokens=4)


class First:
    """A head that rewards the first number of an embedding."""

    def __init__(self, embedding: Any) -> None:
        self.embedding = embedding

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X[:, 0]


@pytest.fixture
def folder(tiny_lm: Callable[..., LanguageModel], tmp_path: Path) -> Path:
    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "tiny")
    lm.tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_embeddings_and_guided_replies_are_those_of_one_device(folder: Path) -> None:
    found = []
    for device_map in (None, DIVIDED):
        lm = load_model(folder, device="cpu", device_map=device_map)
        assert hasattr(lm.model, "hf_device_map") == (device_map is not None)
        embedder = Embedder(lm)
        rows = embedder.embed([pair.prompt for pair in PAIRS], [pair.chosen for pair in PAIRS])
        reply = generate_guided(lm, First(embedder.description), "a b", SHORT)
        found.append((rows, reply.text))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    assert found[1][1] == found[0][1]


def test_lora_on_a_divided_model_takes_the_same_steps(folder: Path) -> None:
    config = FineTuningConfig(objective="dpo", steps=2, micro_batch=2, accumulation=1, lora_r=2)
    losses = []
    for device_map in (None, {**DIVIDED, "model.layers.1": "cpu"}):
        lm = load_model(folder, device="cpu", device_map=device_map)
        tuned = fine_tune(lm, config, preferences=PAIRS)
        losses.append([entry["loss"] for entry in tuned.history])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


def test_what_cannot_be_placed_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"stands for numbers")
    with pytest.raises(ValueError, match="takes neither device_map nor bits"):
        load_model(tmp_path / "weights.gguf", device_map="auto")
    wrong: Any = 5
    with pytest.raises(ValueError, match="bits is 5; expected 4, 8 or None"):
        load_model(folder, device="cpu", bits=wrong)
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install bitsandbytes"):
        load_model(folder, device="cpu", bits=4)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
def test_quantised_weights_embed_nearly_the_same(folder: Path) -> None:
    rows = []
    for bits in (None, 8):  # on a processor, 4 bits take wider layers than these
        lm = load_model(folder, device="cpu", bits=bits)
        rows.append(Embedder(lm).embed([p.prompt for p in PAIRS], [p.chosen for p in PAIRS]))
    error = np.linalg.norm(rows[1] - rows[0]) / np.linalg.norm(rows[0])
    assert 0 < error < 0.1
