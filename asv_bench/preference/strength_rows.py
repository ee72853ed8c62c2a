"""On how many pairs should a head choose its strength? ``strength_rows.py FILE.npz ...``.

The default head on one layer of the embeddings of ``embeddings.py``, with its strength chosen on at
most 1,024 pairs by exact leave-out of groups, and on a quarter of the pairs, 2,048 to 4,096, by
folds of groups. A record for each way and seed.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench.raw_results import Record, append, read

WAYS: dict[str, int | None] = {"1,024 pairs": 1024, "folds": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("strength_rows.jsonl"))
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    done = {(r["set"], r["way"], r["seed"]) for r in read(arguments.out)}
    for path in arguments.files:
        for seed in range(arguments.seeds):
            for way in WAYS:
                if (path.stem, way, seed) not in done:
                    found = measure(path, WAYS[way], seed)
                    append(arguments.out, {"set": path.stem, "way": way, "seed": seed, **found})


def measure(path: Path, most: int | None, seed: int) -> Record:
    """Fit the head once and rank the test pairs."""
    from heads import load

    from cvxnn import COALAPreferenceHead
    from cvxnn.estimators import _pair_program

    data = load(path)
    (train, test), own = data.parts[0], list(data.layers.values())[-2]
    pairs = data.pairs.columns(own)
    seen, new = pairs.take(train), pairs.take(test)
    model: Any = COALAPreferenceHead(random_state=seed)
    before, _pair_program._MOST_PAIRS = _pair_program._MOST_PAIRS, most
    began = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit_pairs(seen.chosen, seen.rejected, groups=seen.groups)
    finally:
        _pair_program._MOST_PAIRS = before
    cpu_s = time.process_time() - began
    margins = model.reward(new.chosen) - model.reward(new.rejected)
    return {
        "n": len(train),
        "strength": float(model.strength_),
        "accuracy": float(np.mean((margins > 0) + (margins == 0) / 2)),
        "log_loss": float(np.logaddexp(0, -margins).mean()),
        "cpu_s": round(cpu_s, 2),
    }


if __name__ == "__main__":
    main()
