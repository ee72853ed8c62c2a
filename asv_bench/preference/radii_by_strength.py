"""What does a stronger penalty buy in certified radii, and what does it cost in accuracy?

``python asv_bench/preference/radii_by_strength.py FILE.npz ... --out radii_by_strength.jsonl`` with
files of ``embeddings.py --layers``. Gated heads with multiples of the automatic strength; radii of
held-out pairs in units of the distance between the two replies, as in ``radii.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from heads import load

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead
from cvxnn.explanation import ranking_radius


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("radii_by_strength.jsonl"))
    parser.add_argument("--limit", type=int, default=1000, help="pairs to fit and to test, at most")
    arguments = parser.parse_args()
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.columns(next(iter(data.layers.values())))
        train, test = (
            np.random.RandomState(0).permutation(part)[: arguments.limit] for part in data.parts[0]
        )
        won, lost, groups = pairs.chosen[train], pairs.rejected[train], pairs.groups[train]
        first, second = pairs.chosen[test], pairs.rejected[test]
        apart = np.linalg.norm(first.astype(float) - second, axis=1)
        automatic = COALAPreferenceHead(n_patterns=64, random_state=0)
        automatic.fit_pairs(won, lost, groups=groups)
        for times in (0.1, 1, 10, 100, 1000):
            strength = times * float(automatic.strength_)
            head = COALAPreferenceHead(n_patterns=64, strength=strength, random_state=0)
            head.fit_pairs(won, lost, groups=groups)
            radius = ranking_radius(head.network_, first, second)
            right = head.reward_margin(first, second) > 0
            parts = (radius / np.maximum(apart, 1e-12))[apart > 0]
            found = {
                "set": path.stem,
                "n": len(train),
                "times": times,
                "strength": float(f"{strength:.3g}"),
                "accuracy": round(float(right.mean()), 4),
                "quartiles": [round(float(q), 5) for q in np.quantile(parts, [0.25, 0.5, 0.75])],
                "right_within_0.01": round(float((right & (radius > 0.01 * apart)).mean()), 4),
                "right_within_0.03": round(float((right & (radius > 0.03 * apart)).mean()), 4),
            }
            print(found, file=sys.stderr, flush=True)
            append(arguments.out, found)


if __name__ == "__main__":
    main()
