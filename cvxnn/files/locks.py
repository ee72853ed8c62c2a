"""Locks between processes that would write to the same place, and folders of one process alone."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from cvxnn._messages import warn
from cvxnn.files.folders import NOTHING_THERE, check_is_no_folder, make_folder

try:
    import fcntl
except ImportError:  # Windows: processes are not kept apart
    fcntl = None  # type: ignore[assignment]

_WORKSPACE = re.compile(r"\.cvxnn-[0-9a-f]{16}")


@contextlib.contextmanager
def locked(path: str | os.PathLike[str], *, brief: bool = False) -> Iterator[None]:
    """Keep other processes, and other threads, from writing a file or a folder in a block.

    While the block runs, there is a file ``.NAME.lock`` beside `path`. The system ends the lock
    when the process ends, no matter how. Do not lock one path twice in one thread: it would wait
    for itself.

    Parameters
    ----------
    path : path-like
        The file or folder, which need not exist. The folders above it are created.
    brief : bool, default=False
        Whether others hold the lock for a moment only, so that no warning says that it is waited
        for.

    Yields
    ------
    None
        Once no other process holds the lock.

    Raises
    ------
    OSError
        If the folder of `path` cannot be created, or is read-only; make it writable, or write to
        another place.

    Warns
    -----
    UserWarning
        If another process holds the lock, which is waited for; or if the file system has no locks
        (as some network file systems have none), so that two processes are not kept apart.
    """
    path = Path(os.path.abspath(path))
    lock = path.with_name(f".{path.name}.lock")
    make_folder(path.parent)
    try:
        descriptor = _acquire(path, lock, brief)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"cannot write {path}: {NOTHING_THERE}") from error
    except OSError as error:
        error.filename = str(path)
        raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)


@contextlib.contextmanager
def workspace(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder of this process alone, inside a folder, and delete it at the end.

    While the block runs, the process holds a lock on it, which the system ends with the process. So
    those that killed processes left are known, and are deleted first.

    Parameters
    ----------
    folder : path-like
        Where it lies; the folder has to exist.

    Yields
    ------
    pathlib.Path
        The temporary folder, ``.cvxnn-`` and 16 hexadecimal digits, empty.

    Raises
    ------
    OSError
        If it cannot be created.
    """
    _delete_abandoned(Path(folder))
    place, descriptor = _new_workspace(Path(folder))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def check_folder(path: str | os.PathLike[str]) -> list[Path]:
    """Create the folder of results, and refuse one that cannot be written to, before long work.

    Parameters
    ----------
    path : path-like
        The folder; those above it are created too.

    Returns
    -------
    list of pathlib.Path
        The folders that were created, each in the one before it.

    Raises
    ------
    OSError
        If it cannot be created, or is read-only; choose another one. The message has its name.
    """
    made = make_folder(path)
    with locked(Path(path) / "results", brief=True):
        pass
    return made


def check_file(path: str | os.PathLike[str]) -> list[Path]:
    """Create the folder of a file, and refuse a file that cannot be written, before long work.

    Parameters
    ----------
    path : path-like
        The file, which need not exist.

    Returns
    -------
    list of pathlib.Path
        The folders that were created, each in the one before it.

    Raises
    ------
    OSError
        If it cannot be written, or is a folder or a device; choose another name.
    """
    path = Path(path)
    made = make_folder(path.parent)
    check_is_no_folder(path)
    with locked(path):
        pass
    return made


def check_page(path: str | os.PathLike[str]) -> list[Path]:
    """Do what `check_file` does, and refuse to replace a file that is no HTML page.

    Parameters
    ----------
    path : path-like
        The file of the page, which need not exist.

    Returns
    -------
    list of pathlib.Path
        The folders that were created, each in the one before it.

    Raises
    ------
    OSError
        If it cannot be written, or is a folder or a device; choose another name.
    ValueError
        If it holds something else than a page.
    """
    made, start = check_file(path), b"<!doctype html"
    if Path(path).is_file():
        with Path(path).open("rb") as file:
            found = file.read(len(start))
        if found and found.lower() != start:
            raise ValueError(f"{path} is there, and no HTML page; write the page to another place")
    return made


def check_room(folder: str | os.PathLike[str], size: int) -> None:
    """Refuse to begin work whose result has no room on the disk.

    Parameters
    ----------
    folder : path-like
        Where the result goes; the folder has to exist.
    size : int
        Bytes of the result.

    Raises
    ------
    OSError
        If fewer are free; free some, or choose another disk.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(
            f"{folder}: the result takes {size / 2**20:.4g} MiB, and {free / 2**20:.4g} MiB are "
            "free; free some space, or choose a folder on another disk"
        )


def _new_workspace(folder: Path) -> tuple[Path, int | None]:
    """Return a new folder, and the descriptor that holds the lock on it."""
    while True:
        place = folder / f".cvxnn-{secrets.token_hex(8)}"
        place.mkdir()
        try:
            descriptor = _lock_workspace(place)
        except (BlockingIOError, FileNotFoundError):
            continue  # before it was locked, another process took it for abandoned
        if descriptor is None or place.exists():
            return place, descriptor
        os.close(descriptor)


def _lock_workspace(place: Path) -> int | None:
    """Lock a folder unless another process has; return None where the system has no locks."""
    if fcntl is None:
        return None
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return descriptor


def _delete_abandoned(folder: Path) -> None:
    """Delete the workspaces in a folder whose processes have ended."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [entry.path for entry in entries if _WORKSPACE.fullmatch(entry.name)]
        for path in found:
            with contextlib.suppress(OSError):
                descriptor = _lock_workspace(Path(path))
                if descriptor is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(descriptor)


def _acquire(path: Path, lock: Path, brief: bool) -> int:
    """Return the descriptor of a file that this process alone has locked."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                _wait_for_lock(descriptor, path, brief)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the process that held the lock has deleted its file: try again


def _wait_for_lock(descriptor: int, path: Path, brief: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not brief:
            warn(f"waiting for another process, which is writing {path}")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        warn(
            f"the file system of {path} has no locks ({error.strerror}); let only one process at "
            "a time write there",
        )
