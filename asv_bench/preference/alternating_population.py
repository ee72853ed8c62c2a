"""Pairs by Alternating Population beside judged pairs: what a model of words learns from each.

    python asv_bench/preference/alternating_population.py --data DIR --out FILE

``DIR`` has ``tutor_dialogues.jsonl.gz`` and ``mrbench_pairs_{train,test}.jsonl.gz``, whose pairs
people judged. Dialogues of which a message stands in a prompt of the test pairs are left out, so
that nothing was seen. Both models are fitted to equally many pairs, and asked about the judged test
pairs and about alternating pairs of other dialogues. It takes 4 seconds of processor time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench.raw_results import append
from cvxnn.evaluation import text_judge
from cvxnn.preference import (
    Conversation,
    PreferenceTriplet,
    alternating_population,
    split_by_group,
)

LEAST = 40  # characters of a message that counts as seen
SEEDS = range(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    judged, test = (judged_pairs(options.data, part) for part in ("train", "test"))
    alternating = alternating_pairs(options.data, test)
    for seed in SEEDS:
        learnt, kept = split_by_group(alternating, 0.25, seed)
        n = min(len(learnt), len(judged))
        for name, pairs in (("alternating", learnt), ("judged", judged)):
            drawn = np.random.default_rng(seed).permutation(len(pairs))[:n]
            began = time.process_time()
            model = text_judge([pairs[i] for i in drawn])
            record: dict[str, Any] = {"learnt_from": name, "seed": seed, "n_train": n}
            for kind, asked in (("judged", test), ("alternating", kept)):
                right = model.batch(*sides(asked))
                record[kind] = float(right.mean())
                record[f"{kind}_n"], record[f"{kind}_longer"] = len(asked), longer(asked)
            append(options.out, {**record, "cpu_seconds": time.process_time() - began})


def judged_pairs(data: Path, part: str) -> list[PreferenceTriplet]:
    rows = read(data / f"mrbench_pairs_{part}.jsonl.gz")
    return [
        PreferenceTriplet(r["prompt"], r["chosen"], r["rejected"], group=r["conversation_id"])
        for r in rows
    ]


def alternating_pairs(data: Path, test: Sequence[PreferenceTriplet]) -> list[PreferenceTriplet]:
    """Triplets of dialogues that the test pairs do not show."""
    shown = "\n".join({plain(str(pair.prompt)) for pair in test})
    dialogues = [
        Conversation(tuple(row["messages"]), id=row["id"])
        for row in read(data / "tutor_dialogues.jsonl.gz")
        if not any(
            len(text) >= LEAST and text in shown
            for text in (plain(message["content"]) for message in row["messages"])
        )
    ]
    return alternating_population(dialogues)


def plain(text: str) -> str:
    return " ".join(text.split()).lower()


def sides(pairs: Sequence[PreferenceTriplet]) -> tuple[list[Any], list[str], list[str]]:
    return (
        [pair.prompt for pair in pairs],
        [pair.chosen for pair in pairs],
        [pair.rejected for pair in pairs],
    )


def longer(pairs: Sequence[PreferenceTriplet]) -> float:
    """Share of pairs whose chosen reply is the longer one; equal lengths count a half."""
    gaps = [np.sign(len(pair.chosen) - len(pair.rejected)) for pair in pairs]
    return float((1 + np.mean(gaps)) / 2)


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    main()
