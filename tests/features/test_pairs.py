"""Embedded pairs on disk; how they are made is tested with ``cvxnn extract``."""

from __future__ import annotations

import numpy as np
import pytest

from cvxnn.costs import Cost
from cvxnn.features.pair_digests import digest_of_pairs
from cvxnn.features.pairs import PairFeatures, discard_features, is_extracted, join_pair_features
from cvxnn.numerics.stored_rows import StoredRows, is_stored
from cvxnn.preference import PreferenceTriplet, split_by_group

PAIRS = [PreferenceTriplet(f"prompt {i}", f"good {i}", f"bad {i}", f"g{i // 2}") for i in range(12)]


def features() -> PairFeatures:
    rows = np.arange(24.0).reshape(12, 2)
    return PairFeatures(rows, -rows, PAIRS, {"model": "m", "layer": 1}, Cost(5))


def test_split_is_that_of_the_pairs():
    train, test = features().split(0.25, 3)
    assert (list(train.pairs), list(test.pairs)) == split_by_group(PAIRS, 0.25, 3)
    for part in (train, test):
        rows = [PAIRS.index(pair) for pair in part.pairs]
        np.testing.assert_array_equal(part.chosen, features().chosen[rows])
        np.testing.assert_array_equal(part.rejected, features().rejected[rows])
        assert part.groups == [PAIRS[row].group for row in rows]


@pytest.mark.parametrize("context", [0, 6])
def test_layers_are_columns(context):
    # Column 10 a + b is number b of layer a; those of prompts are negative.
    own = np.array([30, 31, 10, 11, 20, 21])
    rows = np.append(own, -own if context else [])[None] + np.zeros((4, 1))
    embedding = {"layer": [3, 1, 2], "width": rows.shape[1], "context": context}
    one = PairFeatures(rows, rows + 0.5, PAIRS[:4], embedding, Cost(5))
    assert one.layers == [3, 1, 2]
    for layers in ([1], [2, 3], [3, 1, 2]):
        part = one.take_layers(layers)
        expected = np.array([10 * layer + b for layer in layers for b in range(2)])
        expected = np.append(expected, -expected if context else [])
        np.testing.assert_array_equal(part.chosen[2], expected)
        np.testing.assert_array_equal(part.rejected[2], expected + 0.5)
        assert part.embedding == {
            "layer": layers[0] if len(layers) == 1 else layers,
            "width": len(expected),
            "context": 2 * len(layers) if context else 0,
        }
        assert part.take_layers(layers) is part
    with pytest.raises(ValueError, match="no layer 4; choose among theirs, 3, 1, 2"):
        one.take_layers([1, 4])
    with pytest.raises(ValueError, match="at least one, each once"):
        one.take_layers([1, 1])


def test_embeddings_that_stay_on_the_disk_are_the_same_pairs():
    memory = features()
    embedding = {"layer": [3, 1], "width": 2, "context": 0}
    memory = PairFeatures(memory.chosen, memory.rejected, PAIRS, embedding, Cost(5))
    disk = PairFeatures(
        StoredRows(memory.chosen), StoredRows(memory.rejected), PAIRS, embedding, Cost(5)
    )
    for make in (
        lambda whole: whole.take([3, 0]),
        lambda whole: whole.take_layers([1]),
        lambda whole: whole.take_layers([1, 3]),
        lambda whole: join_pair_features([whole.take([1]), memory, whole]),
    ):
        expected, found = make(memory), make(disk)
        assert is_stored(found.chosen)
        assert (found.pairs, found.embedding) == (expected.pairs, expected.embedding)
        np.testing.assert_array_equal(found.chosen, expected.chosen)
        np.testing.assert_array_equal(found.rejected, expected.rejected)


def test_identity_depends_on_texts_and_embedding_only():
    one = features()
    assert one.identity == features().identity
    assert one.identity != one.take(range(11)).identity
    other = PairFeatures(one.chosen, one.rejected, one.pairs, {"model": "m", "layer": 2}, Cost())
    assert one.identity != other.identity


def test_digest_tells_pairs_apart():
    first, second = PAIRS[:2]
    assert digest_of_pairs([first, second]) != digest_of_pairs([second, first])
    as_messages = PreferenceTriplet(
        [{"role": "user", "content": "prompt 0"}], first.chosen, first.rejected, first.group
    )
    assert digest_of_pairs([first]) == digest_of_pairs([as_messages])
    renamed = PreferenceTriplet(first.prompt, first.chosen, first.rejected, "other")
    assert digest_of_pairs([first]) != digest_of_pairs([renamed])


@pytest.mark.parametrize("names", [[], ["features.npy"], ["features.json"]])
def test_unfinished_folders(tmp_path, names):
    for name in [*names, "mine.txt"]:
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert not is_extracted(tmp_path)
    discard_features(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
