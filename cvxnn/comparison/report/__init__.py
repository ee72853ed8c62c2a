"""One HTML page of a comparison: tables, curves and replies side by side.

The page is self-contained: no scripts, nothing loaded from anywhere, every text escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cvxnn.comparison import Comparison
from cvxnn.comparison.report.charts import Point, line_chart, scatter_chart
from cvxnn.comparison.report.page import figure, page, table
from cvxnn.comparison.results import (
    bytes_text,
    count_text,
    estimate_text,
    name_of,
    ratio_text,
    seconds_text,
)

__all__ = ["Point", "line_chart", "render", "scatter_chart"]

_MARGINS = "rewards/margins"


def render(
    comparison: Comparison,
    examples: Sequence[Mapping[str, Any]] = (),
    *,
    title: str = "Preference methods compared",
) -> str:
    """The report as HTML.

    Parameters
    ----------
    comparison : Comparison
        Of `cvxnn.comparison.compare`.
    examples : sequence of mapping, optional
        Each has ``prompt`` (text or messages) and ``replies``, a mapping of a name ("plain",
        "guided", ...) to a text, or to ``{"text": ..., "reward": ...}``.
    title : str
        Heading.

    Returns
    -------
    str
        A whole document.

    Raises
    ------
    ValueError
        If an example lacks its prompt or replies.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cvxnn.comparison import Comparison
    >>> comparison = Comparison.read("comparison.json")  # doctest: +SKIP
    >>> Path("report.html").write_text(render(comparison), encoding="utf-8")  # doctest: +SKIP
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_lead(comparison))}</p>',
        "<h2>What came out</h2>",
        "<ul>" + "".join(f"<li>{escape(c)}</li>" for c in comparison.conclusions()) + "</ul>",
        "<h2>Accuracy and cost</h2>",
        _methods_table(comparison),
        _charts(comparison),
        "<h2>Where the cost goes</h2>",
        _phases_table(comparison),
        _certificates(comparison),
        _examples(examples),
        _settings(comparison),
    ]
    return page(title, "\n".join(part for part in parts if part))


def _lead(comparison: Comparison) -> str:
    data, model = comparison.data, comparison.model
    return (
        f"{model['name']}, {count_text(model['parameters'])} parameters in {model['dtype']}: "
        f"{data['training_pairs']:,} training pairs, {data['held_out_pairs']:,} held-out pairs of "
        f"{data['held_out_groups']:,} groups. Every method saw the same pairs."
    )


def _methods_table(comparison: Comparison) -> str:
    reference = "dpo" if comparison.get("dpo") else None
    head = ["Method", "held-out accuracy", "training accuracy", "reward margin", "FLOPs"]
    head += ["× DPO's"] if reference else []
    head += ["peak memory", "time"]
    rows = []
    for result in comparison.results:
        row = [
            name_of(result.method),
            estimate_text(result.accuracy, result.standard_error),
            f"{result.train_accuracy:.3f}",
            f"{result.metrics[_MARGINS]:.3g}",
            count_text(result.total_flops),
        ]
        if reference:
            ratio = comparison.flops_ratio(result.method)
            row.append(ratio_text(ratio))
        rows.append(
            [*row, bytes_text(result.peak_memory), seconds_text(sum(result.seconds.values()))]
        )
    n_methods, blank = len(rows), [""] * (len(head) - 2)
    for name, baseline in comparison.baselines.items():
        value = estimate_text(baseline["accuracy"], baseline["standard_error"])
        rows.append([name, value, *blank])
    caption = (
        "Share of held-out pairs whose chosen reply has the higher reward, ± one standard error "
        "over groups; below the line, rules that learn nothing. FLOPs are of training, with those "
        "of embeddings or of the language model; rewards of different methods have different "
        "scales, so margins compare within a method only."
    )
    return table(head, rows, caption, rule=n_methods)


def _charts(comparison: Comparison) -> str:
    points = {
        name_of(r.method): Point(r.total_flops, r.accuracy, r.standard_error or 0.0)
        for r in comparison.results
    }
    pictures = []
    if any(point.x > 0 for point in points.values()):
        chart = scatter_chart(points, "FLOPs of training", "held-out pair accuracy")
        pictures.append(
            figure(chart, "What accuracy costs; bars are one standard error. Up and left is good.")
        )
    for result in comparison.results:
        curves = {
            label: result.history[f"{prefix}{_MARGINS}"]
            for prefix, label in (("", "training"), ("eval_", "held out"))
            if result.history.get(f"{prefix}{_MARGINS}")
        }
        steps = result.history.get("step", [])
        drawn = {
            label: (xs, ys)
            for label, values in curves.items()
            if (pairs := [(x, y) for x, y in zip(steps, values, strict=True) if y is not None])
            for xs, ys in [tuple(zip(*pairs, strict=True))]
        }
        if drawn:
            chart = line_chart(drawn, result.step_name, "mean reward margin")
            pictures.append(figure(chart, f"{name_of(result.method)}: rewards/margins"))
    if not pictures:
        return ""
    return f'<h2>Curves</h2>\n<div class="charts">{"".join(pictures)}</div>'


def _phases_table(comparison: Comparison) -> str:
    rows = []
    for result in comparison.results:
        for phase in dict.fromkeys([*result.flops, *result.seconds]):
            rows.append(
                [
                    f"{name_of(result.method)}: {phase}",
                    count_text(result.flops.get(phase)),
                    seconds_text(result.seconds.get(phase)),
                ]
            )
    return table(["Phase", "FLOPs", "time"], rows)


def _certificates(comparison: Comparison) -> str:
    rows = [
        [
            f"{name_of(result.method)}: {phase}",
            _number(certificate.get("objective")),
            _number(certificate.get("dual_bound")),
            _percent(certificate.get("gap")),
        ]
        for result in comparison.results
        for phase, certificate in result.certificate.items()
    ]
    if not rows:
        return ""
    caption = "No network of these patterns and this penalty has an objective below the bound."
    return "<h2>Certificates</h2>\n" + table(
        ["Convex program", "objective", "lower bound", "gap"], rows, caption
    )


def _examples(examples: Sequence[Mapping[str, Any]]) -> str:
    if not examples:
        return ""
    parts = ["<h2>Replies side by side</h2>"]
    for i, example in enumerate(examples):
        if "prompt" not in example or not isinstance(example.get("replies"), Mapping):
            raise ValueError(
                f"example {i} has the fields {sorted(example)}; expected 'prompt' and 'replies'"
            )
        cards = []
        for name, reply in example["replies"].items():
            text, reward = reply, None
            if isinstance(reply, Mapping):
                text, reward = reply["text"], reply.get("reward")
            note = "" if reward is None else f"<span>reward {escape(_number(reward))}</span>"
            cards.append(
                f'<section class="reply"><h3><span>{escape(str(name))}</span>{note}</h3>'
                f'<div class="text">{escape(str(text))}</div></section>'
            )
        prompt = escape(_prompt_text(example["prompt"]))
        parts.append(f'<blockquote class="text">{prompt}</blockquote>')
        parts.append(f'<div class="replies">{"".join(cards)}</div>')
    return "\n".join(parts)


def _settings(comparison: Comparison) -> str:
    text = json.dumps(
        {
            "model": comparison.model,
            "data": comparison.data,
            "settings": comparison.settings,
            "methods": {result.method: result.settings for result in comparison.results},
        },
        indent=2,
        ensure_ascii=False,
        default=str,
    )
    return (
        "<h2>Settings</h2>\n<details><summary>All that the results depend on</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


def _prompt_text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2g} %"
