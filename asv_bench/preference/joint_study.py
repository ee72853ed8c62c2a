"""Strategies of joint post-training against the exact front: ``python joint_study.py --help``.

For each feature set and trade-off: how far from the certified optimum each strategy ends, how far
from the front, from the ideal point, and what a step costs. One JSON line a run; the table of means
goes to stdout. Set OMP_NUM_THREADS=1: the problems are small.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from joint_features import ENCODERS, PAIRINGS, build

from asv_bench.raw_results import append
from cvxnn.convex import TrustRegionNewton, solve
from cvxnn.joint import (
    CandidateSets,
    JointProblem,
    balanced_optimum,
    bradley_terry_objective,
    dpo_objective,
    pareto_front,
    percentage_increase,
    post_train,
    sft_objective,
)

LAMBDAS = (0.01, 0.25, 0.5, 0.75, 0.99)
METHODS: dict[str, dict[str, Any]] = {
    "sequential": {"strategy": "sequential"},
    "sequential, sft first": {"strategy": "sequential", "order": "sft-dpo"},
    "mix": {"strategy": "mix"},
    "alright": {"strategy": "alright"},
    "maxright": {"strategy": "maxright"},
    **{
        f"maxright, every {k}": {"strategy": "maxright", "max_evaluation_steps": k}
        for k in (10, 100, 1000)
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the jsonl.gz files")
    parser.add_argument("--encoder", choices=ENCODERS, default="tfidf")
    parser.add_argument("--pairings", nargs="+", choices=list(PAIRINGS), default=list(PAIRINGS))
    parser.add_argument("--cache", type=Path, help="folder for features, to compute them once")
    parser.add_argument("--rows", type=int, default=400, help="pairs, and prompts with a target")
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--ridge", type=float, default=1e-3)
    parser.add_argument("--radius", type=float, default=np.inf)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--timing", action="store_true", help="only compare the cost of a step")
    parser.add_argument("--out", type=Path, default=Path("joint.jsonl"))
    options = parser.parse_args()
    records = []
    for pairing in options.pairings:
        problem = make_problem(features(pairing, options), options)
        about = {"pairing": pairing, "encoder": options.encoder, "batch": options.batch}
        if options.timing:
            costs = timing(problem, options.batch)
            append(options.out, {**about, "method": "timing", "more_than_sequential": costs})
            print(pairing, {name: round(cost, 1) for name, cost in costs.items()})
            continue
        for record in runs(problem, options):
            records.append({**about, **record})
            append(options.out, records[-1])
    if records:
        print(table(records))


def features(pairing: str, options: argparse.Namespace) -> dict[str, np.ndarray]:
    if options.cache is None:
        return build(options.data, pairing, options.encoder, options.rows, options.candidates)
    name = pairing.replace(" + ", "_")
    path = options.cache / f"{name}_{options.encoder}_{options.rows}_{options.candidates}.npz"
    if not path.exists():
        arrays = build(options.data, pairing, options.encoder, options.rows, options.candidates)
        np.savez(path, **arrays)
    with np.load(path) as arrays:
        return dict(arrays)


def make_problem(arrays: dict[str, np.ndarray], options: argparse.Namespace) -> JointProblem:
    """The reference policy is fine-tuned on the chosen responses, as in section 3.1."""
    constraints = {"ridge": options.ridge, "radius": options.radius}
    pairs = arrays["chosen"], arrays["rejected"]
    first = bradley_terry_objective(*pairs, ridge=max(options.ridge, 1e-2), radius=options.radius)
    reference = solve(first, TrustRegionNewton(), start=np.zeros(first.n_features)).weights
    sets = CandidateSets(arrays["candidates"], arrays["offsets"])
    return JointProblem(
        dpo=dpo_objective(*pairs, reference=reference, beta=options.beta, **constraints),
        sft=sft_objective(sets, arrays["targets"], **constraints),
    )


def runs(problem: JointProblem, options: argparse.Namespace) -> list[dict[str, Any]]:
    problem.optimum(0.5)  # what is loaded and allocated once
    fresh = JointProblem(problem.dpo, problem.sft)
    began = time.process_time()
    front = pareto_front(fresh)
    spent = time.process_time() - began
    fine = pareto_front(fresh, np.linspace(0, 1, 101))
    found = [
        {
            "method": "front",
            "seconds": front.seconds,
            "cpu_time": spent,
            "gap": float((front.objective - front.bound).max()),
            "ideal": front.ideal,
        }
    ]
    for lam in LAMBDAS:
        best = fresh.optimum(lam).objective
        balance = balanced_optimum(fresh, lam)
        at = fresh.values(balance.theta)
        found.append(
            {
                "method": "balanced optimum",
                "lam": lam,
                "relative_gap": float(fresh.gap(*at, lam)) / best,
                "excess": float(fine.excess(*at)),
                "ideal_distance": float(fresh.ideal_distance(*at)),
                "max_gap": balance.objective,
            }
        )
        for seed in range(options.seeds):  # methods in turn: what slows the machine slows all
            for method in options.methods:
                run = post_train(
                    fresh,
                    lam=lam,
                    n_steps=options.steps,
                    batch_size=options.batch,
                    seed=seed,
                    **METHODS[method],
                )
                dpo, sft = run.dpo[-1], run.sft[-1]
                found.append(
                    {
                        "method": method,
                        "lam": lam,
                        "seed": seed,
                        "relative_gap": float(fresh.gap(dpo, sft, lam)) / best,
                        "excess": float(fine.excess(dpo, sft)),
                        "ideal_distance": float(fresh.ideal_distance(dpo, sft)),
                        "max_gap": float(fresh.max_gap(dpo, sft, lam)),
                        "runtime": run.runtime,
                        "cpu_time": run.cpu_time,
                        "status": run.status,
                    }
                )
        print(f"lam={lam} done", file=sys.stderr, flush=True)
    return found


def timing(problem: JointProblem, batch: int, repeats: int = 30) -> dict[str, float]:
    """Cost of a step over that of Sequential with as many gradients of each objective, in %.

    The shortest of interleaved runs: the objectives differ in price, and machines in mood.
    """
    methods = {name: METHODS[name] for name in METHODS if "first" not in name}
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    options: dict[str, Any] = {
        "lam": 0.5,
        "n_steps": 500,
        "batch_size": batch,
        "n_records": 1,
        "step": 1.0,
    }
    for _ in range(repeats):
        for name, setting in methods.items():
            run = post_train(problem, **setting, **options)
            both = 0.5 if name == "mix" else run.n_dpo / (run.n_dpo + run.n_sft)
            rival = post_train(problem, "sequential", dpo_share=both, **options)
            spent[name].append((run.cpu_time, rival.cpu_time))
    return {
        name: percentage_increase(*(min(times) for times in zip(*pairs, strict=True)))
        for name, pairs in spent.items()
    }


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: means over seeds, and the shortest runtime relative to Sequential's."""
    lines = []
    for pairing in dict.fromkeys(record["pairing"] for record in records):
        mine = [record for record in records if record["pairing"] == pairing]
        front = next(record for record in mine if record["method"] == "front")
        lines += [
            f"\n{pairing}: 21 certified points in {front['cpu_time']:.2f} s (gap <= "
            f"{front['gap']:.0e})\n",
            "| method | lam | G / f* % | excess % | ideal distance | f_max | cpu s | vs seq % |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        groups: dict[tuple[float, str], list[dict[str, Any]]] = defaultdict(list)
        for record in mine:
            if "lam" in record:
                groups[record["lam"], record["method"]].append(record)
        for (lam, method), group in groups.items():
            means = [
                float(np.mean([each[key] for each in group]))
                for key in ("relative_gap", "excess", "ideal_distance", "max_gap")
            ]
            spent = min((each.get("cpu_time", np.nan) for each in group), default=np.nan)
            rivals = [r["cpu_time"] for r in groups.get((lam, "sequential"), [])]
            more = f"{percentage_increase(spent, min(rivals)):+.0f}" if rivals else ""
            lines.append(
                f"| {method} | {lam} | {100 * means[0]:.2f} | {100 * means[1]:.2f} "
                f"| {means[2]:.4f} | {means[3]:.4f} | {spent:.2f} "
                f"| {more} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
