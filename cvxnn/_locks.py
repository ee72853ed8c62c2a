"""Locks between processes that would write to the same place."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: processes are not kept apart
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes, and other threads, from writing a file or a folder in a block.

    While the block runs, there is a file ``.NAME.lock`` beside `path`. The system ends the lock
    when the process ends, no matter how. Do not lock one path twice in one thread: it would wait
    for itself.

    Parameters
    ----------
    path : path-like
        The file or folder, which need not exist; its folder has to.

    Yields
    ------
    None
        Once no other process holds the lock.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist; create it first.
    OSError
        If the folder of `path` is read-only; make it writable, or write to another place.

    Warns
    -----
    UserWarning
        If another process holds the lock, which is waited for; or if the file system has no locks
        (as some network file systems have none), so that two processes are not kept apart.
    """
    path = Path(os.path.abspath(path))
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = _acquire(path, lock)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"cannot write {path}: its folder does not exist; create the folder first"
        ) from error
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Create the folder of results, and refuse one that cannot be written to, before long work.

    Parameters
    ----------
    path : path-like
        The folder; those above it are created too.

    Raises
    ------
    OSError
        If it cannot be created, or is read-only; choose another one. The message has its name.
    """
    Path(path).mkdir(parents=True, exist_ok=True)
    with locked(Path(path) / "results"):
        pass


def _acquire(path: Path, lock: Path) -> int:
    """Return the descriptor of a file that this process alone has locked."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                _wait_for_lock(descriptor, path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the process that held the lock has deleted its file: try again


def _wait_for_lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        warnings.warn(f"waiting for another process, which is writing {path}", stacklevel=5)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        warnings.warn(
            f"the file system of {path} has no locks ({error.strerror}); let only one process at "
            "a time write there",
            stacklevel=5,
        )
