"""Print how the default compares with other methods on small, middle and large tables.

Run ``python asv_bench/tables/bands.py``; it reads the raw results beside it. The second table has
ranks of ten methods on the tables that each of them finished, on the split of the file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median

import numpy as np
from scipy.stats import rankdata

from asv_bench.raw_results import Record, read

HERE = Path(__file__).parent
FILES = "tables.jsonl", "rivals.jsonl", "forests.jsonl", "boosting.jsonl"
OTHERS = {
    "logistic": "logistic regression",
    "hgb": "boosted trees",
    "svc": "SVC",
    "mlp_tuned": "tuned MLP",
    "random_forest": "random forest",
    "extra_trees": "extra trees",
    "catboost": "CatBoost",
    "lightgbm": "LightGBM",
    "xgboost": "XGBoost",
}
TEN = "cvxnn", "mlp", *(name for name in OTHERS if name != "mlp_tuned")
BANDS = {
    "below 1,000": (0, 999),
    "1,000 to 4,999": (1_000, 4_999),
    "5,000 and more": (5_000, 10**9),
    "all": (0, 10**9),
}
MARGIN = 0.01


def main() -> None:
    """Print a table in Markdown."""
    accuracy: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    rows: dict[str, int] = {}
    for file in FILES:
        for line in (HERE / file).read_text("utf-8").splitlines():
            record = json.loads(line)
            if record["status"] == "done":
                key = record["method"], record["table"]
                accuracy[key][record["split"]] = record["accuracy"]
                seconds[key].append(record["cpu_s"])
                rows[record["table"]] = record["n"]
    print("| against | training rows | tables | mean difference | ahead | behind | time |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for method, name in OTHERS.items():
        for band, (least, most) in BANDS.items():
            tables = [t for t, n in rows.items() if least <= n <= most and (method, t) in accuracy]
            if not tables:
                continue
            gains = [
                fmean(accuracy["cvxnn", t][split] - value for split, value in found.items())
                for t in tables
                for found in [accuracy[method, t]]
            ]
            times = [median(seconds[method, t]) / median(seconds["cvxnn", t]) for t in tables]
            ahead, behind = (sum(s * g > MARGIN for g in gains) for s in (1, -1))
            print(
                f"| {name} | {band} | {len(tables)} | {fmean(gains):+.3f} | {ahead} | {behind} | "
                f"{median(times):.2g} |"
            )
    print()
    ranks([record for file in FILES for record in read(HERE / file)])


def ranks(records: list[Record]) -> None:
    """Print mean ranks, and what a method takes beside ours, over one split of each table."""
    done = [record for record in records if record["split"] == 0 and record["status"] == "done"]
    cells = {(record["table"], record["method"]): record for record in done}
    every = dict.fromkeys(table for table, _ in cells)
    tables = [table for table in every if all((table, method) in cells for method in TEN)]
    print(f"{len(tables)} tables: {', '.join(tables)}\n")

    def mean_ranks(field: str, sign: int) -> dict[str, float]:
        scored = [m for m in TEN if all(cells[t, m].get(field) is not None for t in tables)]
        found = [
            rankdata([sign * round(cells[table, method][field], 6) for method in scored])
            for table in tables
        ]
        return dict(zip(scored, np.mean(found, axis=0), strict=True))

    by_accuracy, by_log_loss = mean_ranks("accuracy", -1), mean_ranks("log_loss", 1)
    print("| method | mean accuracy | mean rank | rank, log-loss | ahead | behind | time |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for method in sorted(TEN, key=lambda name: by_accuracy[name]):
        gains, ratios = [], []
        for table in tables:
            one, ours = cells[table, method], cells[table, "cvxnn"]
            gains.append(one["accuracy"] - ours["accuracy"])
            ratios.append(one["cpu_s"] / ours["cpu_s"])
        ahead, behind = (sum(s * g > MARGIN for g in gains) for s in (1, -1))
        mean = fmean(cells[table, method]["accuracy"] for table in tables)
        rank = f"{by_log_loss[method]:.2f}" if method in by_log_loss else "-"
        print(
            f"| {method} | {mean:.3f} | {by_accuracy[method]:.2f} | {rank} | {ahead} | {behind} | "
            f"{median(ratios):.2g} |"
        )


if __name__ == "__main__":
    main()
