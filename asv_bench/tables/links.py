"""Links from scores to probabilities beside each other on all tables; ``--help`` lists options.

Each table is fitted once by ``ConvexReLUClassifier()``. For each bend of the link
(``cvxnn.numerics.scores.bent``), a factor is fitted to leave-one-out scores, which say how good the
bend is, and so do the scores of the same rows with themselves; the test rows judge. In the order of
their names, every other table may choose a rule, and the others report.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

import numpy as np
from calibration import columns, log_loss, watched_fit
from data import splits, tables

from asv_bench.raw_results import Record, append, read
from cvxnn.estimators._calibration import BENDS, calibrate
from cvxnn.numerics.scores import bent

OUT = Path(__file__).with_name("links.jsonl")
# A bend, and smoothed log-losses: of rows without themselves, with themselves, and of test rows.
Found = list[tuple[float, float, float, float]]
Rule = Callable[[Found], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with uci/*.npz")
    parser.add_argument("--more", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--out", type=Path, default=OUT, help="resumed if there")
    parser.add_argument("--splits", type=int, default=3, help="of each table below 3000 rows")
    arguments = parser.parse_args()
    if arguments.data:
        done = {key(record) for record in read(arguments.out, key)}
        for table, path in tables(arguments.data, arguments.more).items():
            for split in splits(path, arguments.splits):
                if (table, split) not in done:
                    append(arguments.out, {"table": table, "split": split, **measure(path, split)})
                    print(table, split, flush=True)
    print("\n".join(summary(read(arguments.out, key))))


def key(record: Record) -> tuple[str, int]:
    return record["table"], record["split"]


def measure(path: Path, split: int) -> Record:
    """Log-losses by all bends."""
    data, model, part, held_out, cpu_s = watched_fit(path, split)
    test = model.network_.forward(data.X_test)
    codes = np.searchsorted(model.classes_, data.y_test)
    found: Found = []
    for bend in (0.0, *BENDS):
        unseen, seen = (calibrate(rows, bend) for rows in held_out)
        scale = min(unseen.temperature, seen.temperature)
        loss = log_loss(columns(scale * bent(test, bend)), codes)
        found.append((bend, *(round(float(value), 5) for value in (unseen.loss, seen.loss, loss))))
    used = float(log_loss(columns(model.temperature_ * bent(test, model.bend_)), codes))
    taken = {"bend": model.bend_, "log_loss": round(used, 5)}
    return {
        "part": round(float(part), 3),
        "cpu_s": round(cpu_s, 3),
        **taken,
        "bends": found,
    }


def without_themselves(found: Found, gain: float = 0.0, *, both: bool = False) -> float:
    """Log-loss of the test rows by the bend that is best without themselves."""
    plain, best = found[0], min(found, key=lambda one: one[1])
    if best[1] > (1 - gain) * plain[1] or (both and best[2] > plain[2]):
        return plain[3]
    return best[3]


RULES: dict[str, Rule] = {
    "no bend": lambda found: found[0][3],
    "without themselves": without_themselves,
    "and better with themselves": lambda found: without_themselves(found, both=True),
    "and by half a percent": lambda found: without_themselves(found, 5e-3, both=True),
    "smaller of both": lambda found: min(
        min(found, key=lambda one: one[1]), min(found, key=lambda one: one[2])
    )[3],
    "best for the test rows": lambda found: min(one[3] for one in found),
}


def summary(records: Iterable[Record]) -> Iterable[str]:
    """Lines of Markdown: differences from no bend over both halves, and each table by the rule."""
    of_table: dict[str, list[Record]] = {}
    for record in records:
        of_table.setdefault(record["table"], []).append(record)
    names = sorted(of_table)
    yield "| rule | chosen on | better, worse | worst | reported | better, worse | worst |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, rule in RULES.items():
        cells = []
        for half in (names[::2], names[1::2]):
            gaps = {
                table: mean(rule(r["bends"]) - r["bends"][0][3] for r in of_table[table])
                for table in half
            }
            worst = max(gaps, key=lambda table: gaps[table])
            better, worse = (sum(s * gap > 1e-5 for gap in gaps.values()) for s in (-1, 1))
            of_half = f"{mean(gaps.values()):+.4f}", f"{better}, {worse} of {len(half)}"
            cells += [*of_half, f"{worst} {gaps[worst]:+.4f}"]
        yield f"| {name} | {' | '.join(cells)} |"
    yield "\n| table | no bend | bent | bend |\n| --- | --- | --- | --- |"
    for table in names:
        before, after = (
            mean(values)
            for values in (
                [r["bends"][0][3] for r in of_table[table]],
                [r["log_loss"] for r in of_table[table]],
            )
        )
        bends = ", ".join(f"{r['bend']:g}" for r in of_table[table])
        yield f"| {table} | {before:.3f} | {after:.3f} | {bends} |"


if __name__ == "__main__":
    main()
