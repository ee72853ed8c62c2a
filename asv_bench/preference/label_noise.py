"""Flipped labels among preference pairs: does the influence of a pair on itself find them?

``python asv_bench/preference/label_noise.py FILE.npz ... --out label_noise.jsonl`` with files of
``embeddings.py --layers``. A tenth of the training pairs gets its label turned; pairs are sorted by
how much each method disagrees with their labels. A line of the ``--out`` file holds one set, seed
and number of pairs; what is there is not run again. Pairs of equal replies are one pair, and left
out.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from heads import load
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from asv_bench.raw_results import append, read
from cvxnn import COALAPreferenceHead

PART = 0.1
N_FOLDS = 5
Floats = NDArray[np.floating]


def main() -> None:
    arguments = _arguments()
    done = {(r["set"], r["seed"], r["n"]) for r in read(arguments.out)}
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.take(data.parts[0][0])
        both = np.concatenate([pairs.chosen, pairs.rejected], axis=1)
        first = np.sort(np.unique(both, axis=0, return_index=True)[1])[: arguments.limit]
        pairs = pairs.take(first)
        pairs = pairs.columns(data.layers[arguments.layer or next(iter(data.layers))])
        for seed in range(arguments.seeds):
            if (path.stem, seed, len(first)) in done:
                continue
            print(f"{path.stem}: seed {seed}, {len(first)} pairs", file=sys.stderr, flush=True)
            found = measure(pairs.chosen, pairs.rejected, pairs.groups, seed)
            append(arguments.out, {"set": path.stem, "seed": seed, "n": len(first), **found})


def measure(chosen: Floats, rejected: Floats, groups: NDArray[np.intp], seed: int) -> Any:
    """Turn labels, fit, and score every method's order."""
    rng, n = np.random.RandomState(seed), len(chosen)
    flipped = np.zeros(n, bool)
    flipped[rng.choice(n, round(PART * n), replace=False)] = True
    won = np.where(flipped[:, None], rejected, chosen)
    lost = np.where(flipped[:, None], chosen, rejected)
    head = COALAPreferenceHead(random_state=seed)
    times, doubts = {}, {}
    cpu = time.process_time()
    head.fit_pairs(won, lost, groups=groups)
    times["fit"] = time.process_time() - cpu
    doubts["loss in the fit"] = -head.reward_margin(won, lost)
    cpu = time.process_time()
    labels = np.repeat([1, 0], n)
    influence = head.influence(np.concatenate([won, lost]), labels, groups=np.tile(groups, 2))
    doubts["left out"] = influence.doubt
    times["left out"] = time.process_time() - cpu
    for name, of in (("folds of pairs", np.arange(n)), ("folds of groups", groups)):
        splitter = GroupKFold(N_FOLDS, shuffle=True, random_state=seed)
        cpu = time.process_time()
        doubts[name] = np.empty(n)
        for seen, unseen in splitter.split(won, groups=of):
            part = COALAPreferenceHead(random_state=seed)
            part.fit_pairs(won[seen], lost[seen], groups=groups[seen])
            doubts[name][unseen] = -part.reward_margin(won[unseen], lost[unseen])
        times[name] = time.process_time() - cpu
    return {
        "auc": {name: round(roc_auc_score(flipped, d), 4) for name, d in doubts.items()},
        "found": {name: round(among_first(flipped, d), 4) for name, d in doubts.items()},
        "cpu_s": {name: round(s, 2) for name, s in times.items()},
    }


def among_first(flipped: NDArray[np.bool_], doubt: Floats) -> float:
    """Return the part of the flipped pairs that are among as many of largest doubt."""
    first = np.argsort(-doubt, kind="stable")[: flipped.sum()]
    return float(flipped[first].mean())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("label_noise.jsonl"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=4000, help="first pairs that are taken")
    parser.add_argument("--layer", help="'layer 6, mean' and the like; by default the first")
    return parser.parse_args()


if __name__ == "__main__":
    main()
