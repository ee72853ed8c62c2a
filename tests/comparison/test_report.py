"""The page is complete, stands alone, follows the theme, and shows texts as texts."""

from __future__ import annotations

import importlib
import math
import re
import sys
from html import unescape
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

import cvxnn.comparison.report
from cvxnn.comparison import Comparison, MethodResult, render_report
from cvxnn.comparison.report import charts
from cvxnn.comparison.report.charts import cost_chart, margin_chart

NASTY = '<script>alert("1")</script> & <img src="http://elsewhere.example/x.png" onerror=go>'
VOID = {"meta", "br", "hr", "img", "link", "input"}
LOADS = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}


class Reader(HTMLParser):
    """Tags in order, with a check that each is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def method(name: str, accuracy: float, **values: Any) -> MethodResult:
    values = {
        "standard_error": 0.03,
        "interval": [accuracy - 0.06, accuracy + 0.06],
        "train_accuracy": 0.9,
        "metrics": {"rewards/margins": 0.4},
        "margins": [1.0, -1.0, 1.0, 1.0],
        "history": {"step": [1, 2, 3], "rewards/margins": [0.0, 0.5, 0.7]},
        "flops": {"embeddings": 1e12, "phase I": 1e9},
        "seconds": {"embeddings": 100.0, "phase I": 2.0},
        **values,
    }
    return MethodResult(name, accuracy, **values)


def sample(*results: MethodResult, name: str = "tiny") -> Comparison:
    return Comparison(
        model={"name": name, "parameters": 135e6, "dtype": "float32", "fingerprint": "f"},
        data={"training_pairs": 30, "held_out_pairs": 4, "held_out_groups": 4},
        settings={"seed": 0},
        baselines={"longer reply wins": {"accuracy": 0.55, "interval": [0.47, 0.63]}},
        results=results
        or (
            method(
                "coala",
                0.64,
                certificate={"phase I": {"objective": 0.2, "dual_bound": 0.19, "gap": 0.05}},
            ),
            method(
                "dpo",
                0.7,
                flops={"fine-tuning": 3e13},
                history={
                    "step": [1, 2, 3],
                    "rewards/margins": [0.0, 0.5, 0.7],
                    "eval_rewards/margins": [None, 0.2, None],
                },
            ),
        ),
        groups=list("abcd"),
    )


@pytest.mark.slow
def test_page_is_well_formed_and_loads_nothing():
    reader = read(render_report(sample(), [{"prompt": "Why?", "replies": {"plain": "So."}}]))
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & set(reader.tags)
    targets = [value for name, value in reader.attributes if name in LOADS]
    assert all(value.startswith("#") for value in targets)  # marks of the charts
    names = [value for name, value in reader.attributes if name == "id"]
    assert {value[1:] for value in targets} == set(names)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    html = render_report(sample())
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert reader.tags.count("table") == 4
    assert reader.tags.count("svg") == 3


@pytest.mark.slow
def test_narrow_pages_cut_nothing_off():
    # A row of a table becomes a list, in which each value stands beside the title of its column.
    example = {"prompt": "a", "replies": {"plain": "So."}}
    html = render_report(sample(), [example])
    assert not re.search(r"overflow(-x)?:", html)
    assert not re.search(r"<td(?! data-title=| colspan=\"\d\"></td>| class=\"phase\" data-)", html)
    head, *tables = html.split("<table>")
    assert "td::before { content: attr(data-title)" in head
    for table in tables:
        columns = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table, re.DOTALL)
        titles = set(re.findall(r'<td[^>]* data-title="([^"]*)"', table))
        assert titles == {unescape(title).replace("\xa0", " ") for title in columns[1:]}


@pytest.mark.slow
def test_replies_stand_beside_measures_that_no_head_has_seen():
    known = {"n_tokens": 18, "repetition": 0.25, "ending": "length"}
    replies = {
        "plain": {"text": "So.", "reward": 0.5, "log_probability": -1.0, **known},
        "guided": {"text": "Ah.", "reward": 0.7, "log_probability": -2.25, **known},
    }
    text = " ".join(read(render_report(sample(), [{"prompt": "a", "replies": replies}])).text)
    assert "18 tokens, log-probability -2.25 a token, 25% repeated, cut off" in text
    assert "Guided replies have a higher reward" in text
    assert "falls by 1.25" in text
    replies["guided"]["log_probability"] = -1.0
    text = " ".join(read(render_report(sample(), [{"prompt": "a", "replies": replies}])).text)
    assert "higher reward than" not in text


@pytest.mark.slow
def test_texts_are_escaped():
    examples = [
        {
            "prompt": [{"role": "user", "content": NASTY}],
            "replies": {NASTY: {"text": NASTY, "reward": -0.5}, "plain": NASTY},
        }
    ]
    html = render_report(sample(name=NASTY), examples, title=NASTY)
    reader = read(html)
    assert "script" not in reader.tags
    assert "img" not in reader.tags
    assert "<script" not in html
    assert sum(NASTY in text for text in ["".join(reader.text)]) == 1
    assert "".join(reader.text).count(NASTY) >= 6  # title, heading, model, prompt, name, replies


@pytest.mark.slow
def test_numbers_are_those_of_the_comparison():
    text = " ".join(read(render_report(sample())).text)
    assert "0.640 [0.580, 0.700]" in text
    assert "1 T" in text
    assert "0.0334" in text  # of DPO's operations: 1.001e12 of 3e13
    assert "1 min 42 s" in text
    assert "longer reply wins" in text
    assert "gap" in text


@pytest.mark.slow
def test_results_of_other_settings_are_other_pages():
    assert render_report(sample()) == render_report(sample())
    assert render_report(sample()) != render_report(sample(method("coala", 0.5)))


def test_a_method_without_history_or_certificate_has_no_chart_of_them():
    html = render_report(sample(method("linear", 0.5, history={}, flops={})))
    tags = read(html).tags
    assert "svg" not in tags
    assert tags.count("table") == 2
    assert "DPO" not in html


def test_examples_need_prompt_and_replies():
    with pytest.raises(ValueError, match=r"example 1 has the fields \['prompt'\]"):
        render_report(sample(), [{"prompt": "a", "replies": {}}, {"prompt": "a"}])


def svg(text: str | None) -> ElementTree.Element:
    assert text is not None
    return ElementTree.fromstring(text)


def curves(picture: ElementTree.Element) -> dict[str, list[tuple[float, float]]]:
    """Corners of each curve, by the name of its colour; the key of the legend is shorter."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in picture.iter("path"):
        color = re.search(r"stroke: var\(--(series-\d)\)", path.attrib.get("style", ""))
        if color and color[1] not in found and path.attrib["d"].count("L") > 0:
            numbers = re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"])
            found[color[1]] = [(float(x), float(y)) for x, y in numbers]
    return found


