"""Folders for what is written, and why the system refuses a place, in words for a user."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_REASONS = {
    errno.EACCES: "permission denied; choose another place, or change who may use this one",
    errno.EPERM: "not permitted; choose another place, or change who may use this one",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EISDIR: "it is a folder; give the name of a file",
    errno.ENOTDIR: "it is a file, or lies in one; give the name of a folder",
    errno.EEXIST: "it is a file, or lies in one; give the name of a folder",
    errno.ENOSPC: "the disk is full; free some space",
    errno.EFBIG: "the file would be larger than the system allows; raise the limit (ulimit -f)",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}
NOTHING_THERE = "the system lets nothing be created there; choose another place"
"""Reason of a missing folder or file where the folder above is there, as in ``/proc``."""


def make_folder(path: str | os.PathLike[str]) -> list[Path]:
    """Create a folder and those above it, unless they exist.

    Parameters
    ----------
    path : path-like
        The folder.

    Returns
    -------
    list of pathlib.Path
        The folders that were created, each in the one before it.

    Raises
    ------
    OSError
        If the system refuses it; the message has its name, the reason, and what to do.
    """
    path = Path(path)
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # though all folders above it are there
        raise FileNotFoundError(f"cannot write in {path}: {NOTHING_THERE}") from error
    except OSError as error:
        raise type(error)(f"cannot write in {path}: {reason_of(error)}") from error
    return missing[::-1]


def check_is_no_folder(path: Path) -> None:
    """Refuse a name that a file cannot take: that of a folder or of a device.

    Parameters
    ----------
    path : pathlib.Path
        The name, which need not exist.

    Raises
    ------
    OSError
        If it is taken by something other than a file.
    """
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: {_REASONS[errno.EISDIR]}")
    if path.exists() and not path.is_file():
        raise OSError(f"cannot write {path}: it is a device or a pipe; give the name of a file")


def reason_of(error: OSError) -> str:
    """Return why the system refused something, and what to do.

    Parameters
    ----------
    error : OSError
        The error.

    Returns
    -------
    str
        A text without the name of the file and without the number of the error.
    """
    known = _REASONS.get(error.errno) if error.errno is not None else None
    said = error.strerror or str(error)
    return known or said[:1].lower() + said[1:]
