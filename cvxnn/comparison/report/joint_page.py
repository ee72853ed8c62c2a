"""One HTML page of joint training: the front, the course of each strategy, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cvxnn.comparison.report.charts import N_SERIES, STYLE, to_svg
from cvxnn.comparison.report.templates import fill_template

# Label of the axis, and caption.
_BARS = {
    "dpo_gap": ("DPO gap", "Distance of DPO's objective from its optimum, by λ."),
    "sft_gap": ("SFT gap", "Distance of SFT's objective from its optimum, by λ."),
    "ideal_distance": ("ideal distance", "Distance from the ideal point, by λ."),
    "more_time": ("more time, %", "Processor time beside the sequential strategy's, by λ."),
    "more_memory": ("more memory, %", "Peak memory beside the sequential strategy's, by λ."),
    "held_dpo": ("DPO, held out", "DPO's objective over held-out pairs, by λ."),
    "held_sft": ("SFT, held out", "SFT's objective over held-out demonstrations, by λ."),
}


def render_joint_report(
    result: Mapping[str, Any], *, title: str = "Preferences and demonstrations at once"
) -> str:
    """Return the report on the result of ``cvxnn joint`` as an HTML page.

    Parameters
    ----------
    result : mapping
        The result: ``policies``, a row for each strategy and trade-off, and ``front``.
    title : str, default="Preferences and demonstrations at once"
        Heading of the page.

    Returns
    -------
    str
        A complete HTML document, which loads nothing.

    Raises
    ------
    ValueError
        If the result is one of an earlier version, without a front; run the command again with
        ``--overwrite``.
    """
    if "front" not in result:
        raise ValueError("the result has no front; run cvxnn joint again, with --overwrite")
    policies = list(result["policies"])
    return fill_template(
        "joint.html",
        title=title,
        policies=policies,
        exact=bool(result["front"]["dpo"]),
        front_chart=front_chart(result["front"], policies),
        bar_charts=[
            {"svg": bar_chart(name, policies), "caption": caption}
            for name, (_, caption) in _BARS.items()
            if any(name in row for row in policies)
        ],
    )


def front_chart(front: Mapping[str, Any], policies: Sequence[Mapping[str, Any]]) -> str:
    """Draw the exact front and the course of each policy in the plane of the objectives.

    Parameters
    ----------
    front : mapping
        ``dpo`` and ``sft`` of the front, and the ``ideal`` point.
    policies : sequence of mapping
        Rows of the result.

    Returns
    -------
    str
        One ``svg`` element.
    """
    with rc_context(STYLE):
        figure = Figure((5.2, 4.2), layout="constrained")
        ax = figure.add_subplot()
        black = "#000100"
        if front["dpo"]:
            ax.plot(front["dpo"], front["sft"], "-", color=black, linewidth=1, label="exact front")
        ax.plot(*front["ideal"], "*", color=black, markersize=9, label="ideal point")
        for i, strategy in enumerate(dict.fromkeys(row["strategy"] for row in policies)):
            color = f"C{i % N_SERIES}"
            mine = [row for row in policies if row["strategy"] == strategy]
            for row in mine:
                if course := row.get("course"):
                    ax.plot(course["dpo"], course["sft"], color=color, linewidth=0.7, alpha=0.6)
            ends = np.array([[row["dpo"], row["sft"]] for row in mine])
            line = "o" if front["dpo"] else "o-"  # without a front, ends by trade-off are one
            ax.plot(*ends.T, line, color=color, label=strategy, markersize=5, linewidth=0.7)
            if not front["dpo"]:
                for row, end in zip(mine, ends, strict=True):
                    ax.annotate(f" {row['lam']:g}", end, fontsize="small", va="bottom")
        ax.set_xscale("log")  # the ends of the front are far from everything else
        ax.set_yscale("log")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.set_xlabel("DPO objective")
        ax.set_ylabel("SFT objective")
        figure.legend(loc="outside lower center", ncols=3)
        return to_svg(figure, "Both objectives of each strategy beside the best of each")


def bar_chart(name: str, policies: Sequence[Mapping[str, Any]]) -> str:
    """Draw a number of each policy as bars, in groups by trade-off.

    Parameters
    ----------
    name : str
        Entry of the rows.
    policies : sequence of mapping
        Rows of the result; those without the entry are left out.

    Returns
    -------
    str
        One ``svg`` element.
    """
    strategies = list(dict.fromkeys(row["strategy"] for row in policies))
    trade_offs = sorted({row["lam"] for row in policies})
    width = 0.8 / len(strategies)
    with rc_context(STYLE):
        figure = Figure((5.2, 3.4), layout="constrained")
        ax = figure.add_subplot()
        for i, strategy in enumerate(strategies):
            mine = [r for r in policies if r["strategy"] == strategy and name in r]
            if mine:
                at = [trade_offs.index(row["lam"]) + (i + 0.5) * width - 0.4 for row in mine]
                values = [row[name] for row in mine]
                ax.bar(at, values, width, color=f"C{i % N_SERIES}", label=strategy)
        ax.set_xticks(range(len(trade_offs)), [f"{lam:g}" for lam in trade_offs])
        ax.set_xlabel("λ")
        ax.set_ylabel(_BARS[name][0])
        figure.legend(loc="outside lower center", ncols=3)
        return to_svg(figure, _BARS[name][1])
