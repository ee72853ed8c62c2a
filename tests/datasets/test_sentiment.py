from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.datasets import sentiment_pairs
from cvxnn.preference import split_by_group


@given(labels=st.lists(st.integers(0, 1), min_size=2).filter(lambda x: len(set(x)) == 2))
def test_each_text_is_used_once_on_its_side(labels: list[int]) -> None:
    texts = [f"review {i}" for i in range(len(labels))]
    pairs = sentiment_pairs(texts, labels, "Praise it.", seed=1)
    assert len(pairs) == min(labels.count(0), labels.count(1))
    for replies, label in ([p.chosen for p in pairs], 1), ([p.rejected for p in pairs], 0):
        assert len(set(replies)) == len(pairs)
        assert {labels[texts.index(text)] for text in replies} == {label}
    assert {pair.prompt for pair in pairs} == {"Praise it."}
    assert len({pair.group for pair in pairs}) == len(pairs)


def test_the_seed_decides_the_pairing() -> None:
    texts, labels = [f"{i}" for i in range(40)], np.tile([0, 1], 20)
    assert sentiment_pairs(texts, labels, seed=3) == sentiment_pairs(texts, labels, seed=3)
    assert sentiment_pairs(texts, labels, seed=3) != sentiment_pairs(texts, labels, seed=4)


def test_pairs_share_a_prompt_and_are_split_by_group() -> None:
    pairs = sentiment_pairs([f"{i}" for i in range(40)], [0, 1] * 20)
    train, test = split_by_group(pairs, by="group")
    assert (len(train), len(test)) == (15, 5)
    with pytest.raises(ValueError, match="equal prompts connect all 20 groups; pass by='group'"):
        split_by_group(pairs)


def test_one_text_with_both_labels_gives_no_pair() -> None:
    assert sentiment_pairs(["same", "same"], [0, 1]) == []


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", "b"], [1, 1], r"the values \[1\]"),
        (["a", "b", "c"], [0, 1, 2], r"the values \[0, 1, 2\]"),
        (["a", "b"], [0, 1, 1], "expected one label for each of 2 texts"),
        (["a", " "], [0, 1], r"texts\[1\] is empty"),
    ],
)
def test_refuses_what_cannot_be_paired(texts: list[str], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sentiment_pairs(texts, labels)
