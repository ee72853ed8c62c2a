"""FastChat's verdicts on pairs of models, against its own way of counting them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from cvxnn.evaluation import MTBenchVerdict, read_mt_bench_verdicts, win_rate

WINNERS = ("model_1", "model_2", "tie", "error")


def row(k: int, first: str, second: str) -> dict[str, Any]:
    """A row as FastChat writes it; each other one has the models in the other order."""
    models = ("ours", "base") if k % 2 == 0 else ("base", "ours")
    return {
        "question_id": 81 + k,
        "model_1": models[0],
        "model_2": models[1],
        "g1_winner": first,
        "g2_winner": second,
        "judge": ["gpt-4", "pair-v2"],
        "g1_user_prompt": "",
        "g1_judgment": "",
        "g2_user_prompt": "",
        "g2_judgment": "",
        "turn": 1 + k % 2,
        "tstamp": 1.0,
    }


def counted(rows: list[dict[str, Any]]) -> list[int]:
    """Wins, losses and ties of "ours", counted as ``show_result.py`` of FastChat does."""
    counts = [0, 0, 0]
    for each in rows:
        games = each["g1_winner"], each["g2_winner"]
        if "error" in games:
            continue
        if games[0] == "tie" or games[0] != games[1]:
            counts[2] += 1
        else:
            counts[each[games[0]] != "ours"] += 1
    return counts


def test_verdicts_are_counted_as_by_fastchat(tmp_path: Path) -> None:
    rows = [row(k, *games) for k, games in enumerate(itertools.product(WINNERS, repeat=2))]
    rows += [row(k, "model_1", "model_1") for k in (0, 2, 3)]
    file = tmp_path / "gpt-4_pair.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")
    verdicts = read_mt_bench_verdicts(file)
    assert verdicts[0] == MTBenchVerdict(81, "ours", "base", 1, (1.0, 1.0))
    assert [v.consistent for v in verdicts[:3]] == [True, False, False]
    found = win_rate([v.preference("ours") for v in verdicts])
    assert [found.wins, found.losses, found.ties] == counted(rows)
    assert [v.preference("base") + v.preference("ours") for v in verdicts] == [1.0] * len(verdicts)
    with pytest.raises(ValueError, match="expected 'ours' or 'base'"):
        verdicts[0].preference("gpt-4")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("g2_winner", "A", r":1: 'g2_winner' is 'A'; expected one of \['model_1', 'tie'"),
        ("turn", "1", "'turn'"),
        ("model_1", "", "'model_1'"),
    ],
)
def test_malformed_rows(field: str, value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({**row(0, "tie", "tie"), field: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_mt_bench_verdicts(file)
