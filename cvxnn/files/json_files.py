"""Results in JSON files: written with a digest, and continued only with the settings they have."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cvxnn.files.digests import digest
from cvxnn.files.locks import locked
from cvxnn.files.writing import read_text, write_text

# What a note says while its result is made: that the file is of cvxnn, though not finished.
_BEGUN = {"status": "begun"}


class OtherSettingsError(ValueError):
    """Error for a file that holds something else than is to be made; it was not changed."""


class DamagedResultError(ValueError):
    """Error for an earlier result that cannot be read; it was not changed, and may be replaced."""


@contextlib.contextmanager
def damage_named() -> Iterator[None]:
    """Let errors of a block that reads an earlier result say that it may be replaced.

    Raises
    ------
    DamagedResultError
        If the block ends with a ``ValueError`` or a ``FileNotFoundError``.
    """
    try:
        yield
    except OtherSettingsError:
        raise
    except (ValueError, FileNotFoundError) as error:
        raise DamagedResultError(str(error)) from error


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


def earlier_result(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    *,
    overwrite: bool,
    output: Path | None = None,
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
    output : Path, optional
        The file that ``path`` is a note of. Without a note, it is not one that cvxnn made.

    Returns
    -------
    dict or None
        Contents of the file; None if there is no file, if it is to be overwritten, or if the result
        was only begun.

    Raises
    ------
    OtherSettingsError
        If the file holds a result of other settings; the message names each difference. Or if there
        is an ``output`` without a note.
    DamagedResultError
        If it cannot be read.
    """
    if overwrite:
        return None
    if not Path(path).exists():
        if output is not None and output.exists():
            raise OtherSettingsError(
                f"{output} is there, and no {Path(path).name} beside it says that cvxnn made it. "
                "Write to another place, or overwrite the file"
            )
        return None
    with damage_named():
        result = read_json(path)
    if result == _BEGUN:
        return None
    check_settings(path, result.get("settings", {}), settings)
    return result


def made_once(
    output: Path,
    settings: Mapping[str, Any],
    make: Callable[[], Mapping[str, Any]],
    *,
    overwrite: bool,
    note: Path | None = None,
) -> dict[str, Any]:
    """Return the result of an earlier call with the same settings, or make it and write it down.

    Parameters
    ----------
    output : Path
        File that is made; one process at a time makes it.
    settings : mapping
        Everything that the result depends on.
    make : callable
        Makes everything, and returns what the note is to hold beside the settings.
    overwrite : bool
        Whether to make it in any case.
    note : Path, optional
        JSON file of the result, if it is not `output` itself.

    Returns
    -------
    dict
        Contents of the note, with ``status``: ``"done"`` or ``"nothing to do"``.

    Raises
    ------
    OtherSettingsError
        If the note holds a result of other settings, or the output has no note.
    """
    note = note or output
    with locked(output):
        found = earlier_result(note, settings, overwrite=overwrite, output=output)
        if found is not None and output.exists():
            return {**found, "status": "nothing to do"}
        known = {"status": "done", "output": str(output), "settings": settings}
        with begun(output, note):
            made = make()
        write_json(note, {**known, **made})
        return read_json(note)


@contextlib.contextmanager
def begun(output: Path, note: Path) -> Iterator[None]:
    """Let a note describe nothing while its file is made, but say whose the file is.

    Parameters
    ----------
    output : Path
        File that is made in the block.
    note : Path
        JSON file beside it, which is written after the block; or the same file.
    """
    if note == output:
        note.unlink(missing_ok=True)
    else:
        write_json(note, _BEGUN)
    try:
        yield
    except BaseException:
        if note != output and not output.exists():
            note.unlink(missing_ok=True)
        raise


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
