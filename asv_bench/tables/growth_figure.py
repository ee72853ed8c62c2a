"""Draw what a default fit takes as data grow: ``python asv_bench/tables/growth_figure.py --help``.

The upper row of the figure has processor seconds, the lower one test accuracy, against rows,
features, patterns and classes. Records are those of ``growth.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from asv_bench.raw_results import ROOT, Record, read

BLUE, RED, INK = "#4c72b0", "#c44e52", "#333333"
# Rows at which the method changes: the direct solution ends, the kernel is no longer stored.
CHANGES = (3000, 23000)


class Panel(NamedTuple):
    """A column of the figure: what grows, and which of the records have the rest alike."""

    name: str
    label: str
    alike: Record


PANELS = (
    Panel("n", "rows (20 and 100 features)", {"asked": 0, "n_classes": 2}),
    Panel("d", "features (5,000 rows)", {"n": 5000, "asked": 0, "n_classes": 2}),
    Panel("n_patterns", "patterns (10,000 rows, 50 features)", {"n": 10000, "d": 50}),
    Panel("n_classes", "classes (10,000 rows, 50 features)", {"n": 10000, "d": 50, "asked": 0}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).parent
    parser.add_argument("--records", type=Path, default=here / "growth.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "_static" / "growth.png")
    arguments = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    # Records of before these sizes were told are of other test rows.
    records = [r for r in read(arguments.records) if "asked" in r]
    plt.rcParams.update({"font.size": 10})
    figure, axes = plt.subplots(2, 4, figsize=(13, 5.4), layout="constrained", sharex="col")
    for panel, (seconds, accuracy) in zip(PANELS, axes.T, strict=True):
        draw(panel, records, seconds, accuracy)
    axes[0, 0].set_ylabel("CPU seconds")
    axes[1, 0].set_ylabel("test accuracy")
    figure.savefig(arguments.out, dpi=75)


def draw(panel: Panel, records: list[Record], seconds: Any, accuracy: Any) -> None:
    """Draw a column of the figure."""
    own = [
        r
        for r in records
        if r["seed"] == 0 and all(r[key] == value for key, value in panel.alike.items())
    ]
    if panel.name == "n_patterns":
        own = [r for r in own if r["asked"] and r["n_classes"] == 2]
    widths = (20, 100) if panel.name == "n" else (None,)
    for width, color in zip(widths, (RED, BLUE), strict=False):
        line = sorted((r for r in own if width in (None, r["d"])), key=lambda r: r[panel.name])
        at = [r[panel.name] for r in line]
        label = None if width is None else f"{width} features"
        style = {"color": color if width else BLUE, "marker": "o", "markersize": 4, "label": label}
        seconds.plot(at, [r["cpu_s"] for r in line], **style)
        accuracy.plot(at, [r["accuracy"] for r in line], **style)
    seconds.set(xscale="log", yscale="log")
    accuracy.set(xlabel=panel.label)
    ticks = {r[panel.name] for r in own} if panel.name != "n" else {10**k for k in range(3, 7)}
    accuracy.set_xticks(sorted(ticks), [f"{tick:,}" for tick in sorted(ticks)])
    accuracy.set_xticks([], minor=True)
    seconds.set_ylim(0.1, 100)
    seconds.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    for ax in (seconds, accuracy):
        ax.grid(alpha=0.3)
        for change in CHANGES if panel.name == "n" else ():
            ax.axvline(change, color=INK, linewidth=0.8, linestyle=":")
    if panel.name == "n":
        seconds.legend(frameon=False)


if __name__ == "__main__":
    main()
