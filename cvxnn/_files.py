"""Results on disk: written completely or not at all, identified by digests, resumed with care.

Everything that cvxnn writes goes through :func:`replacing` or :func:`replacing_folder`. Everything
that it identifies by content goes through :func:`digest` or :func:`digest_of_file`. Texts are read
by :func:`read_text`; lines end at a line feed and nowhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


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
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        temporary.touch()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"cannot write {path}: its folder does not exist; create the folder first"
        ) from error
    try:
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)  # some writers create files that only their owner can read
        move_into_place(temporary, path)
    finally:
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
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _temporary(path), _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists() and not keep_existing:
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            if not (keep_existing and path.exists()):
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
    """Write one JSON object as a whole.

    Parameters
    ----------
    path : path-like
        File to write. The folders above it are created; an existing file is replaced.
    value : mapping
        Contents, as :func:`as_json` takes them.
    """
    write_text(path, as_json(value, indent=1) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read one JSON object.

    Parameters
    ----------
    path : path-like
        File that :func:`write_json` wrote.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file does not hold a JSON object.
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
