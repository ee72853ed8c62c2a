"""Rows on the disk behave as the array that they are, whatever they are made of."""

from __future__ import annotations

import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from cvxnn.numerics import stored_rows
from cvxnn.numerics.stored_rows import StoredRows, read_ahead


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_rows, "_BLOCK_NUMBERS", 12)


def on_disk(path: Path, X: np.ndarray) -> np.memmap:
    stored = np.memmap(path, X.dtype, "w+", shape=X.shape)
    stored[:] = X
    return stored


@pytest.mark.parametrize(
    ("source", "read"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (ml_dtypes.bfloat16, np.float32),
    ],
)
def test_views_and_products_are_those_of_the_array(
    tmp_path: Path, source: type, read: type
) -> None:
    rng = np.random.default_rng(0)
    raw = [rng.normal(size=(7, 5)).astype(source), rng.normal(size=(4, 5)).astype(source)]
    disk = [on_disk(tmp_path / name, X) for name, X in zip("ab", raw, strict=True)]
    parts = [StoredRows(disk[0][::2]), StoredRows(disk[1])]
    whole = np.concatenate([raw[0][::2], raw[1]]).astype(read)
    index = np.array([7, 0, 5, 0, 2])
    mean, scale = whole.mean(axis=0), np.array([1, 2, np.inf, 4, 5], read)
    rows = StoredRows.stacked(parts)
    expected = ((whole - mean) / scale)[index][:, 1:4]
    seen = rows.scaled(mean, scale).take(index)[:, 1:4]
    assert (seen.shape, seen.size, seen.ndim, len(seen)) == ((5, 3), 15, 2, 5)
    assert seen.dtype == read
    np.testing.assert_array_equal(seen, expected)
    np.testing.assert_array_equal(np.asarray(rows), whole)
    for key in (2, slice(1, 4), slice(None, None, 2), index[-2:], index > 4):
        np.testing.assert_array_equal(seen[key], expected[key])
    double = seen.astype(np.float64)
    assert double.dtype == double[:1].dtype == np.float64
    right, left = rng.normal(size=(3, 2)), rng.normal(size=(2, 5))
    np.testing.assert_allclose(double @ right, expected.astype(float) @ right, rtol=1e-12)
    np.testing.assert_allclose(left @ double, left @ expected.astype(float), rtol=1e-12)
    assert seen.is_finite()


def test_equal_rows_have_one_code_and_codes_are_in_the_order_of_bytes() -> None:
    X = np.array([[1, 2], [0, 0], [1, 2], [3, -1], [-0.0, 0]], np.float32)
    codes = StoredRows(X).codes()
    keys = [row.tobytes() for row in X + np.float32(0)]
    assert codes.tolist() == [sorted(set(keys)).index(key) for key in keys]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_begin_alike_are_told_apart(dtype: type) -> None:
    X = np.zeros((40, 12), dtype)
    X[:, 0] = np.arange(40) // 10
    X[:, 11] = np.arange(40) % 7
    codes = StoredRows(X).codes()
    _, expected = np.unique(X, axis=0, return_inverse=True)
    same, also = codes[:, None] == codes, expected[:, None] == expected
    np.testing.assert_array_equal(same, also)
    assert sorted(set(codes.tolist())) == list(range(codes.max() + 1))
    # Their order follows from the rows.
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(StoredRows(X[order]).codes(), codes[order])


def test_finite_rows_are_checked_once() -> None:
    X = np.ones((9, 3), np.float32)
    rows = StoredRows(X)
    assert StoredRows.stacked([rows, StoredRows(X)]).is_finite()
    assert rows.is_finite()
    X[0, 0] = np.nan  # which nobody looks at again
    assert rows.take(np.arange(3)).is_finite()
    assert rows[:, :2].astype(np.float64).is_finite()
    assert not StoredRows.stacked([rows, StoredRows(X)]).is_finite()


def test_what_is_no_matrix_or_not_finite_is_seen() -> None:
    X = np.ones((5, 3), np.float32)
    X[4, 2] = np.nan
    assert not StoredRows(X).is_finite()
    with pytest.raises(ValueError, match="source has 1 axes; expected rows and columns"):
        StoredRows(X[0])
    with pytest.raises(ValueError, match="have to be read"):
        np.asarray(StoredRows(X), copy=False)


class Watched:
    """Rows that say when a block of them is asked for."""

    ndim, shape, dtype = 2, (9, 4), np.dtype(np.float32)

    def __init__(self) -> None:
        self.rows = np.arange(36, dtype=np.float32).reshape(9, 4)
        self.asked = [threading.Event() for _ in range(3)]
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return 9

    def __getitem__(self, key: slice) -> np.ndarray:
        self.asked[key.start // 3].set()
        self.threads.add(threading.get_ident())
        return self.rows[key]


def test_the_next_block_is_read_while_one_is_worked_with() -> None:
    source = Watched()
    seen = StoredRows(source)
    parts = []
    for number, (rows, block) in enumerate(read_ahead(seen, seen.blocks())):
        for event in source.asked[: number + 2]:
            assert event.wait(60)
        assert not any(event.is_set() for event in source.asked[number + 2 :])
        np.testing.assert_array_equal(block, source.rows[rows])
        parts.append(block)
    assert len(parts) == 3
    assert threading.get_ident() not in source.threads
    # An array is not read by a thread, and an error of one comes out here.
    assert [rows for rows, _ in read_ahead(source.rows, iter([slice(0, 2)]))] == [slice(0, 2)]
    source.rows = np.zeros((9, 3), np.float32)
    with pytest.raises(ValueError, match="broadcast"):
        seen @ np.ones(4)


@pytest.mark.parametrize(
    "source", ["x.npy", [[1.0]], None, np.ones((2, 2), complex), np.full((1, 1), "a")]
)
def test_what_holds_no_numbers_is_refused(source: object) -> None:
    with pytest.raises(TypeError, match=r"^source (is|holds) .*; expected"):
        StoredRows(source)
