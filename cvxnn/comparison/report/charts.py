"""Charts of the report as inline SVG, whose colours and fonts are those of the page."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping
from html import escape

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from cvxnn.comparison.results import Comparison, MethodResult
from cvxnn.comparison.texts import count_text, name_of
from cvxnn.plotting.rewards import RewardMarginDisplay

N_SERIES = 8  # --series-1 to --series-8 are colours of the page
# matplotlib draws in these colours, which become variables of the page's style.
_SERIES = {f"#0000{i:02x}": f"var(--series-{i})" for i in range(1, N_SERIES + 1)}
_COLORS = {"#000100": "var(--ink)", "#000200": "var(--soft)", "#000300": "var(--line)", **_SERIES}
_INK, _SOFT, _LINE = itertools.islice(_COLORS, 3)
_SMOOTHED = 20  # more measurements are smoothed, with this part of the time as the half-life
_SIZE = (5.2, 3.4)  # inches of 72 units
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": _SOFT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": _INK,
    "axes.prop_cycle": f"cycler('color', {list(_SERIES)})",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    # Half a line of text: a number may stand at the very end of an axis.
    "figure.constrained_layout.h_pad": 0.12,
    "font.size": 11,
    "grid.color": _LINE,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "cvxnn",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "ytick.left": False,
}


def cost_chart(comparison: Comparison) -> str | None:
    """Draw held-out accuracy over the FLOPs of training, with 95 % confidence intervals.

    Parameters
    ----------
    comparison : Comparison
        Result of `cvxnn.comparison.compare`.

    Returns
    -------
    str or None
        One ``svg`` element; None if the FLOPs of no method are known.
    """
    results = [result for result in comparison.results if result.total_flops > 0]
    if not results:
        return None
    with rc_context(STYLE):
        figure = Figure(_SIZE, layout="constrained")
        ax = figure.add_subplot()
        titles = {}
        for i, result in enumerate(results):
            name, color = name_of(result.method), f"C{i}"
            at = (result.total_flops, result.accuracy)
            ends = np.abs(np.array(result.interval) - at[1])[:, None]
            bar = ax.errorbar(*at, yerr=ends, color=color, capsize=4)
            for artist in bar.get_children():
                artist.set_clip_on(False)
            points = ax.scatter(*at, s=45, color=color, label=name, zorder=3, gid=f"series-{i}")
            points.set_clip_on(False)
            titles[f"series-{i}"] = f"{name}: {result.accuracy:.3f}, {count_text(at[0])} FLOPs"
        for name, baseline in comparison.baselines.items():
            ax.axhline(baseline["accuracy"], color=_SOFT, linestyle="--", linewidth=1, label=name)
        flops = [result.total_flops for result in results]
        ax.margins(y=0.08)
        ax.set_xscale("log")
        ax.set_xlim(min(flops) / 2, 2 * max(flops))
        few = max(flops) < 100 * min(flops)
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=8))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count_text(value)))
        ax.set_xlabel("FLOPs of training")
        ax.set_ylabel("held-out pair accuracy")
        figure.legend(loc="outside lower center", ncols=3)
        return to_svg(figure, "Held-out pair accuracy over FLOPs of training", titles)


def margin_chart(result: MethodResult) -> str | None:
    """Draw the mean reward margin in training over time, on training and held-out pairs.

    Of more than 20 measurements, those of training pairs are smoothed: a measurement that is a
    twentieth of the whole time older than another has half its weight.

    Parameters
    ----------
    result : MethodResult
        Result of one method.

    Returns
    -------
    str or None
        One ``svg`` element; None if there is no finite margin.
    """
    history = {name: np.array(values, float) for name, values in result.history.items()}
    margins = [v for name, v in history.items() if name.endswith("rewards/margins")]
    if not margins or not np.isfinite(np.concatenate(margins)).any():
        return None
    with rc_context(STYLE):
        figure = Figure(_SIZE, layout="constrained")
        ax = figure.add_subplot()
        at = history["seconds" if "seconds" in history else "step"]
        many = len(at) > _SMOOTHED and at[-1] > at[0]
        half_life = float(at[-1] - at[0]) / _SMOOTHED if many else None
        RewardMarginDisplay(history=history, half_life=half_life).plot(ax=ax)
        if "seconds" not in history:
            ax.set_xlabel(result.step_name)
            ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if (legend := ax.get_legend()) is not None:
            legend.remove()
            figure.legend(loc="outside lower center", ncols=2)
        return to_svg(figure, f"Mean reward margin of {name_of(result.method)} over training")


def to_svg(figure: Figure, description: str, titles: Mapping[str, str] | None = None) -> str:
    """Return a figure as an ``svg`` element that belongs to the page it is put into.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Figure that was drawn with `STYLE`.
    description : str
        What it shows, for those who do not see it.
    titles : mapping of str to str, optional
        Texts that appear at marks, by their identifiers.

    Returns
    -------
    str
        One ``svg`` element.
    """
    buffer = io.StringIO()
    for _ in range(2):  # the room for numbers changes the axes, and these the numbers
        figure.draw_without_rendering()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    view = re.search(r'viewBox="[^"]*"', text)
    body = re.search(r"<svg[^>]*>(.*)</svg>", text, re.DOTALL)
    assert view is not None
    assert body is not None
    content = body[1]
    for color, variable in _COLORS.items():
        content = content.replace(color, variable)
    for name, title in (titles or {}).items():
        content = content.replace(f'<g id="{name}">', f"<g><title>{escape(title)}</title>")
    # Nothing lies outside the axes, so nothing is clipped; the page has the style. Of the
    # identifiers, only those of marks are used. They are digests of the marks, so that charts of
    # one page can share them.
    needless = r' clip-path="[^"]*"|<defs>\s*<(clipPath|style).*?</defs>'
    content = re.sub(needless, "", content, flags=re.DOTALL)
    content = content.replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]*)"', content))
    content = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", content)
    return f'<svg {view[0]} role="img" aria-label="{escape(description)}">{content}</svg>'
