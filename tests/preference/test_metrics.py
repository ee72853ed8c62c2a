"""Metrics of rewards, computed by hand."""

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


# Length


def test_length_bias_by_hand() -> None:
    chosen = ["aaaa", "aaa", "a", "aa", "b"]
    rejected = ["a", "a", "aaa", "aa", "aaaaa"]
    bias = metrics.length_bias(chosen, rejected, margins=[1.0, -1.0, 2.0, 5.0, 0.0])
    assert (bias.pairs, bias.longer, bias.shorter) == (5, 2, 2)
    assert bias.accuracy == 0.5  # two right, one tie
    assert bias.standard_error == pytest.approx(np.std([1, 1, 0, 0.5, 0]) / np.sqrt(5))
    assert (bias.chosen_length, bias.rejected_length) == (2.2, 2.4)
    assert bias.head_accuracy == pytest.approx(3.5 / 5)
    assert bias.longer_accuracy == 0.5
    assert bias.longer_standard_error == pytest.approx(0.5 / np.sqrt(2))
    assert bias.shorter_accuracy == 0.75
    assert bias.correlation == pytest.approx(
        np.corrcoef([1.0, -1.0, 2.0, 5.0, 0.0], [3, 2, -2, 0, -4])[0, 1]
    )
    text = str(bias)
    assert "longer in 2, shorter in 2, equally long in 1" in text
    assert "the longer reply wins    0.500 +- 0.200" in text
    assert "chosen reply shorter   0.750 +- 0.177" in text


def test_a_head_that_measures_length_is_found_out() -> None:
    rng = np.random.default_rng(0)
    chosen, rejected = (["a" * n for n in rng.integers(1, 99, 200)] for _ in range(2))
    margins = [len(won) - len(lost) for won, lost in zip(chosen, rejected, strict=True)]
    bias = metrics.length_bias(chosen, rejected, margins)
    assert bias.correlation == pytest.approx(1.0)
    assert (bias.longer_accuracy, bias.shorter_accuracy) == (1.0, 0.0)
    assert bias.head_accuracy == bias.accuracy == metrics.length_accuracy(chosen, rejected)
    turned = metrics.length_bias(rejected, chosen, np.negative(margins))
    assert turned.accuracy == pytest.approx(1 - bias.accuracy)
    assert turned.standard_error == pytest.approx(bias.standard_error)


def test_the_standard_error_is_the_spread_of_the_accuracy() -> None:
    rng = np.random.default_rng(1)
    drawn = [
        metrics.length_bias(["aa"] * 50, ["a" if u < 0.7 else "aaa" for u in rng.random(50)])
        for _ in range(400)
    ]
    spread = np.std([bias.accuracy for bias in drawn])
    assert np.mean([bias.standard_error for bias in drawn]) == pytest.approx(spread, rel=0.1)


def test_what_cannot_be_said_is_nan() -> None:
    bias = metrics.length_bias(["aa", "aaa"], ["a", "a"])
    assert np.isnan([bias.head_accuracy, bias.correlation, bias.shorter_accuracy]).all()
    assert "the head" not in str(bias)
    bias = metrics.length_bias(["aa", "aaa"], ["a", "a"], [1.0, 1.0])
    assert bias.head_accuracy == 1.0
    assert np.isnan([bias.correlation, bias.shorter_accuracy]).all()
    said = str(bias)
    assert "the head                 1.000, error not known" in said
    assert "chosen reply shorter   no such pairs" in said
    assert "correlation not known" in said


@pytest.mark.parametrize(
    ("chosen", "rejected", "margins", "message"),
    [
        ([], [], None, "at least one pair"),
        (["a"], ["b"], [1.0, 2.0], r"margins has shape \(2,\); expected one margin"),
        (["a"], [], None, "argument 2 is shorter"),
        (["a"], ["b"], [np.nan], "margins has a value that is not finite"),
    ],
)
def test_length_bias_refuses_what_is_not_pairs(
    chosen: list[str], rejected: list[str], margins: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.length_bias(chosen, rejected, margins)
