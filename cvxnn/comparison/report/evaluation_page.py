"""One HTML page of an evaluation: win rates, scores of MT-Bench, and replies side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from cvxnn._messages import counted
from cvxnn.comparison.reply_table import hacking_text, reply_means
from cvxnn.comparison.report.charts import STYLE, to_svg
from cvxnn.comparison.report.page import examples_of
from cvxnn.comparison.report.templates import fill_template
from cvxnn.comparison.texts import name_of
from cvxnn.evaluation.length_control import LEAST_OVERLAP

HEADINGS = {
    "": "Win rates (tables 1 and 7)",
    "alpaca-eval": "AlpacaEval (table 1)",
    "arena-hard": "Arena-Hard (table 7)",
    "mt-bench": "MT-Bench (table 6)",
}
"""Heading of each part, by the protocol of the judge."""
_FEW = 30  # prompts; fewer say little


def render_evaluation(
    results: Mapping[str, Mapping[str, Any]],
    replies: Sequence[Mapping[str, Any]] = (),
    *,
    title: str = "Replies of all methods, judged",
) -> str:
    """Return the report on the results of ``cvxnn evaluate`` as an HTML page.

    Parameters
    ----------
    results : mapping of str to mapping
        Results by protocol, ``""`` for none: ``systems`` of a judge that compares, ``scores`` of
        one that grades.
    replies : sequence of mapping, default=()
        Prompts with replies to show side by side, as ``cvxnn generate`` writes them.
    title : str, default="Replies of all methods, judged"
        Heading of the page.

    Returns
    -------
    str
        A complete HTML document, which loads nothing.

    Raises
    ------
    ValueError
        If a protocol is unknown, or a row of `replies` lacks its prompt or its replies.
    """
    if unknown := sorted(results.keys() - HEADINGS.keys()):
        raise ValueError(f"results are of {unknown}; expected some of {list(HEADINGS)}")
    return fill_template(
        "evaluation.html",
        title=title,
        parts=[_part(protocol, result) for protocol, result in results.items()],
        limits=[sentence for result in results.values() for sentence in _limits(result)],
        examples=examples_of(replies),
        reply_means=reply_means(replies),
        hacked=hacking_text(replies),
    )


def win_rate_chart(systems: Mapping[str, Mapping[str, Any]], baseline: str) -> str:
    """Draw win rates with their intervals.

    Parameters
    ----------
    systems : mapping of str to mapping
        Results by way of writing.
    baseline : str
        What they are compared with.

    Returns
    -------
    str
        One ``svg`` element.
    """
    with rc_context(STYLE):
        figure = Figure((5.2, 1.0 + 0.4 * len(systems)), layout="constrained")
        ax = figure.add_subplot()
        ax.axvline(50, color="#000100", linewidth=0.8)
        for i, row in enumerate(systems.values()):
            rate, (low, high) = row["win_rate"]["rate"], row["win_rate"]["interval"]
            ax.plot([100 * low, 100 * high], [i, i], color="C0", linewidth=2)
            ax.plot(100 * rate, i, "o", color="C0", markersize=6)
        ax.set_yticks(range(len(systems)), [name_of(name) for name in systems])
        ax.set_ylim(len(systems) - 0.5, -0.5)
        ax.set_xlim(0, 100)
        ax.set_xlabel(f"win rate against {baseline}, %")
        return to_svg(figure, "Win rate of each way of writing, with its interval")


def _part(protocol: str, result: Mapping[str, Any]) -> dict[str, Any]:
    scores = result.get("scores", {})
    systems = result.get("systems", {})
    return {
        "heading": HEADINGS[protocol],
        "judge": result.get("judge", "unknown"),
        "baseline": result.get("baseline"),
        "systems": systems,
        "scores": scores,
        "columns": list(dict.fromkeys(name for row in scores.values() for name in row)),
        "chart": win_rate_chart(systems, result["baseline"]) if systems else None,
    }


def _limits(result: Mapping[str, Any]) -> list[str]:
    """Return sentences on what speaks against the numbers of a result."""
    found = []
    systems = result.get("systems", {})
    least = min((row["prompts"] for row in systems.values()), default=_FEW)
    if least < _FEW:
        found.append(
            f"{counted(least, 'prompt')}: a method has to win nearly all of them, or lose them, "
            "before chance is ruled out."
        )
    controlled = {name: row.get("length_controlled") for name, row in systems.items()}
    beyond = [name for name, row in controlled.items() if row and row["overlap"] < LEAST_OVERLAP]
    if beyond:
        found.append(
            f"{', '.join(map(name_of, beyond))}: one side wrote nearly all of the longer replies, "
            "so the rate at equal length is an extrapolation."
        )
    if not str(result.get("judge")).partition(" at ")[2].startswith("http"):
        found.append(
            f"The judge is no language model: {result.get('judge')}. It knows what its training "
            "pairs show, and neither facts nor people."
        )
    if result.get("own_head"):
        found.append(
            "A head judges replies here that it chose or guided itself, which says little about "
            "them."
        )
    if text := result.get("judge_warning"):
        found.append(f"{text[0].upper()}{text[1:]}.")
    if result.get("unclear"):
        found.append(
            f"{counted(result['unclear'], 'answer')} of the judge had no verdict: each is a tie."
        )
    tied = [name for name, row in systems.items() if row["win_rate"]["ties"] == row["prompts"]]
    if tied:
        found.append(f"{', '.join(map(name_of, tied))}: every prompt is a tie.")
    return found
