"""Output of a command: results on stdout, everything else on stderr."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from cvxnn.files.json_files import as_json

_VALUE = r"'[^']*'|\"[^\"]*\"|[-+\w.]*\w"
# A parameter, perhaps with a value, and one in the call of a function that is recommended.
_NAME = re.compile(rf"(?<![\w./\\-])(?P<name>[A-Za-z_]\w*)(?:=(?P<value>{_VALUE}))?(?![\w=(/-])")
# A setting that differs from that of an earlier result.
_SETTING = re.compile(r"((?<=\()|(?<=; ))(?:\w+\.)*(?P<name>\w+)(?=: [^;]* in the file, )")
_CALL = re.compile(rf"[A-Za-z_][\w.]*\(\.\.\., (?P<argument>(?P<name>\w+)=(?:{_VALUE}))\)")


class Console:
    """Two streams of a command.

    Parameters
    ----------
    json : bool, default=False
        Write one JSON object to stdout at the end, and nothing else there.
    quiet : bool, default=False
        Show no progress on stderr, only warnings and errors.

    Attributes
    ----------
    kept : callable
        Function without arguments: it says what an interruption has left. Commands set it.
    made : list of pathlib.Path
        Folders that the command created. Those that are empty when it fails are deleted.
    flags : dict of str to str
        Options of the command by the names that they have in Python. Warnings and errors name the
        options, as the library does not know who calls it.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.made: list[Path] = []
        self.flags: dict[str, str] = {}
        self.kept: Callable[[], str] = lambda: "nothing was kept; the same command begins again"
        self._out = sys.stdout

    def progress(self, text: str) -> None:
        """Write to stderr what is being done.

        Parameters
        ----------
        text : str
            A line.
        """
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def show(self, text: str = "", end: str = "\n") -> None:
        r"""Write a part of the result for people to stdout; with `json`, write nothing.

        Parameters
        ----------
        text : str, default=""
            The part.
        end : str, default="\n"
            What follows it.
        """
        if not self.json:
            print(text, end=end, file=self._out, flush=True)

    def complain(self, kind: str, text: str) -> None:
        """Write an error, a warning or the end by Ctrl-C as one line of stderr.

        Parameters
        ----------
        kind : {"error", "warning", "interrupted"}
            Beginning of the line.
        text : str
            Message; line breaks become spaces.
        """
        print(f"{kind}: {self.in_flags(' '.join(text.split()))}", file=sys.stderr, flush=True)

    def in_flags(self, text: str) -> str:
        """Return a text of the library as a user of the command line writes its options.

        Parameters
        ----------
        text : str
            Such as ``"increase max_length (now 160), or set ridge=0.1"``.

        Returns
        -------
        str
            Such as ``"increase --max-length (now 160), or set --ridge 0.1"``. A name of one word
            stays as it is where no value follows: it may be a word.
        """

        def argument(call: re.Match[str]) -> str:
            return call["argument"] if call["name"] in self.flags else call[0]

        def flag(match: re.Match[str]) -> str:
            name, value = match["name"], match["value"]
            if name not in self.flags or (value is None and "_" not in name):
                return match[0]
            given = "" if value is None else " " + value.strip("'\"")
            return self.flags[name] + given

        def setting(match: re.Match[str]) -> str:
            # Flags of objectives have the name of the method: beta of dpo is --dpo-beta.
            unclear = match[0].startswith("fine_tuning.") and "_" not in match["name"]
            return match[0] if unclear else self.flags.get(match["name"], match[0])

        return _NAME.sub(flag, _CALL.sub(argument, _SETTING.sub(setting, text)))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the one object, if `json` asks for it.

        Parameters
        ----------
        result : mapping
            What the command did.
        """
        if self.json:
            print(as_json(result), file=self._out, flush=True)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Show warnings for users as lines, and keep other libraries off a stdout of JSON.

        A warning that is repeated is shown once. A command that fails leaves no empty folders.

        Yields
        ------
        None
            While a command runs.
        """
        said: set[str] = set()

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            if str(message) not in said:
                self.complain("warning", str(message))
            said.add(str(message))

        with warnings.catch_warnings(), redirect_stdout(sys.stderr if self.json else self._out):
            warnings.simplefilter("ignore")
            # Warnings of other libraries to their programmers do not concern a user.
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = show
            try:
                yield
            except BaseException:
                with suppress(OSError):  # of a folder that is not empty
                    for folder in reversed(self.made):
                        folder.rmdir()
                raise
