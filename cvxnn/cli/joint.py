"""Fit policies to preferences and demonstrations at once, and measure what each forgets.

There are two modes. PAIRS chooses between them:

  a folder of cvxnn extract   fits policies over its features, in seconds. For each strategy and
                              trade-off a policy is written, which cvxnn generate, score and best
                              take like a head.
  a file of pairs             trains the language model itself by each strategy, by adapters or in
                              all its weights.

DEMONSTRATIONS is a file of rows with "prompt" and "response", or with "messages". In the first mode
each becomes a set of candidates: its reply among replies to other prompts. Some groups of pairs,
and as large a share of the demonstrations, are held out. --report shows both objectives, held out
too, and what each run took.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._messages import counted
from cvxnn._progress import Phases
from cvxnn.cli import joint_tuning
from cvxnn.cli.console import Console
from cvxnn.cli.inputs import embedder_of, required
from cvxnn.cli.joint_data import several, split_demonstrations, write_report
from cvxnn.cli.option_building import OptionGroup, option_from
from cvxnn.cli.option_groups import BATCH, MODEL, add_held_out
from cvxnn.cli.option_types import names_among, real, whole
from cvxnn.files.json_files import made_once
from cvxnn.files.locks import check_folder, check_page

if TYPE_CHECKING:
    from cvxnn.features.pairs import PairFeatures
    from cvxnn.joint.problem import JointProblem
    from cvxnn.joint.trade_offs import ParetoFront
    from cvxnn.preference.demonstrations import CandidateReplies, Demonstration

HELP = "fit policies to preferences and demonstrations at once"
EXAMPLE = (
    "  cvxnn joint features sft.jsonl --lam 0.25,0.5,0.75 --strategy exact,sequential\n"
    "  cvxnn joint pairs.jsonl sft.jsonl --strategy alright,maxright --report joint.html"
)


def _batch_sizes(text: str) -> int | tuple[int, ...]:
    sizes = _whole_numbers(text)
    if len(sizes) not in (1, 2):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of examples nor one of pairs and one of demonstrations, "
            "such as 4,16"
        )
    return sizes[0] if len(sizes) == 1 else sizes


def _periods(text: str) -> int | tuple[int, ...]:
    periods = tuple(dict.fromkeys(_whole_numbers(text)))
    if not periods:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form K,K,... with K at least 1")
    return periods[0] if len(periods) == 1 else periods


def _whole_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of at least 1 in a text; none if anything else is in it."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        return ()
    return numbers if min(numbers) >= 1 else ()


def _trade_offs(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 <= value <= 1 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form L,L,... in [0, 1]")
    return tuple(dict.fromkeys(values))


NOTE = "joint.json"
POLICY = OptionGroup(
    "cvxnn.SoftmaxPolicy",
    {
        "beta": {
            "type": real(above=0),
            "help": "DPO's pull towards the reference policy, above 0, where PAIRS is a folder",
        },
        "ridge": {"type": real(above=0)},
        "n_steps": {},
        "batch_size": {"type": _batch_sizes, "metavar": "N|N,M"},
        "max_evaluation_steps": {
            "type": _periods,
            "metavar": "K,K,...",
            "help": 'Interval at which "maxright" evaluates both objectives, also where PAIRS '
            "is a file; 1 evaluates both at each step; several make a run of maxright for each",
        },
        "stop_excess": {
            "type": real(above=0),
            "help": "End a joint strategy where both objectives exceed a front by at most this "
            "fraction: the exact front or, where PAIRS is a file, the ends of the runs of "
            '"alright" on held-out data, which then come first; by default runs go on to their '
            "ends",
        },
    },
    title="only if PAIRS is a folder: policies over its features",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument(
        "features", nargs="?", metavar="PAIRS", help="Folder of cvxnn extract, or file of pairs"
    )
    parser.add_argument(
        "demonstrations", nargs="?", metavar="DEMONSTRATIONS", help="File of demonstrations"
    )
    parser.add_argument(
        "--output", default="joint", metavar="FOLDER", help="Folder for the policies"
    )
    policy = "cvxnn.SoftmaxPolicy"
    lam, strategy = option_from(policy, "lam"), option_from(policy, "strategy")
    parser.add_argument("--lam", **{**lam, "type": _trade_offs, "metavar": "L,L,..."})
    choices = strategy.pop("choices")
    text = f"How policies are fitted, out of {', '.join(choices)}"
    several = {"help": text, "type": names_among(choices), "metavar": "A,B,..."}
    parser.add_argument("--strategy", **{**strategy, **several})
    sets = "cvxnn.preference.candidate_replies"
    sizes = {**option_from(sets, "n_candidates"), "type": whole(2)}
    parser.add_argument("--candidates", **sizes)
    limit = option_from("cvxnn.preference.read_demonstrations", "limit")
    text = "Number of rows to read of DEMONSTRATIONS, and of PAIRS and --test where they are files"
    parser.add_argument("--limit", **{**limit, "help": f"{text}; by default all"})
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="HTML page with the exact front, the course of each strategy, and what each costs",
    )
    add_held_out(parser, "PAIRS", "Held-out pairs, as PAIRS")
    for group in (POLICY, MODEL, BATCH):
        group.add_to(parser)
    joint_tuning.add_tuning(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, features="PAIRS", demonstrations="DEMONSTRATIONS")
    if Path(options.features).is_file():
        return joint_tuning.run(options, console)
    from cvxnn.features.pairs import read_pair_features
    from cvxnn.files.digests import digest
    from cvxnn.preference.demonstrations import read_demonstrations

    read = functools.partial(read_pair_features, progress=not console.quiet)
    features = read(options.features)
    held_out = None if options.test is None else read(options.test)
    demonstrations = read_demonstrations(options.demonstrations, options.limit)
    folder = Path(options.output)
    console.made += check_folder(folder)
    if options.report is not None:
        console.made += check_page(options.report)
    settings = {
        "features": features.identity,
        "test": None if held_out is None else held_out.identity,
        "demonstrations": digest(demonstrations),
        "strategies": list(several(options.strategy)),
        "trade_offs": list(several(options.lam)),
        "candidates": options.candidates,
        "test_size": options.test_size,
        "parameters": POLICY.values(options),
        "seed": options.seed,
    }
    console.kept = lambda: "embeddings are kept; the same command continues"

    def fit() -> dict[str, Any]:
        return {
            "output": str(folder),
            **_fit(options, console, features, held_out, demonstrations),
        }

    result = made_once(folder / NOTE, settings, fit, overwrite=options.overwrite)
    _show(result, console)
    write_report(result, options, console)
    return result


def _fit(
    options: argparse.Namespace,
    console: Console,
    features: PairFeatures,
    held_out: PairFeatures | None,
    demonstrations: list[Demonstration],
) -> dict[str, Any]:
    import numpy as np

    from cvxnn.comparison.measures import accuracy_of
    from cvxnn.estimators.policy import SoftmaxPolicy
    from cvxnn.features.training_record import training_record
    from cvxnn.joint.strategies import planned_runs
    from cvxnn.joint.trade_offs import pareto_front
    from cvxnn.persistence import save
    from cvxnn.preference.demonstrations import candidate_replies

    if held_out is None:
        train, test = features.split(options.test_size, options.seed)
    else:
        train, test = features, held_out
    learnt, kept = split_demonstrations(
        demonstrations, train.pairs, test.pairs, options.test_size, options.seed
    )
    console.progress(
        f"data      {counted(len(train), 'training pair')}, "
        f"{counted(len(test), 'held-out pair')}; {len(learnt)} and {len(kept)} demonstrations"
    )
    sets = [candidate_replies(part, options.candidates, options.seed) for part in (learnt, kept)]
    X, seen = _embed(options, console, features.embedding, sets)
    chosen, rejected = np.asarray(train.chosen), np.asarray(train.rejected)
    exact = SoftmaxPolicy(standardize=True, **_problem_options(options))
    problem = exact.problem(X, sets[0].wanted, sets[0].groups, chosen=chosen, rejected=rejected)
    front = pareto_front(problem)
    rows: list[dict[str, Any]] = []
    axes = options.strategy, options.lam, options.max_evaluation_steps
    wanted = planned_runs(*map(several, axes))
    names = {f"{label}, lambda {lam:g}": 1.0 for label, _, lam, _ in wanted}
    with Phases("fit", names, show=not console.quiet) as bar:
        for label, strategy, lam, period in wanted:
            bar.enter(f"{label}, lambda {lam:g}")
            own = {"strategy": strategy, "max_evaluation_steps": period}
            policy = SoftmaxPolicy(
                lam,
                standardize=True,
                random_state=options.seed,
                embedding=features.embedding,
                **{**POLICY.values(options), **own},
            )
            policy.fit(X, sets[0].wanted, sets[0].groups, chosen=chosen, rejected=rejected)
            policy.training_record_ = training_record(train.pairs)
            file = Path(options.output) / f"{label}-{lam:g}.safetensors"
            save(policy, file)
            margins = policy.reward(np.asarray(test.chosen)) - policy.reward(
                np.asarray(test.rejected)
            )
            rows.append(
                {
                    "strategy": label,
                    "lam": lam,
                    "file": str(file),
                    "dpo": policy.dpo_,
                    "sft": policy.sft_,
                    "gap": policy.gap_,
                    **_course(policy, problem, front),
                    "preferences": accuracy_of(margins, test.groups),
                    "demonstrations": policy.score(seen, sets[1].wanted, sets[1].groups),
                    "n_demonstrations": len(kept),
                    "n_groups": len(set(test.groups)),
                }
            )
    return {
        "policies": _with_increases(rows),
        "front": {"dpo": front.dpo.tolist(), "sft": front.sft.tolist(), "ideal": list(front.ideal)},
    }


def _problem_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters of a policy on which its objectives depend."""
    return {name: POLICY.values(options)[name] for name in ("beta", "ridge")}


