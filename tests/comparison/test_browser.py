"""Pages in a browser, from a telephone to a wide screen: nothing is cut off."""

from __future__ import annotations

from typing import Any

import pytest

from cvxnn.comparison.report import render_report

from .browser import WIDTHS, cut_off, find_browser
from .test_report import sample

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def page() -> str:
    known: dict[str, Any] = {"n_tokens": 18, "repetition": 0.25, "ending": "length"}
    replies = {
        "plain": {"text": "So. " * 80, "reward": 0.5, "log_probability": -1.0, **known},
        "guided": {"text": "Ah, " * 90, "reward": 0.7, "log_probability": -2.25, **known},
    }
    return render_report(sample(), [{"prompt": "why " * 40, "replies": replies}])


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off(page: str, width: int) -> None:
    assert cut_off(page, width) == []


def test_what_is_too_wide_is_found() -> None:
    picture = '<svg width="90" height="20"><text x="80" y="9">long</text></svg>'
    found = cut_off(f'<body><p style="width: 500px">wide</p>{picture}', 360)
    assert [text.partition(":")[0] for text in found] == ["P", "text"]
