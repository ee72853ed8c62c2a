"""Pages in a browser, from a telephone to a wide screen: nothing is cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cvxnn.comparison.report import render_report
from cvxnn.comparison.report.joint_page import render_joint_report

from .browser import WIDTHS, cut_off, find_browser
from .test_report import sample

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed"),
]


def comparison_page() -> str:
    known: dict[str, Any] = {"n_tokens": 18, "repetition": 0.25, "ending": "length"}
    replies = {
        "plain": {"text": "So. " * 80, "reward": 0.5, "log_probability": -1.0, **known},
        "guided": {"text": "Ah, " * 90, "reward": 0.7, "log_probability": -2.25, **known},
    }
    return render_report(sample(), [{"prompt": "why " * 40, "replies": replies}])


def joint_page() -> str:
    measured = {
        "dpo": 0.5831,
        "sft": 2.005,
        "dpo_gap": 0.5831,
        "sft_gap": 0.005635,
        "ideal_distance": 0.6156,
        "excess": -2e-11,
        "preferences": {"accuracy": 1.0},
        "demonstrations": 0.25,
    }
    policies = [
        {"strategy": strategy, "lam": lam, **measured}
        for strategy in ("exact", "sequential", "mix", "alright", "maxright")
        for lam in (0.1, 0.5)
    ]
    front = {"dpo": [0.1, 0.6], "sft": [3.0, 2.0], "ideal": [0.1, 2.0]}
    return render_joint_report({"policies": policies, "front": front})


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", [comparison_page, joint_page])
def test_nothing_is_cut_off(page: Callable[[], str], width: int) -> None:
    assert cut_off(page(), width) == []


def test_what_is_too_wide_is_found() -> None:
    picture = '<svg width="90" height="20"><text x="80" y="9">long</text></svg>'
    found = cut_off(f'<body><p style="width: 500px">wide</p>{picture}', 360)
    assert [text.partition(":")[0] for text in found] == ["P", "text"]


def test_broken_names_of_rows_are_found() -> None:
    row = "<tbody><tr><th>long name</th></tr></tbody>"
    style = "<style>th { max-width: 1em; white-space: normal; overflow-wrap: anywhere }</style>"
    assert cut_off(f"{style}<table>{row}</table>", 360) == ["WORD: long", "WORD: name"]
