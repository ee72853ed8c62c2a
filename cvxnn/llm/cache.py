"""Cache of embeddings on disk, in one SQLite file."""

from __future__ import annotations

import errno
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from cvxnn._messages import counted, warn
from cvxnn.files.digests import digest
from cvxnn.files.folders import make_folder
from cvxnn.files.writing import Closing

_APPLICATION_ID = 0x43564E4E  # "CVNN" in the header of the file
_FORMAT = 2
_BUSY_SECONDS = 60.0
_CHUNK = 500  # keys per query, below the limit of SQLite on bound variables

_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.ETIMEDOUT,
    sqlite3.SQLITE_LOCKED: errno.ETIMEDOUT,
}

_T = TypeVar("_T")


class EmbeddingCache(Closing):
    """Persistent map from keys to float32 vectors, each with a checksum.

    Every `put` is one transaction: an interrupted program leaves all earlier batches intact, and
    several programs may use one file (each waits up to a minute for the others). A key must
    stand for the whole computation (model, settings, tokens); `Embedder` makes such keys.

    Parameters
    ----------
    path : path-like
        File of the cache. It is created if it does not exist, with the folders above it.
        ``":memory:"`` keeps the vectors in memory only.

    Attributes
    ----------
    path : str
        File of the cache.

    Raises
    ------
    OSError
        If the file cannot be written: file or folder are read-only, or the disk is full (which may
        also happen in `put`). The message has the reason and `path`.
    ValueError
        If the file is not an embedding cache, is damaged, or has another version of the format;
        delete it, or choose another name.

    Examples
    --------
    >>> import numpy as np
    >>> from cvxnn.llm import EmbeddingCache
    >>> with EmbeddingCache(":memory:") as cache:
    ...     cache.put({b"key": np.ones(3, dtype=np.float32)})
    ...     cache.get([b"key", b"other"])
    {b'key': array([1., 1., 1.], dtype=float32)}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        if self.path != ":memory:":
            make_folder(Path(self.path).absolute().parent)
        # Autocommit mode: transactions are opened explicitly in _transaction.
        self._connection = self._guard(
            lambda: sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        )
        try:
            self._guard(self._open)
        except BaseException:
            self._connection.close()
            raise

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return the vectors of those keys that are present and undamaged.

        Entries whose checksum does not match are deleted, and a warning says how many.

        Parameters
        ----------
        keys : iterable of bytes
            Keys to look up.

        Returns
        -------
        dict of bytes to ndarray of shape (width,), float32
            The vectors that were found, by key.

        Raises
        ------
        ValueError
            If the file is damaged; delete it.
        """
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, np.ndarray] = {}
        damaged: list[tuple[bytes]] = []

        def read() -> None:
            for start in range(0, len(wanted), _CHUNK):
                part = wanted[start : start + _CHUNK]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value, checksum FROM embeddings WHERE key IN ({marks})"
                for key, value, checksum in self._connection.execute(query, part):
                    if _checksum(key, value) == checksum:
                        found[key] = np.frombuffer(value, dtype="<f4").astype(np.float32)
                    else:
                        damaged.append((key,))

        def delete() -> None:
            self._connection.executemany("DELETE FROM embeddings WHERE key = ?", damaged)

        self._guard(read)
        if damaged:
            self._guard(lambda: self._transaction(delete))
            warn(
                f"the embedding cache {self.path} has {counted(len(damaged), 'damaged entry')}: "
                "deleted, and computed again. Check the disk if this happens repeatedly",
            )
        return found

    def put(self, vectors: Mapping[bytes, np.ndarray]) -> None:
        """Store vectors in one transaction; a key that is present keeps its vector.

        Parameters
        ----------
        vectors : mapping of bytes to ndarray of shape (width,)
            The vectors by key; they are converted to float32.

        Raises
        ------
        ValueError
            If the file is damaged; delete it.
        """
        values = {key: np.asarray(vector, "<f4").tobytes() for key, vector in vectors.items()}

        def write() -> None:
            self._connection.executemany(
                "INSERT OR IGNORE INTO embeddings VALUES (?, ?, ?)",
                ((key, value, _checksum(key, value)) for key, value in values.items()),
            )

        self._guard(lambda: self._transaction(write))

    def close(self) -> None:
        """Close the file; the cache cannot be used afterwards."""
        self._connection.close()

    def __len__(self) -> int:
        """Return the number of vectors."""

        def count() -> int:
            [n] = self._connection.execute("SELECT COUNT(*) FROM embeddings").fetchone()
            return int(n)

        return self._guard(count)

    def _open(self) -> None:
        if self._pragma("application_id") == 0 and self._n_tables() == 0:
            self._transaction(self._create)
        if self._pragma("application_id") != _APPLICATION_ID:
            raise ValueError(
                f"{self.path} is a database, but not an embedding cache; choose another file"
            )
        version = self._pragma("user_version")
        if version != _FORMAT:
            raise ValueError(
                f"the embedding cache {self.path} has format version {version}; this version of "
                f"cvxnn reads {_FORMAT}: delete the file (it is rebuilt) or choose another name"
            )
        # SQLite may notice a file that was cut short only at the first missing page.
        expected = self._pragma("page_count") * self._pragma("page_size")
        if self.path != ":memory:" and os.path.getsize(self.path) < expected:
            raise sqlite3.DatabaseError("the file is shorter than its header says")
        self._connection.execute("SELECT key, value FROM embeddings LIMIT 1").fetchall()
        # What cannot be written is refused now, not when the first batch is computed.
        self._transaction(self._mark)

    def _create(self) -> None:
        # Another process may have created the table while this one waited for the lock.
        if self._n_tables() == 0:
            self._connection.execute(
                "CREATE TABLE embeddings (key BLOB PRIMARY KEY, value BLOB NOT NULL, "
                "checksum INTEGER NOT NULL) WITHOUT ROWID"
            )
            self._mark()

    def _mark(self) -> None:
        self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._connection.execute(f"PRAGMA user_version = {_FORMAT}")

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])

    def _n_tables(self) -> int:
        return int(self._connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])

    def _transaction(self, body: Callable[[], None]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            body()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has ended it itself if the disk is full
                self._connection.execute("ROLLBACK")
            raise

    def _guard(self, action: Callable[[], _T]) -> _T:
        """Run an action, and name the file if SQLite cannot use it or finds it damaged."""
        try:
            return action()
        except sqlite3.ProgrammingError:
            raise  # closed
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
                number = _ERRORS.get(code, errno.EIO)
                reason = f"the embedding cache cannot be used ({error})"
                raise OSError(number, reason, self.path) from error
            raise ValueError(
                f"{self.path} is not an embedding cache, or is damaged ({error}); delete the file "
                "(it is rebuilt) or choose another name"
            ) from error


def cache_key(settings: object, key: bytes) -> bytes:
    """Return the key under which a result of a model is kept in an `EmbeddingCache`.

    Parameters
    ----------
    settings : object
        What the result depends on, beside its tokens; as JSON holds it.
    key : bytes
        Key of the tokens; ``Item.key``.

    Returns
    -------
    bytes
        The key, of 32 bytes.
    """
    return bytes.fromhex(digest(settings, key, digits=64))


def _checksum(key: bytes, value: object) -> int | None:
    """Return the checksum of an entry; None for a value that cannot be a vector."""
    return zlib.crc32(value, zlib.crc32(key)) if isinstance(value, bytes) else None
