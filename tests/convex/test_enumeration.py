"""Exact enumeration against Cover's count, known counts, random gates and linear programs."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linprog

from cvxnn.convex import ActivationPatterns, add_bias, enumeration


def data(n: int, d: int, seed: int = 0, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def grid(*sides: int) -> np.ndarray:
    axes = np.meshgrid(*[np.arange(float(side)) for side in sides], indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, len(sides))


def patterns_of(mask: np.ndarray) -> set[bytes]:
    return {column.tobytes() for column in mask.T}


def cells(X: np.ndarray, found: ActivationPatterns) -> set[bytes]:
    """Signs of all cells on the rows that are not zero, with the closed one where it exists."""
    mask = found.mask[X.any(axis=1)]
    return patterns_of(mask) | patterns_of(~mask)


def cover(n: int, rank: int) -> int:
    """Cover's function by its recursion: a further row cuts the cells of the others in it."""
    if n == 0 or rank == 0:
        return 1 if n == 0 else 0
    return 2 if n == 1 else cover(n - 1, rank) + cover(n - 1, rank - 1)


def by_linear_programs(X: np.ndarray) -> set[bytes]:
    """Signs of all cells: split by one row after the other, each part checked for a point."""
    found = [np.empty(0)]
    for k in range(len(X)):
        found = [
            longer
            for signs in found
            for longer in (np.append(signs, 1.0), np.append(signs, -1.0))
            if linprog(
                np.zeros(X.shape[1]),
                A_ub=-longer[:, None] * X[: k + 1],
                b_ub=-np.ones(k + 1),
                bounds=(None, None),
            ).status
            == 0
        ]
    return {(signs > 0).tobytes() for signs in found}


def by_random_gates(X: np.ndarray, n_gates: int = 1_000_000) -> set[bytes]:
    gates = np.random.default_rng(1).standard_normal((X.shape[1], n_gates))
    codes = 2.0 ** np.arange(len(X)) @ (X @ gates >= 0)
    _, first = np.unique(codes, return_index=True)
    mask = X @ gates[:, first] >= 0
    return patterns_of(mask[:, mask.any(axis=0)])


LINE = np.linspace(-1, 2, 7)[:, None]
DEGENERATE = {
    "duplicates": np.repeat(data(6, 3), 2, axis=0),
    "parallel": np.concatenate([data(6, 3), -2 * data(6, 3), 3 * data(6, 3)[:2]]),
    "zeros": np.concatenate([data(5, 3), np.zeros((2, 3))]),
    "low rank": data(9, 2) @ data(2, 6, seed=1),
    "line": add_bias(LINE),
    "collinear in the plane": add_bias(np.concatenate([LINE, 0.3 * LINE + 0.1], axis=1)),
    "three on a line": add_bias(np.concatenate([data(4, 2), LINE @ [[1.0, 2.0]]])),
    "grid": grid(3, 3),
    "grid with ones": add_bias(grid(4, 3)),
    "scaled grid with ones": add_bias((grid(3, 3) * 0.1 - 0.17) / 0.3),
    "cube": grid(2, 2, 2),
    "cube with ones": add_bias(grid(2, 2, 2)),
    "planes in space": np.concatenate([np.eye(4), np.eye(4)[:, ::-1] + np.eye(4), np.ones((1, 4))]),
}


