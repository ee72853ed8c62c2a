"""Strategies of joint post-training on a language model: ``python joint_llm.py --help``.

    python joint_llm.py run --preferences hh.jsonl.gz --supervised sft.jsonl.gz --out runs.jsonl
    python joint_llm.py table runs.jsonl
    python joint_llm.py stops runs.jsonl --excess 0.01

LoRA fine-tuning for DPO and for demonstrations at once, or one after the other, for one trade-off
or several. Losses are the two objectives themselves: over all training data, as in the paper's
figure 3, or with `--held-out N` over N pairs and N replies that nothing was trained on. Each
training is a process of its own, so that its peak memory is its own, and a line of the `--out`
file. What is there is not run again, and one that was killed goes on. Operations are counted for
seed 0 alone: on a GPU, counting takes about as long as a step of a small model. `stops` says when
the stopping rule of appendix B.2 would have ended the runs: near the front of ALRIGHT.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import mean, stdev
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
from dpo_runs import Uncounted

from asv_bench.raw_results import append, read
from cvxnn.costs import operations
from cvxnn.joint import percentage_increase, reference_front
from cvxnn.llm import FineTuningConfig, LanguageModel, fine_tune, load_model
from cvxnn.preference import PreferenceTriplet, read_preferences
from cvxnn.preference.row_files import read_rows

T = TypeVar("T")

# The single ones come first: their losses are the optima that MAXRIGHT needs.
RUNS: dict[str, dict[str, Any]] = {
    "dpo alone": {"lam": 1.0, "strategy": "sequential"},
    "sft alone": {"lam": 0.0, "strategy": "sequential"},
    "sequential": {"strategy": "sequential"},
    "sequential, sft first": {"strategy": "sequential", "supervised_first": True},
    "mix": {"strategy": "mix"},
    "alright": {"strategy": "alright"},
    "maxright": {"strategy": "maxright", "max_evaluation_steps": 1},
    "maxright, every 5": {"strategy": "maxright", "max_evaluation_steps": 5},
}
LOSSES = "eval_loss", "eval_loss/supervised"


def main() -> None:
    options = arguments()
    if options.command == "table":
        print(table(read(options.out)))
        return
    if options.command == "stops":
        print(stops(read(options.out), options.excess))
        return
    if options.only is not None:
        name, lam, seed = options.only
        append(options.out, train(name, float(lam), int(seed), options))
        return
    done = {(r["run"], r["lam"], r["seed"]) for r in read(options.out)}
    for seed in range(options.seeds):
        for lam, name in ((lam, name) for lam in options.lam for name in options.runs):
            lam = RUNS[name].get("lam", lam)  # a single objective has one run
            if (name, lam, seed) not in done:
                only = ["--only", name, str(lam), str(seed)]
                subprocess.run([sys.executable, __file__, *sys.argv[1:], *only], check=True)
                done.add((name, lam, seed))


def train(name: str, lam: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune by one strategy, and tell how it ended and what it cost."""
    lm = load_model(options.model, cache_dir=options.cache)
    pairs, replies = data(lm, options)
    n = options.held_out
    kept_pairs, kept_replies = (pairs[:n], replies[:n]) if n else (pairs, replies)
    pairs, replies = pairs[n:], replies[n:]
    settings: dict[str, Any] = {"lam": lam, "steps": options.steps, **RUNS[name]}
    if name == "mix":  # a step of it takes as much data as two of the others
        settings["steps"] = options.steps // 2
    if name.startswith("maxright"):
        settings |= optima(read(options.out), seed)
    config = FineTuningConfig(
        **settings,
        learning_rate=options.learning_rate,
        warmup_steps=0,
        micro_batch=options.micro_batch,
        accumulation=options.batch // options.micro_batch,
        max_length=options.tokens,
        evaluate_every=max(settings["steps"] // 2, 1),
        checkpoint_every=4,
        seed=seed,
    )
    folder = options.folder / f"{name} {lam} {seed}".replace(", ", " ").replace(" ", "_")
    share_reference(options.folder, folder)
    counted = seed == 0
    with nullcontext() if counted else patch.object(operations, "OperationCounter", Uncounted):
        found = fine_tune(
            lm,
            config,
            preferences=pairs,
            supervised=replies,
            held_out=kept_pairs,  # evaluated as they are, without dropout
            held_out_supervised=kept_replies,
            folder=folder,
            progress=True,
        )
    last = found.history[-1]
    cost = dict(found.costs["train"])
    if not counted:
        del cost["flops"]
    return {
        "run": name,
        "seed": seed,
        "lam": config.lam,
        "steps": settings["steps"],
        "losses": [last[key] for key in LOSSES],
        "first": [found.history[0][key] for key in LOSSES],
        "trained": [trained_loss(found.history, side) for side in ("preference", "supervised")],
        "rows": {
            "pairs": len(pairs),
            "replies": len(replies),
            "held-out pairs": n,
            "held-out replies": n,
            "tokens": options.tokens,
        },
        "accuracy": last["eval_rewards/accuracies"],
        "course": [
            [entry["step"], *(entry[key] for key in LOSSES)]
            for entry in found.history
            if LOSSES[0] in entry
        ],
        "chosen": "".join(
            "ps"["loss/supervised" in entry] if "loss/preference" not in entry else "p"
            for entry in found.history[1:]
        ),
        "train": cost,
        "device": str(lm.device),
        "dtype": str(lm.dtype),
    }


def share_reference(folders: Path, mine: Path) -> None:
    """Give a new run the log-probabilities of the reference from a run that has them."""
    mine.mkdir(parents=True, exist_ok=True)
    for known in folders.glob("*/reference.sqlite"):
        if not (mine / known.name).exists():
            shutil.copy(known, mine)


def trained_loss(history: list[dict[str, float]], side: str) -> float | None:
    """Mean loss of the batches in the last quarter of the steps; None without any of this side."""
    steps = [entry for entry in history if "loss" in entry]
    late = [entry for entry in steps if entry["step"] > 0.75 * steps[-1]["step"]]
    values = [entry[f"loss/{side}"] for entry in late if f"loss/{side}" in entry]
    return mean(values) if values else None


def optima(records: list[dict[str, Any]], seed: int) -> dict[str, float]:
    """What training for one objective alone reached on the rows that were trained on."""
    key = "trained" if any(r.get("rows", {}).get("held-out pairs") for r in records) else "losses"
    alone = {r["run"]: r[key] for r in records if r["seed"] == seed}
    try:
        return {
            "preference_optimum": alone["dpo alone"][0],
            "supervised_optimum": alone["sft alone"][1],
        }
    except KeyError as missing:
        sys.exit(f"error: {missing} of seed {seed} is needed first; run it, then maxright.")


def data(
    lm: LanguageModel, options: argparse.Namespace
) -> tuple[list[PreferenceTriplet], list[tuple[str, str]]]:
    """Pairs and demonstrations that fit, in an order of their own."""
    rng = np.random.default_rng(0)

    def fits(prompt: str, *texts: str) -> bool:
        [start] = lm.encode_prompts([prompt])
        longest = max(len(tokens) for tokens in lm.encode_responses(texts))
        return len(start) + longest < options.tokens

    pairs = read_preferences(options.preferences)
    more = options.held_out
    pairs = take(pairs, options.pairs + more, rng, lambda p: fits(p.prompt, p.chosen, p.rejected))
    rows = [(row["prompt"], row["response"]) for _, row in read_rows(options.supervised)]
    return pairs, take(rows, options.replies + more, rng, lambda row: fits(*row))


def take(
    rows: Sequence[T], n: int, rng: np.random.Generator, wanted: Callable[[T], bool]
) -> list[T]:
    found: list[T] = []
    for k in rng.permutation(len(rows)):
        if len(found) == n:
            return found
        if wanted(rows[k]):
            found.append(rows[k])
    sys.exit(f"error: {len(found)} rows fit --tokens, {n} are asked for; raise it, or ask for less")


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation over seeds; costs relative to Sequential's."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        single = "lam" in RUNS[record["run"]]
        name = record["run"] if single else f"{record['run']}, lambda {record['lam']:g}"
        runs[name].append(record)
    best = [min(mean(r["losses"][k] for r in found) for found in runs.values()) for k in (0, 1)]
    base = [r for r in records if r["run"] == "sequential"]
    before = records[0]["first"]  # of the given model
    columns = "run", "DPO loss", "SFT loss", "ideal distance", "pair accuracy"
    columns += "FLOPs a step, %", "memory, %"
    lines = [
        f"before training: DPO loss {before[0]:.3f}, SFT loss {before[1]:.3f}\n",
        "| " + " | ".join(columns) + " |",
        "| --- " * len(columns) + "|",
    ]
    for name, found in runs.items():
        distances = [float(np.hypot(*np.subtract(r["losses"], best))) for r in found]
        shown = [[r["losses"][0] for r in found], [r["losses"][1] for r in found], distances]
        shown.append([r["accuracy"] for r in found])
        cells = [name, *(spread(values) for values in shown)]
        for key in ("flops", "peak_bytes"):
            cells.append(f"{relative(found, base, key):+.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stops(records: list[dict[str, Any]], excess: float) -> str:
    """Markdown: the part of its steps after which a run is near the ends of ALRIGHT's runs.

    Near are both objectives within a fraction of that front, of means over seeds, at one of the
    evaluations of a run.
    """
    ends: dict[float, list[list[float]]] = defaultdict(list)
    for record in records:
        if record["run"] == "alright":
            ends[record["lam"]].append(record["losses"])
    front = reference_front(list(ends), *np.transpose([np.mean(e, axis=0) for e in ends.values()]))
    lines = ["| run | seed | steps | near after | excess at the end |", "| --- " * 5 + "|"]
    for record in records:
        course = record["course"]
        near = [step for step, *losses in course if front.excess(*losses) <= excess]
        name = f"{record['run']}, lambda {record['lam']:g}"
        cells = [name, record["seed"], course[-1][0], near[0] if near else "-"]
        cells.append(f"{100 * float(front.excess(*record['losses'])):+.1f} %")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def relative(mine: list[dict[str, Any]], theirs: list[dict[str, Any]], key: str) -> float:
    def cost(records: list[dict[str, Any]]) -> float:
        known = [r for r in records if key in r["train"]]
        costs = [r["train"][key] / (r["steps"] if key == "flops" else 1) for r in known]
        return mean(costs) if costs else float("nan")

    return percentage_increase(cost(mine), cost(theirs)) if theirs else float("nan")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("table", help="print what was found")
    show.add_argument("out", type=Path)
    stop = commands.add_parser("stops", help="say when runs come near the front of ALRIGHT")
    stop.add_argument("out", type=Path)
    stop.add_argument("--excess", type=float, default=0.01)
    run = commands.add_parser("run", help="train")
    run.add_argument("--preferences", type=Path, required=True)
    run.add_argument("--supervised", type=Path, required=True, help="rows of prompt and response")
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--folder", type=Path, default=Path("joint_llm"), help="of checkpoints")
    run.add_argument("--model", help="as load_model takes it")
    run.add_argument("--cache", type=Path, help="folder of converted models")
    run.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--lam", type=float, nargs="+", default=[0.5])
    run.add_argument("--steps", type=int, default=24)
    run.add_argument("--batch", type=int, default=8, help="rows of a step")
    run.add_argument("--micro-batch", type=int, default=4, help="rows at once, a part of them")
    run.add_argument("--learning-rate", type=float, default=1e-3)
    run.add_argument("--pairs", type=int, default=24)
    run.add_argument("--replies", type=int, default=48)
    run.add_argument("--tokens", type=int, default=64, help="longest prompt and response")
    text = "rows of each kind that are only evaluated; 0: those trained on"
    run.add_argument("--held-out", type=int, default=0, help=text)
    run.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
