"""The choice of a layer, against a plain loop over folds."""

from __future__ import annotations

import numpy as np
import pytest

from cvxnn import LinearPreferenceHead
from cvxnn.comparison.layers import choose_layers
from cvxnn.costs import Cost
from cvxnn.features.description import Description
from cvxnn.features.pairs import PairFeatures
from cvxnn.preference import PreferenceTriplet


def features(n: int, n_groups: int) -> PairFeatures:
    """Pairs of which layer 7 says more than layer 5."""
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(2, n, 4))
    chosen[:, 2] += 3.0
    chosen[:, 0] += 0.3
    pairs = [PreferenceTriplet("p", f"a {i}", f"b {i}", f"g{i % n_groups}") for i in range(n)]
    embedding = dict.fromkeys(Description.__annotations__, "x")
    embedding |= {"layer": [5, 7], "width": 4, "context": 0, "max_length": 9}
    embedding |= {"pooling": "mean", "date": "2024-07-26"}
    return PairFeatures(chosen, rejected, pairs, embedding, Cost())


@pytest.mark.slow
def test_the_layer_is_the_best_on_left_out_groups() -> None:
    train = features(24, 8)
    found = choose_layers(train, seed=3)
    fold = np.random.default_rng(3).permutation(np.arange(8) % 3)
    group = np.unique(train.groups, return_inverse=True)[1]
    for k, layer in enumerate((5, 7)):
        columns, right = slice(2 * k, 2 * k + 2), []
        for left_out in range(3):
            seen = fold[group] != left_out
            head = LinearPreferenceHead(random_state=3).fit_pairs(
                train.chosen[seen, columns], train.rejected[seen, columns], groups=group[seen]
            )
            rewards = (head.reward(rows[~seen, columns]) for rows in (train.chosen, train.rejected))
            right += list(np.subtract(*rewards) > 0)
        assert found.accuracies[layer] == pytest.approx(np.mean(right))
    assert found.layers == [7]
    assert "7" in str(found)


def test_layers_that_are_named_are_taken() -> None:
    train = features(4, 2)
    assert choose_layers(train, "all").layers == [5, 7]
    assert choose_layers(train, 5).layers == [5]
    assert choose_layers(train, [7, 5]).layers == [7, 5]
    assert str(choose_layers(train, "all")) == "layers    5, 7, side by side"
    with pytest.raises(ValueError, match="no layer 6"):
        choose_layers(train, 6)
    with pytest.raises(ValueError, match=r"of 2 groups, too few .* name the layers"):
        choose_layers(train)
