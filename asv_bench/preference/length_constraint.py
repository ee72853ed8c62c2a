"""Rewards that may not follow length: what does the constraint cost, and does it hold for others?

``python asv_bench/preference/length_constraint.py FILE.npz ... --out length_constraint.jsonl`` with
files of ``embeddings.py --layers`` that have the tokens of each response. The head is fitted as it
is, and under side constraints on the training responses: ``uncorrelated`` over all of them, and
``in_pairs`` over differences. Accuracy and correlations are those of the test pairs.

"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from heads import load, rows_of_part
from numpy.typing import NDArray

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead
from cvxnn.training import SideConstraint

Floats = NDArray[np.floating]


def main() -> None:
    arguments = _arguments()
    for path in arguments.files:
        data = load(path)
        with np.load(path) as file:
            # A reply that the tokenizer sees nothing of has the length of one token.
            tokens, arrays = np.maximum(file["tokens"], 1), dict(file)
        columns = [rows_of_part(arrays, part)[:2] for part in ("train", "test")]
        longer = [np.log(tokens[rows]) for rows in map(np.concatenate, zip(*columns, strict=True))]
        pairs = data.pairs.columns(data.layers[arguments.layer])
        train, test = data.parts[0]
        train = train[: arguments.limit]
        won, lost = pairs.chosen[train], pairs.rejected[train]
        rows = np.concatenate([won, lost])
        length = np.concatenate([longer[0][train], longer[1][train]])
        labels = np.repeat([1, 0], len(won))
        groups = pairs.groups[train]
        cpu = time.process_time()
        head = COALAPreferenceHead(random_state=0).fit_pairs(won, lost, groups=groups)
        spent = {"fit": time.process_time() - cpu}
        heads = {"plain": head}
        asked = {
            "uncorrelated": SideConstraint.uncorrelated(rows, length),
            "in_pairs": SideConstraint.in_pairs(won, lost, longer[0][train] - longer[1][train]),
        }
        for name, constraint in asked.items():
            cpu = time.process_time()
            heads[name] = head.constrained(rows, labels, [constraint], groups=np.tile(groups, 2))
            spent[name] = time.process_time() - cpu
        new = [part[test] for part in (pairs.chosen, pairs.rejected, *longer)]
        for name, fitted in heads.items():
            found = {
                "set": path.stem,
                "head": name,
                "n": len(won),
                "n_test": len(test),
                **measure(fitted, *new),
                "price": float(fitted.prices_[0, 0]) if name != "plain" else 0.0,
                "objective": fitted.objective_,
                "cpu_s": round(spent["fit" if name == "plain" else name], 2),
            }
            print(found, file=sys.stderr, flush=True)
            append(arguments.out, found)


def measure(head: Any, won: Floats, lost: Floats, of_won: Floats, of_lost: Floats) -> Any:
    """Accuracy of test pairs, also of those whose shorter response won, and correlations."""
    margin = head.reward_margin(won, lost)
    right = (margin > 0) + (margin == 0) / 2
    rewards = head.decision_function(np.concatenate([won, lost]))
    shorter, longer = of_won < of_lost, of_won > of_lost
    margins, differences = rewards[: len(won)] - rewards[len(won) :], of_won - of_lost
    lengths = np.concatenate([of_won, of_lost])
    products = margins @ differences / np.sqrt(margins @ margins * (differences @ differences))
    found = {
        "accuracy": right.mean(),
        "accuracy_where_shorter_won": right[shorter].mean(),
        "accuracy_where_longer_won": right[longer].mean(),
        "longer_won": longer.mean(),
        "prefers_longer": np.mean(np.sign(margins) == np.sign(differences)),
        "correlation": np.corrcoef(rewards, lengths)[0, 1],
        "correlation_in_pairs": products,
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("length_constraint.jsonl"))
    parser.add_argument("--limit", type=int, default=4000, help="first pairs that are taken")
    parser.add_argument("--layer", default="all", help="'layer 6, mean' and the like")
    return parser.parse_args()


if __name__ == "__main__":
    main()
