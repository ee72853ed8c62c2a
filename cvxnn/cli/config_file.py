"""File of settings: TOML tables that stand for the options of commands."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvxnn.cli.option_building import Parser, UsageError
from cvxnn.cli.option_types import nearest
from cvxnn.files.writing import read_text


def insert_settings(
    path: str, command: str, parsers: Mapping[str, Parser], given: list[str]
) -> None:
    """Insert the settings of a TOML file into the arguments of a command.

    Parameters
    ----------
    path : str
        The file.
    command : str
        Name of the command. Its table is read; the names of the other tables are checked.
    parsers : mapping of str to Parser
        Parser of each command.
    given : list of str
        Arguments after the command, changed in place. Options of the file that are not among them
        are inserted before them; a positional argument becomes the default of the parser.

    Raises
    ------
    UsageError
        For bad TOML, and for a name that is neither a command nor an option; correct the file.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not in UTF-8; save it as UTF-8.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file of settings: {path}")
    text = read_text(path)
    try:
        tables = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    for name, table in tables.items():
        if name not in parsers:
            raise UsageError(
                f"{path}: {name!r} is not a command{nearest(name, parsers)}; expected tables among "
                f"{', '.join(f'[{known}]' for known in parsers)}"
            )
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name!r} is a value; expected a table [{name}]")
    parser = parsers[command]
    actions = {
        name.removeprefix("--"): action
        for action in parser._actions
        for name in action.option_strings or [action.dest]
        if action.dest not in ("help", "config") and not name.startswith("--no-")
    }
    seen = {argument.partition("=")[0] for argument in given}
    inserted: list[str] = []
    for key, value in tables.get(command, {}).items():
        where, name = f"{path}: [{command}] {key}", key.replace("_", "-")
        if name not in actions:
            raise UsageError(f"{where}: there is no such option{nearest(name, actions)}")
        action = actions[name]
        if not action.option_strings:
            if action.nargs == "*":
                values = value if isinstance(value, list) else [value]
                parser.set_defaults(**{action.dest: [_text(entry, where) for entry in values]})
            else:
                parser.set_defaults(**{action.dest: _text(value, where)})
        elif not seen & set(action.option_strings):
            inserted += _arguments(action, value, where)
    try:
        parser.parse_args(inserted)
    except UsageError as error:
        raise UsageError(f"{path}: [{command}] {error}") from None
    given[:0] = inserted


def _arguments(action: argparse.Action, value: Any, where: str) -> list[str]:
    """Return what one would type for a value of the file."""
    option = action.option_strings[0]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where}: expected true or false, got {value!r}")
        without = [o for o in action.option_strings if o.startswith("--no-")]
        return [option] if value else without[:1]
    values = value if isinstance(value, list) else [value]
    texts = [_text(entry, where) for entry in values]
    if isinstance(action, argparse._AppendAction):
        return [f"{option}={text}" for text in texts]
    return [f"{option}={','.join(texts)}"]


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{where}: expected a string or a number, got {value!r}")
    return str(value)
