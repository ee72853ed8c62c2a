"""Responses and their pairs: pairing by prompt, parts, folds that split nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.estimators._responses import Responses


def pairs(n: int = 60, d: int = 6, shift: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)) + shift, rng.standard_normal((n, d)) - shift


def test_responses_that_share_a_prompt_stay_together() -> None:
    won, lost = pairs(12)
    X = np.concatenate([won, lost])
    links = np.array([[0, 12], [0, 13], [1, 13], [2, 14], [3, 15], [4, 16]])
    rows = Responses(X, np.arange(24) < 12, np.ones(24), links, np.arange(6.0) + 1)
    for seen, unseen in rows.folds(3):
        inside = np.isin(links, unseen)
        assert (inside.all(axis=1) == inside.any(axis=1)).all()
        assert {0, 1, 12, 13} <= set(seen) or {0, 1, 12, 13} <= set(unseen)
        part = rows.take(unseen)
        np.testing.assert_array_equal(unseen[part.pairs], links[inside.all(axis=1)])
        np.testing.assert_array_equal(part.pair_weight, (np.arange(6.0) + 1)[inside.all(axis=1)])
        assert set(range(5, 12)) <= set(seen)


def test_equal_responses_stay_together() -> None:
    won, lost = pairs(12)
    X = np.concatenate([won, lost, won[:6]])
    preferred = np.repeat([True, False, True], [12, 12, 6])
    for links in (None, np.column_stack([np.arange(12), np.arange(12) + 12])):
        weight = None if links is None else np.ones(12)
        for seen, unseen in Responses(X, preferred, np.ones(30), links, weight).folds(3):
            assert sorted([*seen, *unseen]) == list(range(30))
            inside = np.isin(np.arange(30), unseen)
            np.testing.assert_array_equal(inside[:6], inside[24:])


def test_pairs_are_all_couples_of_a_prompt() -> None:
    preferred = np.array([True, False, True, False, False])
    rows = Responses(np.arange(5.0)[:, None], preferred, np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    paired = rows.paired_by(np.array(["a", "a", "b", "b", "a"]))
    assert paired.pairs is not None
    assert paired.pair_weight is not None
    assert sorted(map(tuple, paired.pairs.tolist())) == [(0, 1), (0, 4), (2, 3)]
    expected = [rows.weight[i] * rows.weight[j] for i, j in paired.pairs]
    np.testing.assert_array_equal(paired.pair_weight, expected)
    with pytest.raises(ValueError, match="no pair can be formed"):
        rows.paired_by(np.arange(5))


def test_stacked_pairs() -> None:
    won, lost = pairs(3)
    rows = Responses.of_pairs(won, lost, np.array([1.0, 2.0, 3.0]))
    assert rows.pairs is not None
    np.testing.assert_array_equal(rows.X[rows.pairs[:, 0]], won)
    np.testing.assert_array_equal(rows.X[rows.pairs[:, 1]], lost)
    assert rows.preferred[rows.pairs].tolist() == [[True, False]] * 3
    assert rows.signs[:, 0].tolist() == [1, 1, 1, -1, -1, -1]
    assert rows.weight.tolist() == [1, 2, 3, 1, 2, 3]


def draw(seed: int, kind: str) -> Responses:
    """Return 30 responses, some equal, in pairs, in groups, or labelled one by one."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, (30, 3)).astype(float)
    groups = rng.integers(0, 12, 30) if kind == "groups" else None
    if kind == "pairs":
        X = rng.normal(size=(30, 3))
        X[rng.integers(0, 15, 4)] = X[rng.integers(0, 15)]
        return Responses.of_pairs(X[:15], X[15:], np.ones(15))
    return Responses(X, rng.random(30) < 0.5, np.ones(30), groups=groups)


def contents(rows: Responses, held: np.ndarray) -> set[tuple]:
    """What a fold holds out, as a set."""
    return {(*rows.X[k], rows.preferred[k]) for k in held}


@pytest.mark.parametrize("kind", ["pairs", "groups", "single"])
@given(st.integers(0, 100))
def test_order_and_repetition_change_no_fold(kind: str, seed: int) -> None:
    rows = draw(seed, kind)
    try:
        expected = rows.folds(3)
    except ValueError:  # too few parts
        return
    rng = np.random.default_rng(seed)
    if kind == "pairs":
        again = rng.permutation(np.r_[np.arange(15), rng.integers(0, 15, 20)])
        other = Responses.of_pairs(rows.X[:15][again], rows.X[15:][again], np.ones(35))
    else:
        again = rng.permutation(np.r_[np.arange(30), rng.integers(0, 30, 20)])
        other = rows.take(again)
    found = other.folds(3)
    for (seen, unseen), (_, held) in zip(expected, found, strict=True):
        assert contents(rows, unseen) == contents(other, held)
        assert not contents(rows, seen) & contents(rows, unseen)
        assert len(seen) + len(unseen) == 30
    if rows.groups is not None:
        parts = [set(rows.groups[unseen]) for _, unseen in expected]
        assert sum(map(len, parts)) == len(set.union(*parts))
