"""Joint post-training on frozen features, held out: ``python joint_held_out.py --help``.

    python joint_held_out.py --data DIR --pairs hh_helpful.npz --cache FOLDER --out FILE

``FILE.npz`` of pairs comes from ``embeddings.py NAME --layers 3,6``, and ``DIR`` has
``sft.jsonl.gz``. For each seed, as many pairs and demonstrations as ``--rows`` says are drawn to
learn from, and half as many others to test on; a demonstration is the right one of eight replies,
seven of which belong to other prompts. A line is one strategy, trade-off and seed: both objectives
on the data that were learnt from, and on those that were not, without the ridge, and the share of
held-out pairs that the implied reward ranks correctly. The table of means goes to stdout.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from embeddings import layer_means
from embeddings import read as read_texts
from joint_features import describe, draw
from joint_study import METHODS

from asv_bench.raw_results import append, read
from cvxnn.convex import TrustRegionNewton, solve
from cvxnn.joint import (
    CandidateSets,
    JointProblem,
    bradley_terry_objective,
    dpo_objective,
    post_train,
    sft_objective,
)

LAMBDAS = (0.25, 0.5, 0.75)
STRATEGIES = (
    "exact",
    "sequential",
    "mix",
    "alright",
    "maxright, every 10",
)
ALONE = {"DPO alone": 1.0, "SFT alone": 0.0}
LAYER = -1  # of those in the file of pairs
N_TOKENS = 48  # of demonstrations: the last ones of a prompt, the first ones of a reply
LOSSES = ("dpo", "sft", "held_dpo", "held_sft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True, help="file of embeddings.py --layers")
    parser.add_argument("--cache", type=Path, required=True, help="keeps the demonstrations")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500, help="pairs, and demonstrations")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--ridge", type=float, default=1e-2)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for seed in range(options.seeds):
        for record in runs(options, seed):
            append(options.out, {"seed": seed, "rows": options.rows, **record})
    print(table(read(options.out)))


def runs(options: argparse.Namespace, seed: int) -> Iterator[dict[str, Any]]:
    """Train by each strategy for each trade-off, and measure both objectives."""
    parts = [pairs(options, part, seed) for part in ("train", "test")]
    sets = demonstrations(options, seed)
    first = bradley_terry_objective(*parts[0], ridge=options.ridge)
    reference = solve(first, TrustRegionNewton(), start=np.zeros(first.n_features)).weights
    shared = {"reference": reference, "beta": options.beta}
    problem = JointProblem(
        dpo=dpo_objective(*parts[0], **shared, ridge=options.ridge),
        sft=sft_objective(*sets[0], ridge=options.ridge),
    )
    plain = [
        (dpo_objective(*p, **shared), sft_objective(*s)) for p, s in zip(parts, sets, strict=True)
    ]
    held_out = parts[1][0] - parts[1][1]

    def measured(theta: np.ndarray) -> dict[str, float]:
        values = [float(each.values(theta[None])[0]) for both in plain for each in both]
        ranked = held_out @ (theta - reference) > 0
        return {**dict(zip(LOSSES, values, strict=True)), "accuracy": float(ranked.mean())}

    yield {"method": "reference", "lam": None, **measured(reference)}
    for name, lam in ALONE.items():
        yield {"method": name, "lam": lam, **measured(problem.optimum(lam).weights)}
    for lam in LAMBDAS:
        for method in STRATEGIES:
            if method == "exact":
                yield {"method": method, "lam": lam, **measured(problem.optimum(lam).weights)}
                continue
            run = post_train(
                problem,
                lam=lam,
                n_steps=options.steps,
                batch_size=options.batch,
                seed=seed,
                **METHODS[method],
            )
            cost = {"cpu_time": run.cpu_time, "status": run.status}
            yield {"method": method, "lam": lam, **measured(run.theta), **cost}


def pairs(options: argparse.Namespace, part: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of the chosen and of the rejected replies."""
    with np.load(options.pairs) as arrays:
        rng = np.random.default_rng([seed, part == "test"])
        n = options.rows if part == "train" else options.rows // 2
        rows = rng.permutation(len(arrays[f"{part}_prompt"]))[:n]
        prompts = unit(arrays["prompts"][:, LAYER])[arrays[f"{part}_prompt"][rows]]
        replies = unit(arrays["responses"][:, LAYER])
        chosen, rejected = (replies[arrays[f"{part}_{k}"][rows]] for k in ("chosen", "rejected"))
    return describe(prompts, chosen), describe(prompts, rejected)


def demonstrations(
    options: argparse.Namespace, seed: int
) -> list[tuple[CandidateSets, np.ndarray]]:
    """Candidates with the places of the right ones, to learn from and held out."""
    path = options.cache / f"demonstrations_{options.rows}.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        rows = draw(read_texts(options.data / "sft.jsonl.gz"), 3 * options.rows // 2, rng)
        ends = {"prompt": slice(-N_TOKENS, None), "response": slice(N_TOKENS)}
        layer = [6]
        found = {k: layer_means([r[k] for r in rows], None, layer, end) for k, end in ends.items()}
        np.savez(path, **found)
    with np.load(path) as arrays:
        asked, answers = (unit(arrays[name][:, 0]) for name in ("prompt", "response"))
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(len(asked))
    return [
        candidates(asked[rows], answers[rows], options.candidates, rng)
        for rows in (order[: options.rows], order[options.rows :])
    ]


def candidates(
    asked: np.ndarray, answers: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[CandidateSets, np.ndarray]:
    """Each reply among replies to other prompts, at a place of its own."""
    places = rng.integers(n, size=len(asked))
    found = []
    for k, place in enumerate(places):
        others = rng.choice(np.delete(np.arange(len(asked)), k), n - 1, replace=False)
        found.append(describe(asked[k], answers[np.insert(others, place, k)]))
    return CandidateSets.stack(np.array(found)), places


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: means and standard deviations over seeds."""
    groups: dict[tuple[Any, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["lam"], record["method"]].append(record)
    lines = [
        "| method | lambda | DPO | SFT | held-out DPO | held-out SFT | held-out pairs |",
        "| --- " * 7 + "|",
    ]
    for (lam, method), found in groups.items():
        cells = [method, "" if lam is None else f"{lam:g}"]
        cells += [spread([r[key] for r in found]) for key in (*LOSSES, "accuracy")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
