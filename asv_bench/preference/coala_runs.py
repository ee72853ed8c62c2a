"""Heads on the pairs of ``dpo_runs.py``: layer and settings are chosen on training folds alone.

    python asv_bench/preference/coala_runs.py --data DIR --features FOLDER --out coala_runs.jsonl

``FOLDER`` gets the embeddings of each set first, where it does not have them (on a GPU where there
is one): mean and last state of ``LAYERS`` layers, and what it costs to embed all pairs by the last
layer. A line of the ``--out`` file is one head with one seed; lines that are there are skipped.
Algorithm 1 reads the layer that the folds of the linear head prefer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dpo_runs import MAX_LENGTH, N_TEST, pairs
from sklearn.model_selection import GroupKFold

from asv_bench.raw_results import append, read
from cvxnn import COALAPreferenceHead, LinearPreferenceHead
from cvxnn.costs import CostMeter

LAYERS = (10, 16, 20, 25, 30)
POOLINGS = ("mean", "last")
N_TRAIN = 1000
N_FOLDS = 3
ALL = "all layers"  # each with a strength of its own
HEADS: dict[str, Callable[..., Any]] = {
    "gated": partial(COALAPreferenceHead, formulation="gated"),
    "linear": LinearPreferenceHead,
    "algorithm 1": partial(COALAPreferenceHead, formulation="relu"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--features", type=Path, required=True, help="folder")
    parser.add_argument("--out", type=Path, help="without it, only the features are made")
    parser.add_argument("--model", help="folder or GGUF file; SmolLM2-135M-Instruct by default")
    parser.add_argument("--cache", type=Path, help="keeps the converted model")
    parser.add_argument("--sets", default="mrbench,hh_helpful")
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    options.features.mkdir(parents=True, exist_ok=True)
    names = options.sets.split(",")
    for name in names:
        if not (options.features / f"{name}.json").exists():
            embed(options, name)
    if options.out is None:
        return
    done = {(row["set"], row["method"], row["seed"]) for row in read(options.out)}
    for name in names:
        data = Features(options.features, name)
        for method, make in HEADS.items():
            todo = [int(s) for s in options.seeds.split(",")]
            todo = [seed for seed in todo if (name, method, seed) not in done]
            if not todo:
                continue
            scores = data.scores("linear" if method == "algorithm 1" else method)
            for seed in todo:
                found = data.measure(make, max(scores, key=lambda key: scores[key]), seed)
                row = {"set": name, "method": method, "seed": seed, **found}
                append(options.out, {**row, "scores": scores, "embedding": data.cost})


def embed(options: argparse.Namespace, name: str) -> None:
    """Write ``NAME.npz``, and ``NAME.json`` with the cost of the pass that `Embedder` makes."""
    from lm_embeddings import pooled

    from cvxnn.llm import Embedder, load_model

    lm = load_model(options.model, cache_dir=options.cache)
    train, test = pairs(options.data, name, N_TRAIN)
    every = [*train, *test]
    prompts = [pair.prompt for pair in every for _ in range(2)]
    replies = [reply for pair in every for reply in (pair.chosen, pair.rejected)]
    tokens = list(zip(lm.encode_prompts(prompts), lm.encode_responses(replies), strict=True))
    rows = []
    for prompt, reply in tokens:
        kept = reply[: MAX_LENGTH - 1]
        rows.append((prompt[-(MAX_LENGTH - len(kept)) :], kept))
    states = pooled(lm, rows, np.arange(len(rows)), list(LAYERS), 32_768)["responses"]
    np.savez(options.features / f"{name}.npz", states=states, n_train=len(train))
    meter = CostMeter()
    embedder = Embedder(lm, max_length=MAX_LENGTH, batch_tokens=32_768)
    with meter.phase("embed"):
        embedder.embed(prompts, replies)
    cost = {**meter.to_dict()["embed"], "tokens": embedder.tokens_computed_}
    cost |= {"n_pairs": len(every), "device": str(lm.device), "dtype": str(lm.dtype)}
    groups = [[pair.group for pair in part] for part in (train, test)]
    record = {"cost": cost, "groups": groups}
    (options.features / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")


class Features:
    """Chosen and rejected embeddings of a set by the name of a layer."""

    def __init__(self, folder: Path, name: str) -> None:
        record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(folder / f"{name}.npz") as file:
            states = file["states"].astype(np.float32)
        self.cost = record["cost"]
        self.groups, self.test_groups = (np.array(part) for part in record["groups"])
        self.n_train, self.width = len(self.groups), states.shape[-1]
        assert len(states) == 2 * (self.n_train + len(self.test_groups))
        assert len(self.test_groups) == N_TEST
        self.inputs = {
            f"layer {layer}, {pooling}": states[:, j, k]
            for j, layer in enumerate(LAYERS)
            for k, pooling in enumerate(POOLINGS)
        }
        self.inputs[ALL] = states.reshape(len(states), -1)

    def scores(self, method: str) -> dict[str, float]:
        """Accuracy on held-out folds of the training pairs, by layer."""
        names = [name for name in self.inputs if name != ALL or method == "gated"]
        rows = np.arange(self.n_train)
        found = {}
        for name in names:
            right = []
            for seen, unseen in GroupKFold(N_FOLDS).split(rows, groups=self.groups):
                head = self.fitted(HEADS[method], name, seen, 0)
                right.append(self.margins(head, name, unseen) > 0)
            found[name] = round(float(np.concatenate(right).mean()), 4)
        return found

    def fitted(self, make: Callable[..., Any], name: str, rows: np.ndarray, seed: int) -> Any:
        x = self.inputs[name]
        blocks = {"blocks": [self.width] * (x.shape[1] // self.width)} if name == ALL else {}
        head = make(random_state=seed, **blocks)
        return head.fit_pairs(x[2 * rows], x[2 * rows + 1], groups=self.groups[rows])

    def margins(self, head: Any, name: str, rows: np.ndarray) -> np.ndarray:
        x = self.inputs[name]
        return np.asarray(head.reward_margin(x[2 * rows], x[2 * rows + 1]))

    def measure(self, make: Callable[..., Any], name: str, seed: int) -> dict[str, Any]:
        meter, train = CostMeter(), np.arange(self.n_train)
        test = self.n_train + np.arange(len(self.test_groups))
        with meter.phase("fit"):
            head = self.fitted(make, name, train, seed)
        seen, held_out = (self.margins(head, name, rows) for rows in (train, test))
        curve = getattr(head, "phase2_history_", {})
        return {
            "input": name,
            "n_train": len(train),
            "n_test": len(test),
            "accuracy": float((held_out > 0).mean()),
            "standard_error": float((held_out > 0).std() / np.sqrt(len(test))),
            "train_accuracy": float((seen > 0).mean()),
            "margin": float(held_out.mean()),
            "train_margin": float(seen.mean()),
            "costs": meter.to_dict(),
            "flops": float(getattr(head, "flops_", 0) + getattr(head, "phase2_flops_", 0)),
            "curve": [
                [round(float(value), 4) for value in point]
                for point in zip(
                    curve.get("time", ()), curve.get("rewards/margins", ()), strict=True
                )
                if point[1] is not None
            ],
        }


if __name__ == "__main__":
    main()
