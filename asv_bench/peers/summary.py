"""One row a problem: ``python asv_bench/peers/summary.py asv_bench/peers/peers.jsonl``.

Seconds until a method is as close as asked to the best proved bound of the problem. Of several
settings of a peer the fastest counts, of ours the second solve, which does not compile.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from table import BOUND, OBJECTIVE, RUN, SECONDS, _gap, _key_of, _program_error, _samples

from asv_bench.raw_results import Record, read

Error = Callable[[list[float], float], float]


def network_error(sample: list[float], bound: float) -> float:
    return _gap(sample[OBJECTIVE], bound)


# Heading, part of the label, error and target.
COLUMNS: dict[str, list[tuple[str, str, Error, float]]] = {
    "relu": [
        ("AL, network 1e-3", "AL", network_error, 1e-3),
        ("AL, program 1e-3", "AL", _program_error, 1e-3),
        ("CVXPY", "Clarabel", _program_error, 1e-3),
        ("interior point, program 1e-3", "interior", _program_error, 1e-3),
        ("1e-5", "interior", _program_error, 1e-5),
        ("CRONOS, network 1e-3", "network", network_error, 1e-3),
    ],
    "gated": [
        ("R-FISTA", "R-FISTA", network_error, 1e-4),
        ("interior point", "interior", network_error, 1e-4),
        ("proximal gradient", "proximal", network_error, 1e-4),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    records = read(parser.parse_args().file, _key_of)
    for what, columns in COLUMNS.items():
        print(f"\n| problem, penalty | {' | '.join(heading for heading, *_ in columns)} |")
        print("| --- " * (len(columns) + 1) + "|")
        mine = [record for record in records if record["what"] == what]
        for problem, strength in dict.fromkeys((r["problem"], r["strength"]) for r in mine):
            row = [r for r in mine if (r["problem"], r["strength"]) == (problem, strength)]
            samples = [sample for record in row for sample in _samples(record)]
            bound = max((s[BOUND] for s in samples if not math.isnan(s[BOUND])), default=math.nan)
            cells = [cell(row, bound, *column) for _, *column in columns]
            print(f"| {problem}, {strength} | {' | '.join(cells)} |")
    for record in records:
        if "interior" in record["method"]:
            print(record["problem"], record["strength"], record["what"], record["details"])


def cell(records: list[Record], bound: float, label: str, error: Error, target: float) -> str:
    """Seconds of the fastest of these methods; a limit, or never, where none arrives."""
    records = [record for record in records if label in record["method"]]
    if not records:
        return "-"
    hits = []
    for record in records:
        last = max((s[RUN] for s in record["samples"]), default=0)
        run = [s for s in _samples(record) if s[RUN] == last]
        hits += [next((s[SECONDS] for s in run if error(s, bound) <= target), math.inf)]
    if math.isfinite(min(hits)):
        return f"{min(hits):.2g}"
    cut = any(record["status"] == "limit" for record in records)
    return f"> {max(record['limit'] for record in records):g}" if cut else "never"


if __name__ == "__main__":
    main()
