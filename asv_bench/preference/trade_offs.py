"""The front between helpful and harmless, beside heads that were fitted to one of them.

``python asv_bench/preference/trade_offs.py FIRST.npz SECOND.npz --out trade_offs.jsonl`` with files
of ``embeddings.py --layers``, whose last layer is used: held-out accuracy on the pairs of each.
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

WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs=2)
    parser.add_argument("--out", type=Path, default=Path("trade_offs.jsonl"))
    options = parser.parse_args()
    names = [path.stem for path in options.files]
    fitted, tested = [], []
    for path in options.files:
        data = load(path)
        pairs = data.pairs.columns(list(data.layers.values())[-2])
        for rows, parts in zip(data.parts[0], (fitted, tested), strict=True):
            parts.append((pairs.chosen[rows], pairs.rejected[rows]))
    for k, pairs in enumerate(fitted):
        report(
            options.out,
            f"fitted to {names[k]}",
            COALAPreferenceHead(random_state=0).fit_pairs(*pairs),
            tested,
        )
    chosen, rejected = (np.concatenate(part) for part in zip(*fitted, strict=True))
    cpu = time.process_time()
    head = COALAPreferenceHead(random_state=0).fit_pairs(chosen, rejected)
    report(options.out, "fitted to all", head, tested, time.process_time() - cpu)
    label = np.repeat(names, [len(pairs[0]) for pairs in fitted])
    cpu = time.process_time()
    front = head.trade_off(
        np.concatenate([chosen, rejected]), np.repeat([1, 0], len(chosen)), np.tile(label, 2)
    )
    report(options.out, "kernel of the front", head, tested, time.process_time() - cpu)
    for weight in WEIGHTS:
        cpu = time.process_time()
        point = front.at({names[0]: 1 - weight, names[1]: weight})
        cpu = time.process_time() - cpu
        report(options.out, f"weight {weight} of {names[1]}", point, tested, cpu)


def report(out, what, head, tested, cpu=0.0):  # type: ignore[no-untyped-def]
    found = {
        "head": what,
        "accuracy": [round(float((head.reward_margin(*p) > 0).mean()), 4) for p in tested],
        "n_test": [len(p[0]) for p in tested],
        "losses": [round(float(x), 5) for x in getattr(head, "losses_", [])],
        "gap": float(head.gap_),
        "cpu_s": round(cpu, 2),
    }
    print(found, file=sys.stderr, flush=True)
    append(out, found)


if __name__ == "__main__":
    main()
