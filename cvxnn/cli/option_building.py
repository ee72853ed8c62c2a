"""Options of the command line, made from the parameters that they set."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from cvxnn.cli.option_types import names_among, number_or_word, positive, real
from cvxnn.cli.signatures import Parameter, parameters


class UsageError(Exception):
    """Error of the command line, or of the file of settings."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Layout of help that keeps the lines of descriptions and states each default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, value = action.help, action.default
        if not text or "(default: " in text or not action.option_strings:
            return text
        if value is None or value is False or value == [] or value == argparse.SUPPRESS:
            return text
        if isinstance(value, tuple):
            return f"{text} (default: {','.join(map(str, value))})"
        return f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Parser that raises an error instead of ending the program.

    Parameters
    ----------
    **options
        As for ``argparse.ArgumentParser``.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`.

        Parameters
        ----------
        message : str
            What is wrong with the arguments.
        """
        raise UsageError(f"{message} (see {self.prog} --help)")


def option_from(function: str, parameter: str) -> dict[str, Any]:
    """Return arguments of ``add_argument`` for an option that sets a parameter of the library.

    Parameters
    ----------
    function : str
        Dotted name of the function or class, which is not imported.
    parameter : str
        Name of its parameter.

    Returns
    -------
    dict
        ``help`` is the first sentence of the parameter's description, ``default`` that of the
        signature, and ``type`` and ``choices`` are those of the annotation. A whole number has to
        be at least 1, any other number finite. A sequence of fixed words is one argument with
        commas between them; for any other sequence the option is repeated.
    """
    found = parameters(function)[parameter]
    option: dict[str, Any] = {"help": found.text.replace("%", "%%"), "default": found.default}
    if found.repeated and found.choices:
        text = f"{option['help']}, out of {', '.join(found.choices)}"
        return {**option, "help": text, "type": names_among(found.choices), "metavar": "A,B,..."}
    if found.repeated and not isinstance(found.default, int):  # one number may stand for several
        return {**option, "default": list(found.default), "action": "append", "metavar": "TEXT"}
    if found.type is bool:
        return {**option, "action": argparse.BooleanOptionalAction}
    return {**option, **_of_type(found)}


def _of_type(found: Parameter) -> dict[str, Any]:
    if found.type is str:
        return {"choices": found.choices} if found.choices else {"metavar": "TEXT"}
    number: Callable[[str], Any] = positive if found.type is int else real()
    metavar = "N" if found.type is int else "X"
    if not found.choices:
        return {"type": number, "metavar": metavar}
    return {
        "type": number_or_word(number, found.choices),
        "metavar": "|".join([metavar, *found.choices]),
    }


@dataclass(frozen=True)
class OptionGroup:
    """Options that set parameters of one function or class.

    Parameters
    ----------
    function : str
        Dotted name of the function or class.
    options : mapping of str to mapping
        For each parameter that has an option, what differs from `option_from`; an entry ``flag``
        is the name of the option, where it is not that of the parameter, and ``alias`` another.
    title : str, optional
        Heading of the group in the help; by default the options stand where they are added.
    """

    function: str
    options: Mapping[str, Mapping[str, Any]]
    title: str | None = None

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Add the options to a parser.

        Parameters
        ----------
        parser : argparse.ArgumentParser or argument group
            Parser that gets the options.
        """
        group = parser if self.title is None else parser.add_argument_group(self.title)
        for name, own in self.options.items():
            arguments = {**option_from(self.function, name), **own}
            flags = [arguments.pop("flag", _flag(name)), arguments.pop("alias", None)]
            group.add_argument(*filter(None, flags), **arguments)

    def values(self, options: argparse.Namespace) -> dict[str, Any]:
        """Return keyword arguments for the function or class.

        Parameters
        ----------
        options : argparse.Namespace
            Parsed arguments.

        Returns
        -------
        dict
            A value for each parameter of the group.
        """
        return {
            name: getattr(options, own.get("flag", _flag(name)).strip("-").replace("-", "_"))
            for name, own in self.options.items()
        }

    def changed(self, options: argparse.Namespace) -> dict[str, Any]:
        """Return those of the `values` that are not the default.

        Parameters
        ----------
        options : argparse.Namespace
            Parsed arguments.

        Returns
        -------
        dict
            A part of the keyword arguments.
        """
        known = parameters(self.function)
        values = self.values(options)
        return {name: value for name, value in values.items() if value != known[name].default}


def flags_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the options of a command by the names of the parameters that they set.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of the command.

    Returns
    -------
    dict of str to str
        Such as ``{"max_length": "--max-length"}``.
    """
    flags = {
        action.dest: action.option_strings[0]
        for action in parser._actions
        if action.option_strings and action.option_strings[0].startswith("--")
    }
    if "model_cache" in flags:
        flags["cache_dir"] = flags["model_cache"]
    if "max_length" not in flags:  # the head decides
        flags["max_length"] = "--max-length of extract"
    return flags


def _flag(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"
