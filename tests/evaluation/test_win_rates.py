"""Win rates: computation by hand, comparison with SciPy, symmetries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cvxnn.evaluation import Judgement, pairwise_win_rates, win_rate, win_rates_by_group

preference_lists = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30)


def test_win_rate_by_hand() -> None:
    rate = win_rate([1, 1, 0, 0.5])
    assert rate.rate == 0.625
    assert (rate.wins, rate.losses, rate.ties) == (2, 1, 1)
    assert rate.standard_error == pytest.approx(stats.sem([1, 1, 0, 0.5]))


def test_ties_may_be_left_out() -> None:
    rate = win_rate([1, 1, 0, 0.5, 0.5], ties="exclude")
    assert rate.rate == pytest.approx(2 / 3)
    assert (rate.wins, rate.losses, rate.ties) == (2, 1, 2)
    with pytest.raises(ValueError, match="all preferences are ties"):
        win_rate([0.5, 0.5], ties="exclude")


@pytest.mark.parametrize(("wins", "n"), [(0, 7), (3, 7), (7, 7), (40, 97)])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_interval_is_wilsons(wins: int, n: int, confidence: float) -> None:
    found = win_rate([1] * wins + [0] * (n - wins), confidence=confidence).interval
    low, high = stats.binomtest(wins, n).proportion_ci(confidence, method="wilson")
    assert found == pytest.approx((low, high), abs=1e-12)


@given(preference_lists)
def test_swapped_sides_mirror_the_win_rate(preferences: list[float]) -> None:
    there, back = win_rate(preferences), win_rate(1 - np.array(preferences))
    assert there.rate == pytest.approx(1 - back.rate)
    assert there.interval == pytest.approx((1 - back.interval[1], 1 - back.interval[0]))
    assert (there.wins, there.ties) == (back.losses, back.ties)
    assert 0 <= there.interval[0] <= there.rate <= there.interval[1] <= 1


@given(preference_lists, st.data())
def test_win_rate_is_monotone(preferences: list[float], data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(preferences) - 1))
    better = [*preferences[:i], 1.0, *preferences[i + 1 :]]
    assert win_rate(better).rate >= win_rate(preferences).rate


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        ([], "expected at least one"),
        ([0.5, 1.5], r"preferences\[1\] is 1.5"),
        ([0.5, math.nan], "NaN"),
        ([[0.5]], r"shape \(1, 1\)"),
    ],
)
def test_refused_preferences(preferences: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        win_rate(preferences)


def test_refused_settings() -> None:
    with pytest.raises(ValueError, match="confidence is 95"):
        win_rate([1.0], confidence=95)
    with pytest.raises(ValueError, match="'half' or 'exclude'"):
        win_rate([1.0], ties="drop")
    with pytest.raises(ValueError, match="groups has 1 entries; expected 2"):
        win_rates_by_group([1.0, 0.0], ["a"])


def test_one_preference_has_no_standard_error() -> None:
    assert math.isnan(win_rate([1.0]).standard_error)


def test_groups_keep_their_order() -> None:
    rates = win_rates_by_group([1, 0, 1, 0.5], ["b", "a", "b", "a"])
    assert {name: rate.rate for name, rate in rates.items()} == {"b": 1.0, "a": 0.25}
    assert list(rates) == ["b", "a"]


def test_judgement_checks_its_preference() -> None:
    assert Judgement("p", "abc", "a", 1.0).length_difference == 2
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="expected a number from 0"):
            Judgement("p", "a", "b", wrong)


def test_pairwise_table() -> None:
    def verdict(a: str, b: str, preference: float) -> Judgement:
        return Judgement("p", "x", "y", preference, None, a, b)

    meetings = [("b", "a", 1.0), ("a", "b", 1.0), ("b", "a", 1.0), ("c", "a", 0.5)]
    table = pairwise_win_rates(verdict(*meeting) for meeting in meetings)
    assert table.systems == ("b", "c", "a")
    assert table.rates[0, 2] == pytest.approx(2 / 3)
    assert table.rates[2, 0] == pytest.approx(1 / 3)
    assert table.counts[0, 2] == table.counts[2, 0] == 3
    assert math.isnan(table.rates[0, 1])
    assert table.mean == pytest.approx([2 / 3, 0.5, (1 / 3 + 0.5) / 2])
    lines = str(table).splitlines()
    assert lines[2] == "| b |  |  | 66.7% | 66.7% |"
    assert len({line.count("|") for line in lines}) == 1


@given(
    st.lists(st.tuples(st.permutations("abc"), st.sampled_from([0.0, 0.5, 0.8, 1.0])), min_size=1)
)
def test_pairwise_rates_and_their_mirror_are_one(rows: list) -> None:
    verdicts = [Judgement("p", "x", "y", p, None, names[0], names[1]) for names, p in rows]
    table = pairwise_win_rates(verdicts)
    met = table.counts > 0
    assert (table.counts == table.counts.T).all()
    assert table.counts.sum() == 2 * len(verdicts)
    np.testing.assert_allclose((table.rates + table.rates.T)[met], 1.0)
    assert (np.diff(table.mean) <= 1e-12).all()


def test_pairwise_needs_two_names() -> None:
    with pytest.raises(ValueError, match="two different names"):
        pairwise_win_rates([Judgement("p", "x", "y", 1.0, None, "a", "a")])
    with pytest.raises(ValueError, match="at least one"):
        pairwise_win_rates([])


def test_text_of_a_win_rate() -> None:
    assert str(win_rate([1, 0])) == "50.0% [9.5%, 90.5%] (1 won, 1 lost, 0 tied)"
