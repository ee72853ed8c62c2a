"""Command line: ``cvxnn extract | fit | score | generate | compare | report``.

Exit codes: 0 done, or nothing to do; 1 bad data, a missing file or package; 2 usage; 3 a fit did
not converge (its result is written); 4 refused, a result of other settings is there; 130
interrupted (what was finished is kept).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from cvxnn import __version__
from cvxnn._files import OtherSettingsError
from cvxnn.cli import compare, extract, fit, generate, report, score
from cvxnn.cli.console import Console
from cvxnn.cli.options import Parser, UsageError, common_options, from_file

OK, BAD_INPUT, USAGE, NOT_CONVERGED, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130

COMMANDS: dict[str, ModuleType] = {
    "extract": extract,
    "fit": fit,
    "score": score,
    "generate": generate,
    "compare": compare,
    "report": report,
}

_DESCRIPTION = "Preference heads for language models by convex optimisation."
_EPILOG = """\
a first run:
  cvxnn extract pairs.jsonl --output features
  cvxnn fit features --output head.safetensors
  cvxnn score head.safetensors other_pairs.jsonl
  cvxnn generate head.safetensors --prompt "What is 2 + 2?"

exit codes:
  0 done or nothing to do   1 bad data, missing file or package   2 usage
  3 not converged (written) 4 refused: results of other settings  130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the name of the program; those of the process by default.

    Returns
    -------
    int
        The exit code; see the module.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console(json="--json" in arguments, quiet="--quiet" in arguments)
    debug = "--debug" in arguments
    try:
        return _run(arguments, console)
    except SystemExit as end:  # --help and --version
        return OK if end.code is None else int(end.code)
    except KeyboardInterrupt:
        return _fail(console, INTERRUPTED, "interrupted; the same command continues")
    except BrokenPipeError:
        # Whoever read the output has gone: let the interpreter not trip over it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_INPUT
    except Exception as error:
        if debug:
            traceback.print_exc()
        text = str(error) or type(error).__name__
        if isinstance(error, UsageError):
            return _fail(console, USAGE, text)
        if isinstance(error, OtherSettingsError):
            return _fail(console, REFUSED, f"{text} (--overwrite)")
        if isinstance(error, ValueError | TypeError | OSError | ImportError | MemoryError):
            return _fail(console, BAD_INPUT, text)
        name = type(error).__name__
        return _fail(console, BAD_INPUT, f"{name}: {text} (--debug shows where)")


def build() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and that of each command."""
    parser = Parser(prog="cvxnn", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"cvxnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {}
    for name, module in COMMANDS.items():
        parsers[name] = commands.add_parser(
            name,
            help=module.HELP,
            description=(module.__doc__ or "").strip(),
            epilog=f"example:\n{module.EXAMPLE}",
        )
        module.add_arguments(parsers[name])
        common_options(parsers[name])
    return parser, parsers


def _run(arguments: list[str], console: Console) -> int:
    parser, parsers = build()
    if arguments and arguments[0] in parsers:
        command, given = arguments[0], arguments[1:]
        known, _ = _config_only().parse_known_args(given)
        if known.config is not None:
            from_file(known.config, command, parsers, given)
            arguments = [command, *given]
    options = parser.parse_args(arguments)
    console.json, console.quiet = options.json, options.quiet
    with console.guard():
        result = COMMANDS[options.command].run(options, console)
    console.finish(result)
    return NOT_CONVERGED if result.get("converged") is False else OK


def _config_only() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument("--config")
    return parser


def _fail(console: Console, code: int, text: str) -> int:
    console.complain("error", text)
    console.finish({"error": text, "exit_code": code})
    return code
