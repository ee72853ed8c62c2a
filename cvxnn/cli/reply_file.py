"""A file of replies that grows prompt by prompt, and that a second call continues."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn._progress import Progress
from cvxnn.cli.console import Console
from cvxnn.files.json_files import as_json, earlier_result, read_json, write_json
from cvxnn.files.locks import locked
from cvxnn.files.writing import write_text

if TYPE_CHECKING:
    from cvxnn.preference.triplets import Prompt


def grow_replies(
    output: Path | None,
    settings: Mapping[str, Any],
    prompts: Sequence[Prompt],
    begin: Callable[[], Callable[[Prompt], dict[str, Any]]],
    console: Console,
    *,
    overwrite: bool,
) -> tuple[bool, list[dict[str, Any]]]:
    """Write replies to prompts, those that an earlier call has not written yet.

    Parameters
    ----------
    output : Path or None
        File of JSON lines, beside which ``NAME.json`` has the settings; None keeps nothing. A
        second process with the same file waits until the first ends.
    settings : mapping
        Everything that the replies depend on.
    prompts : sequence of (str or list of Message)
        What to answer.
    begin : callable
        Loads what answers, and returns the function from a prompt to a row with ``prompt`` and
        ``replies``; called if there is something to write.
    console : Console
        Where progress is shown.
    overwrite : bool
        Whether to begin again.

    Returns
    -------
    done : bool
        Whether there was something to write.
    rows : list of dict
        One for each prompt.

    Raises
    ------
    OtherSettingsError
        If the file holds replies of other settings, with each difference, or is not of cvxnn.
    """
    with contextlib.nullcontext() if output is None else locked(output):
        rows: list[dict[str, Any]] = []
        found, note, begun = None, None, None
        if output is not None:
            note, begun = output.with_name(f"{output.name}.json"), begun_file(output)
            if not output.exists() and not begun.exists():
                note.unlink(missing_ok=True)  # nothing was made with its settings
            found = earlier_result(note, settings, overwrite=overwrite, output=output)
            rows = [] if found is None else _finished(output, prompts)
        console.kept = lambda: _kept(rows, prompts, output)
        remaining = prompts[len(rows) :]
        if remaining:
            answer = begin()
            if output is not None and begun is not None and note is not None and found is None:
                # First the replies: the settings must not be taken for theirs.
                output.unlink(missing_ok=True)
                begun.unlink(missing_ok=True)
                write_json(note, {"settings": settings})
            # A line that is rewritten would run into the text that is being shown.
            rewrites = None if console.json or not sys.stdout.isatty() else False
            with Progress(
                "replies",
                len(prompts),
                "prompts",
                show=not console.quiet,
                done=len(rows),
                rewrites=rewrites,
            ) as bar:
                for prompt in remaining:
                    rows.append(answer(prompt))
                    if output is not None:
                        write_text(output, "".join(as_json(row) + "\n" for row in rows))
                        begun_file(output).unlink(missing_ok=True)
                    bar.update()
        return bool(remaining), rows


def show_replies(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Show what the ways of writing have in common, and warn where the reward was hacked.

    Parameters
    ----------
    rows : sequence of mapping
        Prompts with ``replies``.
    console : Console
        Where to write.
    """
    from cvxnn.comparison.reply_table import hacking_text, reply_table

    if any(len(row["replies"]) > 1 for row in rows) or len(rows) > 1:
        for line in reply_table(rows):
            console.show(line)
        console.show(
            "means over replies; log-prob.: under the model; repeated: share of runs of three\n"
            "tokens that were in the reply before; cut: at --max-new-tokens"
        )
    if warning := hacking_text(rows):
        console.complain("warning", warning)


def begun_file(output: Path) -> Path:
    """Return the file of the replies to a prompt of which some are not written yet.

    Parameters
    ----------
    output : Path
        File of the replies.

    Returns
    -------
    Path
        A file beside it.
    """
    return output.with_name(f"{output.name}.begun")


def begun_replies(begun: Path | None, prompt: Prompt) -> dict[str, Any]:
    """Read the replies to a prompt that an interrupted call has written.

    Parameters
    ----------
    begun : Path or None
        File of `begun_file`.
    prompt : str or list of Message
        What is answered.

    Returns
    -------
    dict
        Replies by the way of writing; empty if there are none.
    """
    found = read_json(begun) if begun is not None and begun.is_file() else {}
    replies: dict[str, Any] = found["replies"] if found.get("prompt") == prompt else {}
    return replies


def _kept(rows: Sequence[Mapping[str, Any]], prompts: Sequence[Prompt], output: Path | None) -> str:
    """Return what an interruption has left."""
    if output is None:
        return "nothing was kept; with --output, the same command would continue"
    more = len(begun_replies(begun_file(output), prompts[len(rows)])) if prompts[len(rows) :] else 0
    if not rows and not more:
        return "no reply was kept; the same command begins again"
    parts = [f"the replies to {len(rows)} of {len(prompts)} prompts"] if rows else []
    own = "those to the next" if rows else "the replies to the first"
    parts += [f"{more} of {own} prompt"] if more else []
    return f"{' and '.join(parts)} are kept in {output}; the same command continues"


def _finished(path: Path, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Return the rows of an earlier call, in the order of the prompts, up to the first missing."""
    from cvxnn.preference.row_files import read_rows

    rows = [row for _, row in read_rows(path)] if path.is_file() else []
    same = (row.get("prompt") == prompt for row, prompt in zip(rows, prompts, strict=False))
    return rows[: sum(itertools.takewhile(bool, same))]
