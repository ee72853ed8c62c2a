"""COALA beside fine-tuning, from folders of ``cvxnn compare``: a table, and a figure of margins.

    python asv_bench/preference/against_dpo.py imdb=results/imdb mrbench=results/mrbench \\
        --figure margins.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Results = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", help="NAME=FOLDER, a folder that compare has written")
    parser.add_argument(
        "--figure", type=Path, help="where the figure goes; its ending names a form"
    )
    options = parser.parse_args()
    found = {}
    for entry in options.folders:
        name, equals, folder = entry.partition("=")
        if not equals:
            parser.error(f"{entry!r} is not of the form NAME=FOLDER")
        found[name] = read(Path(folder))
    for name, results in found.items():
        print(table(name, results))
    if options.figure is not None:
        draw(found, options.figure)


def read(folder: Path) -> Results:
    """Results of all methods in a folder, by method."""
    results = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "result" in record:
            results[path.stem] = record["result"]
    return results


def table(name: str, results: Results) -> str:
    """Markdown: held-out accuracy, training accuracy and cost of each method."""
    dpo = results.get("dpo", {}).get("flops")
    lines = [f"\n{name}\n", "| method | held out | training | TFLOP | of DPO's |"]
    lines.append("| --- " * 5 + "|")
    for method, result in results.items():
        total = cost(result["flops"])
        share = f"{100 * total / cost(dpo):.1f} %" if dpo else ""
        lines.append(
            f"| {method} | {result['accuracy']:.3f} ± {result['standard_error']:.3f} | "
            f"{result['train_accuracy']:.3f} | {total / 1e12:.1f} | {share} |"
        )
    return "\n".join(lines)


def cost(flops: Any) -> float:
    return float(sum(flops.values()) if isinstance(flops, dict) else flops)


def draw(found: dict[str, Results], path: Path) -> None:
    """Training reward margins: phase II of COALA above, DPO below, a column for each data set."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(found), figsize=(3 * len(found), 4.4), squeeze=False, layout="constrained"
    )
    for column, (name, results) in zip(axes.T, found.items(), strict=True):
        for ax, method, colour in zip(column, ("coala", "dpo"), ("C0", "C1"), strict=True):
            history = results[method]["history"]
            steps = history["step"]
            points = [
                (step, margin)
                for step, margin in zip(steps, history["rewards/margins"], strict=True)
                if margin is not None
            ]
            ax.plot(*zip(*points, strict=True), color=colour, marker=".", markersize=3)
            ax.set_xlabel("iteration of phase II" if method == "coala" else "step of DPO")
            ax.grid(alpha=0.3)
            ax.xaxis.get_major_locator().set_params(integer=True)
        column[0].set_title(name)
    axes[0, 0].set_ylabel("COALA: rewards/margins")
    axes[1, 0].set_ylabel("DPO: rewards/margins")
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