@pytest.mark.parametrize(
    ("n", "d"), [(1, 1), (7, 1), (1, 3), (2, 2), (9, 2), (3, 3), (14, 3), (4, 4), (12, 4), (9, 6)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_in_general_position_have_as_many_cells_as_cover_counts(
    n: int, d: int, seed: int, dtype: type
) -> None:
    X = data(n, d, seed, dtype)
    found = enumeration.enumerate_patterns(X)
    expected = cover(n if d > 1 else 1, d)
    assert expected == 2 * sum(comb((n if d > 1 else 1) - 1, k) for k in range(d))
    assert len(cells(X, found)) == expected
    assert expected - 1 <= len(found) <= expected


@pytest.mark.parametrize(("n_inputs", "n_functions"), [(1, 4), (2, 14), (3, 104), (4, 1882)])
def test_boolean_inputs_have_the_known_number_of_threshold_functions(
    n_inputs: int, n_functions: int
) -> None:
    found = enumeration.enumerate_patterns(add_bias(grid(*[2] * n_inputs)))
    assert len(found) == n_functions - 1  # all but the constant 0


@pytest.mark.parametrize("name", DEGENERATE)
def test_no_random_gate_finds_a_pattern_that_is_missing(name: str) -> None:
    X = DEGENERATE[name]
    assert by_random_gates(X) <= patterns_of(enumeration.enumerate_patterns(X).mask)


@pytest.mark.parametrize(
    "name", ["line", "three on a line", "grid", "scaled grid with ones", "cube", "planes in space"]
)
def test_patterns_are_those_that_linear_programs_find(name: str) -> None:
    X = DEGENERATE[name]
    X = X[X.any(axis=1)]
    assert cells(X, enumeration.enumerate_patterns(X)) == by_linear_programs(X)


@pytest.mark.parametrize("name", DEGENERATE)
def test_each_gate_is_a_unit_vector_strictly_inside_its_cell(name: str) -> None:
    X = DEGENERATE[name]
    found = enumeration.enumerate_patterns(X)
    norms = np.linalg.norm(X, axis=1)
    scores = X @ found.gates.T
    assert (np.abs(scores[norms > 0]) > 1e-4 * norms[norms > 0, None]).all()
    np.testing.assert_allclose(np.linalg.norm(found.gates, axis=1), 1)
    np.testing.assert_array_equal(found.mask, scores >= 0)
    np.testing.assert_array_equal(found.mask, ActivationPatterns.from_gates(X, found.gates).mask)
    assert len(patterns_of(found.mask)) == len(found)
    assert found.mask.any(axis=0).all()


def test_rows_of_integers_that_were_not_seen_lie_on_no_gate() -> None:
    seen = add_bias(grid(3, 3) * 2.0)
    gates = enumeration.enumerate_patterns(seen).gates
    assert (np.abs(add_bias(grid(9, 9) - 2) @ gates.T) > 1e-6).all()


def test_copies_multiples_and_zero_rows_add_no_patterns() -> None:
    X = data(8, 3)
    extended = np.concatenate([X, X[:3], -0.7 * X[2:5], np.zeros((2, 3))])
    found = enumeration.enumerate_patterns(extended)
    assert cells(X, ActivationPatterns(found.mask[:8], found.gates)) == cells(
        X, enumeration.enumerate_patterns(X)
    )
    np.testing.assert_array_equal(found.mask[8:11], found.mask[:3])
    np.testing.assert_array_equal(found.mask[11:14], ~found.mask[2:5])
    assert found.mask[14:].all()
    # With rows that are always open, no pattern is closed everywhere.
    assert len(found) == cover(8, 3)


@settings(max_examples=60, deadline=None)
@given(
    X=hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 7), st.integers(1, 4)),
        elements=st.integers(-3, 3).map(float),
    ),
    seed=st.integers(0, 1000),
)
def test_small_integer_data(X: np.ndarray, seed: int) -> None:
    found = enumeration.enumerate_patterns(X)
    rng = np.random.default_rng(seed)
    # The opposite of each pattern is there too, but for the closed one.
    live = X.any(axis=1)
    opposite = ActivationPatterns.from_gates(X, -found.gates)
    assert patterns_of(opposite.mask) <= patterns_of(found.mask)
    assert len(opposite) >= len(found) - 1
    # No gate misses, and neither order nor positive scale of the rows matters.
    drawn = ActivationPatterns.from_gates(X, rng.standard_normal((2000, X.shape[1])))
    assert patterns_of(drawn.mask) <= patterns_of(found.mask)
    order = rng.permutation(len(X))
    scaled = enumeration.enumerate_patterns(X[order] * rng.uniform(0.1, 10, (len(X), 1)))
    assert patterns_of(scaled.mask) == patterns_of(found.mask[order])
    assert found.mask[~live].all()


def test_rows_of_extreme_scale_count_like_others() -> None:
    X = data(8, 3)
    scales = np.array([1e-200, 1e200, 1, 1e-30, 1e30, 1, 1e-8, 1e150])[:, None]
    assert patterns_of(enumeration.enumerate_patterns(X * scales).mask) == patterns_of(
        enumeration.enumerate_patterns(X).mask
    )


def test_single_precision_finds_the_same_patterns() -> None:
    for X in (add_bias(grid(3, 3)), data(10, 3, dtype=np.float32)):
        narrow = enumeration.enumerate_patterns(X.astype(np.float32))
        assert narrow.gates.dtype == np.float32
        wide = enumeration.enumerate_patterns(X.astype(np.float64))
        assert patterns_of(narrow.mask) == patterns_of(wide.mask)


def test_zero_data_has_one_open_pattern() -> None:
    found = enumeration.enumerate_patterns(np.zeros((4, 2)))
    assert found.mask.shape == (4, 1)
    assert found.mask.all()


def test_input_is_left_alone() -> None:
    X = add_bias(grid(3, 2))
    before = X.copy()
    enumeration.enumerate_patterns(X)
    np.testing.assert_array_equal(X, before)


def test_too_many_patterns_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rows: np.ndarray) -> None:
        raise AssertionError("enumeration began")

    monkeypatch.setattr(enumeration, "_cells", work)
    X = np.concatenate([data(30, 5), data(30, 5), np.zeros((3, 5))])
    bound = cover(30, 5)
    with pytest.raises(
        ValueError, match=rf"rank 5 and 30 rows .* {bound} .*\n?.*cvxnn\.convex\.sample_patterns"
    ):
        enumeration.enumerate_patterns(X, max_patterns=bound - 1)
    with pytest.raises(AssertionError, match="enumeration began"):
        enumeration.enumerate_patterns(X, max_patterns=bound)


def test_wide_data_are_refused_at_once() -> None:
    X = data(3000, 400)
    with pytest.raises(ValueError, match=r"in its first 64 alone, so up to about 1e19 patterns"):
        enumeration.enumerate_patterns(X)


def test_nearly_dependent_rows_are_refused() -> None:
    X = data(6, 3)
    X[1] = X[0] + 1e-10 * X[2]
    with pytest.raises(ValueError, match="nearly dependent"):
        enumeration.enumerate_patterns(X)


def test_cells_too_narrow_for_the_precision_of_the_data_are_refused() -> None:
    angles = np.array([0.0, 1e-7, 1.0])
    X = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert len(cells(X, enumeration.enumerate_patterns(X))) == 6
    with pytest.raises(ValueError, match="float64"):
        enumeration.enumerate_patterns(X.astype(np.float32))


@pytest.mark.parametrize("X", [np.zeros((0, 3)), np.ones(3), np.array([[1.0, np.nan]])])
def test_refuses_what_is_no_finite_matrix(X: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a finite matrix"):
        enumeration.enumerate_patterns(X)
