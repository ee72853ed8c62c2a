"""Files of RewardBench: round trips, accuracies, invalid rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.evaluation import (
    RewardBenchRow,
    read_reward_bench,
    reward_bench_accuracies,
    write_reward_bench,
    write_reward_bench_scores,
)
from cvxnn.preference import read_preferences

replies = st.text(st.characters(codec="utf-8"), max_size=20)


texts = replies.filter(str.strip)


PAIRS = [
    RewardBenchRow("p", "yes", "no", "easy", 7, "m1", "m2"),
    RewardBenchRow("q", "right", "wrong", "hard", 8),
    RewardBenchRow("r", "true", "false", "easy", 9),
]


@settings(max_examples=30)
@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5))
def test_reward_bench_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    path = tmp_path_factory.mktemp("bench") / "rows.jsonl"
    pairs = [RewardBenchRow(*row, "subset", number) for number, row in enumerate(rows)]
    write_reward_bench(path, pairs)
    assert read_reward_bench(path) == pairs


def test_reward_bench_is_read_as_preferences_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_reward_bench(path, PAIRS)
    triplets = read_preferences(path)
    assert [(t.prompt, t.chosen, t.rejected) for t in triplets] == [
        (row.prompt, row.chosen, row.rejected) for row in PAIRS
    ]


def test_reward_bench_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id 7 is repeated"):
        write_reward_bench(tmp_path / "rows.jsonl", [PAIRS[0], PAIRS[0]])
    with pytest.raises(ValueError, match="row 0: 'rejected' is empty"):
        write_reward_bench(tmp_path / "rows.jsonl", [RewardBenchRow("p", "c", "", "s", 1)])
    assert list(tmp_path.iterdir()) == []


def test_reward_bench_accuracy_takes_a_tie_for_an_error() -> None:
    found = reward_bench_accuracies(PAIRS, [1.0, 2.0, 3.0], [0.0, 2.0, 4.0])
    assert found == {"easy": 0.5, "hard": 0.0}
    for wrong in ([1.0], [1.0, 2.0, np.nan]):
        with pytest.raises(ValueError, match="one finite number for each row"):
            reward_bench_accuracies(PAIRS, wrong, [0.0, 0.0, 0.0])


def test_reward_bench_scores_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_reward_bench_scores(path, PAIRS, [1, 2, 3], [0, 2, 4], model="head")
    columns = json.loads(path.read_text())
    assert columns["results"] == [1, 0, 0]
    assert columns["scores_rejected"] == [0, 2, 4]
    assert columns["subset"] == ["easy", "hard", "easy"]
    assert columns["text_chosen"][0] == "p\n\nyes"
    assert (columns["model"], columns["id"]) == ("head", [7, 8, 9])
