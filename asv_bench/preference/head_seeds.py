"""How much of a head's test accuracy is the luck of its seed?

``python asv_bench/preference/head_seeds.py FILE.npz ... --out head_seeds.jsonl`` with files of
``embeddings.py --layers``. ``gated_layers`` of ``heads.py`` with one seed after the other, which
draws gates and the pairs on which strengths are chosen, and equal factors of all layers beside it.
``--gains`` are the parts of the error by which unequal factors have to be better. A line is a fit;
what is there is not run again.
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
from cvxnn.training import feature_blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("head_seeds.jsonl"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--gains", type=float, nargs="+", default=[feature_blocks._LEAST_GAIN])
    options = parser.parse_args()
    done = {(r["set"], r["factors"], r["seed"]) for r in read(options.out)}
    for path in options.files:
        data = load(path)
        (train, test), width = data.parts[0], data.pairs.d
        fitted, tested = data.pairs.take(train), data.pairs.take(test)
        layers = [width] * (fitted.chosen.shape[1] // width)
        for seed in range(options.seeds):
            for gain in (*options.gains, None):
                factors = "equal" if gain is None else f"gain of {gain:g}"
                if (path.stem, factors, seed) in done:
                    continue
                feature_blocks._LEAST_GAIN = gain or 0.0
                blocks = None if gain is None else layers
                cpu = time.process_time()
                head = COALAPreferenceHead(blocks=blocks, random_state=seed)
                head.fit_pairs(fitted.chosen, fitted.rejected, groups=fitted.groups)
                cpu = time.process_time() - cpu
                won, lost = map(head.decision_function, (tested.chosen, tested.rejected))
                margins = won - lost
                found = {
                    "set": path.stem,
                    "factors": factors,
                    "seed": seed,
                    "n": len(train),
                    "n_test": len(test),
                    "accuracy": float(np.mean((margins > 0) + (margins == 0) / 2)),
                    "log_loss": round(float(np.logaddexp(0, -margins).mean()), 5),
                    "strength": float(f"{head.strength_:.4g}"),
                    "block_factors": np.round(getattr(head, "block_factors_", [1, 1]), 4).tolist(),
                    "cpu_s": round(cpu, 2),
                }
                print(found, file=sys.stderr, flush=True)
                append(options.out, found)


if __name__ == "__main__":
    main()
