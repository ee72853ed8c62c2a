"""What a module has to define to be a command of the program."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

from cvxnn.cli.console import Console


class Command(Protocol):
    """Module of a command, listed in ``main.py``. Its docstring is the description in the help.

    Attributes
    ----------
    HELP : str
        What the command does, in a few words.
    EXAMPLE : str
        A call, or one a line, indented by two spaces.
    """

    HELP: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the command.

        Parameters
        ----------
        parser : argparse.ArgumentParser
            Parser of the command.
        """

    def run(self, options: argparse.Namespace, console: Console) -> dict[str, Any]:
        """Run the command.

        Parameters
        ----------
        options : argparse.Namespace
            Parsed arguments.
        console : Console
            Where to write.

        Returns
        -------
        dict
            What the command did, for ``--json``.
        """
