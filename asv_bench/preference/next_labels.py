"""Which pairs should be judged next? Held-out accuracy against the number of labels.

``python asv_bench/preference/next_labels.py FILE.npz ... --out next_labels.jsonl`` with files of
``embeddings.py --layers``, whose last layer is used. Each choice begins with the same random
pairs of a pool, and as many more are labelled at a time: at random, those of ``next_labels``
by either criterion, or those whose margin is nearest to 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from heads import load

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead

CHOICES = ("random", "variance", "determinant", "uncertain")


def main() -> None:
    arguments = _arguments()
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.columns(list(data.layers.values())[-2])
        train, test = data.parts[0]
        for draw in range(arguments.draws):
            order = np.random.RandomState(draw).permutation(train)[: arguments.pool]
            for choice in CHOICES:
                cpu = time.process_time()
                found = run(pairs, order, test, choice, arguments, draw)
                record = {
                    "set": path.stem,
                    "choice": choice,
                    "draw": draw,
                    "labels": list(range(arguments.step, arguments.most + 1, arguments.step)),
                    "accuracy": found,
                    "cpu_s": round(time.process_time() - cpu, 1),
                }
                print(record, file=sys.stderr, flush=True)
                append(arguments.out, record)


def run(pairs, order, test, choice, arguments, draw):  # type: ignore[no-untyped-def]
    """Label pairs step by step; return the accuracy after each."""
    labelled, left, accuracy = order[: arguments.step], order[arguments.step :], []
    while True:
        won, lost = pairs.chosen[labelled], pairs.rejected[labelled]
        head = COALAPreferenceHead(random_state=draw).fit_pairs(won, lost)
        right = head.reward_margin(pairs.chosen[test], pairs.rejected[test]) > 0
        accuracy.append(round(float(right.mean()), 4))
        if len(labelled) >= arguments.most:
            return accuracy
        pool = pairs.chosen[left], pairs.rejected[left]
        if choice == "random":
            asked = np.arange(arguments.step)
        elif choice == "uncertain":
            asked = np.argsort(np.abs(head.reward_margin(*pool)))[: arguments.step]
        else:
            X, y = np.concatenate([won, lost]), np.repeat([1, 0], len(won))
            asked = head.next_labels(X, y, pool, arguments.step, criterion=choice).order
        labelled, left = np.r_[labelled, left[asked]], np.delete(left, asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("next_labels.jsonl"))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--pool", type=int, default=2000)
    parser.add_argument("--step", type=int, default=50)
    parser.add_argument("--most", type=int, default=600)
    return parser.parse_args()


if __name__ == "__main__":
    main()
