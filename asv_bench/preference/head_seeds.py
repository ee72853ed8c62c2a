"""How much of a head's test accuracy is the luck of its seed?

``python asv_bench/preference/head_seeds.py FILE.npz ... --out head_seeds.jsonl`` with files of
``embeddings.py --layers``. ``gated_layers`` of ``heads.py`` with one seed after the other, which
draws gates and the pairs on which strengths are chosen; then with equal factors of all layers, so
that what the choice of factors does is seen. A line is a fit; what is there is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from heads import load

from asv_bench.raw_results import append, read
from cvxnn import COALAPreferenceHead


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("head_seeds.jsonl"))
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    done = {(r["set"], r["factors"], r["seed"]) for r in read(options.out)}
    for path in options.files:
        data = load(path)
        (train, test), width = data.parts[0], data.pairs.d
        fitted, tested = data.pairs.take(train), data.pairs.take(test)
        layers = [width] * (fitted.chosen.shape[1] // width)
        for factors, blocks in (("chosen", layers), ("equal", None)):
            for seed in range(options.seeds):
                if (path.stem, factors, seed) in done:
                    continue
                cpu = time.process_time()
                head = COALAPreferenceHead(blocks=blocks, random_state=seed)
                head.fit_pairs(fitted.chosen, fitted.rejected, groups=fitted.groups)
                cpu = time.process_time() - cpu
                margins = head.reward_margin(tested.chosen, tested.rejected)
                found = {
                    "set": path.stem,
                    "factors": factors,
                    "seed": seed,
                    "n": len(train),
                    "n_test": len(test),
                    "accuracy": float(np.mean((margins > 0) + (margins == 0) / 2)),
                    "strength": float(f"{head.strength_:.4g}"),
                    "block_factors": np.round(getattr(head, "block_factors_", [1, 1]), 4).tolist(),
                    "cpu_s": round(cpu, 2),
                }
                print(found, file=sys.stderr, flush=True)
                append(options.out, found)


if __name__ == "__main__":
    main()
