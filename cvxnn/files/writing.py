"""Files that are written completely or not at all, and texts that are read from them.

Everything that cvxnn writes goes through :func:`replacing` or :func:`replacing_folder`, or grows by
:func:`append`. Texts are read by :func:`read_text`; lines end at a line feed and nowhere else. A
writer that continues from what lies on the disk holds :func:`cvxnn.files.locks.locked`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from cvxnn.files.folders import check_is_no_folder, make_folder
from cvxnn.files.locks import workspace

MALFORMED = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Errors of code that takes apart a value from a file, if it is not what cvxnn writes."""


class Closing(ABC):
    """Holder of a file that is closed at the end of a ``with`` block, or by :meth:`close`."""

    @abstractmethod
    def close(self) -> None:
        """Close the file; the object cannot be used afterwards."""

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file.

        Parameters
        ----------
        kind : type or None
            Type of an exception; None without one.
        error : BaseException or None
            The exception.
        traceback : types.TracebackType or None
            Its traceback.
        """
        self.close()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file to write, which takes the place of `path` at the end.

    The temporary file is in a hidden folder of this process alone, beside `path`. When the block
    ends, its contents are flushed to the disk and it is renamed: readers see the old file or the
    new one, never a part. If the block fails, the temporary file is deleted and `path` stays as it
    was. What a killed process leaves is deleted by the next one that writes in the folder.

    Parameters
    ----------
    path : path-like
        File to write; an existing file is replaced. The folders above it are created.

    Yields
    ------
    pathlib.Path
        The temporary file, empty. A writer may also replace it by a file of its own.

    Raises
    ------
    OSError
        If the system cannot write the file, for example because the disk is full or the folder
        read-only, or if `path` is a folder or a device. The message has its reason and `path`.
    """
    path = Path(path)
    make_folder(path.parent)
    check_is_no_folder(path)
    with _naming(path), workspace(path.parent) as place:
        temporary = place / path.name
        temporary.touch()
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)  # some writers create files only their owner can read
        move_into_place(temporary, path)


@contextlib.contextmanager
def replacing_folder(
    path: str | os.PathLike[str], *, keep_existing: bool = False
) -> Iterator[Path]:
    """Give a temporary folder to fill, which takes the place of `path` at the end.

    Parameters
    ----------
    path : path-like
        Folder to write. The folders above it are created.
    keep_existing : bool, default=False
        If True, a folder that exists at the end stays, and the new one is deleted. Use it for
        contents that every process would write alike, and that another process may be reading.
        If False, the existing folder is replaced.

    Yields
    ------
    pathlib.Path
        The temporary folder, empty, in the file system of `path`.

    Raises
    ------
    OSError
        If the system cannot write the folder; the message has its reason and `path`.
    """
    path = Path(path)
    make_folder(path.parent)
    # Not in the workspace, which is deleted if the process is killed.
    old = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with _naming(path), workspace(path.parent) as place:
            temporary = place / path.name
            temporary.mkdir()
            yield temporary
            if path.exists():
                if keep_existing or _exchange(temporary, path):
                    return
                os.replace(path, old)  # a process killed here would leave no folder
            try:
                os.replace(temporary, path)
            except OSError:
                if old.exists():
                    os.replace(old, path)
                # Another process may have been first.
                if not path.exists() or not (keep_existing or _exchange(temporary, path)):
                    raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def move_into_place(temporary: Path, path: Path) -> None:
    """Flush a finished file to the disk and give it its name.

    Parameters
    ----------
    temporary : pathlib.Path
        Finished file, in the file system of `path`.
    path : pathlib.Path
        Its name from then on; an existing file is replaced.
    """
    with temporary.open("r+b") as file:
        os.fsync(file.fileno())  # else a power failure may leave the new name without contents
    os.replace(temporary, path)


def append(path: str | os.PathLike[str], content: bytes) -> None:
    """Append bytes to a file, all of them or none.

    A process that is killed may leave a part. The caller cuts it off when it reads the file again.

    Parameters
    ----------
    path : path-like
        File that grows; it is created if it does not exist.
    content : bytes
        The bytes.

    Raises
    ------
    OSError
        If the system cannot write the file; the message has its reason and `path`.
    """
    with _naming(Path(path)), open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(content)
            while rest:  # a disk that fills up takes a part
                rest = rest[file.write(rest) :]
        except OSError:
            file.truncate(end)
            raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as a whole, in UTF-8.

    Parameters
    ----------
    path : path-like
        File to write. The folders above it are created; an existing file is replaced.
    text : str
        Contents of the file.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: str | os.PathLike[str]) -> str:
    r"""Read a text file in UTF-8.

    Split it by ``text.split("\\n")``: `str.splitlines` would also split at characters that a line
    may hold, such as a form feed or U+2028.

    Parameters
    ----------
    path : path-like
        The file. A byte order mark at its beginning is left out.

    Returns
    -------
    str
        Contents of the file; line ends are kept as they are.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not in UTF-8; the message names the line. Save it as UTF-8.
    """
    return decode(Path(path).read_bytes(), os.fspath(path))


def decode(content: bytes, source: str, line: int = 1) -> str:
    """Return the text that bytes stand for in UTF-8.

    Parameters
    ----------
    content : bytes
        The bytes. A byte order mark at their beginning is left out.
    source : str
        Where they are from, for the message.
    line : int, default=1
        Number of their first line.

    Returns
    -------
    str
        The text.

    Raises
    ------
    ValueError
        If they are not UTF-8; the message names the line. Save the text as UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise ValueError(
            f"{source}:{line}: the byte 0x{content[error.start]:02x} is not text in UTF-8; save "
            "the file as UTF-8"
        ) from error


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors of the system in a block name the file that a user knows."""
    own = str(path.with_name(".cvxnn-"))
    try:
        yield
    except OSError as error:
        about = error.filename
        if error.errno is not None and (about is None or str(about).startswith(own)):
            error.filename = str(path)
            del error.filename2  # a None is shown
        raise
    except Exception as error:
        if isinstance(error, getattr(sys.modules.get("safetensors"), "SafetensorError", ())):
            raise OSError(f"cannot write {path}: {error}") from error
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; return False where the system cannot."""
    exchange = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    names = os.fsencode(one), os.fsencode(other)
    return exchange is not None and exchange(here, names[0], here, names[1], swap) == 0
