"""Do deviations of the exact Hessian help to choose the best reply, or to abstain?

``python asv_bench/preference/pessimism.py FILE.npz ... --out pessimism.jsonl`` with files of
``embeddings.py --layers``. Of the replies of each held-out conversation that pairs compare, the one
with the highest ``reward - kappa * deviation`` is chosen; its score is the part of its pairs that
it won. Deviations are those of replies among each other, or by themselves (as ``cautious`` takes
them). ``kappa`` is chosen on every second conversation, and reported on the others. Of held-out
pairs, those of largest margin, or of largest margin in units of its deviation,
are answered.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from heads import load

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead

KAPPAS = (0.0, 0.3, 1.0, 3.0, 10.0)
SHARES = (1.0, 0.75, 0.5, 0.25)


def main() -> None:
    arguments = _arguments()
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.columns(next(iter(data.layers.values())))
        train, test = data.parts[0]
        train = np.random.RandomState(0).permutation(train)[: arguments.limit]
        won, lost = (part[train].astype(float) for part in (pairs.chosen, pairs.rejected))
        groups = pairs.groups[train]
        head = COALAPreferenceHead(random_state=0).fit_pairs(won, lost, groups=groups)
        both = np.concatenate([won, lost]), np.repeat([1, 0], len(won))
        curvature = head.curvature(*both, groups=np.tile(groups, 2))
        first, second = (part[test].astype(float) for part in (pairs.chosen, pairs.rejected))
        network = head.phase1_network_
        margins = (network.forward(first) - network.forward(second))[:, 0]
        deviations = np.maximum(curvature.deviation_between(first, second), 1e-12)
        found = {"set": path.stem, "n": len(train), "pairs": len(test)}
        for name, sure in (
            ("margin", np.abs(margins)),
            ("margin / deviation", np.abs(margins) / deviations),
            ("random", np.random.RandomState(0).rand(len(test))),
        ):
            order = np.argsort(-sure)
            found[f"accuracy by {name}"] = {
                share: round(float((margins[order[: round(share * len(test))]] > 0).mean()), 4)
                for share in SHARES
            }
        rows: list[tuple[Any, Any, Any]] = []  # values, rewards, deviations of each conversation
        for group in np.unique(pairs.groups[test]):
            own = np.flatnonzero(pairs.groups[test] == group)
            X, index = np.unique(
                np.concatenate([first[own], second[own]]), axis=0, return_inverse=True
            )
            if len(X) < 3:
                continue
            wins = np.bincount(index[: len(own)], minlength=len(X))
            value = wins / np.bincount(index.ravel(), minlength=len(X))
            spread = {"among": curvature.deviation_among(X), "alone": curvature.deviation_on(X)}
            rows.append((value, network.forward(X)[:, 0], spread))
        if rows:
            sizes, by_chance = zip(*((len(v), v.mean()) for v, *_ in rows), strict=True)
            found |= {"prompts": len(rows), "replies": round(float(np.mean(sizes)), 2)}
            found["best of n, by chance"] = round(float(np.mean(by_chance)), 4)
            half = np.random.RandomState(0).permutation(len(rows)) % 2 == 0
            for name in ("among", "alone"):
                chosen = {
                    kappa: np.array([v[np.argmax(r - kappa * d[name])] for v, r, d in rows])
                    for kappa in KAPPAS
                }
                kept = max(KAPPAS, key=lambda kappa, c=chosen: c[kappa][half].mean())
                change = (chosen[kept] - chosen[0.0])[~half]
                found[f"best of n, {name}"] = {
                    "all": {k: round(float(v.mean()), 4) for k, v in chosen.items()},
                    "kappa of one half": kept,
                    "other half, kappa 0": round(float(chosen[0.0][~half].mean()), 4),
                    "other half, this kappa": round(float(chosen[kept][~half].mean()), 4),
                    "standard error of the change": round(
                        float(change.std(ddof=1) / len(change) ** 0.5), 4
                    ),
                }
        print(found, file=sys.stderr, flush=True)
        append(arguments.out, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("pessimism.jsonl"))
    parser.add_argument("--limit", type=int, default=1000, help="pairs to fit, at most")
    return parser.parse_args()


if __name__ == "__main__":
    main()
