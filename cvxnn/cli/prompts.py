"""Prompts of commands, and replies to them, as files hold them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvxnn.files.writing import read_text

if TYPE_CHECKING:
    from cvxnn.preference.triplets import Prompt


def read_prompts(path: str, limit: int | None = None) -> list[Prompt]:
    """Read prompts: rows with ``prompt``, or plain text with one prompt a line.

    Parameters
    ----------
    path : str
        The file: text if its name ends in ``.txt`` or has no ending, otherwise as for `read_rows`
        of `cvxnn.preference`. Both are in UTF-8.
    limit : int, optional
        Use the first so many prompts only.

    Returns
    -------
    list of (str or list of Message)
        The prompts; of rows, each distinct prompt once.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, empty, or not in UTF-8, or if a row has no prompt; the
        message names file, line and field.
    """
    from cvxnn.preference.row_files import read_rows

    if Path(path).is_dir() or not Path(path).exists():
        raise FileNotFoundError(f"no such file of prompts: {path}")
    if Path(path).suffix.lower() in ("", ".txt"):
        found = lines_of(read_text(path))
        if not found:
            raise ValueError(f"{path}: the file is empty; expected one prompt a line")
        return found[:limit]
    prompts: dict[str, Prompt] = {}
    for where, row in read_rows(path):
        prompt = _prompt_of(row, where)
        prompts.setdefault(repr(prompt), prompt)
        if len(prompts) == limit:
            break
    return list(prompts.values())


def lines_of(text: str) -> list[Prompt]:
    """Return the prompts of a text: its lines that are not blank.

    Parameters
    ----------
    text : str
        Text whose lines end in a line feed, or in carriage return and line feed.

    Returns
    -------
    list of str
        The lines, without their ends.
    """
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def read_replies(
    source: str, limit: int | None = None
) -> list[tuple[Prompt, str, dict[str, Any]]] | None:
    """Read prompts and replies from JSON lines with ``prompt`` and ``response``.

    Parameters
    ----------
    source : str
        The file.
    limit : int, optional
        Read the first so many rows only.

    Returns
    -------
    list of (prompt, response, row) or None
        The texts, and all fields of the row. None if `source` is not a file of that kind.

    Raises
    ------
    ValueError
        If a row lacks its prompt or its response.
    """
    from cvxnn.preference.row_checks import check_text
    from cvxnn.preference.row_files import read_rows

    if not Path(source).is_file():
        return None
    replies: list[tuple[Prompt, str, dict[str, Any]]] = []
    for where, row in read_rows(source, limit):
        if not replies and "response" not in row:
            return None
        response = row.get("response")
        check_text(response, where, "response")
        replies.append((_prompt_of(row, where), str(response), row))
    return replies


def read_candidates(source: str) -> list[tuple[Prompt, str, dict[str, Any]]]:
    """Read several replies to each prompt.

    Parameters
    ----------
    source : str
        File of rows with ``prompt`` and ``response``, with ``prompt`` and a list ``responses``, or
        with ``prompt`` and ``replies`` as ``cvxnn generate`` writes them.

    Returns
    -------
    list of (prompt, response, row)
        The texts. A row of several replies gives one for each, with ``response`` and, where replies
        have names, ``name`` in place of the list.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a row lacks its prompt or a reply; the message names file, line and field.
    """
    from cvxnn.preference.row_checks import check_text
    from cvxnn.preference.row_files import read_rows

    if not Path(source).is_file():
        raise FileNotFoundError(f"no such file of replies: {source}")
    found: list[tuple[Prompt, str, dict[str, Any]]] = []
    for where, row in read_rows(source):
        kind = next((name for name in ("response", "responses", "replies") if name in row), None)
        values = row.get(kind) if kind is not None else None
        expected = {"responses": list, "replies": dict}
        if kind is None or not isinstance(values, expected.get(kind, object)) or not values:
            pair = {"chosen", "rejected"} <= row.keys()
            hint = "; of pairs, cvxnn score gives the reward of both replies" if pair else ""
            raise ValueError(
                f"{where}: expected 'response' with a text, 'responses' with a list of texts, or "
                f"'replies' as cvxnn generate writes them{hint}"
            )
        prompt = _prompt_of(row, where)
        rest = {name: value for name, value in row.items() if name != kind}
        named = (
            values.items()
            if isinstance(values, dict)
            else [(None, text) for text in (values if isinstance(values, list) else [values])]
        )
        for name, value in named:
            text = value.get("text") if isinstance(value, dict) else value
            check_text(text, where, kind)
            extra = {"response": text} if name is None else {"name": name, "response": text}
            found.append((prompt, str(text), {**rest, **extra}))
    return found


def _prompt_of(row: dict[str, Any], where: str) -> Prompt:
    from cvxnn.preference.row_checks import check_text, parse_messages

    prompt = row.get("prompt")
    if isinstance(prompt, list):
        return parse_messages(prompt, where, "prompt")
    check_text(prompt, where, "prompt")
    return str(prompt)
