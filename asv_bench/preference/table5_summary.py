"""Table of what ``table5.py`` found: ``python asv_bench/preference/table5_summary.py FILE ...``."""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean, median, pstdev

from table5 import ADAMW, key

from asv_bench.raw_results import Record, read

Runs = list[Record]
COLUMNS = (
    "set",
    "method",
    "accuracy",
    "over seeds",
    "over rates",
    "s, one run",
    "s, all rates",
    "vs hindsight",
)
# With "whole" AdamW is trained again on all rows, up to the epoch that was chosen.
METRICS = ("accuracy", "pair_accuracy", "whole_accuracy", "whole_pair_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="the last file counts")
    parser.add_argument("--metric", default="accuracy", choices=METRICS)
    parser.add_argument("--neurons", type=int, default=32)
    arguments = parser.parse_args()
    records = {key(r): r for file in arguments.files for r in read(file, key)}
    sets: dict[str, dict[str, Runs]] = defaultdict(lambda: defaultdict(list))
    for record in records.values():
        if record["method"] not in ADAMW:  # ours has no other rows
            record |= {f"whole_{name}": record[name] for name in METRICS[:2] if name in record}
        if record["neurons"] == arguments.neurons and arguments.metric in record:
            sets[record["set"]][record["method"]].append(record)
    print("| " + " | ".join(COLUMNS) + " |")
    print("| --- " * len(COLUMNS) + "|")
    for name, methods in sets.items():
        best = max(
            (hindsight(methods[m], arguments.metric) for m in ADAMW if methods[m]), default=0
        )
        for method in sorted(methods, key=lambda m: (m in ADAMW, m)):
            if methods[method]:
                print(row(name, method, methods[method], arguments.metric, best))


def row(name: str, method: str, runs: Runs, metric: str, best: float) -> str:
    """Accuracy with the learning rate that validation chose, seed by seed."""
    seconds = median(run["cpu_s"] for run in runs)
    if method in ADAMW:
        by_seed = group(runs, "seed")
        chosen = [max(rates, key=lambda r: r["validation"])[metric] for rates in by_seed.values()]
        means = [mean(r[metric] for r in found) for found in group(runs, "rate").values()]
        rates = f"{100 * min(means):.1f} to {100 * max(means):.1f}"
        whole = f"{mean(sum(r['cpu_s'] for r in found) for found in by_seed.values()):.1f}"
    else:
        chosen, rates, whole = [run[metric] for run in runs], "none", f"{seconds:.1f}"
        seconds_first = runs[0]["first_cpu_s"]
        whole += f" ({seconds_first:.1f} with compiling)" if seconds_first > 2 * seconds else ""
    difference = f"{100 * (mean(chosen) - best):+.1f}" if best else ""
    return (
        f"| {name} | {method} | {100 * mean(chosen):.1f} | {100 * pstdev(chosen):.2f} | {rates} | "
        f"{seconds:.2f} | {whole} | {difference} |"
    )


def hindsight(runs: Runs, metric: str) -> float:
    """Test accuracy of the learning rate, and of stopping or not, that is best on the test rows."""
    means = [
        mean(run[prefix + metric] for run in found)
        for found in group(runs, "rate").values()
        for prefix in ("", "last_")
        if prefix + metric in found[0]
    ]
    return max(means)


def group(runs: Runs, name: str) -> dict[float, Runs]:
    found: dict[float, Runs] = defaultdict(list)
    for run in runs:
        found[run[name]].append(run)
    return found


if __name__ == "__main__":
    main()
