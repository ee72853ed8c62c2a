"""One HTML page of a comparison: tables, curves and replies side by side.

The page is self-contained: it has no scripts, loads nothing, and every text in it is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cvxnn.comparison.reply_table import hacking_text, reply_means
from cvxnn.comparison.report.charts import cost_chart, margin_chart
from cvxnn.comparison.report.templates import fill_template
from cvxnn.comparison.results import Comparison
from cvxnn.comparison.texts import (
    difference_text,
    share_text,
)


def render_report(
    comparison: Comparison,
    examples: Sequence[Mapping[str, Any]] = (),
    *,
    title: str = "Preference methods compared",
) -> str:
    """Return the report on a comparison as an HTML page.

    Parameters
    ----------
    comparison : Comparison
        Result of `cvxnn.comparison.compare`.
    examples : sequence of mapping, default=()
        Prompts with replies to show side by side. Each has ``prompt`` (a text or messages) and
        ``replies``, a mapping of a name ("plain", "guided", ...) to a text, or to
        the fields that ``cvxnn generate`` writes: ``{"text": ..., "reward": ..., ...}``.
    title : str, default="Preference methods compared"
        Heading of the page.

    Returns
    -------
    str
        A complete HTML document. The same arguments give the same text.

    Raises
    ------
    ImportError
        If jinja2 or matplotlib is missing; install them with ``pip install "cvxnn[plot]"``.
    ValueError
        If an example lacks its prompt or its replies.

    Examples
    --------
    >>> from pathlib import Path
    >>> from cvxnn.comparison import Comparison, render_report
    >>> comparison = Comparison.read("comparison.json")  # doctest: +SKIP
    >>> page = render_report(comparison)  # doctest: +SKIP
    >>> Path("report.html").write_text(page, encoding="utf-8")  # doctest: +SKIP
    """
    shown = examples_of(examples)
    return fill_template(
        "page.html",
        title=title,
        comparison=comparison,
        share=share_text,
        difference=difference_text,
        cost_chart=cost_chart(comparison),
        margin_charts={
            result.method: chart
            for result in comparison.results
            if (chart := margin_chart(result)) is not None
        },
        examples=shown,
        reply_means=reply_means(examples),
        hacked=hacking_text(examples),
        settings=_settings(comparison),
    )


def examples_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return prompts with replies as the template of replies takes them.

    Parameters
    ----------
    rows : sequence of mapping
        As `examples` of `render_report`.

    Returns
    -------
    list of dict
        ``prompt`` as a text, and ``replies`` with ``measures``.

    Raises
    ------
    ValueError
        If a row lacks its prompt or its replies.
    """
    return [_example(i, row) for i, row in enumerate(rows)]


def _example(index: int, example: Mapping[str, Any]) -> dict[str, Any]:
    if "prompt" not in example or not isinstance(example.get("replies"), Mapping):
        raise ValueError(
            f"example {index} has the fields {sorted(example)}; expected 'prompt' and 'replies'"
        )
    prompt = example["prompt"]
    if not isinstance(prompt, str):
        prompt = "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
    replies = {}
    for name, reply in example["replies"].items():
        fields = {"reward": None, **(reply if isinstance(reply, Mapping) else {"text": reply})}
        replies[name] = {**fields, "measures": _measures(fields)}
    return {"prompt": prompt, "replies": replies}


def _measures(reply: Mapping[str, Any]) -> str:
    """Return what is known of a reply beside its reward, as a text; empty if nothing is."""
    formats = {
        "n_tokens": "{:d} tokens",
        "log_probability": "log-probability {:.2f} a token",
        "repetition": "{:.0%} repeated",
    }
    known = [form.format(reply[k]) for k, form in formats.items() if reply.get(k) is not None]
    return ", ".join([*known, *(["cut off"] if reply.get("ending") == "length" else [])])


def _settings(comparison: Comparison) -> str:
    """Return the JSON text of everything that the results depend on."""
    return json.dumps(
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