def with_history(**history: list[float | None]) -> MethodResult:
    names = {"training": "rewards/margins", "held_out": "eval_rewards/margins"}
    return method("dpo", 0.5, history={names.get(k, k): v for k, v in history.items()})


def test_curves_lie_where_their_values_do():
    result = with_history(step=[0, 1, 2], training=[0, 5, 10], held_out=[10, None, 10])
    picture = svg(margin_chart(result))
    a, b = (curves(picture)[f"series-{i}"] for i in (1, 2))
    assert a[0][0] < a[1][0] < a[2][0]
    assert a[0][1] - a[1][1] == pytest.approx(a[1][1] - a[2][1], abs=0.2)
    assert b == [(a[0][0], a[2][1]), a[2]]
    labels = [text.text for text in picture.iter("text")]
    assert {"step", "mean reward margin", "training pairs", "held-out pairs", "0", "10"} <= set(
        labels
    )


def test_all_marks_are_inside_the_picture():
    text = cost_chart(
        sample(
            method("a", 0.5, interval=[0.2, 0.8], flops={"fit": 3.0}),
            method("b", 0.9, interval=[0.0, 1.0], flops={"fit": 2e9}),
            method("<c> $x$", 0.1, interval=[0.0, 0.2], flops={"fit": 1e5}),
            method("d", 0.1, flops={}),
        )
    )
    picture = svg(text)
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    dots = {path.get("id") for path in picture.iter("path") if "C" in path.attrib["d"]}
    marks = [
        (float(use.attrib["x"]), float(use.attrib["y"]))
        for use in picture.iter("use")
        if "series-" in use.attrib["style"] and use.attrib["href"][1:] in dots
    ]
    assert len(marks) == 2 * 3  # and in the legend
    for x, y in marks:
        assert 0 < x < width
        assert 0 < y < height
    bars = re.findall(r'd="M (\S+) (\S+)\s+L \1 (\S+)\s+" style="[^"]*series-', str(text))
    ends = [(float(x), float(low), float(high)) for x, low, high in bars][:3]
    assert [x for x, *_ in ends] == [x for x, _ in marks[:3]]
    whole = ends[1][1] - ends[1][2]  # from 0 to 1
    shares = [(low - high) / whole for _, low, high in ends]
    assert shares == pytest.approx([0.6, 1.0, 0.2], abs=1e-3)
    assert all(0 < high < low < height for _, low, high in ends)
    (ax, _), (bx, by), (cx, cy) = marks[:3]
    assert ax < cx < bx
    assert by < cy
    labels = [text.text for text in picture.iter("text")]
    assert {"a", "b", "<c> $x$", "longer reply wins", "FLOPs of training"} <= set(labels)
    assert "d" not in labels
    assert [title.text for title in picture.iter("title")][1] == "b: 0.900, 2 G FLOPs"


