"""How far may embeddings move before the order of a held-out pair can change?

``python asv_bench/preference/radii.py FILE.npz ... --out radii.jsonl`` with files of
``embeddings.py --layers``: certified radii of a gated head, of one with few gates and of a ReLU
head, in units of the distance between the two replies of the pair, where 1/2 would be the most that
any head can promise to all pairs.
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
from cvxnn.explanation import ranking_radius


def main() -> None:
    arguments = _arguments()
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.columns(next(iter(data.layers.values())))
        train, test = (part[: arguments.limit] for part in data.parts[0])
        for name, settings in (
            ("gated", {}),
            ("gated, 64 gates", {"n_patterns": 64}),
            ("relu", {"formulation": "relu"}),
        ):
            head = COALAPreferenceHead(random_state=0, **settings)
            won, lost = pairs.chosen[train], pairs.rejected[train]
            head.fit_pairs(won, lost, groups=pairs.groups[train])
            first, second = pairs.chosen[test], pairs.rejected[test]
            cpu = time.process_time()
            radius = ranking_radius(head.network_, first, second)
            cpu = time.process_time() - cpu
            apart = np.linalg.norm(first.astype(float) - second, axis=1)
            right = head.reward_margin(first, second) > 0
            parts = (radius / np.maximum(apart, 1e-12))[apart > 0]
            found = {
                "set": path.stem,
                "head": name,
                "n": len(train),
                "n_test": len(test),
                "accuracy": round(float(right.mean()), 4),
                "quartiles": [round(float(q), 5) for q in np.quantile(parts, [0.25, 0.5, 0.75])],
                "right_within_0.01": round(float((right & (radius > 0.01 * apart)).mean()), 4),
                "ms_a_pair": round(1e3 * cpu / len(test), 3),
            }
            print(found, file=sys.stderr, flush=True)
            append(arguments.out, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("radii.jsonl"))
    parser.add_argument("--limit", type=int, default=1000, help="pairs to fit and to test, at most")
    return parser.parse_args()


if __name__ == "__main__":
    main()
