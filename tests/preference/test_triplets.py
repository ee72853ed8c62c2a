"""Triplets: default groups, duplicates, splits without leaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn.preference import (
    Conversation,
    PreferenceTriplet,
    as_messages,
    as_text,
    deduplicate,
    split_by_group,
)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_default_group_is_the_same_on_every_machine() -> None:
    assert PreferenceTriplet("What is 2 + 2?", "Four.", "x").group == "ebdf808d37e9525d"
    message = {"content": "Hi", "role": "user"}
    assert PreferenceTriplet([user("Hi")], "a", "b").group == (
        PreferenceTriplet([message], "c", "d").group
    )


def test_a_text_prompt_is_what_a_user_says() -> None:
    assert as_messages("Hi") == [user("Hi")] == as_messages([user("Hi")])


NO_TEXT = (
    st.none()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}))
)
TEXT = st.text() | st.characters(categories=["Cs"])


@given(contents=st.lists(TEXT | NO_TEXT, min_size=1, max_size=4))
def test_messages_hold_valid_text_and_the_error_names_the_first_that_does_not(
    contents: list[Any],
) -> None:
    messages = [user(content) for content in contents]
    bad = [
        i
        for i, content in enumerate(contents)
        if not isinstance(content, str) or any("\ud800" <= c <= "\udfff" for c in content)
    ]
    uses: list[Callable[[], Any]] = [
        lambda: PreferenceTriplet(messages, "a", "b"),
        lambda: Conversation(tuple(messages)),
        lambda: as_messages(messages),
        lambda: as_text(messages),
    ]
    for use in uses:
        if not bad:
            use()
            continue
        with pytest.raises(ValueError, match=rf"^the content of message {bad[0]} of the "):
            use()


@pytest.mark.parametrize("field", ["prompt", "chosen", "rejected", "group"])
@pytest.mark.parametrize("value", [None, 3, b"a", "\ud800"])
def test_triplets_hold_valid_text(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field}.* (expected a string|is not valid Unicode)"):
        PreferenceTriplet(**{"prompt": "a", "chosen": "b", "rejected": "c", field: value})


# Duplicates


def triplets(*rows: tuple[Any, str, str]) -> list[PreferenceTriplet]:
    return [PreferenceTriplet(*row) for row in rows]


def test_duplicates_by_hand() -> None:
    rows = triplets(
        ("p", "a b", "c"),
        ("p", "a  b\n", "c"),  # white space
        ([user("p")], "a b", "c"),  # the same prompt as a message
        ("p", "caf\u00e9", "c"),
        ("p", "cafe\u0301", "c"),  # the same letters in another encoding
        ("q", "a b", "c"),  # another prompt
        ("p", "x", "x "),
        ("p", "A b", "c"),  # case counts
    )
    kept, report = deduplicate(rows)
    assert kept == [rows[0], rows[3], rows[5], rows[7]]
    assert (report.rows, report.kept, report.duplicates, report.indistinct) == (8, 4, 3, 1)
    assert report.contradictions == ()
    assert str(report) == (
        "8 triplets, 4 kept; left out: 3 duplicates, 1 with replies that differ in white space only"
    )
    assert str(deduplicate(kept)[1]) == "4 triplets, 4 kept; left out: none"


def test_exponents_are_not_digits() -> None:
    """Stronger normalisations (NFKC) would make the answers x\u00b2 and x2 equal."""
    rows = triplets(("p", "x\u00b2", "y"), ("p", "x2", "y"))
    assert deduplicate(rows)[0] == rows


def test_contradictions_by_hand() -> None:
    rows = triplets(
        ("p", "a", "b"), ("p", "c", "d"), ("p", "b ", "a"), ("p", "a", "b"), ("q", "b", "a")
    )
    kept, report = deduplicate(rows)
    assert kept == [rows[1], rows[4]]
    assert report.contradictions == ((0, 2),)
    assert (report.contradictory, report.duplicates) == (2, 1)
    assert str(report).endswith("left out: 1 duplicates, 2 in 1 contradictions")
    kept, report = deduplicate(rows, contradictions="keep")
    assert kept == [rows[0], rows[1], rows[2], rows[4]]
    assert report.contradictions == ((0, 2),)
    assert str(report).endswith("left out: 1 duplicates; kept 2 in 1 contradictions")


def test_deduplicate_refuses_an_unknown_choice() -> None:
    with pytest.raises(ValueError, match="expected 'drop' or 'keep'"):
        deduplicate([], contradictions="majority")  # type: ignore[arg-type]


letters = st.sampled_from("abc")
rows_of_few_letters = st.lists(st.builds(PreferenceTriplet, letters, letters, letters))


@given(rows=rows_of_few_letters, contradictions=st.sampled_from(["drop", "keep"]))
def test_deduplicate_against_a_naive_loop(
    rows: list[PreferenceTriplet], contradictions: Any
) -> None:
    expected: list[PreferenceTriplet] = []
    everything = [(row.prompt, row.chosen, row.rejected) for row in rows]
    for row in rows:
        both = (row.prompt, row.rejected, row.chosen) in everything
        if row.chosen != row.rejected and row not in expected:
            if contradictions == "drop" and both:
                continue
            expected.append(row)
    kept, report = deduplicate(rows, contradictions)
    assert kept == expected
    dropped = 0 if contradictions == "keep" else report.contradictory
    assert report.rows == report.kept + report.duplicates + report.indistinct + dropped
    assert report.contradictory == 2 * len(report.contradictions)
    for i, j in report.contradictions:
        assert (rows[i].chosen, rows[i].rejected) == (rows[j].rejected, rows[j].chosen)
    again, second = deduplicate(kept, contradictions)
    assert again == kept
    assert second.duplicates == second.indistinct == 0


# Splitting


@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=2).filter(lambda g: len(set(g)) > 1),
    test_size=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_split_keeps_groups_whole(groups: list[str], test_size: float, seed: int) -> None:
    rows = [PreferenceTriplet(f"{i}", "a", "b", group) for i, group in enumerate(groups)]
    train, test = split_by_group(rows, test_size, seed)
    assert sorted([*train, *test], key=lambda t: int(str(t.prompt))) == rows
    left, right = ({triplet.group for triplet in part} for part in (train, test))
    assert left
    assert right
    assert not left & right
    assert abs(len(right) - test_size * len(set(groups))) <= 1
    _, again = split_by_group(rows[::-1], test_size, seed)
    assert {triplet.group for triplet in again} == right
    assert split_by_group(rows, test_size, seed, by="group") == (train, test)  # no prompt twice


def components(rows: list[PreferenceTriplet]) -> list[set[int]]:
    """Return the rows that groups or prompts connect, by a naive search."""
    left, found = set(range(len(rows))), []
    while left:
        reached: set[int] = set()
        new = {min(left)}
        while new:
            reached |= new
            groups = {rows[i].group for i in new}
            prompts = {rows[i].prompt for i in new}
            new = {i for i in left if rows[i].group in groups or rows[i].prompt in prompts}
            new -= reached
        found.append(reached)
        left -= reached
    return found


@given(
    pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_split_keeps_connected_rows_whole(pairs: list[tuple[int, int]], order: Any) -> None:
    rows = [PreferenceTriplet(f"p{p}", f"{i}", "b", f"g{g}") for i, (p, g) in enumerate(pairs)]
    whole = components(rows)
    if len(whole) == 1:
        with pytest.raises(ValueError, match="cannot split 1 group"):
            split_by_group(rows)
        return
    train, test = split_by_group(rows, 0.5)
    for component in whole:
        assert len({rows[i] in test for i in component}) == 1
    assert sum(rows[min(component)] in test for component in whole) == round(0.5 * len(whole))
    shuffled = list(rows)
    order.shuffle(shuffled)
    again_train, again_test = split_by_group(shuffled, 0.5)
    assert {t.chosen for t in again_train} == {t.chosen for t in train}
    assert {t.chosen for t in again_test} == {t.chosen for t in test}


def test_conversations_with_one_opening_do_not_leak() -> None:
    """With equal first messages, splits by group or by prompt leak, but not splits by both."""
    rows = [
        PreferenceTriplet(prompt, f"{c}{i}", "b", f"conversation {c}")
        for c in range(20)
        for i, prompt in enumerate(([user(f"Opening {c // 2}")], [user(f"Later {c}")]))
    ]

    def leaks(by: Any, seed: int) -> tuple[bool, bool]:
        train, test = split_by_group(rows, 0.5, seed, by=by)
        groups = {t.group for t in train} & {t.group for t in test}
        prompts = {str(t.prompt) for t in train} & {str(t.prompt) for t in test}
        return bool(groups), bool(prompts)

    seeds = range(5)
    assert {leaks("group", seed) for seed in seeds} == {(False, True)}
    assert {leaks("prompt", seed) for seed in seeds} == {(True, False)}
    assert {leaks("both", seed) for seed in seeds} == {(False, False)}


def test_prompts_are_compared_without_their_white_space() -> None:
    rows = [
        PreferenceTriplet(prompt, "a", "b", f"{i}")
        for i, prompt in enumerate(["p q", "p  q ", [user("p\nq")], "r"])
    ]
    for seed in range(4):
        train, test = split_by_group(rows, 0.5, seed)
        assert sorted([len(train), len(test)]) == [1, 3]


def test_split_depends_on_the_seed_and_checks_its_input() -> None:
    rows = [PreferenceTriplet(f"{i}", "a", "b") for i in range(40)]
    assert split_by_group(rows, random_state=0) == split_by_group(rows, random_state=0)
    assert split_by_group(rows, random_state=0) != split_by_group(rows, random_state=1)
    with pytest.raises(ValueError, match=r"cannot split 1 group.*give each conversation"):
        split_by_group(rows[:1] * 3)
    for size in (0.0, 1.0, 5):
        with pytest.raises(ValueError, match="test_size"):
            split_by_group(rows, size)
    with pytest.raises(ValueError, match="by is 'id'"):
        split_by_group(rows, by="id")  # type: ignore[arg-type]
