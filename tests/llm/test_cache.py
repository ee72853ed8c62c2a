from __future__ import annotations

import errno
import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvxnn.llm import EmbeddingCache


def vectors(n: int, start: int = 0) -> dict[bytes, np.ndarray]:
    rng = np.random.default_rng(0)
    return {b"%d" % (start + i): rng.normal(size=8).astype(np.float32) for i in range(n)}


def test_vectors_come_back_bit_for_bit_after_reopening(tmp_path: Path) -> None:
    stored = vectors(1200)  # more than one query's worth
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        cache.put(stored)
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        found = cache.get([*stored, b"absent"])
        assert len(cache) == len(stored)
    assert found.keys() == stored.keys()
    for key, vector in stored.items():
        assert found[key].dtype == np.float32
        np.testing.assert_array_equal(found[key], vector)


def test_first_vector_of_a_key_stays(tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        cache.put({b"k": np.ones(2)})
        cache.put({b"k": np.zeros(2)})
        np.testing.assert_array_equal(cache.get([b"k"])[b"k"], [1.0, 1.0])


def test_failed_put_stores_nothing(tmp_path: Path) -> None:
    with EmbeddingCache(tmp_path / "c.sqlite") as cache:
        with pytest.raises(TypeError):
            cache.put({b"good": np.ones(2), object(): np.ones(2)})  # type: ignore[dict-item]
        with pytest.raises(ValueError, match="could not convert"):
            cache.put({b"good": np.ones(2), b"bad": "text"})  # type: ignore[dict-item]
        assert len(cache) == 0
        cache.put({b"good": np.ones(2)})
        assert len(cache) == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "swapped", "text"])
def test_damaged_entry_is_deleted_and_can_be_put_again(tmp_path: Path, damage: str) -> None:
    path, stored = tmp_path / "c.sqlite", vectors(3)
    with EmbeddingCache(path) as cache:
        cache.put(stored)
    value = bytearray(stored[b"1"].astype("<f4").tobytes())
    value[5] ^= 1
    other = {
        "flipped": bytes(value),
        "cut": bytes(value[:-4]),
        "swapped": stored[b"2"].astype("<f4").tobytes(),
        "text": "1.0",
    }[damage]
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE embeddings SET value = ? WHERE key = ?", (other, b"1"))
    connection.close()
    with EmbeddingCache(path) as cache:
        with pytest.warns(
            UserWarning, match=r"the embedding cache .* has 1 damaged entry: deleted"
        ):
            assert cache.get(stored).keys() == {b"0", b"2"}
        assert len(cache) == 2
        cache.put(stored)
        np.testing.assert_array_equal(cache.get(stored)[b"1"], stored[b"1"])


def test_two_writers_on_one_file(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    errors: list[BaseException] = []

    def write(start: int) -> None:
        try:
            with EmbeddingCache(path) as cache:  # creation races as well
                for i in range(20):
                    cache.put(vectors(3, start + 10 * i))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(1000 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with EmbeddingCache(path) as cache:
        assert len(cache) == 4 * 20 * 3


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look like one at first glance " * 30)
    with pytest.raises(ValueError, match=r"notes\.txt is not an embedding cache"):
        EmbeddingCache(text)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE stock (item TEXT)")
    connection.close()
    with pytest.raises(ValueError, match=r"other\.sqlite is a database, but not an embedding"):
        EmbeddingCache(other)
    EmbeddingCache(tmp_path / "new" / "c.sqlite").close()
    assert (tmp_path / "new" / "c.sqlite").is_file()


def test_other_format_version(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    EmbeddingCache(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ValueError, match="format version 99"):
        EmbeddingCache(path)


@settings(max_examples=30)
@given(fraction=st.floats(0.001, 0.999))
def test_truncated_file_is_reported(
    tmp_path_factory: pytest.TempPathFactory, fraction: float
) -> None:
    path = tmp_path_factory.mktemp("cache") / "c.sqlite"
    with EmbeddingCache(path) as cache:
        cache.put(vectors(200))
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(fraction * len(data)))])
    with pytest.raises(ValueError, match=r"c\.sqlite is not an embedding cache, or is damaged"):
        EmbeddingCache(path)


def test_full_disk_is_the_cause(tmp_path: Path) -> None:
    """SQLite ends the transaction itself; "cannot rollback" hid the reason."""
    path = tmp_path / "c.sqlite"
    with EmbeddingCache(path) as cache:
        cache.put({b"first": np.ones(8, np.float32)})
        cache._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(OSError, match=r"disk is full.*c\.sqlite") as caught:
            cache.put({bytes([i]): np.ones(2000, np.float32) for i in range(20)})
        assert caught.value.errno == errno.ENOSPC
        assert list(cache.get([b"first", bytes([1])])) == [b"first"]
        cache._connection.execute("PRAGMA max_page_count = 1000000")
        cache.put({b"second": np.ones(2000, np.float32)})
        assert len(cache) == 2


def test_read_only_cache_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.sqlite"
    EmbeddingCache(path).close()
    connect = sqlite3.connect

    def read_only(name: str, **options: Any) -> sqlite3.Connection:
        return connect(f"file:{name}?mode=ro", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.raises(PermissionError, match=r"readonly database.*c\.sqlite"):
        EmbeddingCache(path)
