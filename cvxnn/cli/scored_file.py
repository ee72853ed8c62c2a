"""A file of rewards: made once for its settings, which a note beside it records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cvxnn._messages import counted
from cvxnn.cli.console import Console
from cvxnn.files.json_files import begun, earlier_result, write_json
from cvxnn.files.locks import check_file, locked
from cvxnn.files.writing import write_text


def beside(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a row and what was found for it.

    Parameters
    ----------
    row : mapping
        Fields that a user gave.
    found : mapping
        Results by name.

    Returns
    -------
    dict
        Both; a field with the name of a result becomes ``input_NAME``.
    """
    fields = {f"input_{name}" if name in found else name: row[name] for name in row}
    return {**fields, **found}


def write_scored(
    output: Path,
    settings: Mapping[str, Any],
    console: Console,
    score: Callable[[Path], tuple[str, dict[str, Any]]],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Write a file of rewards, unless it is there with the same settings.

    Parameters
    ----------
    output : Path
        The file. Its note is ``OUTPUT.json``; embeddings are kept beside it until all is done, so
        that a second call can continue.
    settings : mapping
        Everything that the contents depend on.
    console : Console
        Gets what an interruption has left.
    score : callable
        Function from the file that keeps embeddings to the text of `output`, and what else the note
        is to hold.
    overwrite : bool
        Whether to make the file again in any case.

    Returns
    -------
    dict
        Contents of the note, with ``status``: ``"done"`` or ``"nothing to do"``.

    Raises
    ------
    OtherSettingsError
        If the file was made with other settings, or not by cvxnn.
    """
    console.made += check_file(output)
    note = output.with_name(f"{output.name}.json")
    with locked(output):
        found = earlier_result(note, settings, overwrite=overwrite, output=output)
        if found is not None and output.exists():
            return {**found, "status": "nothing to do"}
        cache = output.with_name(f".{output.name}.embeddings.sqlite")
        console.kept = lambda: _kept(cache)
        text, result = score(cache)
        with begun(output, note):
            write_text(output, text)
        found = {**result, "status": "done", "output": str(output), "settings": dict(settings)}
        write_json(note, found)
        cache.unlink(missing_ok=True)
    return found


def _kept(cache: Path) -> str:
    """Return what an interruption has left of the embeddings."""
    from cvxnn.llm.cache import EmbeddingCache

    n = 0
    if cache.exists():
        with EmbeddingCache(cache) as embeddings:
            n = len(embeddings)
    if not n:
        return "nothing was kept; the same command begins again"
    verb = "is" if n == 1 else "are"
    return f"{counted(n, 'embedding')} {verb} kept; the same command continues"
