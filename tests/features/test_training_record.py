"""Which pairs a head was trained on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cvxnn import LinearPreferenceHead, load, save
from cvxnn.features.training_record import is_recorded, training_record
from cvxnn.preference.triplets import PreferenceTriplet, split_by_group

TRIPLETS = st.builds(
    PreferenceTriplet,
    prompt=st.sampled_from(["a", "b", " a  ", "c", "d", "e"]),
    chosen=st.just("x"),
    rejected=st.just("y"),
    group=st.sampled_from(["", "1", "2", "3", "4"]),
)


@given(st.lists(TRIPLETS, min_size=1, max_size=8), st.lists(TRIPLETS, max_size=8))
def test_a_pair_is_known_by_its_group_or_its_prompt(train, others):
    groups = {pair.group for pair in train}
    prompts = {pair.prompt.strip() for pair in train}
    expected = [pair.group in groups or pair.prompt.strip() in prompts for pair in others]
    assert is_recorded(others, training_record(train)).tolist() == expected


def test_no_held_out_pair_of_a_split_is_known():
    pairs = [PreferenceTriplet(f"p{i % 7}", "x", "y", group=f"g{i % 11}") for i in range(40)]
    pairs += [PreferenceTriplet(f"q{i}", "x", "y") for i in range(20)]
    train, test = split_by_group(pairs, 0.3)
    assert not is_recorded(test, training_record(train)).any()
    assert is_recorded(train, training_record(train)).all()


def test_the_record_is_saved_and_another_fit_drops_it(tmp_path):
    rng = np.random.default_rng(0)
    won, lost = rng.standard_normal((2, 20, 3))
    head = LinearPreferenceHead().fit_pairs(won + 1, lost)
    head.training_record_ = training_record([PreferenceTriplet("a", "x", "y")])
    save(head, tmp_path / "head.safetensors")
    found = load(tmp_path / "head.safetensors")
    assert found.training_record_.tolist() == head.training_record_.tolist()
    for refit in (
        lambda: found.fit_pairs(won + 1, lost),
        lambda: found.fit(np.r_[won, lost], np.repeat([1, 0], 20)),
    ):
        found.training_record_ = head.training_record_
        refit()
        assert not hasattr(found, "training_record_")
