"""The front between several kinds of pairs, beside heads that were fitted to one of them.

``python asv_bench/preference/trade_offs.py FIRST.npz SECOND.npz ... --out trade_offs.jsonl`` with
files of ``embeddings.py --layers``, whose last layer is used: held-out accuracy on the pairs of
each. Of two files the weights go from one to the other; of more, each gets all, half or its share
of the weight. ``--within T`` adds the head of least loss in each kind, of those that keep the
losses of the others to T.
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
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("trade_offs.jsonl"))
    parser.add_argument("--limit", type=int, help="first pairs of each file that are fitted to")
    parser.add_argument("--within", type=float, help="largest loss of the other kinds")
    options = parser.parse_args()
    names = [path.stem for path in options.files]
    fitted, tested = [], []
    for path in options.files:
        data = load(path)
        pairs = data.pairs.columns(list(data.layers.values())[-2])
        train, test = data.parts[0]
        for rows, parts in ((train[: options.limit], fitted), (test, tested)):
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
    for what, weights in weightings(names).items():
        cpu = time.process_time()
        point = front.at(weights)
        report(options.out, what, point, tested, time.process_time() - cpu, names=front.names)
    for name in names if options.within else ():
        cpu = time.process_time()
        point = front.within(name, {other: options.within for other in names if other != name})
        what = f"least loss of {name}, {options.within:g} for others"
        report(options.out, what, point, tested, time.process_time() - cpu, names=front.names)


def weightings(names: list[str]) -> dict[str, dict[str, float]]:
    """Points of the front and the weights of their objectives."""
    if len(names) == 2:
        return {f"weight {w} of {names[1]}": {names[0]: 1 - w, names[1]: w} for w in WEIGHTS}
    others = 0.5 / (len(names) - 1)
    return {
        "equal weights": dict.fromkeys(names, 1.0),
        **{f"weight 1 of {name}": dict.fromkeys(names, 0.0) | {name: 1.0} for name in names},
        **{f"weight 0.5 of {name}": dict.fromkeys(names, others) | {name: 0.5} for name in names},
    }


def report(out, what, head, tested, cpu=0.0, names=()):  # type: ignore[no-untyped-def]
    found = {
        "head": what,
        "accuracy": [round(float((head.reward_margin(*p) > 0).mean()), 4) for p in tested],
        "n_test": [len(p[0]) for p in tested],
        "objectives": [str(name) for name in names],
        "losses": [round(float(x), 5) for x in getattr(head, "losses_", [])],
        "prices": [round(float(x), 5) for x in getattr(head, "prices_", [])],
        "gap": float(head.gap_),
        "cpu_s": round(cpu, 2),
    }
    print(found, file=sys.stderr, flush=True)
    append(out, found)


if __name__ == "__main__":
    main()
