"""Metrics of rewards by hand."""

import numpy as np
import pytest

from cvxnn.preference import metrics


def test_pair_accuracy_counts_a_tie_as_half() -> None:
    assert metrics.pair_accuracy([1.0, 2.0, -1.0, 0.0]) == 0.625


@pytest.mark.parametrize(("margin", "expected"), [(1e-300, 1.0), (0.0, 0.5), (-1e-300, 0.0)])
def test_pair_accuracy_of_one_pair(margin: float, expected: float) -> None:
    assert metrics.pair_accuracy([margin]) == expected


def test_pair_accuracy_refuses_no_pairs() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        metrics.pair_accuracy([])


def test_reward_metrics_by_hand() -> None:
    found = metrics.reward_metrics([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 4.0, -2.0])
    assert found == {
        "rewards/chosen": 1.5,
        "rewards/rejected": 1.0,
        "rewards/margins": 0.5,
        "rewards/accuracies": 0.625,
    }
    assert all(type(value) is float for value in found.values())


def test_reward_metrics_take_whole_numbers() -> None:
    assert metrics.reward_metrics([1, 2], [0, 5])["rewards/margins"] == -1


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [([1.0, 2.0], [1.0]), (np.ones((3, 1)), np.ones(3)), (np.ones((3, 1)), np.ones((3, 1)))],
)
def test_reward_metrics_refuse_what_is_not_pairs(chosen: object, rejected: object) -> None:
    with pytest.raises(ValueError, match="same pairs"):
        metrics.reward_metrics(chosen, rejected)


def test_reward_metrics_refuse_no_pairs() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        metrics.reward_metrics([], [])


def test_swapping_sides_flips_the_metrics() -> None:
    rng = np.random.default_rng(0)
    won, lost = rng.standard_normal((2, 9))
    there, back = metrics.reward_metrics(won, lost), metrics.reward_metrics(lost, won)
    assert there["rewards/margins"] == pytest.approx(-back["rewards/margins"])
    assert there["rewards/accuracies"] == pytest.approx(1 - back["rewards/accuracies"])


def test_length_accuracy_prefers_the_longer_reply() -> None:
    assert metrics.length_accuracy(["long reply", "a", "tie"], ["short", "bb", "eit"]) == 0.5


def test_length_accuracy_refuses_unequal_lists() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        metrics.length_accuracy(["a", "b"], ["c"])
