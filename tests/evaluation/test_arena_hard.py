"""Files of Arena-Hard, and what its verdicts and those of other benchmarks mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvxnn.evaluation import (
    ArenaHardQuestion,
    ArenaHardVerdict,
    read_arena_hard_judgements,
    read_arena_hard_questions,
    win_rate,
)
from cvxnn.evaluation.endpoint_judge import TEMPLATE, preference_in
from cvxnn.evaluation.protocols import MT_BENCH, PAIR_TEMPLATES


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_questions_of_both_versions(tmp_path: Path) -> None:
    old = {"question_id": "ab", "cluster": "Physics", "turns": [{"content": "Why?"}]}
    new = {"uid": "cd", "category": "hard_prompt", "subcategory": "coding", "prompt": "How?"}
    assert read_arena_hard_questions(write(tmp_path / "q.jsonl", old, new)) == [
        ArenaHardQuestion("ab", "Why?", "Physics"),
        ArenaHardQuestion("cd", "How?", "coding"),
    ]
    for bad, said in (
        ({"uid": "x"}, "turns"),
        ({"prompt": "x"}, "question_id"),
        ({**old, "turns": []}, "turns"),
    ):
        with pytest.raises(ValueError, match=said):
            read_arena_hard_questions(write(tmp_path / "bad.jsonl", bad))


def test_the_model_is_second_in_the_first_game_and_first_in_the_second(tmp_path: Path) -> None:
    def row(*scores: str | None) -> dict[str, object]:
        games = [{"score": score} for score in scores]
        return {"question_id": "q", "model": "ours", "judge": "gpt-4", "games": games}

    rows = [row("B>>A", "A>B"), row("A>B", "A>B"), row("A=B", "B>A"), row(None, "B>>A"), row(None)]
    found = read_arena_hard_judgements(write(tmp_path / "ours.jsonl", *rows))
    assert found[0] == ArenaHardVerdict("q", "ours", (1.0, 1.0))
    assert [each.preference for each in found] == [1.0, 0.5, 0.25, 0.0]
    assert [each.consistent for each in found] == [True, False, False, None]
    assert win_rate([p for each in found for p in each.games], ties="exclude").rate == 0.5
    with pytest.raises(ValueError, match="score of a game is 'A<B'"):
        read_arena_hard_judgements(write(tmp_path / "bad.jsonl", row("A<B")))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("My answer is 4. [[A>>B]]", 1.0),
        ("[[B>A]] is too much: [[A=B]]", 0.5),
        ("[[B>>A]]", 0.0),
        ("[[C]]", 0.5),
        ("Verdict: m", 1.0),
        ("I thought of m.\nM", 0.0),
        ("m is good and so is the other.", None),
        ("[[8]]", None),
    ],
)
def test_verdicts_in_the_forms_of_the_benchmarks(said: str, expected: float | None) -> None:
    assert preference_in(said) == expected


def test_templates_show_what_is_judged() -> None:
    for template in (TEMPLATE, *PAIR_TEMPLATES.values()):
        assert all(place in template for place in ("{prompt}", "{first}", "{second}"))
    assert "{conversation}" in MT_BENCH
    assert "{reference}" in MT_BENCH
    assert all(f"[[{level}]]" in PAIR_TEMPLATES["arena-hard"] for level in ("A>>B", "A=B", "B>>A"))