def _course(policy: Any, problem: JointProblem, front: ParetoFront) -> dict[str, Any]:
    """Return where a policy ends, beside the optima, and how a strategy came there."""
    run = policy.trajectory_
    found: dict[str, Any] = {
        "excess": float(front.excess(policy.dpo_, policy.sft_)),
        "ideal_distance": float(problem.ideal_distance(policy.dpo_, policy.sft_)),
        "dpo_gap": policy.dpo_ - front.ideal[0],
        "sft_gap": policy.sft_ - front.ideal[1],
    }
    if run is not None:
        found |= {"status": run.status, "steps": int(run.steps[-1]), "cpu_seconds": run.cpu_time}
        found["course"] = {
            "step": run.steps.tolist(),
            "dpo": run.dpo.tolist(),
            "sft": run.sft.tolist(),
        }
    return found


def _with_increases(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add what each strategy costs beside the sequential one of its trade-off (appendix B.5)."""
    from cvxnn.joint.improvement import percentage_increase

    base = {r["lam"]: r["cpu_seconds"] for r in rows if r["strategy"] == "sequential"}
    for row in rows:
        if "cpu_seconds" in row and base.get(row["lam"], 0.0) > 0:
            row["more_time"] = percentage_increase(row["cpu_seconds"], base[row["lam"]])
    return rows


def _embed(
    options: argparse.Namespace,
    console: Console,
    embedding: dict[str, Any],
    sets: Sequence[CandidateReplies],
) -> list[Any]:
    """Return the embeddings of candidates; those of an earlier call are taken from its cache."""
    from cvxnn.estimators.policy import SoftmaxPolicy

    described: Any = SoftmaxPolicy(embedding=embedding)
    cache = Path(options.output) / "embeddings"
    embedder = embedder_of(options, console, described, cache)
    return [embedder.embed(part.prompts, part.responses) for part in sets]


def _show(result: dict[str, Any], console: Console) -> None:
    from cvxnn.comparison.measures import few_groups_text
    from cvxnn.comparison.texts import share_text

    console.show(
        f"{'strategy':<14} {'lambda':>6} {'DPO':>8} {'SFT':>8} {'gap %':>8}  held-out preferences"
        "    demonstrations"
    )
    for row in result["policies"]:
        share = row["preferences"]
        console.show(
            f"{row['strategy']:<14} {row['lam']:>6g} {row['dpo']:>8.4f} {row['sft']:>8.4f} "
            f"{100 * row['gap']:>8.2g}  {share_text(share['accuracy'], share['interval'])}    "
            f"{row['demonstrations']:.3f} of {row['n_demonstrations']}"
        )
    console.show(
        "DPO, SFT: the objectives on training data, lower is better; gap: how far their mix by\n"
        "lambda is at most above its optimum, in % of it or of 1; then the share of held-out\n"
        "pairs ranked correctly, with its 95 % interval, and that of held-out demonstrations\n"
        "that are likeliest among candidates"
    )
    if text := few_groups_text(min(row.get("n_groups", 30) for row in result["policies"])):
        console.complain("warning", text)
    done = "wrote" if result["status"] == "done" else "nothing to do:"
    console.show(f"{done} {result['output']}")
