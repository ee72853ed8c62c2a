"""Write a comparison as one HTML page: tables, curves, replies side by side.

The page is self-contained: it needs no network and loads nothing from anywhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import required
from cvxnn.cli.option_building import option_from
from cvxnn.files.locks import check_page
from cvxnn.files.writing import write_text

HELP = "write one self-contained HTML page of a comparison"
EXAMPLE = "  cvxnn report comparison --examples replies.jsonl --output report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command; see ``command.py``."""
    parser.add_argument(
        "results", nargs="?", metavar="RESULTS", help="Folder of cvxnn compare, or its JSON file"
    )
    parser.add_argument("--output", default="report.html", metavar="FILE", help="File for the page")
    parser.add_argument(
        "--examples",
        metavar="FILE",
        help="Replies of cvxnn generate --output; by default those in the folder, if any",
    )
    parser.add_argument("--title", **option_from("cvxnn.comparison.render_report", "title"))


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run this command; see ``command.py``."""
    required(options, results="RESULTS")
    from cvxnn.comparison.results import REPLIES_FILE, RESULT_FILE, Comparison

    path = Path(options.results)
    folder = path if path.is_dir() else path.parent
    if path.is_dir() and not (path / RESULT_FILE).is_file():
        raise FileNotFoundError(
            f"{path} holds no comparison (it has no {RESULT_FILE}); cvxnn compare makes one"
        )
    if path.suffix == ".jsonl":
        raise ValueError(
            f"{path} is a file of replies; give the folder of cvxnn compare first, and the replies "
            f"to --examples: cvxnn report FOLDER --examples {path}"
        )
    comparison = Comparison.read(path / RESULT_FILE if path.is_dir() else path)
    replies = options.examples or folder / REPLIES_FILE
    examples = read_examples(replies) if options.examples or replies.exists() else []

    output = Path(options.output)
    console.made += check_page(output)

    from cvxnn.comparison.report import render_report

    text = render_report(comparison, examples, title=options.title)
    same = output.is_file() and output.read_bytes() == text.encode()
    if not same:
        write_text(output, text)
    status = "nothing to do" if same else "done"
    console.show(f"{'nothing to do:' if same else 'wrote'} {output}")
    return {"status": status, "output": str(output), "methods": comparison.methods}


def read_examples(path: str | Path) -> list[dict[str, Any]]:
    """Read the JSON lines that ``cvxnn generate`` wrote.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    list of dict
        One for each line.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not one of rows; the message names the line to correct or to remove.
    """
    from cvxnn.preference.row_files import read_rows

    return [row for _, row in read_rows(path)]
