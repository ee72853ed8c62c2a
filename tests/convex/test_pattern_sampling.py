"""Activation patterns against a naive count, and what a draw must keep."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cvxnn.convex import ActivationPatterns, add_bias, pattern_sampling, sample_patterns
from cvxnn.convex.thresholds import threshold_gates


def data(n: int = 30, d: int = 4, seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


# Every source with what it needs, for data of six features: images of 2 x 3 pixels.
SOURCES: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "data": {},
    "data of classes": {"patterns": "data", "y": [0, 1, 2, 0, 1] * 6},
    "sparse": {"sparsity": 2},
    "patch": {"image_shape": (2, 3), "patch_shape": (1, 2)},
}


def options(name: str) -> dict[str, Any]:
    return {"patterns": name} | SOURCES[name]


def columns(mask: np.ndarray) -> set[bytes]:
    return {column.tobytes() for column in mask.T}


def test_mask_is_the_sign_of_each_product(dtype: type) -> None:
    X = data(dtype=dtype)
    found = sample_patterns(X, 12, random_state=0)
    assert len(found) == 12
    assert found.gates.dtype == dtype
    for k in range(len(X)):
        for i in range(12):
            assert found.mask[k, i] == (float(np.dot(X[k], found.gates[i])) >= 0)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("bias", [False, True])
def test_gates_reproduce_their_patterns(name: str, bias: bool) -> None:
    X = data(d=6)
    found = sample_patterns(X, 15, **options(name), bias=bias, random_state=3)
    assert found.gates.shape == (len(found), X.shape[1] + bias)
    again = ActivationPatterns.from_gates(X, found.gates, bias=bias)
    np.testing.assert_array_equal(again.mask, found.mask)
    np.testing.assert_array_equal(again.gates, found.gates)


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 20),
    d=st.integers(1, 4),
    n_patterns=st.integers(1, 25),
    source=st.sampled_from(["gaussian", "data", "sparse"]),
    bias=st.booleans(),
)
def test_patterns_are_distinct_open_and_at_most_as_many_as_asked(
    seed: int, n: int, d: int, n_patterns: int, source: str, bias: bool
) -> None:
    X = data(n, d, seed)
    found = sample_patterns(X, n_patterns, patterns=source, bias=bias, random_state=seed)
    assert 1 <= len(found) <= n_patterns
    assert found.mask.shape == (n, len(found))
    assert len(columns(found.mask)) == len(found)
    assert found.mask.any(axis=0).all()


@pytest.mark.parametrize("name", SOURCES)
def test_a_seed_determines_the_draw(name: str) -> None:
    X, chosen = data(d=6), options(name)
    first = sample_patterns(X, 10, **chosen, random_state=5)
    second = sample_patterns(X, 10, **chosen, random_state=np.random.RandomState(5))
    other = sample_patterns(X, 10, **chosen, random_state=6)
    np.testing.assert_array_equal(first.gates, second.gates)
    np.testing.assert_array_equal(first.mask, second.mask)
    assert not np.array_equal(first.mask, other.mask)


@given(seed=st.integers(0, 10**6))
def test_gaussian_gates_do_not_depend_on_the_order_of_the_rows(seed: int) -> None:
    X = data(25, 3)
    order = np.random.default_rng(seed).permutation(len(X))
    straight = sample_patterns(X, 12, random_state=seed)
    shuffled = sample_patterns(X[order], 12, random_state=seed)
    np.testing.assert_array_equal(shuffled.gates, straight.gates)
    np.testing.assert_array_equal(shuffled.mask, straight.mask[order])


def test_both_precisions_draw_the_same_patterns() -> None:
    wide = sample_patterns(data(), 10, random_state=0)
    narrow = sample_patterns(data(dtype=np.float32), 10, random_state=0)
    np.testing.assert_array_equal(wide.mask, narrow.mask)


@pytest.mark.parametrize("kind", ["random", "constant", "one-hot", "one row", "far away"])
def test_thresholds_are_rules_on_two_features(kind: str, dtype: type) -> None:
    kinds = {
        "random": data(30, 4),
        "constant": np.ones((5, 2)),
        "one-hot": np.eye(6),
        "one row": np.zeros((1, 3)),
        "far away": 1e8 + data(20, 2),
    }
    X = kinds[kind].astype(dtype)
    found = sample_patterns(X, 15, patterns="thresholds", bias=True, random_state=0)
    assert found.gates.dtype == dtype
    assert 1 <= len(found) == len(columns(found.mask)) <= 15
    for gate, mask in zip(found.gates, found.mask.T, strict=True):
        is_open = np.ones(len(X), bool)
        for *weights, offset in gate.tolist():
            used = np.flatnonzero(weights)
            assert len(used) <= 1
            for j in used:
                assert abs(weights[j]) == 1
                assert (X[:, j] != -offset * weights[j]).all()  # no row lies on it
                is_open &= X[:, j] > -offset if weights[j] > 0 else X[:, j] < offset
        np.testing.assert_array_equal(is_open, mask)


def test_a_threshold_has_the_chance_that_it_parts_two_rows() -> None:
    X = np.array([1.0, 1, 1, 2, 5, 5, 900])[:, None]
    gates = threshold_gates(X, np.ones(1), 4000, np.random.RandomState(0)).reshape(-1, 2)
    found = -gates[:, 1] * gates[:, 0]
    left, right = (X[rows, 0] for rows in np.triu_indices(len(X), 1))
    for low, high in [(1, 2), (2, 5), (5, 900)]:
        apart = ((left <= low) & (right >= high)).mean()
        part = ((found > low) & (found < high)).mean()
        expected = apart / sum(((left <= a) & (right > a)).mean() for a in (1, 2, 5))
        assert abs(part - expected) < 0.03  # five standard deviations


def test_thresholds_need_an_offset() -> None:
    with pytest.raises(ValueError, match="needs gates with an offset"):
        sample_patterns(data(), 3, patterns="thresholds")


def test_duplicates_and_closed_patterns_are_dropped_in_order_of_appearance() -> None:
    X = np.array([[1.0], [2.0]])
    gates = np.array([[-1.0], [3.0], [0.5], [-2.0], [0.0]])
    found = ActivationPatterns.from_gates(X, gates)
    np.testing.assert_array_equal(found.gates, [[3.0]])
    np.testing.assert_array_equal(found.mask, [[True], [True]])


@pytest.mark.parametrize("n", [7, 8, 9, 16, 17])
def test_packing_eight_rows_to_a_byte_confuses_no_patterns(n: int) -> None:
    # Each gate is open on all rows but one: n patterns that differ in two bits.
    X = np.eye(n)
    gates = np.ones((n, n)) - 2 * np.eye(n)
    assert len(ActivationPatterns.from_gates(X, np.concatenate([gates, gates]))) == n


def test_data_on_a_line_has_two_patterns() -> None:
    X = np.array([[-2.0], [-0.5], [1.0], [3.0]])
    found = sample_patterns(X, 50, random_state=0)
    assert columns(found.mask) == columns(np.array([[0, 0, 1, 1], [1, 1, 0, 0]], bool).T)


def test_a_bias_separates_data_on_a_line_everywhere() -> None:
    X = np.array([[-2.0], [-0.5], [1.0], [3.0]])
    found = sample_patterns(X, 50, bias=True, random_state=0)
    # Four thresholds and two directions, less those that close every row.
    assert 4 <= len(found) <= 7


def test_gates_from_pairs_with_a_bias_part_them() -> None:
    X = data(2, 3)
    found = sample_patterns(X, 2, patterns="data", bias=True, random_state=0)
    proper = found.gates[np.linalg.norm(found.gates[:, :-1], axis=1) > 0]
    assert len(proper)
    scores = X @ proper[:, :-1].T + proper[:, -1]
    # In the middle half of the way from one to the other.
    assert (scores[0] * scores[1] < 0).all()
    assert (np.abs(scores).min(axis=0) >= 0.25 * np.abs(scores).sum(axis=0)).all()


def test_some_pattern_is_found_where_all_draws_are_closed() -> None:
    class Negative(np.random.RandomState):
        def standard_normal(self, size: Any = None) -> Any:
            return -np.ones(size)

    found = sample_patterns(np.ones((4, 2)), 3, random_state=Negative(0))
    assert found.mask.shape == (4, 1)
    assert found.mask.all()


def test_pairs_of_classes_differ_in_class_with_equal_chance() -> None:
    # Powers of two: the difference of two rows names them.
    X = 2.0 ** np.arange(7)[:, None]
    y = np.array(["b", "a", "b", "c", "b", "b", "a"])
    names = {X[i, 0] - X[j, 0]: (i, j) for i in range(7) for j in range(7) if i != j}
    pairs = {pair for pair in names.values() if y[pair[0]] != y[pair[1]]}
    rng, labels = np.random.RandomState(0), np.unique(y, return_inverse=True)[1]
    left, right = pattern_sampling._pairs(7, 28_000, labels, rng)
    drawn = [names[float(X[i, 0] - X[j, 0])] for i, j in zip(left, right, strict=True)]
    assert set(drawn) == pairs
    assert len(pairs) == 28
    counts = [drawn.count(pair) for pair in pairs]
    assert 800 < min(counts) <= max(counts) < 1200  # six standard deviations around 1000


def test_gates_from_pairs_of_classes_bisect_rows_of_different_classes() -> None:
    X, y = data(12, 5), np.arange(12) % 3 == 0
    found = sample_patterns(X, 20, patterns="data", y=y, bias=True, random_state=0)
    for gate in found.gates:
        differences = np.abs(X[:, None] - X[None] - gate[:-1]).max(axis=2)
        i, j = np.unravel_index(differences.argmin(), differences.shape)
        assert differences[i, j] < 1e-12
        assert y[i] != y[j]
        assert X[i] @ gate[:-1] + gate[-1] > 0 > X[j] @ gate[:-1] + gate[-1]


@pytest.mark.parametrize(
    ("d", "sparsity", "expected"), [(9, None, 3), (10, None, 4), (1, None, 1), (8, 1, 1), (8, 8, 8)]
)
def test_sparse_gates_have_as_many_active_features(
    d: int, sparsity: int | None, expected: int
) -> None:
    X = data(d=d)
    found = sample_patterns(X, 40, patterns="sparse", sparsity=sparsity, random_state=0)
    active = found.gates != 0
    assert (active.sum(axis=1) == expected).all()
    # Every feature has its turn.
    assert active.any(axis=0).all()


@pytest.mark.parametrize("channels", [(), (2,)])
def test_patches_fill_one_rectangle_at_any_place(channels: tuple[int, ...]) -> None:
    image = (4, 5, *channels)
    X = data(50, int(np.prod(image)))
    found = sample_patterns(
        X, 100, patterns="patch", image_shape=image, patch_shape=(2, 3), random_state=0
    )
    corners = set()
    for gate in found.gates.reshape(-1, *image):
        rows, columns = np.nonzero(gate.reshape(4, 5, -1).any(axis=2))
        top, left = int(rows.min()), int(columns.min())
        corners.add((top, left))
        assert (gate[top : top + 2, left : left + 3] != 0).all()
        assert np.count_nonzero(gate) == 6 * int(np.prod(channels))
    assert corners == {(top, left) for top in range(3) for left in range(3)}


@pytest.mark.parametrize("name", SOURCES)
def test_constant_columns_carry_the_offset_that_a_bias_appends(name: str, dtype: type) -> None:
    X, chosen = data(d=6, dtype=dtype), options(name)
    constants = np.array([2.0, -0.5], dtype)
    wide = np.concatenate([X, np.tile(constants, (len(X), 1))], axis=1)
    found = sample_patterns(wide, 8, **chosen, n_constant=2, random_state=0)
    appended = sample_patterns(X, 8, **chosen, bias=True, random_state=0)
    assert found.gates.dtype == dtype
    np.testing.assert_array_equal(found.gates[:, :6], appended.gates[:, :6])
    shares = found.gates[:, 6:] * constants
    np.testing.assert_allclose(shares[:, 0], shares[:, 1], rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), appended.gates[:, 6], rtol=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "sparse", "patch"])
def test_gates_with_an_offset_pass_beside_a_row(name: str) -> None:
    X = add_bias(data(d=6))
    found = sample_patterns(X, 20, **options(name), n_constant=1, random_state=0)
    scores = np.sort(X @ found.gates.T, axis=0)
    for column in scores.T:
        n_closed = (column < 0).sum()
        if 0 < n_closed < len(column):
            low, high = column[n_closed - 1 : n_closed + 1]
            assert 0.25 <= -low / (high - low) <= 0.75
    assert (found.gates[:, -1] != 0).all()


@settings(max_examples=40)
@example(seed=1, name="data", side=2, offset="none")  # equal rows as a pair
@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(["gaussian", "data", "sparse", "patch"]),
    side=st.integers(2, 5),
    offset=st.sampled_from(["none", "bias", "column"]),
)
def test_no_row_of_integers_lies_on_a_gate(seed: int, name: str, side: int, offset: str) -> None:
    if offset == "none" and name in ("sparse", "patch"):
        return  # Rows of zeros in the features of a gate lie on it.
    rng = np.random.default_rng(seed)
    seen, unseen = rng.integers(side, size=(2, 60, 6)).astype(float)
    X = np.concatenate([seen, seen[:20] * [1, 1, 1, 0, 0, 0]])
    wide = add_bias(X) if offset == "column" else X
    found = sample_patterns(
        wide,
        30,
        **options(name),
        bias=offset == "bias",
        n_constant=int(offset == "column"),
        random_state=seed,
    )
    width = found.gates.shape[1]
    for rows in (X, unseen):
        rows = add_bias(rows) if width == 7 else rows[rows.any(axis=1)]
        scores = np.abs(rows @ found.gates.T) / np.linalg.norm(found.gates, axis=1)
        assert scores.min() > 1e-8
        alone = np.array([[row @ gate >= 0 for gate in found.gates] for row in rows[:5]])
        np.testing.assert_array_equal(alone, (rows @ found.gates.T >= 0)[:5])


def test_zero_rows_are_open_in_every_pattern() -> None:
    X = data()
    X[3] = 0
    assert sample_patterns(X, 10, random_state=0).mask[3].all()


def test_data_of_zeros_has_one_open_pattern() -> None:
    found = sample_patterns(np.zeros((5, 3)), 4, random_state=0)
    assert found.mask.shape == (5, 1)
    assert found.mask.all()


def test_add_bias_appends_ones_and_keeps_the_dtype(dtype: type) -> None:
    X = data(dtype=dtype)
    wide = add_bias(X)
    assert wide.dtype == dtype
    np.testing.assert_array_equal(wide[:, :-1], X)
    np.testing.assert_array_equal(wide[:, -1], 1)


@pytest.mark.parametrize("n_patterns", [0, -3])
def test_refuses_fewer_than_one_pattern(n_patterns: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        sample_patterns(data(), n_patterns)


def test_refuses_an_unknown_source() -> None:
    with pytest.raises(ValueError, match="'gaussian', 'data', 'thresholds', 'sparse', 'patch'"):
        sample_patterns(data(), 3, patterns="uniform")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [
        ("gaussian", {"y": [0, 1] * 15}, "y is an option of patterns='data'"),
        ("data", {"sparsity": 2}, "sparsity is an option of patterns='sparse'"),
        ("sparse", {"patch_shape": (1, 1)}, "patch_shape is an option of patterns='patch'"),
        ("sparse", {"sparsity": 0}, "expected between 1 and the 6 features"),
        ("sparse", {"sparsity": 7}, "expected between 1 and the 6 features"),
        ("data", {"y": [0, 1]}, r"one label for each row, \(30,\)"),
        ("data", {"y": [1] * 30}, "leave y out"),
        ("patch", {}, "needs both"),
        ("patch", {"image_shape": (2, 3)}, "needs both"),
        ("patch", {"image_shape": (2, 2), "patch_shape": (1, 1)}, "number of features, 6"),
        ("patch", {"image_shape": (6,), "patch_shape": (1, 1)}, "number of features, 6"),
        ("patch", {"image_shape": (-2, -3), "patch_shape": (1, 1)}, "number of features, 6"),
        ("patch", {"image_shape": (2, 3), "patch_shape": (3, 1)}, r"between \(1, 1\) and \(2, 3\)"),
        ("patch", {"image_shape": (2, 3), "patch_shape": (0, 1)}, r"between \(1, 1\) and \(2, 3\)"),
        ("patch", {"image_shape": (2, 3), "patch_shape": (2,)}, r"between \(1, 1\) and \(2, 3\)"),
        ("gaussian", {"n_constant": -1}, "less than the 6 columns"),
        ("gaussian", {"n_constant": 6}, "less than the 6 columns"),
        ("gaussian", {"n_constant": 1}, "not constant and nonzero"),
        ("gaussian", {"n_constant": 1, "bias": True}, "choose one"),
    ],
)
def test_refuses_options_that_do_not_fit(source: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_patterns(data(d=6), 3, patterns=source, **given)  # type: ignore[arg-type]


def test_refuses_a_constant_column_of_zeros() -> None:
    X = data()
    X[:, -1] = 0
    with pytest.raises(ValueError, match="nonzero"):
        sample_patterns(X, 3, n_constant=1)


def test_image_shape_does_not_count_constant_columns() -> None:
    X = add_bias(data(d=6))
    shapes = {"image_shape": (2, 3), "patch_shape": (2, 2)}
    found = sample_patterns(X, 5, patterns="patch", **shapes, n_constant=1, random_state=0)
    assert found.gates.shape == (5, 7)
    with pytest.raises(ValueError, match="number of features, 7"):
        sample_patterns(X, 5, patterns="patch", **shapes)


@pytest.mark.parametrize("source", ["gaussian", "data"])
def test_refuses_data_without_rows(source: str) -> None:
    with pytest.raises(ValueError, match="X has no rows"):
        sample_patterns(np.zeros((0, 3)), 3, patterns=source, random_state=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("bias", [False, True])
@given(seed=st.integers(0, 10**6), n_vectors=st.integers(1, 3))
def test_a_conjunction_is_open_where_all_its_vectors_are(
    seed: int, n_vectors: int, bias: bool
) -> None:
    X, rng = data(n=9, seed=seed), np.random.default_rng(seed)
    gates = rng.standard_normal((6, n_vectors, 4 + bias))
    wide = add_bias(X) if bias else X
    naive = [
        [all(sum(vector * row) >= 0 for vector in conjunction) for row in wide]
        for conjunction in gates
    ]
    found = ActivationPatterns.from_gates(X, gates, bias=bias)
    assert columns(found.mask) == columns(np.array(naive).T) - columns(np.zeros((9, 1), bool))
    # Single gates are conjunctions as well, in a union with others.
    single = ActivationPatterns.from_gates(X, gates[:, 0], bias=bias)
    for both in (found.union(single), single.union(found)):
        assert columns(both.mask) == columns(found.mask) | columns(single.mask)
        again = ActivationPatterns.from_gates(X, both.gates, bias=bias)
        np.testing.assert_array_equal(again.mask, both.mask)


@pytest.mark.parametrize(
    ("shape", "bias"),
    [((5, 3), False), ((5, 4), True), ((4,), False), ((5, 2, 3), False), ((5, 0, 4), False)],
)
def test_refuses_gates_of_another_width(shape: tuple[int, ...], bias: bool) -> None:
    with pytest.raises(ValueError, match=r"expected \(n_gates"):
        ActivationPatterns.from_gates(data(d=4), np.ones(shape), bias=bias)
