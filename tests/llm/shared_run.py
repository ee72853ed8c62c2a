"""What `test_processes.py` runs in one process and in two: ``shared_run.py FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cvxnn.llm import (
    Embedder,
    FineTuningConfig,
    Guidance,
    LanguageModel,
    fine_tune,
    generate_guided,
    load_model,
)
from cvxnn.preference import PreferenceTriplet

PAIRS = [PreferenceTriplet(f"a {letter}", f"{letter} d {letter}", "e f") for letter in "abcghij"]
PROMPTS = ["a b", "c", "d e f"]
CONFIG = FineTuningConfig(
    objective="dpo",
    steps=4,
    micro_batch=2,
    accumulation=3,
    lora_r=2,
    lora_dropout=0.0,
    learning_rate=1e-2,
    evaluate_every=2,
    checkpoint_every=1,
)


class First:
    """A head that rewards the first number of an embedding."""

    def __init__(self, lm: LanguageModel) -> None:
        self.embedding = Embedder(lm).description

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X[:, 0]


def train(
    folder: Path, run: str, tell: Callable[[dict[str, float]], object] | bool = False
) -> dict[str, Any]:
    """Train the adapters of a model; return what has to be the same however it is done."""
    lm = load_model(folder / "tiny", device="cpu")
    tuned = fine_tune(
        lm, CONFIG, preferences=PAIRS, held_out=PAIRS[:3], folder=folder / run, progress=tell
    )
    parameters = tuned.lm.model.named_parameters()
    return {
        "history": tuned.history,
        "tokens": tuned.tokens_trained,
        "weights": {name: w.flatten().tolist() for name, w in parameters if "lora_" in name},
    }


def write(folder: Path, prompts: list[str]) -> list[str]:
    """Reply to prompts under the guidance of a head."""
    lm = load_model(folder / "tiny", device="cpu")
    head = First(lm)
    return [generate_guided(lm, head, p, Guidance(max_new_tokens=4)).text for p in prompts]


def main(folder: Path) -> None:
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    number = state.process_index
    found = train(folder, "two")
    with state.split_between_processes(PROMPTS) as own:
        found["written"] = gather_object(write(folder, own))
    try:
        lm = load_model(folder / "tiny", device="cpu")
        fine_tune(lm, CONFIG, preferences=PAIRS[number:])
    except ValueError as error:
        found["refused"] = str(error)

    def near(entry: dict[str, float]) -> bool:
        assert number == 0
        return entry["step"] >= 1  # the first evaluation from there on is at 2

    found["stopped"] = [entry["step"] for entry in train(folder, "stops", near)["history"]]
    (folder / f"found-{number}.json").write_text(json.dumps(found))

    def die(entry: dict[str, float]) -> None:
        assert number == 0
        if entry["step"] == 2:
            os._exit(9)

    train(folder, "dies", die)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
