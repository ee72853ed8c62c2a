"""How often do few rows choose other gates than many? ``python asv_bench/tables/kind_noise.py``.

The default takes thresholds in place of Gaussian gates where rows left out of a sample say so. For
each table and seed, the ratio of both errors on a sample of each size, and on as many rows as the
strength is chosen on, by folds: what the samples should find. The summary says how often a rule
takes another kind than these do, and its processor time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from asv_bench.raw_results import Record, append, read

SIZES, N_SEEDS = (256, 512, 1024), 10
KINDS = ("gaussian", "thresholds")
OUT = Path(__file__).with_name("kind_noise.jsonl")
# Least gain over Gaussian gates, as in ``cvxnn.training.judged_patterns``.
GAIN = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with uci/*.npz; without it, a summary")
    parser.add_argument("--more", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--tables", nargs="+", help="names; all of at least 2,000 rows by default")
    parser.add_argument("--out", type=Path, default=OUT, help="resumed if there")
    arguments = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    done = {key(record) for record in read(arguments.out, key)}
    for name, X, y in rows_of(arguments):
        for seed in range(N_SEEDS):
            if (name, seed) not in done:
                append(arguments.out, {"table": name, "seed": seed, **measure(X, y, seed)})
    print("\n".join(summary(read(arguments.out, key))))


def key(record: Record) -> tuple[str, int]:
    return record["table"], record["seed"]


def rows_of(arguments: argparse.Namespace) -> Iterable[tuple[str, Any, Any]]:
    """Yield tables with names, and the rows of the study of growth, some of which are alike."""
    from asv_bench.tables.data import load, tables
    from asv_bench.tables.growth import draw

    if arguments.data is None:
        return
    for name, path in tables(arguments.data, arguments.more).items():
        if arguments.tables is None or name in arguments.tables:
            data = load(path)
            if len(data.X) >= 2000:
                yield name, data.X, data.y
    for n, d in ((23200, 100), (23200, 20), (6100, 100)):
        name = f"teacher_{n}_{d}"
        if arguments.tables is None or name in arguments.tables:
            yield name, *draw(n, d)[:2]


def measure(X: Any, y: Any, seed: int) -> Record:
    """Return the ratio of the errors of thresholds and of Gaussian gates, by number of rows."""
    from cvxnn import ConvexReLUClassifier, training
    from cvxnn.convex import GatedOperator
    from cvxnn.training.fold_errors import fold_errors, rows_to_look_at
    from cvxnn.training.row_sample import sample_rows
    from cvxnn.training.spectrum import Spectrum, leave_one_out

    caught: dict[str, Any] = {}
    choose = training.choose_patterns

    def stop(program: Any, n_patterns: int, kinds: Any, rng: Any, **known: Any) -> Any:
        caught.update(program=program, n=n_patterns, known=known)
        raise InterruptedError

    training.choose_patterns = stop
    try:
        ConvexReLUClassifier(random_state=seed).fit(X, y)
    except InterruptedError:
        pass
    finally:
        training.choose_patterns = choose
    known = caught["known"]
    shared = known.pop("shared")
    found: Record = {"n": len(X), "d": X.shape[1], "n_outputs": caught["program"].y.shape[1]}
    for size in (*SIZES, rows_to_look_at(len(X))):
        last = size not in SIZES
        rng, began = np.random.RandomState(seed), time.process_time()
        sample = sample_rows(caught["program"], rng, most=size, **known)
        errors = []
        for kind in KINDS:
            inputs, targets = sample.program.operator.X, sample.program.y
            patterns = training.draw_patterns(inputs, targets, caught["n"], kind, rng)
            pilot = replace(sample.program, operator=GatedOperator(inputs, patterns.mask))
            one = sample._replace(program=pilot)
            if last:
                folds = np.random.RandomState(seed)  # the same for both kinds
                errors.append(fold_errors(one, folds, shared=shared).error.sum())
                continue
            out = leave_one_out(one, Spectrum.of(pilot), shared=shared)
            errors.append(out.errors.sum(axis=1).min() if shared else out.errors.min(axis=0).sum())
        found["many" if last else str(size)] = {
            "ratio": round(float(errors[1] / errors[0]), 5),
            "cpu_s": round(time.process_time() - began, 3),
        }
    return found


def summary(records: list[Record]) -> Iterable[str]:
    """Lines of Markdown: ratios of the errors, and how many seeds take thresholds."""
    sizes = (*map(str, SIZES), "many")
    yield f"| table | {' | '.join(f'{size}: thresholds taken, ratio, CPU s' for size in sizes)} |"
    yield f"| --- |{' --- |' * len(sizes)}"
    for table in dict.fromkeys(record["table"] for record in records):
        own = [record for record in records if record["table"] == table]
        cells = []
        for size in sizes:
            ratios = np.array([record[size]["ratio"] for record in own])
            spread = f"{ratios.mean():.3f} +- {ratios.std():.3f}"
            cost = np.median([record[size]["cpu_s"] for record in own])
            cells.append(f"{(ratios < 1 - GAIN).sum()}/{len(own)}, {spread}, {cost:.2f}")
        yield f"| {table} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
