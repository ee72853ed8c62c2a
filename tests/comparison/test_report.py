"""The page is whole, stands alone, and shows texts as texts."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from cvxnn.comparison import Comparison, MethodResult
from cvxnn.comparison.report import Point, line_chart, render, scatter_chart
from cvxnn.comparison.report.charts import number, ticks

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
        baselines={"longer reply wins": {"accuracy": 0.55, "standard_error": 0.04}},
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


def test_page_is_well_formed_and_loads_nothing():
    reader = read(render(sample(), [{"prompt": "Why?", "replies": {"plain": "So."}}]))
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & set(reader.tags)
    assert not LOADS & {name for name, _ in reader.attributes}
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    html = render(sample())
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert reader.tags.count("table") == 3
    assert reader.tags.count("svg") == 3


def test_texts_are_escaped():
    examples = [
        {
            "prompt": [{"role": "user", "content": NASTY}],
            "replies": {NASTY: {"text": NASTY, "reward": -0.5}, "plain": NASTY},
        }
    ]
    html = render(sample(name=NASTY), examples, title=NASTY)
    reader = read(html)
    assert "script" not in reader.tags
    assert "img" not in reader.tags
    assert "<script" not in html
    assert sum(NASTY in text for text in ["".join(reader.text)]) == 1
    assert "".join(reader.text).count(NASTY) >= 6  # title, heading, model, prompt, name, replies


def test_numbers_are_those_of_the_comparison():
    text = " ".join(read(render(sample())).text)
    assert "0.640 ± 0.030" in text
    assert "1 T" in text
    assert "0.0334" in text  # of DPO's operations: 1.001e12 of 3e13
    assert "1 min 42 s" in text
    assert "longer reply wins" in text
    assert "gap" in text


def test_results_of_other_settings_are_other_pages():
    assert render(sample()) == render(sample())
    assert render(sample()) != render(sample(method("coala", 0.5)))


def test_a_method_without_history_or_certificate_has_no_chart_of_them():
    html = render(sample(method("linear", 0.5, history={}, flops={})))
    tags = read(html).tags
    assert "svg" not in tags
    assert tags.count("table") == 2
    assert "DPO" not in html


def test_examples_need_prompt_and_replies():
    with pytest.raises(ValueError, match=r"example 1 has the fields \['prompt'\]"):
        render(sample(), [{"prompt": "a", "replies": {}}, {"prompt": "a"}])


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_curves_lie_where_their_values_do():
    picture = svg(line_chart({"a": ([0, 1, 2], [0, 5, 10]), "b": ([0, 2], [10, 10])}, "x", "y"))
    a, b = (
        [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
        for line in picture.iter("polyline")
    )
    assert a[0][0] < a[1][0] < a[2][0]
    assert a[0][1] - a[1][1] == pytest.approx(a[1][1] - a[2][1], abs=0.2)
    assert b[0] == (a[0][0], a[2][1])
    labels = [text.text for text in picture.iter("text")]
    assert {"x", "y", "a", "b", "0", "10"} <= set(labels)


def test_all_marks_are_inside_the_picture():
    points = {"a": Point(3.0, 0.5, 0.2), "b": Point(2e9, 0.9), "<c>": Point(1e5, 0.1, 0.05)}
    picture = svg(scatter_chart(points, "cost", "share"))
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    circles = list(picture.iter("circle"))
    assert len(circles) == 3
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < width
        assert 0 < float(circle.attrib["cy"]) < height
    assert float(circles[0].attrib["cx"]) < float(circles[2].attrib["cx"])
    assert float(circles[1].attrib["cy"]) < float(circles[2].attrib["cy"])


def test_what_is_not_finite_is_left_out():
    nan = float("nan")
    picture = svg(line_chart({"a": ([0, 1, 2], [0, nan, 1]), "b": ([0], [nan])}, "x", "y"))
    [line] = picture.iter("polyline")
    assert len(line.attrib["points"].split()) == 2
    with pytest.raises(ValueError, match="nothing to draw"):
        line_chart({"a": ([0], [nan])}, "x", "y")
    with pytest.raises(ValueError, match="nothing to draw"):
        scatter_chart({"a": Point(0.0, 1.0)}, "x", "y")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.2, 7.7), (0.52, 0.53), (5, 5), (0, 0), (-1e-9, 1e-9), (0, 12345)]
)
def test_ticks_are_round_and_hold_the_range(low, high):
    values = ticks(low, high)
    assert 2 <= len(values) <= 7
    assert values[0] <= low
    assert values[-1] >= high
    steps = {round((b - a) / (values[1] - values[0]), 6) for a, b in itertools.pairwise(values)}
    assert steps == {1.0}


@pytest.mark.parametrize(
    ("value", "text"), [(0.30000000000000004, "0.3"), (-2.0, "−2"), (-0.0, "0"), (1e7, "1e7")]
)
def test_numbers_of_axes(value, text):
    assert number(value) == text
