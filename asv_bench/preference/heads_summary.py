"""Tables of what ``heads.py`` found: ``python asv_bench/preference/heads_summary.py FILE ...``.

The tests compare each method with the reference on the same test pairs: the mean difference, its
standard error over clusters (all pairs of a conversation or prompt count as one observation), and
the two-sided p-value of the t-test with as many degrees of freedom as clusters less one.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import Any

import numpy as np
from heads import INPUT, key
from numpy.typing import NDArray
from scipy.stats import rankdata, t

from asv_bench.raw_results import Record, read

Values = NDArray[np.floating]
METRICS = ("accuracy", "log_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--reference", default="linear")
    arguments = parser.parse_args()
    records = {key(record): record for path in arguments.files for record in read(path, key)}
    sets = list(dict.fromkeys(name for name, _ in records))
    methods = [name for name in dict.fromkeys(m for _, m in records) if name != INPUT]
    for metric in METRICS:
        print(f"\n{metric}")
        table(metric, sets, methods, records)
        print(f"\n{metric}: difference from {arguments.reference}, p-value")
        for name in methods:
            if name != arguments.reference:
                cells = [against(records, one, name, arguments.reference, metric) for one in sets]
                print_row(name, *cells)


def table(metric: str, sets: list[str], methods: list[str], records: dict[Any, Record]) -> None:
    """A row for each method: its value on each set, processor seconds, and its mean rank.

    Only methods that were run on all sets have a rank.
    """
    sign = -1 if metric == "accuracy" else 1
    ranked = [name for name in methods if all((one, name) in records for one in sets)]
    ranks = [
        rankdata([sign * round(records[one, name][metric], 6) for name in ranked]) for one in sets
    ]
    mean_rank = dict(zip(ranked, np.mean(ranks, axis=0), strict=True))
    print_row("method", *sets, "mean rank", "fit, CPU s", "with tuning")
    print_row(*["---"] * (len(sets) + 4))
    for name in methods:
        found = [records.get((one, name)) for one in sets]
        cells = [f"{record[metric]:.3f}" if record else "-" for record in found]
        seconds = [
            f"{np.median([record[field] for record in found if record]):.1f}"
            for field in ("fit_s", "cpu_s")
        ]
        print_row(name, *cells, f"{mean_rank[name]:.2f}" if name in ranked else "-", *seconds)


def against(records: dict[Any, Record], one: str, name: str, reference: str, metric: str) -> str:
    if not {(one, name), (one, reference), (one, INPUT)} <= records.keys():
        return "-"
    ours, theirs = (
        per_pair(decoded(records[one, m]["margins"], "<f2"), metric) for m in (name, reference)
    )
    clusters = decoded(records[one, INPUT]["clusters"], "<u2").astype(int)
    difference, error, p = clustered_test(ours - theirs, clusters)
    return f"{difference:+.3f} ± {error:.3f}, {p:.2g}"


def per_pair(margins: Values, metric: str) -> Values:
    if metric == "accuracy":
        return (margins > 0) + (margins == 0) / 2
    return np.logaddexp(0, -margins)


def clustered_test(x: Values, clusters: NDArray[np.intp]) -> tuple[float, float, float]:
    """Return the mean, its standard error over clusters, and the p-value that it is 0."""
    sums = np.bincount(clusters, x - x.mean())[np.unique(clusters)]
    n = len(sums)
    error = float(np.sqrt(n / (n - 1) * np.square(sums).sum()) / len(x))
    mean = float(x.mean())
    return mean, error, float(2 * t.sf(abs(mean) / error, n - 1)) if error else 1.0


def decoded(text: str, dtype: str) -> Values:
    return np.frombuffer(base64.b64decode(text), dtype).astype(float)


def print_row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
