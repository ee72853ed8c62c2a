"""DPO on larger sets: held-out accuracy and margins for epochs, learning rates and seeds.

    python asv_bench/preference/dpo_runs.py --data DIR --out dpo.jsonl
    python asv_bench/preference/dpo_runs.py --data DIR --out dpo.jsonl --shard 0/4  # one of four

``DIR`` holds ``mrbench_pairs_{train,test}.jsonl.gz`` and ``hh_rlhf_{train,test}.jsonl.gz``, and for
``--sets imdb`` ``imdb_{train,test}.jsonl.gz``, whose reviews are cut to ``CHARACTERS``. Each run is
a line of the ``--out`` file; runs that are there already are skipped. Held-out pairs never share a
prompt with training pairs (of reviews, all share one), and of hh-rlhf only the "helpful" subsets
are used. Operations are counted for one epoch of seed 0 alone (each further epoch takes as many; on
a GPU, counting takes about as long as a step of so small a model), and held-out margins are taken
during the runs of seed 0.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import platform
import random
import re
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from asv_bench.raw_results import append
from cvxnn.comparison.fine_tuned import implied_rewards
from cvxnn.costs import operations
from cvxnn.datasets import sentiment_pairs
from cvxnn.llm import FineTuningConfig, fine_tune, load_model
from cvxnn.preference import PreferenceTriplet

N_TEST = 400
MAX_LENGTH = 192  # tokens of prompt and reply
MICRO_BATCH = 8
CHARACTERS = 200  # of a review
N_SEEN = 200  # training pairs on which the training accuracy is taken
N_WATCHED = 100  # held-out pairs whose margins are taken during the runs of seed 0
WATCH_EVERY = 25  # steps
ROLES = {"Human": "user", "Assistant": "assistant"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="folder or GGUF file; SmolLM2-135M-Instruct by default")
    parser.add_argument("--cache", type=Path, help="keeps the converted model")
    parser.add_argument("--sets", default="mrbench,hh_helpful")
    parser.add_argument("--epochs", default="1,3")
    parser.add_argument("--rates", default="2e-4,1e-3")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pairs", type=int, default=1000, help="training pairs")
    parser.add_argument("--test", type=int, default=N_TEST, help="held-out pairs")
    parser.add_argument("--shard", default="0/1", help="I/N: every N-th run, from the I-th on")
    options = parser.parse_args()
    first, n_shards = map(int, options.shard.split("/"))
    grid = list(
        itertools.product(
            map(int, options.seeds.split(",")),
            map(int, options.epochs.split(",")),
            options.sets.split(","),
            map(float, options.rates.split(",")),
        )
    )
    done = set()
    if options.out.exists():
        for line in options.out.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            done.add((row["seed"], row["epochs"], row["set"], row["learning_rate"]))
    lm = load_model(options.model, cache_dir=options.cache)
    for seed, epochs, name, rate in grid[first::n_shards]:
        if (seed, epochs, name, rate) in done:
            continue
        train, test = pairs(options.data, name, options.pairs)
        test = test[: options.test]
        row = run(lm, train, test, epochs=epochs, rate=rate, seed=seed)
        row = {"set": name, "seed": seed, "epochs": epochs, "learning_rate": rate, **row}
        append(options.out, row)


def run(
    lm: Any,
    train: list[PreferenceTriplet],
    test: list[PreferenceTriplet],
    *,
    epochs: int,
    rate: float,
    seed: int,
) -> dict[str, Any]:
    """Train once; give accuracies, margins over time, and costs."""
    config = FineTuningConfig(
        objective="dpo",
        epochs=epochs,
        learning_rate=rate,
        micro_batch=MICRO_BATCH,
        accumulation=1,
        max_length=MAX_LENGTH,
        evaluate_every=WATCH_EVERY if seed == 0 else 10**6,
        seed=seed,
    )
    began = time.perf_counter()
    curve, watched = [], []

    def note(entry: dict[str, float]) -> None:
        now = time.perf_counter() - began
        if "rewards/margins" in entry:
            curve.append((now, entry["loss"], entry["rewards/margins"]))
        if "eval_rewards/margins" in entry:
            watched.append((now, entry["eval_loss"], entry["eval_rewards/margins"]))

    seen_now = test[:N_WATCHED] if seed == 0 else None
    counted = seed == 0 and epochs == 1
    with nullcontext() if counted else patch.object(operations, "OperationCounter", Uncounted):
        tuned = fine_tune(lm, config, preferences=train, held_out=seen_now, progress=note)
    seconds = time.perf_counter() - began
    held_out = np.subtract(*implied_rewards(lm, tuned, test))
    seen = np.subtract(*implied_rewards(lm, tuned, train[:N_SEEN]))
    costs = {name: dict(cost) for name, cost in tuned.costs.items()}
    for cost in () if counted else costs.values():
        del cost["flops"]
    return {
        "n_train": len(train),
        "n_test": len(test),
        "max_length": MAX_LENGTH,
        "batch_size": MICRO_BATCH,
        "accuracy": float((held_out > 0).mean()),
        "standard_error": float((held_out > 0).std() / np.sqrt(len(test))),
        "train_accuracy": float((seen > 0).mean()),
        "margin": float(held_out.mean()),
        "train_margin": float(seen.mean()),
        "seconds": seconds,
        "costs": costs,
        "curve": [[round(value, 4) for value in point] for point in curve],
        "held_out_curve": [[round(value, 4) for value in point] for point in watched],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "dtype": str(lm.dtype),
    }


class Uncounted:
    """What stands for the counter of operations where nothing is counted."""

    flops = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def pairs(
    folder: Path, name: str, n_train: int
) -> tuple[list[PreferenceTriplet], list[PreferenceTriplet]]:
    """Training and held-out pairs, always the same ones."""
    if name == "imdb":
        return reviews(folder, "train")[:n_train], reviews(folder, "test")[:N_TEST]
    stem = {"mrbench": "mrbench_pairs", "hh_helpful": "hh_rlhf"}[name]
    found = []
    for part, seed, n in (("train", 1, n_train), ("test", 2, None)):
        rows = list(read(folder / f"{stem}_{part}.jsonl.gz"))
        random.Random(seed).shuffle(rows)
        found.append(rows[:n])
    train, test = found
    known = {triplet.group for triplet in train}
    return train, [triplet for triplet in test if triplet.group not in known][:N_TEST]


def reviews(folder: Path, part: str) -> list[PreferenceTriplet]:
    """Pairs of the beginnings of a positive and of a negative review."""
    with gzip.open(folder / f"imdb_{part}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts = [row["text"].replace("<br />", " ")[:CHARACTERS] for row in rows]
    return sentiment_pairs(texts, [row["label"] for row in rows])


def read(path: Path) -> Iterator[PreferenceTriplet]:
    """Read the pairs of a file; transcripts become messages."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if not row.get("subset", "helpful").startswith("helpful"):
                continue
            prompt: Any = row["prompt"]
            if prompt.startswith("\n\nHuman:"):
                turns = re.split(r"\n\n(Human|Assistant):", prompt)[1:]
                prompt = [
                    {"role": ROLES[role], "content": text.strip()}
                    for role, text in zip(turns[::2], turns[1::2], strict=True)
                ][:-1]  # the last turn is the reply's, empty here
                if not prompt or not all(message["content"] for message in prompt):
                    continue
            yield PreferenceTriplet(prompt, row["chosen"], row["rejected"])


if __name__ == "__main__":
    main()
