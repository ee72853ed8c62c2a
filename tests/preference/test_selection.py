"""The best of several replies, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from cvxnn.preference import best_replies


def test_choices_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    prompts = [f"p{i}" for i in rng.integers(0, 12, 100)]
    responses = [f"r{i}" for i in range(100)]
    rewards = rng.standard_normal((3, 100))
    for table in (rewards[:1], rewards):
        found = best_replies(table, prompts, responses, least_margin=0.2)
        assert [prompts[best.row] for best in found] == list(dict.fromkeys(prompts))
        for best, prompt in zip(found, dict.fromkeys(prompts), strict=True):
            rows = [i for i in range(100) if prompts[i] == prompt]
            values = []
            for i in rows:
                lowest = np.inf
                for head in table:
                    mean = sum(head[j] for j in rows) / len(rows) if len(table) > 1 else 0.0
                    lowest = min(lowest, head[i] - mean)
                values.append(lowest)
            second, first = sorted(values)[-2:] if len(rows) > 1 else (-np.inf, values[0])
            assert best.rows == tuple(rows)
            assert best.margin == pytest.approx(first - second)
            expected = rows[values.index(first)] if first - second >= 0.2 else rows[0]
            assert best.row == expected
            assert best.value == pytest.approx(values[rows.index(expected)])
            assert (best.verdict == "abstained") == (first - second < 0.2)


def test_ties_and_equal_texts() -> None:
    prompts, responses = ["q"] * 4, ["a", "b", "b", "c"]
    tied, alone = (
        best_replies([0.0, 1.0, 1.0, last], prompts, responses)[0] for last in (1.0, 0.5)
    )
    assert (tied.row, tied.verdict, tied.margin) == (1, "tied", 0.0)
    assert (alone.row, alone.verdict, alone.margin) == (1, "chosen", 0.5)
    [only] = best_replies([1.0, 1.0], ["q"] * 2, ["a"] * 2, least_margin=3.0)
    assert (only.row, only.verdict, only.rows) == (0, "only", (0, 1))
    # Without a choice the first reply of the prompt is kept.
    [kept] = best_replies([0.0, 1.0, 1.0], ["q"] * 3, ["a", "b", "c"], least_margin=0.1)
    assert (kept.row, kept.verdict) == (0, "tied")


def test_a_reply_that_one_head_alone_likes_does_not_win() -> None:
    rewards = [[9.0, 1.0, 0.0], [100.0, 101.0, 100.5]]
    [one] = best_replies(rewards[0], ["q"] * 3, ["a", "b", "c"])
    [both] = best_replies(rewards, ["q"] * 3, ["a", "b", "c"])
    assert (one.row, both.row) == (0, 0 if min(1 - 10 / 3, 0.5) < -0.5 else 1)


@pytest.mark.parametrize(
    ("rewards", "options", "message"),
    [
        ([1.0], {}, "expected one of each"),
        ([1.0, np.nan], {}, "not finite"),
        ([1.0, 2.0], {"least_margin": -1.0}, "at least 0"),
    ],
)
def test_bad_values(rewards: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        best_replies(rewards, ["q", "q"], ["a", "b"], **options)


def test_caution_prefers_what_is_known():
    rewards, deviations = [1.0, 0.9, 0.2], [0.5, 0.1, 0.0]
    rows = ["q"] * 3, ["a", "b", "c"]
    for caution, best in ((0.0, 0), (1.0, 1), (10.0, 2)):
        (found,) = best_replies(rewards, *rows, deviations=deviations, caution=caution)
        assert found.row == best
        assert found.value == rewards[best] - caution * deviations[best]
    with pytest.raises(ValueError, match="caution needs deviations"):
        best_replies(rewards, *rows, caution=1.0)
    with pytest.raises(ValueError, match="caution is -1"):
        best_replies(rewards, *rows, deviations=deviations, caution=-1)
    with pytest.raises(ValueError, match="not negative for each"):
        best_replies(rewards, *rows, deviations=[-1.0, 0, 0], caution=1.0)
