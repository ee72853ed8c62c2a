"""How scores become probabilities: rules beside each other on all tables; ``--help`` lists options.

Each table is fitted once by ``ConvexReLUClassifier()``. By several rules, its leave-one-out scores
then give a factor, or a factor and an offset for each class, and the test rows judge the log-loss.
In the order of their names, every other table may choose a rule, and the others report.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np
from data import Split, load, splits, tables
from methods import fit_options
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from asv_bench.raw_results import Record, append, read
from cvxnn import ConvexReLUClassifier
from cvxnn.estimators._fit_plan import HeldOut, Plan
from cvxnn.numerics.scores import winner

# Whose rows count in the smoothing: those of a class that are looked at, all of a class, all.
COUNTED = ("class, looked at", "class", "all")
# Precisions of the normal prior of offsets, in units of data.
PRECISIONS = (1.0, 10.0, 100.0)
USED = "all"
LARGEST = float(np.exp(6))


class Fit(NamedTuple):
    """A fitted default, with what its link from scores to probabilities was fitted to."""

    data: Split
    model: ConvexReLUClassifier
    part: float
    held_out: tuple[HeldOut, HeldOut]
    cpu_s: float


class Scores(NamedTuple):
    """Scores of rows, one for each class, with smoothed targets and weights."""

    scores: NDArray
    targets: NDArray
    weight: NDArray


def main() -> None:
    arguments = _arguments()
    if not arguments.summary:
        paths = tables(arguments.data, arguments.more)
        done = {key(record) for record in read(arguments.out, key)}
        for table, path in paths.items():
            for split in splits(path, arguments.splits):
                if (table, split) not in done:
                    append(arguments.out, {"table": table, "split": split, **measure(path, split)})
    print("\n".join(summary(read(arguments.out, key))))


def key(record: Record) -> tuple[str, int]:
    return record["table"], record["split"]


def watched_fit(path: Path, split: int) -> Fit:
    """Fit the default to a split; keep the scores of the rows that its link was fitted to."""
    data, kept = load(path, split), {}
    leave_one_out = Plan.leave_one_out

    def watched(plan: Plan, fit: Any) -> tuple[HeldOut, HeldOut]:
        kept["part"], kept["rows"] = plan.strength.sample.part, leave_one_out(plan, fit)
        return kept["rows"]

    np.random.seed(split)  # noqa: NPY002
    began = time.process_time()
    Plan.leave_one_out = watched  # type: ignore[method-assign]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ConvexReLUClassifier().fit(data.X, data.y, **fit_options("cvxnn", data))
    finally:
        Plan.leave_one_out = leave_one_out  # type: ignore[method-assign]
    cpu_s = time.process_time() - began
    return Fit(data, model, kept["part"], kept["rows"], cpu_s)


def measure(path: Path, split: int) -> Record:
    """Log-losses of the test rows by all rules, and how many labels offsets change."""
    data, model, part, held_out, cpu_s = watched_fit(path, split)
    test = columns(model.network_.forward(data.X_test))
    codes = np.searchsorted(model.classes_, data.y_test)
    found: Record = {"part": part, "cpu_s": cpu_s, "temperature": model.temperature_}
    for counted in COUNTED:
        unseen, seen = (smoothed(rows, counted, part) for rows in held_out)
        scale, _ = calibrate(unseen, calibrate(seen)[0])
        found[counted] = log_loss(scale * test, codes)
    labels = test.argmax(axis=1)
    found["accuracy"] = float((labels == codes).mean())
    for precision in PRECISIONS:
        unseen, seen = (smoothed(rows, USED, part) for rows in held_out)
        most = calibrate(seen, precision=precision)[0]
        scale, offset = calibrate(unseen, most, precision=precision)
        moved = scale * test + offset
        found[f"offsets {precision:g}"] = log_loss(moved, codes)
        found[f"differ {precision:g}"] = float((moved.argmax(axis=1) != labels).mean())
    return found


def columns(scores: NDArray) -> NDArray:
    """A score for each class; of two classes, half of the one score and its negative."""
    scores = scores.astype(float)
    return scores if scores.shape[1] > 1 else np.column_stack([-scores / 2, scores / 2])


def smoothed(rows: HeldOut, counted: str, part: float) -> Scores:
    """Rows with the targets of a rule."""
    scores, codes = columns(rows.predictions), winner(rows.targets)
    k = scores.shape[1]
    counts = np.bincount(codes, weights=rows.weight, minlength=k)
    if counted == "class, looked at":
        counts = counts * part
    elif counted == "all":
        counts = np.full(k, counts.sum())
    own = ((counts + 1) / (counts + 2))[codes]
    targets = np.repeat(((1 - own) / (k - 1))[:, None], k, axis=1)
    targets[np.arange(len(codes)), codes] = own
    return Scores(scores, targets, rows.weight)


def calibrate(
    rows: Scores, most: float = LARGEST, *, precision: float | None = None
) -> tuple[float, NDArray]:
    """Scale up to ``most`` and offsets (zeros without ``precision``) of least smoothed log-loss."""
    scores, targets, weight = rows
    k, free = scores.shape[1], precision is not None

    def loss(parameters: NDArray) -> tuple[float, NDArray]:
        scale, offset = parameters[0], parameters[1:] if free else np.zeros(k)
        log_chances = log_softmax(scale * scores + offset, axis=1)
        slope = weight[:, None] * (np.exp(log_chances) - targets)
        prior = precision * offset if free else offset
        value = -(weight @ (targets * log_chances).sum(axis=1)) + prior @ offset / 2
        slopes = [(slope * scores).sum(), *(slope.sum(axis=0) + prior)]
        return float(value), np.array(slopes if free else slopes[:1])

    bounds = [(float(np.exp(-3)), max(most, float(np.exp(-3)))), *[(None, None)] * (k * free)]
    start = np.zeros(len(bounds))
    start[0] = min(1.0, bounds[0][1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(found[0]), found[1:] if free else np.zeros(k)


def log_loss(log_odds: NDArray, codes: NDArray) -> float:
    return -float(log_softmax(log_odds, axis=1)[np.arange(len(codes)), codes].mean())


def summary(records: Iterable[Record]) -> Iterable[str]:
    """Lines of Markdown: log-losses of each table, and their differences over both halves."""
    records = list(records)
    names = sorted({r["table"] for r in records})
    rules = [*COUNTED, *(f"offsets {precision:g}" for precision in PRECISIONS)]
    means = {
        name: {rule: mean(r[rule] for r in records if r["table"] == name) for rule in rules}
        for name in names
    }
    yield "| table | " + " | ".join(rules) + " |"
    yield "| --- " * (1 + len(rules)) + "|"
    for name in names:
        yield f"| {name} | " + " | ".join(f"{means[name][rule]:.4f}" for rule in rules) + " |"
    for half, own in (("choose", names[::2]), ("report", names[1::2])):
        for rule in rules:
            before = USED if rule.startswith("offsets") else COUNTED[0]
            less = [means[name][rule] - means[name][before] for name in own]
            better = sum(difference < 0 for difference in less)
            yield (
                f"{half}, {rule} against {before}: mean {mean(less):+.4f}, median "
                f"{median(less):+.4f}, better on {better} of {len(own)}"
            )
    for precision in PRECISIONS:
        differ = mean(r[f"differ {precision:g}"] for r in records)
        yield f"offsets {precision:g}: {differ:.4f} of the labels differ from those of the scores"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with uci/*.npz")
    parser.add_argument("--more", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("calibration.jsonl"), help="resumed")
    parser.add_argument("--summary", action="store_true", help="only print what was found")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.summary:
        parser.error("--data is needed, unless --summary only prints what was found.")
    return arguments


if __name__ == "__main__":
    main()