def test_no_number_at_the_end_of_an_axis_is_cut_off(monkeypatch):
    drawn, write = [], charts.to_svg
    monkeypatch.setattr(
        charts, "to_svg", lambda figure, *a: drawn.append(figure) or write(figure, *a)
    )
    course = {"seconds": [0.69], "rewards/margins": [0.15291], "eval_rewards/margins": [0.00883]}
    # 0.16 would stand 0.1 % below the end; without it, the numbers are longer.
    picture = svg(margin_chart(method("coala", 0.7, history=course)))
    [title] = [text for text in picture.iter("text") if text.text == "mean reward margin"]
    assert float(title.attrib["x"]) > 8  # of a font of 11, above its line
    [figure] = drawn
    [ax], (_, _, width, height) = figure.axes, figure.bbox.bounds
    for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        for tick, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True):
            if limits[0] <= tick <= limits[1]:
                box = label.get_window_extent()
                assert 0 <= box.x0 < box.x1 <= width
                assert 0 <= box.y0 < box.y1 <= height


def test_values_that_are_not_finite_are_left_out():
    nan = math.nan
    result = with_history(step=[0, 1, 2], training=[0, nan, 1], held_out=[nan, None, nan])
    [line] = curves(svg(margin_chart(result))).values()
    assert len(line) == 2
    assert margin_chart(with_history(step=[0], training=[nan])) is None
    assert margin_chart(with_history(step=[0])) is None
    assert cost_chart(sample(method("coala", 0.5, flops={}))) is None


def test_colours_and_fonts_are_those_of_the_page():
    html = render_report(sample())
    style, body = html.split("</style>")
    assert not re.search(r"#[0-9a-f]{3,8}\b(?=[;\"])|rgb\(", body)
    light, dark = style.split("prefers-color-scheme: dark")
    for name in set(re.findall(r"var\((--[a-z0-9-]+)\)", html)):
        assert f"{name}: #" in light
        assert f"{name}: #" in dark
    assert "svg text { font-family: inherit !important; }" in style


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_names_the_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"'{package}'.*pip install \"cvxnn\[plot\]\""):
        importlib.reload(cvxnn.comparison.report)
