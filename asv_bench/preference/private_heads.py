"""What does privacy cost a preference head? Held-out accuracy against epsilon.

``python asv_bench/preference/private_heads.py FILE.npz ... --out private_heads.jsonl`` with files
of ``embeddings.py --layers``, whose last layer is used. A line is the mean over draws of the noise.
``--factors`` tries other strengths than the default, whose factor is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from heads import load

from asv_bench.raw_results import append
from cvxnn import COALAPreferenceHead, LinearPreferenceHead, PrivatePreferenceHead


def main() -> None:
    arguments = _arguments()
    for path in arguments.files:
        data = load(path)
        pairs = data.pairs.columns(list(data.layers.values())[-2])
        train, test = data.parts[0]
        won, lost, groups = pairs.chosen[train], pairs.rejected[train], pairs.groups[train]
        first, second = pairs.chosen[test], pairs.rejected[test]
        common = {"set": path.stem, "n": len(train), "n_test": len(test)}
        for head in (LinearPreferenceHead(), COALAPreferenceHead(random_state=0)):
            head.fit_pairs(won, lost, groups=groups)
            right = float((head.reward_margin(first, second) > 0).mean())
            report(arguments.out, {**common, "head": type(head).__name__, "accuracy": right})
        for loss in arguments.losses:
            for n_gates in arguments.gates:
                for epsilon in arguments.epsilons:
                    for factor in arguments.factors:
                        settings = {"epsilon": epsilon, "loss": loss, "n_gates": n_gates}
                        found = measure(settings, factor, (won, lost), (first, second), arguments)
                        report(arguments.out, {**common, **settings, **found})


def measure(settings, factor, fitted, tested, arguments):  # type: ignore[no-untyped-def]
    """Fit with several draws of the noise."""
    accuracy, cpu = [], time.process_time()
    for draw in range(arguments.draws):
        head = PrivatePreferenceHead(**settings, noise_state=draw)
        if factor != 1:
            width = fitted[0].shape[1] * settings["n_gates"]
            head.set_params(alpha=factor * head._strength(width, 0.25))
        head.fit_pairs(*fitted)
        accuracy.append((head.reward_margin(*tested) > 0).mean())
    return {
        "head": "PrivatePreferenceHead",
        "factor": factor,
        "alpha": round(head.alpha_, 3),
        "noise": round(head.noise_, 3),
        "accuracy": round(float(np.mean(accuracy)), 4),
        "spread": round(float(np.std(accuracy)), 4),
        "cpu_s": round((time.process_time() - cpu) / arguments.draws, 2),
    }


def report(out: Path, found: dict) -> None:
    print(found, file=sys.stderr, flush=True)
    append(out, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of pairs")
    parser.add_argument("--out", type=Path, default=Path("private_heads.jsonl"))
    numbers = {"type": float, "nargs": "+"}
    parser.add_argument("--epsilons", default=[0.5, 1.0, 2.0, 4.0, 8.0], **numbers)
    parser.add_argument("--factors", default=[1.0], **numbers)
    parser.add_argument("--gates", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--losses", nargs="+", default=["logistic"])
    parser.add_argument("--draws", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
