"""The page of an evaluation says what it measured, and what limits it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("matplotlib")
page = pytest.importorskip("cvxnn.comparison.report.evaluation_page")


def system(prompts: int = 40, *, overlap: float = 0.3, ties: int = 0) -> dict[str, Any]:
    won = prompts - ties
    rate = {"rate": 0.75, "interval": [0.6, 0.9], "wins": won, "losses": 0, "ties": ties}
    return {
        "prompts": prompts,
        "win_rate": rate,
        "without_ties": rate if won else None,
        "length_controlled": {"rate": 0.625, "overlap": overlap},
        "length_difference": 12.3,
        "position_bias": None,
    }


def result(judge: str = "m at http://localhost", **systems: Any) -> dict[str, Any]:
    return {"judge": judge, "baseline": "plain", "systems": systems, "unclear": 0}


def test_all_numbers_are_on_the_page() -> None:
    shown = page.render_evaluation({"": result(coala=system(), **{"<way>": system()})})
    for text in ("COALA", "75.0 %", "62.5 %", "60.0 % to 90.0 %", "+12", "&lt;way&gt;", "<svg"):
        assert text in shown
    assert "<way>" not in shown
    assert "What limits these numbers" not in shown
    grades = {"dpo": {"score": 4.5, "turn 1": 4.0, "ungraded": 0.0}, "plain": {"score": 3.0}}
    shown = page.render_evaluation({"mt-bench": {"judge": "m at http://x", "scores": grades}})
    assert "MT-Bench (table 6)" in shown
    assert ">4.50<" in shown
    assert shown.count("–") == 2  # plain has no first turn, and no number of ungraded ones


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (result(dpo=system(12)), "12 prompts: a method has to win nearly all"),
        (result(dpo=system(overlap=0.01)), "DPO: one side wrote nearly all of the longer replies"),
        (result("words of 9 pairs", dpo=system()), "no language model: words of 9 pairs"),
        ({**result(dpo=system()), "own_head": True}, "it chose or guided itself"),
        ({**result(dpo=system()), "unclear": 3}, "3 answers of the judge had no verdict"),
        (result(dpo=system(ties=40)), "DPO: every prompt is a tie"),
    ],
)
def test_limits_are_named(found: dict[str, Any], sentence: str) -> None:
    assert sentence in page.render_evaluation({"": found})


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(ValueError, match="expected some of"):
        page.render_evaluation({"mt-bank": result(dpo=system())})
