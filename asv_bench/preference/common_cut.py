"""Tokens and processor seconds of pairs whose prompt is cut at one place, and reply by reply.

    python asv_bench/preference/common_cut.py --data DIR --out common_cut.jsonl

`DIR` holds `mrbench_pairs_test.jsonl.gz` (many pairs of one prompt) and `hh_rlhf_test.jsonl.gz` (a
prompt for each pair), rows of `prompt`, `chosen` and `rejected`.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import time
import warnings
from pathlib import Path

import torch

from asv_bench.raw_results import append
from cvxnn.llm import Embedder, load_model

SETS = {"mrbench_pairs": 30, "hh_rlhf": 12}
LENGTHS = 160, 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lm = load_model(options.model)
    warnings.simplefilter("ignore")  # that prompts are cut is the subject
    for name, n_pairs in SETS.items():
        with gzip.open(options.data / f"{name}_test.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in itertools.islice(lines, n_pairs)]
        prompts = [row["prompt"] for row in rows for _ in range(2)]
        replies = [reply for row in rows for reply in (row["chosen"], row["rejected"])]
        for max_length, common_cut in itertools.product(LENGTHS, (False, True)):
            embedder = Embedder(lm, max_length=max_length)
            began = time.process_time()
            embedder.embed(prompts, replies, common_cut=common_cut)
            record = {
                "set": name,
                "pairs": n_pairs,
                "max_length": max_length,
                "common_cut": common_cut,
                "tokens_apart": embedder.tokens_naive_,
                "tokens": embedder.tokens_computed_,
                "seconds": round(time.process_time() - began, 1),
            }
            print(record, flush=True)
            append(options.out, record)


if __name__ == "__main__":
    main()
