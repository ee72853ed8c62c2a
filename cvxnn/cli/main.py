"""Program ``cvxnn``: it parses the command line, runs a command and reports how it ended."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path

from cvxnn import __version__
from cvxnn.cli import (
    best,
    compare,
    evaluate,
    extract,
    fit,
    generate,
    joint,
    make,
    merge,
    push,
    report,
    score,
    serve,
    study,
)
from cvxnn.cli.command import Command
from cvxnn.cli.config_file import insert_settings
from cvxnn.cli.console import Console
from cvxnn.cli.option_building import Parser, UsageError, flags_of
from cvxnn.cli.option_groups import add_common
from cvxnn.cli.option_types import nearest
from cvxnn.files.folders import reason_of
from cvxnn.files.json_files import DamagedResultError, OtherSettingsError
from cvxnn.numerics.interrupts import no_interrupt_lost
from cvxnn.preference.text_checks import check_is_text

OK, BAD_INPUT, USAGE, NOT_CONVERGED, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130

COMMANDS: dict[str, Command] = {
    "extract": extract,
    "merge": merge,
    "fit": fit,
    "score": score,
    "best": best,
    "generate": generate,
    "make": make,
    "compare": compare,
    "joint": joint,
    "evaluate": evaluate,
    "study": study,
    "report": report,
    "serve": serve,
    "push": push,
}

_DESCRIPTION = "Preference heads for language models by convex optimisation."
_EPILOG = """\
a first run:
  cvxnn extract pairs.jsonl --output features
  cvxnn fit features --output head.safetensors
  cvxnn score head.safetensors other_pairs.jsonl
  cvxnn generate head.safetensors --prompt "What is 2 + 2?"

exit codes:
  0 done or nothing to do   1 bad data, missing file or package   2 usage error
  3 not converged (written), or a plan that does not fit
  4 refused: results of other settings                            130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the name of the program; by default those of the process.

    Returns
    -------
    int
        Exit code; `cvxnn.cli` lists them.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console(json="--json" in arguments, quiet="--quiet" in arguments)
    debug = "--debug" in arguments
    try:
        with no_interrupt_lost():
            return _run(arguments, console)
    except SystemExit as end:  # --help and --version
        return OK if end.code is None else int(end.code)
    except KeyboardInterrupt:
        return _fail(console, INTERRUPTED, console.kept(), "interrupted")
    except BrokenPipeError:
        # The reader of the output has gone. Without this, the interpreter would fail at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_INPUT
    except Exception as error:
        if debug:
            traceback.print_exc()
        text = _text_of(error, console)
        if isinstance(error, UsageError):
            return _fail(console, USAGE, text)
        if isinstance(error, OtherSettingsError):
            return _fail(console, REFUSED, f"{text} (--overwrite)")
        if isinstance(error, DamagedResultError):
            return _fail(console, BAD_INPUT, f"{text} (--overwrite replaces it)")
        of_system = isinstance(error.__cause__, OSError)  # a server that does not answer, say
        if of_system or isinstance(
            error, ValueError | TypeError | OSError | ImportError | MemoryError
        ):
            return _fail(console, BAD_INPUT, text)
        name = type(error).__name__
        return _fail(console, BAD_INPUT, f"{name}: {text} (--debug shows where)")


def build(commands: Collection[str] = tuple(COMMANDS)) -> tuple[Parser, dict[str, Parser]]:
    """Build the parser.

    Parameters
    ----------
    commands : collection of str
        Commands whose options are needed, by default all. To make options takes a few
        milliseconds a command, because they are read from the source of the library.

    Returns
    -------
    parser : Parser
        Parser of the whole command line.
    parsers : dict of str to Parser
        Parser of each command.
    """
    parser = Parser(prog="cvxnn", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"cvxnn {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {}
    for name, module in COMMANDS.items():
        parsers[name] = subparsers.add_parser(
            name,
            help=module.HELP,
            description=(module.__doc__ or "").strip(),
            epilog=f"example:\n{module.EXAMPLE}",
        )
        if name in commands:
            module.add_arguments(parsers[name])
            add_common(parsers[name])
    return parser, parsers


def _run(arguments: list[str], console: Console) -> int:
    command = next((argument for argument in arguments if argument in COMMANDS), None)
    parser, parsers = build([command] if command else [])
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise UsageError(
            f"unknown command {arguments[0]!r}; expected one of {', '.join(COMMANDS)}"
            f"{nearest(arguments[0], COMMANDS)} (see cvxnn --help)"
        )
    if command and arguments[0] == command:
        given = arguments[1:]
        known, _ = _config_only().parse_known_args(given)
        if known.config is not None:
            insert_settings(known.config, command, parsers, given)
            arguments = [command, *given]
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        flags = [flag for flag in parsers[options.command]._option_string_actions if flag != "-h"]
        raise UsageError(
            f"unrecognized arguments: {' '.join(unknown)}{nearest(unknown[0], flags)} "
            f"(see cvxnn {options.command} --help)"
        )
    _check_texts(options)
    _check_output(options)
    console.json, console.quiet = options.json, options.quiet
    console.flags = flags_of(parsers[options.command])
    with console.guard():
        result = COMMANDS[options.command].run(options, console)
    console.finish(result)
    failed = result.get("converged") is False or result.get("fits") is False
    return NOT_CONVERGED if failed else OK


def _check_texts(options: argparse.Namespace) -> None:
    """Refuse arguments whose bytes are not text: they could be neither read nor written."""
    for name, value in vars(options).items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, str):
                try:
                    check_is_text(text, f"{name.replace('_', '-')} {text!a:.80}")
                except ValueError as error:
                    raise UsageError(str(error)) from error


def _check_output(options: argparse.Namespace) -> None:
    """Refuse to write over a file that is read."""
    output = getattr(options, "output", None)
    if output is None or not Path(output).is_file():
        return
    for name, value in vars(options).items():
        for given in value if isinstance(value, list | tuple) else [value]:
            if name != "output" and isinstance(given, str | Path) and _is_same(given, output):
                raise UsageError(
                    f"--output {output} is a file that this command reads; write to another place"
                )


def _is_same(given: str | Path, file: str | Path) -> bool:
    """Return whether an argument names a file; a long text cannot be asked for one."""
    try:
        return Path(given).samefile(file)
    except (OSError, ValueError):
        return False


def _config_only() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument("--config")
    return parser


def _text_of(error: Exception, console: Console) -> str:
    """Return the message of an error; for those of the system, with a remedy."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error) or type(error).__name__
    named = "" if error.filename is None else f"{error.filename}: "
    again = f", and begin again ({console.kept()})" if error.errno == errno.ENOSPC else ""
    return f"{named}{reason_of(error)}{again}"


def _fail(console: Console, code: int, text: str, kind: str = "error") -> int:
    console.complain(kind, text)
    console.finish({kind: console.in_flags(text), "exit_code": code})
    return code
