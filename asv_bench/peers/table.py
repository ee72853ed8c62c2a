"""Tables of cvxnn beside its peers, on one machine: ``python asv_bench/peers/table.py --help``."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from asv_bench.raw_results import Record, append, read

TARGETS = (1e-2, 1e-3, 1e-4)
# Where ``timing.Sample`` keeps what.
RUN, SECONDS, OBJECTIVE, PROGRAM, VIOLATION, BOUND = range(6)
WHATS = ("relu", "gated", "adaptive")
# A general conic solver gets longer: it says nothing before its end.
CLARABEL_LIMIT = 600.0


class Row(NamedTuple):
    """One method of one table: what to run, and the name in ``--methods``."""

    label: str
    peer: str
    function: str
    options: dict[str, Any]


def rows(what: str, dtype: str) -> list[Row]:
    """Methods of a table, in its order."""
    if what == "adaptive":
        return [
            Row("Adam, 20 starts", "local", "adam", {}),
            Row("L-BFGS, 20 starts", "local", "lbfgs", {}),
            Row("cvxnn", "ours", "adaptive", {}),
        ]
    solver = {"relu": "AL", "gated": "R-FISTA"}[what]
    tols = {"relu": (1e-5, 1e-6), "gated": (1e-6, 1e-8, 1e-10)}[what]
    # 1e-6 in float32 is what the package does when it is asked for nothing else.
    settings = [*((dtype, tol) for tol in tols), ("float32", 1e-6)]
    peers = [
        Row(f"pyscnn {solver} {tol:.0e} {kind}", "pyscnn", what, {"tol": tol, "dtype": kind})
        for kind, tol in dict.fromkeys(settings)
    ]
    clarabel = Row("CVXPY + Clarabel", "clarabel", what, {})
    if what == "gated":
        solvers = {
            "interior point": {"solver": "InteriorPoint", "tol": 1e-7},
            "proximal gradient": {"solver": "ProximalGradient", "tol": 1e-5, "max_iter": 50_000},
        }
    else:
        cronos = {"solver": "Cronos", "tol": 1e-4, "max_iter": 20_000}
        solvers = {
            "interior point": {"solver": "InteriorPoint", "tol": 1e-7},
            "CRONOS, network": {**cronos, "certify": "network"},
            "CRONOS, program": {**cronos, "certify": "program"},
        }
    ours = [Row(f"cvxnn {name}", "ours", what, options) for name, options in solvers.items()]
    return [*peers, clarabel, *ours]


def main() -> None:
    arguments = _arguments()
    # Methods run in processes started from here, which import their libraries themselves.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(arguments.threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # as every peer
    # XLA has no flag that limits its threads, but asks for this.
    os.environ["NPROC"] = str(arguments.threads)
    from problems import PROBLEMS, load

    records = {_key_of(record): record for record in read(arguments.out, _key_of)}
    for name in arguments.problems or PROBLEMS:
        try:
            problems = load(name, arguments.data)
        except FileNotFoundError as missing:
            print(f"\n{name} is left out: {missing}")
            continue
        for problem in problems:
            if problem.strength not in arguments.strengths:
                continue
            n, d = problem.X.shape
            print(f"\n## {name}, {problem.strength} penalty\n")
            print(f"n = {n}, d = {d}, gates = {problem.mask.shape[1]}, alpha = {problem.alpha:.3e}")
            for what in arguments.what:
                mine = []
                for row in rows(what, str(problem.X.dtype)):
                    if row.peer not in arguments.methods or not _exists(row):
                        continue
                    if not any(part in row.label for part in arguments.labels or [""]):
                        continue
                    key = _key(problem, what, row, arguments)
                    if records.get(key, {}).get("status", "failed").startswith("failed"):
                        records[key] = _run(problem, row, arguments, key)
                        append(arguments.out, records[key])
                    mine.append(records[key])
                if mine:
                    print(f"\n### {what}\n")
                    print("\n".join(_markdown(what, mine)), flush=True)


def _arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with uci/*.npz and Fashion-MNIST")
    parser.add_argument("--problems", type=words, help="names, separated by commas; all by default")
    parser.add_argument(
        "--strengths", type=words, default=["large", "small"], help="of the penalty: large,small"
    )
    parser.add_argument("--what", type=words, default=list(WHATS), help=",".join(WHATS))
    peers = ["pyscnn", "clarabel", "local", "ours"]
    parser.add_argument("--methods", type=words, default=peers, help=",".join(peers))
    parser.add_argument("--labels", type=words, help="parts of labels: only rows that hold one")
    parser.add_argument("--out", type=Path, default=Path("peers.jsonl"), help="JSON lines; resumes")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a method may take")
    parser.add_argument(
        "--clarabel-limit", type=float, default=CLARABEL_LIMIT, help="the same for Clarabel"
    )
    parser.add_argument("--threads", type=int, default=1, help="of every library")
    arguments = parser.parse_args()
    from problems import PROBLEMS, STRENGTHS

    known = {
        "problems": list(PROBLEMS),
        "strengths": list(STRENGTHS),
        "what": list(WHATS),
        "methods": peers,
    }
    for name, choices in known.items():
        unknown = set(getattr(arguments, name) or []) - set(choices)
        if unknown:
            parser.error(f"--{name} has {sorted(unknown)}; choose from {', '.join(choices)}.")
    if arguments.limit <= 0 or arguments.clarabel_limit <= 0 or arguments.threads < 1:
        parser.error("--limit and --clarabel-limit have to be above 0, --threads at least 1.")
    return arguments


def _exists(row: Row) -> bool:
    """Whether the method is written yet, and its package installed."""
    if row.peer == "pyscnn":
        return importlib.util.find_spec("scnn") is not None
    if row.peer == "ours":
        import ours

        return hasattr(ours, row.function)
    return True


def _limit(row: Row, arguments: argparse.Namespace) -> float:
    return arguments.clarabel_limit if row.peer == "clarabel" else arguments.limit


def _key(problem: Any, what: str, row: Row, arguments: argparse.Namespace) -> tuple:
    limit = _limit(row, arguments)
    return (problem.name, problem.strength, what, row.label, limit, arguments.threads)


FIELDS = ("problem", "strength", "what", "method", "limit", "threads")


def _key_of(record: Record) -> tuple:
    return tuple(record[name] for name in FIELDS)


def _run(problem: Any, row: Row, arguments: argparse.Namespace, key: tuple) -> dict[str, Any]:
    from timing import measure

    limit, options = _limit(row, arguments), dict(row.options)
    allowed = limit
    if row.peer == "local":
        # It keeps the limit itself, once for the tuning and once for the runs.
        options["limit"], allowed = limit, 3 * limit + 60
    module = importlib.import_module("ours" if row.peer == "ours" else f"{row.peer}_peer")
    print(f"{problem.name} {problem.strength}: {row.label}", file=sys.stderr, flush=True)
    outcome = measure(getattr(module, row.function), problem, allowed, **options)
    n, d = problem.X.shape
    return {
        **dict(zip(FIELDS, key, strict=True)),
        "n": n,
        "d": d,
        "gates": problem.mask.shape[1],
        "alpha": problem.alpha,
        "status": outcome.status,
        "details": outcome.details,
        "samples": [list(map(_to_json, sample)) for sample in _thinned(outcome.samples)],
    }


def _thinned(samples: list[Any]) -> Iterator[Any]:
    """Samples of a run whose times grow by a fifth, and its last one."""
    for k, sample in enumerate(samples):
        if k + 1 == len(samples) or samples[k + 1][RUN] != sample[RUN]:
            yield sample
            due = 0.0
        elif k == 0 or sample[SECONDS] >= due:
            yield sample
            due = 1.2 * sample[SECONDS]


def _to_json(number: float) -> float | None:
    """Nine digits; JSON knows no infinities, and what is not known is null."""
    if isinstance(number, int):
        return number
    return float(f"{number:.9g}") if math.isfinite(number) else None


def _samples(record: dict[str, Any]) -> list[list[float]]:
    return [[math.nan if x is None else x for x in sample] for sample in record["samples"]]


def _markdown(what: str, records: list[dict[str, Any]]) -> Iterator[str]:
    if what == "adaptive":
        yield from _local_table(records)
        return
    samples = [sample for record in records for sample in _samples(record)]
    bound = max((s[BOUND] for s in samples if not math.isnan(s[BOUND])), default=-math.inf)
    if not math.isfinite(bound):
        # Nothing is proved: the best value of a point that is next to feasible stands in.
        near = [s for s in samples if what == "gated" or s[VIOLATION] <= TARGETS[-1]]
        column = OBJECTIVE if what == "gated" else PROGRAM
        bound = min((s[column] for s in near), default=math.nan)
        if math.isnan(bound):
            yield "No proved bound, and no point near the cones: errors are not known.\n"
        else:
            yield f"No proved bound; gaps are to the best near-feasible value seen, {bound:.6g}.\n"
    else:
        yield f"Proved lower bound {bound:.6g}.\n"
    if what == "relu":
        yield "As a convex program (the error is the larger of gap and cone violation):\n"
        yield from _timed_table(records, PROGRAM, lambda s: _program_error(s, bound))
        yield "\nAs a network (a negative gap beats every network on the given gates):\n"
    yield from _timed_table(records, OBJECTIVE, lambda s: _gap(s[OBJECTIVE], bound))


def _gap(objective: float, bound: float) -> float:
    return (objective - bound) / max(abs(objective), sys.float_info.min)


def _program_error(sample: list[float], bound: float) -> float:
    return max(abs(_gap(sample[PROGRAM], bound)), sample[VIOLATION])


def _timed_table(
    records: list[dict[str, Any]], column: int, error: Callable[[list[float]], float]
) -> Iterator[str]:
    times = " | ".join(f"s to {target:.0e}" for target in TARGETS)
    yield f"| method | end | seconds | objective | error | {times} |"
    yield "|" + " --- |" * (5 + len(TARGETS))
    for record in records:
        limit = f"> {record['limit']:g}"
        cut = record["status"] == "limit"
        runs = sorted({s[RUN] for s in record["samples"]})
        if not runs:
            blanks = " | ".join([limit if cut else ""] * len(TARGETS))
            seconds = limit if cut else ""
            yield f"| {record['method']} | {record['status']} | {seconds} | | | {blanks} |"
        for run in runs:
            samples = [s for s in _samples(record) if s[RUN] == run]
            last, unfinished = samples[-1], cut and run == runs[-1]
            label = record["method"]
            if label.startswith("cvxnn"):
                label += (", first solve", ", second solve")[run]
            hits = [next((s[SECONDS] for s in samples if error(s) <= t), None) for t in TARGETS]
            miss = limit if unfinished else "never"
            cells = " | ".join(miss if hit is None else f"{hit:.3g}" for hit in hits)
            end = record["status"]
            if end == "done" and record["details"].get("success") == 0:
                end = "iterations"
            seconds = limit if unfinished else f"{last[SECONDS]:.3g}"
            yield (
                f"| {label} | {end} | {seconds} | {last[column]:.6g} | {error(last):.1e} "
                f"| {cells} |"
            )


def _local_table(records: list[dict[str, Any]]) -> Iterator[str]:
    import numpy as np

    yield "| method | end | starts | best | median | s to best | s a start | s all | s tuning |"
    yield "|" + " --- |" * 9
    for record in records:
        samples, details = _samples(record), record["details"]
        if not samples:
            yield f"| {record['method']} | {record['status']} | 0 | | | | | | |"
            continue
        # The last sample of each run is its end.
        ends = {s[RUN]: s for s in samples}.values()
        seconds, objective = (np.array([s[i] for s in ends]) for i in (SECONDS, OBJECTIVE))
        to_best = seconds[: objective.argmin() + 1].sum()
        cut = record["status"] == "limit" or details.get("finished", len(ends)) < len(ends)
        yield (
            f"| {record['method']} | {'limit' if cut else record['status']} | {len(ends)} "
            f"| {objective.min():.6g} | {np.median(objective):.6g} | {to_best:.3g} "
            f"| {np.median(seconds):.3g} | {seconds.sum():.3g} "
            f"| {details.get('tuning_seconds', 0):.3g} |"
        )


if __name__ == "__main__":
    main()
