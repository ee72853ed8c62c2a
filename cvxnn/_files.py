"""Results on disk: written completely or not at all, identified by digests, resumed with care.

Everything that cvxnn writes goes through :func:`replacing` or :func:`replacing_folder`, or grows by
:func:`append`. Everything that it identifies by content goes through :func:`digest` or
:func:`digest_of_file`. Texts are read by :func:`read_text`; lines end at a line feed and nowhere
else. A writer that continues from what lies on the disk holds :func:`cvxnn._locks.locked`.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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


class OtherSettingsError(ValueError):
    """Error for a file that holds a result of other settings; the file was not changed."""


# Writing ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file to write, which takes the place of `path` at the end.

    The temporary file is in the folder of `path` and has a name that no other process uses. When
    the block ends, its contents are flushed to the disk and it is renamed: readers see the old
    file or the new one, never a part. If the block fails, the temporary file is deleted and `path`
    stays as it was.

    Parameters
    ----------
    path : path-like
        File to write; an existing file is replaced.

    Yields
    ------
    pathlib.Path
        The temporary file, empty. A writer may also replace it by a file of its own.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist; create it first.
    OSError
        If the system cannot write the file, for example because the disk is full or the folder
        read-only. The message has its reason and `path`.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with _naming(path, temporary):
            try:
                temporary.touch()
            except FileNotFoundError as error:
                raise FileNotFoundError(
                    f"cannot write {path}: its folder does not exist; create the folder first"
                ) from error
            permissions = temporary.stat().st_mode
            yield temporary
            temporary.chmod(permissions)  # some writers create files only their owner can read
            move_into_place(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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
        The temporary folder, empty, beside `path`.

    Raises
    ------
    OSError
        If the system cannot write the folder; the message has its reason and `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _temporary(path), _temporary(path)
    try:
        with _naming(path, temporary):
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
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def move_into_place(temporary: Path, path: Path) -> None:
    """Flush a finished file to the disk and give it its name.

    Parameters
    ----------
    temporary : pathlib.Path
        Finished file, in the folder of `path`.
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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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


# JSON -------------------------------------------------------------------------------------------


def as_json(value: Any, indent: int | None = None) -> str:
    """Return the JSON text of numbers, texts, lists and mappings.

    Parameters
    ----------
    value : object
        Numbers and arrays of NumPy are written as those of Python; infinities and NaN become null.
    indent : int, default=None
        Spaces per level; None writes everything on one line.

    Returns
    -------
    str
        JSON that any parser accepts, without a final line break.
    """
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write one JSON object as a whole, with its digest.

    Parameters
    ----------
    path : path-like
        File to write. The folders above it are created; an existing file is replaced.
    value : mapping
        Contents, as :func:`as_json` takes them, without an entry ``digest``.
    """
    plain = json.loads(as_json(value))
    write_text(path, as_json({**plain, "digest": digest(plain)}, indent=1) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one JSON object.

    Parameters
    ----------
    path : path-like
        File that :func:`write_json` wrote, or another one, without an entry ``digest``.

    Returns
    -------
    dict
        The object, without its digest.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file does not hold a JSON object, or one that was changed after it was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); was it changed by hand?") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, as cvxnn writes it")
    expected = value.pop("digest", None)
    if expected is not None and expected != digest(value):
        raise ValueError(
            f"{path}: the contents were changed after cvxnn wrote them, or the file is damaged; "
            "take another copy, or delete the file and make it again"
        )
    return value


# Digests ----------------------------------------------------------------------------------------


def digest(*parts: Any, digits: int = 16) -> str:
    """Return the SHA-256 digest of bytes, arrays and JSON values.

    The digest is the same on every machine. It depends on the order of the parts and on where one
    part ends and the next begins; for a long sequence, pass a generator with ``*``.

    Parameters
    ----------
    *parts : bytes, numpy.ndarray, or what JSON can hold
        For an array of numbers, its type, shape and values count; for a dict, not the order of
        its keys. A path is a text like any other; :func:`digest_of_file` reads a file.
    digits : int, default=16
        Number of hexadecimal digits, at most 64. With 16 digits, a coincidence among a million
        objects has a probability of about 3e-8.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    total = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            total.update(len(piece).to_bytes(8, "little"))
            total.update(piece)
    return total.hexdigest()[:digits]


def digest_of_file(path: str | os.PathLike[str], digits: int = 16) -> str:
    """Return the SHA-256 digest of the contents of a file.

    Parameters
    ----------
    path : path-like
        File to read.
    digits : int, default=16
        Number of hexadecimal digits, at most 64.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:digits]


# Resuming ---------------------------------------------------------------------------------------


def earlier_result(
    path: str | os.PathLike[str], settings: Mapping[str, Any], *, overwrite: bool
) -> dict[str, Any] | None:
    """Return the result in a JSON file, if it has the requested settings.

    Parameters
    ----------
    path : path-like
        File that :func:`write_json` wrote, with an entry ``settings``; it need not exist.
    settings : mapping
        Everything that the result depends on, as :func:`as_json` takes it.
    overwrite : bool
        If True, ignore what the file holds.

    Returns
    -------
    dict or None
        Contents of the file; None if there is no file, or if it is to be overwritten.

    Raises
    ------
    OtherSettingsError
        If the file holds a result of other settings; the message names each difference.
    """
    if overwrite or not Path(path).exists():
        return None
    result = read_json(path)
    check_settings(path, result.get("settings", {}), settings)
    return result


def check_settings(
    path: str | os.PathLike[str], found: Mapping[str, Any], requested: Mapping[str, Any]
) -> None:
    """Refuse to continue from a result of other settings.

    Parameters
    ----------
    path : path-like
        Where the result is, for the message.
    found : mapping
        Settings of that result.
    requested : mapping
        Settings of the caller. Both are compared as JSON: a tuple equals a list.

    Raises
    ------
    OtherSettingsError
        If they differ; the message names each difference.
    """
    differences = list(_differences(json.loads(as_json(found)), json.loads(as_json(requested))))
    if differences:
        raise OtherSettingsError(
            f"{path} holds a result of other settings ({'; '.join(differences)}). Request the "
            "settings in the file, write to another place, or overwrite the file"
        )


# Private parts ----------------------------------------------------------------------------------


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


@contextlib.contextmanager
def _naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let errors of the system in a block name the file that a user knows."""
    try:
        yield
    except OSError as error:
        about = error.filename
        if error.errno is not None and (
            about is None or (temporary and str(about).startswith(str(temporary)))
        ):
            error.filename, error.filename2 = str(path), None
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


def _pieces(part: Any) -> Iterable[bytes | memoryview]:
    """Kind and contents of a part of a digest; no two different parts have the same."""
    if isinstance(part, bytes):
        return b"bytes", part
    if hasattr(part, "__array_interface__"):
        import numpy as np  # is loaded already; the command line's --help does without it

        array = np.asarray(part)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"cannot digest an array of {array.dtype}; expected numbers")
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        about = f"array {array.dtype.str} {array.shape}".encode()
        return about, array.reshape(-1).view(np.uint8).data
    text = json.dumps(part, sort_keys=True, separators=(",", ":"))
    return b"json", text.encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # arrays and numbers of NumPy
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _differences(found: Any, requested: Any, name: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(requested, dict):
        for key in dict.fromkeys([*found, *requested]):
            yield from _differences(
                found.get(key), requested.get(key), f"{name}.{key}" if name else str(key)
            )
    elif found != requested:
        yield f"{name}: {json.dumps(found)} in the file, {json.dumps(requested)} requested"
