"""Draw how the packages of cvxnn build on each other: ``python docs/make_layout.py``.

The order is that of ``tests/test_architecture.py``; each package stands one floor above the highest
package that it imports. An arrow leads to each package that it imports, unless others lead there.
Numbers of lines have two digits, and are those of the day; a test holds all else.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from test_architecture import (  # noqa: E402
    MODULES,
    PACKAGES,
    arrows,
    package_of,
    packages_below,
)

TARGET = ROOT / "docs" / "_static" / "layout.svg"
BOX = {"boxstyle": "round,pad=0.35", "facecolor": "#eef3f8", "edgecolor": "#4a6785"}


def lines_of(package: str) -> float:
    """Count the lines of a package's modules, to two digits."""
    files = [path for module, path in MODULES.items() if package_of(module) == package]
    return float(f"{sum(len(path.read_text('utf-8').splitlines()) for path in files):.2g}")


def floors(below: dict[str, set[str]]) -> dict[str, int]:
    """Give each package the number of its floor, from 0 at the bottom."""
    level: dict[str, int] = {}
    for package in PACKAGES:  # each after all that it imports
        level[package] = 1 + max((level[other] for other in below[package]), default=-1)
    return level


def reduced(below: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out arrows between packages that longer ways connect."""
    above_all: dict[str, set[str]] = {}
    for package in PACKAGES:
        above_all[package] = below[package].union(*(above_all[other] for other in below[package]))
    return {
        package: others - set().union(*(above_all[other] for other in others))
        for package, others in below.items()
    }


def arranged(rows: list[list[str]], drawn: dict[str, set[str]]) -> dict[str, tuple[float, float]]:
    """Place boxes such that arrows are short and pass behind few of them, by random search."""
    rng = np.random.default_rng(0)
    best, lowest = {}, np.inf
    for _ in range(4000):
        place = {
            package: ((j - (len(row) - 1) / 2) * 2.4 + shift, 1.5 * k)
            for k, row in enumerate(rows)
            for shift in [rng.uniform(-1.6, 1.6)]
            for j, package in enumerate(rng.permutation(row).tolist())
        }
        cost = 0.0
        for package, others in drawn.items():
            (x, y) = place[package]
            for a, b in (place[other] for other in sorted(others)):
                cost += abs(x - a)
                for p, q in place.values():
                    if b < q < y and abs(a + (x - a) * (q - b) / (y - b) - p) < 1.1:
                        cost += 5  # the arrow passes behind this box
        if cost < lowest:
            best, lowest = place, cost
    return best


def draw() -> None:
    """Write the figure."""
    below = packages_below()
    level, drawn = floors(below), reduced(below)
    rows = [[p for p in PACKAGES if level[p] == k] for k in range(max(level.values()) + 1)]
    place = arranged(rows, drawn)
    figure, ax = plt.subplots(figsize=(9, 1.0 * len(rows) + 0.5), layout="constrained")
    for package, (x, y) in place.items():
        for other in sorted(drawn[package]):
            ax.annotate(
                "",
                xy=place[other],
                xytext=(x, y),
                arrowprops={"arrowstyle": "->", "color": "#9fb3c8", "lw": 0.8, "shrinkB": 12},
                zorder=1,
            )
        label = f"{package}\n{lines_of(package):,.0f} lines"
        ax.text(x, y, label, ha="center", va="center", bbox=BOX, fontsize=8, zorder=2)
    ax.set_xlim(min(x for x, _ in place.values()) - 1.5, max(x for x, _ in place.values()) + 1.5)
    ax.set_ylim(-0.8, 1.5 * len(rows) - 0.7)
    ax.set_axis_off()
    plt.rcParams["svg.hashsalt"] = "cvxnn"
    figure.savefig(TARGET, metadata={"Date": None, "Description": arrows(below)})
    n_arrows = sum(map(len, below.values()))
    print(f"{len(PACKAGES)} packages, {len(rows)} floors, {n_arrows} arrows: {TARGET.name}")


if __name__ == "__main__":
    draw()
