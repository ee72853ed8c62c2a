"""Markdown tables of what the study found: ``python asv_bench/tables/summary.py tables.jsonl``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from methods import METHODS, MLPS, OURS
from scipy.stats import rankdata
from study import key, words

from asv_bench.raw_results import Record, read

CLOSE = 0.02
# What the default has to keep to: largest loss of accuracy against each of these methods.
ALLOWED = {"logistic": 0.01, "hgb": 0.02}
DEFAULT = "cvxnn"
# Differences of accuracy below this are rounding.
EQUAL = 1e-9


class Cell(NamedTuple):
    """A method on a table: means of accuracy and medians of seconds over its splits."""

    status: str
    """``done``, ``cut``, ``failed`` or ``not run``."""
    accuracy: float = -math.inf
    """Minus infinity where there is none, which ranks last."""
    warm: float = math.nan
    """Seconds of a fit after the first of its process; of the first where there was no other."""
    first: float = math.nan
    """Seconds of the first fit of a process. A fit that was cut counts as the limit, in both."""
    predict: float = math.nan
    peak_mb: float = math.nan
    cpu: float = math.nan
    log_loss: float = math.nan
    """Not a number where there is none."""


class Row(NamedTuple):
    """A table: its sizes, on how many splits the methods are compared, a cell for each."""

    table: str
    n: int
    d: int
    k: int
    splits: int
    cells: dict[str, Cell]

    @property
    def best(self) -> float:
        return max(cell.accuracy for cell in self.cells.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="of the study; the last file counts")
    parser.add_argument("--methods", type=words, help="names, separated by commas; all by default")
    parser.add_argument("--tables", type=words, help="names, separated by commas; all by default")
    arguments = parser.parse_args()
    for path in arguments.files:
        if not path.exists():
            parser.error(f"there is no file {path}.")
    records = list({key(r): r for path in arguments.files for r in read(path, key)}.values())
    for name, chosen in (("method", arguments.methods), ("table", arguments.tables)):
        there = {record[name] for record in records}
        if unknown := set(chosen or []) - there:
            parser.error(f"--{name}s has {sorted(unknown)}; the files hold {sorted(there)}.")
        records = [record for record in records if record[name] in (chosen or there)]
    if not any(record["status"] == "done" for record in records):
        parser.error("no method has finished on any table yet.")
    present = {record["method"] for record in records}
    print("\n".join(markdown(records, [m for m in METHODS if m in present])))


def rows(records: Iterable[Record], methods: list[str]) -> list[Row]:
    """Tables in order of their size; methods compared on the splits that all of them finished."""
    tables: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        tables.setdefault(record["table"], {}).setdefault(record["method"], []).append(record)
    found = []
    for table, runs in tables.items():
        done = [{r["split"] for r in mine if r["status"] == "done"} for mine in runs.values()]
        common = set.intersection(*(splits for splits in done if splits)) if any(done) else set()
        cells = {method: _cell(runs.get(method, []), common) for method in methods}
        record = next((r for mine in runs.values() for r in mine if "n" in r), {})
        n, d, k = (record.get(size, 0) for size in ("n", "d", "k"))
        found.append(Row(table, n, d, k, len(common), cells))
    return sorted(found, key=lambda row: (row.n * row.d, row.table))


def _cell(runs: list[Record], splits: set[int]) -> Cell:
    if not runs:
        return Cell("not run")
    done = [r for r in runs if r["status"] == "done" and r["split"] in splits]
    if not done:
        if any(r["status"] == "cut" for r in runs):
            limit = max(r["limit_s"] for r in runs)
            return Cell("cut", warm=limit, first=limit)
        return Cell("failed")
    first = [r["first_s"] for r in runs if r.get("first_s") is not None]
    warm = [r["fit_s"] for r in done if r["fit_s"] is not None]
    return Cell(
        "done",
        mean(r["accuracy"] for r in done),
        median(warm or first),
        median(first),
        median(r["predict_s"] for r in done),
        max(r["peak_mb"] for r in done),
        median(r["cpu_s"] for r in done),
        mean(math.nan if r.get("log_loss") is None else r["log_loss"] for r in done),
    )


def markdown(records: list[Record], methods: list[str]) -> Iterator[str]:
    found = rows(records, methods)
    yield "### Accuracy\n"
    yield from _per_table(found, methods, _accuracy)
    yield "\n### Seconds to fit: warm / first in a process\n"
    yield from _per_table(found, methods, _seconds)

    yield from _conditions(found, methods)
    compared = [r for r in found if all(cell.status != "not run" for cell in r.cells.values())]
    left_out = [row.table for row in found if row not in compared]
    yield f"\n### Methods, over {len(compared)} tables\n"
    if left_out:
        yield f"Left out, because a method was not run there: {', '.join(left_out)}.\n"
    if compared:
        yield from _per_method(compared, methods)
        yield from _speed(compared, methods)
    yield "\n### Made with\n"
    yield from _provenance(records)


def _per_table(
    found: list[Row], methods: list[str], show: Callable[[Cell, Row], str]
) -> Iterator[str]:
    yield f"| table | n | d | k | splits | {' | '.join(methods)} |"
    yield "|" + " --- |" * (5 + len(methods))
    for row in found:
        cells = " | ".join(show(row.cells[method], row) for method in methods)
        yield f"| {row.table} | {row.n} | {row.d} | {row.k} | {row.splits} | {cells} |"


def _accuracy(cell: Cell, row: Row) -> str:
    if cell.status != "done":
        return cell.status
    best = cell.accuracy >= row.best - EQUAL
    return f"**{cell.accuracy:.3f}**" if best else f"{cell.accuracy:.3f}"


def _seconds(cell: Cell, row: Row) -> str:
    if cell.status == "cut":
        return f"> {cell.warm:g}"
    return f"{cell.warm:.3g} / {cell.first:.3g}" if cell.status == "done" else cell.status


def _conditions(found: list[Row], methods: list[str]) -> Iterator[str]:
    """Log-losses, processor times, and what breaks a condition on the default."""
    rivals = [method for method in ("prior", *ALLOWED) if method in methods]
    if DEFAULT not in methods or not rivals:
        return
    shown = [*rivals, DEFAULT]
    yield "\n### Conditions on the default\n"
    heads = [*(f"log-loss, {m}" for m in shown), *(f"CPU s, {m}" for m in shown if m != "prior")]
    yield f"| table | {' | '.join(heads)} | exceptions |"
    yield "|" + " --- |" * (2 + len(heads))
    for row in found:
        cells = [row.cells[method] for method in shown]
        losses = " | ".join(f"{cell.log_loss:.3f}" for cell in cells)
        seconds = " | ".join(
            f"{cell.cpu:.2g}" for m, cell in zip(shown, cells, strict=True) if m != "prior"
        )
        yield f"| {row.table} | {losses} | {seconds} | {', '.join(_broken(row, rivals))} |"


def _broken(row: Row, rivals: list[str]) -> Iterator[str]:
    """Conditions that the default breaks on a table."""
    ours = row.cells[DEFAULT]
    for rival in rivals:
        other = row.cells[rival]
        if rival == "prior" and ours.log_loss >= other.log_loss:
            yield f"log-loss above class frequencies by {ours.log_loss - other.log_loss:.3f}"
        if ours.accuracy < other.accuracy - ALLOWED.get(rival, math.inf) - EQUAL:
            yield f"accuracy below {rival} by {other.accuracy - ours.accuracy:.3f}"


def _per_method(found: list[Row], methods: list[str]) -> Iterator[str]:
    ranks = [
        rankdata([-round(row.cells[method].accuracy, 9) for method in methods]) for row in found
    ]
    yield (
        f"| method | mean rank | within {CLOSE} of the best | median s to predict | largest MB "
        "| exceptions (below the best by) |"
    )
    yield "|" + " --- |" * 6
    for i, method in enumerate(methods):
        cells = [(row.cells[method], row) for row in found]
        far = [
            (c, row)
            for c, row in cells
            if c.status != "done" or c.accuracy < row.best - CLOSE - EQUAL
        ]
        exceptions = ", ".join(
            f"{row.table} ({row.best - c.accuracy:.3f})"
            if c.status == "done"
            else f"{row.table} ({c.status})"
            for c, row in far
        )
        done = [c for c, _ in cells if c.status == "done"]
        predict = f"{median(c.predict for c in done):.2g}" if done else ""
        peak = f"{max(c.peak_mb for c in done):.0f}" if done else ""
        yield (
            f"| {method} | {mean(rank[i] for rank in ranks):.2f} "
            f"| {len(found) - len(far)} of {len(found)} | {predict} | {peak} | {exceptions} |"
        )


def _speed(found: list[Row], methods: list[str]) -> Iterator[str]:
    ours = [method for method in methods if method in OURS]
    mlps = [method for method in methods if method in MLPS]
    if not ours or not mlps:
        return
    largest = found[-1].table
    yield "\n### How many times longer an MLP takes\n"
    yield f"| MLP / ours | fit | median | smallest | largest | on {largest}, the largest table |"
    yield "|" + " --- |" * 6
    for mlp in mlps:
        for method in ours:
            for fit in ("warm", "first"):
                ratios = {
                    row.table: ratio
                    for row in found
                    if (ratio := _ratio(row.cells[mlp], row.cells[method], fit)) is not None
                }
                if not ratios:
                    continue
                low, high = (end(ratios, key=lambda t: ratios[t]) for end in (min, max))
                last = f"{ratios[largest]:.3g}" if largest in ratios else ""
                yield (
                    f"| {mlp} / {method} | {fit} | {median(ratios.values()):.3g} "
                    f"| {ratios[low]:.3g} ({low}) | {ratios[high]:.3g} ({high}) | {last} |"
                )


def _ratio(mlp: Cell, ours: Cell, fit: str) -> float | None:
    """At least that: an MLP that was cut counts as its limit, and 0 where ours did not finish."""
    if mlp.status == "failed":
        return None
    return getattr(mlp, fit) / getattr(ours, fit) if ours.status == "done" else 0.0


def _provenance(records: list[Record]) -> Iterator[str]:
    made: dict[str, set[str]] = {}
    for record in records:
        versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        code = f"{record['machine']}; {versions}; commit {record['commit'] or 'unknown'}"
        made.setdefault(code, set()).add(record["method"])
    for code, methods in made.items():
        yield f"- {', '.join(m for m in METHODS if m in methods)}: {code}"


if __name__ == "__main__":
    main()
