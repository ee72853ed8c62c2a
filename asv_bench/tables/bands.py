"""Print how the default compares with other methods on small, middle and large tables.

Run ``python asv_bench/tables/bands.py``; it reads the raw results beside it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median

HERE = Path(__file__).parent
FILES = "tables.jsonl", "rivals.jsonl", "forests.jsonl"
OTHERS = {
    "logistic": "logistic regression",
    "hgb": "boosted trees",
    "svc": "SVC",
    "mlp_tuned": "tuned MLP",
    "random_forest": "random forest",
}
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


if __name__ == "__main__":
    main()
