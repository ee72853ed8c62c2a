"""Activation patterns against a naive count, and what a draw must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvxnn import patterns


def data(n: int = 30, d: int = 4, seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def columns(mask: np.ndarray) -> set[bytes]:
    return {column.tobytes() for column in mask.T}


def test_mask_is_the_sign_of_each_product(dtype: type) -> None:
    X = data(dtype=dtype)
    found = patterns.sample(X, 12, random_state=0)
    assert len(found) == 12
    assert found.gates.dtype == dtype
    for k in range(len(X)):
        for i in range(12):
            assert found.mask[k, i] == (float(np.dot(X[k], found.gates[i])) >= 0)


@pytest.mark.parametrize("source", ["gaussian", "data"])
@pytest.mark.parametrize("bias", [False, True])
def test_gates_reproduce_their_patterns(source: str, bias: bool) -> None:
    X = data()
    found = patterns.sample(X, 15, source=source, bias=bias, random_state=3)
    assert found.gates.shape == (len(found), X.shape[1] + bias)
    again = patterns.from_gates(X, found.gates, bias=bias)
    np.testing.assert_array_equal(again.mask, found.mask)
    np.testing.assert_array_equal(again.gates, found.gates)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 20),
    d=st.integers(1, 4),
    n_patterns=st.integers(1, 25),
    source=st.sampled_from(["gaussian", "data"]),
    bias=st.booleans(),
)
def test_patterns_are_distinct_open_and_at_most_as_many_as_asked(
    seed: int, n: int, d: int, n_patterns: int, source: str, bias: bool
) -> None:
    X = data(n, d, seed)
    found = patterns.sample(X, n_patterns, source=source, bias=bias, random_state=seed)
    assert 1 <= len(found) <= n_patterns
    assert found.mask.shape == (n, len(found))
    assert len(columns(found.mask)) == len(found)
    assert found.mask.any(axis=0).all()


@pytest.mark.parametrize("source", ["gaussian", "data"])
def test_a_seed_determines_the_draw(source: str) -> None:
    X = data()
    first = patterns.sample(X, 10, source=source, random_state=5)
    second = patterns.sample(X, 10, source=source, random_state=np.random.RandomState(5))
    other = patterns.sample(X, 10, source=source, random_state=6)
    np.testing.assert_array_equal(first.gates, second.gates)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert not np.array_equal(first.mask, other.mask)


@given(seed=st.integers(0, 10**6))
def test_gaussian_gates_do_not_depend_on_the_order_of_the_rows(seed: int) -> None:
    X = data(25, 3)
    order = np.random.default_rng(seed).permutation(len(X))
    straight = patterns.sample(X, 12, random_state=seed)
    shuffled = patterns.sample(X[order], 12, random_state=seed)
    np.testing.assert_array_equal(shuffled.gates, straight.gates)
    np.testing.assert_array_equal(shuffled.mask, straight.mask[order])


def test_both_precisions_draw_the_same_patterns() -> None:
    wide = patterns.sample(data(), 10, random_state=0)
    narrow = patterns.sample(data(dtype=np.float32), 10, random_state=0)
    np.testing.assert_array_equal(wide.mask, narrow.mask)


def test_duplicates_and_closed_patterns_are_dropped_in_order_of_appearance() -> None:
    X = np.array([[1.0], [2.0]])
    gates = np.array([[-1.0], [3.0], [0.5], [-2.0], [0.0]])
    found = patterns.from_gates(X, gates)
    np.testing.assert_array_equal(found.gates, [[3.0]])
    np.testing.assert_array_equal(found.mask, [[True], [True]])


@pytest.mark.parametrize("n", [7, 8, 9, 16, 17])
def test_packing_eight_rows_to_a_byte_confuses_no_patterns(n: int) -> None:
    # Each gate is open on all rows but one: n patterns that differ in two bits.
    X = np.eye(n)
    gates = np.ones((n, n)) - 2 * np.eye(n)
    assert len(patterns.from_gates(X, np.concatenate([gates, gates]))) == n


def test_data_on_a_line_has_two_patterns() -> None:
    X = np.array([[-2.0], [-0.5], [1.0], [3.0]])
    found = patterns.sample(X, 50, random_state=0)
    assert columns(found.mask) == columns(np.array([[0, 0, 1, 1], [1, 1, 0, 0]], bool).T)


def test_a_bias_separates_data_on_a_line_everywhere() -> None:
    X = np.array([[-2.0], [-0.5], [1.0], [3.0]])
    found = patterns.sample(X, 50, bias=True, random_state=0)
    # Four thresholds and two directions, less those that close every row.
    assert 4 <= len(found) <= 7


def test_gates_from_pairs_with_a_bias_bisect_them() -> None:
    X = data(2, 3)
    found = patterns.sample(X, 2, source="data", bias=True, random_state=0)
    middle = X.mean(axis=0)
    proper = found.gates[np.linalg.norm(found.gates[:, :-1], axis=1) > 0]
    assert len(proper)
    np.testing.assert_allclose(proper[:, :-1] @ middle + proper[:, -1], 0, atol=1e-12)


def test_zero_rows_are_open_in_every_pattern() -> None:
    X = data()
    X[3] = 0
    assert patterns.sample(X, 10, random_state=0).mask[3].all()


def test_data_of_zeros_has_one_open_pattern() -> None:
    found = patterns.sample(np.zeros((5, 3)), 4, random_state=0)
    assert found.mask.shape == (5, 1)
    assert found.mask.all()


def test_add_bias_appends_ones_and_keeps_the_dtype(dtype: type) -> None:
    X = data(dtype=dtype)
    wide = patterns.add_bias(X)
    assert wide.dtype == dtype
    np.testing.assert_array_equal(wide[:, :-1], X)
    np.testing.assert_array_equal(wide[:, -1], 1)


@pytest.mark.parametrize("n_patterns", [0, -3])
def test_refuses_fewer_than_one_pattern(n_patterns: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        patterns.sample(data(), n_patterns)


def test_refuses_an_unknown_source() -> None:
    with pytest.raises(ValueError, match="'gaussian' or 'data'"):
        patterns.sample(data(), 3, source="uniform")  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["gaussian", "data"])
def test_refuses_data_without_rows(source: str) -> None:
    with pytest.raises(ValueError, match="X has no rows"):
        patterns.sample(np.zeros((0, 3)), 3, source=source, random_state=0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "bias"), [((5, 3), False), ((5, 4), True), ((4,), False)])
def test_refuses_gates_of_another_width(shape: tuple[int, ...], bias: bool) -> None:
    with pytest.raises(ValueError, match=r"expected \(n_gates"):
        patterns.from_gates(data(d=4), np.ones(shape), bias=bias)
